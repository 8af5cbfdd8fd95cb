// The frame around all pages: logging in, finding the page that the address names, keeping it up to date.

import * as api from './api.js';
import { Problem } from './api.js';
import { fill, h } from './dom.js';
import * as live from './live.js';
import { empty, toast } from './parts.js';
import accounts from './views/accounts.js';
import audit from './views/audit.js';
import capacity from './views/capacity.js';
import create from './views/create.js';
import gateway from './views/gateway.js';
import overview from './views/overview.js';
import pool from './views/pool.js';
import recordings from './views/recordings.js';
import replay from './views/replay.js';
import sessions from './views/sessions.js';
import watch from './views/watch.js';
import workspace from './views/workspace.js';
import workspaces from './views/workspaces.js';

// Address, page, and the name it has in the navigation.
const PAGES = [
    ['overview', overview, 'Overview', ['read']],
    ['workspaces', workspaces, 'Workspaces', ['read', 'provision']],
    ['accounts', accounts, 'Accounts', ['read', 'provision']],
    ['sessions', sessions, 'Sessions', ['read']],
    ['pool', pool, 'Pool & templates', ['read']],
    ['capacity', capacity, 'Capacity', ['read']],
    ['recordings', recordings, 'Recordings', ['read']],
    ['audit', audit, 'Audit', ['read']],
    ['gateway', gateway, 'Gateway', ['read']],
    ['new', create, null, ['provision']],
    ['workspaces/*', workspace, null, null],
    ['sessions/*', watch, null, ['read']],
    ['recordings/*', replay, null, ['read']],
];

/** Shortest pause between two looks that are asked for by events, in milliseconds; five times as long as a look takes is added. */
const CALM = 400;

let running = null;

/** Why a login at the provider opened nothing, by how the address ends then. */
const REFUSALS = {
    '#login-expired': 'That took too long, or began in another browser. Try again.',
    '#login-denied': 'The provider has refused.',
    '#login-broken': 'The provider does not vouch for you, or does not answer; the gateway\u2019s log says which.',
    '#login-not-permitted': 'You are known, but nothing is open to you here.',
    '#login-busy': 'Too many log in at once. Try again in a moment.',
};

async function begin() {
    api.over.tell = () => {
        if (running) toast('The session is over. Log in again.', 'warn');
        logIn();
    };
    fill(document.body, h('div.wait', { key: 'wait' }, 'innkeeper'));
    try {
        if (await api.resume()) frame();
        else logIn();
    } catch {
        fill(document.body, h('main.login', { key: 'down' }, h('h1', {}, 'innkeeper'), empty('The gateway does not answer. Load the page again in a moment.')));
    }
}

// === logging in ===

function logIn() {
    leave();
    live.end();
    if (document.querySelector('.login form')) return;
    document.title = 'Log in · innkeeper';
    const said = h('p.login-said', { role: 'alert' }, REFUSALS[location.hash] ?? '');
    // It is said once, and is the address of no page.
    if (location.hash in REFUSALS) history.replaceState(null, '', location.pathname);
    const elsewhere = h('div.login-elsewhere');
    const field = h('input', { id: 'token', name: 'token', type: 'password', autocomplete: 'current-password', required: true, spellcheck: 'false', placeholder: 'ink_…' });
    const submit = h('button.button.is-main', { type: 'submit' }, 'Log in');
    const onsubmit = async (event) => {
        event.preventDefault();
        [submit.disabled, said.textContent] = [true, ''];
        try {
            await api.logIn(field.value);
            frame();
        } catch (why) {
            said.textContent = why instanceof Problem ? `${why.message[0].toUpperCase()}${why.message.slice(1)}.` : 'The gateway does not answer.';
            submit.disabled = false;
            field.select();
        }
    };
    const form = h('form', { onsubmit }, elsewhere,
        h('label', { for: 'token' }, 'API token'), field, said, submit,
        h('p.muted', {}, 'Made by ', h('code', {}, 'innkeeper token create ops --scope admin')));
    fill(document.body, h('main.login', { key: 'login' }, h('div.brand', {}, mark(), h('h1', {}, 'innkeeper')), form), toasts());
    field.focus();
    api.provider().then((label) => {
        if (label) fill(elsewhere, h('a.button.is-main', { href: 'oidc' }, label), h('p.login-or', {}, 'or'));
    });
}

async function logOut() {
    leave();
    live.end();
    await api.logOut();
    logIn();
}

// === the frame ===

