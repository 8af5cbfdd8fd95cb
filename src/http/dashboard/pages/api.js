// Asking the gateway: the same API that programs use, in the session of whoever has logged in.

const ROOT = '/api/v1';
/** How long after the network failed something is read again, in milliseconds. */
const AGAIN = 400;

/** Why something was refused, as a problem of the API says. */
export class Problem extends Error {
    constructor(status, body) {
        super(body?.detail || body?.title || (status ? `the gateway answered ${status}` : 'the gateway does not answer'));
        this.status = status;
        this.code = body?.code;
    }
}

/** The session, once somebody has logged in: `{ name, scopes, csrf, seconds }`. */
export let session = null;

/** Called when the session turns out to be over. */
export const over = { tell: () => {} };

export async function resume() {
    const answer = await fetch('session', { headers: { accept: 'application/json' } });
    session = answer.ok ? await answer.json() : null;
    return session;
}

export async function logIn(token) {
    const answer = await fetch('session', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ token }) });
    const body = await answer.json().catch(() => null);
    if (!answer.ok) throw new Problem(answer.status, body);
    session = body;
    return session;
}

/** What the button says that leads to the provider who vouches for people, where there is one. */
export async function provider() {
    const answer = await fetch('ways', { headers: { accept: 'application/json' } }).catch(() => null);
    return answer?.ok ? (await answer.json()).oidc : null;
}

export async function logOut() {
    await fetch('session', { method: 'DELETE', headers: { 'x-innkeeper-csrf': session?.csrf ?? '' } }).catch(() => null);
    session = null;
}

/** Whether the session opens everything, or what one of these scopes does. */
export function may(...scopes) {
    return ['admin', ...scopes].some((scope) => session?.scopes.includes(scope));
}

async function ask(method, path, { body, headers = {}, signal } = {}) {
    const all = { accept: 'application/json', ...headers };
    if (method !== 'GET') all['x-innkeeper-csrf'] = session?.csrf ?? '';
    if (body !== undefined) all['content-type'] = 'application/json';
    const request = { method, headers: all, body: body === undefined ? undefined : JSON.stringify(body), signal };
    const answer = await fetch(ROOT + path, request).catch(async (why) => {
        if (why.name === 'AbortError') throw why;
        // Only reading is tried again by itself.
        if (method !== 'GET') throw new Problem(0, null);
        await new Promise((later) => setTimeout(later, AGAIN));
        return fetch(ROOT + path, request).catch((again) => {
            throw again.name === 'AbortError' ? again : new Problem(0, null);
        });
    });
    if (answer.status === 401) {
        session = null;
        over.tell();
    }
    if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => null));
    return answer;
}

export async function get(path, signal) {
    return (await ask('GET', path, { signal })).json();
}

/** The same with the `ETag` that a change is held against. */
export async function getTagged(path, signal) {
    const answer = await ask('GET', path, { signal });
    return { value: await answer.json(), etag: answer.headers.get('etag') };
}

/** What is there; null where it is not, or where the session does not open it. */
export async function maybe(path, signal) {
    try {
        return await get(path, signal);
    } catch (why) {
        if (why instanceof Problem && [403, 404, 405, 409, 422].includes(why.status)) return null;
        throw why;
    }
}

/** All entries of a list that comes in pages, up to so many. */
export async function list(path, signal, most = 5000) {
    const items = [];
    let cursor = null;
    do {
        const joint = path.includes('?') ? '&' : '?';
        const page = await get(`${path}${joint}limit=1000${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`, signal);
        items.push(...page.items);
        cursor = page.next;
    } while (cursor && items.length < most);
    return items;
}

/** Changes something; `etag` refuses it if somebody else was quicker. */
export async function send(method, path, body, { etag, once } = {}) {
    const headers = {};
    if (etag) headers['if-match'] = etag;
    if (once) headers['idempotency-key'] = key();
    const answer = await ask(method, path, { body, headers });
    return answer.status === 204 ? null : answer.json();
}

/** Asks for something that takes long, and is told how it goes. */
export async function follow(method, path, body, progress) {
    const answer = await ask(method, path, { body, headers: { accept: 'text/event-stream' } });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = '';
    for (;;) {
        const { value, done } = await reader.read();
        if (done) throw new Problem(0, { detail: 'the gateway broke off; how it stands, the page says' });
        buffer += value.replaceAll('\r', '');
        let end;
        while ((end = buffer.indexOf('\n\n')) >= 0) {
            const [name, data] = parsed(buffer.slice(0, end));
            buffer = buffer.slice(end + 2);
            if (name === 'progress') progress(data);
            if (name === 'done') return data;
            if (name === 'error') throw new Problem(data?.status ?? 500, data);
        }
    }
}

function parsed(block) {
    let [name, data] = ['message', ''];
    for (const line of block.split('\n')) {
        if (line.startsWith('event:')) name = line.slice(6).trim();
        if (line.startsWith('data:')) data += line.slice(5).trim();
    }
    return [name, data ? JSON.parse(data) : null];
}

function key() {
    return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** A stream of events of the API. `on` names handlers; the stream is closed by what is returned. */
export function stream(path, on, broken = () => {}) {
    const source = new EventSource(ROOT + path);
    for (const [name, handler] of Object.entries(on)) {
        // An `error` of the stream itself has no data.
        source.addEventListener(name, (event) => event.data !== undefined && handler(JSON.parse(event.data)));
    }
    source.addEventListener('error', (event) => event.data === undefined && broken(source.readyState === EventSource.CLOSED));
    return () => source.close();
}
