// The player: the stage, the controls, and around them the timeline, the list of steps, findings
// and the quiz. One `render` for anywidget and for the page that tracer/page.py writes.

import { Around, jsonOf } from "./around.js";
import { Causes } from "./causes.js";
import { Compare } from "./compare.js";
import { Controls } from "./controls.js";
import { keepKeys, make, signButton } from "./elements.js";
import { Replay, parseTrace } from "./fold.js";
import { HelpSheet, download, stillOf } from "./help.js";
import { Live } from "./live.js";
import { Stage } from "./stage.js";
import { fill, grouped } from "./words.js";
import WORDS from "./words.json" with { type: "json" };

const SYNC_EVERY_MS = 150;
const PLAYER_TEXT = Object.freeze({
  cause: "Cause",
  causeTitle: "To the step that made this one happen (C)",
  effect: "Effect",
  effectTitle: "To the first step that this one made happen (X)",
  held: "The timeline comes back when the question is answered.",
});
const TOOLS = [
  ["panel", "Panel beside the picture (B)", "M2 3h12v10H2zM3.3 4.3v7.4h5.4V4.3z"],
  ["projector", "Large type, for a projector (P)", "M2 13 5.5 3h2L11 13H9.2l-.8-2.4H4.6L3.8 13zm3.1-4h2.8L6.5 4.8zM12 13V8h-1.6V6.6H15V8h-1.6v5z"],
  ["fullscreen", "Full screen (F)", "M2 2h5v1.5H3.5V7H2zM9 2h5v5h-1.5V3.5H9zM2 9h1.5v3.5H7V14H2zM12.5 9H14v5H9v-1.5h3.5z"],
  ["still", "Save the picture of this step (S)", "M7.2 2h1.6v6l2.1-2.1 1.1 1.1L8 11 4 7l1.1-1.1L7.2 8zM2.5 12h11v1.6h-11z"],
  ["help", "Keys (?)", "M5 5.6C5 3.6 6.3 2.5 8 2.5s3 1.1 3 2.8c0 1.3-.7 2-1.5 2.6-.6.5-.8.8-.8 1.6H7.2c0-1.5.5-2.1 1.3-2.7.6-.5.9-.8.9-1.5S8.9 4 8 4s-1.4.6-1.4 1.6zM7.1 11h1.8v1.9H7.1z"],
];
const KEYS = /** @type {Record<string, string>} */ ({
  "?": "help", "/": "search", "]": "finding-next", "[": "finding-back", "c": "cause", "x": "effect",
  "e": "event-next", "E": "event-back", "n": "match-next", "N": "match-back", "b": "panel",
  "p": "projector", "f": "fullscreen", "s": "still", "l": "follow",
});

/**
 * Build the player in `el` for a model.
 *
 * Its values: `trace_text`, `svg`, `problem`, `step`; `findings` and `questions` as JSON text, empty
 * until they are known; `quiz` and `score`. With a `pairing`, also `other_text`, `other_svg` and
 * `labels`: two runs side by side.
 * @param {{model: any, el: HTMLElement}} context
 * @returns {() => void} what takes it away again
 */
export function render({ model, el }) {
  let view;
  try {
    view = model.get("pairing") ? new SideBySide(model) : new Player(model);
  } catch (error) {
    el.append(make("p", { class: "netpoll-player problem" }, String(error)));
    return () => {};
  }
  el.append(view.root);
  view.start();
  return () => view.close();
}

export default { render };

/** Tells the model where we are, not more often than a kernel likes to hear it. */
class Syncing {
  /** @param {any} model */
  constructor(model) {
    this.model = model;
    this.timer = 0;
  }

  /** @param {Record<string, any>} values */
  tell(values) {
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    if (this.timer) return;
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      this.model.save_changes();
    }, SYNC_EVERY_MS);
  }

  close() {
    if (!this.timer) return;
    clearTimeout(this.timer);
    this.model.save_changes();
  }
}

