// Who is in.

import { list, may, send } from '../api.js';
import { h } from '../dom.js';
import { moment, plain, span } from '../format.js';
import { act, badge, button, confirm, input, table } from '../parts.js';

/** The table of sessions, which the page of a workspace has too. */
export function sessionsTable(rows, ui, without = []) {
    const columns = [
        { name: 'account', title: 'Account', class: 'name', cell: (one) => one.account, sort: (one) => one.account },
        { name: 'workspace', title: 'Workspace', cell: (one) => h('a', { href: `#/workspaces/${one.workspace}` }, one.workspace), sort: (one) => one.workspace },
        { name: 'since', title: 'Since', class: 'number', cell: (one) => moment(one.since), sort: (one) => one.since, downFirst: true },
        { name: 'lasted', title: 'For', class: 'number', cell: (one) => span(one.seconds), sort: (one) => one.seconds, downFirst: true },
        { name: 'recorded', title: 'Recorded', cell: (one) => (one.recording ? badge('recording') : '–') },
        { name: 'acts', title: '', class: 'acts', cell: (one) => (may(`workspace:${one.workspace}`) ? [
            one.watchable && may() ? h('a.button.is-plain', { href: `#/sessions/${one.id}` }, 'Watch') : null,
            button('End', () => end(one, ui), { 'aria-label': `End the session of ${one.account}` }),
        ] : null) },
    ];
    return table({
        caption: 'Sessions', rows, key: (one) => one.id, state: ui.state, again: ui.again, none: 'Nobody is in.',
        columns: columns.filter((column) => !without.includes(column.name)),
    });
}

async function end(one, ui) {
    const sure = await confirm({ title: `End this session of ${one.account}?`, words: 'Its process is hung up, and its client is told why.', act: 'End session', danger: true });
    if (sure) await act(ui, 'Ending the session', () => send('DELETE', `/workspaces/${encodeURIComponent(one.workspace)}/sessions/${one.id}`), 'The session is over');
}

export default {
    title: () => 'Sessions',
    every: 5,
    wants: (event) => event.name.startsWith('session'),
    state: () => ({ search: '', sort: 'since', down: true }),

    load: ({ signal }) => list('/sessions', signal),

    render(all, ui) {
        const wanted = plain(ui.state.search.trim());
        const rows = all.filter((one) => !wanted || plain(`${one.account} ${one.workspace}`).includes(wanted));
        const oninput = (event) => {
            ui.state.search = event.target.value;
            ui.again();
        };
        return [
            h('div.title', { key: 'title' }, h('h1', {}, 'Sessions'), h('span.muted', {}, all.length)),
            h('div.filters', { key: 'filters', role: 'search' }, input('search', { type: 'search', placeholder: 'Search  ( / )', 'aria-label': 'Search', oninput })),
            h('section.panel.is-table', { key: 'table' }, sessionsTable(rows, ui)),
        ];
    },
};
