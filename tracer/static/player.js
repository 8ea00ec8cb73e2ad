// The player: controls, the sentence, the cycle and the picture. One `render` for anywidget and
// for the page that tracer/page.py writes.

import { contents, litArrows, sourceLines, sourceOf } from "./contents.js";
import { Replay, parseTrace } from "./fold.js";
import { Picture, SVG } from "./picture.js";
import { count, duration, fill, grouped, sentence, shown } from "./words.js";
import WORDS from "./words.json" with { type: "json" };

const SYNC_EVERY_MS = 150;
const RATES = [0.5, 1, 2, 5, 20, 100];
const LONG_SENTENCE = 170;

const CYCLE_OF = /** @type {Record<string, string>} */ ({
  Registered: "register", Modified: "register", Deleted: "register",
  WaitStarted: "wait", WaitEnded: "wait",
  DispatchStarted: "dispatch", DispatchEnded: "dispatch", EventDropped: "dispatch",
  TaskStarted: "tasks", TaskEnded: "tasks", WakeupReceived: "tasks",
});
const CYCLE_OF_PHASE = /** @type {Record<string, string>} */ ({
  waiting: "wait", dispatching: "dispatch", tasks: "tasks",
});

const BUTTONS = [
  ["first", "To the beginning (Home)", "M3 3h2v10H3zM13 3v10L6 8z"],
  ["round-back", "One round back (Shift + ←)", "M8 3v10L2 8zM14 3v10L8 8z"],
  ["back", "One step back (←)", "M11.5 3v10L4.5 8z"],
  ["play", "Play or pause (Space)", ""],
  ["forward", "One step forward (→)", "M4.5 3v10l7-5z"],
  ["round-forward", "One round forward (Shift + →)", "M2 3v10l6-5zM8 3v10l6-5z"],
  ["last", "To the end (End)", "M11 3h2v10h-2zM3 3v10l7-5z"],
];
const PLAY = "M4 2.5v11L13.5 8z";
const PAUSE = "M4 3h3v10H4zM9 3h3v10H9z";

/**
 * Build the player in `el` for a model with `trace_text`, `svg`, `problem` and `step`.
 * @param {{model: any, el: HTMLElement}} context
 * @returns {() => void} what takes it away again
 */
export function render({ model, el }) {
  let player;
  try {
    player = new Player(model);
  } catch (error) {
    el.append(make("p", { class: "netpoll-player problem" }, String(error)));
    return () => {};
  }
  el.append(player.root);
  player.show(model.get("step"));
  return () => player.close();
}

export default { render };

class Player {
  /** @param {any} model */
  constructor(model) {
    this.model = model;
    this.trace = parseTrace(textOf(model.get("trace_text")));
    this.replay = new Replay(this.trace);
    this.total = this.trace.steps.length;
    this.rounds = this.trace.steps.flatMap((step, at) => (step.kind === "WaitStarted" ? [at + 1] : []));
    this.position = -1;
    this.turn = 0;
    this.timer = 0;
    this.syncTimer = 0;
    this.picture = model.get("svg") ? new Picture(model.get("svg")) : null;
    this.build();
    this.followModel = () => this.show(this.model.get("step"));
    model.on("change:step", this.followModel);
  }

