// Puts a state into the SVG that Graphviz laid out: only texts and class names change.

import { SVG } from "./elements.js";

/** @typedef {import("./contents.js").Contents} Contents */
/** @typedef {import("./contents.js").Shape} Shape */
/** @typedef {import("./contents.js").Place} Place */

const PADDING = 8;
const QUIET = /^(flow|peers|kernel|user)|-(label|note)$|^running-|^code/; // no light behind these
const SANS = 'Helvetica, Arial, "Liberation Sans", sans-serif'; // equally wide on every system
const MONO = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';

/** Cuts texts to a width, as wide as the browser's own fonts are. */
class Ruler {
  constructor() {
    this.context = document.createElement("canvas").getContext("2d");
    this.widths = new Map();
  }

  /** @param {string} text @param {string} font */
  width(text, font) {
    const key = font + text;
    let width = this.widths.get(key);
    if (width === undefined) {
      if (this.widths.size > 20_000) this.widths.clear();
      if (this.context) this.context.font = font;
      width = this.context ? this.context.measureText(text).width : text.length * 8;
      this.widths.set(key, width);
    }
    return width;
  }

  /** `text`, cut with an ellipsis if it is wider than `room`.
   * @param {string} text @param {number} room @param {string} font */
  cut(text, room, font) {
    if (text.length > 300) text = Array.from(text).slice(0, 300).join("");
    if (this.width(text, font) <= room) return text;
    const letters = Array.from(text);
    let [fits, tooMany] = [0, letters.length];
    while (fits + 1 < tooMany) {
      const half = Math.floor((fits + tooMany) / 2);
      if (this.width(letters.slice(0, half).join("") + "…", font) <= room) fits = half;
      else tooMany = half;
    }
    return letters.slice(0, fits).join("") + "…";
  }
}

/** The picture: an SVG element whose places show the contents of a state. */
export class Picture {
  /** @param {string} layout the SVG text, which holds nothing of a trace */
  constructor(layout) {
    const parsed = new DOMParser().parseFromString(layout, "image/svg+xml");
    /** @type {any} */
    this.svg = document.importNode(parsed.documentElement, true);
    this.svg.classList.add("netpoll-picture");
    this.ruler = new Ruler();
    this.places = new Map();
    this.arrows = new Map();
    for (const group of this.svg.querySelectorAll("g[id]")) {
      const name = group.id;
      group.removeAttribute("id"); // two players on one page must not share ids
      group.dataset.place = name;
      if (group.classList.contains("arrow")) this.arrows.set(name.replace("arrow-", ""), group);
      else if (group.classList.contains("place")) this.places.set(name, readPlace(group, name));
    }
  }

  /** How many places there are. @returns {Shape} */
  get shape() {
    const { rows, events, lines, moreRows, moreEvents } = this.svg.dataset;
    return {
      rows: Number(rows),
      events: Number(events),
      lines: Number(lines),
      more_rows: moreRows === "1",
      more_events: moreEvents === "1",
    };
  }

  /** Say in a tooltip what a place is. @param {string} name @param {string} text */
  explain(name, text) {
    const place = this.places.get(name);
    if (place) place.meaning = text;
  }

  /**
   * Show `filled`; what differs from `before` is lit.
   * @param {Contents} filled
   * @param {Contents} before
   * @param {string[]} arrows those along which something moved
   * @param {{failed: boolean, turn: number}} how `turn` changes with each step, so that the
   *   light starts anew where it was on already
   */
  show(filled, before, arrows, { failed, turn }) {
    const light = ` lit turn${turn % 2}${failed ? " failed" : ""}`;
    for (const [name, place] of this.places) {
      const now = filled.get(name);
      const then = before.get(name);
      const changed = now?.text !== then?.text || now?.classes !== then?.classes;
      const classes = (now ? ` filled ${now.classes}` : "") + (changed ? light : "");
      const bold = now?.classes.includes("now") && !place.font.startsWith("600");
      const font = (bold ? "600 " : "") + place.font;
      if (place.text !== (now?.text ?? "") || place.fontNow !== font) {
        place.text = now?.text ?? "";
        place.fontNow = font;
        place.label.textContent = this.ruler.cut(place.text, place.room, font);
      }
      if (place.classes !== classes) {
        place.classes = classes;
        place.group.setAttribute("class", place.own + classes);
      }
      setTitle(place, now?.title || place.meaning);
    }
    let line = "";
    for (let row = 0; this.places.has(`code${row}-text`); row++) {
      line = filled.get(`code${row}-line`)?.text || line; // what follows a long line has no number
      this.places.get(`code${row}-text`).group.dataset.line = filled.has(`code${row}-text`) ? line : "";
    }
    for (const [name, arrow] of this.arrows) {
      const row = /^(in|out)(\d+)$/.exec(name);
      const linked = row && filled.has(`peer${row[2]}`) ? " linked" : "";
      const held = filled.get(`${name}-label`)?.classes.includes("held") ? " held" : "";
      const own = `arrow ${name.replace(/\d+/, "")}`;
      arrow.setAttribute("class", own + linked + held + (arrows.includes(name) ? light : ""));
    }
  }
}

/** @param {any} group @param {string} name */
function readPlace(group, name) {
  const own = group.getAttribute("class")
    + (/^code\d+-text$/.test(name) ? " source-line" : "")
    + (QUIET.test(name) ? " quiet" : "");
  group.setAttribute("class", own);
  const label = group.querySelector("text");
  const small = /column/.test(own) ? "12px " : /-label|-note|flow/.test(own) ? "13px " : "13.5px ";
  const font = /-head|kernel|user|peers/.test(own) ? "600 14px " : small;
  return {
    group, label, own, text: "", classes: "", title: "", meaning: "", fontNow: "",
    room: Number(group.querySelector("rect").getAttribute("width")) - (/-mark/.test(own) ? 0 : PADDING),
    font: name.startsWith("code") ? `12.3px ${MONO}` : font + SANS,
  };
}

/** @param {any} place @param {string} title */
function setTitle(place, title) {
  if (place.title === title) return;
  place.title = title;
  let element = place.group.querySelector("title");
  if (!element) {
    element = document.createElementNS(SVG, "title");
    place.group.prepend(element);
  }
  element.textContent = title;
}
