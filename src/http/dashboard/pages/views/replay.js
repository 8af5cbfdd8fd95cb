// A recording, played.

import { get, stream } from '../api.js';
import { h } from '../dom.js';
import { clock, moment } from '../format.js';
import { choice } from '../parts.js';
import { screen } from '../screen.js';

const SPEEDS = [['0.5', '½ ×'], ['1', '1 ×'], ['2', '2 ×'], ['4', '4 ×'], ['8', '8 ×'], ['16', '16 ×']];
/** Seconds that a pause takes at most. */
const PAUSE = 2;

export default {
    title: () => 'Recording',
    every: 3600,
    state: () => ({ at: 0, speed: '1', playing: false }),

    async load({ argument, signal, state, again }) {
        const one = await get(`/recordings/${encodeURIComponent(argument)}`, signal);
        if (!state.screen) {
            state.screen = screen(`Recording of ${one.account}`);
            state.seconds = one.seconds ?? 0;
            play(one, state, again);
        }
        return one;
    },

    leave: ({ state }) => state.close?.(),

    render(one, { state, again }) {
        const toggle = () => (state.playing ? pause(state, again) : play(one, state, again));
        const seek = (event) => {
            state.at = Number(event.target.value);
            play(one, state, again);
        };
        const faster = (event) => {
            state.speed = event.target.value;
            if (state.playing) play(one, state, again);
        };
        return [
            h('div.title', { key: 'title' }, h('a.back', { href: '#/recordings', 'aria-label': 'All recordings' }, '‹'), h('h1', {}, one.account),
                h('span.muted', {}, 'in ', h('a', { href: `#/workspaces/${one.workspace}` }, one.workspace), `, ${moment(one.started)}`)),
            h('section.panel', { key: 'screen' }, state.screen.node,
                h('div.player', { key: 'player' },
                    h('button.button.is-main', { type: 'button', onclick: toggle }, state.playing ? 'Pause' : 'Play'),
                    h('input', { type: 'range', min: 0, max: Math.max(1, Math.ceil(state.seconds)), step: 1, 'aria-label': 'Place', onchange: seek }),
                    h('span.number', {}, `${clock(state.at)} / ${clock(state.seconds)}`),
                    choice('speed', SPEEDS, state.speed, { 'aria-label': 'Speed', onchange: faster }))),
        ];
    },
};

function play(one, state, again) {
    state.close?.();
    if (state.at >= state.seconds - 0.5) state.at = 0;
    state.playing = true;
    const drawn = (frame) => {
        state.screen.draw(frame);
        state.at = frame.time;
        moved(state);
        again();
    };
    const ended = () => {
        state.at = state.seconds;
        pause(state, again);
    };
    const query = new URLSearchParams({ speed: state.speed, from: String(Math.floor(state.at)), idle: String(PAUSE) });
    state.close = stream(`/recordings/${encodeURIComponent(one.id)}/frames?${query}`,
        { frame: drawn, end: ended, error: (why) => { state.screen.say(why.detail ?? 'It cannot be read.'); pause(state, again); } },
        // What broke off is not begun anew by itself.
        () => pause(state, again));
    again();
}

/** The slider goes along, unless somebody has hold of it. */
function moved({ at, screen }) {
    const place = screen.node.parentNode?.querySelector('[type=range]');
    if (place && !place.matches(':active')) place.value = String(Math.round(at));
}

function pause(state, again) {
    state.close?.();
    state.playing = false;
    moved(state);
    again();
}
