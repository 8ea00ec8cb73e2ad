// Two players in step: one bar of controls for both, and the place where the runs part.

import { Controls } from "./controls.js";
import { keepKeys, make } from "./elements.js";
import { count, fill, grouped, shown } from "./words.js";

/** @typedef {{total: number, position: number, trace: any, root: HTMLElement,
 *   show: (position: number) => void, speak: (aloud: boolean) => void,
 *   onShow: (callback: (position: number) => void) => void}} ComparedPlayer */
/** @typedef {{by_round: number[], by_time: number[], matches: number[]}} Pairing */
/** @typedef {{text: string, at: [number, number] | null}} Divergence */
/** @typedef {"by_round" | "by_time"} Beat */

const COMPARE_TEXTS = Object.freeze({
  name: "Two runs of an event loop, side by side",
  beat: "Keep in step",
  by_round: "by round",
  by_time: "by time",
  byRoundTitle: "The waits of both stand side by side, and so do the steps that both have (T)",
  byTimeTitle: "Both clocks begin with the first step (T)",
  slider: "Moment",
  unit: "moment",
  moment: "a: {a} of {totalA}, b: {b} of {totalB}",
  jump: "First difference",
  jumpTitle: "To the first difference (D)",
  marker: "Here they part",
  ahead: "The same so far.",
  here: "They differ from here.",
  after: "They differ since step {step}.",
  steps: "{at} of {total}",
  only: "only in {side}",
  over: "over",
});
const COMPARE_KEYS = /** @type {Record<string, string>} */ ({
  d: "difference", D: "difference", t: "beat", T: "beat",
});

/** A way through two runs: which positions of both belong to a moment, and back. */
export class CompareWay {
  /** @param {number[]} corners as tracer/pairing.py gives them: of a and of b by turns */
  constructor(corners) {
    this.corners = corners;
    /** The moment of each corner. */
    this.moments = [0];
    for (let at = 2; at < corners.length; at += 2) {
      const further = Math.max(corners[at] - corners[at - 2], corners[at + 1] - corners[at - 1]);
      this.moments.push(this.moments[this.moments.length - 1] + further);
    }
  }

  /** How many moments there are after the first. */
  get total() {
    return this.moments[this.moments.length - 1];
  }

  /** The positions at a moment. @param {number} moment @returns {[number, number]} */
  at(moment) {
    const [corners, moments] = [this.corners, this.moments];
    const end = compareLowest(moments.length - 1, (at) => moments[at] >= moment);
    if (end === 0) return [corners[0], corners[1]];
    const far = moment - moments[end - 1];
    const along = (/** @type {number} */ side) => {
      const from = corners[2 * end - 2 + side];
      return from + Math.ceil(((corners[2 * end + side] - from) * far) / (moments[end] - moments[end - 1]));
    };
    return [along(0), along(1)];
  }

  /** The first moment at which a (side 0) or b (side 1) has come to `position`.
   * @param {0 | 1} side @param {number} position */
  momentOf(side, position) {
    const [corners, moments] = [this.corners, this.moments];
    const wanted = Math.min(position, corners[corners.length - 2 + side]);
    const end = compareLowest(moments.length - 1, (at) => corners[2 * at + side] >= wanted);
    if (end === 0) return 0;
    const from = corners[2 * end - 2 + side];
    const far = wanted - from;
    const length = moments[end] - moments[end - 1];
    return moments[end - 1] + Math.floor((length * (far - 1)) / (corners[2 * end + side] - from)) + 1;
  }
}

/**
 * The index in b of the step that is the same as that of index `index` in a (`side` 0), or the
 * other way about; null when the other run has none.
 * @param {number[]} matches stretches as tracer/pairing.py gives them: in a, in b, how many
 * @param {0 | 1} side
 * @param {number} index
 * @returns {number | null}
 */
export function compareMatch(matches, side, index) {
  const after = compareLowest(matches.length / 3, (at) => matches[3 * at + side] > index);
  if (after === 0) return null;
  const far = index - matches[3 * after - 3 + side];
  return far < matches[3 * after - 1] ? matches[3 * after - 2 - side] + far : null;
}

/** The lowest number for which `holds`, of 0 … `end`; `end` where it never does.
 * @param {number} end @param {(at: number) => boolean} holds */
function compareLowest(end, holds) {
  let start = 0;
  while (start < end) {
    const middle = Math.floor((start + end) / 2);
    if (holds(middle)) end = middle;
    else start = middle + 1;
  }
  return start;
}

