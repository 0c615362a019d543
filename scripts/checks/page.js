// Looks at pages in frames: whether each fits into its width, what is empty, and whether its axes are right. Of a page that
// is given, `faultsOf` returns lines of text.
'use strict';

const UNITS = {ns: 1e-9, 'µs': 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600, '%': 1, '/s': 1, k: 1e3, M: 1e6, '': 1};

// A number with a unit, as labels and tooltips have it; NaN if it is none.
function valueOf(text) {
    const found = /^([0-9][0-9,.]*) ?(ns|µs|ms|s|min|h|%|\/s|k|M|)$/.exec(text.trim());
    return found ? Number(found[1].replaceAll(',', '')) * UNITS[found[2]] : NaN;
}

// The axis of a drawing: from a position between 0 and 1 to a value, and back. Adds what is wrong with it.
function axisOf(figure, kind, faults) {
    const labels = [...figure.querySelectorAll('.plot text.' + kind)];
    const along = label => parseFloat(label.getAttribute(kind)) / 100;
    const ticks = labels.map(label => ({text: label.textContent, value: valueOf(label.textContent),
        at: kind === 'x' ? along(label) : 1 - along(label)})).sort((a, b) => a.at - b.at);
    const name = figure.id + ', axis ' + kind;
    if (ticks.length < 2 || ticks.some(tick => Number.isNaN(tick.value))) {
        faults.push('FAULT ' + name + ': labels are ' + ticks.map(tick => tick.text).join(' | '));
        return null;
    }
    for (const tick of ticks) {
        const digits = /^[0-9.]+/.exec(tick.text)[0];
        if (/^[0-9]{4}/.test(digits)) faults.push('FAULT ' + name + ': no separator in ' + tick.text);
    }
    // Through the first and the last: the others have to be where they belong.
    const [first, last] = [ticks[0], ticks[ticks.length - 1]];
    const isLog = first.value > 0 && ['latency', 'percentiles', 'trials'].includes(figure.id) && kind === 'y' ||
        figure.id === 'histogram' && kind === 'x';
    const scale = isLog ? Math.log : value => value, back = isLog ? Math.exp : value => value;
    const slope = (scale(last.value) - scale(first.value)) / (last.at - first.at);
    const axis = {
        value: at => back(scale(first.value) + (at - first.at) * slope),
        at: value => first.at + (scale(value) - scale(first.value)) / slope,
    };
    for (const tick of ticks) {
        if (!(Math.abs(axis.at(tick.value) - tick.at) < 0.012)) {
            faults.push('FAULT ' + name + ': ' + tick.text + ' is where ' + axis.value(tick.at).toPrecision(4) + ' belongs');
        }
    }
    return axis;
}

// The height of a line at a place, between 0 and 1; undefined in a gap.
function heightAt(path, x) {
    for (const piece of path.getAttribute('d').split('M').slice(1)) {
        const points = piece.split('L').map(point => point.split(' ').map(Number));
        for (let index = 1; index < points.length; index++) {
            const [[x0, y0], [x1, y1]] = [points[index - 1], points[index]];
            if (x0 <= x && x <= x1 && x0 < x1) return 1 - (y0 + (y1 - y0) * (x - x0) / (x1 - x0)) / 1000;
        }
    }
}

