// A terminal that is in use, as its user sees it. Looking on types nothing.

import { get, stream } from '../api.js';
import { h } from '../dom.js';
import { screen } from '../screen.js';

export default {
    title: (id) => `Session ${id}`,
    every: 3600,
    state: () => ({}),

    async load({ argument, state }) {
        state.screen ??= screen(`Terminal of session ${argument}`);
        const one = (await get('/sessions?limit=1000')).items.find((session) => String(session.id) === argument);
        if (!state.close && one) {
            state.screen.say('Waiting for the screen …');
            const ended = () => {
                state.close?.();
                state.screen.say('The session is over.');
            };
            state.close = stream(`/sessions/${encodeURIComponent(argument)}/watch`, { frame: state.screen.draw, end: ended },
                (closed) => closed && state.screen.say('This session cannot be watched: its template does not say so, it has no terminal, or too many look on.'));
        }
        return { one };
    },

    leave: ({ state }) => state.close?.(),

    render({ one }, { argument, state }) {
        return [
            h('div.title', { key: 'title' }, h('h1', {}, one ? one.account : `Session ${argument}`),
                one ? h('span.muted', {}, 'in ', h('a', { href: `#/workspaces/${one.workspace}` }, one.workspace)) : null),
            one ? h('section.panel', { key: 'screen' }, state.screen.node) : h('p.empty', {}, 'There is no such session, or it is over.'),
        ];
    },
};
