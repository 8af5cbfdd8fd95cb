// How many more fit, and what one costs.

import { get } from '../api.js';
import { h } from '../dom.js';
import { bytes, cores, percent } from '../format.js';
import { facts, figure, meter, panel, table } from '../parts.js';

const BOUNDS = { cpu: 'processors', memory: 'memory', disk: 'disk', places: 'limits.containers', addresses: 'addresses of the network' };

export default {
    title: () => 'Capacity',
    every: 10,
    wants: (event) => event.name === 'workspace',

    load: ({ signal }) => get('/capacity', signal),

    render(all) {
        const { total, promised, used, running, places, addresses, price, templates } = all;
        const usual = templates.find((one) => one.template === 'default') ?? templates[0];
        const cost = (number) => (number === null || number === undefined || !price ? '–' : `${number.toFixed(2)} ${price.currency}`);
        return [
            h('h1', { key: 'title' }, 'Capacity'),
            h('div.figures', { key: 'figures' },
                figure('By measured use', usual?.by_use ? `+${usual.by_use.more}` : '–', usual?.by_use ? `until ${BOUNDS[usual.by_use.bound] ?? usual.by_use.bound}` : 'nothing has run lately'),
                figure('By limits', usual ? `+${usual.by_limits.more}` : '–', usual ? `until ${BOUNDS[usual.by_limits.bound] ?? usual.by_limits.bound}` : ''),
                figure('Running', running, `of ${places} places`),
                figure('A tenant costs', cost(usual?.by_use?.cost ?? usual?.by_limits.cost), price ? 'a month' : 'set capacity.host_price')),
            h('div.panels', { key: 'panels' },
                panel('Promised to workspaces', { id: 'promised' }, h('div.meters', {}, meters(promised, total)), h('p.muted', {}, 'Processors and memory of those that run, disk of all.')),
                panel('In use on the host', { id: 'used' }, used ? h('div.meters', {}, meters(used, total)) : h('p.empty', {}, 'Not measured yet.'),
                    facts(['Addresses left', addresses ?? '–'], price ? ['The host costs', `${price.host} ${price.currency} a month`] : null)),
                panel('How many more fit', { id: 'fits', wide: true }, table({
                    caption: 'How many more fit, by template', rows: templates, key: (one) => one.template,
                    columns: [
                        { name: 'template', title: 'Template', class: 'name', cell: (one) => one.template },
                        { name: 'limits', title: 'Each may use', cell: (one) => each(one.limits) },
                        { name: 'bylimits', title: 'Fit by limits', class: 'number', cell: (one) => fit(one.by_limits) },
                        { name: 'use', title: 'Each uses', cell: (one) => (one.use ? h('span', { title: `95 of 100 of ${one.use.samples} samples stay below, of ${one.use.of === 'all' ? 'all templates' : 'this template'}` }, each(one.use)) : '–') },
                        { name: 'byuse', title: 'Fit by use', class: 'number', cell: (one) => fit(one.by_use) },
                        { name: 'cost', title: 'Costs a month', class: 'number', cell: (one) => `${cost(one.by_use?.cost)} / ${cost(one.by_limits.cost)}` },
                    ],
                }), h('p.muted', {}, 'Costs by use and by limits: the largest share of the host that one takes, of the host’s price.'))),
        ];
    },
};

function meters(some, total) {
    return [meter(some.cpu, total.cpu, cores, { label: 'CPU' }), meter(some.memory, total.memory, bytes, { label: 'Memory' }), meter(some.disk, total.disk, bytes, { label: 'Disk' })];
}

function each({ cpu, memory, disk }) {
    return `${cores(cpu)} CPU, ${bytes(memory)}, ${bytes(disk)} disk`;
}

function fit(more) {
    return more ? h('span', { title: `then ${BOUNDS[more.bound] ?? more.bound} run out; one takes ${percent(more.share)} of the host` }, String(more.more)) : '–';
}