function frame() {
    const open = (scopes) => scopes === null || api.may(...scopes);
    const links = PAGES.filter(([, , name, scopes]) => name && open(scopes)).map(([path, , name]) => h('a', { href: `#/${path}`, 'data-page': path }, name));
    const menu = h('button.menu', { type: 'button', 'aria-expanded': 'false', 'aria-controls': 'nav', 'aria-label': 'Menu' }, '☰');
    const side = h('nav.nav', { id: 'nav', key: 'nav', 'aria-label': 'Pages' }, links);
    menu.onclick = () => fold(!document.body.classList.contains('is-open'));
    const who = h('div.who', {}, h('span.who-name', { title: api.session.scopes.join(', ') }, api.session.name), h('button.button.is-quiet', { type: 'button', onclick: logOut }, 'Log out'));
    fill(document.body,
        h('a.skip', { href: '#main', key: 'skip', onclick: (event) => { event.preventDefault(); document.getElementById('main').focus(); } }, 'Skip to the page'),
        h('header.top', { key: 'top' }, menu, h('a.brand', { href: '#/' }, mark(), 'innkeeper'), h('span.live', { id: 'live', role: 'status' }), who),
        side,
        h('main', { id: 'main', tabindex: '-1', key: 'main', 'data-kept': true }),
        toasts());
    if (!api.may('read')) document.getElementById('live').hidden = true;
    else live.listen((event) => {
        tellLive();
        if (event === null || running?.page.wants?.(event, running.ui)) running?.ui.soon();
    });
    window.onhashchange = go;
    document.onkeydown = keys;
    if (document.hidden) tellLive();
    go();
}

function toasts() {
    return h('div.toasts', { id: 'toasts', key: 'toasts', 'data-kept': true });
}

function mark() {
    return h('img', { src: 'icon.svg', alt: '', width: 24, height: 24 });
}

function fold(open) {
    document.body.classList.toggle('is-open', open);
    document.querySelector('.menu')?.setAttribute('aria-expanded', String(open));
}

function tellLive() {
    const place = document.getElementById('live');
    if (!place) return;
    const words = { live: 'Live', quiet: 'Paused', lost: 'Reconnecting …' }[live.state];
    place.className = `live is-${live.state}`;
    if (place.textContent !== words) place.textContent = words;
}

function keys(event) {
    if (event.key === 'Escape') fold(false);
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]');
    if (event.key === '/' && !typing) {
        const search = document.querySelector('main [type=search]');
        if (search) {
            event.preventDefault();
            search.focus();
        }
    }
}

// === pages ===

function found() {
    const parts = location.hash.replace(/^#\/?/, '').split('/').filter(Boolean);
    const name = parts[0] ?? 'overview';
    const argument = parts.length > 1 ? decode(parts.slice(1).join('/')) : null;
    const entry = PAGES.find(([path]) => path === (argument === null ? name : `${name}/*`));
    return { name, argument, entry };
}

function decode(text) {
    try {
        return decodeURIComponent(text);
    } catch {
        return text;
    }
}

function leave() {
    if (!running) return;
    clearTimeout(running.timer);
    running.abort.abort();
    running.page.leave?.(running.ui);
    running = null;
}

function go() {
    leave();
    fold(false);
    const { name, argument, entry } = found();
    for (const link of document.querySelectorAll('.nav a')) {
        if (link.dataset.page === name) link.setAttribute('aria-current', 'page');
        else link.removeAttribute('aria-current');
    }
    const main = document.getElementById('main');
    main.replaceChildren();
    if (!entry || (entry[3] !== null && !api.may(...entry[3]))) {
        const own = api.session.scopes.find((scope) => scope.startsWith('workspace:'));
        if (own && name === 'overview') {
            location.hash = `#/workspaces/${own.slice('workspace:'.length)}`;
            return;
        }
        document.title = 'innkeeper';
        fill(main, h('h1', {}, entry ? 'Not with this token' : 'There is no such page'), empty(entry ? `It opens: ${api.session.scopes.join(', ')}.` : 'Choose one on the left.'));
        return;
    }
    const page = entry[1];
    const run = { page, abort: new AbortController(), timer: null, last: 0, took: 0, data: undefined };
    run.ui = {
        argument,
        state: page.state?.() ?? {},
        main,
        signal: run.abort.signal,
        again: () => draw(run),
        reload: () => look(run),
        soon: () => later(run, Math.max(0, CALM + 5 * run.took - (Date.now() - run.last))),
    };
    running = run;
    document.title = `${page.title(argument)} · innkeeper`;
    fill(main, h('p.wait', {}, 'Loading …'));
    main.focus({ preventScroll: true });
    window.scrollTo(0, 0);
    look(run);
}

async function look(run) {
    if (running !== run) return;
    clearTimeout(run.timer);
    run.last = Date.now();
    try {
        run.data = await run.page.load(run.ui);
        [run.problem, run.took] = [null, Date.now() - run.last];
    } catch (why) {
        if (why.name === 'AbortError' || running !== run) return;
        if (!(why instanceof Problem)) throw why;
        run.problem = why;
    }
    draw(run);
    later(run, (run.page.every ?? 10) * 1000);
}

function later(run, pause) {
    if (running !== run) return;
    clearTimeout(run.timer);
    run.timer = setTimeout(() => (document.hidden ? later(run, 1000) : look(run)), pause);
}

function draw(run) {
    if (running !== run) return;
    const trouble = run.problem ? h('p.trouble', { role: 'alert', key: 'trouble' }, run.problem.message) : null;
    const content = run.data === undefined ? [h('h1', { key: 'title' }, run.page.title(run.ui.argument))] : run.page.render(run.data, run.ui);
    fill(run.ui.main, trouble, content);
}

begin();
