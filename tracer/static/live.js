// Following a loop while it runs: takes what the kernel sends, shows the newest step or holds still.

import { make } from "./elements.js";
import { Feed } from "./feed.js";
import { count, fill, grouped, shown } from "./words.js";

/** @typedef {import("./feed.js").Change} Change */
/** @typedef {import("./stage.js").Stage} Stage */

const LIVE_TEXT = Object.freeze({
  follow: "Live",
  followTitle: "Follow the running loop, or hold still (L)",
  live: "live",
  quiet: "live, asleep for {seconds} s",
  silent: "nothing is heard of the kernel",
  frozen: "holding still; {count} came since",
  ended: "the recording has ended",
  dropped: "{count} older ones dropped",
});
const QUIET_SECONDS = 2;
const SILENT_SECONDS = 15;

export class Live {
  /**
   * @param {{model: any, stage: Stage, trace: import("./fold.js").Trace,
   *   replay: import("./fold.js").Replay, changed: (change: Change) => void}} host `changed` is told
   *   what has become of the trace
   */
  constructor(host) {
    this.host = host;
    this.feed = new Feed(host.trace, host.replay, host.model.get("most"));
    this.ended = "";
    this.frame = 0;
    this.button = make("button", {
      "type": "button", "class": "plain follow", "data-action": "follow", "title": LIVE_TEXT.followTitle,
    }, LIVE_TEXT.follow);
    this.button.addEventListener("click", () => this.toggle());
    this.note = make("span", { "class": "live-note", "data-role": "live" });
    this.receive = (/** @type {any} */ message, /** @type {DataView[]} */ buffers) => {
      this.onMessage(message, buffers);
    };
    this.ticking = window.setInterval(() => this.tell(), 1000);
    host.model.on("msg:custom", this.receive);
    host.model.send({ type: "again" });
    this.tell();
  }

  /** @param {any} message @param {DataView[]} buffers */
  onMessage(message, buffers) {
    if (message.type === "ended") this.ended = message.fault ? shown(message.fault, 80) : LIVE_TEXT.ended;
    const change = this.feed.apply(message, buffers?.[0]);
    if (change.answer) this.host.model.send(change.answer);
    this.take(change);
    this.tell();
  }

  /** @param {Change} change */
  take(change) {
    if (!change.appended && !change.dropped && !change.restarted) return;
    this.host.changed(change);
    this.later();
  }

  /** Show the newest step with the next frame, however many messages come before. */
  later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (!this.feed.frozen) this.host.stage.renew(this.host.trace.steps.length);
    });
  }

  toggle() {
    if (this.feed.frozen) {
      this.take(this.feed.follow());
      this.later();
    } else {
      this.feed.freeze();
    }
    this.tell();
  }

  /** Somebody wants to look at an earlier step. */
  hold() {
    if (!this.feed.frozen) this.toggle();
  }

  /** Say how it stands. */
  tell() {
    const { feed } = this;
    this.button.setAttribute("aria-pressed", String(!feed.frozen));
    const notes = [
      this.ended ? this.ended
        : feed.frozen ? fill(LIVE_TEXT.frozen, { count: count(feed.came, "step") })
        : feed.silentFor() > SILENT_SECONDS ? LIVE_TEXT.silent
        : feed.quietFor() > QUIET_SECONDS ? fill(LIVE_TEXT.quiet, { seconds: grouped(Math.floor(feed.quietFor())) })
        : LIVE_TEXT.live,
    ];
    if (feed.dropped) notes.push(fill(LIVE_TEXT.dropped, { count: grouped(feed.dropped) }));
    const text = notes.join(" · ");
    if (this.note.textContent !== text) this.note.textContent = text;
    this.note.classList.toggle("on", !feed.frozen && !this.ended);
  }

  close() {
    clearInterval(this.ticking);
    if (this.frame) cancelAnimationFrame(this.frame);
    this.host.model.off("msg:custom", this.receive);
  }
}
