// Pause, stop, roll back, overrule the guard: each is a request that the run records and takes up between two steps.
import { hasToken, post } from "./api.js";
import { h, put, say } from "./dom.js";
import { checkpointWords } from "./format.js";

const OVER = new Set(["done", "halted", "damaged"]);
const IDLE = new Set(["unfinished", "stopped"]);

const ASKED = {
  roll_back: { title: "Roll back", go: "Roll back", danger: "", reason: true, words: "The run goes back to a checkpoint and on from there on a new branch, with other random draws. What it leaves behind stays in the record." },
  overrule: { title: "Overrule the guard", go: "Overrule", danger: "", reason: true, words: "What the guard sees now is taken for how things should be: it measures anew from here. What it said stays in the record." },
  stop: { title: "Stop the run", go: "Stop", danger: "danger", reason: false, words: "The run ends after the step in flight, with a checkpoint; selftrain resume goes on from it." },
};

export function controls(context) {
  const { run } = context;
  if (OVER.has(run.state)) return h("div", { class: "controls" }, run.handed_over ? h("p", { class: "soft" }, "hands over ", h("strong", {}, checkpointWords(run.handed_over))) : null);
  if (!hasToken()) return h("div", { class: "controls" }, h("p", { class: "soft" }, "Open the page by the printed link to pause, stop or roll back."));
  const paused = run.state === "paused";
  const button = (id, label, act, kind = "") => h("button", { type: "button", id, class: kind, onclick: act }, label);
  return h(
    "div", { class: "controls", role: "group", "aria-label": "Ask the run" },
    IDLE.has(run.state) ? h("p", { class: "soft" }, "nobody runs it: ", h("code", {}, "selftrain resume"), " goes on") : null,
    paused ? button("resume", "Resume", () => askAtOnce(context, "resume")) : button("pause", "Pause", () => askAtOnce(context, "pause")),
    button("roll-back", "Roll back…", () => dialog(context, "roll_back")),
    run.verdicts.length ? button("overrule", "Overrule the guard…", () => dialog(context, "overrule")) : null,
    button("stop", "Stop…", () => dialog(context, "stop"), "danger"),
  );
}

/** Post a request; returns why it was refused, or nothing. */
async function ask(context, request) {
  try {
    const who = localStorage.getItem("selftrain-who") ?? "";
    const made = await post("requests", { run: context.id }, { reason: "", who, ...request });
    const when = IDLE.has(context.run.state) ? "It waits until the run is resumed." : "The run takes it up between two steps.";
    say(`Asked (request ${made.number}): ${made.action.replace("_", " ")}. ${when}`);
    return "";
  } catch (error) {
    return error.message;
  }
}

async function askAtOnce(context, action) {
  const refused = await ask(context, { action });
  if (refused) say(refused, "bad");
}

function dialog(context, action) {
  const back = action === "roll_back";
  const told = ASKED[action];
  const who = h("input", { id: "ask-who", autocomplete: "name", maxlength: 100, value: localStorage.getItem("selftrain-who") ?? "" });
  const reason = h("textarea", { id: "ask-reason", rows: 3, maxlength: 1000, required: told.reason });
  const choice = h("select", { id: "ask-checkpoint" }, [...context.run.checkpoints].reverse().map((one) => h("option", { value: one.name }, `${checkpointWords(one.name)}${one.counts ? "" : " (left behind)"}`)));
  const submit = async (event) => {
    event.preventDefault();
    localStorage.setItem("selftrain-who", who.value.trim());
    const request = { action, reason: reason.value.trim(), who: who.value.trim(), ...(back ? { checkpoint: choice.value } : {}) };
    const refused = await ask(context, request);
    put(wrong, refused);
    if (!refused) box.close();
  };
  const wrong = h("p", { class: "bad", role: "alert", id: "ask-wrong" });
  const box = h(
    "dialog", { "aria-labelledby": "ask-title", onclose: () => box.remove() },
    h("form", { onsubmit: submit },
      h("h2", { id: "ask-title" }, told.title),
      h("p", { class: "soft" }, told.words),
      back ? [h("label", { for: "ask-checkpoint" }, "To"), choice] : null,
      h("label", { for: "ask-reason" }, told.reason ? "Reason, for the record" : "Reason, for the record (may be empty)"), reason,
      h("label", { for: "ask-who" }, "Your name, for the record"), who,
      wrong,
      h("p", { class: "actions" }, h("button", { type: "button", class: "quiet", onclick: () => box.close() }, "Cancel"), h("button", { type: "submit", id: "ask-go", class: told.danger }, told.go))),
  );
  document.body.append(box);
  box.showModal();
  (back ? choice : reason).focus();
}
