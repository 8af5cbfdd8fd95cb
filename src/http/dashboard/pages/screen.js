// A terminal as it looked: the gateway has drawn the screen already, and sends it as text and looks. Nothing in it is interpreted here.

import { fill, h, shown } from './dom.js';

// The sixteen colours have names in the style sheet; of the others, those of the cube and of grey are made up as xterm does.
const COLOURS = 16;

/** A place for frames: `node`, and `draw(frame)`. */
export function screen(label) {
    const node = h('div.screen', { key: 'screen', role: 'img', 'aria-label': label, tabindex: '0', 'data-kept': true }, h('pre'));
    let last = null;
    const fit = () => last && scale(node, last.columns);
    new ResizeObserver(fit).observe(node);
    return {
        node,
        draw: (frame) => {
            last = frame;
            node.classList.add('has-frame');
            fill(node.firstChild, frame.lines.map((line, row) => drawn(line, row, frame)));
            fit();
        },
        say: (words) => {
            node.classList.remove('has-frame');
            fill(node.firstChild, document.createTextNode(words));
        },
    };
}

function scale(node, columns) {
    const room = node.clientWidth - 24;
    node.firstChild.style.fontSize = `${Math.max(4, Math.min(16, room / (columns * 0.61))).toFixed(2)}px`;
}

function drawn(line, row, { columns, cursor, looks = [] }) {
    const cells = cellsOf(line);
    while (cells.length < columns) cells.push(' ');
    const mine = looks.filter((look) => look.row === row).sort((one, other) => one.column - other.column);
    const pieces = [];
    let at = 0;
    const take = (to, look) => {
        if (to > at) pieces.push([cells.slice(at, to).join(''), look, at]);
        at = Math.max(at, to);
    };
    for (const look of mine) {
        take(Math.min(look.column, columns), null);
        take(Math.min(look.column + look.length, columns), look);
    }
    take(columns, null);
    const here = cursor?.visible && cursor.row === row ? cursor.column : null;
    const parts = pieces.flatMap(([text, look, from]) => {
        const own = cellsOf(text);
        if (here === null || here < from || here >= from + own.length) return [styled(text, look, false)];
        const cut = here - from;
        return [styled(own.slice(0, cut).join(''), look, false), styled(own[cut] || ' ', look, true), styled(own.slice(cut + 1).join(''), look, false)];
    });
    return h('div.screen-line', {}, parts.filter(Boolean));
}

/** Columns of a line: a wide character has two, of which the second is empty. */
function cellsOf(text) {
    const cells = [];
    for (const sign of text) {
        const point = sign.codePointAt(0);
        if (cells.length && /\p{M}|\u200d|\ufe0f/u.test(sign)) cells[cells.length - 1] += sign;
        else cells.push(sign);
        if (isWide(point)) cells.push('');
    }
    return cells;
}

function isWide(point) {
    return (point >= 0x1100 && point <= 0x115f) || (point >= 0x2e80 && point <= 0xa4cf) || (point >= 0xac00 && point <= 0xd7a3) ||
        (point >= 0xf900 && point <= 0xfaff) || (point >= 0xfe30 && point <= 0xfe6f) || (point >= 0xff00 && point <= 0xff60) ||
        (point >= 0x1f300 && point <= 0x1f64f) || (point >= 0x1f900 && point <= 0x1f9ff) || (point >= 0x20000 && point <= 0x3fffd);
}

const MARKS = ['bold', 'faint', 'italic', 'underline', 'inverse', 'strikethrough'];

function styled(text, look, cursor) {
    if (text === '') return null;
    const classes = MARKS.filter((mark) => look?.[mark]);
    if (cursor) classes.push('cursor-here');
    const node = h('span', { class: classes.join(' ') });
    node.textContent = shown(text);
    paint(node, 'fg', look?.foreground, 'color');
    paint(node, 'bg', look?.background, 'backgroundColor');
    return node;
}

function paint(node, prefix, colour, property) {
    if (colour === undefined || colour === null) return;
    if (typeof colour === 'number' && colour < COLOURS) node.classList.add(`${prefix}-${colour}`);
    else if (typeof colour === 'number') node.style[property] = cube(colour);
    else if (/^#[0-9a-f]{6}$/i.test(colour)) node.style[property] = colour;
}

function cube(index) {
    if (index >= 232) {
        const grey = 8 + (index - 232) * 10;
        return `rgb(${grey}, ${grey}, ${grey})`;
    }
    const level = (step) => (step ? 55 + step * 40 : 0);
    const rest = index - 16;
    return `rgb(${level(Math.floor(rest / 36))}, ${level(Math.floor(rest / 6) % 6)}, ${level(rest % 6)})`;
}
