// One curve: uPlot with our colours, marks on the time axis, a cursor and a zoom that all curves share, and keys.
import { color, h, put } from "./dom.js";
import { num, signed, tickLabels } from "./format.js";

/* global uPlot */
const HEIGHT = 132, AXIS = 46, FONT = "11px system-ui, sans-serif";

/** What the curves of a page share: the zoomed range, the step under the cursor, the marks. */
export class Linked {
  constructor(onZoom) {
    this.charts = new Set();
    this.range = null;
    this.marks = [];
    this.at = null;
    this.pointed = null; // the chart under the mouse
    this.whole = null;
    this.stretches = new Map();
    this.onZoom = onZoom;
    this.sync = uPlot.sync(`steps-${Math.random()}`);
  }

  zoom(range) {
    const same = (this.range === null) === (range === null) && (range === null || (range[0] === this.range[0] && range[1] === this.range[1]));
    if (same) return;
    this.range = range;
    for (const chart of this.charts) chart.applyRange();
    if (this.at !== null) queueMicrotask(() => this.point(this.at)); // the plots take the new range at the end of this task
    this.onZoom(range);
  }

  /** The first and the last step there are, whatever is shown of them. */
  full() {
    const first = [...this.charts][0];
    return this.whole ?? (first ? first.extent() : [0, 1]);
  }

  /** Zoom about a step by a factor; below 1 is closer. */
  scale(factor, about) {
    const [low, high] = this.range ?? this.full(), [least, most] = this.full();
    const half = Math.max(((high - low) * factor) / 2, 1), middle = about ?? (low + high) / 2;
    const next = [Math.max(least, Math.round(middle - half)), Math.min(most, Math.round(middle + half))];
    this.zoom(next[0] <= least && next[1] >= most ? null : next);
  }

  /** Put the cursor of every curve on a step. */
  point(step) {
    if (step === null) return;
    for (const { plot } of this.charts) plot?.setCursor({ left: plot.valToPos(step, "x"), top: 20 }, true, false);
    this.at = step;
  }

  redraw() {
    for (const chart of this.charts) chart.plot?.redraw(false, true);
  }
}

export class Chart {
  /** series: [{name, color, dash, width}], the first one is read out. onOpen(step): a click or Enter. isWhole: its steps never stand for others. */
  constructor(linked, { title, unit, help, series, onOpen, limits, isWhole = false }) {
    Object.assign(this, { linked, title, unit, series, onOpen, limits, isWhole });
    this.value = h("output", { class: "now" });
    this.box = h("div", { class: "plot" });
    this.element = h(
      "figure", { class: "chart", tabindex: 0, role: "group", "aria-label": title, title: help ?? null, onkeydown: (event) => this.key(event) },
      h("figcaption", {}, h("span", { class: "what" }, title), this.value),
      this.box,
      series.filter((one) => one.name).length > 1 ? h("p", { class: "legend" }, series.filter((one) => one.name).map((one) => h("span", { class: `swatch ${one.color}` }, one.name))) : null,
    );
    linked.charts.add(this);
    this.observer = new ResizeObserver(([entry]) => this.plot?.setSize({ width: Math.max(120, Math.floor(entry.contentRect.width)), height: HEIGHT }));
    this.observer.observe(this.box);
  }

  /** data: [steps, values of each series]. points: for each series, where in it a value is drawn as a point too; else where it stands alone. */
  set(data, points = data.slice(1).map(lone)) {
    this.data = data;
    this.points = points;
    if (this.plot) {
      this.plot.setData(data, false);
      this.applyRange();
    } else this.draw();
    this.read(this.linked.at);
  }

