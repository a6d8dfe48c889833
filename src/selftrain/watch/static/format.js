// Numbers and names as people read them.

const KNOWN_UNITS = { fraction: "", reward: "", "reward per nat": "", loss: "", norm: "", ratio: "", updates: "", "1/update": "" };

/** A number with about four significant digits. */
export function num(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

/** A number with so many digits behind the point; a tie goes to the even digit, as Python rounds in the report. */
export function fixed(value, digits) {
  const text = value.toFixed(digits), isTie = Math.abs(value * 2 ** (digits + 1)) % 2 === 1;
  return isTie && Number(text.at(-1)) % 2 ? (value - Math.sign(value) * 2 ** -(digits + 3)).toFixed(digits) : text;
}

/** The labels of an axis: as many digits as the distance of two ticks needs. */
export function tickLabels(ticks, distance) {
  const [mantissa, exponent] = Number(distance.toPrecision(3)).toExponential().split("e");
  const decimals = Math.max(0, mantissa.length - 2) - Number(exponent), largest = Math.max(...ticks.map(Math.abs));
  const places = Math.max(0, decimals);
  const label = (tick) => {
    if (largest < 1e6 && largest >= 1e-3) return tick.toLocaleString("en", { maximumFractionDigits: Math.min(places, 20) });
    return tick.toExponential(Math.min(Math.max(0, Number(tick.toExponential().split("e")[1]) + decimals), 20)).replace("e+", "e");
  };
  return ticks.map((tick) => (Number(tick.toFixed(Math.min(places, 100))) === 0 ? "0" : label(tick)));
}

export const percent = (value) => (value === null || value === undefined ? "–" : `${fixed(100 * value, value > 0 && value < 0.0995 ? 1 : 0)} %`);
export const measure = (interval) => (interval ? `${points(interval.value)} % [${points(interval.low)}, ${points(interval.high)}]` : "–");
/** A fraction in percent, without its sign. */
export const points = (value) => fixed(100 * value, 1);
export const signed = (value) => (value === null || value === undefined ? "–" : `${value > 0 ? "+" : value < 0 ? "−" : ""}${num(Math.abs(value), 3)}`);
export const unitOf = (unit) => (unit in KNOWN_UNITS ? KNOWN_UNITS[unit] : unit);
export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

const NAMES = {
  "vote/share_mean_frac": "Vote share",
  "vote/margin_mean_frac": "Vote margin",
  "vote/share_speed_frac": "Vote share, speed",
  "vote/margin_speed_frac": "Vote margin, speed",
  "vote/read_mean_frac": "Completions read",
  "vote/tie_frac": "Ties",
  "vote/collision_frac": "Answer collisions",
  "vote/split_half_frac": "Halves that agree",
  "vote/flip_frac": "Winners that changed",
  "label/decided_frac": "Labels decided",
  "label/truth_right_frac": "Right by true answers",
  "correction/agree_turn1_frac": "Agree in the first turn",
  "correction/agree_turn2_frac": "Agree once corrected",
  "correction/mended_frac": "Corrections that mend",
  "correction/broken_frac": "Corrections that break",
  "correction/admitted_frac": "Corrections that train",
  "correction/no_room_frac": "Second turns without room",
  "reward/mean_frac": "Mean reward",
  "reward/length_corr": "Correlation with length",
  "reward/kl_penalty_mean_nats": "KL penalty in the reward",
  "admission/admitted_frac": "Groups admitted",
  "admission/no_signal_frac": "Groups without signal",
  "completion/length_mean_tokens": "Completion length",
  "completion/truncated_frac": "Truncated",
  "completion/compress_ratio": "Compressed size",
  "completion/repeat_frac": "Repeated 4-grams",
  "policy/entropy_mean_nats": "Token entropy",
  "policy/certainty_mean_nats": "Self-certainty",
  "policy/logprob_mean_nats": "Log-probability",
  "update/loss": "Loss",
  "update/grad_norm": "Gradient norm",
  "update/learning_rate": "Learning rate",
  "update/ratio_mean": "Mean importance ratio",
  "update/ratio_max": "Largest importance ratio",
  "update/clip_frac": "Tokens clipped",
  "update/logprob_gap_nats": "Learner–sampler gap",
  "update/kl_loss_nats": "KL in the loss",
  "update/num_tokens": "Tokens learned from",
  "update/num_updates": "Optimizer steps",
  "probe/share_mean_frac": "Vote share",
  "probe/read_mean_frac": "Completions read",
  "probe/collision_frac": "Answer collisions",
  "probe/length_mean_tokens": "Completion length",
  "probe/base_agree_frac": "Start's answers given",
  "probe/base_kept_frac": "Start's answers kept",
  "probe/base_lost_frac": "Start's answers lost",
  "probe/base_lost_low_frac": "Lost, lower end",
  "probe/number_unchanged_frac": "Same with other numbers",
  "probe/reword_agree_frac": "Same in other words",
  "probe/swap_changed_frac": "Differs with other people",
  "probe/reward_per_nat": "Reward gained per nat",
  "probe/kl_base_nats": "KL from the start",
  "probe/kl_answer_nats": "KL in final answers",
  "probe/kl_reasoning_nats": "KL in the reasoning",
  "probe/drift_nats": "Drift off the domain",
  "probe/canary_right_frac": "Canaries right",
  "support/base_share_frac": "Start's share of answers",
  "support/error_frac": "Standard error",
  "support/start_share_frac": "Start's own vote share",
  "glance/fallen_frac": "Fallen since the probe",
  "glance/error_frac": "Standard error",
  "cost/vote_tokens": "Sampled to vote",
  "cost/judge_tokens": "Sampled to judge",
  "cost/teacher_tokens": "Sampled by a teacher",
  "cost/view_tokens": "Sampled in other wordings",
  "cost/paraphrase_tokens": "Sampled to reword",
  "cost/correction_tokens": "Sampled in second turns",
  "cost/probe_tokens": "Sampled for a probe",
};

/** The title of a metric: a name people use, or its key in words. */
export function title(key) {
  if (NAMES[key]) return NAMES[key];
  const words = key.split("/").pop().replace(/_(frac|nats|tokens|s)$/, "").replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

export const STAGE_NAMES = {
  vote: "Vote", label: "Label", correction: "Second turns", reward: "Reward", admission: "Admission", guard: "Guard", completion: "Completions", policy: "Policy",
  update: "Update", probe: "Probes", support: "Support", glance: "Between probes", cost: "Cost",
};
const STAGES = Object.keys(STAGE_NAMES);
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
/** "after 12 steps": when something happened between two steps, by how many were done. */
export const afterSteps = (done) => `after ${plural(done, "step")}`;
/** "step 12", with the branch where there was a rollback. */
export const place = (branch, step) => (branch ? `step ${step}, branch ${branch}` : `step ${step}`);
/** "steps 12–15", the same of several. */
export const span = (branch, first, last) => (first === last ? place(branch, first) : `steps ${first}–${last}${branch ? `, branch ${branch}` : ""}`);
/** The step whose weights an evaluation is of: the last one is of the checkpoint that is handed over. */
export const evaluatedStep = (run, one) => {
  const match = /step-(\d+)$/.exec(run.handed_over ?? "");
  return one.name !== "after" ? one.step : run.handed_over === "start" ? 0 : match ? Number(match[1]) : run.steps_done;
};

/** A text with the characters that turn the reading direction of what follows written out, so that what is shown is what was read. */
export const plain = (text) => text.replace(/[\u202a-\u202e\u2066-\u2069]/g, (one) => `\\u${one.charCodeAt(0).toString(16)}`);
