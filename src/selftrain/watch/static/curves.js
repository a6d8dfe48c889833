// All metrics by stage, accuracy where it was evaluated, and what happened, on one time axis.
import { Refused, get } from "./api.js";
import { Chart, Linked, lone } from "./chart.js";
import { h, keep, put } from "./dom.js";
import { STAGE_NAMES, afterSteps, byStage, checkpointWords, evaluatedStep, plain, plural, span, title, unitOf } from "./format.js";

const POINTS = 600;
const TOLD = 12;
const THIN = { width: 1, dash: [4, 3] };

export async function curvesTab(body, context, { query }) {
  let series = await get("series", { run: context.id, points: POINTS });
  let fetching = false, again = false, stopped = false, all = false, toldBefore = "";
  const open = (step) => (location.hash = context.link("groups", { step }));
  const reset = h("button", { type: "button", class: "quiet", id: "zoom-out", hidden: true, onclick: () => linked.zoom(null) }, "Show all steps");
  const linked = new Linked((range) => {
    reset.hidden = range === null;
    put(reset, range === null ? "" : `Steps ${range[0]} to ${range[1]}: show all`);
    lane();
    if (series.live.decimated || range === null) refetch();
  });
  const marks = new Map();
  const happened = h("section", { class: "happened", "aria-label": "What happened" });
  const strip = h("div", { class: "lane" });
  const grid = h("div", { class: "stages" });
  put(body, h("div", { class: "lane-row" }, strip, reset), happened, grid);
  let charts = [], accuracy = null, shown = null;

  function draw() {
    const last = [series.live, ...series.left].reduce((most, part) => Math.max(most, part.steps.at(-1) ?? 0), 1);
    linked.whole = [0, linked.range ? Math.max(last, linked.full()[1]) : last];
    linked.stretches = new Map((series.live.stretches ?? []).flatMap(([first, last]) => [[first, [first, last]], [last, [first, last]]]));
    const keys = [...new Set([...Object.keys(series.live.values), ...series.left.flatMap((one) => Object.keys(one.values))])];
    const shape = `${keys.join()} ${series.left.length}`;
    if (shape !== shown) {
      for (const { chart } of charts) chart.stop();
      accuracy?.chart.stop();
      charts = [];
      accuracy = null;
      put(grid);
      shown = shape;
      if (!keys.length) put(grid, h("p", { class: "soft empty" }, "No step is recorded yet. The curves begin with the first one."));
      for (const [stage, members] of byStage(keys, Object.keys(context.run.metrics))) {
        const made = members.map((key) => {
          const known = context.run.metrics[key] ?? { unit: "", formula: key };
          const left = series.left.map(() => ({ color: "left", ...THIN }));
          const chart = new Chart(linked, { title: title(key), unit: unitOf(known.unit), help: `${key}: ${known.formula}`, limits: known.unit === "fraction" ? [0, 1] : null, series: [{ color: "accent" }, ...left], onOpen: open });
          charts.push({ key, chart });
          return chart.element;
        });
        grid.append(section(STAGE_NAMES[stage] ?? stage, made));
      }
    }
    for (const { key, chart } of charts) chart.set(...aligned(series, key));
    drawAccuracy();
  }

  function drawAccuracy() {
    const found = context.run.evaluations;
    if (!found.length || !charts.length) return;
    const names = Object.keys(found[0].measures).slice(0, 3), at = (one) => evaluatedStep(context.run, one);
    const behind = Map.groupBy(found.filter((one) => !one.counts), (one) => one.branch);
    const parts = [found.filter((one) => one.counts), ...behind.values()].map((part) => new Map(part.map((one) => [at(one), one])));
    if (accuracy?.parts !== parts.length) {
      accuracy?.chart.stop();
      accuracy?.section.remove();
      const colors = ["accent", "c1", "c2"];
      const series = parts.flatMap((part, each) => names.map((name, of) => ({ name: each ? null : name, color: colors[of], ...(each ? THIN : {}) })));
      const chart = new Chart(linked, { title: "On held-out problems", unit: names[0], help: "Evaluated with true answers; it never decides anything.", limits: [0, 1], series, onOpen: open, isWhole: true });
      accuracy = { chart, parts: parts.length, section: section("Accuracy", [chart.element]) };
      grid.prepend(accuracy.section);
    }
    const steps = [...new Set([...charts[0].chart.extent(), ...parts.flatMap((part) => [...part.keys()])])].sort((a, b) => a - b);
    const values = parts.flatMap((part) => names.map((name) => steps.map((step) => part.get(step)?.measures[name]?.value ?? null)));
    accuracy.chart.set([steps, ...values], values.map((one) => one.flatMap((value, spot) => (value === null ? [] : [spot]))));
  }

  function lane() {
    const events = happenings(context.run);
    linked.marks = events.filter((one) => one.draw).map(({ first, last, color, line }) => ({ first, last, color, line }));
    const [low, high] = linked.range ?? linked.full();
    const spot = (step) => `${(100 * (step - low)) / Math.max(1, high - low)}%`;
    // What is done after the last step stands at its end. A mark stays the element it was, so that a click or the focus is not lost as steps are done.
    const seen = events.filter((one) => one.last >= low && (one.at ?? one.first) <= high);
    const times = new Map();
    keep(strip, seen.map((one) => {
      const place = `${one.kind} ${one.turn} ${one.first}`, number = times.get(place) ?? 0, key = `${place} ${number}`;
      times.set(place, number + 1);
      if (!marks.has(key)) marks.set(key, h("a", { class: `mark ${one.kind}` }));
      const mark = marks.get(key), begin = Math.min(Math.max(one.first, low), high);
      mark.setAttribute("href", context.link("groups", { step: Math.max(0, Math.min(one.at ?? one.last, high)), branch: one.branch }));
      mark.title = plain(one.words);
      mark.setAttribute("aria-label", mark.title);
      mark.style.left = spot(begin);
      mark.style.width = one.last > one.first ? `calc(${spot(Math.min(one.last, high))} - ${spot(begin)})` : "";
      return mark;
    }));
    tell(events.filter((one) => one.told));
    linked.redraw();
  }

  /** The newest of what happened, and all of it on demand. */
  function tell(told) {
    const shown = all ? told : told.slice(-TOLD), words = JSON.stringify([told.length, shown.map((one) => [one.when, one.words])]);
    if (words === toldBefore) return;
    toldBefore = words;
    const rest = told.length - shown.length;
    const more = h("button", { type: "button", class: "linklike", id: "all-happened", onclick: () => { all = true; tell(told); } }, `and ${rest} before: show all`);
    const lines = [...shown].reverse().map((one) => h("li", { class: one.kind }, h("span", { class: "when" }, one.when), h("span", {}, one.words)));
    put(happened, told.length ? [h("h2", {}, "What happened"), h("ol", {}, lines), rest ? h("p", {}, more) : null] : null);
  }

  /** Ask for the series anew; where that fails, once more until it is there. */
  async function refetch() {
    if (fetching) return (again = true);
    fetching = true;
    let wait = 800;
    try {
      const [first, last] = linked.range ?? [];
      series = await get("series", { run: context.id, points: POINTS, first: first === undefined ? undefined : Math.max(0, first), last });
      if (!stopped) draw();
    } catch (error) {
      [again, wait] = [!(error instanceof Refused && error.status === 401), 2000]; // the line at the top says what is the matter
    } finally {
      fetching = false;
    }
    if (again && !stopped) setTimeout(() => { again = false; if (!stopped) refetch(); }, wait);
    return undefined;
  }

  const recolor = () => {
    for (const { chart } of charts) chart.draw();
    accuracy?.chart.draw();
  };
  addEventListener("themechange", recolor);
  draw();
  lane();
  if (query.first) linked.zoom([Number(query.first), Number(query.last)]);
  return {
    update(change) {
      const grown = change.steps;
      const simple = grown.every((one) => one.branch === context.run.branch) && !series.live.decimated && !linked.range && !change.happenings?.branches?.length;
      if (grown.length && simple && series.live.steps.length) append(series.live, grown);
      else if (grown.length || change.happenings) refetch();
      draw();
      lane();
    },
    reload: refetch,
    stop() {
      stopped = true;
      removeEventListener("themechange", recolor);
      for (const { chart } of charts) chart.stop();
      accuracy?.chart.stop();
    },
  };
}

