// Numbers and names as people read them.

const KNOWN_UNITS = { fraction: "", reward: "", loss: "", norm: "", ratio: "", updates: "", "1/update": "" };

/** A number with about four significant digits. */
export function num(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

export const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(value > 0 && value < 0.0995 ? 1 : 0)} %`);
export const measure = (interval) =>
  interval ? `${(100 * interval.value).toFixed(1)} % [${(100 * interval.low).toFixed(1)}, ${(100 * interval.high).toFixed(1)}]` : "–";
export const signed = (value) => (value === null || value === undefined ? "–" : `${value > 0 ? "+" : value < 0 ? "−" : ""}${num(Math.abs(value), 3)}`);
export const unitOf = (unit) => (unit in KNOWN_UNITS ? KNOWN_UNITS[unit] : unit);
export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

const NAMES = {
  "vote/share_mean_frac": "Vote share",
  "vote/margin_mean_frac": "Vote margin",
  "vote/read_mean_frac": "Completions read",
  "vote/tie_frac": "Ties",
  "vote/collision_frac": "Answer collisions",
  "vote/split_half_frac": "Halves that agree",
  "label/decided_frac": "Labels decided",
  "reward/mean_frac": "Mean reward",
  "reward/kl_penalty_mean_nats": "KL penalty in the reward",
  "admission/admitted_frac": "Groups admitted",
  "admission/no_signal_frac": "Groups without signal",
  "completion/length_mean_tokens": "Completion length",
  "completion/truncated_frac": "Truncated",
  "completion/compress_ratio": "Compressed size",
  "policy/entropy_mean_nats": "Token entropy",
  "policy/logprob_mean_nats": "Log-probability",
  "update/grad_norm": "Gradient norm",
  "update/kl_loss_nats": "KL in the loss",
  "update/logprob_gap_nats": "Learner–sampler gap",
  "update/num_tokens": "Tokens learned from",
  "update/num_updates": "Optimizer steps",
};

/** The title of a metric: a name people use, or its key in words. */
export function title(key) {
  if (NAMES[key]) return NAMES[key];
  const words = key.split("/").pop().replace(/_(frac|nats|tokens|s)$/, "").replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

const STAGES = ["vote", "label", "correction", "reward", "admission", "guard", "completion", "policy", "update"];
/** Metric keys by stage, in the order of the method; within a stage in the order of `known`. */
export function byStage(keys, known) {
  const stages = new Map();
  const rank = (key) => (STAGES.indexOf(key.split("/")[0]) + STAGES.length + 1) % (STAGES.length + 1);
  for (const key of [...keys].sort((a, b) => rank(a) - rank(b) || known.indexOf(a) - known.indexOf(b))) {
    const stage = key.split("/")[0];
    stages.set(stage, [...(stages.get(stage) ?? []), key]);
  }
  return stages;
}

export const STATES = {
  running: "running",
  paused: "paused",
  stopped: "stopped",
  unfinished: "not finished",
  done: "finished",
  halted: "halted by the guard",
  damaged: "damaged",
};
export const outcomeWords = (outcome) => ({ decided: "decided", tie: "tie", no_answer: "no answer", below_quorum: "too few read", below_min_share: "share too low", no_reference: "no reference", gate_closed: "gate closed", no_verifier: "not verified", no_verdict: "no verdict", no_second_view: "no second wording", views_differ: "the wordings differ", not_stored: "no stored label" })[outcome] ?? outcome;
export const admissionWords = (admission) => ({ admitted: "trains", undecided: "no label", no_signal: "no signal" })[admission] ?? admission;
export const checkpointWords = (name) => (name === "start" ? "the start" : name);
/** The same where there is little room. */
export const shortPlace = (branch, step) => (branch ? `step ${step} · b${branch}` : `step ${step}`);
/** "step 12", with the branch where there was a rollback. */
export const place = (branch, step) => (branch ? `step ${step}, branch ${branch}` : `step ${step}`);
/** "steps 12–15", the same of several. */
export const span = (branch, first, last) => (first === last ? place(branch, first) : `steps ${first}–${last}${branch ? `, branch ${branch}` : ""}`);
/** The step whose weights an evaluation is of: the last one is of the checkpoint that is handed over. */
export const evaluatedStep = (run, one) => {
  const match = /step-(\d+)$/.exec(run.handed_over ?? "");
  return one.name !== "after" ? one.step : run.handed_over === "start" ? 0 : match ? Number(match[1]) : run.steps_done;
};
