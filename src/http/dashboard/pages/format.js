// Figures as people read them.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function bytes(number) {
    if (number === null || number === undefined) return '–';
    let unit = 0;
    let rest = number;
    while (rest >= 1024 && unit < UNITS.length - 1) {
        rest /= 1024;
        unit += 1;
    }
    return `${rest >= 100 || unit === 0 || Number.isInteger(rest) ? Math.round(rest) : rest.toFixed(1)} ${UNITS[unit]}`;
}

export function cores(number) {
    if (number === null || number === undefined) return '–';
    return number >= 10 ? number.toFixed(0) : number >= 1 || number === 0 ? String(Number(number.toFixed(1))) : number.toFixed(2);
}

export function percent(share) {
    if (share === null || share === undefined) return '–';
    const hundred = share * 100;
    return `${hundred < 10 && hundred > 0 ? hundred.toFixed(1) : Math.round(hundred)} %`;
}

/** How long: `4 s`, `12 min`, `3 h 5 min`, `2 d 4 h`. */
export function span(seconds) {
    if (seconds === null || seconds === undefined) return '–';
    const whole = Math.round(seconds);
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min`;
    if (whole < 86400) return pair(whole, 3600, 'h', 60, 'min');
    return pair(whole, 86400, 'd', 3600, 'h');
}

function pair(whole, large, largeName, small, smallName) {
    const rest = Math.floor((whole % large) / small);
    return `${Math.floor(whole / large)} ${largeName}${rest ? ` ${rest} ${smallName}` : ''}`;
}

/** A place in a recording: `1:02:03`, `4:05`. */
export function clock(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    const two = (number) => String(number).padStart(2, '0');
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
    return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** How long something takes that is quick: `8 ms`, `1.4 s`. */
export function latency(seconds) {
    if (seconds === null || seconds === undefined) return '–';
    if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
    if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
    return `${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
}

/** A moment, as its local time; of today without the day. */
export function moment(text) {
    if (!text) return '–';
    const at = new Date(text);
    if (Number.isNaN(at.getTime())) return text;
    const today = at.toDateString() === new Date().toDateString();
    const time = at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
    return today ? time : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

function two(number) {
    return String(number).padStart(2, '0');
}

/** How long ago a moment is. */
export function ago(text) {
    if (!text) return 'never';
    const seconds = (Date.now() - new Date(text).getTime()) / 1000;
    return seconds < 5 ? 'just now' : `${span(seconds)} ago`;
}

export function count(number, one, many) {
    return `${number} ${number === 1 ? one : many}`;
}

/** Text for a search: without case, and without marks on letters. */
export function plain(text) {
    return String(text).normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();
}
