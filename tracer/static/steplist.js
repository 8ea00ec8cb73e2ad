// The list of all steps: only the rows in sight are in the document, and a filter that works in
// slices thins them out. Rows are told by the numbers of filter.js.

import { classed } from "./elements.js";
import { STEP_GROUPS, StepIndex, StepSearch, parseTyped } from "./filter.js";
import { count, fill, grouped } from "./words.js";

/** @typedef {import("./filter.js").NamedDescriptor} NamedDescriptor */
/** @typedef {{words: any, trace: import("./fold.js").Trace, go: (position: number) => void,
 *   findings?: {indices: number[]}[]}} StepListHost */
/** @typedef {{element: HTMLElement, number: HTMLElement, kind: HTMLElement, text: HTMLElement,
 *   failed: HTMLElement, finding: HTMLElement, shows: number, version: number, classes: string, size: number}} StepRow */

const STEPS_TEXT = Object.freeze({
  list: "Steps",
  filter: "Filter the steps",
  search: "Search the steps",
  typing: "search, or fd 7",
  previous: "Previous match (N)",
  next: "Next match (n)",
  clear: "Clear the filter",
  kind: "Kind of step",
  allKinds: "any kind",
  allOf: "all {group}",
  errors: "errors",
  failed: "failed calls",
  descriptor: "Descriptor",
  allDescriptors: "any descriptor",
  named: "{name} (fd {fd})",
  callback: "Callback",
  allCallbacks: "any callback",
  onLine: "{name}, line {line}",
  fewer: "… and {count} more: search for the name",
  searching: "searching…",
  some: "{some} of {all}",
  none: "No step matches.",
  noNext: "no match after this step",
  noPrevious: "no match before this step",
  back: "to step {step}",
  failedMark: "failed",
  findingMark: "has a finding",
});

const STEPS_ICONS = Object.freeze({ previous: "▲", next: "▼", clear: "✕", failed: "✗", finding: "⚑" });
const STEPS_SLICE_MS = 5;
const STEPS_SCROLL_MS = 150;
const STEPS_TALLEST = 10_000_000; // pixels: browsers limit the heights of elements
const STEPS_CHOICES = 200;
const STEPS_RATHER = 0.3; // where the shown step comes to stand, from the top, when it left the view

export class StepList {
  /** @param {StepListHost} host */
  constructor(host) {
    this.host = host;
    this.index = new StepIndex(host.words, host.trace);
    this.search = new StepSearch(this.index, null);
    this.position = 0;
    /** The step that the arrow keys went to, if not the one shown. @type {number | null} */
    this.cursor = null;
    /** Steps with findings. @type {Set<number>} */
    this.marked = new Set();
    this.follow = true; // bring the shown step into view when drawing
    this.held = false; // somebody looks elsewhere: leave the view alone while it plays
    this.forward = true;
    this.noticed = false; // something else than the number of rows is told
    this.wanted = 0; // the match to go to when it is found: 1 the next, -1 the one before
    this.top = 0; // of the view, as if nothing limited the height
    this.scrolled = 0;
    this.tall = 0;
    this.viewed = 0; // the height of the view
    this.rowHeight = 0;
    this.version = 0;
    this.firstRow = 0;
    /** @type {StepRow[]} */
    this.rows = [];
    /** @type {NamedDescriptor[]} */
    this.choices = [];
    this.choicesFrom = "";
    this.timer = 0;
    this.frame = 0;
    this.scroller = 0;
    this.name = `netpoll-step-${Math.random().toString(36).slice(2)}`; // two players, two names

    this.typed = /** @type {HTMLInputElement} */ (classed("input", "steps-typed"));
    this.kind = stepsSelect(STEPS_TEXT.kind);
    this.descriptor = stepsSelect(STEPS_TEXT.descriptor);
    this.callback = stepsSelect(STEPS_TEXT.callback);
    /** What is of use only with a filter. */
    this.buttons = [
      this.button("previous", () => this.goNext(-1)), this.button("next", () => this.goNext(1)),
      this.button("clear", () => this.clear()),
    ];
    this.counted = classed("span", "steps-count");
    this.back = classed("button", "steps-back");
    this.list = classed("div", "steps-rows");
    this.spacer = classed("div", "steps-spacer");
    this.pane = classed("div", "steps-pane");
    this.layer = classed("div", "steps-layer");
    this.none = classed("p", "steps-none", STEPS_TEXT.none);
    this.root = classed("div", "step-list");
    this.build();
    this.mark((host.findings ?? []).flatMap((finding) => finding.indices));
    this.count();
    this.later();
  }

