// The frame: which page the address names, theme, keys, what happens when the token is missing.
import { Refused, hasToken, setToken, takeToken } from "./api.js";
import { h, put, say } from "./dom.js";
import { listenToKeys, showKeys } from "./keys.js";
import { showOverview } from "./overview.js";
import { showRun } from "./run.js";

const THEMES = ["auto", "light", "dark"];
let shown = null;

/** {path: ["run", id, tab, ...], query} of the address. */
export function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decoded), query: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

/** A part of the address; as it stands where it is none, such as `%`. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

let wanted = 0, showing = Promise.resolve();

/** Show what the address names, one page after the other; of several that were asked for meanwhile only the last. */
function show() {
  takeToken();
  const mine = ++wanted;
  showing = showing.then(() => (mine === wanted ? open() : undefined)).catch(console.error); // the next page is shown all the same
}

async function open() {
  const { path, query } = route();
  if (shown && path[0] === "run" && shown.run === path[1] && shown.go) {
    await guarded(() => shown.go(path.slice(2), query));
    return;
  }
  shown?.stop();
  shown = null;
  const main = document.getElementById("main");
  await guarded(async () => {
    const next = path[0] === "run" ? await showRun(main, path[1], path.slice(2), query) : await showOverview(main);
    shown = next;
  });
}

async function guarded(work) {
  try {
    await work();
  } catch (error) {
    if (error?.name === "AbortError") return;
    shown?.stop();
    shown = null;
    const main = document.getElementById("main");
    if (error instanceof Refused && error.status === 401) put(main, tokenForm());
    else put(main, h("section", { class: "pad" }, h("h1", {}, "This cannot be shown"), h("p", {}, error.message), h("p", {}, h("a", { href: "#/" }, "All runs"))));
    if (!(error instanceof Refused)) console.error(error);
  }
}

function tokenForm() {
  const field = h("input", { type: "password", id: "token", autocomplete: "off", required: true });
  const submit = (event) => {
    event.preventDefault();
    setToken(field.value.trim());
    show();
  };
  return h(
    "section", { class: "pad narrow" },
    h("h1", {}, "This page asks for its token"),
    h("p", {}, "Open it by the link that ", h("code", {}, "selftrain watch"), " printed, or paste the part of that link behind ", h("code", {}, "#token="), "."),
    hasToken() && h("p", { class: "bad" }, "The token that was given is not the one of this server."),
    h("form", { onsubmit: submit, class: "row" }, h("label", { for: "token" }, "Token"), field, h("button", { type: "submit" }, "Open")),
  );
}

function theme(change) {
  let name = localStorage.getItem("selftrain-theme") ?? "auto";
  if (change) {
    name = THEMES[(THEMES.indexOf(name) + 1) % THEMES.length];
    localStorage.setItem("selftrain-theme", name);
    say(`Theme: ${name}`);
  }
  document.documentElement.dataset.theme = name;
  const button = document.getElementById("theme");
  put(button, { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[name]);
  button.setAttribute("aria-label", `Theme: ${name}. Change it.`);
  dispatchEvent(new Event("themechange"));
}

theme(false);
document.getElementById("theme").addEventListener("click", () => theme(true));
document.getElementById("help").addEventListener("click", showKeys);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
listenToKeys({ theme: () => theme(true), page: () => shown });
addEventListener("hashchange", show);
addEventListener("unhandledrejection", (event) => { // what a click asked for and did not get: the page stays as it is
  if (event.reason?.name !== "AbortError") say(event.reason?.message ?? String(event.reason), "bad");
  if (event.reason instanceof Refused) event.preventDefault();
});
show();