/** A stage with its curves: as wide as it has some, so that small stages share a row. */
function section(name, members) {
  const made = h("section", { class: "stage" }, h("h2", {}, name), h("div", { class: "charts" }, members));
  made.style.flex = `${members.length} 1 min(100%, ${members.length * 300}px)`;
  return made;
}

function append(live, steps) {
  for (const one of steps) {
    if (live.steps.length && one.step <= live.steps.at(-1)) continue;
    live.steps.push(one.step);
    for (const key of new Set([...Object.keys(live.values), ...Object.keys(one.values)])) {
      live.values[key] ??= new Array(live.steps.length - 1).fill(null);
      live.values[key].push(one.values[key] ?? null);
    }
  }
}

/** [steps, live values, values of each branch that was left] on one axis, and of each where its values stand alone among its own steps. */
function aligned(series, key) {
  const parts = [series.live, ...series.left].map((part) => ({ steps: part.steps, values: part.values[key] ?? part.steps.map(() => null) }));
  if (parts.length === 1) return [[parts[0].steps, parts[0].values], [lone(parts[0].values)]];
  const steps = [...new Set(parts.flatMap((part) => part.steps))].sort((a, b) => a - b);
  const spot = new Map(steps.map((step, at) => [step, at]));
  const columns = parts.map((part) => {
    const values = new Array(steps.length).fill(null);
    part.steps.forEach((step, at) => (values[spot.get(step)] = part.values[at]));
    return values;
  });
  return [[steps, ...columns], parts.map((part) => lone(part.values).map((at) => spot.get(part.steps[at])))];
}

