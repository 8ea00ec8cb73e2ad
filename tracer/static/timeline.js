// The timeline: what the loop, its tasks and each descriptor did, over time. Lanes stand on one
// canvas, drawn anew when the view changes; what follows the current step on another above it.

import { classed } from "./elements.js";
import { Lanes, LanesView, axisTicks, axisTime } from "./lanes.js";
import { count, duration, fill, grouped } from "./words.js";

/** @typedef {import("./lanes.js").Lane} Lane */
/** @typedef {import("./lanes.js").LaneHit} LaneHit */
/** @typedef {{words: any, trace: import("./fold.js").Trace, go: (position: number) => void,
 *   causes: {cause: (index: number) => number | null, effects: (index: number) => number[]}}} TimelineHost */
/** @typedef {{lane: Lane | null, x: number, label: boolean}} TimelinePlace */

const TIMELINE_TEXT = Object.freeze({
  plot: "Timeline",
  view: "View of the timeline",
  scale: "Scale of the timeline",
  in: "+",
  inTitle: "Zoom in (+)",
  out: "−",
  outTitle: "Zoom out (−)",
  fit: "Fit all",
  fitTitle: "Show the whole recording (0)",
  round: "This round",
  roundTitle: "Zoom to the round of this step (r)",
  toScale: "To scale",
  toScaleTitle: "As long as it took (t)",
  bySteps: "By step",
  byStepsTitle: "Every step equally wide (t)",
  loop: "loop",
  tasks: "tasks, timers",
  more: "… and {count} more",
  beginning: "the beginning",
  said: "step {step} of {total}: {kind}, {text}, at {time}",
  step: "step {step}",
  at: "at {time}",
  took: "took {time}",
  underWay: "not over yet",
  failed: "{kind}: failed",
  crowd: "{steps} in this spot: zoom in",
  descriptor: "descriptor {fd}",
  unregistered: "unregistered",
});

/** What the marks mean, in the order of the legend. */
const TIMELINE_LEGEND = Object.freeze({
  wait: "wait", dispatch: "dispatch", task: "task", read: "read", wrote: "wrote",
  accepted: "accepted", changed: "registered, deleted", failed: "failed", cause: "cause → effect",
});

/** Colors of the canvas, and the custom property each comes from. */
const TIMELINE_COLORS = Object.freeze({
  surface: "--table", ink: "--ink", muted: "--muted", line: "--line", now: "--lit-faded",
  accent: "--accent", onAccent: "--on-accent", flow: "--flow", failed: "--failed", tick: "--kernel-line",
  wait: "--timeline-wait", dispatch: "--timeline-dispatch", task: "--timeline-task",
  read: "--timeline-read", wrote: "--timeline-wrote", accepted: "--timeline-accepted", alive: "--timeline-alive",
});

const TIMELINE_SLICE_MS = 6;
const TIMELINE_REDRAW_MS = 150; // between drawings while the steps are still being read
const TIMELINE_WIDEST = 8_000_000; // pixels: browsers limit the widths of elements
const TIMELINE_ZOOM = 1.6;
const TIMELINE_LEAST_NS = 100;
const TIMELINE_LEAST_STEPS = 4;
const TIMELINE_CHAIN = 24; // causes back
const TIMELINE_EFFECTS = 64; // arrows forward
const TIMELINE_DRAG = 4; // pixels from which on a press is no click

export class Timeline {
  /** @param {TimelineHost} host */
  constructor(host) {
    this.host = host;
    this.trace = host.trace;
    this.lanes = new Lanes(host.words, host.trace);
    this.position = 0;
    this.bySteps = false;
    this.fitted = true;
    this.left = 0;
    this.right = 1;
    this.firstRow = 0;
    /** What follows the step is drawn here first: writing on a canvas of the page makes the browser
     * work out all styles that changed in this frame, and once more when it paints them. */
    this.sheet = new OffscreenCanvas(1, 1);
    this.width = 0; // of the canvas, and its height; zero while it is not in sight
    this.height = 0;
    this.ratio = 0;
    this.scrolledLeft = 0;
    this.scrolledTop = 0;
    this.stale = true;
    this.labelsTold = "";
    this.drawnAt = 0;
    this.timer = 0;
    this.frame = 0;
    /** @type {LanesView | null} */
    this.seen = null;
    /** @type {Map<Lane, number>} */
    this.rows = new Map();
    /** Names as they fit into the column. @type {Map<string, string>} */
    this.cut = new Map();
    /** @type {Map<number, {x: number, y: number}>} */
    this.pointers = new Map();
    /** What a press began with. @type {{x: number, y: number, left: number, scrollTop: number, moved: boolean, scrubs: boolean} | null} */
    this.press = null;
    this.pinch = 0;
    /** @type {Record<string, string>} */
    this.colors = {};
    this.colorsTold = "";
    this.size = 12; // of the type
    this.family = "sans-serif";
    /** @type {{ticks: {x: number, text: string}[], spacing: number}} */
    this.axis = { ticks: [], spacing: 1 };
    this.scrollable = 0; // pixels that the view can move sideways

    this.root = classed("div", "timeline");
    this.scaleButton = this.button("toScale", () => this.setScale(false));
    this.stepsButton = this.button("bySteps", () => this.setScale(true));
    this.marks = /** @type {HTMLCanvasElement} */ (classed("canvas", ""));
    this.above = /** @type {HTMLCanvasElement} */ (classed("canvas", ""));
    this.pane = classed("div", "timeline-pane");
    this.spacer = classed("div", "timeline-spacer");
    this.plot = classed("div", "timeline-plot");
    this.tip = classed("div", "timeline-tip");
    /** @type {[string, HTMLElement][]} */
    this.probes = Object.entries(TIMELINE_COLORS).map(([name, property]) => {
      const probe = classed("span", "");
      probe.style.color = `var(${property})`;
      return [name, probe];
    });
    this.sizes = new ResizeObserver(() => this.measure());
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.onTheme = () => this.readColors();
    this.themes = new MutationObserver(this.onTheme);
    this.build();
    this.later();
  }

