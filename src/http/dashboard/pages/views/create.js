// Making a tenant, or a workspace alone.

import { list, send } from '../api.js';
import { h } from '../dom.js';
import { act, choice, copied, field, input, panel, tell } from '../parts.js';

const NAME = '[a-z0-9][a-z0-9\\-]{0,31}';

export default {
    title: () => 'New',
    every: 3600,

    load: async ({ signal }) => (await list('/templates', signal)).map((one) => one.name),

    render(templates) {
        const names = templates.length ? templates : ['default'];
        return [
            h('h1', { key: 'title' }, 'New'),
            h('div.panels', { key: 'panels' }, tenant(names), workspace(names)),
        ];
    },
};

function templateField(names) {
    return field('Template', choice('template', names.map((name) => [name, name]), names.includes('default') ? 'default' : names[0]));
}

function limitFields() {
    return h('div.fields', {},
        field('CPUs', input('cpus', { inputmode: 'decimal', placeholder: 'template’s' })),
        field('Memory', input('memory', { placeholder: 'as 8GiB' })),
        field('Disk', input('disk', { placeholder: 'as 50GiB' })));
}

/** What a form says of limits; nothing where it says nothing. */
export function limitsOf(form) {
    const limits = {};
    for (const name of ['cpus', 'memory', 'pids', 'disk', 'inodes']) {
        const value = form.get(name)?.trim();
        if (value) limits[name] = ['cpus', 'pids', 'inodes'].includes(name) ? Number(value) : value.replaceAll(' ', '');
    }
    return Object.keys(limits).length ? limits : undefined;
}

function tenant(names) {
    const onsubmit = async (event) => {
        event.preventDefault();
        const said = new FormData(event.target);
        const keys = said.get('keys').split('\n').map((line) => line.trim()).filter(Boolean);
        const body = { account: said.get('account'), template: said.get('template'), keys, limits: limitsOf(said) };
        if (said.get('workspace')) body.workspace = said.get('workspace');
        const made = await act(null, `Making ${body.account}`, () => send('POST', '/tenants', body, { once: true }));
        if (!made) return;
        location.hash = `#/workspaces/${made.workspace}`;
        tell(`${made.account} can log in`, copied('Command', made.command), made.password ? copied('Password, shown this once', made.password) : null);
    };
    return panel('A tenant', {},
        h('p.muted', {}, 'An account and the workspace that it lands in, made ready at once.'),
        h('form', { onsubmit, 'data-kept': true, key: 'tenant' },
            field('Account', input('account', { required: true, maxlength: 256 }), 'The name to log in with.'),
            field('Public keys', h('textarea', { name: 'keys', rows: 3, placeholder: 'ssh-ed25519 AAAA…', spellcheck: 'false' }), 'One a line. Without any, a password is made up and shown once.'),
            field('Workspace', input('workspace', { pattern: NAME, placeholder: 'made from the account’s name' })),
            templateField(names), limitFields(),
            h('div.actions', {}, h('button.button.is-main', { type: 'submit' }, 'Make tenant'))));
}

function workspace(names) {
    const onsubmit = async (event) => {
        event.preventDefault();
        const said = new FormData(event.target);
        const of = said.get('copy_of');
        const body = of ? { name: said.get('name'), copy_of: of } : { name: said.get('name'), template: said.get('template'), limits: limitsOf(said) };
        const made = await act(null, `Making ${body.name}`, () => send('POST', '/workspaces', body, { once: true }), `${body.name} is made`);
        if (made) location.hash = `#/workspaces/${body.name}`;
    };
    return panel('A workspace', {},
        h('p.muted', {}, 'Without an account of its own. Its home is made at its first start.'),
        h('form', { onsubmit, 'data-kept': true, key: 'workspace' },
            field('Name', input('name', { required: true, pattern: NAME, title: 'small letters, digits and dashes' })),
            templateField(names), limitFields(),
            field('Copy of', input('copy_of', { pattern: NAME, placeholder: 'none' }), 'It gets what the other has; template and limits are the other’s then.'),
            h('div.actions', {}, h('button.button.is-main', { type: 'submit' }, 'Make workspace'))));
}
