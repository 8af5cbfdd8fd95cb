// Who can log in by the accounts file.

import { getTagged, list, may, send } from '../api.js';
import { h } from '../dom.js';
import { count, plain } from '../format.js';
import { act, button, confirm, empty, field, input, table } from '../parts.js';

const address = (name) => `/accounts/${encodeURIComponent(name)}`;

export default {
    title: () => 'Accounts',
    every: 15,
    wants: (event) => event.name === 'made',
    state: () => ({ search: '', sort: 'name', down: false }),

    async load({ signal }) {
        try {
            return await list('/accounts', signal);
        } catch (why) {
            if (why.status === 404) return null;
            throw why;
        }
    },

    render(all, ui) {
        if (!all) return [h('h1', { key: 'title' }, 'Accounts'), empty('People do not log in here by an accounts file: where they are kept, they are changed.')];
        const { state } = ui;
        const wanted = plain(state.search.trim());
        const rows = all.filter((one) => !wanted || plain(`${one.name} ${one.workspace}`).includes(wanted));
        const oninput = (event) => {
            state.search = event.target.value;
            ui.again();
        };
        const columns = [
            { name: 'name', title: 'Account', class: 'name', cell: (one) => one.name, sort: (one) => one.name },
            { name: 'workspace', title: 'Workspace', cell: (one) => h('a', { href: `#/workspaces/${one.workspace}` }, one.workspace), sort: (one) => one.workspace },
            { name: 'template', title: 'Template', cell: (one) => one.template ?? '–' },
            { name: 'password', title: 'Password', cell: (one) => (one.password ? 'yes' : 'no') },
            { name: 'keys', title: 'Keys', class: 'number', cell: (one) => h('span', { title: one.key_list.map((key) => `${key.fingerprint} ${key.comment}`).join(', ') }, one.keys), sort: (one) => one.keys, downFirst: true },
            { name: 'acts', title: '', class: 'acts', cell: (one) => (may() ? [
                button('Password', () => setPassword(one, ui)), button('Add key', () => addKeys(one, ui)), button('Remove', () => remove(one, ui)),
            ] : null) },
        ];
        return [
            h('div.title', { key: 'title' }, h('h1', {}, 'Accounts'), h('span.muted', {}, rows.length === all.length ? all.length : `${rows.length} of ${all.length}`),
                may('provision') ? h('a.button.is-main', { href: '#/new' }, 'New …') : null),
            h('div.filters', { key: 'filters', role: 'search' }, input('search', { type: 'search', placeholder: 'Search  ( / )', 'aria-label': 'Search by account or workspace', oninput })),
            h('section.panel.is-table', { key: 'table' }, table({
                caption: 'Accounts', columns, rows, key: (one) => one.name, state, again: ui.again, none: all.length ? 'None is like that.' : 'There are none yet.',
            })),
        ];
    },
};

/** Changes one, unless it was changed since it was asked about. */
async function change(one, ui, question, words, doing, done) {
    const tagged = await act(null, `Looking at ${one.name}`, () => getTagged(address(one.name)));
    if (!tagged) return;
    const said = await confirm(question);
    if (said) await act(ui, words, () => doing(said, { etag: tagged.etag }), done);
}

function setPassword(one, ui) {
    const fields = [field('Password', input('password', { type: 'password', required: true, autocomplete: 'new-password' }), 'In place of the one that it has, if it has one.')];
    return change(one, ui, { title: `A password for ${one.name}`, act: 'Set password', fields }, `Changing ${one.name}`,
        (said, held) => send('PUT', `${address(one.name)}/password`, { password: said.password }, held), `${one.name} has another password`);
}

function addKeys(one, ui) {
    const keys = h('textarea', { name: 'keys', rows: 3, required: true, placeholder: 'ssh-ed25519 AAAA…', spellcheck: 'false' });
    return change(one, ui, { title: `Keys for ${one.name}`, act: 'Add', fields: [field('Public keys', keys, 'One a line.')] }, `Changing ${one.name}`,
        (said, held) => send('POST', `${address(one.name)}/keys`, { keys: said.keys.split('\n').map((line) => line.trim()).filter(Boolean) }, held),
        (answer) => `${count(answer.added, 'key is', 'keys are')} new`);
}

function remove(one, ui) {
    return change(one, ui, { title: `Remove the account ${one.name}?`, words: `Nobody logs in by it any more. The workspace ${one.workspace} stays.`, act: 'Remove', danger: true },
        `Removing ${one.name}`, (_, held) => send('DELETE', address(one.name), undefined, held), `${one.name} cannot log in any more`);
}
