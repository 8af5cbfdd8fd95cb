// Links to ports of a workspace.

import { may, send } from '../api.js';
import { h } from '../dom.js';
import { ago, span } from '../format.js';
import { act, button, choice, copied, field, input, panel, table, tell } from '../parts.js';

const LIFETIMES = [['10m', '10 minutes'], ['1h', '1 hour'], ['8h', '8 hours'], ['24h', '24 hours']];

/** The links that are good still, and a form that makes one. */
export function linksPanel(name, links, ui) {
    const at = `/workspaces/${encodeURIComponent(name)}/links`;
    const allowed = may('provision', `workspace:${name}`);
    const onsubmit = async (event) => {
        event.preventDefault();
        const said = new FormData(event.target);
        const body = { port: Number(said.get('port')), lifetime: said.get('lifetime') };
        if (said.get('visitor')) body.visitor = said.get('visitor');
        const made = await act(ui, 'Making a link', () => send('POST', at, body, { once: true }));
        if (!made) return;
        tell(`Port ${made.port} of ${name}`, h('p', {}, `Whoever has this address may reach the port for ${span(made.seconds)}. It is shown this once.`), copied('Address', made.url),
            h('p', {}, h('a', { href: made.url, target: '_blank', rel: 'noopener noreferrer' }, 'Open it')));
    };
    const revoke = (one) => act(ui, 'Taking the link back', () => send('DELETE', `${at}/${encodeURIComponent(one.id)}`), 'The link opens nothing any more');
    const columns = [
        { name: 'port', title: 'Port', class: 'number', cell: (one) => one.port },
        { name: 'visitor', title: 'For', class: 'name', cell: (one) => one.visitor ?? 'anybody' },
        { name: 'made', title: 'Made', cell: (one) => ago(one.made) },
        { name: 'left', title: 'Good for', cell: (one) => span((new Date(one.ends).getTime() - Date.now()) / 1000) },
        { name: 'acts', title: '', class: 'acts', cell: (one) => (allowed ? button('Take back', () => revoke(one)) : null) },
    ];
    return panel('Links to ports', { id: 'links' },
        links.length ? table({ caption: 'Links', columns, rows: links, key: (one) => one.id }) : h('p.muted', {}, 'A link opens one port for a while, in any browser.'),
        allowed ? h('form', { onsubmit, 'data-kept': true, key: 'link' },
            h('div.fields', {},
                field('Port', input('port', { required: true, type: 'number', min: 1, max: 65535, placeholder: '8080' })),
                field('Good for', choice('lifetime', LIFETIMES, '1h')),
                field('For', input('visitor', { placeholder: 'anybody', maxlength: 256 }))),
            h('div.actions', {}, h('button.button.is-plain', { type: 'submit' }, 'Make a link'))) : null);
}