  draw() {
    this.plot?.destroy();
    put(this.box);
    if (!this.data || !this.data[0].length) {
      put(this.box, h("p", { class: "soft none" }, "no values yet"));
      this.plot = null;
      return;
    }
    const axis = { stroke: color("soft"), grid: { stroke: color("grid"), width: 1 }, ticks: { show: false }, font: FONT };
    const wide = this.limits;
    this.plot = new uPlot(
      {
        width: Math.max(120, Math.floor(this.box.clientWidth || 300)),
        height: HEIGHT,
        padding: [6, 6, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: this.linked.sync.key, setSeries: false, filters: { pub: followed, sub: followed } }, drag: { x: true, y: false, dist: 5 }, y: false, points: { size: 6 }, bind: { dblclick: () => () => this.zoomOut() } },
        scales: { x: { time: false }, y: { range: (plot, low, high) => span(low, high, wide) } },
        axes: [
          { ...axis, size: 22, gap: 4, space: 48, values: (plot, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? String(tick) : "")) },
          { ...axis, size: roomFor, gap: 4, space: 26, values: (plot, ticks, at, space, distance) => tickLabels(ticks, distance) },
        ],
        series: [{}, ...this.series.map((one) => ({ stroke: color(one.color), width: one.width ?? 1.6, dash: one.dash, spanGaps: true, points: { show: false, filter: (plot, at) => this.points[at - 1], size: one.width ? 4 : 5, fill: color(one.color) } }))],
        hooks: { drawClear: [(plot) => this.drawMarks(plot)], setCursor: [(plot) => this.moved(plot)], setSelect: [(plot) => this.selected(plot)] },
      },
      this.data,
      this.box,
    );
    this.plot.over.addEventListener("mouseenter", () => (this.linked.pointed = this));
    this.plot.over.addEventListener("mouseleave", () => {
      this.linked.pointed = this.linked.at = null;
      for (const chart of this.linked.charts) chart.read(null);
    });
    this.plot.over.addEventListener("click", () => {
      const at = this.plot.cursor.idx;
      clearTimeout(this.opening);
      if (at !== null && !this.dragged) this.opening = setTimeout(() => this.onOpen?.(this.data[0][at]), 260); // unless a second click follows
      this.dragged = false;
    });
    this.applyRange();
  }

  zoomOut() {
    clearTimeout(this.opening);
    this.linked.zoom(null);
    return null;
  }

  extent() {
    const steps = this.data?.[0] ?? [];
    return steps.length ? [steps[0], Math.max(steps.at(-1), steps[0] + 1)] : [0, 1];
  }

  applyRange() {
    if (!this.plot) return;
    const [low, high] = this.linked.range ?? this.extent();
    this.plot.setScale("x", { min: low, max: high });
  }

  selected(plot) {
    if (plot.select.width < 6) return;
    this.dragged = true;
    const low = plot.posToVal(plot.select.left, "x"), high = plot.posToVal(plot.select.left + plot.select.width, "x");
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    const range = [Math.floor(low), Math.ceil(high)];
    if (range[1] - range[0] >= 1) this.linked.zoom(range);
  }

  moved(plot) {
    const at = plot.cursor.idx ?? null;
    const step = at === null || plot.cursor.left < 0 ? null : this.data[0][at];
    if (step !== null && this.linked.pointed === this) this.linked.at = step;
    this.read(step);
  }

  /** Show the values at a step, or the last ones. */
  read(step) {
    if (!this.data || !this.data[0].length) return put(this.value);
    let at = step === null || step === undefined ? -1 : this.data[0].indexOf(step);
    if (at < 0) for (at = this.data[0].length - 1; at > 0 && this.data[1][at] == null; ) at -= 1;
    const value = this.data[1][at], here = this.data[0][at], stretch = this.isWhole ? undefined : this.linked.stretches.get(here);
    // Of a stretch of several steps the least and the greatest value are known, and not at which of its steps.
    const found = stretch && stretch[0] !== stretch[1] ? stretch.map((end) => this.data[1][this.data[0].indexOf(end)]) : [];
    const both = found.every((one) => one != null) ? found : []; // a value at one end only is that of its step
    const ends = both.length ? [...new Set([Math.min(...both), Math.max(...both)].map((one) => num(one)))] : [num(value)];
    const where = both.length ? stretch : [here];
    put(this.value, ends.join(both.some((one) => one < 0) ? " to " : "–"), this.unit ? h("small", {}, ` ${this.unit}`) : null, step === null || step === undefined ? null : h("small", { class: "soft" }, ` at ${where.join("–")}`));
    const since = value == null || both.length ? "" : `; ${signed(value - this.data[1].find((one) => one != null))} since the first`;
    this.element.setAttribute("aria-label", `${this.title}: ${ends.join(" to ")} ${this.unit} at step${both.length ? "s" : ""} ${where.join(" to ")}${since}`);
  }

  /** Findings as bands, rollbacks and requests as lines: under the curve, in every chart alike. */
  drawMarks(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const mark of this.linked.marks) {
      const left = plot.valToPos(mark.first - (mark.line ? 0 : 0.5), "x", true), right = plot.valToPos(mark.last + 0.5, "x", true);
      ctx.fillStyle = ctx.strokeStyle = color(mark.color);
      if (mark.line) {
        ctx.setLineDash([4, 3]);
        ctx.lineWidth = devicePixelRatio;
        ctx.beginPath();
        ctx.moveTo(left, bbox.top);
        ctx.lineTo(left, bbox.top + bbox.height);
        ctx.stroke();
      } else {
        ctx.globalAlpha = 0.13;
        ctx.fillRect(left, bbox.top, Math.max(right - left, 2), bbox.height);
        ctx.globalAlpha = 1;
      }
    }
    ctx.restore();
  }

  key(event) {
    if (!this.plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const [low, high] = this.linked.range ?? this.extent(), far = event.shiftKey ? 10 : 1;
    const steps = this.data[0].filter((step) => step >= low && step <= high);
    if (!steps.length) return;
    let at = steps.indexOf(this.linked.at);
    if (at < 0) at = steps.length - 1;
    const acts = {
      ArrowLeft: () => this.linked.point(steps[Math.max(0, at - far)]),
      ArrowRight: () => this.linked.point(steps[Math.min(steps.length - 1, at + far)]),
      Home: () => this.linked.point(steps[0]),
      End: () => this.linked.point(steps.at(-1)),
      "+": () => this.linked.scale(0.5, this.linked.at),
      "=": () => this.linked.scale(0.5, this.linked.at),
      "-": () => this.linked.scale(2, this.linked.at),
      0: () => this.linked.zoom(null),
      Enter: () => this.onOpen?.(steps[at]),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  }

  stop() {
    clearTimeout(this.opening);
    this.observer.disconnect();
    this.plot?.destroy();
    this.linked.charts.delete(this);
  }
}

/** Of what the mouse does in one curve the others follow the moves only; a zoom goes through `Linked`. */
const followed = (kind) => kind === "mousemove" || kind === "mouseleave";

/** The width of the axis of values: that of its longest label, and alike in all curves whose labels are short. */
function roomFor(plot, labels, at, cycle) {
  const axis = plot.axes[at];
  if (cycle > 1) return axis._size; // the ticks depend on the room, and the room on the ticks: once is enough
  plot.ctx.font = FONT;
  return Math.max(AXIS, ...(labels ?? []).map((label) => Math.ceil(plot.ctx.measureText(label).width) + axis.gap + 4));
}

/** Where a value stands alone, without one beside it: no line shows it. */
export const lone = (values) => values.flatMap((value, at) => (value != null && values[at - 1] == null && values[at + 1] == null ? [at] : []));

/** The range of the values with a little air; where they lie within `limits` it keeps to them, and shows all of them where the values nearly fill them. */
export function span(low, high, limits) {
  if (low === null || high === null) return limits ?? [0, 1];
  const kept = limits && low >= limits[0] && high <= limits[1] ? limits : null;
  if (kept && high - low > 0.5 * (kept[1] - kept[0])) return kept;
  const air = (high - low) * 0.12 || Math.abs(high) * 0.05 || 0.5;
  const range = [low - air, high + air];
  if (kept) return [Math.max(kept[0], range[0]), Math.min(kept[1] + 0.25 * air, range[1])];
  return low >= 0 && range[0] < 0 ? [0, range[1]] : range;
}
