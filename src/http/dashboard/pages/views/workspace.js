// One workspace: what it uses, who is in it, and what an administrator does with it.

import { follow, getTagged, list, may, maybe, Problem, send } from '../api.js';
import { history } from '../chart.js';
import { h } from '../dom.js';
import { ago, bytes, cores, count, moment, span } from '../format.js';
import { act, badge, button, confirm, empty, facts, field, input, meter, panel, table, toast } from '../parts.js';
import { backupsPanel } from './backups.js';
import { limitsPanel, policyPanel } from './limits.js';
import { linksPanel } from './links.js';
import { sessionsTable } from './sessions.js';

/** Backups are read from their repository, which may be far away: not at each look. */
const BACKUPS_EVERY = 60_000;
/** Accounts that a question names; of more it says how many there are. */
const NAMED = 5;

const address = (name) => `/workspaces/${encodeURIComponent(name)}`;

export default {
    title: (name) => name,
    every: 5,
    wants: (event, { argument }) => event.workspace === argument,
    state: () => ({ span: 'hour', sort: 'since', down: true, backups: null, asked: 0 }),

    async load({ argument, signal, state, again }) {
        const at = address(argument);
        const [{ value: details, etag }, usage, sessions, links] = await Promise.all([
            getTagged(at, signal),
            maybe(`${at}/usage?span=${state.span}`, signal),
            maybe(`${at}/sessions?limit=1000`, signal),
            maybe(`${at}/links?limit=1000`, signal),
        ]);
        if (may('read') && Date.now() - state.asked > BACKUPS_EVERY) {
            const asked = Date.now();
            state.asked = asked;
            maybe(`/backups?workspace=${encodeURIComponent(argument)}&limit=10`, signal).then((backups) => {
                // One that was asked for before there was another backup is none of those that there are.
                if (state.asked !== asked) return;
                state.backups = backups;
                again();
            }, () => {});
        }
        return { details, etag, usage, sessions, links };
    },

    render({ details, etag, usage, sessions, links }, ui) {
        const name = ui.argument;
        const state = details.suspended && !details.now?.container ? 'suspended' : details.now?.state ?? usage?.state ?? 'absent';
        return [
            h('div.title', { key: 'title' }, h('a.back', { href: '#/workspaces', 'aria-label': 'All workspaces' }, '‹'), h('h1', {}, name), badge(state),
                details.suspended && state !== 'suspended' ? badge('suspended') : null),
            details.suspended ? h('p.notice', { key: 'suspended' }, `Suspended ${ago(details.suspended.since)}: `, details.suspended.reason) : null,
            h('div.actions.is-bar', { key: 'acts' }, acts(name, state, details, ui)),
            h('div.columns', { key: 'columns' },
                h('div.column', { key: 'left' }, usePanel(usage, details), limitsPanel(name, details, etag, ui), policyPanel(name, details, etag, ui), servicesPanel(details)),
                h('div.column', { key: 'right' }, chartsPanel(usage, ui),
                    sessions ? panel('Sessions', { id: 'sessions' }, sessionsTable(sessions.items, ui, ['workspace', 'recorded'])) : null,
                    links ? linksPanel(name, links.items, ui) : null, backupsPanel(name, ui.state.backups, ui), settingsPanel(details))),
        ];
    },
};

// === what is done with it ===

