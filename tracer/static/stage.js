// The stage: what a step is seen on. The sentence with its reason, the loop's cycle, the picture.

import { contents, litArrows, sourceLines, sourceOf } from "./contents.js";
import { make } from "./elements.js";
import { Picture } from "./picture.js";
import { count, duration, grouped, sentence, shown } from "./words.js";

/** @typedef {import("./fold.js").Trace} Trace */
/** @typedef {import("./fold.js").Replay} Replay */

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

export class Stage {
  /**
   * @param {{words: any, trace: Trace, replay: Replay, svg: string, problem: string,
   *   because: (index: number) => string}} host
   */
  constructor(host) {
    this.host = host;
    this.trace = host.trace;
    this.position = -1;
    this.turn = 0;
    /** What the picture showed last, and at which position. */
    this.filled = new Map();
    this.filledAt = -1;
    /** @type {((position: number) => void)[]} */
    this.watchers = [];
    this.picture = host.svg ? new Picture(host.svg) : null;
    this.build();
  }

  build() {
    const { words } = this.host;
    this.kind = make("span", { class: "kind" });
    this.saying = make("span", { "class": "saying", "role": "status", "aria-live": "polite" });
    this.reason = make("span", { class: "because" });
    const told = make("div", { class: "told" });
    told.append(this.saying, this.reason);
    this.told = make("div", { class: "sentence" });
    this.told.append(this.kind, told);

    /** @type {HTMLElement[]} */
    this.cycle = words.cycle.map((/** @type {string[]} */ [name, text, title]) =>
      make("li", { "data-cycle": name, title }, text));
    const list = make("ol", { "class": "cycle", "aria-label": "Where the loop is" });
    list.append(...this.cycle);
    this.facts = make("span", { class: "facts" });
    this.strip = make("div", { class: "strip" });
    this.strip.append(list, this.facts);

    this.view = make("div", { class: "view" });
    if (this.picture) {
      this.picture.svg.setAttribute("role", "img");
      this.picture.svg.setAttribute("aria-label", "Peers, kernel and user space; the sentence says what happens.");
      for (const [place, term] of Object.entries(words.tooltips)) {
        this.picture.explain(place, words.glossary[/** @type {string} */ (term)]);
      }
      this.view.append(this.picture.svg);
    } else {
      this.source = make("pre", { "class": "source", "tabindex": 0, "aria-label": "Source" });
      this.view.append(make("p", { class: "problem" }, this.host.problem), this.source);
    }
    this.root = make("div", { class: "stage" });
    this.root.append(this.told, this.strip, this.view);
  }

  get total() {
    return this.trace.steps.length;
  }

  /** @param {(position: number) => void} callback */
  onShow(callback) {
    this.watchers.push(callback);
  }

  /** Whether a screen reader is to say each sentence. @param {boolean} aloud */
  speak(aloud) {
    this.saying.setAttribute("aria-live", aloud ? "polite" : "off");
  }

  /** Show the state after `position` steps. @param {number} position */
  show(position) {
    position = Math.max(0, Math.min(this.total, Math.trunc(Number(position)) || 0));
    if (position === this.position) return;
    this.position = position;
    this.turn += 1;
    const { words, replay } = this.host;
    const step = position ? this.trace.steps[position - 1] : null;
    const previous = position ? replay.state(position - 2) : null;
    const state = replay.state(position - 1);
    this.showWords(step, state);
    if (this.picture) {
      const shape = this.picture.shape;
      const filled = contents(words, state, this.trace, shape);
      const before = !previous ? filled
        : this.filledAt === position - 1 ? this.filled : contents(words, previous, this.trace, shape);
      this.filled = filled;
      this.filledAt = position;
      const how = { failed: step?.error != null, turn: this.turn };
      this.picture.show(filled, before, litArrows(step, filled), how);
    } else {
      this.showSource(state);
    }
    for (const watcher of this.watchers) watcher(position);
  }

  /** Show a position of a trace that has changed, also when its number is the same. @param {number} position */
  renew(position) {
    this.position = this.filledAt = -1;
    this.show(position);
  }

  /** @param {any} step @param {any} state */
  showWords(step, state) {
    const { words, because } = this.host;
    const text = sentence(words, step, state, this.trace);
    this.saying.textContent = text;
    this.saying.title = text;
    this.saying.classList.toggle("long", text.length > LONG_SENTENCE);
    const reason = step ? because(this.position - 1) : "";
    this.reason.textContent = reason;
    this.reason.title = reason;
    const kind = step && Object.hasOwn(words.steps, step.kind) ? step.kind : "unknown";
    this.kind.textContent = step ? words.steps[kind].label : "start";
    this.told.classList.toggle("failed", step?.error != null);
    const here = Object.hasOwn(CYCLE_OF, kind) ? CYCLE_OF[kind] : CYCLE_OF_PHASE[state.phase];
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
}
