// The trace of a loop that still runs: takes what tracer/follower.py sends, and keeps the newest steps.

/** @typedef {import("./fold.js").Step} Step */
/** @typedef {import("./fold.js").Trace} Trace */
/** @typedef {import("./fold.js").LoopState} LoopState */
/** @typedef {import("./fold.js").Replay} Replay */
/** @typedef {{type: string, run?: number, first?: number, count?: number, quiet?: number,
 *   sent?: number, fault?: string | null}} Message */
/** @typedef {DataView | Uint8Array} Bytes */
/** @typedef {{anew: boolean, first: number, skip: number, data: Bytes | undefined}} Portion */
/** @typedef {{appended: number, dropped: number, restarted: boolean, answer: object | null}} Change */

const FEED_ANSWERS_EVERY = 2_000_000; // bytes
const FEED_ASKS_EVERY = 50; // messages that can't be used: some 5 seconds
const FEED_KEEPS_ASIDE = 16_000_000; // bytes

/** Applies the messages of a live loop to a trace and its replay, in place. */
export class Feed {
  /**
   * @param {Trace} trace
   * @param {Replay} replay of that trace
   * @param {number} most so many steps are kept, the newest; at least 512
   */
  constructor(trace, replay, most) {
    this.trace = trace;
    this.replay = replay;
    this.most = most;
    /** How many steps went before the first that is kept. */
    this.dropped = 0;
    this.frozen = false;
    /** While frozen: how many steps have come since. */
    this.came = 0;
    /** @type {Portion[]} */
    this.aside = [];
    this.asideBytes = 0;
    /** @type {number | null} what the steps' numbers belong to; null: to be told by a restart */
    this.run = null;
    this.end = 0; // the number of the next step
    this.unusable = 0;
    this.answered = 0;
    this.quiet = 0;
    this.heard = performance.now();
  }

  /**
   * Take a message. `appended` steps are new at the end, then `dropped` went from the beginning;
   * `restarted`: all that were there went. `answer`, if any, is to be sent back.
   * @param {Message} message
   * @param {Bytes} [data]
   * @returns {Change}
   */
  apply(message, data) {
    this.heard = performance.now();
    this.quiet = message.quiet ?? this.quiet;
    if (message.run === undefined) return nothingNew();
    const portion = this.portion(message, data);
    if (portion === null) return { ...nothingNew(), answer: this.ask() };
    this.unusable = 0;
    const answer = this.receipt(message);
    if (!this.frozen) return { ...this.take([portion]), answer };
    this.keepAside(portion, message);
    return { ...nothingNew(), answer };
  }

  /** Keep aside what comes from now on, so that the steps in the trace stay. */
  freeze() {
    this.frozen = true;
  }

  /** Take what was kept aside, and go on. @returns {Change} */
  follow() {
    const portions = this.aside;
    this.frozen = false;
    this.came = this.asideBytes = 0;
    this.aside = [];
    return this.take(portions);
  }

  /** How many seconds ago the last step happened, also while frozen. */
  quietFor() {
    return this.quiet + this.silentFor();
  }

  /** How many seconds ago the last message came; 5 is normal, 15 is not. */
  silentFor() {
    return (performance.now() - this.heard) / 1000;
  }

  /**
   * What of a message is new; null when something before it is missing.
   * @param {Message} message
   * @param {Bytes | undefined} data
   * @returns {Portion | null}
   */
  portion(message, data) {
    const { type, run = 0, first = 0, count = 0 } = message;
    const known = run === this.run && first <= this.end;
    if (!known && type !== "restart") return null;
    const skip = known ? Math.min(count, this.end - first) : 0;
    this.run = run;
    this.end = known ? Math.max(this.end, first + count) : first + count;
    return { anew: !known, first, skip, data };
  }

  /** @returns {object | null} */
  ask() {
    this.unusable += 1;
    return this.unusable % FEED_ASKS_EVERY === 1 ? { type: "again" } : null;
  }

  /** @param {Message} message @returns {object | null} */
  receipt({ sent = 0 }) {
    if (sent - this.answered < FEED_ANSWERS_EVERY) return null;
    this.answered = sent;
    return { type: "got", sent };
  }

  /** @param {Portion} portion @param {Message} message */
  keepAside(portion, { count = 0 }) {
    if (portion.anew) {
      this.aside = [];
      this.asideBytes = 0;
    }
    this.aside.push(portion);
    this.asideBytes += portion.data?.byteLength ?? 0;
    this.came += count - portion.skip;
    if (this.asideBytes > FEED_KEEPS_ASIDE) { // begin anew, with the next message
      this.aside = [];
      this.asideBytes = 0;
      this.run = null;
    }
  }

  /** @param {Portion[]} portions @returns {Change} */
  take(portions) {
    const { trace } = this;
    const change = nothingNew();
    const before = trace.steps.length;
    for (const { anew, first, skip, data } of portions) {
      const values = valuesOf(data);
      if (anew) {
        change.restarted = true;
        this.restart(values, first);
      }
      for (const value of values) if (value.kind === "function") trace.functions.set(value.id, value);
      const steps = values.filter((value) => "seq" in value);
      for (let at = skip; at < steps.length; at++) trace.steps.push(steps[at]);
    }
    change.appended = trace.steps.length - (change.restarted ? 0 : before);
    const dropped = this.limit();
    if (dropped && (change.restarted || dropped >= before)) {
      change.restarted = true;
      change.appended = trace.steps.length;
    } else {
      change.dropped = dropped;
    }
    return change;
  }

  /** @param {any[]} values @param {number} first */
  restart(values, first) {
    const { kind: _, ...base } = values.find((value) => value.kind === "base");
    this.trace.base = base;
    this.trace.functions.clear();
    this.trace.steps.length = 0;
    this.dropped = first;
    this.replay.restart();
  }

  /** Drop the oldest, some at a time, and return how many. */
  limit() {
    const { trace, replay } = this;
    if (trace.steps.length <= this.most) return 0;
    const dropped = replay.drop(trace.steps.length - Math.floor(this.most * 7 / 8));
    this.dropped += dropped;
    trace.base = feedBase(trace.base, replay.state(-1), this.dropped);
    return dropped;
  }
}

/** @returns {Change} */
function nothingNew() {
  return { appended: 0, dropped: 0, restarted: false, answer: null };
}

/** The objects in some lines. @param {Bytes | undefined} data @returns {any[]} */
function valuesOf(data) {
  const text = data ? new TextDecoder().decode(data) : "";
  return JSON.parse(`[${text.trimEnd().replaceAll("\n", ",")}]`); // quicker than line by line
}

/**
 * The base state of a trace that begins with `state`.
 * @param {any} base what it began with before
 * @param {LoopState} state
 * @param {number} dropped
 */
function feedBase(base, state, dropped) {
  const queued = (/** @type {string} */ queue, /** @type {any[]} */ tasks) =>
    tasks.map((task) => ({ ...task, queue }));
  return {
    ...base,
    dropped,
    size: state.size,
    running: state.phase !== "outside",
    registrations: [...state.registrations.values()].map((row) => ({ ...row, who: row.name })),
    tasks: [...queued("high", state.urgent), ...queued("low", state.low)],
    timers: state.timers,
  };
}
