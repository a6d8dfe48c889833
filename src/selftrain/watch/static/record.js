// What the run is: its head, checkpoints, requests, evaluations, every option.
import { h, put } from "./dom.js";
import { checkpointWords, evaluatedStep, measure } from "./format.js";

export async function recordTab(body, context) {
  const draw = () => {
    const { run } = context, packages = Object.entries(run.environment.packages ?? {}).map(([name, version]) => `${name} ${version}`).join(", ");
    const names = Object.keys(run.evaluations[0]?.measures ?? {});
    put(body, h("div", { class: "record" },
      h("section", {}, h("h2", {}, "Run"), facts([
        ["Record head", h("code", {}, run.head.slice(0, 16), "…")], ["Repeatable", run.class], ["Label-free", run.label_free ? "yes" : "no"], ["Started", run.environment.started ?? "unknown"],
        ["Machine", `${run.environment.platform ?? "unknown"}, ${run.environment.cores ?? "?"} cores`], ["Software", `Python ${run.environment.python ?? "?"}${packages ? `, ${packages}` : ""}`], ["Hands over", run.handed_over ? checkpointWords(run.handed_over) : "nothing yet"]])),
      h("section", {}, h("h2", {}, "Evaluations"), run.evaluations.length ? table(["name", "after step", ...names], run.evaluations.map((one) => [one.name, evaluatedStep(run, one), ...names.map((name) => measure(one.measures[name]))])) : h("p", { class: "soft" }, "There are no held-out problems.")),
      h("section", {}, h("h2", {}, "Requests"), run.requests.length ? table(["", "asked", "by", "after step", "reason", "done"], run.requests.map((one) => [one.number, `${one.action.replace("_", " ")}${one.checkpoint ? ` to ${one.checkpoint}` : ""}`, one.who, one.step, one.reason || "–", one.refused ? `no: ${one.refused}` : "yes"])) : h("p", { class: "soft" }, "Nobody has asked for anything.")),
      h("section", {}, h("h2", {}, "Checkpoints on the disk"), table(["name", "after step", "history"], run.checkpoints.map((one) => [one.name, one.step, one.counts ? "counts" : "left behind"]))),
      h("section", { class: "wide" }, h("h2", {}, "Configuration"), Object.entries(run.config).map(([section, options]) => h("details", {}, h("summary", {}, section), facts(Object.entries(options).map(([name, value]) => [name, value === null ? "unset" : typeof value === "object" ? JSON.stringify(value) : String(value)])))))));
  };
  draw();
  return { update: (change) => { if (change.happenings && !body.contains(document.activeElement)) draw(); }, reload: draw };
}

const facts = (rows) => h("dl", { class: "facts" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
const table = (names, rows) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name || h("span", { class: "unseen" }, "number"))))), h("tbody", {}, rows.map((row) => h("tr", {}, row.map((value) => h("td", { class: /^[\d–]/.test(value) ? "figure" : null }, value)))))));