  build() {
    const view = timelineGroup(TIMELINE_TEXT.view, [
      this.button("out", () => this.zoom(1 / TIMELINE_ZOOM)), this.button("in", () => this.zoom(TIMELINE_ZOOM)),
      this.button("fit", () => this.fit()), this.button("round", () => this.showRound()),
    ]);
    const scale = timelineGroup(TIMELINE_TEXT.scale, [this.scaleButton, this.stepsButton]);
    const legend = classed("ul", "timeline-legend");
    for (const [name, text] of Object.entries(TIMELINE_LEGEND)) {
      const item = classed("li", "");
      item.append(classed("span", `timeline-mark ${name}`), text);
      legend.append(item);
    }
    const tools = classed("div", "timeline-tools");
    tools.append(view, scale, legend);
    this.markScale();

    this.pane.append(this.marks, this.above);
    this.spacer.append(this.pane);
    this.plot.append(this.spacer);
    this.plot.tabIndex = 0;
    this.plot.setAttribute("role", "slider");
    this.plot.setAttribute("aria-label", TIMELINE_TEXT.plot);
    this.plot.setAttribute("aria-valuemin", "0");
    this.say();
    this.tip.setAttribute("aria-hidden", "true"); // the slider says what the current step is
    this.tip.hidden = true;
    const probes = classed("div", "");
    probes.hidden = true;
    probes.append(...this.probes.map(([, probe]) => probe));
    this.root.append(tools, this.plot, this.tip, probes);

    this.plot.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.plot.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.plot.addEventListener("keydown", (event) => this.onKey(event));
    this.pane.addEventListener("pointerdown", (event) => this.onDown(event));
    this.pane.addEventListener("pointermove", (event) => this.onMove(event));
    this.pane.addEventListener("pointerup", (event) => this.onUp(event, true));
    this.pane.addEventListener("pointercancel", (event) => this.onUp(event, false));
    this.pane.addEventListener("pointerleave", () => this.tell(null));
    this.sizes.observe(this.plot);
    this.dark.addEventListener("change", this.onTheme);
    for (const element of [document.documentElement, document.body]) {
      this.themes.observe(element, { attributeFilter: ["data-jp-theme-light", "class"] });
    }
  }

  /** @param {"out" | "in" | "fit" | "round" | "toScale" | "bySteps"} action @param {() => void} run */
  button(action, run) {
    const button = classed("button", "", TIMELINE_TEXT[action]);
    button.setAttribute("type", "button");
    button.title = TIMELINE_TEXT[`${action}Title`];
    if (action === "in" || action === "out") button.setAttribute("aria-label", button.title);
    button.addEventListener("click", run);
    return button;
  }

  // ---- what the player calls

  /** The state after `position` steps is shown. @param {number} position */
  show(position) {
    const before = this.position;
    const seen = this.cursorInView();
    this.position = position;
    if (!this.fitted && (seen || Math.abs(position - before) !== 1) && !this.cursorInView()) {
      const span = this.right - this.left;
      const room = position > before ? 0.15 : 0.85; // where things go on from here
      this.move(this.cursor() - span * room);
    }
    this.draw();
  }

  /** Steps were added at the end, and the oldest `dropped` taken away. @param {number} dropped */
  grow(dropped) {
    if (dropped && !this.lanes.drop(dropped)) {
      this.lanes = new Lanes(this.host.words, this.trace);
      this.fitted = true;
    }
    this.position = Math.max(0, Math.min(this.trace.steps.length, this.position - dropped));
    this.lanes.work(TIMELINE_SLICE_MS);
    this.later();
    this.redraw();
  }

  close() {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.timer = this.frame = -1; // nothing starts any more
    this.sizes.disconnect();
    this.themes.disconnect();
    this.dark.removeEventListener("change", this.onTheme);
    this.root.remove();
  }

