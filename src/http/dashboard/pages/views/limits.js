// What is set of one workspace: limits, and when it is stopped and who reaches it.

import { may, send } from '../api.js';
import { h } from '../dom.js';
import { act, choice, field, input, panel } from '../parts.js';
import { limitsOf } from './create.js';

const LIMITS = [
    ['cpus', 'CPUs', { inputmode: 'decimal', pattern: '[0-9]+(\\.[0-9]+)?' }],
    ['memory', 'Memory', { pattern: '[0-9]{1,6} ?(MiB|GiB)', title: 'as 512MiB or 8GiB' }],
    ['disk', 'Disk', { pattern: '[0-9]{1,6} ?(MiB|GiB)', title: 'as 512MiB or 8GiB' }],
    ['pids', 'Processes', { inputmode: 'numeric', pattern: '[0-9]+' }],
    ['inodes', 'Files', { inputmode: 'numeric', pattern: '[0-9]+' }],
];

export function limitsPanel(name, details, etag, ui) {
    const { limits, own_limits: own } = details;
    const form = (event) => {
        event.preventDefault();
        const wanted = limitsOf(new FormData(event.target)) ?? {};
        act(ui, `Limiting ${name}`, () => send('PATCH', `/workspaces/${encodeURIComponent(name)}`, { limits: wanted }, { etag: event.target.dataset.etag }), applied);
    };
    const fields = LIMITS.map(([key, words, given]) =>
        field(words, input(key, { value: own[key] ?? '', placeholder: limits[key] === null || limits[key] === undefined ? 'no limit' : `${limits[key]}`, disabled: !may(), ...given })));
    // What is typed stays while others change nothing; a change made elsewhere begins the form anew.
    return panel('Limits and quota', { id: 'limits' },
        h('p.muted', {}, 'What is left empty is as the template says.'),
        h('form.limits', { onsubmit: form, key: JSON.stringify(own) + etag, 'data-kept': true, 'data-etag': etag },
            h('div.fields', {}, fields), may() ? h('div.actions', {}, h('button.button.is-main', { type: 'submit' }, 'Save limits')) : null));
}

/** When it is stopped, where its network leads, which ports are public: what is set of it alone. */
export function policyPanel(name, details, etag, ui) {
    const { policy } = details;
    if (!policy) return null;
    const onsubmit = (event) => {
        event.preventDefault();
        const said = new FormData(event.target);
        const ports = said.get('public_ports').split(/[ ,]+/).filter(Boolean).map(Number);
        const now = { idle: said.get('idle').trim() || null, network: said.get('network') || null, public_ports: ports.length ? ports : null };
        const wanted = Object.fromEntries(Object.entries(now).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(policy[key] ?? null)));
        if (!Object.keys(wanted).length) return;
        act(ui, `Changing ${name}`, () => send('PATCH', `/workspaces/${encodeURIComponent(name)}`, { policy: wanted }, { etag: event.target.dataset.etag }), applied);
    };
    return panel('Idle, network, ports', { id: 'policy' },
        h('form', { onsubmit, key: JSON.stringify(policy) + etag, 'data-kept': true, 'data-etag': etag },
            h('div.fields', {},
                field('Stopped when idle for', input('idle', { value: policy.idle ?? '', placeholder: 'as for all', disabled: !may() }), '30m, or never'),
                field('Network', choice('network', [['', 'as for all'], ['open', 'open'], ['none', 'none']], policy.network ?? '', { disabled: !may() }), 'from its next start on'),
                field('Public ports', input('public_ports', { value: (policy.public_ports ?? []).join(', '), placeholder: 'as for all', pattern: '[0-9, ]*', disabled: !may() }), 'need no link')),
            may() ? h('div.actions', {}, h('button.button.is-main', { type: 'submit' }, 'Save')) : null));
}

/** What a change has come to. */
function applied(done) {
    return { now: 'Saved, and in effect', 'at-next-start': 'Saved; in effect from the next start' }[done.applied] ?? `Saved, but not in effect yet: ${done.why}`;
}
