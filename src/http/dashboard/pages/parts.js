// What pages are put together from.

import { Problem } from './api.js';
import { fill, h, s } from './dom.js';
import { percent } from './format.js';

const TONES = {
    running: 'good', ready: 'good', complete: 'good', live: 'good',
    starting: 'busy', creating: 'busy', queued: 'busy', pulling: 'busy', stopping: 'busy', recording: 'busy', mounting: 'busy', unknown: 'busy',
    suspended: 'warn', unready: 'warn', cut: 'warn', paused: 'warn', lost: 'warn',
    failed: 'bad', dead: 'bad',
};

/** A word for how something stands. */
export function badge(word, tone = TONES[word] ?? 'plain') {
    return h('span.badge', { class: `is-${tone}` }, word);
}

export function panel(title, given, ...children) {
    const { actions, wide, id } = given ?? {};
    const head = title || actions ? h('header.panel-head', {}, h('h2', {}, title ?? ''), actions ? h('div.actions', {}, actions) : null) : null;
    return h('section.panel', { class: wide ? 'is-wide' : '', id }, head, children);
}

/** So much of what may be used, as a bar and in words. */
export function meter(used, total, format, { label = '', compact = false } = {}) {
    const known = used !== null && used !== undefined;
    const share = known && total ? used / total : null;
    const tone = share === null ? 'none' : share >= 0.95 ? 'bad' : share >= 0.8 ? 'warn' : 'good';
    const words = known ? (total ? `${format(used)} of ${format(total)}` : format(used)) : '–';
    const bar = gauge(share ?? 0, tone, `${label} ${words}`.trim());
    if (compact) {
        return h('div.meter.is-compact', { title: words }, h('span.meter-value', {}, known ? format(used) : '–'), bar);
    }
    return h('div.meter', {}, h('div.meter-words', {}, h('span', {}, label), h('span.meter-value', {}, words, share === null ? null : h('span.muted', {}, ` · ${percent(share)}`))), bar);
}

