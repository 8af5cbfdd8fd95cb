// Recordings of terminals.

import { get, may, maybe, send } from '../api.js';
import { h } from '../dom.js';
import { bytes, clock, moment } from '../format.js';
import { act, badge, button, confirm, empty, input, table } from '../parts.js';

export default {
    title: () => 'Recordings',
    every: 15,
    wants: (event) => event.name === 'session-ended',
    state: () => ({ account: '', workspace: '', more: [], cursor: undefined }),

    async load({ signal, state }) {
        const query = new URLSearchParams({ limit: '100' });
        if (state.account) query.set('account', state.account);
        if (state.workspace) query.set('workspace', state.workspace);
        return { page: await maybe(`/recordings?${query}`, signal), query };
    },

    render({ page, query }, ui) {
        const { state } = ui;
        const title = h('div.title', { key: 'title' }, h('h1', {}, 'Recordings'));
        if (!page) return [title, empty('This gateway keeps no recordings.')];
        const rows = [...page.items, ...state.more];
        const next = state.cursor === undefined ? page.next : state.cursor;
        const onsubmit = (event) => {
            event.preventDefault();
            const said = new FormData(event.target);
            Object.assign(state, { account: said.get('account').trim(), workspace: said.get('workspace').trim(), more: [], cursor: undefined });
            ui.reload();
        };
        const older = async () => {
            query.set('cursor', next);
            const more = await get(`/recordings?${query}`, ui.signal);
            state.more.push(...more.items);
            state.cursor = more.next;
            ui.again();
        };
        const remove = async (one) => {
            const sure = await confirm({ title: 'Remove this recording?', words: `Of ${one.account} in ${one.workspace}, ${moment(one.started)}. It cannot be had back.`, act: 'Remove', danger: true });
            if (!sure) return;
            state.more = state.more.filter((other) => other.id !== one.id);
            await act(ui, 'Removing the recording', () => send('DELETE', `/recordings/${one.id}`), 'The recording is gone');
        };
        const columns = [
            { name: 'started', title: 'Began', class: 'name', cell: (one) => (may() ? h('a', { href: `#/recordings/${one.id}` }, moment(one.started)) : moment(one.started)) },
            { name: 'account', title: 'Account', cell: (one) => one.account },
            { name: 'workspace', title: 'Workspace', cell: (one) => h('a', { href: `#/workspaces/${one.workspace}` }, one.workspace) },
            { name: 'seconds', title: 'Length', class: 'number', cell: (one) => (one.seconds === null ? '–' : clock(one.seconds)) },
            { name: 'bytes', title: 'Size', class: 'number', cell: (one) => bytes(one.bytes) },
            { name: 'state', title: 'State', cell: (one) => [badge(one.state), one.encrypted ? badge('encrypted', 'plain') : null] },
            { name: 'acts', title: '', class: 'acts', cell: (one) => (may() ? [
                h('a.button.is-plain', { href: `#/recordings/${one.id}` }, 'Play'),
                h('a.button.is-plain', { href: `/api/v1/recordings/${encodeURIComponent(one.id)}/download`, download: '' }, 'Download'),
                one.state === 'recording' ? null : button('Remove', () => remove(one)),
            ] : null) },
        ];
        return [
            title,
            h('form.filters', { onsubmit, key: 'filters', role: 'search' },
                input('account', { type: 'search', placeholder: 'Account', 'aria-label': 'Account' }), input('workspace', { placeholder: 'Workspace', 'aria-label': 'Workspace' }),
                h('button.button.is-plain', { type: 'submit' }, 'Find')),
            h('section.panel.is-table', { key: 'table' }, table({
                caption: 'Recordings', columns, rows, key: (one) => one.id,
                none: state.account || state.workspace ? 'None is like that.' : 'There are none. A template says whether its terminals are recorded.',
            })),
            next ? h('div.pager', { key: 'pager' }, button('Older', older)) : null,
        ];
    },
};
