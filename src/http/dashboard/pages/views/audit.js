// What was done, by whom.

import { get } from '../api.js';
import { h } from '../dom.js';
import { moment } from '../format.js';
import { badge, button, choice, empty, field, input, table } from '../parts.js';

const KINDS = ['login', 'login-refused', 'refused', 'session-started', 'session-ended', 'forward', 'link-made', 'link-opened', 'link-revoked', 'workspace', 'admin', 'recording', 'watch', 'reloaded', 'gateway-started', 'gateway-stopped'];
const FIRST = ['seq', 'at', 'event', 'actor', 'workspace', 'remote', 'connection', 'chain'];
/** Pages that are asked for at once at most, where few events are as wanted. */
const PAGES = 20;

export default {
    title: () => 'Audit',
    every: 20,
    state: () => ({ filter: {}, more: [], cursor: undefined }),

    async load({ signal, state }) {
        try {
            return await page(state.filter, null, signal);
        } catch (why) {
            if (why.status === 404) return null;
            throw why;
        }
    },

    render(first, ui) {
        const title = h('div.title', { key: 'title' }, h('h1', {}, 'Audit'));
        if (!first) return [title, empty('There is no audit trail: audit.enabled is false.')];
        const { state } = ui;
        const onsubmit = (event) => {
            event.preventDefault();
            state.filter = Object.fromEntries([...new FormData(event.target)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value));
            for (const name of ['since', 'until']) if (state.filter[name]) state.filter[name] = new Date(state.filter[name]).toISOString().replace(/\.\d+Z$/, 'Z');
            [state.more, state.cursor] = [[], undefined];
            ui.reload();
        };
        const next = state.cursor === undefined ? first.next : state.cursor;
        const older = async () => {
            const more = await page(state.filter, next, ui.signal);
            const known = new Set([...first.items, ...state.more].map((one) => one.seq));
            state.more.push(...more.items.filter((one) => !known.has(one.seq)));
            state.cursor = more.next;
            ui.again();
        };
        const rows = [...new Map([...first.items, ...state.more].map((one) => [one.seq, one])).values()];
        return [
            title,
            h('form.filters', { onsubmit, key: 'filters', role: 'search' },
                field('Kind', choice('kind', [['', 'Any'], ...KINDS.map((kind) => [kind, kind])], '')),
                field('Account', input('account', { type: 'search' })), field('Workspace', input('workspace')),
                field('From', input('since', { type: 'datetime-local' })), field('To', input('until', { type: 'datetime-local' })),
                h('button.button.is-plain', { type: 'submit' }, 'Find')),
            h('section.panel.is-table', { key: 'table' }, table({
                caption: 'Audit trail, the newest first', rows, key: (one) => one.seq, none: 'Nothing is like that.',
                columns: [
                    { name: 'at', title: 'When', class: 'name', cell: (one) => h('time', { title: one.at }, moment(one.at)) },
                    { name: 'event', title: 'What', cell: (one) => badge(one.event, tone(one)) },
                    { name: 'actor', title: 'Who', class: 'actor', cell: (one) => actor(one.actor) },
                    { name: 'workspace', title: 'Workspace', cell: (one) => (one.workspace ? h('a', { href: `#/workspaces/${one.workspace}` }, one.workspace) : '–') },
                    { name: 'remote', title: 'From', cell: (one) => one.remote ?? '–' },
                    { name: 'rest', title: 'More', class: 'long', cell: (one) => rest(one) },
                ],
            })),
            next ? h('div.pager', { key: 'pager' }, button('Older', older)) : null,
        ];
    },
};

async function page(filter, cursor, signal) {
    let [items, at] = [[], cursor];
    for (let asked = 0; asked < PAGES && items.length < 100; asked += 1) {
        const query = new URLSearchParams(filter);
        if (at) query.set('cursor', at);
        const answer = await get(`/audit?${query}`, signal);
        items = [...items, ...answer.items];
        at = answer.next;
        if (!at) break;
    }
    return { items, next: at };
}

function tone(one) {
    if (['login-refused', 'refused'].includes(one.event) || String(one.outcome ?? '').startsWith('refused')) return 'warn';
    return one.event === 'admin' ? 'busy' : 'plain';
}

function actor(who) {
    if (typeof who !== 'object' || who === null) return String(who);
    return Object.entries(who).map(([kind, name]) => (name ? `${kind} ${name}` : kind)).join(', ');
}

/** A container’s id as others write it too. */
function short(text) {
    return /^[0-9a-f]{64}$/.test(text) ? text.slice(0, 12) : text;
}

function rest(one) {
    const more = Object.entries(one).filter(([name]) => !FIRST.includes(name));
    return more.map(([name, value]) => `${name}: ${typeof value === 'string' ? short(value) : JSON.stringify(value)}`).join(' · ');
}
