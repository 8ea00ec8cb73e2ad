// From the steps of a trace to lanes over time: one of the loop, one of tasks and timers, one for
// each descriptor. A lane holds spans and ticks by the numbers of their steps, as filter.js counts
// them; what of it is to be seen at a scale is looked up, so that a million steps cost no more to
// draw than there are pixels.

import { StepIndex } from "./filter.js";

/** @typedef {import("./fold.js").Step} Step */
/** @typedef {import("./fold.js").Trace} Trace */
/** @typedef {{number: number, end: number | null}} LaneHit a step, and where what it began ended */

const LANES_SLICE = 64; // steps between looks at the clock
const LANES_WIDE = 1.5; // pixels from which on a span is drawn as it is

/** Kinds of steps and the tick they leave. @type {Readonly<Record<string, string>>} */
const LANES_TICKS = Object.freeze({
  PollerOpened: "changed", Registered: "changed", Modified: "changed", Deleted: "changed",
  Closed: "changed", PollerClosed: "changed", BatchResized: "changed", ListRebuilt: "changed",
  Accepted: "accepted", Read: "read", WakeupReceived: "read", Wrote: "wrote", WakeupSent: "wrote",
  WouldBlock: "nothing", EventDropped: "nothing",
  TaskQueued: "queued", TimerSet: "queued", TimerFired: "queued", TimerCanceled: "queued",
});

/**
 * How many of the rising `values` are smaller than `value`, if the first `from` are.
 * @param {number[]} values @param {number} value
 */