  build() {
    const icons = /** @type {Record<string, Element>} */ ({});
    const buttons = BUTTONS.map(([action, title, path]) => {
      icons[action] = icon(path || PLAY);
      const button = make("button", {
        "type": "button", "data-action": action, "title": title, "aria-label": title,
      });
      button.append(icons[action]);
      button.addEventListener("click", () => this.act(action));
      return button;
    });
    this.playIcon = icons.play;
    this.slider = make("input", {
      type: "range", min: 0, max: this.total, value: 0, step: 1, "aria-label": "Step",
    });
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.counter = make("span", { "class": "counter", "data-role": "step" });
    this.speed = make("select", { "aria-label": "Speed", "title": "Speed" });
    for (const rate of RATES) {
      this.speed.append(make("option", { value: rate }, `${rate} steps/s`.replace("1 steps", "1 step")));
    }
    this.speed.value = "1";
    this.speed.addEventListener("change", () => this.playing && this.schedule());
    const bar = make("div", { class: "bar" });
    const group = make("div", { "class": "buttons", "role": "group", "aria-label": "Playing" });
    group.append(...buttons);
    bar.append(group, this.slider, this.counter, this.speed);

    this.kind = make("span", { class: "kind" });
    this.saying = make("span", { "class": "saying", "role": "status", "aria-live": "polite" });
    const sentenceBox = make("div", { class: "sentence" });
    sentenceBox.append(this.kind, this.saying);

    this.cycle = WORDS.cycle.map(([name, text, title]) =>
      make("li", { "data-cycle": name, title }, text));
    const list = make("ol", { "class": "cycle", "aria-label": "Where the loop is" });
    list.append(...this.cycle);
    this.facts = make("span", { class: "facts" });
    const strip = make("div", { class: "strip" });
    strip.append(list, this.facts);

    this.root = make("section", {
      "class": "netpoll-player", "tabindex": 0, "aria-label": "Replay of an event loop",
      "data-lm-suppress-shortcuts": "true", // JupyterLab: these keys are ours
    });
    this.root.append(bar, sentenceBox, strip);
    if (this.picture) {
      this.picture.svg.setAttribute("role", "img");
      this.picture.svg.setAttribute("aria-label", "Peers, kernel and user space; the sentence says what happens.");
      this.addGlossary();
      this.root.append(this.picture.svg);
    } else {
      this.source = make("pre", { class: "source" });
      this.root.append(make("p", { class: "problem" }, this.model.get("problem")), this.source);
    }
    this.root.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.onKey(event));
  }

  addGlossary() {
    for (const [place, term] of Object.entries(WORDS.tooltips)) {
      this.picture?.explain(place, /** @type {any} */ (WORDS.glossary)[term]);
    }
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === this.speed) return;
    const onButton = event.target instanceof Element && event.target.closest("button");
    const action = /** @type {Record<string, string>} */ ({
      "ArrowRight": event.shiftKey ? "round-forward" : "forward",
      "ArrowLeft": event.shiftKey ? "round-back" : "back",
      "Home": "first",
      "End": "last",
      ...(onButton ? {} : { " ": "play" }),
    })[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    this.act(action);
  }

  /** @param {string} action */
  act(action) {
    const now = this.position;
    switch (action) {
      case "play": return this.playing ? this.pause() : this.play();
      case "forward": return this.go(now + 1);
      case "back": return this.go(now - 1);
      case "first": return this.go(0);
      case "last": return this.go(this.total);
      case "round-forward": return this.go(this.rounds.find((at) => at > now) ?? this.total);
      case "round-back": return this.go(this.rounds.findLast((at) => at < now) ?? 0);
    }
  }

  get playing() {
    return this.timer !== 0;
  }

  play() {
    if (this.position >= this.total) this.show(0);
    this.schedule();
    this.playIcon?.firstElementChild?.setAttribute("d", PAUSE);
    this.root?.classList.add("playing");
    this.saying?.setAttribute("aria-live", "off");
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.playIcon?.firstElementChild?.setAttribute("d", PLAY);
    this.root?.classList.remove("playing");
    this.saying?.setAttribute("aria-live", "polite");
  }

  schedule() {
    clearTimeout(this.timer);
    const wait = 1000 / Number(this.speed.value);
    this.timer = window.setTimeout(() => {
      this.show(this.position + 1);
      if (this.position < this.total) this.schedule();
      else this.pause();
    }, wait);
  }

  /** Go where somebody asked to be, which ends playing. @param {number} position */
  go(position) {
    if (this.playing) this.pause();
    this.show(position);
  }

  /** Show the state after `position` steps. @param {number} position */
  show(position) {
    position = Math.max(0, Math.min(this.total, Math.trunc(Number(position)) || 0));
    if (position === this.position) return;
    this.position = position;
    this.turn += 1;
    const step = position ? this.trace.steps[position - 1] : null;
    const state = this.replay.state(position - 1);
    this.showWords(step, state);
    if (this.picture) {
      const shape = this.picture.shape;
      const filled = contents(WORDS, state, this.trace, shape);
      const before = position
        ? contents(WORDS, this.replay.state(position - 2), this.trace, shape)
        : filled;
      const how = { failed: step?.error != null, turn: this.turn };
      this.picture.show(filled, before, litArrows(step, filled), how);
    } else {
      this.showSource(state);
    }
    this.slider.value = String(position);
    this.sync();
  }

  /** @param {any} step @param {any} state */
  showWords(step, state) {
    const text = sentence(WORDS, step, state, this.trace);
    const failed = step?.error != null;
    this.saying.textContent = text;
    this.saying.title = text;
    this.saying.classList.toggle("long", text.length > LONG_SENTENCE);
    this.kind.textContent = step ? /** @type {any} */ (WORDS.steps)[step.kind].label : "start";
    this.kind.parentElement?.classList.toggle("failed", failed);
    this.counter.dataset.step = String(this.position);
    this.counter.textContent = fill(WORDS.player.counter, {
      step: grouped(this.position), total: grouped(this.total),
    });
    const here = (step && CYCLE_OF[step.kind]) ?? CYCLE_OF_PHASE[state.phase];
    for (const item of this.cycle) {
      const current = item.dataset.cycle === here;
      item.classList.toggle("current", current);
      if (current) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
    const facts = [count(state.counts.waits, "wait"), `${grouped(state.counts.dispatches)} dispatched`,
      count(state.counts.tasks, "task")];
    if (state.counts.errors) facts.push(count(state.counts.errors, "error"));
    if (step) {
      const since = duration(step.t_ns - this.trace.steps[0].t_ns);
      facts.unshift(`${shown(step.thread, 24)} · at ${since}`);
    }
    this.facts.textContent = facts.join(" · ");
  }

  /** @param {any} state */
  showSource(state) {
    const { function: found, marked } = sourceOf(state, this.trace);
    const lines = found ? sourceLines(found.text) : [];
    this.source?.replaceChildren(...lines.map((text, at) => make("span", {
      "class": at === marked ? "source-line marked" : "source-line",
      "data-line": found.first_line + at,
    }, `${String(found.first_line + at).padStart(4)}  ${text}\n`)));
  }

  /** Tell the model where we are, not more often than a kernel likes to hear it. */
  sync() {
    if (this.syncTimer || this.model.get("step") === this.position) return;
    this.syncTimer = window.setTimeout(() => {
      this.syncTimer = 0;
      this.model.set("step", this.position);
      this.model.save_changes();
    }, SYNC_EVERY_MS);
  }

  close() {
    this.pause();
    clearTimeout(this.syncTimer);
    this.model.off("change:step", this.followModel);
    this.root?.remove();
  }
}

/**
 * The text of the trace file, however the host hands over bytes.
 * @param {string | DataView | Uint8Array} value
 */
function textOf(value) {
  return typeof value === "string" ? value : new TextDecoder().decode(value);
}

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {string} text
 * @returns {any}
 */
function make(name, attributes, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  if (text) element.textContent = text;
  return element;
}

/** @param {string} path */
function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}