function acts(name, state, details, ui) {
    const at = address(name);
    const runs = Boolean(details.now?.container) || state === 'running';
    const admin = may();
    const open = may(`workspace:${name}`);
    const start = () => act(ui, `Starting ${name}`, (told) => follow('POST', `${at}/start`, undefined, told), (done) => `${name} runs (${done.how})`);
    const when = () => field('Tell people at terminals so long before', input('in', { pattern: '[0-9a-z ]+', placeholder: 'as configured' }), '5m, at most 1h; 0s: at once');
    const within = (said) => (said.in ? `?in=${encodeURIComponent(said.in)}` : '');
    const stop = async () => {
        const sessions = details.now?.leases ?? 0;
        const words = sessions ? `${count(sessions, 'session or forward is', 'sessions and forwards are')} using it and will end. The home stays.` : 'Nobody uses it. The home stays.';
        const said = await confirm({ title: `Stop ${name}?`, words, act: 'Stop', fields: sessions ? [when()] : [] });
        if (said) await act(ui, `Stopping ${name}`, (told) => follow('POST', `${at}/stop${within(said)}`, undefined, told), `${name} is stopped`);
    };
    const restart = async () => {
        const words = 'Whoever is in it is put out. The home stays.';
        const said = await confirm({ title: `Restart ${name}?`, words, act: 'Restart', fields: [when()] });
        if (said) await act(ui, `Restarting ${name}`, (told) => follow('POST', `${at}/restart${within(said)}`, undefined, told), `${name} runs again`);
    };
    const suspend = async () => {
        const reason = field('Reason', input('reason', { required: true, maxlength: 1024, placeholder: 'unpaid' }), 'People in it and at its door read this.');
        const said = await confirm({ title: `Suspend ${name}?`, words: 'It is stopped, and nobody is let in until it is resumed.', act: 'Suspend', danger: true, fields: [reason] });
        if (said) await act(ui, `Suspending ${name}`, () => send('POST', `${at}/suspend`, { reason: said.reason }), `${name} is suspended`);
    };
    const resume = () => act(ui, `Resuming ${name}`, () => send('POST', `${at}/resume`), `${name} can be used again`);
    const backUp = () => act(ui, `Backing up ${name}`, async (told) => {
        await follow('POST', `${at}/tasks`, { 'back-up': {} }, (step) => told({ ...step, detail: step.bytes ? bytes(step.bytes) : null }));
        ui.state.asked = 0;
    }, `${name} is backed up`);
    const remove = async () => {
        const forGood = h('label.check', {}, h('input', { type: 'checkbox', name: 'now', value: 'yes' }), ' for good, at once: nothing of it can be had back');
        const accounts = await accountsOf(name);
        const fields = [forGood, accounts.length ? withAccounts(accounts) : null];
        const said = await confirm({ title: `Delete ${name}?`, words: 'People in it are told and put out; its container and secrets go. Its home can be had back for a while.', act: 'Delete', danger: true, fields, typed: name });
        if (!said) return;
        // First, as who logs in between the two would be given a new workspace.
        if (said.accounts === 'yes' && !await removeAccounts(accounts)) return;
        const done = await act(null, `Deleting ${name}`, (told) => follow('DELETE', `${at}?now=${said.now === 'yes'}`, undefined, told), (gone) => (gone.until ? `${name} is deleted, and can be had back until ${moment(gone.until)}` : `${name} is gone`));
        if (done) location.hash = '#/workspaces';
    };
    return [
        runs || !(open || may('provision')) ? null : button('Start', start, { kind: 'main', disabled: Boolean(details.suspended) }),
        runs && open ? [button('Stop', stop), button('Restart', restart)] : null,
        admin ? [
            details.suspended ? button('Resume', resume, { kind: 'main' }) : button('Suspend', suspend),
            button('Back up', backUp, { disabled: !details.home }),
            button('Delete', remove, { kind: 'danger' }),
        ] : null,
    ];
}

/** The accounts that land in it, each with what its removal is held against. There are none where people do not log in by the accounts file. */
async function accountsOf(name) {
    try {
        const landing = (await list('/accounts', undefined, Infinity)).filter((one) => one.workspace === name);
        return await Promise.all(landing.map(async (one) => ({ name: one.name, ...await getTagged(`/accounts/${encodeURIComponent(one.name)}`) })));
    } catch (why) {
        if (!(why instanceof Problem)) throw why;
        if (why.status !== 404) toast(`Its accounts: ${why.message}`, 'bad');
        return [];
    }
}

function listed(accounts) {
    const names = accounts.map((one) => one.name);
    if (names.length > NAMED) names.splice(NAMED, Infinity, `${names.length - NAMED} more`);
    return names.length > 1 ? `${names.slice(0, -1).join(', ')} and ${names.at(-1)}` : names[0];
}

function withAccounts(accounts) {
    const words = accounts.length > 1 ? `and its accounts ${listed(accounts)}: they cannot log in any more` : `and its account ${listed(accounts)}, which cannot log in any more`;
    return h('label.check', {}, h('input', { type: 'checkbox', name: 'accounts', value: 'yes' }), h('span', {}, words));
}

