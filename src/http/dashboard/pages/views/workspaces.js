// All workspaces: found, sorted, and what each uses of what it may.

import { follow, list, may, maybe } from '../api.js';
import { h } from '../dom.js';
import { ago, bytes, cores, moment, plain, span } from '../format.js';
import { act, badge, button, choice, inOrder, input, meter, panel, table } from '../parts.js';

/** Rows that are shown at once. */
const ROWS = 50;

const share = (one, what) => {
    const [used, most] = [one.usage?.[what], one.allowed?.[what]];
    return used === null || used === undefined ? null : most ? used / most : used;
};

const COLUMNS = [
    { name: 'name', title: 'Workspace', class: 'name', cell: (one) => h('a', { href: `#/workspaces/${one.name}` }, one.name), sort: (one) => one.name },
    { name: 'state', title: 'State', cell: (one) => [badge(one.state), one.suspended && one.state !== 'suspended' ? badge('suspended') : null], sort: (one) => one.state },
    { name: 'template', title: 'Template', cell: (one) => one.template, sort: (one) => one.template },
    ...[['cpu', 'CPU', cores], ['memory', 'Memory', bytes], ['disk', 'Disk', bytes]].map(([name, title, format]) => ({
        name, title, downFirst: true, class: 'measure',
        cell: (one) => meter(one.usage?.[name], one.allowed?.[name], format, { label: title, compact: true }),
        sort: (one) => share(one, name),
    })),
    { name: 'idle', title: 'Idle', class: 'number', cell: (one) => (one.leases ? `in use${one.leases > 1 ? ` × ${one.leases}` : ''}` : span(one.idle_seconds)), sort: (one) => (one.leases ? -one.leases : one.idle_seconds), downFirst: true },
    { name: 'login', title: 'Last login', class: 'number', cell: (one) => h('time', { title: moment(one.last_login) }, ago(one.last_login)), sort: (one) => one.last_login, downFirst: true },
];

export default {
    title: () => 'Workspaces',
    every: 8,
    wants: (event) => event.name !== 'session-began' && event.name !== 'session-ended',
    state: () => ({ search: '', in: '', template: '', sort: 'name', down: false, page: 0 }),

    async load({ signal }) {
        const [all, deleted] = await Promise.all([list('/workspaces', signal), may('read') ? maybe('/deleted?limit=1000', signal) : null]);
        return { all, deleted: deleted?.items ?? [] };
    },

    render({ all, deleted }, ui) {
        const { state } = ui;
        const wanted = plain(state.search.trim());
        const found = all.filter((one) =>
            (!state.in || one.state === state.in) && (!state.template || one.template === state.template) && (!wanted || plain(one.name).includes(wanted)));
        const pages = Math.max(1, Math.ceil(found.length / ROWS));
        state.page = Math.min(state.page, pages - 1);
        const by = COLUMNS.find((column) => column.name === state.sort);
        const rows = inOrder(found, by, state.down, (one) => one.name).slice(state.page * ROWS, (state.page + 1) * ROWS);
        const set = (name) => (event) => {
            [state[name], state.page] = [event.target.value, 0];
            ui.again();
        };
        const turn = (by) => () => {
            state.page += by;
            ui.again();
        };
        return [
            h('div.title', { key: 'title' }, h('h1', {}, 'Workspaces'), h('span.muted', {}, found.length === all.length ? all.length : `${found.length} of ${all.length}`),
                may('provision') ? h('a.button.is-main', { href: '#/new' }, 'New …') : null),
            h('div.filters', { key: 'filters', role: 'search' },
                input('search', { type: 'search', placeholder: 'Search  ( / )', 'aria-label': 'Search by name', oninput: set('search') }),
                choice('state', [['', 'Any state'], ...words(all, 'state')], state.in, { 'aria-label': 'State', onchange: set('in') }),
                choice('template', [['', 'Any template'], ...words(all, 'template')], state.template, { 'aria-label': 'Template', onchange: set('template') })),
            h('section.panel.is-table', { key: 'table' }, table({
                caption: 'Workspaces', columns: COLUMNS, rows, key: (one) => one.name, state, again: ui.again,
                none: all.length ? 'None is like that.' : 'There are no workspaces yet. Each account gets one at its first login, or make one here.',
            })),
            pages > 1 ? h('nav.pager', { key: 'pager', 'aria-label': 'Pages of the list' },
                button('Back', turn(-1), { disabled: state.page === 0 }), h('span', {}, `${state.page + 1} of ${pages}`),
                button('On', turn(1), { disabled: state.page === pages - 1 })) : null,
            deleted.length ? deletedPanel(deleted, ui) : null,
        ];
    },
};

/** Those that can be had back for a while. */
function deletedPanel(deleted, ui) {
    const back = (name) => act(ui, `Bringing ${name} back`, (told) => follow('POST', `/workspaces/${encodeURIComponent(name)}/undelete`, undefined, told), `${name} is back`);
    return panel('Deleted', { id: 'deleted' }, table({
        caption: 'Deleted workspaces', rows: deleted, key: (one) => one.name,
        columns: [
            { name: 'name', title: 'Workspace', class: 'name', cell: (one) => one.name },
            { name: 'state', title: 'State', cell: (one) => badge(one.state) },
            { name: 'deleted', title: 'Deleted', cell: (one) => moment(one.deleted) },
            { name: 'until', title: 'Gone for good', cell: (one) => moment(one.until) },
            { name: 'bytes', title: 'Size', class: 'number', cell: (one) => bytes(one.bytes) },
            { name: 'acts', title: '', class: 'acts', cell: (one) => (may() && one.state === 'deleted' ? button('Have back', () => back(one.name)) : null) },
        ],
    }));
}

function words(all, what) {
    const counts = new Map();
    for (const one of all) counts.set(one[what], (counts.get(one[what]) ?? 0) + 1);
    return [...counts].sort().map(([word, number]) => [word, `${word} (${number})`]);
}
