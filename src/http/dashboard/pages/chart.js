// Charts, drawn as SVG.

import { h, s } from './dom.js';
import { moment } from './format.js';

const [WIDTH, HEIGHT] = [600, 168];
const [LEFT, RIGHT, TOP, BOTTOM] = [58, 8, 10, 22];

/**
 * A history as a line. `points` is a list of `[milliseconds, number]`; `limit` is drawn as a line of its own where it is within reach; `least` is what the
 * axis reaches at least; `format` writes a number.
 */
export function history({ title, points, limit, least = 0, format, tone = 'one', everySeconds = 60 }) {
    const last = points.at(-1);
    const now = last ? format(last[1]) : '–';
    const head = h('div.chart-head', {}, h('h3', {}, title), h('span.chart-now', {}, now, limit ? h('span.muted', {}, ` of ${format(limit)}`) : null));
    if (points.length < 2) {
        return h('figure.chart', {}, head, h('p.chart-empty', {}, points.length ? 'One sample so far.' : 'Nothing was measured yet.'));
    }
    const most = Math.max(...points.map(([, value]) => value));
    const top = ceiling(Math.max(least, limit && most > limit * 0.4 ? Math.max(most, limit) : most));
    const [from, to] = [points[0][0], last[0]];
    const x = (at) => LEFT + ((at - from) / Math.max(1, to - from)) * (WIDTH - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);
    const parts = runs(points, everySeconds * 1000 * 3);
    const line = parts.map((run) => run.map(([at, value], index) => `${index ? 'L' : 'M'}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join('')).join('');
    const area = parts.filter((run) => run.length > 1).map((run) =>
        `M${x(run[0][0]).toFixed(1)} ${y(0)}${run.map(([at, value]) => `L${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join('')}L${x(run.at(-1)[0]).toFixed(1)} ${y(0)}Z`,
    ).join('');
    const grid = [0, 0.5, 1].map((share) => [
        s('line.grid', { x1: LEFT, x2: WIDTH - RIGHT, y1: y(top * share), y2: y(top * share) }),
        s('text.axis', { x: LEFT - 8, y: y(top * share) + 4, 'text-anchor': 'end' }, format(top * share)),
    ]);
    const marks = [0, 0.5, 1].map((share) =>
        s('text.axis', { x: LEFT + share * (WIDTH - LEFT - RIGHT), y: HEIGHT - 5, 'text-anchor': ['start', 'middle', 'end'][share * 2] }, hour(from + share * (to - from), to - from)),
    );
    const cursor = s('g.cursor', { visibility: 'hidden' }, s('line', { y1: TOP, y2: HEIGHT - BOTTOM }), s('circle', { r: 3.5 }));
    const said = h('span.chart-said', { 'aria-hidden': 'true' });
    const drawing = s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': `${title}: ${now}, at most ${format(most)} since ${moment(new Date(from).toISOString())}` },
        grid, marks,
        s('path.area', { d: area }), s('path.line', { d: line }),
        limit && limit <= top ? s('line.limit', { x1: LEFT, x2: WIDTH - RIGHT, y1: y(limit), y2: y(limit) }) : null,
        cursor,
    );
    drawing.onpointermove = (event) => {
        const drawn = event.currentTarget;
        const box = drawn.getBoundingClientRect();
        const at = from + ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * (to - from);
        const near = points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
        const shownCursor = drawn.querySelector('.cursor');
        shownCursor.setAttribute('visibility', 'visible');
        shownCursor.firstChild.setAttribute('x1', x(near[0]));
        shownCursor.firstChild.setAttribute('x2', x(near[0]));
        shownCursor.lastChild.setAttribute('cx', x(near[0]));
        shownCursor.lastChild.setAttribute('cy', y(near[1]));
        drawn.parentNode.querySelector('.chart-said').textContent = `${format(near[1])} · ${moment(new Date(near[0]).toISOString())}`;
    };
    drawing.onpointerleave = (event) => {
        event.currentTarget.querySelector('.cursor').setAttribute('visibility', 'hidden');
        event.currentTarget.parentNode.querySelector('.chart-said').textContent = '';
    };
    return h('figure.chart', { class: `tone-${tone}` }, head, drawing, said);
}

/** A line that is only to be seen, without figures. */
export function spark(values, top) {
    if (values.length < 2) return null;
    const [width, height] = [120, 28];
    const most = Math.max(top ?? 0, ...values, 1e-9);
    const step = width / Math.max(1, values.length - 1);
    const line = values.map((value, index) => `${index ? 'L' : 'M'}${(index * step).toFixed(1)} ${(height - 2 - (value / most) * (height - 4)).toFixed(1)}`).join('');
    return s('svg.spark', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, s('path.line', { d: line }));
}

/** Where a workspace did not run nothing was measured, and no line is drawn. */
function runs(points, gap) {
    const all = [[points[0]]];
    for (const point of points.slice(1)) {
        if (point[0] - all.at(-1).at(-1)[0] > gap) all.push([]);
        all.at(-1).push(point);
    }
    return all;
}

/** A round number that is not below this one. */
function ceiling(number) {
    if (number <= 0) return 1;
    if (number >= 1024) {
        const unit = 1024 ** Math.floor(Math.log(number) / Math.log(1024));
        return ceiling(number / unit >= 1000 ? 1024 : number / unit) * unit;
    }
    const power = 10 ** Math.floor(Math.log10(number));
    return [1, 2, 4, 5, 8, 10].find((step) => step * power >= number * 0.999999) * power;
}

/** Below this, in milliseconds, seconds are told too. */
const SHORT = 10 * 60_000;

function hour(at, span) {
    return new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: span < SHORT ? '2-digit' : undefined, hour12: false });
}