class Player {
  /** @param {any} model */
  constructor(model) {
    this.model = model;
    this.trace = parseTrace(textOf(model.get("trace_text")));
    this.replay = new Replay(this.trace);
    this.causes = new Causes(WORDS, this.trace);
    this.syncing = new Syncing(model);
    /** @type {number | null} beyond which nothing is shown while a question is open */
    this.limit = null;
    this.closed = false;
    /** What stands around the stage, once it is there. @type {Around | null} */
    this.around = null;
    /** @type {Live | null} */
    this.live = null;
    this.soon = 0;
    /** The descriptor whose steps somebody goes through. @type {number | undefined} */
    this.followed = undefined;
    /** @type {number[]} */
    this.rounds = [];
    this.roundsRead = 0;
    this.stage = new Stage({
      words: WORDS, trace: this.trace, replay: this.replay,
      svg: model.get("svg"), problem: model.get("problem"),
      because: (index) => this.causes.because(index),
    });
    this.controls = new Controls(this, {
      unit: "step", slider: "Step",
      onPlaying: (playing) => {
        this.root.classList.toggle("playing", playing);
        this.stage.speak(!playing);
      },
    });
    this.help = new HelpSheet();
    /** @type {Record<string, HTMLButtonElement>} */
    this.tools = {};
    this.build();
    this.stage.onShow((position) => this.onShow(position));
    this.following = false;
    this.followModel = () => {
      this.following = this.limit !== null; // another view went beyond: it need not come back
      this.show(this.model.get("step"));
      this.following = false;
      if (this.limit === null && !this.live && this.model.get("step") !== this.position) {
        this.syncing.tell({ step: this.position });
      }
    };
    model.on("change:step", this.followModel);
  }

