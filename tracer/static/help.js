// The sheet of keys, and the picture of a step as a file.

import { SVG, make } from "./elements.js";

const HELP_KEYS = [
  ["Move", [
    ["← →", "one step back, forward"],
    ["Shift ← →", "one round back, forward"],
    ["Home End", "to the beginning, to the end"],
    ["Space", "play or pause"],
  ]],
  ["Jump", [
    ["C", "to the cause of this step"],
    ["X", "to its first effect"],
    ["E  Shift E", "to the next, previous step of this descriptor"],
    ["]  [", "to the next, previous finding"],
    ["/", "search the steps"],
    ["N  Shift N", "to the next, previous match"],
  ]],
  ["Look", [
    ["P", "large type, for a projector"],
    ["F", "full screen"],
    ["B", "show or hide the panel beside the picture"],
    ["S", "save the picture of this step (SVG)"],
    ["L", "hold still, or follow the loop (live)"],
    ["?", "this sheet"],
  ]],
  ["In the timeline", [
    ["+ -", "closer, farther"],
    ["0", "all of it"],
    ["R", "the round of this step"],
    ["T", "to scale, or by step"],
  ]],
  ["In the quiz", [
    ["A B C D", "answer"],
    ["S", "show it happen"],
    ["N", "next question"],
  ]],
];

export class HelpSheet {
  constructor() {
    this.root = make("dialog", { "class": "help", "aria-label": "Keys" });
    const columns = make("div", { class: "help-columns" });
    for (const [title, rows] of HELP_KEYS) {
      const group = make("section");
      const list = make("dl");
      for (const [keys, text] of /** @type {string[][]} */ (rows)) {
        const term = make("dt");
        for (const key of keys.split(" ").filter(Boolean)) term.append(make("kbd", {}, key));
        list.append(term, make("dd", {}, text));
      }
      group.append(make("h2", {}, /** @type {string} */ (title)), list);
      columns.append(group);
    }
    const close = make("button", { "type": "button", "class": "plain" }, "Close");
    close.addEventListener("click", () => this.root.close());
    this.root.append(columns, close);
    this.root.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => event.stopPropagation());
  }

  open() {
    this.root.showModal();
  }
}

const STILL_STYLES = [
  "fill", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-size", "font-weight",
  "font-style", "text-anchor", "text-decoration", "dominant-baseline", "visibility",
];

/**
 * The picture as the text of an SVG file that looks the same without any style sheet.
 * @param {SVGElement} svg
 * @param {string} title
 */
export function stillOf(svg, title) {
  const copy = /** @type {SVGElement} */ (svg.cloneNode(true));
  const shown = [svg, ...svg.querySelectorAll("*")];
  const copied = [copy, ...copy.querySelectorAll("*")];
  shown.forEach((element, at) => {
    const style = getComputedStyle(element);
    // As attributes: a page's Content-Security-Policy forbids them as a style.
    for (const name of STILL_STYLES) copied[at].setAttribute(name, style.getPropertyValue(name));
    if (element.tagName === "text") copied[at].setAttribute("xml:space", "preserve");
    copied[at].removeAttribute("class");
  });
  const box = svg.getAttribute("viewBox")?.split(/[\s,]+/).map(Number) ?? [0, 0, 100, 100];
  const ground = document.createElementNS(SVG, "rect");
  const [x, y, width, height] = box;
  for (const [name, value] of Object.entries({ x, y, width, height })) ground.setAttribute(name, String(value));
  ground.setAttribute("fill", getComputedStyle(svg.closest(".netpoll-player") ?? svg).backgroundColor);
  const name = document.createElementNS(SVG, "title");
  name.textContent = title;
  copy.prepend(name, ground);
  copy.setAttribute("xmlns", SVG);
  return new XMLSerializer().serializeToString(copy);
}

/** Give the reader a file. @param {string} name @param {string} text */
export function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  const link = make("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