/** A share as a bar. */
export function gauge(share, tone, label) {
    const part = Math.min(100, Math.max(0, share * 100));
    return s('svg.gauge', { class: `is-${tone}`, role: 'meter', 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': Math.round(part), 'aria-label': label },
        s('rect.track', { width: '100%', height: '100%' }), s('rect.part', { width: `${part.toFixed(2)}%`, height: '100%' }));
}

export function figure(label, value, note, target) {
    const content = [h('span.figure-label', {}, label), h('strong.figure-value', {}, value), h('span.figure-note', {}, note ?? '\u00a0')];
    return target ? h('a.figure', { href: target, key: label }, content) : h('div.figure', { key: label }, content);
}

export function facts(...pairs) {
    return h('dl.facts', {}, pairs.filter(Boolean).map(([name, value]) => h('div', { key: name }, h('dt', {}, name), h('dd', {}, value ?? '–'))));
}

export function empty(words, ...more) {
    return h('p.empty', {}, words, more);
}

/**
 * A table. `columns` are `{ name, title, cell(row), sort(row), class }`; where `state` is given, a click on a title sorts, and what is chosen is kept
 * there. On a narrow screen each row becomes a card, unless the table is small.
 */
export function table({ caption, columns, rows, key, state, again, small = false, none = 'There is nothing here.' }) {
    const by = state && columns.find((column) => column.name === state.sort && column.sort);
    const sorted = by ? inOrder(rows, by, state.down, key) : rows;
    const heads = columns.map((column) => {
        const chosen = by === column;
        const order = chosen ? (state.down ? 'descending' : 'ascending') : column.sort && state ? 'none' : null;
        const turn = () => {
            [state.sort, state.down] = [column.name, chosen ? !state.down : Boolean(column.downFirst)];
            again();
        };
        const title = column.title ?? column.name;
        const content = column.sort && state ? h('button.sort', { type: 'button', onclick: turn }, title) : title;
        return h('th', { scope: 'col', class: column.class, 'aria-sort': order, key: column.name }, content);
    });
    const body = sorted.map((row) => h('tr', { key: String(key(row)) }, columns.map((column) =>
        h('td', { class: column.class, 'data-label': column.title ?? column.name, key: column.name }, column.cell(row)))));
    return h('div.table-frame', { class: small ? '' : 'is-cards' },
        h('table', {}, h('caption', {}, caption), h('thead', {}, h('tr', {}, heads)), h('tbody', {}, body)),
        rows.length ? null : empty(none));
}

/** Rows in the order of a column. What is not known comes last either way. */
export function inOrder(rows, by, down, key) {
    return [...rows].sort((one, other) => {
        const [first, second] = [by.sort(one) ?? null, by.sort(other) ?? null];
        if (first === null || second === null) return (first === null) - (second === null) || compare(key(one), key(other));
        return (down ? -1 : 1) * compare(first, second) || compare(key(one), key(other));
    });
}

function compare(one, other) {
    return typeof one === 'string' ? one.localeCompare(other) : one - other;
}

export function button(words, onclick, given = {}) {
    const { kind = 'plain', ...rest } = given;
    return h('button.button', { type: 'button', class: `is-${kind}`, onclick, key: words, ...rest }, words);
}

/** A field of a form, with its name above it and a word of help below. */
export function field(label, input, help) {
    return h('label.field', { key: label }, h('span.field-label', {}, label), input, help ? h('span.field-help', {}, help) : null);
}

export function input(name, given = {}) {
    return h('input', { name, autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off', ...given });
}

export function choice(name, options, value, given = {}) {
    return h('select', { name, value, ...given }, options.map(([of, words]) => h('option', { value: of, key: of }, words)));
}

/**
 * Asks before something is done. Answers with what the form says, or null. `fields` are nodes of a form; `typed` is a word that must be typed first.
 */
export function confirm({ title, words, act, danger = false, fields = [], typed }) {
    return new Promise((resolve) => {
        const proof = typed ? input('typed', { required: true, pattern: typed }) : null;
        const form = h('form', { method: 'dialog' },
            h('h2', {}, title), words ? h('p', {}, words) : null, fields,
            proof ? field(`Type ${typed} to go on`, proof) : null,
            h('div.dialog-actions', {},
                h('button.button.is-plain', { type: 'button', onclick: () => dialog.close() }, 'Cancel'),
                h('button.button', { type: 'submit', class: danger ? 'is-danger' : 'is-main', value: 'yes' }, act)));
        const dialog = h('dialog', { 'aria-label': title }, form);
        let answer = null;
        form.onsubmit = () => {
            answer = Object.fromEntries(new FormData(form));
        };
        dialog.onclose = () => {
            dialog.remove();
            resolve(answer);
        };
        document.body.append(dialog);
        dialog.showModal();
        if (!fields.length && !typed) form.querySelector('[type=submit]').focus();
    });
}

/** Shows something that is to be looked at or copied, until it is closed. */
export function tell(title, ...content) {
    const dialog = h('dialog', { 'aria-label': title },
        h('form', { method: 'dialog' }, h('h2', {}, title), content, h('div.dialog-actions', {}, h('button.button.is-main', {}, 'Close'))));
    dialog.onclose = () => dialog.remove();
    document.body.append(dialog);
    dialog.showModal();
}

/** A text to take away. */
export function copied(label, text) {
    const box = input('copied', { readonly: true, value: text, 'aria-label': label });
    const take = async (event) => {
        box.select();
        const done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
        event.target.textContent = done ? 'Copied' : 'Selected';
    };
    return field(label, h('span.with-button', {}, box, h('button.button.is-plain', { type: 'button', onclick: take }, 'Copy')));
}

/** A short word at the edge of the page; `toast` answers with how it is changed and taken away. */
export function toast(words, tone = 'plain') {
    const place = document.getElementById('toasts');
    const node = h('div.toast', { class: `is-${tone}`, role: tone === 'bad' ? 'alert' : 'status' }, h('span', {}, words),
        h('button.toast-close', { type: 'button', 'aria-label': 'Close', onclick: () => node.remove() }, '×'));
    place.append(node);
    const leave = (after) => setTimeout(() => node.remove(), after);
    if (tone !== 'busy') leave(tone === 'bad' ? 12000 : 5000);
    return {
        say: (more) => fill(node.firstChild, document.createTextNode(more)),
        end: () => node.remove(),
    };
}

/** Does something, says how it goes and how it ended, and then looks at the page again. */
export async function act(ui, words, doing, done) {
    const busy = toast(`${words} …`, 'busy');
    try {
        const answer = await doing((progress) => busy.say(`${words} … ${steps(progress)}`));
        busy.end();
        if (done) toast(typeof done === 'function' ? done(answer) : done, 'good');
        return answer;
    } catch (why) {
        busy.end();
        if (!(why instanceof Problem)) throw why;
        toast(`${words}: ${why.message}`, 'bad');
        return undefined;
    } finally {
        ui?.reload();
    }
}

function steps({ step, what, position, detail } = {}) {
    return [step ?? what, position ? `place ${position}` : null, detail].filter(Boolean).join(' ');
}