  /** Read on when there is time. */
  later() {
    if (this.timer || this.lanes.done) return;
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      const done = this.lanes.work(TIMELINE_SLICE_MS);
      if (done || performance.now() - this.drawnAt > TIMELINE_REDRAW_MS) this.redraw();
      this.later();
    }, 0);
  }

  // ---- where things are

  /** The number of the step that is shown; one before the first at the beginning. */
  get number() {
    return this.lanes.dropped + this.position - 1;
  }

  /** The width of the column of names. */
  get column() {
    return Math.round(Math.min(this.size * 13, Math.max(this.size * 8, this.width * 0.24)));
  }

  get plotted() {
    return Math.max(1, this.width - this.column);
  }

  /** From where to where there is something, with some room around it. */
  domain() {
    const { steps } = this.trace;
    const { lanes } = this;
    let first = lanes.dropped;
    let last = first + Math.max(1, steps.length - 1);
    if (!this.bySteps) {
      first = lanes.clock(lanes.dropped);
      const end = steps.length ? steps[steps.length - 1].t_ns - lanes.origin : 0;
      last = Math.max(first + 1000, lanes.clock(Infinity), end);
    }
    const room = (last - first) * 0.012 + (this.bySteps ? 0.5 : 0);
    return { left: first - room, right: last + room };
  }

  /** Where the current step lies. */
  cursor() {
    const { lanes, position } = this;
    if (this.bySteps) return lanes.dropped + Math.max(0, position - 1);
    if (position > 0 && this.number >= lanes.end) return this.trace.steps[position - 1].t_ns - lanes.origin;
    return lanes.clock(this.number);
  }

  cursorInView() {
    const at = this.cursor();
    return at >= this.left && at <= this.right;
  }

  /** Show from `left` to `right`, as far as there is something. @param {number} left @param {number} right */
  setView(left, right) {
    const all = this.domain();
    const least = this.bySteps ? TIMELINE_LEAST_STEPS : TIMELINE_LEAST_NS;
    const whole = all.right - all.left;
    const span = Math.min(whole, Math.max(least, right - left));
    this.fitted = span >= whole * 0.9999;
    if (right - left !== span) left = (left + right - span) / 2;
    this.left = Math.max(all.left, Math.min(all.right - span, left));
    this.right = this.left + span;
    this.redraw();
  }

  /** @param {number} left */
  move(left) {
    const span = this.right - this.left;
    this.setView(left, left + span);
  }

  fit() {
    const { left, right } = this.domain();
    this.setView(left, right);
  }

  /**
   * Show less or more, around the place `x` or the current step.
   * @param {number} factor @param {number | null} x
   */
  zoom(factor, x = null) {
    const span = this.right - this.left;
    const middle = this.cursorInView() ? this.cursor() : this.left + span / 2;
    const around = x === null ? middle : this.left + (span * x) / this.plotted;
    const all = this.domain();
    const least = this.bySteps ? TIMELINE_LEAST_STEPS : TIMELINE_LEAST_NS;
    const becomes = Math.max(least, Math.min(all.right - all.left, span / factor));
    const left = around - ((around - this.left) / span) * becomes;
    this.setView(left, left + becomes);
  }

  /** Show the round of the current step: from one wait to the next. */
  showRound() {
    const { starts } = this.lanes.loop.spans.wait;
    const next = starts.findIndex((start) => start > this.number);
    const last = next < 0 ? this.lanes.end - 1 : starts[next];
    const first = next < 0 ? starts.at(-1) : starts[next - 1];
    const [from, to] = [first ?? this.lanes.dropped, last].map((number) =>
      (this.bySteps ? number : this.lanes.clock(number)));
    const room = (to - from) * 0.04 + (this.bySteps ? 0.5 : 1);
    this.setView(from - room, to + room);
  }

  /** @param {boolean} bySteps */
  setScale(bySteps) {
    if (bySteps === this.bySteps) return;
    const { lanes } = this;
    const edges = [this.left, this.right].map((at) => new LanesView(lanes, this.bySteps, at, at + 1, 1).edges[0]);
    this.bySteps = bySteps;
    this.markScale();
    if (this.fitted) this.fit();
    else this.setView(...timelinePair(edges.map((number) => (bySteps ? number : lanes.clock(number)))));
    if (!this.cursorInView()) this.move(this.cursor() - (this.right - this.left) / 2);
  }

  markScale() {
    this.scaleButton.setAttribute("aria-pressed", String(!this.bySteps));
    this.stepsButton.setAttribute("aria-pressed", String(this.bySteps));
  }

  // ---- rows

  /** Heights: the axis, the two lanes that are always there, a lane, and where the others begin. */
  get places() {
    const axis = Math.round(this.size * 1.4);
    const all = this.lanes.descriptors.length;
    const room = Math.floor((this.height - axis - 5) / (all + 2.2)); // for a lane, if all are to fit
    const lane = Math.max(Math.round(this.size * 1.12), Math.min(Math.round(this.size * 1.6), room));
    const loop = Math.round(lane * 1.2);
    const top = axis + loop + lane + 4;
    const fits = Math.max(1, Math.floor((this.height - top) / lane));
    return { axis, lane, loop, top, shown: all > fits ? fits - 1 : all, all };
  }

  /** The row of a descriptor's lane among all. @param {Lane} lane */
  rowOf(lane) {
    const { descriptors } = this.lanes;
    if (this.rows.size !== descriptors.length || this.rowsOf !== this.lanes) {
      this.rows = new Map(descriptors.map((one, row) => [one, row]));
      this.rowsOf = this.lanes;
    }
    return this.rows.get(lane) ?? 0;
  }

  /** Where a lane is drawn: its top and height; `away` when it is not among the rows in sight. @param {Lane} lane */
  placeOf(lane) {
    const { axis, loop, lane: height, top, shown } = this.places;
    if (lane === this.lanes.loop) return { y: axis, height: loop, away: false };
    if (lane === this.lanes.tasks) return { y: axis + loop, height, away: false };
    const row = this.rowOf(lane) - this.firstRow;
    if (row >= 0 && row < shown) return { y: top + row * height, height, away: false };
    return { y: top + (row < 0 && lane !== this.current() ? -height : shown * height), height, away: true };
  }

  /** The lane of the current step. @returns {Lane | null} */
  current() {
    const step = this.position ? this.trace.steps[this.position - 1] : null;
    return step && this.number < this.lanes.end ? this.lanes.laneOf(step) : null;
  }

  /** What is at a point of the pane. @param {number} x @param {number} y @returns {TimelinePlace} */
  at(x, y) {
    const { axis, loop, lane, top, shown, all } = this.places;
    const place = { lane: /** @type {Lane | null} */ (null), x: x - this.column, label: x < this.column };
    if (y < axis) return place;
    if (y < axis + loop) return { ...place, lane: this.lanes.loop };
    if (y < top) return { ...place, lane: this.lanes.tasks };
    const row = Math.floor((y - top) / lane);
    if (row < shown) return { ...place, lane: this.lanes.descriptors[this.firstRow + row] ?? null };
    const current = this.current();
    const below = row === shown && all > shown && current?.fd != null && this.placeOf(current).away;
    return { ...place, lane: below ? current : null };
  }

  // ---- pointer and keys

  onScroll() {
    const { scrollLeft, scrollTop } = this.plot;
    const sideways = Math.abs(scrollLeft - this.scrolledLeft) >= 1;
    if (sideways) {
      const all = this.domain();
      const span = this.right - this.left;
      this.scrolledLeft = scrollLeft;
      this.left = all.left + (scrollLeft / Math.max(1, this.scrollable)) * (all.right - all.left - span);
      this.right = this.left + span;
    }
    const row = Math.round(scrollTop / this.places.lane);
    this.scrolledTop = scrollTop;
    if (!sideways && row === this.firstRow) return;
    this.firstRow = row;
    this.tell(null);
    this.redraw();
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    const lines = event.deltaMode ? 16 : 1;
    const sideways = event.deltaX || (event.shiftKey ? event.deltaY : 0);
    if (event.ctrlKey || event.metaKey) {
      const speed = Math.abs(event.deltaY) < 50 ? 0.01 : 0.003; // fingers, or a wheel
      this.zoom(Math.exp(-event.deltaY * lines * speed), this.inPane(event).x - this.column);
    } else if (sideways && Math.abs(sideways) >= Math.abs(event.shiftKey ? 0 : event.deltaY)) {
      this.move(this.left + (sideways * lines * (this.right - this.left)) / this.plotted);
    } else {
      return; // the lanes scroll, or the page
    }
    event.preventDefault();
    this.tell(null);
  }

  /** @param {MouseEvent} event */
  inPane(event) {
    const box = this.pane.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** @param {PointerEvent} event */
  onDown(event) {
    if (event.button) return;
    const point = this.inPane(event);
    this.pointers.set(event.pointerId, point);
    this.pane.setPointerCapture(event.pointerId);
    this.tell(null);
    if (this.pointers.size === 2) {
      this.press = null;
      this.pinch = this.spread();
      return;
    }
    const scrubs = point.y < this.places.axis && point.x >= this.column;
    this.press = { ...point, left: this.left, scrollTop: this.plot.scrollTop, moved: false, scrubs };
    if (scrubs) this.goNear(point.x - this.column);
  }

  /** @param {PointerEvent} event */
  onMove(event) {
    const point = this.inPane(event);
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, point);
    if (this.pointers.size === 2) {
      const apart = this.spread();
      const [one, other] = [...this.pointers.values()];
      if (this.pinch) this.zoom(apart / this.pinch, (one.x + other.x) / 2 - this.column);
      this.pinch = apart;
      return;
    }
    const { press } = this;
    if (!press) {
      if (!this.pointers.size) this.tell(point);
      return;
    }
    if (press.scrubs) {
      this.goNear(point.x - this.column);
      return;
    }
    const [x, y] = [point.x - press.x, point.y - press.y];
    if (!press.moved && Math.hypot(x, y) < TIMELINE_DRAG) return;
    press.moved = true;
    this.plot.classList.add("grabbed");
    this.move(press.left - (x * (this.right - this.left)) / this.plotted);
    this.plot.scrollTop = press.scrollTop - y;
  }

  /** @param {PointerEvent} event @param {boolean} well */
  onUp(event, well) {
    const { press } = this;
    this.pointers.delete(event.pointerId);
    this.press = null;
    this.pinch = 0;
    this.plot.classList.remove("grabbed");
    if (!well || !press || press.moved || press.scrubs) return;
    const place = this.at(press.x, press.y);
    if (place.label) return;
    const hit = place.lane && this.seen?.hit(place.lane, place.x);
    if (hit) this.host.go(hit.number - this.lanes.dropped + 1);
    else this.goNear(place.x);
  }

  /** How far two fingers are apart. */
  spread() {
    const [one, other] = [...this.pointers.values()];
    return Math.max(1, Math.abs(one.x - other.x));
  }

  /** Go to the last step before a place. @param {number} x */
  goNear(x) {
    if (!this.seen) return;
    const coordinate = this.left + (x * (this.right - this.left)) / this.plotted;
    const behind = this.seen.numberAt(this.bySteps ? coordinate + 0.5 : coordinate);
    this.host.go(Math.max(0, Math.min(this.trace.steps.length, behind - this.lanes.dropped)));
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = (this.right - this.left) * 0.75;
    switch (event.key) {
      case "+": case "=": this.zoom(TIMELINE_ZOOM); break;
      case "-": case "_": this.zoom(1 / TIMELINE_ZOOM); break;
      case "0": this.fit(); break;
      case "r": this.showRound(); break;
      case "t": this.setScale(!this.bySteps); break;
      case "PageUp": this.move(this.left - page); break;
      case "PageDown": this.move(this.left + page); break;
      case "ArrowUp": this.plot.scrollTop -= this.places.lane; break;
      case "ArrowDown": this.plot.scrollTop += this.places.lane; break;
      default: return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // ---- the tip

  /** Say what is at a point of the pane; null: nothing. @param {{x: number, y: number} | null} point */
  tell(point) {
    const place = point && this.at(point.x, point.y);
    const hit = place?.lane && !place.label ? this.seen?.hit(place.lane, place.x) : null;
    this.plot.style.cursor = hit ? "pointer" : "";
    let lines = null;
    if (hit) lines = this.tellStep(hit, /** @type {TimelinePlace} */ (place));
    else if (place?.label && place.lane?.fd != null) lines = this.tellLane(place.lane);
    if (!lines || !point) {
      this.tip.hidden = true;
      return;
    }
    const [title, text, when] = lines;
    this.tip.replaceChildren(
      classed("strong", "", title), ...(text ? [classed("span", "", text)] : []),
      classed("span", "timeline-when", when),
    );
    this.tip.hidden = false;
    const box = this.plot.offsetTop + point.y;
    this.tip.style.bottom = `${this.root.clientHeight - box + 10}px`;
    const most = this.width - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(most, point.x + 10))}px`;
  }

  /** @param {LaneHit} hit @param {TimelinePlace} place */
  tellStep({ number, end }, place) {
    const { lanes } = this;
    const step = lanes.index.step(number);
    const label = lanes.index.label(number);
    const failed = step.error != null || (end !== null && lanes.index.step(end)?.error != null);
    const when = [
      fill(TIMELINE_TEXT.step, { step: grouped(number - lanes.dropped + 1) }),
      fill(TIMELINE_TEXT.at, { time: this.timeOf(number) }),
    ];
    if (step.fd != null) when.unshift(fill(TIMELINE_TEXT.descriptor, { fd: step.fd }));
    if (end !== null) when.push(fill(TIMELINE_TEXT.took, { time: duration(lanes.clock(end) - lanes.clock(number)) }));
    else if (["WaitStarted", "DispatchStarted", "TaskStarted"].includes(step.kind)) when.push(TIMELINE_TEXT.underWay);
    const at = Math.max(0, Math.min(this.plotted - 1, Math.floor(place.x)));
    const crowd = this.seen ? this.seen.edges[at + 1] - this.seen.edges[at] : 0;
    if (crowd > 2) when.push(fill(TIMELINE_TEXT.crowd, { steps: count(crowd, "step") }));
    return [failed ? fill(TIMELINE_TEXT.failed, { kind: label }) : label, lanes.index.text(number), when.join(" · ")];
  }

  /** @param {Lane} lane */
  tellLane(lane) {
    return [this.lanes.nameAt(lane, this.number) || TIMELINE_TEXT.unregistered, "", fill(TIMELINE_TEXT.descriptor, { fd: lane.fd ?? 0 })];
  }

  /** When a step was, from the first one there is. @param {number} number */
  timeOf(number) {
    return duration(Math.max(0, this.lanes.clock(number) - this.lanes.clock(this.lanes.dropped)));
  }

  // ---- drawing

  /** Draw everything with the next frame. */
  redraw() {
    this.stale = true;
    this.draw();
  }

  /** Draw with the next frame what follows the current step. */
  draw() {
    if (this.frame || !this.width) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.drawNow();
    });
  }

  measure() {
    this.width = this.plot.clientWidth;
    this.height = this.plot.clientHeight;
    this.ratio = devicePixelRatio || 1;
    if (!this.width || !this.height) {
      this.width = 0;
      return;
    }
    const style = getComputedStyle(this.plot);
    this.size = parseFloat(style.fontSize);
    this.family = style.fontFamily;
    this.cut.clear();
    this.pane.style.width = `${this.width}px`;
    this.pane.style.height = `${this.height}px`;
    for (const canvas of [this.marks, this.above]) {
      canvas.width = Math.round(this.width * this.ratio);
      canvas.height = Math.round(this.height * this.ratio);
      canvas.style.width = `${this.width}px`;
      canvas.style.height = `${this.height}px`;
    }
    this.sheet.width = this.above.width;
    this.sheet.height = this.above.height;
    this.readColors();
    this.redraw();
  }

  /** Custom properties hold both themes: what color comes of them, an element knows. */
  readColors() {
    const colors = Object.fromEntries(this.probes.map(([name, probe]) => [name, getComputedStyle(probe).color]));
    const told = Object.values(colors).join();
    if (told === this.colorsTold) return;
    this.colorsTold = told;
    this.colors = colors;
    this.redraw();
  }

  drawNow() {
    if (!this.width) return;
    if (this.ratio !== (devicePixelRatio || 1)) this.measure();
    if (this.fitted) Object.assign(this, this.domain());
    const labels = this.labels();
    const told = JSON.stringify(labels);
    if (this.stale) {
      this.stale = false;
      this.drawnAt = performance.now();
      this.fitScroller();
      this.drawMarks();
      this.labelsTold = "";
    }
    if (told !== this.labelsTold) {
      this.labelsTold = told;
      this.drawLabels(labels);
    }
    this.drawAbove();
    const above = /** @type {CanvasRenderingContext2D} */ (this.above.getContext("2d"));
    above.clearRect(0, 0, this.above.width, this.above.height);
    above.drawImage(this.sheet, 0, 0);
    this.say();
  }

  /** Make the scroll bars tell where the view is. */
  fitScroller() {
    const all = this.domain();
    const { lane, shown, all: rows } = this.places;
    const whole = all.right - all.left;
    const span = this.right - this.left;
    this.scrollable = this.fitted ? 0 : Math.min(TIMELINE_WIDEST, this.plotted * (whole / span - 1));
    const wide = `${this.width + Math.round(this.scrollable)}px`;
    const high = `${this.height + (rows - shown) * lane}px`;
    if (this.spacer.style.width !== wide) this.spacer.style.width = wide;
    if (this.spacer.style.height !== high) this.spacer.style.height = high;
    const left = this.fitted ? 0 : ((this.left - all.left) / (whole - span)) * this.scrollable;
    if (Math.abs(left - this.scrolledLeft) >= 1) {
      this.plot.scrollLeft = left;
      this.scrolledLeft = this.plot.scrollLeft;
    }
    this.firstRow = Math.max(0, Math.min(rows - shown, this.firstRow));
  }

  /** A canvas to draw on, in the pixels of the page. @param {HTMLCanvasElement | OffscreenCanvas} canvas */
  pen(canvas) {
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    pen.font = `${this.size}px ${this.family}`;
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    pen.direction = "ltr";
    return pen;
  }

  drawMarks() {
    const pen = this.pen(this.marks);
    const { colors, column } = this;
    const { axis, loop, lane, top, shown } = this.places;
    this.seen = new LanesView(this.lanes, this.bySteps, this.left, this.right, this.plotted);
    pen.clearRect(0, 0, this.width, this.height);
    pen.save();
    pen.translate(column, 0);
    pen.beginPath();
    pen.rect(0, 0, this.plotted, this.height);
    pen.clip();
    this.drawAxis(pen);
    this.drawLane(pen, this.lanes.loop, axis, loop);
    this.drawLane(pen, this.lanes.tasks, axis + loop, lane);
    for (let row = 0; row < shown; row++) {
      this.drawLane(pen, this.lanes.descriptors[this.firstRow + row], top + row * lane, lane);
    }
    pen.restore();
    pen.fillStyle = colors.line;
    pen.fillRect(0, top - 3, this.width, 1);
    pen.fillRect(column - 1, 0, 1, this.height);
  }

  /** The ticks of the axis: where they are, and what they say. @param {CanvasRenderingContext2D} pen */
  axisOf(pen) {
    const { lanes, left, right, bySteps } = this;
    const origin = bySteps ? lanes.dropped - 1 : lanes.clock(lanes.dropped);
    const longest = bySteps ? grouped(lanes.end) : axisTime(right - origin, (right - left) / 10);
    const each = pen.measureText(longest).width * 1.15 + 26;
    const { first, spacing } = axisTicks(left - origin, right - origin, this.plotted / each);
    const scale = this.plotted / (right - left);
    const ticks = [];
    for (let tick = Math.max(0, first); tick + origin <= right; tick += spacing) {
      const text = bySteps ? grouped(tick) : axisTime(tick, spacing);
      ticks.push({ x: Math.round((tick + origin - left) * scale), text });
    }
    return { ticks, spacing };
  }

  /** @param {CanvasRenderingContext2D} pen */
  drawAxis(pen) {
    const { axis } = this.places;
    this.axis = this.axisOf(pen);
    pen.fillStyle = this.colors.line;
    for (const { x } of this.axis.ticks) pen.fillRect(x, axis - 4, 1, this.height - axis + 4);
    pen.fillRect(0, axis - 1, this.plotted, 1);
  }

  /** @param {CanvasRenderingContext2D} pen @param {Lane} lane @param {number} y @param {number} height */
  drawLane(pen, lane, y, height) {
    const seen = /** @type {LanesView} */ (this.seen);
    const { colors } = this;
    const of = lane.spans;
    const inner = height - 3;
    const bar = (/** @type {string} */ name, /** @type {number} */ top, /** @type {number} */ high, least = 1) => {
      if (!of[name]) return;
      pen.fillStyle = colors[name] ?? colors.tick;
      seen.spans(of[name], (from, to, share) => {
        const tall = high * (0.4 + 0.6 * share);
        pen.fillRect(from, y + 1.5 + top + high - tall, Math.max(least, to - from), tall);
      });
    };
    const line = (/** @type {string} */ name, /** @type {number} */ place, /** @type {string} */ color) => {
      if (!of[name]) return;
      pen.fillStyle = color;
      seen.spans(of[name], (from, to) => pen.fillRect(from, y + 1.5 + inner * place, to - from, 2));
    };
    const tick = (/** @type {string} */ name, /** @type {number} */ from, /** @type {number} */ to, /** @type {string} */ color, wide = 2) => {
      pen.fillStyle = color;
      seen.ticks(lane.ticks[name], (x) =>
        pen.fillRect(Math.round(x - wide / 2), y + 1.5 + inner * from, wide, inner * (to - from)));
    };
    line("life", 0.5 - 1 / inner, colors.alive);
    line("timers", 0.12, colors.tick);
    line("queued", 0.74, colors.task);
    bar("wait", inner * 0.6, inner * 0.4);
    if (lane.fd === null) bar("dispatch", 0, inner, 1.5);
    else bar("dispatch", inner * 0.3, inner * 0.4, 1.5);
    bar("task", 0, inner, 1.5);
    tick("changed", 0, 1, colors.tick, 1);
    tick("queued", 0.3, 1, colors.task);
    tick("nothing", 0.3, 0.7, colors.muted, 1);
    tick("read", 0, 0.5, colors.read);
    tick("wrote", 0.5, 1, colors.wrote);
    seen.ticks(lane.ticks.accepted, (x) => {
      pen.fillStyle = colors.surface;
      timelineDot(pen, x, y + height / 2, inner * 0.3 + 1);
      pen.fillStyle = colors.accepted;
      timelineDot(pen, x, y + height / 2, inner * 0.3);
    }, 3);
    pen.strokeStyle = colors.failed;
    pen.lineWidth = 2;
    seen.ticks(lane.failed, (x) => timelineCross(pen, x, y + height / 2, inner * 0.32), 5);
  }

  // ---- names

  /** What stands in the column of names: of each lane in sight its number, name, and whether it is watched. */
  labels() {
    const { lanes, number } = this;
    const { shown } = this.places;
    const seen = lanes.descriptors.slice(this.firstRow, this.firstRow + shown);
    return seen.map((lane) => this.label(lane, number));
  }

  /** @param {Lane} lane @param {number} number @returns {[number, string, boolean]} */
  label(lane, number) {
    const { life } = lane.spans;
    const at = life.holding(number);
    const watched = at >= 0 && life.ends[at] !== number;
    return [lane.fd ?? 0, this.lanes.nameAt(lane, number), watched];
  }

  /** @param {[number, string, boolean][]} labels */
  drawLabels(labels) {
    const pen = this.pen(this.marks);
    const { axis, loop, lane, top } = this.places;
    const { column, colors } = this;
    pen.clearRect(0, axis, column - 1, loop + lane);
    pen.clearRect(0, top - 1, column - 1, this.height - top + 1);
    pen.fillStyle = colors.ink;
    pen.fillText(this.fitting(pen, TIMELINE_TEXT.loop), 8, axis + loop / 2 + 0.5);
    pen.fillText(this.fitting(pen, TIMELINE_TEXT.tasks), 8, axis + loop + lane / 2 + 0.5);
    labels.forEach((label, row) => this.drawLabel(pen, label, top + row * lane));
  }

  /** @param {CanvasRenderingContext2D} pen @param {[number, string, boolean]} label @param {number} y */
  drawLabel(pen, [fd, name, watched], y) {
    const { colors, column } = this;
    const middle = y + this.places.lane / 2 + 0.5;
    pen.fillStyle = colors.muted;
    pen.textAlign = "right";
    pen.fillText(String(fd), column - 8, middle);
    pen.textAlign = "left";
    pen.fillStyle = watched && name ? colors.ink : colors.muted;
    const called = name || TIMELINE_TEXT.unregistered;
    pen.fillText(this.fitting(pen, called, (String(fd).length * 0.6 + 0.6) * this.size), 8, middle);
  }

  /** As much of a text as the column takes. @param {CanvasRenderingContext2D} pen @param {string} text */
  fitting(pen, text, less = 0) {
    const key = `${less} ${text}`;
    let cut = this.cut.get(key);
    if (cut === undefined) {
      const room = this.column - 16 - less;
      const letters = Array.from(text);
      let keep = letters.length;
      cut = text;
      while (keep > 1 && pen.measureText(cut).width > room) {
        keep -= 1;
        cut = `${letters.slice(0, keep).join("")}…`;
      }
      if (this.cut.size > 2000) this.cut.clear();
      this.cut.set(key, cut);
    }
    return cut;
  }

  // ---- what follows the current step

  drawAbove() {
    const pen = this.pen(this.sheet);
    const { colors, column } = this;
    const { axis, lane: height, top, shown, all } = this.places;
    pen.clearRect(0, 0, this.width, this.height);
    const seen = this.seen;
    if (!seen) return;
    const current = this.current();
    const place = current && this.placeOf(current);
    const last = top + shown * height;
    if (place?.away && current) {
      pen.fillStyle = colors.surface;
      pen.fillRect(0, last, this.width, height);
      pen.fillStyle = colors.line;
      pen.fillRect(0, last, this.width, 1);
      pen.save();
      pen.translate(column, 0);
      pen.beginPath();
      pen.rect(0, 0, this.plotted, this.height);
      pen.clip();
      this.drawLane(pen, current, last, height);
      pen.restore();
    } else if (all > shown) {
      pen.fillStyle = colors.muted;
      pen.fillText(fill(TIMELINE_TEXT.more, { count: grouped(all - shown) }), 8, last + height / 2);
    }
    if (current && place) this.drawCurrentLabel(pen, current, place);

    const x = Math.round(seen.x(this.number) + (this.number >= this.lanes.end ? this.plotted : 0));
    pen.save();
    pen.beginPath();
    pen.rect(column, 0, this.plotted, this.height);
    pen.clip();
    pen.translate(column, 0);
    if (x >= 0 && x <= this.plotted) {
      pen.fillStyle = colors.accent;
      pen.fillRect(x - 1, axis - 1, 2, this.height);
    }
    if (current && place) {
      this.drawArrows(pen, seen);
      timelineRing(pen, seen.x(this.number), place.y + place.height / 2, colors.accent, colors.surface);
    }
    this.drawTimes(pen, x);
    pen.restore();
  }

  /** @param {CanvasRenderingContext2D} pen @param {Lane} lane @param {{y: number, height: number}} place */
  drawCurrentLabel(pen, lane, { y, height }) {
    const { colors } = this;
    pen.fillStyle = colors.now;
    pen.fillRect(0, y, this.column - 1, height);
    if (lane.fd !== null) {
      this.drawLabel(pen, [lane.fd, this.lanes.nameAt(lane, this.number), true], y);
      return;
    }
    pen.fillStyle = colors.ink;
    const text = lane === this.lanes.loop ? TIMELINE_TEXT.loop : TIMELINE_TEXT.tasks;
    pen.fillText(this.fitting(pen, text), 8, y + height / 2 + 0.5);
  }

  /** What the axis says, and at `x` when the current step was. @param {CanvasRenderingContext2D} pen @param {number} x */
  drawTimes(pen, x) {
    const { colors, axis } = this;
    const middle = this.places.axis / 2 + 0.5;
    let from = Infinity;
    let to = -Infinity;
    if (x >= 0 && x <= this.plotted) {
      const since = this.lanes.clock(this.number) - this.lanes.clock(this.lanes.dropped);
      const text = this.bySteps ? grouped(this.position) : axisTime(since, axis.spacing, 10);
      pen.font = `bold ${this.size - 1}px ${this.family}`;
      const wide = Math.round(pen.measureText(text).width) + 12;
      from = Math.round(Math.max(0, Math.min(this.plotted - wide, x - wide / 2)));
      to = from + wide;
      pen.fillStyle = colors.accent;
      pen.fillRect(from, 0, wide, this.places.axis - 1);
      pen.fillStyle = colors.onAccent;
      pen.fillText(text, from + 6, middle);
    }
    pen.font = `${this.size - 1}px ${this.family}`;
    pen.fillStyle = colors.muted;
    for (const tick of axis.ticks) {
      const end = tick.x + 6 + pen.measureText(tick.text).width;
      if (end < this.plotted && (end < from || tick.x > to)) pen.fillText(tick.text, tick.x + 4, middle);
    }
    pen.font = `${this.size}px ${this.family}`;
  }

  /** Arrows from the causes of the current step, and to what it made happen.
   * @param {CanvasRenderingContext2D} pen @param {LanesView} seen */
  drawArrows(pen, seen) {
    const { causes } = this.host;
    const { colors } = this;
    pen.lineWidth = 2;
    pen.strokeStyle = pen.fillStyle = colors.flow;
    let index = this.position - 1;
    for (let length = 0; length < TIMELINE_CHAIN; length++) {
      const cause = causes.cause(index);
      if (cause === null) break;
      this.drawArrow(pen, seen, cause, index);
      index = cause;
    }
    const here = this.position - 1;
    for (const effect of causes.effects(here).slice(0, TIMELINE_EFFECTS)) this.drawArrow(pen, seen, here, effect);
  }

  /** @param {CanvasRenderingContext2D} pen @param {LanesView} seen @param {number} from @param {number} to */
  drawArrow(pen, seen, from, to) {
    const ends = [from, to].map((index) => {
      const number = index + this.lanes.dropped;
      const step = this.trace.steps[index];
      const lane = step && number < this.lanes.end ? this.lanes.laneOf(step) : null;
      if (!lane) return null;
      const { y, height } = this.placeOf(lane);
      return { x: Math.max(-40, Math.min(this.plotted + 40, seen.x(number))), y: y + height / 2 };
    });
    const [start, end] = ends;
    if (!start || !end || (start.x === end.x && Math.abs(start.x - this.plotted / 2) > this.plotted / 2)) return;
    timelineArrow(pen, start, end);
  }

  /** Say where the cursor is. */
  say() {
    const { plot, lanes, position } = this;
    const total = this.trace.steps.length;
    /** @type {string} */
    let text = TIMELINE_TEXT.beginning;
    if (position > 0 && this.number < lanes.end) {
      text = fill(TIMELINE_TEXT.said, {
        step: grouped(position), total: grouped(total), kind: lanes.index.label(this.number),
        text: lanes.index.text(this.number), time: this.timeOf(this.number),
      });
    }
    plot.setAttribute("aria-valuemax", String(total));
    plot.setAttribute("aria-valuenow", String(Math.min(position, total)));
    plot.setAttribute("aria-valuetext", text);
  }
}

/** @param {number[]} list @returns {[number, number]} */
function timelinePair(list) {
  return [list[0], list[1]];
}

/** @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} radius */
function timelineDot(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

/** @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} reach */
function timelineCross(pen, x, y, reach) {
  pen.beginPath();
  pen.moveTo(x - reach, y - reach);
  pen.lineTo(x + reach, y + reach);
  pen.moveTo(x + reach, y - reach);
  pen.lineTo(x - reach, y + reach);
  pen.stroke();
}

/** The current step: a ring that stands out from any bar. @param {CanvasRenderingContext2D} pen
 * @param {number} x @param {number} y @param {string} color @param {string} ground */
function timelineRing(pen, x, y, color, ground) {
  pen.fillStyle = color;
  timelineDot(pen, x, y, 5.5);
  pen.fillStyle = ground;
  timelineDot(pen, x, y, 3);
}

/** @param {CanvasRenderingContext2D} pen @param {{x: number, y: number}} from @param {{x: number, y: number}} to */
function timelineArrow(pen, from, to) {
  const wide = to.x - from.x;
  const high = to.y - from.y;
  if (Math.abs(wide) < 16 && Math.abs(high) < 8) return; // both ends are the same mark
  let [c0, c1] = [{ x: from.x + wide / 2, y: from.y }, { x: to.x - wide / 2, y: to.y }];
  if (Math.abs(high) < 3) {
    const up = Math.min(14, Math.abs(wide) / 3);
    [c0, c1] = [{ x: from.x + wide / 4, y: from.y - up }, { x: to.x - wide / 4, y: to.y - up }];
  } else if (Math.abs(wide) < 30) {
    const side = Math.max(from.x, to.x) + 8 + Math.min(26, Math.abs(high) / 3);
    [c0, c1] = [{ x: side, y: from.y + high / 4 }, { x: side, y: to.y - high / 4 }];
  }
  pen.beginPath();
  pen.moveTo(from.x, from.y);
  pen.bezierCurveTo(c0.x, c0.y, c1.x, c1.y, to.x, to.y);
  pen.stroke();
  const turn = Math.atan2(to.y - c1.y, to.x - c1.x);
  pen.beginPath();
  pen.moveTo(to.x, to.y);
  for (const side of [-0.45, 0.45]) pen.lineTo(to.x - 9 * Math.cos(turn + side), to.y - 9 * Math.sin(turn + side));
  pen.fill();
}

/** @param {string} label @param {HTMLElement[]} buttons */
function timelineGroup(label, buttons) {
  const group = classed("div", "");
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", label);
  group.append(...buttons);
  return group;
}
