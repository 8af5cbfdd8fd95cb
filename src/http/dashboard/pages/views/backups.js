// Backups of one workspace: what there are, and getting one back.

import { follow, may } from '../api.js';
import { h } from '../dom.js';
import { ago, bytes, moment } from '../format.js';
import { act, button, choice, confirm, field, input, panel, table } from '../parts.js';

const NAME = '[a-z0-9][a-z0-9\\-]{0,31}';
/** Rows that are shown. */
const ROWS = 10;

export function backupsPanel(name, backups, ui) {
    if (!backups) return null;
    const waiting = backups.unconfirmed.find((one) => one.workspace === name);
    const columns = [
        { name: 'at', title: 'Made', class: 'name', cell: (one) => moment(one.at) },
        { name: 'bytes', title: 'Size', class: 'number', cell: (one) => bytes(one.bytes) },
        { name: 'files', title: 'Files', class: 'number', cell: (one) => one.files },
        { name: 'id', title: 'Name', cell: (one) => h('code', {}, one.id.slice(0, 8)) },
        { name: 'acts', title: '', class: 'acts', cell: (one) => (may() && !waiting ? button('Restore', () => restore(name, one, ui)) : null) },
    ];
    return panel('Backups', { id: 'backups' },
        waiting ? decision(name, waiting, ui) : null,
        table({ caption: 'Backups', rows: backups.items.slice(0, ROWS), key: (one) => one.id, none: 'There are none yet.', columns }));
}

/** Has it done, and then has the list looked at anew. */
function task(ui, words, name, asked, done) {
    const doing = async (told) => {
        await follow('POST', `/workspaces/${encodeURIComponent(name)}/tasks`, asked, told);
        ui.state.asked = 0;
    };
    return act(ui, words, doing, done);
}

async function restore(name, backup, ui) {
    const fields = [
        field('How', choice('how', [['new', 'as a new workspace'], ['place', 'in place of what it has now']], 'new')),
        field('Name of the new one', input('to', { pattern: NAME, value: `${name.slice(0, 23)}-restored` })),
    ];
    const words = `As it was ${moment(backup.at)}. In place, whoever is in it is put out, and what it has now is kept until you decide.`;
    const said = await confirm({ title: `Restore ${name}?`, words, act: 'Restore', fields });
    if (!said) return;
    if (said.how === 'place') await task(ui, `Restoring ${name}`, name, { 'restore-in-place': { backup: backup.id } }, `${name} is what it was`);
    else await task(ui, `Restoring ${said.to}`, said.to, { restore: { from: name, backup: backup.id } }, `${said.to} is what ${name} was`);
}

/** What was restored in place is kept or undone. */
function decision(name, { since }, ui) {
    const keep = async () => {
        const words = 'What it had before is removed for good.';
        if (await confirm({ title: `Keep what was restored in ${name}?`, words, act: 'Keep it', danger: true })) await task(ui, 'Keeping what was restored', name, { 'confirm-restore': {} }, 'What was before is gone');
    };
    const revert = async () => {
        const words = 'Whoever is in it is put out, and it has again what it had before. What was done in it since is gone.';
        if (await confirm({ title: `Undo the restore of ${name}?`, words, act: 'Undo it', danger: true })) await task(ui, 'Undoing the restore', name, { 'revert-restore': {} }, `${name} has again what it had before`);
    };
    return h('div.notice', { key: 'decision' }, h('p', {}, `Restored in place ${ago(since)}; what it had before is kept.`),
        may() ? h('div.actions', {}, button('Keep', keep), button('Undo', revert)) : null);
}
