// The pool of ready containers, who waits, and the templates.

import { get, getTagged, list, may, send } from '../api.js';
import { h } from '../dom.js';
import { cores, count } from '../format.js';
import { act, badge, button, confirm, empty, field, input, panel, table } from '../parts.js';

export default {
    title: () => 'Pool & templates',
    every: 5,
    wants: (event) => event.name === 'workspace',

    async load({ signal }) {
        const [{ value: pool, etag }, templates, queue] = await Promise.all([getTagged('/pool', signal), list('/templates', signal), get('/queue', signal)]);
        return { pool, etag, templates, queue };
    },

    render({ pool, etag, templates, queue }, ui) {
        return [
            h('div.title', { key: 'title' }, h('h1', {}, 'Pool & templates')),
            h('div.panels', { key: 'panels' }, poolPanel(pool, etag, ui), queuePanel(queue),
                panel('Templates', { id: 'templates', wide: true }, templatesTable(templates, pool))),
        ];
    },
};

function poolPanel(pool, etag, ui) {
    const onsubmit = (event) => {
        event.preventDefault();
        const size = Number(new FormData(event.target).get('size'));
        act(ui, 'Resizing the pool', () => send('PATCH', '/pool', { size }, { etag: event.target.dataset.etag }), 'The pool is resized');
    };
    const pause = () => act(ui, pool.paused ? 'Going on' : 'Pausing', () => send('POST', pool.paused ? '/pool/resume' : '/pool/pause'), pool.paused ? 'The pool goes on' : 'The pool is paused');
    const drain = async () => {
        const words = 'What stands ready is thrown away, and no new ones are made until the pool goes on. Workspaces stay.';
        if (await confirm({ title: 'Drain the pool?', words, act: 'Drain', danger: true })) await act(ui, 'Draining', () => send('POST', '/pool/drain'), (done) => `${count(done.drained, 'container', 'containers')} thrown away`);
    };
    const ready = pool.templates.reduce((sum, one) => sum + one.ready, 0);
    return panel('Pool', { id: 'pool' },
        h('p', {}, `${ready} ready, ${pool.size} wanted of each template `, pool.paused ? badge('paused') : null),
        may() ? h('form.inline', { onsubmit, 'data-kept': true, key: etag, 'data-etag': etag },
            field('Size', input('size', { type: 'number', min: 0, max: 1000, required: true, value: pool.size })),
            h('button.button.is-main', { type: 'submit' }, 'Resize')) : null,
        may() ? h('div.actions', {}, button(pool.paused ? 'Go on' : 'Pause', pause), button('Drain', drain, { kind: 'danger' })) : null,
        h('p.muted', {}, 'Until the configuration is next loaded, which says what is to be for good.'));
}

function queuePanel(queue) {
    const row = (one) => h('li', { key: one.workspace }, h('span.number', {}, one.position), h('a', { href: `#/workspaces/${one.workspace}` }, one.workspace));
    return panel('Places', { id: 'queue' },
        h('p', {}, `${queue.taken} of ${queue.capacity} containers that may run at once.`),
        queue.items.length ? h('ol.queue', {}, queue.items.map(row), queue.next ? h('li', { key: 'more' }, '…') : null) : empty('Nobody waits.'));
}

function templatesTable(templates, pool) {
    const ready = (name) => pool.templates.find((one) => one.template === name)?.ready ?? 0;
    return table({
        caption: 'Templates', rows: templates, key: (one) => one.name,
        columns: [
            { name: 'name', title: 'Template', class: 'name', cell: (one) => one.name },
            { name: 'image', title: 'Image', class: 'long', cell: (one) => h('code', {}, one.image) },
            { name: 'ready', title: 'Ready', class: 'number', cell: (one) => ready(one.name) },
            { name: 'cpus', title: 'CPUs', class: 'number', cell: (one) => cores(one.limits.cpus) },
            { name: 'memory', title: 'Memory', class: 'number', cell: (one) => one.limits.memory ?? '–' },
            { name: 'disk', title: 'Disk', class: 'number', cell: (one) => one.limits.disk ?? '–' },
            { name: 'services', title: 'Services', cell: (one) => one.services.join(', ') || '–' },
            { name: 'volumes', title: 'Volumes', cell: (one) => one.volumes.join(', ') || '–' },
        ],
    });
}
