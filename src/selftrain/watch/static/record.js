// What the run is: its head, checkpoints, requests, evaluations, every option.
import { h, put } from "./dom.js";
import { checkpointWords, evaluatedStep, measure } from "./format.js";

export async function recordTab(body, context) {
  const head = h("code", {});
  let isOld = false;
  const draw = () => {
    isOld = false;
    const { run } = context, packages = Object.entries(run.environment.packages ?? {}).map(([name, version]) => `${name} ${version}`).join(", ");
    const names = Object.keys(run.evaluations[0]?.measures ?? {}), counts = (one) => (one.counts ? "counts" : "left behind");
    put(head, run.head.slice(0, 16), "…");
    put(body, h("div", { class: "record" },
      h("section", {}, h("h2", {}, "Run"), facts([
        ["Record head", head], ["Repeatable", run.class], ["Label-free", run.label_free ? "yes" : "no"], ["Started", run.environment.started ?? "unknown"],
        ["Machine", `${run.environment.platform ?? "unknown"}, ${run.environment.cores ?? "?"} cores`], ["Software", `Python ${run.environment.python ?? "?"}${packages ? `, ${packages}` : ""}`], ["Hands over", run.handed_over ? checkpointWords(run.handed_over) : "nothing yet"]])),
      h("section", {}, h("h2", {}, "Requests"), run.requests.length ? table(["", "asked", "by", "steps done", "reason", "done"], run.requests.map((one) => [one.number, `${one.action.replace("_", " ")}${one.checkpoint ? ` to ${one.checkpoint}` : ""}`, one.who, one.step, one.reason || "–", one.refused ? `no: ${one.refused}` : "yes"])) : h("p", { class: "soft" }, "Nobody has asked for anything.")),
      h("section", {}, h("h2", {}, "Checkpoints on the disk"), table(["name", "steps done", "history"], run.checkpoints.map((one) => [one.name, one.step, counts(one)]))),
      h("section", { class: "wide evaluations" }, h("h2", {}, "Evaluations"), run.evaluations.length ? table(["name", "steps done", ...names, "history"], run.evaluations.map((one) => [one.name, evaluatedStep(run, one), ...names.map((name) => measure(one.measures[name])), counts(one)])) : h("p", { class: "soft" }, "There are no held-out problems.")),
      h("section", { class: "wide" }, h("h2", {}, "Configuration"), Object.entries(run.config).map(([section, options]) => h("details", {}, h("summary", {}, section), facts(Object.entries(options).map(([name, value]) => [name, value === null ? "unset" : typeof value === "object" ? JSON.stringify(value) : String(value)])))))));
  };
  let evaluated = context.run.evaluations.length;
  draw();
  return {
    update(change) {
      put(head, context.run.head.slice(0, 16), "…");
      isOld ||= Boolean(change.happenings) || context.run.evaluations.length !== evaluated;
      evaluated = context.run.evaluations.length;
      if (isOld && !body.contains(document.activeElement)) draw();
    },
    reload: draw,
  };
}

const facts = (rows) => h("dl", { class: "facts" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
const table = (names, rows) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name || h("span", { class: "unseen" }, "number"))))), h("tbody", {}, rows.map((row) => h("tr", {}, row.map((value) => h("td", { class: /^[\d–]/.test(value) ? "figure" : null }, value)))))));