/** Whether all are gone. One that was changed since it was shown stays. */
function removeAccounts(accounts) {
    const doing = async () => {
        for (const { name, etag } of accounts) await send('DELETE', `/accounts/${encodeURIComponent(name)}`, undefined, { etag });
        return true;
    };
    return act(null, `Removing ${listed(accounts)}`, doing, `${listed(accounts)} cannot log in any more`);
}

// === what it uses ===

function usePanel(usage, details) {
    const { usage: now, allowed } = usage ?? {};
    const idle = details.now?.idle_seconds ?? usage?.idle_seconds;
    const timeout = usage?.idle_timeout_seconds;
    const inUse = details.now?.leases ?? 0;
    const clock = inUse ? 'in use' : idle === null || idle === undefined ? '–' : timeout && details.now?.container ? `${span(idle)} of ${span(timeout)}` : span(idle);
    return panel('Now', { id: 'now' },
        usage ? h('div.meters', {}, meter(now.cpu, allowed?.cpu, cores, { label: 'CPU' }), meter(now.memory, allowed?.memory, bytes, { label: 'Memory' }),
            meter(now.disk, allowed?.disk, bytes, { label: 'Disk' }), meter(now.pids, allowed?.pids, String, { label: 'Processes' })) : null,
        facts(['Template', details.template], ['Idle', clock], ['Running for', details.now?.running_seconds ? span(details.now.running_seconds) : '–'],
            ['Last login', usage?.last_login ? ago(usage.last_login) : 'never'], ['Last used', ago(details.last_active)],
            ['Home', details.home ? 'is there' : 'is made at its first start'],
            details.now?.image ? ['Image', details.now.image === 'current' ? 'current' : 'older than its template’s'] : null,
            details.upgrade ? ['Upgrade', details.upgrade.failed ?? 'at the next start'] : null));
}

function chartsPanel(usage, ui) {
    if (!usage) return panel('History', { id: 'history' }, empty('This gateway measures nothing, or the token does not open it.'));
    const { points, allowed, every_seconds: every } = usage;
    const of = (what) => points.map((point) => [new Date(point.at).getTime(), point[what]]);
    const between = ui.state.span === 'day' ? Math.max(every, 86400 / 240) : every;
    const turn = (to) => () => {
        ui.state.span = to;
        ui.reload();
    };
    const actions = [['hour', 'Hour'], ['day', 'Day']].map(([of_, words]) => button(words, turn(of_), { kind: 'quiet', 'aria-pressed': String(ui.state.span === of_) }));
    return panel('History', { id: 'history', actions },
        history({ title: 'CPU', points: of('cpu'), limit: allowed?.cpu, least: 0.1, format: cores, tone: 'one', everySeconds: between }),
        history({ title: 'Memory', points: of('memory'), limit: allowed?.memory, format: bytes, tone: 'two', everySeconds: between }),
        history({ title: 'Disk', points: of('disk'), limit: allowed?.disk, format: bytes, tone: 'three', everySeconds: between }));
}

// === what else there is ===

function servicesPanel(details) {
    const services = details.now?.services ?? [];
    if (!services.length) return null;
    return panel('Services', { id: 'services' }, table({
        caption: 'Services', rows: services, key: (one) => one.name,
        columns: [
            { name: 'name', title: 'Service', class: 'name', cell: (one) => one.name },
            { name: 'state', title: 'State', cell: (one) => badge(one.state) },
            { name: 'restarts', title: 'Restarts', class: 'number', cell: (one) => one.restarts ?? '–' },
        ],
    }));
}

function settingsPanel(details) {
    const env = Object.entries(details.env).map(([name, value]) => ({ name, value }));
    const secrets = details.secrets.map((one) => ({ name: one.name, value: null }));
    const mounts = details.mounts.map((one) => ({ name: one.target, value: `${one.source}${one.read_write ? '' : ' (read only)'}${one.problem ? `: ${one.problem}` : ''}` }));
    if (!env.length && !secrets.length && !mounts.length) return null;
    return panel('Variables and mounts', { id: 'settings' }, table({
        caption: 'Variables, secrets and mounts', rows: [...env, ...secrets, ...mounts], key: (one) => one.name,
        columns: [
            { name: 'name', title: 'Name', class: 'name', cell: (one) => h('code', {}, one.name) },
            { name: 'value', title: 'Value', class: 'long', cell: (one) => (one.value === null ? h('span.muted', {}, 'secret') : one.value) },
        ],
    }));
}