  build() {
    this.typed.type = "search";
    this.typed.placeholder = STEPS_TEXT.typing;
    this.typed.setAttribute("aria-label", STEPS_TEXT.search);
    this.typed.autocomplete = "off";
    this.typed.spellcheck = false;
    this.typed.addEventListener("input", () => this.filter());
    this.fillKinds();
    this.fillChoices();
    const selects = classed("div", "steps-selects");
    for (const select of [this.kind, this.descriptor, this.callback]) {
      select.addEventListener("change", () => this.filter());
      selects.append(select);
    }
    const line = classed("div", "steps-search");
    line.append(this.typed, ...this.buttons);
    const filters = classed("div", "steps-filters");
    filters.setAttribute("role", "search");
    filters.setAttribute("aria-label", STEPS_TEXT.filter);
    filters.append(line, selects);
    for (const event of ["pointerenter", "focusin"]) filters.addEventListener(event, () => this.fillChoices());
    filters.addEventListener("keydown", (event) => this.onFilterKey(event));

    this.counted.setAttribute("role", "status");
    this.back.setAttribute("type", "button");
    this.back.addEventListener("click", () => {
      this.reveal();
      this.list.focus({ preventScroll: true });
    });
    const told = classed("div", "steps-told");
    told.append(this.counted, this.back);

    this.list.tabIndex = 0;
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", STEPS_TEXT.list);
    for (const between of [this.spacer, this.pane, this.layer]) between.setAttribute("role", "none");
    this.pane.append(this.layer);
    this.spacer.append(this.pane);
    this.list.append(this.spacer);
    this.list.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.list.addEventListener("click", (event) => this.onClick(event));
    this.list.addEventListener("keydown", (event) => this.onListKey(event));
    this.none.hidden = true;
    const box = classed("div", "steps-box");
    box.append(this.list, this.none);
    this.root.append(filters, told, box);
    this.root.addEventListener("keydown", (event) => this.onKey(event));

    this.rows.push(this.makeRow()); // its height is that of all
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(this.list);
    this.observer.observe(this.rows[0].element);
  }

  /** @param {"previous" | "next" | "clear"} what @param {() => void} action */
  button(what, action) {
    const button = classed("button", "steps-button", STEPS_ICONS[what]);
    button.setAttribute("type", "button");
    button.setAttribute("aria-label", STEPS_TEXT[what]);
    button.title = STEPS_TEXT[what];
    button.addEventListener("click", action);
    return button;
  }

  // ---- what the player calls

  /** The state after `position` steps is shown. @param {number} position */
  show(position) {
    const single = Math.abs(position - this.position) === 1;
    this.forward = position >= this.position;
    this.position = position;
    if (this.noticed) this.count();
    if (this.held && !(single && this.root.closest(".playing"))) this.held = false;
    if (!this.held) {
      this.follow = true;
      this.cursor = null;
    }
    this.draw();
  }

  /** Steps were added at the end, and the oldest `dropped` taken away. @param {number} dropped */
  grow(dropped) {
    if (dropped) {
      const last = this.index.dropped + dropped;
      this.index.drop(dropped);
      this.scrollBy(-this.search.drop(dropped) * this.rowHeight);
      this.position = Math.max(0, this.position - dropped);
      for (const number of this.marked) if (number < last) this.marked.delete(number);
      if (this.cursor !== null && this.cursor < last) this.cursor = null;
      this.version += 1;
    }
    this.later();
    if (this.search.filter === null) this.count();
    this.draw();
  }

  /** Mark the steps that findings tell of. @param {Iterable<number>} indices */
  mark(indices) {
    this.marked = new Set(Array.from(indices, (index) => index + this.index.dropped));
    this.version += 1;
    this.draw();
  }