/** The two players with what belongs to both. */
export class Compare {
  /**
   * @param {{words: any, left: ComparedPlayer, right: ComparedPlayer, labels: [string, string],
   *   pairing: Pairing, divergence: Divergence}} host
   */
  constructor(host) {
    this.host = host;
    this.sides = [host.left, host.right];
    this.ways = { by_round: new CompareWay(host.pairing.by_round), by_time: new CompareWay(host.pairing.by_time) };
    /** Where a round of either begins, counted in moments. */
    this.rounds = { by_round: this.roundsOf("by_round"), by_time: this.roundsOf("by_time") };
    /** @type {Beat} */
    this.beat = "by_round";
    /** The moment that is shown, from 0. */
    this.position = -1;
    this.moving = false;
    this.closed = false;
    this.said = "";
    this.build();
    this.sides.forEach((player, side) => {
      player.onShow((position) => this.follow(/** @type {0 | 1} */ (side), position));
    });
    this.useBeat("by_round");
  }

  /** @param {Beat} beat @returns {number[]} */
  roundsOf(beat) {
    const moments = new Set();
    this.sides.forEach((player, side) => {
      player.trace.steps.forEach((/** @type {any} */ step, /** @type {number} */ at) => {
        if (step.kind !== "WaitStarted") return;
        moments.add(this.ways[beat].momentOf(/** @type {0 | 1} */ (side), at + 1));
      });
    });
    return [...moments].sort((one, other) => one - other);
  }