  build() {
    this.counter = make("span", { "class": "counter", "data-role": "step" });
    const tools = make("div", { "class": "buttons tools", "role": "group", "aria-label": "View" });
    for (const [action, title, path] of TOOLS) {
      const button = signButton(action, title, path);
      button.addEventListener("click", () => this.act(action));
      this.tools[action] = button;
      tools.append(button);
    }
    this.controls.track.after(this.counter);
    this.controls.root.append(tools);

    const links = make("div", { class: "links" });
    this.causeButton = make("button", { "type": "button", "class": "plain", "data-action": "cause", "title": PLAYER_TEXT.causeTitle }, PLAYER_TEXT.cause);
    this.effectButton = make("button", { "type": "button", "class": "plain", "data-action": "effect", "title": PLAYER_TEXT.effectTitle }, PLAYER_TEXT.effect);
    for (const button of [this.causeButton, this.effectButton]) {
      button.addEventListener("click", () => this.act(button.dataset.action));
      links.append(button);
    }
    this.stage.told.append(links);

    this.main = make("div", { class: "main" });
    this.side = make("div", { class: "side" });
    this.below = make("div", { class: "below" });
    this.root = make("section", {
      "class": "netpoll-player", "tabindex": 0, "aria-label": "Replay of an event loop",
    });
    keepKeys(this.root);
    this.main.append(this.stage.view, this.side);
    this.root.append(this.controls.root, this.stage.told, this.stage.strip, this.main, this.below, this.help.root);
    this.root.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.onKey(event));
    if (this.model.get("live")) {
      this.live = new Live({
        model: this.model, stage: this.stage, trace: this.trace, replay: this.replay,
        changed: (change) => this.changed(change),
      });
      this.controls.root.prepend(this.live.button);
      this.stage.strip.append(this.live.note);
    }
  }

  /** The first picture first; what stands around it a moment later. */
  start() {
    this.show(this.model.get("step"));
    this.soon = window.setTimeout(() => requestAnimationFrame(() => this.closed || this.buildAround()));
  }

  buildAround() {
    this.around?.close();
    this.around = new Around({
      words: WORDS, trace: this.trace, replay: this.replay, causes: this.causes, model: this.model,
      live: this.live !== null,
      go: (position) => this.go(position),
      hold: (position) => this.hold(position),
      tell: (values) => this.syncing.tell(values),
    });
    this.side.append(this.around.tabs.root);
    this.below.append(this.around.timeline.root, make("p", { class: "held-note" }, PLAYER_TEXT.held));
    this.around.show(this.position);
    this.root.classList.add("complete");
  }

  // ---- what is played

  get position() {
    return this.stage.position;
  }

  get total() {
    return this.limit ?? this.trace.steps.length;
  }

  /** Where the next or the previous round begins. @param {1 | -1} direction */
  round(direction) {
    for (; this.roundsRead < this.trace.steps.length; this.roundsRead++) {
      if (this.trace.steps[this.roundsRead].kind === "WaitStarted") this.rounds.push(this.roundsRead + 1);
    }
    const now = this.position;
    if (direction > 0) return this.rounds.find((at) => at > now) ?? this.total;
    return this.rounds.findLast((at) => at < now) ?? 0;
  }

  /** Show the state after `position` steps. @param {number} position */
  show(position) {
    if (position < this.total) this.live?.hold();
    this.stage.show(Math.min(position, this.total));
  }

  /** Go there, which ends playing. @param {number} position */
  go(position) {
    this.controls.go(position);
  }

  /** @param {number} position */
  onShow(position) {
    const total = this.trace.steps.length;
    this.counter.dataset.step = String(position);
    const text = fill(WORDS.player.counter, { step: grouped(position), total: grouped(total) });
    this.counter.textContent = text;
    this.controls.update(text);
    this.causeButton.disabled = position === 0 || this.causes.cause(position - 1) === null;
    this.effectButton.disabled = position === 0 || !this.causes.effects(position - 1).length;
    const focused = this.focused();
    for (const button of [this.causeButton, this.effectButton]) {
      if (button.disabled && button === focused) this.root.focus({ preventScroll: true });
    }
    this.around?.show(position);
    if (!this.live && !this.following && this.model.get("step") !== position) this.syncing.tell({ step: position });
  }

  /** Show nothing beyond a position, while a question is open. @param {number | null} position */
  hold(position) {
    this.controls.pause();
    this.limit = position;
    this.root.classList.toggle("held", position !== null);
    this.around?.tabs.lock(position === null ? null : "quiz");
    if (position !== null) this.show(position);
    this.onShow(this.position);
  }

  // ---- what one can do

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const typing = event.target instanceof Element
      && event.target.matches('select, input:not([type="range"]), textarea');
    if (typing) return;
    const quiz = this.around?.quiz;
    if (quiz?.open && quiz.root.checkVisibility() && quiz.press(event.key)) return event.preventDefault();
    const action = this.controls.actionOf(event) ?? KEYS[event.key];
    if (!action || (action === "follow" && !this.live)) return;
    event.preventDefault();
    event.stopPropagation();
    this.act(action);
  }

  /** @param {string} action */
  act(action) {
    const index = this.position - 1;
    const step = this.trace.steps[index];
    switch (action) {
      case "help": return this.help.open();
      case "panel": return this.togglePanel();
      case "projector": return this.toggleProjector();
      case "fullscreen": return this.toggleFullscreen();
      case "still": return this.saveStill();
      case "follow": return this.live?.toggle();
      case "cause": return step && this.goTo(this.causes.cause(index));
      case "effect": return step && this.goTo(this.causes.effects(index)[0]);
      case "event-next":
      case "event-back": {
        // The end of a wait is a step of every descriptor in it: the one that was followed so far.
        /** @type {number | undefined} */
        const fd = step?.fd ?? this.replay.state(index).running?.fd ?? this.followed;
        this.followed = fd;
        if (fd != null) this.goTo(this.causes.nextOf(fd, index, action === "event-next" ? 1 : -1));
        return;
      }
      case "search":
        if (this.around && this.limit === null) {
          if (this.root.classList.contains("projector")) this.toggleProjector();
          this.togglePanel(true);
          this.around.tabs.select("steps");
          this.around.list.focusSearch();
        }
        return;
      case "match-next":
      case "match-back": return this.around?.list.goNext(action === "match-next" ? 1 : -1);
      case "finding-next":
      case "finding-back": {
        const at = this.around?.findings.next(action === "finding-next" ? 1 : -1, this.position);
        return this.goAt(at);
      }
      default: return this.controls.act(action);
    }
  }

  /** @param {number | null | undefined} index */
  goTo(index) {
    if (index != null) this.go(index + 1);
  }

  /** @param {number | null | undefined} position */
  goAt(position) {
    if (position != null) this.go(position);
  }

  /** @param {boolean} shown */
  togglePanel(shown = this.root.classList.contains("without-side")) {
    this.root.classList.toggle("without-side", !shown);
    this.tools.panel.setAttribute("aria-pressed", String(shown));
    this.keepFocus();
  }

  /** Keep the keys here when what had the focus went out of sight. */
  keepFocus() {
    const focused = this.focused();
    if (focused && !focused.checkVisibility()) this.root.focus({ preventScroll: true });
  }

  /** What has the focus, if it is in the player. @returns {Element | null} */
  focused() {
    const { activeElement } = /** @type {Document | ShadowRoot} */ (this.root.getRootNode());
    return activeElement && this.root.contains(activeElement) ? activeElement : null;
  }

  toggleProjector() {
    const on = this.root.classList.toggle("projector");
    this.tools.projector.setAttribute("aria-pressed", String(on));
    this.keepFocus();
    if (on && !document.fullscreenElement) this.root.requestFullscreen?.().catch(() => {});
    if (!on && document.fullscreenElement === this.root) document.exitFullscreen();
  }

  toggleFullscreen() {
    if (document.fullscreenElement === this.root) document.exitFullscreen();
    else this.root.requestFullscreen?.().catch(() => {});
  }

  saveStill() {
    const svg = this.stage.picture?.svg;
    if (svg) download(`step-${this.position}.svg`, stillOf(svg, this.stage.saying.textContent));
  }

  /** The trace of a running loop has changed. @param {import("./feed.js").Change} change */
  changed({ dropped, restarted }) {
    if (restarted) {
      this.rounds = [];
      this.roundsRead = 0;
      this.causes = new Causes(WORDS, this.trace);
      this.causes.grow(0);
      if (this.around) this.buildAround();
      return;
    }
    this.rounds = this.rounds.map((at) => at - dropped).filter((at) => at > 0);
    this.roundsRead = Math.max(0, this.roundsRead - dropped);
    this.causes.grow(dropped);
    this.around?.grow(dropped);
  }

  close() {
    this.closed = true;
    clearTimeout(this.soon);
    this.controls.close();
    this.syncing.close();
    this.model.off("change:step", this.followModel);
    this.live?.close();
    this.around?.close();
    this.root.remove();
  }
}

