// The bar of controls, and what moves by itself while playing. The player has one, and so has the
// view of two runs side by side.

import { make, signButton } from "./elements.js";

/** @typedef {{readonly position: number, readonly total: number, show: (position: number) => void,
 *   round: (direction: 1 | -1) => number}} Played what is played; `round` is where the next or the
 *   previous round begins */

const RATES = [0.5, 1, 2, 5, 20, 100];
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

export class Controls {
  /**
   * @param {Played} played
   * @param {{unit: string, slider: string, onPlaying?: (playing: boolean) => void}} options `unit`
   *   is what a speed counts ("step")
   */
  constructor(played, { unit, slider, onPlaying = () => {} }) {
    this.played = played;
    this.onPlaying = onPlaying;
    this.timer = 0;
    const group = make("div", { "class": "buttons", "role": "group", "aria-label": "Playing" });
    for (const [action, title, path] of BUTTONS) {
      const button = signButton(action, title, path || PLAY);
      if (action === "play") this.playSign = button.querySelector("path");
      button.addEventListener("click", () => this.act(action));
      group.append(button);
    }
    this.slider = make("input", { "type": "range", "min": 0, "max": 0, "value": 0, "step": 1, "aria-label": slider });
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.track = make("div", { class: "track" });
    this.track.append(this.slider);
    this.speed = make("select", { "aria-label": "Speed", "title": "Speed" });
    for (const rate of RATES) {
      this.speed.append(make("option", { value: rate }, `${rate} ${unit}${rate === 1 ? "" : "s"}/s`));
    }
    this.speed.value = "1";
    this.speed.addEventListener("change", () => this.playing && this.schedule());
    this.root = make("div", { class: "bar" });
    this.root.append(group, this.track, this.speed);
  }

  get playing() {
    return this.timer !== 0;
  }

  /**
   * What a key of the bar does; null for another key, and where the key belongs to an element.
   * @param {KeyboardEvent} event @returns {string | null}
   */
  actionOf(event) {
    const onButton = event.target instanceof Element && event.target.closest("button, summary, a");
    switch (event.key) {
      case "ArrowRight": return event.shiftKey ? "round-forward" : "forward";
      case "ArrowLeft": return event.shiftKey ? "round-back" : "back";
      case "Home": return "first";
      case "End": return "last";
      case " ": return onButton ? null : "play";
      default: return null;
    }
  }

  /** @param {string} action */
  act(action) {
    const now = this.played.position;
    switch (action) {
      case "play": return this.playing ? this.pause() : this.play();
      case "forward": return this.go(now + 1);
      case "back": return this.go(now - 1);
      case "first": return this.go(0);
      case "last": return this.go(this.played.total);
      case "round-forward": return this.go(this.played.round(1));
      case "round-back": return this.go(this.played.round(-1));
    }
  }

  /** Go where somebody asked to be, which ends playing. @param {number} position */
  go(position) {
    if (this.playing) this.pause();
    this.played.show(position);
  }

  play() {
    if (this.played.position >= this.played.total) this.played.show(0);
    this.schedule();
    this.playSign?.setAttribute("d", PAUSE);
    this.onPlaying(true);
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.playSign?.setAttribute("d", PLAY);
    this.onPlaying(false);
  }

  /** Go on from here at the chosen speed; what is too quick to be drawn is left out. */
  schedule() {
    clearTimeout(this.timer);
    const wait = 1000 / Number(this.speed.value);
    const [began, from] = [performance.now(), this.played.position];
    const next = () => {
      const position = from + Math.floor((performance.now() - began) / wait);
      if (position > this.played.position) this.played.show(position);
      if (this.played.position >= this.played.total) return this.pause();
      const due = began + (this.played.position - from + 1) * wait;
      this.timer = window.setTimeout(next, Math.max(1, due - performance.now()));
    };
    this.timer = window.setTimeout(next, wait);
  }

  /** Tell the slider where things are. @param {string} text what a screen reader says of it */
  update(text) {
    this.slider.max = String(this.played.total);
    this.slider.value = String(this.played.position);
    this.slider.setAttribute("aria-valuetext", text);
  }

  close() {
    this.pause();
  }
}