  /**
   * The position of the next (1) or previous (-1) step that the filter lets through; null when
   * there is none, or no filter.
   * @param {number} direction
   * @returns {number | null}
   */
  next(direction) {
    if (!this.search.filter) return null;
    const row = this.search.beside(this.shown, direction);
    return row === null ? null : this.search.at(row) - this.index.dropped + 1;
  }

  /** Go to the next (1) or previous (-1) match, also if it is still to be found. @param {number} direction */
  goNext(direction) {
    const position = this.next(direction);
    if (position !== null) {
      this.held = false;
      this.host.go(position);
    } else if (this.search.done) {
      if (this.search.filter) this.tell(direction > 0 ? STEPS_TEXT.noNext : STEPS_TEXT.noPrevious);
      this.noticed = true;
    } else {
      this.wanted = direction;
    }
  }

  focusSearch() {
    this.typed.focus();
    this.typed.select();
  }

  close() {
    clearTimeout(this.timer);
    clearTimeout(this.scroller);
    cancelAnimationFrame(this.frame);
    this.timer = this.scroller = this.frame = -1; // nothing starts any more
    this.observer?.disconnect();
    this.root.remove();
  }

  // ---- the filter

  /** The number of the step that is shown; one before the first at the beginning. */
  get shown() {
    return this.index.dropped + this.position - 1;
  }

  /** Look for what the fields ask for. */
  filter() {
    const { text, fd } = parseTyped(this.typed.value);
    const kinds = this.kind.value in STEP_GROUPS ? STEP_GROUPS[this.kind.value] : [this.kind.value];
    const failed = this.kind.value === STEPS_TEXT.failed;
    const descriptor = this.descriptor.value ? this.choices[Number(this.descriptor.value)] : null;
    const callback = this.callback.value ? Number(this.callback.value) : null;
    const filter = {
      text, fd, failed, descriptor, callback, kinds: this.kind.value && !failed ? new Set(kinds) : null,
    };
    const any = text || fd !== null || this.kind.value || descriptor || callback !== null;
    this.search = new StepSearch(this.index, any ? filter : null);
    this.wanted = 0;
    this.cursor = null;
    this.search.work(STEPS_SLICE_MS);
    this.version += 1;
    this.later();
    this.count();
    this.reveal();
  }

  clear() {
    this.typed.value = "";
    for (const select of [this.kind, this.descriptor, this.callback]) select.value = "";
    this.filter();
    this.typed.focus();
  }

