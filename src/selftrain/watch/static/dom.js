// Elements by hand. Text only ever enters the page as text, in its own reading direction: no function here takes markup.
import { plain } from "./format.js";

const READ = new Set(["title", "aria-label"]);

/** An element with properties (class, on<event>, data-*, aria-*, anything else as attribute) and children (text, elements, lists; nothing for null). */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : READ.has(name) ? plain(String(value)) : String(value));
  }
  return fill(element, children);
}

/** Put children behind what an element holds already. */
export function fill(element, children) {
  for (const child of [children].flat(9)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(plain(String(child))));
  }
  return element;
}

/** Replace what an element holds. */
export function put(element, ...children) {
  element.replaceChildren();
  return fill(element, children);
}

/** Make these elements what another one holds, in this order; those that stay keep the focus. */
export function keep(element, wanted) {
  for (const one of [...element.children]) if (!wanted.includes(one)) one.remove();
  wanted.forEach((one, at) => {
    if (element.children[at] !== one) element.insertBefore(one, element.children[at] ?? null);
  });
}

const SVG = "http://www.w3.org/2000/svg";

/** A small curve without axes; decorative, its numbers stand beside it. */
export function spark(values, width = 120, height = 28) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "spark");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const known = values.filter((value) => value !== null);
  if (known.length > 1) {
    const low = Math.min(...known), high = Math.max(...known), span = high - low || 1;
    const points = known.map((value, at) => `${(at / (known.length - 1)) * (width - 4) + 2},${height - 3 - ((value - low) / span) * (height - 6)}`);
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", points.join(" "));
    svg.append(line);
  }
  return svg;
}

/** A colour of the style sheet as the canvas needs it: resolved for the theme that is on. */
export function color(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

let silence = 0;
/** Say something in the corner, and to a screen reader. */
export function say(words, kind = "") {
  const place = document.getElementById("says");
  put(place, h("p", { class: kind }, words));
  clearTimeout(silence);
  silence = setTimeout(() => put(place), 9000);
}