const SERIOUS = { halt: "halts", roll_back: "rolls back" };

/** What happened, in the order of the record, which is that of branches and of the steps of each: findings that last as one span, requests, rollbacks,
 * checkpoints, evaluations. at: of what is done between two steps, the first of the two. */
export function happenings(run) {
  const spans = [];
  for (const verdict of run.verdicts) {
    const rules = verdict.findings.map((one) => one.rule).join();
    const last = spans.at(-1);
    if (last && last.branch === verdict.branch && last.last === verdict.step - 1 && last.rules === rules && last.action === verdict.action) last.last = verdict.step;
    else spans.push({ first: verdict.step, last: verdict.step, branch: verdict.branch, rules, action: verdict.action, findings: verdict.findings });
  }
  const found = spans.map((one) => ({
    ...one, kind: one.action, told: true, draw: true, color: SERIOUS[one.action] ? "bad" : "warn", turn: one.branch, order: one.first,
    when: span(one.branch, one.first, one.last),
    words: `The guard ${SERIOUS[one.action] ?? "warns"}: ${one.findings.map((each) => each.words).join("; ")}${one.last > one.first ? `, for ${plural(one.last - one.first + 1, "step")}` : ""}`,
  }));
  for (const one of run.requests) {
    const what = one.action.replace("_", " ");
    const words = `${one.who} asked: ${what}${one.checkpoint ? ` to ${checkpointWords(one.checkpoint)}` : ""}${one.reason ? `, because: ${one.reason}` : ""}${one.refused ? ` (not done: ${one.refused})` : ""}`;
    found.push({ first: one.step, last: one.step, at: one.step - 1, branch: one.branch, kind: "request", told: true, draw: one.action === "roll_back" && !one.refused, line: true, color: "note", turn: one.branch, order: one.step - 0.5, when: afterSteps(one.step), words });
  }
  for (const one of run.branches) {
    if (!run.requests.some((asked) => asked.action === "roll_back" && asked.checkpoint === one.checkpoint && asked.step === one.left_at && !asked.refused))
      found.push({ first: one.left_at, last: one.left_at, at: one.left_at - 1, branch: one.branch - 1, kind: "request", told: true, draw: true, line: true, color: "note", turn: one.branch, order: -1, when: afterSteps(one.left_at), words: `Rolled back to ${checkpointWords(one.checkpoint)} by ${one.who}: ${one.reason}${one.remedy?.kind ? `; remedy ${one.remedy.kind}${Object.entries(one.remedy.options).map(([name, value]) => `, ${name} = ${typeof value === "number" ? Number(value.toPrecision(6)) : value}`).join("")}` : ""}` });
  }
  for (const one of run.checkpoints) if (one.counts && one.name !== "start") found.push({ first: one.step, last: one.step, at: one.step - 1, branch: undefined, kind: "checkpoint", told: false, turn: one.branch, order: one.step, words: `Checkpoint ${one.name}` });
  return found.sort((a, b) => a.turn - b.turn || a.order - b.order);
}