/** Two runs in step. */
class SideBySide {
  /** @param {any} model */
  constructor(model) {
    this.model = model;
    this.syncing = new Syncing(model);
    this.stages = ["trace_text", "other_text"].map((text) => {
      const trace = parseTrace(textOf(model.get(text)));
      const replay = new Replay(trace);
      const causes = new Causes(WORDS, trace);
      return new Stage({
        words: WORDS, trace, replay, svg: model.get("svg"), problem: model.get("problem"),
        because: (index) => causes.because(index),
      });
    });
    const pairing = jsonOf(model.get("pairing"));
    this.compare = new Compare({
      words: WORDS, left: this.stages[0], right: this.stages[1], labels: pairing.labels,
      pairing: pairing.ways, divergence: pairing.divergence,
    });
    this.root = make("section", { "class": "netpoll-player", "aria-label": "Two replays side by side" });
    this.root.append(this.compare.root);
    this.stages[0].onShow((position) => {
      if (model.get("step") !== position) this.syncing.tell({ step: position });
    });
    this.followModel = () => this.stages[0].show(model.get("step"));
    model.on("change:step", this.followModel);
  }

  start() {
    this.stages[0].show(this.model.get("step"));
  }

  close() {
    this.model.off("change:step", this.followModel);
    this.syncing.close();
    this.compare.close();
    this.root.remove();
  }
}

/**
 * The text of the trace file, however the host hands over bytes.
 * @param {string | DataView | Uint8Array} value
 */
function textOf(value) {
  return typeof value === "string" ? value : new TextDecoder().decode(value);
}