  build() {
    /** @type {Controls} */
    this.controls = new Controls(this, {
      unit: COMPARE_TEXTS.unit,
      slider: COMPARE_TEXTS.slider,
      onPlaying: (playing) => {
        for (const player of this.sides) player.speak(!playing);
      },
    });
    this.marker = make("span", {
      "class": "compare-marker", "aria-hidden": "true", "title": COMPARE_TEXTS.marker,
    });
    this.controls.track.append(this.marker);

    /** @type {any[]} */
    this.beats = /** @type {[Beat, string][]} */ (
      [["by_round", COMPARE_TEXTS.byRoundTitle], ["by_time", COMPARE_TEXTS.byTimeTitle]]
    ).map(([beat, title]) => {
      const button = make("button", { "type": "button", "data-beat": beat, "title": title }, COMPARE_TEXTS[beat]);
      button.addEventListener("click", () => this.useBeat(beat));
      return button;
    });
    const beats = make("div", { "class": "compare-beats", "role": "group", "aria-label": COMPARE_TEXTS.beat });
    beats.append(...this.beats);

    this.controls.track.after(beats);

    this.banner = make("div", { class: "compare-banner" });
    this.bannerText = make("p", { "role": "status", "aria-live": "polite" });
    this.banner.append(this.bannerText);
    if (this.host.divergence.at) {
      const jump = make("button", {
        "type": "button", "class": "compare-jump", "title": COMPARE_TEXTS.jumpTitle,
      }, COMPARE_TEXTS.jump);
      jump.addEventListener("click", () => this.act("difference"));
      this.banner.append(jump);
    }

    const columns = make("div", { class: "compare-columns" });
    /** @type {{column: HTMLElement, at: HTMLElement, note: HTMLElement}[]} */
    this.heads = this.sides.map((player, side) => {
      const letter = make("span", { class: "compare-letter" }, "ab"[side]);
      const label = shown(this.host.labels[side]);
      const at = make("span", { class: "compare-at" });
      const note = make("span", { class: "compare-note" });
      const head = make("h3", {});
      head.append(letter, make("span", { class: "compare-label", title: label }, label), note, at);
      const column = make("section", { "class": "compare-side", "aria-label": `${"ab"[side]}: ${label}` });
      column.append(head, player.root);
      columns.append(column);
      return { column, at, note };
    });

    /** @type {HTMLElement} */
    this.root = make("section", {
      "class": "compare", "tabindex": 0, "aria-label": COMPARE_TEXTS.name,
    });
    keepKeys(this.root);
    this.root.append(this.controls.root, this.banner, columns);
    this.root.addEventListener("keydown", (event) => this.onKey(event), { capture: true });
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof Element && event.target.matches("select")) return;
    const action = this.controls.actionOf(event) ?? COMPARE_KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // neither of the two players may go on alone
    this.act(action);
  }

  /** @param {string} action */
  act(action) {
    switch (action) {
      case "beat": return this.useBeat(this.beat === "by_round" ? "by_time" : "by_round");
      case "difference": return this.parting === null ? undefined : this.controls.go(this.parting);
      default: return this.controls.act(action);
    }
  }

  /** The moments that are gone through now. */
  get way() {
    return this.ways[this.beat];
  }

  get total() {
    return this.way.total;
  }

  /** The moment at which the next or the previous round of either begins. @param {1 | -1} direction */
  round(direction) {
    const rounds = this.rounds[this.beat];
    if (direction < 0) return rounds[compareLowest(rounds.length, (at) => rounds[at] >= this.position) - 1] ?? 0;
    return rounds[compareLowest(rounds.length, (at) => rounds[at] > this.position)] ?? this.total;
  }

  /** Pair by rounds or by time; a stays where it is. @param {Beat} beat */
  useBeat(beat) {
    this.controls.pause();
    this.beat = beat;
    for (const button of this.beats) {
      button.setAttribute("aria-pressed", String(button.dataset.beat === beat));
    }
    const at = this.host.divergence.at;
    /** @type {number | null} the moment of the first difference */
    this.parting = at && Math.min(this.way.momentOf(0, at[0]), this.way.momentOf(1, at[1]));
    this.marker.hidden = this.parting === null;
    if (this.parting !== null) {
      const part = this.total ? this.parting / this.total : 0;
      this.marker.style.setProperty("--compare-part", String(part));
    }
    const [a, b] = this.sides;
    let moment = this.way.momentOf(0, a.position);
    if (a.position === a.total) moment = Math.max(moment, this.way.momentOf(1, b.position)); // only b goes on
    this.position = -1;
    this.show(moment);
  }

  /** One side was moved by somebody else: the other follows.
   * @param {0 | 1} side @param {number} position */
  follow(side, position) {
    if (this.moving || this.closed || position === this.way.at(this.position)[side]) return;
    this.controls.go(this.way.momentOf(side, position));
  }

  /** Show a moment on both sides. @param {number} moment */
  show(moment) {
    moment = Math.max(0, Math.min(this.total, Math.trunc(Number(moment)) || 0));
    if (moment === this.position) return;
    this.position = moment;
    const positions = this.way.at(moment);
    this.moving = true;
    try {
      this.sides.forEach((player, side) => player.show(positions[side]));
    } finally {
      this.moving = false;
    }
    this.showHeads(positions);
    this.showBanner(positions);
    this.controls.update(fill(COMPARE_TEXTS.moment, {
      a: grouped(positions[0]), b: grouped(positions[1]),
      totalA: grouped(this.sides[0].total), totalB: grouped(this.sides[1].total),
    }));
  }

  /** @param {[number, number]} positions */
  showHeads(positions) {
    const { matches } = this.host.pairing;
    this.heads.forEach(({ column, at, note }, side) => {
      const [position, total] = [positions[side], this.sides[side].total];
      at.textContent = fill(COMPARE_TEXTS.steps, { at: grouped(position), total: count(total, "step") });
      const only = position > 0 && compareMatch(matches, /** @type {0 | 1} */ (side), position - 1) === null;
      const waits = position === total && positions[1 - side] < this.sides[1 - side].total;
      note.textContent = waits ? COMPARE_TEXTS.over : only ? fill(COMPARE_TEXTS.only, { side: "ab"[side] }) : "";
      column.classList.toggle("only", only && !waits);
    });
  }

  /** @param {[number, number]} positions */
  showBanner(positions) {
    const { at, text } = this.host.divergence;
    const parted = at !== null && this.parting !== null && this.position >= this.parting;
    const alike = at !== null && (at[0] > 0 || at[1] > 0); // else `text` says it all
    let head = "";
    if (alike && !parted) head = COMPARE_TEXTS.ahead;
    else if (alike && this.position === this.parting) head = COMPARE_TEXTS.here;
    else if (alike) head = fill(COMPARE_TEXTS.after, { step: grouped(Math.max(...at)) });
    const rest = alike && !parted ? "" : text;
    if (head + rest === this.said) return;
    this.said = head + rest;
    this.bannerText.replaceChildren(make("strong", {}, head), ` ${rest}`);
    this.bannerText.title = rest;
    this.banner.classList.toggle("parted", parted);
  }

  close() {
    this.controls.close();
    this.closed = true;
    this.root.remove();
  }
}
