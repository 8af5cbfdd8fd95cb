// Building pages out of nodes. Text is always text: nothing here, or anywhere else, reads markup out of a string.

const SVG = 'http://www.w3.org/2000/svg';

// What would change how the text around it looks, or could not be seen: controls, and marks of direction and of no width.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** A text of a stranger's as it can be looked at: what would not be seen in it is written out. */
export function shown(text) {
    return String(text).replace(UNSEEN, (sign) => `\\u{${sign.charCodeAt(0).toString(16)}}`);
}

/**
 * An element: `h('p.note', { title: 'x', onclick: f }, 'text', child, [children])`. What is null or false is left out. Functions become handlers,
 * `data` is put beside the node for its handlers, and `key` says which of its siblings it is.
 */
export function h(what, given = {}, ...children) {
    return made(document.createElement(what.split('.')[0]), what, given, children);
}

/** The same for a drawing. */
export function s(what, given = {}, ...children) {
    return made(document.createElementNS(SVG, what.split('.')[0]), what, given, children);
}

function made(node, what, given, children) {
    const classes = what.split('.').slice(1).join(' ');
    if (classes) node.setAttribute('class', classes);
    for (const [name, value] of Object.entries(given ?? {})) {
        if (value === null || value === undefined || value === false) continue;
        if (name === 'key') node.ourKey = value;
        else if (typeof value === 'function') node[name] = value;
        else if (name === 'class') node.setAttribute('class', `${classes} ${value}`.trim());
        else if (name === 'value' && node.tagName === 'SELECT') node.ourValue = value;
        else node.setAttribute(name, value === true ? '' : value);
    }
    for (const child of children.flat(Infinity)) {
        if (child === null || child === undefined || child === false) continue;
        node.append(child instanceof Node ? child : shown(child));
    }
    if (node.ourValue !== undefined) node.value = node.ourValue;
    return node;
}

const HANDLERS = ['onclick', 'oninput', 'onchange', 'onsubmit', 'onkeydown', 'onpointermove', 'onpointerleave', 'onclose', 'oncancel'];

/**
 * Makes `old` look like `fresh` by changing no more than differs, so that the focus, what is being typed and where one has scrolled to stay.
 * A node marked `data-kept` is left alone for as long as it is there.
 */
export function become(old, fresh) {
    for (const { name } of [...old.attributes]) {
        if (!fresh.hasAttribute(name) && name !== 'open') old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
        if (old.getAttribute(name) !== value && name !== 'open') old.setAttribute(name, value);
    }
    for (const name of HANDLERS) {
        if (old[name] !== fresh[name]) old[name] = fresh[name];
    }
    contain(old, [...fresh.childNodes]);
}

function same(one, other) {
    return one.nodeName === other.nodeName && one.ourKey === other.ourKey && (one.nodeType !== 1 || one.namespaceURI === other.namespaceURI);
}

function contain(parent, wanted) {
    const keyed = new Map();
    for (const node of parent.childNodes) if (node.ourKey !== undefined) keyed.set(node.ourKey, node);
    let at = parent.firstChild;
    for (const fresh of wanted) {
        const known = fresh.ourKey === undefined ? undefined : keyed.get(fresh.ourKey);
        if (known && known !== at && same(known, fresh)) {
            parent.insertBefore(known, at);
            at = known;
        }
        if (!at || !same(at, fresh)) {
            parent.insertBefore(fresh, at);
            continue;
        }
        if (at.nodeType !== 1) {
            if (at.data !== fresh.data) at.data = fresh.data;
        } else if (!at.hasAttribute('data-kept')) {
            become(at, fresh);
        }
        at = at.nextSibling;
    }
    while (at) {
        const next = at.nextSibling;
        at.remove();
        at = next;
    }
}

/** Shows these nodes in a place, in the way of [`become`]. */
export function fill(place, ...nodes) {
    contain(place, nodes.flat(Infinity).filter((node) => node instanceof Node));
}