// Compares what is drawn with what tooltips say.
function compare(figure, x, y, faults) {
    const expectAt = (what, at, value) => {
        if (at === undefined || !(Math.abs(at - y.at(value)) < 0.012)) {
            faults.push('FAULT ' + figure.id + ': ' + what + ' is drawn at ' + (at === undefined ? '-' : y.value(at).toPrecision(4)));
        }
    };
    let compared = 0;
    for (const spot of figure.querySelectorAll('rect.spot')) {
        const title = spot.querySelector('title').textContent;
        const from = Number(spot.getAttribute('x')), middle = from + Number(spot.getAttribute('width')) / 2;
        const lines = {max: 'path.c', p99: 'path.b', p50: 'path.a'};
        const told = name => valueOf((new RegExp(name + ' ([^,;]+)').exec(title) || ['', ''])[1]);
        if (figure.id === 'latency' || figure.id === 'trials') {
            // A trial is at its rate, and not in the middle between its neighbours.
            const place = figure.id === 'latency' ? middle : x.at(valueOf(title.split(':')[0])) * 1000;
            for (const [name, selector] of Object.entries(lines)) {
                const path = figure.querySelector(selector);
                if (!path || Number.isNaN(told(name))) continue;
                // Rounded to a tenth, as the points of lines are.
                const at = [place, place - 0.2, place + 0.2].map(place => heightAt(path, place)).find(at => at !== undefined);
                expectAt(title + ': ' + name, at, told(name));
                compared++;
            }
        } else if (figure.id === 'rate') {
            const rate = valueOf((/: ([0-9,]+\/s)/.exec(title) || ['', ''])[1]);
            const path = [...figure.querySelectorAll('path.a')][0];
            expectAt(title, heightAt(path, middle), rate);
            compared++;
        } else if (figure.id === 'histogram') {
            const [begin, end] = title.split(':')[0].split(' to ').map(valueOf);
            if (begin > 0 && Math.abs(x.at(end) - x.at(begin) - (middle - from) / 500) > 0.012) {
                faults.push('FAULT histogram: ' + title + ' is not as wide as the axis says');
            }
            compared++;
        }
    }
    if (['latency', 'rate', 'trials', 'histogram'].includes(figure.id) && figure.querySelector('rect.spot') && compared === 0) {
        faults.push('FAULT nothing of ' + figure.id + ' could be compared');
    }
}

function faultsOf(page, width) {
    const faults = [], pageWidth = page.documentElement.scrollWidth;
    if (pageWidth > width) faults.push('FAULT the page is ' + pageWidth + ' pixels wide in a window of ' + width);
    for (const path of page.querySelectorAll('.plot path')) {
        const box = path.getBoundingClientRect();
        // A line for what was found is upright.
        if (box.width < 50 && box.height < 50) faults.push('FAULT a line of ' + path.closest('figure').id + ' is ' + box.width + ' wide');
    }
    for (const figure of page.querySelectorAll('figure')) {
        if (!figure.querySelector('path, .bar')) faults.push('FAULT the drawing ' + figure.id + ' is empty');
        if (figure.querySelector('svg').getBoundingClientRect().height < 100) faults.push('FAULT ' + figure.id + ' is flat');
        if (!figure.querySelector('tbody tr')) faults.push('FAULT the table of ' + figure.id + ' is empty');
        for (const label of figure.querySelectorAll('.plot text')) {
            const box = label.getBoundingClientRect();
            if (box.width > 0 && (box.left < 0 || box.right > width)) faults.push('FAULT ' + figure.id + ': the label ' + label.textContent + ' is cut off');
        }
        for (const [kind, begin, end] of [['x', 'left', 'right'], ['y', 'top', 'bottom']]) {
            const labels = [...figure.querySelectorAll('.plot text.' + kind)].map(label => label.getBoundingClientRect());
            const shown = labels.filter(box => box.width > 0).sort((a, b) => a[begin] - b[begin]);
            if (shown.some((box, index) => index > 0 && box[begin] < shown[index - 1][end])) {
                faults.push('FAULT labels of ' + figure.id + ', axis ' + kind + ', overlap');
            }
        }
        // The axis of percentiles is of nines.
        const y = axisOf(figure, 'y', faults), x = figure.id === 'percentiles' ? null : axisOf(figure, 'x', faults);
        if (y && (x || figure.id === 'percentiles')) compare(figure, x, y, faults);
    }
    for (const cell of page.querySelectorAll('td')) {
        if (!/^[0-9,.]+( ?[a-zµ%/]+)?$/.test(cell.textContent)) continue;
        const range = page.createRange();
        range.selectNodeContents(cell);
        if (range.getClientRects().length > 1) faults.push('FAULT the number ' + cell.textContent + ' is broken into lines');
    }
    for (const scroll of page.querySelectorAll('.scroll')) {
        const cell = scroll.querySelector('td');
        if (cell && cell.getBoundingClientRect().right > scroll.getBoundingClientRect().right) {
            const caption = scroll.querySelector('caption').textContent;
            faults.push('FAULT of the table ' + caption + ', only the names are in view');
        }
    }
    return faults;
}