export function lanesBelow(values, value, from = 0) {
  let low = from;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Spans that do not overlap, from one step to another; only the last one can be open. */
export class Spans {
  constructor() {
    /** @type {number[]} */
    this.starts = [];
    /** Infinity while open. @type {number[]} */
    this.ends = [];
    /** How long all before this one took. @type {number[]} */
    this.before = [];
    this.total = 0;
    this.began = 0;
  }

  get open() {
    return this.ends.length > 0 && this.ends[this.ends.length - 1] === Infinity;
  }

  /** @param {number} number @param {number} clock */
  begin(number, clock) {
    this.end(number, clock);
    this.starts.push(number);
    this.ends.push(Infinity);
    this.before.push(this.total);
    this.began = clock;
  }

  /** Close the open one, if there is one. @param {number} number @param {number} clock */
  end(number, clock) {
    if (!this.open) return;
    this.ends[this.ends.length - 1] = number;
    this.total += clock - this.began;
  }

  /** The place of the span that holds a step, its ends included; -1: there is none. @param {number} number */
  holding(number) {
    const at = lanesBelow(this.ends, number);
    return at < this.starts.length && this.starts[at] <= number ? at : -1;
  }

  /** Forget what ended before `first`. @param {number} first */
  trim(first) {
    const gone = lanesBelow(this.ends, first);
    for (const list of [this.starts, this.ends, this.before]) list.splice(0, gone);
  }
}

/** What happened in one place, over time. */
export class Lane {
  /** @param {number | null} fd @param {string[]} spans @param {number} born */
  constructor(fd, spans, born) {
    this.fd = fd;
    /** The first step about it. */
    this.born = born;
    /** @type {Record<string, Spans>} */
    this.spans = Object.fromEntries(spans.map((name) => [name, new Spans()]));
    /** Steps by the look of their tick. @type {Record<string, number[]>} */
    this.ticks = {};
    /** @type {number[]} */
    this.failed = [];
  }

  /** @param {string} look @param {number} number */
  tick(look, number) {
    (this.ticks[look] ??= []).push(number);
  }

  /** Forget the steps before `first`; return whether something is left. @param {number} first */
  trim(first) {
    for (const list of [this.failed, ...Object.values(this.ticks)]) list.splice(0, lanesBelow(list, first));
    for (const spans of Object.values(this.spans)) spans.trim(first);
    return this.failed.length > 0 || Object.values(this.ticks).some((list) => list.length)
      || Object.values(this.spans).some((spans) => spans.starts.length);
  }
}

/** All lanes of a trace, which may still grow at its end and lose its oldest steps. */
export class Lanes {
  /** @param {any} words @param {Trace} trace */
  constructor(words, trace) {
    const { base, steps } = trace;
    this.trace = trace;
    this.index = new StepIndex(words, trace);
    /** Times of the steps from `first` on, from that of the first one; they never fall. @type {number[]} */
    this.clocks = [];
    this.first = 0;
    this.origin = steps.length ? steps[0].t_ns : 0;
    this.loop = new Lane(null, ["wait", "dispatch", "task"], 0);
    this.tasks = new Lane(null, ["timers", "queued", "task"], 0);
    /** @type {Map<number, Lane>} */
    this.byNumber = new Map();
    /** The lanes of descriptors: the wakeup first, then by their numbers. @type {Lane[]} */
    this.descriptors = [];
    /** The lane whose callback runs. @type {Lane | null} */
    this.called = null;
    /** What is queued and what is set. */
    this.pending = { queued: new LanesPending(base.tasks), timers: new LanesPending(base.timers ?? []) };
    this.follow("queued", -1, 0);
    this.follow("timers", -1, 0);
    const own = base.registrations.find((/** @type {any} */ row) => row.fd === base.wakeup_fd);
    for (const row of [own ?? { fd: base.wakeup_fd }, ...base.registrations]) {
      const { life } = this.lane(row.fd, -1).spans;
      if (!row.closed && !life.open) life.begin(-1, 0);
    }
  }

  /** The number of the first step there is. */
  get dropped() {
    return this.index.dropped;
  }

  /** The number behind the last step that was read. */
  get end() {
    return this.index.end;
  }

  get done() {
    return this.index.end >= this.index.total;
  }

  /** Read on for some milliseconds; return whether all is read. @param {number} milliseconds */
  work(milliseconds) {
    const until = performance.now() + milliseconds;
    while (!this.done) {
      const stop = Math.min(this.end + LANES_SLICE, this.index.total);
      while (this.end < stop) this.take();
      if (performance.now() >= until) break;
    }
    return this.done;
  }

  /**
   * The oldest `dropped` steps are gone. Return whether that can be taken in: not when it is
   * another trace, or steps went before they were read.
   * @param {number} dropped
   */
  drop(dropped) {
    if (this.dropped + dropped > this.end) return false;
    this.index.drop(dropped);
    const gone = this.dropped - this.first;
    if (gone * 2 < this.clocks.length) return true; // seldom and much, so that it costs little a step
    this.clocks.splice(0, gone);
    this.first = this.dropped;
    this.loop.trim(this.first);
    this.tasks.trim(this.first);
    this.descriptors = this.descriptors.filter((lane) =>
      lane.trim(this.first) || !this.byNumber.delete(/** @type {number} */ (lane.fd)));
    return true;
  }

  /** When a step was, in nanoseconds from the first one ever read. @param {number} number */
  clock(number) {
    const { clocks } = this;
    if (!clocks.length) return 0;
    return clocks[Math.max(0, Math.min(clocks.length - 1, Math.max(number, this.dropped) - this.first))];
  }

  /** The lane that a step stands in; null when it has none yet. @param {Step} step @returns {Lane | null} */
  laneOf(step) {
    switch (step.kind) {
      case "WakeupSent":
      case "WakeupReceived":
        return this.byNumber.get(this.trace.base.wakeup_fd) ?? null;
      case "TaskQueued":
      case "TaskStarted":
      case "TaskEnded":
      case "TimerSet":
      case "TimerFired":
      case "TimerCanceled":
        return this.tasks;
      case "PollerOpened":
        return this.loop;
      default:
        return step.fd == null ? this.loop : this.byNumber.get(step.fd) ?? null;
    }
  }

  /** The lane of a descriptor's number. @param {number} fd @param {number} number */
  lane(fd, number) {
    let lane = this.byNumber.get(fd);
    if (!lane) {
      lane = new Lane(fd, ["life", "dispatch"], number);
      this.byNumber.set(fd, lane);
      const rank = (/** @type {Lane} */ one) => (one.fd === this.trace.base.wakeup_fd ? -Infinity : one.fd ?? 0);
      let place = this.descriptors.length;
      while (place && rank(this.descriptors[place - 1]) > rank(lane)) place -= 1;
      this.descriptors.splice(place, 0, lane);
    }
    return lane;
  }

  /** What the lane of a descriptor is called at a step. @param {Lane} lane @param {number} number */
  nameAt(lane, number) {
    const fd = /** @type {number} */ (lane.fd);
    const meant = this.index.meant(fd, Math.max(number, lane.born)) ?? this.index.meant(fd, Infinity);
    return meant?.name ?? "";
  }

  // ---- reading

  /** Read the next step. */
  take() {
    const number = this.end;
    const step = this.index.step(number);
    this.index.take();
    const last = this.clocks.length ? this.clocks[this.clocks.length - 1] : 0;
    const now = Math.max(last, step.t_ns - this.origin);
    this.clocks.push(now);
    if (step.fd != null && step.kind !== "PollerOpened") this.lane(step.fd, number);
    const lane = this.laneOf(step) ?? this.loop;
    this.spread(step, number, now, lane);
    if (step.error != null) lane.failed.push(number);
    else if (Object.hasOwn(LANES_TICKS, step.kind)) lane.tick(LANES_TICKS[step.kind], number);
  }

  /** Begin and end the spans that a step does. @param {Step} step @param {number} number
   * @param {number} now @param {Lane} lane */
  spread(step, number, now, lane) {
    const { loop, tasks } = this;
    const well = step.error == null;
    switch (step.kind) {
      case "WaitStarted":
        this.settle(number, now);
        loop.spans.wait.begin(number, now);
        return;
      case "WaitEnded":
        loop.spans.wait.end(number, now);
        return;
      case "DispatchStarted":
        this.settle(number, now);
        loop.spans.dispatch.begin(number, now);
        lane.spans.dispatch.begin(number, now);
        this.called = lane;
        return;
      case "TaskStarted":
        this.settle(number, now);
        this.pending.queued.remove(step.cause ?? null);
        this.follow("queued", number, now);
        for (const one of [loop, tasks]) one.spans.task.begin(number, now);
        return;
      case "DispatchEnded":
      case "TaskEnded":
        this.settle(number, now);
        if (!well) loop.failed.push(number);
        return;
      case "PollerClosed":
        this.settle(number, now);
        for (const pending of Object.values(this.pending)) pending.clear();
        this.follow("queued", number, now);
        this.follow("timers", number, now);
        for (const one of this.descriptors) one.spans.life.end(number, now);
        return;
    }
    if (!well) return;
    switch (step.kind) {
      case "Registered":
        lane.spans.life.begin(number, now);
        return;
      case "Modified": // of what was registered before the recording
        if (!lane.spans.life.open) lane.spans.life.begin(number, now);
        return;
      case "Deleted":
      case "Closed": // the kernel drops what is closed
        lane.spans.life.end(number, now);
        return;
      case "Accepted":
        if (step.new_fd != null) this.lane(step.new_fd, number).tick("accepted", number);
        return;
      case "TaskQueued":
        this.pending.queued.add(step.seq);
        this.follow("queued", number, now);
        return;
      case "TimerSet":
        this.pending.timers.add(step.seq);
        this.follow("timers", number, now);
        return;
      case "TimerFired":
      case "TimerCanceled":
        this.pending.timers.remove((step.kind === "TimerFired" ? step.cause : step.timer) ?? null);
        this.follow("timers", number, now);
    }
  }

  /** The loop does something else now. @param {number} number @param {number} now */
  settle(number, now) {
    for (const spans of Object.values(this.loop.spans)) spans.end(number, now);
    this.tasks.spans.task.end(number, now);
    this.called?.spans.dispatch.end(number, now);
    this.called = null;
  }

  /** Whether something is pending began or ended. @param {"queued" | "timers"} what
   * @param {number} number @param {number} now */
  follow(what, number, now) {
    const spans = this.tasks.spans[what];
    const any = this.pending[what].size > 0;
    if (any && !spans.open) spans.begin(number, now);
    else if (!any) spans.end(number, now);
  }
}

/** What waits for its turn, by `seq`; what the base state had has none, or one. */
class LanesPending {
  /** @param {any[]} rows */
  constructor(rows) {
    /** @type {Set<number>} */
    this.known = new Set();
    this.nameless = 0;
    for (const row of rows) this.add(row.seq ?? null);
  }

  get size() {
    return this.known.size + this.nameless;
  }

  /** @param {number | null} seq */
  add(seq) {
    if (seq === null) this.nameless += 1;
    else this.known.add(seq);
  }

  /** @param {number | null} seq */
  remove(seq) {
    if (seq !== null) this.known.delete(seq);
    else if (this.nameless) this.nameless -= 1;
  }

  clear() {
    this.known.clear();
    this.nameless = 0;
  }
}

/**
 * Lanes seen at a scale: `width` pixels show the coordinates from `left` to `right`, which are
 * nanoseconds, or numbers of steps where every step is equally wide.
 */
export class LanesView {
  /** @param {Lanes} lanes @param {boolean} bySteps @param {number} left @param {number} right @param {number} width */
  constructor(lanes, bySteps, left, right, width) {
    this.lanes = lanes;
    this.bySteps = bySteps;
    this.left = left;
    this.right = right;
    this.width = Math.max(1, Math.floor(width));
    this.scale = this.width / (right - left); // pixels a unit
    /** The first step in or behind each column of pixels, and one beyond. @type {number[]} */
    this.edges = [];
    let number = lanes.dropped;
    for (let column = 0; column <= this.width; column++) {
      number = this.numberAt(left + column / this.scale, number);
      this.edges.push(number);
    }
  }

  /** Where a step lies: nanoseconds, or its number. @param {number} number */
  coordinate(number) {
    if (!this.bySteps) return this.lanes.clock(number);
    return Math.max(this.lanes.dropped, Math.min(this.lanes.end - 1, number));
  }

  /** The first step at a coordinate or behind it. @param {number} coordinate */
  numberAt(coordinate, from = this.lanes.dropped) {
    const { dropped, first, end, clocks } = this.lanes;
    if (this.bySteps) return Math.max(dropped, Math.min(end, Math.ceil(coordinate)));
    return lanesBelow(clocks, coordinate, from - first) + first;
  }

  /** @param {number} number */
  x(number) {
    return (this.coordinate(number) - this.left) * this.scale;
  }

  /**
   * Tell `draw` what of the spans is to be seen: from where to where, and how much of that they
   * fill. Spans narrower than a pixel come together as one column.
   * @param {Spans} spans
   * @param {(from: number, to: number, share: number) => void} draw
   */
  spans(spans, draw) {
    const { starts, ends } = spans;
    const stop = this.edges[this.width];
    let at = lanesBelow(ends, this.edges[0]);
    while (at < starts.length && starts[at] < stop) {
      const from = this.x(starts[at]);
      const to = this.x(ends[at]);
      if (to - from >= LANES_WIDE) {
        draw(Math.max(from, -2), Math.min(to, this.width + 2), 1);
        at += 1;
        continue;
      }
      const column = Math.max(0, Math.min(this.width - 1, Math.floor(from)));
      const next = lanesBelow(starts, this.edges[column + 1], at + 1);
      draw(column, column + 1, this.share(spans, at, next));
      const last = next - 1; // the one that can reach out of the column
      if (last > at && this.x(ends[last]) - column - 1 >= LANES_WIDE) {
        draw(Math.max(this.x(starts[last]), -2), Math.min(this.x(ends[last]), this.width + 2), 1);
      }
      at = next;
    }
  }

  /** How much of one pixel the spans from `at` to `next` fill. @param {Spans} spans
   * @param {number} at @param {number} next */
  share(spans, at, next) {
    if (this.bySteps) return next - at > 1 ? 0.5 : 1;
    const until = next < spans.before.length ? spans.before[next] : spans.total;
    return Math.min(1, (until - spans.before[at]) * this.scale);
  }

  /**
   * Tell `draw` where ticks are to be seen: one for all that stand within `apart` pixels.
   * @param {number[] | undefined} numbers
   * @param {(x: number) => void} draw
   */
  ticks(numbers, draw, apart = 1) {
    if (!numbers) return;
    const stop = this.edges[this.width];
    let at = lanesBelow(numbers, this.edges[0]);
    while (at < numbers.length && numbers[at] < stop) {
      const x = this.x(numbers[at]);
      draw(x);
      const column = Math.min(this.width, Math.max(0, Math.floor(x)) + apart);
      at = lanesBelow(numbers, this.edges[column], at + 1);
    }
  }

  /**
   * What of a lane stands at `x`: a tick within `reach` pixels, else a span there or near.
   * @param {Lane} lane @param {number} x
   * @returns {LaneHit | null}
   */
  hit(lane, x, reach = 4) {
    /** @type {LaneHit | null} */
    let found = null;
    let nearest = reach;
    const near = (/** @type {number | undefined} */ number, /** @type {number | null} */ end, far = Infinity) => {
      if (number === undefined || far > nearest || number < this.lanes.dropped) return;
      found = { number, end };
      nearest = far - 1e-9; // of two at the same place, the first one
    };
    const coordinate = this.left + x / this.scale;
    const behind = this.numberAt(coordinate);
    for (const list of [lane.failed, ...Object.values(lane.ticks)]) {
      const place = lanesBelow(list, behind);
      for (const number of [list[place - 1], list[place]]) {
        if (number !== undefined) near(number, null, Math.abs(this.x(number) - x));
      }
    }
    if (found) return found;
    nearest = reach;
    for (const name of ["task", "dispatch", "wait", "queued", "timers"]) {
      const spans = lane.spans[name];
      if (!spans) continue;
      const place = lanesBelow(spans.starts, behind);
      for (const at of [place - 1, place]) {
        const start = spans.starts[at];
        if (start === undefined) continue;
        const far = Math.max(0, this.x(start) - x, x - this.x(spans.ends[at]));
        near(start, spans.ends[at] === Infinity ? null : spans.ends[at], far);
      }
      if (found && nearest <= 0) return found;
    }
    return found;
  }
}

/**
 * Where an axis has its ticks: the first, and how far from one to the next.
 * @param {number} left @param {number} right @param {number} most so many ticks at most
 */
export function axisTicks(left, right, most) {
  const wanted = (right - left) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(wanted));
  const spacing = Math.max(1, power * (/** @type {number} */ ([1, 2, 5, 10].find((one) => one * power >= wanted))));
  return { first: Math.ceil(left / spacing) * spacing, spacing };
}

/**
 * What an axis says of a time, in the unit that tells its ticks apart.
 * @param {number} nanoseconds @param {number} spacing from tick to tick
 * @param {number} parts how many places between two ticks it tells apart
 */
export function axisTime(nanoseconds, spacing, parts = 1) {
  const units = /** @type {[string, number][]} */ ([["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]]);
  const [unit, size] = units.find(([, one]) => spacing >= one) ?? units[3];
  const digits = size > 1 && spacing / size < parts ? 1 : 0;
  const whole = Math.floor((nanoseconds / size) * 10 ** digits + 1e-6); // cut, as `duration` does
  const number = (whole / 10 ** digits).toLocaleString("en-US", {
    minimumFractionDigits: digits, maximumFractionDigits: digits,
  });
  return `${number} ${unit}`;
}