  /** Go on with the search when there is time. */
  later() {
    if (this.timer || this.search.done) return;
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      const seen = this.index.end;
      this.search.work(STEPS_SLICE_MS);
      if (this.rows.some((row) => row.shows >= seen)) this.version += 1; // there is more to say
      if (this.wanted && (this.search.done || this.next(this.wanted) !== null)) {
        const direction = this.wanted;
        this.wanted = 0;
        this.count();
        this.goNext(direction);
      } else {
        this.count();
        if (!this.held) this.follow = true; // rows may have come before the shown step
      }
      this.draw();
      this.later();
    }, 0);
  }

  /** Say how many rows there are. */
  count() {
    this.noticed = false;
    const all = this.index.trace.steps.length;
    const { filter, size, done } = this.search;
    if (!filter) this.tell(count(all, "step"));
    else if (!done) this.tell(STEPS_TEXT.searching);
    else this.tell(fill(STEPS_TEXT.some, { some: grouped(size), all: count(all, "step") }));
    for (const button of this.buttons) button.setAttribute("aria-disabled", String(!filter));
    this.list.style.setProperty("--step-digits", String(grouped(all).length));
    this.none.hidden = !(filter && done && !size);
  }

  /** @param {string} text */
  tell(text) {
    if (this.counted.textContent !== text) this.counted.textContent = text;
  }

  fillKinds() {
    const { steps } = this.host.words;
    this.kind.append(stepsOption("", STEPS_TEXT.allKinds));
    for (const [group, kinds] of Object.entries(STEP_GROUPS)) {
      const part = classed("optgroup", "");
      part.setAttribute("label", group);
      part.append(stepsOption(group, fill(STEPS_TEXT.allOf, { group })));
      part.append(...kinds.map((kind) => stepsOption(kind, steps[kind].label)));
      this.kind.append(part);
    }
    const part = classed("optgroup", "");
    part.setAttribute("label", STEPS_TEXT.errors);
    part.append(stepsOption(STEPS_TEXT.failed, STEPS_TEXT.failed));
    this.kind.append(part);
  }

  /** Bring the choice of descriptors and callbacks up to date: when somebody comes near. */
  fillChoices() {
    const { named, callbacks, dropped } = this.index;
    const from = `${named.size} ${callbacks.size} ${dropped} ${this.index.end}`;
    if (from === this.choicesFrom) return;
    this.choicesFrom = from;
    const chosen = this.search.filter?.descriptor ?? null;
    const busy = [...named.values()].filter((one) => one.last >= dropped || one === chosen);
    busy.sort((a, b) => Number(b === chosen) - Number(a === chosen) || b.steps - a.steps);
    const few = new Set(busy.slice(0, STEPS_CHOICES));
    this.choices = [...named.values(), ...(chosen ? [chosen] : [])].filter((one) => few.delete(one));
    const options = [stepsOption("", STEPS_TEXT.allDescriptors), ...this.choices.map((one, at) =>
      stepsOption(String(at), fill(STEPS_TEXT.named, { name: one.name, fd: one.fd })))];
    if (busy.length > STEPS_CHOICES) options.push(stepsFewer(busy.length - STEPS_CHOICES));
    this.descriptor.replaceChildren(...options);
    this.descriptor.value = chosen ? String(this.choices.indexOf(chosen)) : "";

    const { functions } = this.host.trace;
    const called = [...callbacks].filter((id) => functions.has(id)).slice(0, STEPS_CHOICES);
    const names = called.map((id) => this.index.functionName(id));
    const callback = this.callback.value;
    this.callback.replaceChildren(stepsOption("", STEPS_TEXT.allCallbacks), ...called.map((id, at) => {
      const alone = names.indexOf(names[at]) === names.lastIndexOf(names[at]);
      const line = functions.get(id).first_line;
      return stepsOption(String(id), alone ? names[at] : fill(STEPS_TEXT.onLine, { name: names[at], line }));
    }));
    if (callbacks.size > called.length) this.callback.append(stepsFewer(callbacks.size - called.length));
    this.callback.value = callback;
  }

  // ---- keys and clicks

  /** Keys of the whole list; what it does not know goes on to the player. @param {KeyboardEvent} event */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "n") this.goNext(1);
    else if (event.key === "N") this.goNext(-1);
    else if (event.key === "/") this.focusSearch();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Keys in the fields are theirs alone. @param {KeyboardEvent} event */
  onFilterKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof HTMLButtonElement) return;
    event.stopPropagation();
    if (event.target !== this.typed) return;
    if (event.key === "Enter") this.goNext(event.shiftKey ? -1 : 1);
    else if (event.key === "ArrowDown") this.list.focus({ preventScroll: true });
    else if (event.key === "Escape" && this.typed.value) {
      this.typed.value = "";
      this.filter();
    } else if (event.key === "Escape") this.list.focus({ preventScroll: true });
    else return;
    event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  onListKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.viewed / (this.rowHeight || 1)) - 1);
    const moves = /** @type {Record<string, number>} */ ({
      ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page,
    });
    if (event.key in moves) this.moveCursor(moves[event.key]);
    else if (event.key === "Enter") this.goTo(this.cursor ?? this.shown);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Move the cursor by some rows. @param {number} rows */
  moveCursor(rows) {
    const { search } = this;
    if (!search.size) return;
    const from = this.cursor ?? this.shown;
    const row = search.rowOf(from);
    const between = row < 0 || search.at(row) !== from; // it stands between two rows
    const to = row + rows + Number(between && rows < 0);
    this.cursor = search.at(Math.max(0, Math.min(search.size - 1, to)));
    this.held = true;
    this.bringIntoView(search.rowOf(this.cursor), false);
    this.draw();
  }

  /** @param {MouseEvent} event */
  onClick(event) {
    const row = this.rows.find(({ element }) => event.target instanceof Node && element.contains(event.target));
    if (row) this.goTo(row.shows);
  }

  /** @param {number} number */
  goTo(number) {
    this.held = false;
    this.cursor = null;
    this.host.go(number - this.index.dropped + 1);
    this.draw();
  }

  // ---- drawing

  /** Draw with the next frame, once for all that happened until then. */
  draw() {
    if (this.frame || !this.viewed) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.drawNow();
    });
  }

  /** Bring the shown step into view, wherever somebody looked. */
  reveal() {
    this.held = false;
    this.cursor = null;
    this.follow = true;
    this.draw();
  }

  /** The height of the list or of the type changed. */
  measure() {
    this.rowHeight = parseFloat(getComputedStyle(this.rows[0].element).height) || 0;
    const viewed = this.list.clientHeight;
    if (viewed !== this.viewed) this.pane.style.height = `${viewed}px`;
    this.viewed = this.rowHeight ? viewed : 0;
    if (!this.viewed) return; // not in sight
    const needed = Math.ceil(viewed / this.rowHeight) + 1;
    while (this.rows.length < needed) this.rows.push(this.makeRow());
    for (const row of this.rows.splice(needed)) row.element.remove();
    this.tall = Infinity;
    if (!this.held) this.follow = true;
    this.draw();
  }

  onScroll() {
    const { scrollTop } = this.list;
    const far = scrollTop - this.scrolled;
    if (Math.abs(far) < 1) return; // it was us
    this.scrolled = scrollTop;
    if (this.scroller) this.scrollTo(this.top + far * this.ratio); // the bar was late
    else this.top = scrollTop * this.ratio;
    this.held = true; // until the shown step is in view again
    this.draw();
  }

  /** How many pixels of rows a pixel of scrolling stands for. */
  get ratio() {
    const all = this.search.size * this.rowHeight;
    return all <= STEPS_TALLEST ? 1 : (all - this.viewed) / (STEPS_TALLEST - this.viewed);
  }

  /** Rows above the view came or went: what is seen stays. @param {number} pixels */
  scrollBy(pixels) {
    if (pixels) this.scrollTo(this.top + pixels);
  }

  /** @param {number} top */
  scrollTo(top) {
    const most = Math.max(0, this.search.size * this.rowHeight - this.viewed);
    this.top = Math.max(0, Math.min(most, top));
  }

  /** @param {number} row @param {boolean} rather whether to leave room for what comes next */
  bringIntoView(row, rather) {
    const y = Math.max(0, row) * this.rowHeight;
    const room = this.viewed - this.rowHeight;
    if (y >= this.top && y <= this.top + room) return;
    const rowsAbove = Math.floor((room / this.rowHeight) * (this.forward ? STEPS_RATHER : 1 - STEPS_RATHER));
    if (rather) this.scrollTo(y - rowsAbove * this.rowHeight);
    else this.scrollTo(y < this.top ? y : y - room);
  }

  drawNow() {
    if (!this.viewed) return;
    const { search } = this;
    const { size } = search;
    const here = search.rowOf(this.shown);
    if (this.follow) this.bringIntoView(here, true);
    this.follow = false;
    this.scrollTo(this.top);
    const tall = Math.min(size * this.rowHeight, STEPS_TALLEST);
    if (tall !== this.tall) {
      const before = this.tall;
      this.tall = tall;
      this.spacer.style.height = `${tall}px`;
      if (tall < before) this.moveScrollBar(); // else the browser would, and it would look like a hand
    }
    if (!this.scroller && Math.abs(this.top / this.ratio - this.scrolled) >= 1) {
      this.scroller = window.setTimeout(() => this.moveScrollBar(), STEPS_SCROLL_MS);
    }
    const first = Math.floor(this.top / this.rowHeight);
    this.turn(first - this.firstRow);
    this.firstRow = first;
    this.layer.style.transform = `translateY(${first * this.rowHeight - this.top}px)`;
    const cursor = this.cursor === null ? Math.max(0, here) : search.rowOf(this.cursor);
    let active = "";
    this.rows.forEach((row, at) => {
      const { element } = row;
      element.hidden = first + at >= size;
      if (element.hidden) return;
      const number = search.at(first + at);
      if (row.shows !== number || row.version !== this.version) this.fillRow(row, number, first + at);
      if (row.size !== size) element.setAttribute("aria-setsize", String(row.size = size));
      const current = first + at === here && number === this.shown;
      let classes = row.classes;
      if (current) classes += " current";
      else if (first + at === here) classes += " before"; // the shown step is no row: it is behind this one
      if (first + at === cursor) {
        classes += " cursor";
        active = element.id;
      }
      if (classes !== element.className) {
        element.className = classes;
        element.setAttribute("aria-selected", String(current));
      }
    });
    if (active) this.list.setAttribute("aria-activedescendant", active);
    else this.list.removeAttribute("aria-activedescendant");
    const y = Math.max(0, here) * this.rowHeight;
    const away = y + this.rowHeight <= this.top || y >= this.top + this.viewed;
    if (!away && this.cursor === null) this.held = false;
    this.back.hidden = !away || !size;
    if (away) this.back.textContent = fill(STEPS_TEXT.back, { step: grouped(this.position) });
  }

  /** The rows stand in view whatever the scroll bar says; to move it costs a layout, so seldom. */
  moveScrollBar() {
    clearTimeout(this.scroller);
    this.scroller = 0;
    this.list.scrollTop = this.top / this.ratio;
    this.scrolled = this.list.scrollTop;
  }

  /** Move the rows on by `far`, so that those that stay in view keep what they say. @param {number} far */
  turn(far) {
    if (!far || Math.abs(far) >= this.rows.length) return;
    if (far > 0) {
      const moved = this.rows.splice(0, far);
      this.rows.push(...moved);
      this.layer.append(...moved.map((row) => row.element));
    } else {
      const moved = this.rows.splice(far);
      this.rows.unshift(...moved);
      this.layer.prepend(...moved.map((row) => row.element));
    }
  }

  /** @returns {StepRow} */
  makeRow() {
    const element = classed("div", "step");
    element.setAttribute("role", "option");
    const number = classed("span", "step-number");
    const kind = classed("span", "step-kind");
    const text = classed("span", "step-text");
    const failed = stepsMark(STEPS_ICONS.failed, STEPS_TEXT.failedMark);
    const finding = stepsMark(STEPS_ICONS.finding, STEPS_TEXT.findingMark);
    const marks = classed("span", "step-marks");
    marks.append(failed, " ", finding);
    element.append(number, " ", kind, " ", text, " ", marks); // a space between the words when read aloud
    this.layer.append(element);
    return { element, number, kind, text, failed, finding, shows: -1, version: -1, classes: "", size: -1 };
  }

  /** @param {StepRow} row @param {number} number @param {number} place */
  fillRow(row, number, place) {
    const { index } = this;
    const { element } = row;
    const failed = index.step(number).error != null;
    const text = index.text(number);
    row.shows = number;
    row.version = this.version;
    row.number.textContent = grouped(number - index.dropped + 1);
    row.kind.textContent = index.label(number);
    row.text.textContent = text;
    row.text.title = text; // it may be cut
    row.failed.hidden = !failed;
    row.finding.hidden = !this.marked.has(number);
    row.classes = ["step", stepsGroup(index.step(number).kind), index.inside(number) ? "inside" : "",
      failed ? "failed" : ""].filter(Boolean).join(" ");
    element.id = `${this.name}-${number}`;
    element.setAttribute("aria-posinset", String(place + 1));
  }
}

/** The class of the rows of a group, which gives them their color. @param {string} kind */
function stepsGroup(kind) {
  const at = Object.values(STEP_GROUPS).findIndex((kinds) => kinds.includes(kind));
  return ["registering", "waiting", "calling", "tasking", "moving"][at] ?? "";
}

/** @param {string} label @returns {HTMLSelectElement} */
function stepsSelect(label) {
  const select = /** @type {HTMLSelectElement} */ (classed("select", ""));
  select.setAttribute("aria-label", label);
  select.title = label;
  return select;
}

/** @param {string} value @param {string} text */
function stepsOption(value, text) {
  const option = /** @type {HTMLOptionElement} */ (classed("option", "", text));
  option.value = value;
  return option;
}

/** The end of a list of choices that is too long. @param {number} left */
function stepsFewer(left) {
  const option = stepsOption("", fill(STEPS_TEXT.fewer, { count: grouped(left) }));
  option.disabled = true;
  return option;
}

/** @param {string} sign @param {string} label */
function stepsMark(sign, label) {
  const mark = classed("span", "", sign);
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", label);
  mark.title = label;
  return mark;
}
