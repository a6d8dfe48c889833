// Keys for those who do not reach for the mouse.
import { h } from "./dom.js";

const KEYS = [
  ["?", "these keys"],
  ["o", "all runs"],
  ["1 2 3 4", "curves, groups, compare, record of the run"],
  ["/", "search the groups"],
  ["j  k", "next, previous line of a list"],
  ["Enter", "open the line"],
  ["n  p", "next, previous group of the step"],
  ["[  ]", "this prompt one visit earlier, later"],
  ["← →", "on a curve: one step back, on; with Shift ten"],
  ["+ −  0", "on a curve: zoom in, out, everything"],
  ["Enter", "on a curve: the groups of that step"],
  ["t", "theme: auto, light, dark"],
  ["Esc", "close, or back to the list"],
];

export function showKeys() {
  const close = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = h(
    "dialog", { "aria-labelledby": "keys-title", onclose: () => dialog.remove() },
    h("h2", { id: "keys-title" }, "Keys"),
    h("dl", { class: "keys" }, KEYS.map(([key, what]) => [h("dt", {}, key.split(/\s+/).map((one) => h("kbd", {}, one))), h("dd", {}, what)])),
    h("p", { class: "actions" }, close),
  );
  document.body.append(dialog);
  dialog.showModal();
  close.focus();
}

/** theme: changes it. page: the page that is shown, with what its keys do. */
export function listenToKeys({ theme, page }) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const typing = event.target.matches?.("input:not([type=checkbox]), select, textarea");
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const own = page()?.keys?.[event.key];
    if (own) own();
    else if (event.key === "?") showKeys();
    else if (event.key === "t") theme();
    else if (event.key === "o") location.hash = "#/";
    else if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
    else return;
    event.preventDefault();
  });
}

/** Focus the next or previous line of the list that is shown. */
function move(by) {
  const lines = [...document.querySelectorAll("[data-line]")].filter((line) => line.offsetParent !== null);
  if (!lines.length) return;
  const at = lines.indexOf(document.activeElement);
  const next = lines[Math.min(Math.max(at < 0 ? (by > 0 ? 0 : lines.length - 1) : at + by, 0), lines.length - 1)];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}
