// How all is, in one look.

import { get } from '../api.js';
import { spark } from '../chart.js';
import { h } from '../dom.js';
import { bytes, cores, count, latency, moment, percent } from '../format.js';
import { news } from '../live.js';
import { badge, empty, figure, gauge, meter, panel, table } from '../parts.js';

/** What has been seen of the host while the page was open. */
const KEPT = 120;

const WAYS = {
    attach: 'it ran already',
    claim: 'out of the pool',
    start: 'its container started',
    create: 'a new container',
    upgrade: 'a new image',
};

export default {
    title: () => 'Overview',
    every: 5,
    wants: () => true,
    state: () => ({ cpu: [], memory: [] }),

    async load({ signal, state }) {
        const all = await get('/overview', signal);
        const { host } = all;
        note(state.cpu, host.cpu);
        note(state.memory, host.memory && host.memory.used / host.memory.total);
        return all;
    },

    render(all, ui) {
        const { workspaces, pool, queue, starts, host, containers, sessions } = all;
        const known = Object.values(workspaces).reduce((sum, number) => sum + number, 0);
        const [ready, target] = ['ready', 'target'].map((what) => pool.templates.reduce((sum, one) => sum + one[what], 0));
        return [
            h('h1', { key: 'title' }, 'Overview'),
            h('div.figures', { key: 'figures' },
                figure('Sessions', sessions, 'right now', '#/sessions'),
                figure('Running', workspaces.running ?? 0, `of ${count(known, 'workspace', 'workspaces')}`, '#/workspaces'),
                figure('Pool', `${ready}/${target}`, pool.paused ? 'paused' : target ? 'ready to be taken' : 'no pool', '#/pool'),
                figure('Waiting', queue.waiting, `${queue.taken} of ${queue.capacity} places taken`, '#/pool')),
            h('div.panels', { key: 'panels' }, hostPanel(host, ui.state), startsPanel(starts), statesPanel(workspaces, containers), newsPanel()),
        ];
    },
};

function note(values, value) {
    if (value === null || value === undefined) return;
    values.push(value);
    if (values.length > KEPT) values.shift();
}

function hostPanel(host, state) {
    const load = host.load ? `load ${host.load.map((one) => one.toFixed(2)).join(' ')}` : null;
    const disk = (label, amount) => h('div', { key: label }, meter(amount?.used, amount?.total, bytes, { label }));
    const one = host.homes_disk?.total === host.state_disk?.total && host.homes_disk?.used === host.state_disk?.used;
    const cpu = host.cpu === null ? null : host.cpu * host.cpus;
    return panel('Host', { id: 'host' },
        h('div.host', {},
            h('div', { key: 'cpu' }, meter(cpu, host.cpus, cores, { label: 'CPU' }), spark(state.cpu, 1)),
            h('div', { key: 'memory' }, meter(host.memory?.used, host.memory?.total, bytes, { label: 'Memory' }), spark(state.memory, 1)),
            one ? disk('Disk', host.homes_disk) : [disk('Homes', host.homes_disk), disk('State', host.state_disk)]),
        h('p.muted', {}, [`${count(host.cpus, 'processor', 'processors')}`, load].filter(Boolean).join(' · ')));
}

function startsPanel(starts) {
    const seen = starts.filter((one) => one.count);
    const slowest = Math.max(...seen.map((one) => one.p99), 1e-9);
    const figureOf = (name) => ({ name, title: name, class: 'number', cell: (one) => latency(one[name]) });
    return panel('Until a workspace is ready', { id: 'starts' },
        table({
            caption: 'Start latency by path',
            rows: seen,
            key: (one) => one.path,
            small: true,
            none: 'Nobody has come yet.',
            columns: [
                { name: 'path', title: 'Path', cell: (one) => h('span', { title: WAYS[one.path] ?? '' }, one.path) },
                { name: 'count', title: 'Count', class: 'number', cell: (one) => one.count },
                figureOf('p50'), figureOf('p95'), figureOf('p99'),
                { name: 'bar', title: '', class: 'bar', cell: (one) => gauge(one.p99 / slowest, 'good', `p99 ${latency(one.p99)}`) },
            ],
        }));
}

function statesPanel(workspaces, containers) {
    const states = (title, numbers) => {
        const all = Object.entries(numbers).filter(([, number]) => number).sort(([, one], [, other]) => other - one);
        const sum = all.reduce((total, [, number]) => total + number, 0);
        const row = ([state, number]) => h('li', { key: state }, badge(state), h('span.number', {}, number), h('span.muted', {}, percent(number / sum)));
        return h('div', { key: title }, h('h3', {}, title), all.length ? h('ul.states', {}, all.map(row)) : empty('None'));
    };
    return panel('By state', { id: 'by-state' }, h('div.halves', {}, states('Workspaces', workspaces), states('Containers', containers)));
}

function newsPanel() {
    const where = (event) => h('a', { href: `#/workspaces/${event.workspace}` }, event.workspace);
    const words = (event) => {
        switch (event.name) {
            case 'workspace': return [where(event), ' is ', badge(event.state)];
            case 'changed': return [where(event), ': ', event.what, ' changed'];
            case 'made': return [where(event), ' was made'];
            case 'session-began': return [event.account, ' came to ', where(event)];
            case 'session-ended': return [event.account, ' left ', where(event)];
            default: return [event.name];
        }
    };
    const row = (event, index) => h('li', { key: `${event.at}${index}` }, h('time', {}, moment(event.at)), h('span', {}, words(event)));
    return panel('What happens', { id: 'news' }, news.length ? h('ol.news', {}, news.slice(0, 12).map(row)) : empty('Nothing since this page was opened. It appears here by itself.'));
}
