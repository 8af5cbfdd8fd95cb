// The gateway itself: its engine, its configuration, the tokens that open it, and what keeps workspaces running.

import { get, list, may, send } from '../api.js';
import { h } from '../dom.js';
import { ago, moment } from '../format.js';
import { act, badge, button, choice, confirm, copied, facts, field, input, panel, table, tell } from '../parts.js';

const NAME = '[a-z0-9][a-z0-9\\-]{0,31}';
const SCOPES = [['read', 'read: looking on'], ['provision', 'provision: making tenants'], ['admin', 'admin: everything'], ['workspace', 'one workspace']];

export default {
    title: () => 'Gateway',
    every: 15,
    wants: (event) => event.name.startsWith('session'),

    async load({ signal }) {
        const [engines, leases, tokens] = await Promise.all([list('/engines', signal), list('/leases', signal), may() ? list('/tokens', signal) : null]);
        return { engines, leases, tokens };
    },

    render({ engines, leases, tokens }, ui) {
        return [
            h('h1', { key: 'title' }, 'Gateway'),
            h('div.panels', { key: 'panels' }, enginesPanel(engines), may() ? configurationPanel(ui) : null, leasesPanel(leases),
                tokens ? tokensPanel(tokens, ui) : null),
        ];
    },
};

function enginesPanel(engines) {
    return panel(engines.length === 1 ? 'Engine' : 'Engines', { id: 'engine' }, engines.map((engine) => h('div', { key: engine.name },
        h('p', {}, `${engine.name}: ${engine.kind} `, badge(engine.answers ? 'answers' : 'silent', engine.answers ? 'good' : 'bad')),
        engine.answers
            ? facts(['At', engine.address], ['Version', engine.version], ['Its API', engine.api])
            : h('p.trouble', {}, engine.why))));
}

function configurationPanel(ui) {
    const told = ({ changed, needs_restart: later }) => {
        const now = changed.length ? `Loaded; changed: ${changed.join(', ')}` : 'Loaded; nothing has changed';
        return later.length ? `${now}. Only a restart applies ${later.join(', ')}` : now;
    };
    const load = () => act(ui, 'Loading the configuration', () => send('POST', '/reload'), told);
    return panel('Configuration', { id: 'configuration' },
        h('p.muted', {}, 'What the file says is gone by when it is loaded. One that cannot be used changes nothing, and it is said what is wrong with it. A pool that was resized, paused or drained is then again as it says.'),
        h('div.actions', {}, button('Load it again', load)));
}

function leasesPanel(leases) {
    return panel('What keeps workspaces running', { id: 'leases' }, table({
        caption: 'Leases', rows: leases, key: (one) => one.workspace, none: 'Nobody uses any.', small: true,
        columns: [
            { name: 'workspace', title: 'Workspace', class: 'name', cell: (one) => h('a', { href: `#/workspaces/${one.workspace}` }, one.workspace) },
            { name: 'leases', title: 'Sessions, forwards, connections', class: 'number', cell: (one) => one.leases },
        ],
    }));
}

function tokensPanel(tokens, ui) {
    const onsubmit = async (event) => {
        event.preventDefault();
        const [form, said] = [event.target, new FormData(event.target)];
        const scope = said.get('scope') === 'workspace' ? `workspace:${said.get('workspace').trim()}` : said.get('scope');
        const body = { name: said.get('name'), scopes: [scope], expires_in: said.get('expires_in').trim() || null };
        const made = await act(ui, `Making ${body.name}`, () => send('POST', '/tokens', body, { once: true }));
        if (!made) return;
        form.reset();
        tell(`The token ${made.name}`, h('p', {}, 'It is shown this once.'), copied('Token', made.token));
    };
    const revoke = async (one) => {
        const words = 'From now on it opens nothing, and who has logged in with it is put out.';
        if (await confirm({ title: `Revoke ${one.name}?`, words, act: 'Revoke', danger: true })) await act(ui, `Revoking ${one.name}`, () => send('DELETE', `/tokens/${one.name}`), `${one.name} opens nothing any more`);
    };
    return panel('Tokens', { id: 'tokens', wide: true },
        table({
            caption: 'Tokens', rows: tokens, key: (one) => one.name, none: 'There are none.',
            columns: [
                { name: 'name', title: 'Token', class: 'name', cell: (one) => one.name },
                { name: 'scopes', title: 'Opens', cell: (one) => one.scopes.join(', ') },
                { name: 'made', title: 'Made', cell: (one) => moment(one.made) },
                { name: 'expires', title: 'Expires', cell: (one) => (one.expired ? badge('expired', 'warn') : one.expires ? moment(one.expires) : 'never') },
                { name: 'used', title: 'Last used', cell: (one) => (one.used ? ago(one.used) : 'never') },
                { name: 'acts', title: '', class: 'acts', cell: (one) => button('Revoke', () => revoke(one)) },
            ],
        }),
        h('form', { onsubmit, 'data-kept': true, key: 'token' },
            h('div.fields', {},
                field('Name', input('name', { required: true, pattern: NAME, title: 'small letters, digits and dashes' })),
                field('Opens', choice('scope', SCOPES, 'read')),
                field('Which workspace', input('workspace', { pattern: NAME, placeholder: 'where it is one' })),
                field('Expires in', input('expires_in', { pattern: '[1-9][0-9]{0,3}[smhd]', placeholder: 'never', title: 'as 90d or 12h' }))),
            h('div.actions', {}, h('button.button.is-plain', { type: 'submit' }, 'Make a token'))));
}
