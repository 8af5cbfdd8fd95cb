// Everything that happens, as the gateway tells it. A page that is not looked at does not listen.

import { stream } from './api.js';

const NAMES = ['workspace', 'changed', 'made', 'session-began', 'session-ended'];
/** The last events, the newest first. */
export const news = [];
const KEPT = 40;
/** How long after a stream has broken off another is tried, in milliseconds. */
const AGAIN = 3000;

let close = null;
let timer = null;
let listener = () => {};
/** `live`, `quiet` (nobody looks) or `lost`. */
export let state = 'quiet';

/** Listens from now on; `heard(event)` is called for each event, and with null when what was missed is not known. */
export function listen(heard) {
    listener = heard;
    document.onvisibilitychange = () => (document.hidden ? stop('quiet') : start());
    start();
}

export function end() {
    listener = () => {};
    document.onvisibilitychange = null;
    stop('quiet');
    news.length = 0;
}

function stop(why) {
    clearTimeout(timer);
    close?.();
    close = null;
    change(why);
}

function start() {
    stop(state);
    const on = { listening: () => change('live', true), missed: () => again() };
    for (const name of NAMES) {
        on[name] = (data) => {
            news.unshift({ name, ...data });
            news.length = Math.min(news.length, KEPT);
            listener({ name, ...data });
        };
    }
    close = stream('/events', on, () => again());
}

function again() {
    stop('lost');
    timer = setTimeout(start, AGAIN);
}

function change(now, look = false) {
    if (state === now && !look) return;
    state = now;
    listener(null);
}
