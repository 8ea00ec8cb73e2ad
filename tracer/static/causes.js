// Why steps happened: the port of tracer/causes.py, of the reasons in tracer/replay.py, and of
// tracer/because.py, with the same texts from words.json.

import { clientName, ERR, HUP, RDHUP, READ, WRITE } from "./fold.js";
import { count, duration, eventWords, fill, functionName, grouped, sentence, shown } from "./words.js";

/** @typedef {import("./fold.js").Step} Step */
/** @typedef {import("./fold.js").Trace} Trace */
/** @typedef {import("./fold.js").LoopState} LoopState */
/** @typedef {{index: number | null, text: string, inferred: boolean}} Reason */
/** @typedef {{due_ns: number, number: number, seq: number | null, callback: number | null}} Timer */

const LONGEST_CHAIN = 24; // so many reasons are told: a task that queues itself has no end of them
const REASON_EVENTS = 3; // so many events of a batch are told one by one
const SHORT_NAME = 24; // of the sentence below the step's own, which has the names in full
const MOST_SIBLINGS = 1000; // a callback that made more calls is not looked through
const TRIMMED_AT_ONCE = 16384; // so many dropped steps are forgotten at a time

/** Of several bits of an event, the first says most. */
const TELLING = [ERR, HUP, READ, RDHUP, WRITE];

/** How the names of calls begin, and the steps they make. */
const KINDS_OF_CALLS = [["accept", "Accepted"], ["recv", "Read"], ["send", "Wrote"]];

/** The steps that a call in somebody's code made. */
const CALL_STEPS = new Set([
  "PollerOpened", "Registered", "Modified", "Deleted", "TaskQueued", "TimerSet", "TimerCanceled",
  "Accepted", "Read", "Wrote", "WouldBlock", "Closed",
]);
const TOLD_EVEN_IF_FAILED = new Set(["WaitEnded", "DispatchEnded", "TaskEnded"]);

/**
 * How many of the rising `values` are smaller than `value`.
 * @param {number[]} values @param {number} value
 */
function countBelow(values, value) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** @param {Step} step @param {string} kind */
function succeeded(step, kind) {
  return step.kind === kind && step.error == null;
}

/** Why the steps of a trace happened. Steps are named by their index in `trace.steps`. */
export class Causes {
  /** @param {any} words @param {Trace} trace */
  constructor(words, trace) {
    this.known = new KnownSteps(words, trace);
    this.chain = new ReasonChain(words, this.known);
    this.short = new ShortReason(words, this.known);
  }

  /** The index of the step `seq`; null when it is not in the trace. @param {number} seq */
  indexOf(seq) {
    return this.outside(this.known.read().find(seq));
  }

  /** The index of a step's cause; null when the trace has none. @param {number} index */
  cause(index) {
    return this.outside(this.known.read().cause(index + this.known.first));
  }

  /** The indices of the steps that name this one as their cause. @param {number} index */
  effects(index) {
    const { first } = this.known.read();
    return this.known.effects(index + first).map((effect) => effect - first);
  }

  /** The chain of causes of a step, the nearest first. @param {number} index @returns {Reason[]} */
  why(index) {
    const { first } = this.known.read();
    const own = index + first;
    /** @type {Reason[]} */
    const reasons = [];
    const told = new Set([own]);
    for (const [at, text] of this.chain.of(own)) {
      if (at !== null && told.has(at)) continue;
      const full = reasons.length === LONGEST_CHAIN;
      const shownText = full ? this.chain.texts.further : text;
      reasons.push({
        index: full ? null : this.outside(at), text: shownText,
        inferred: shownText.startsWith("Inferred"),
      });
      if (full) break;
      if (at !== null) told.add(at);
    }
    return reasons;
  }

  /**
   * One short sentence: why a step happened; empty where the step's own says it all.
   * @param {number} index
   * @returns {string}
   */
  because(index) {
    return this.short.of(index + this.known.read().first);
  }

  /**
   * The next step about a descriptor, or the one before; null at the end.
   * @param {number} fd @param {number} index @param {number} direction 1 or -1
   * @returns {number | null}
   */
  nextOf(fd, index, direction) {
    const { steps } = this.known.trace;
    for (let at = index + direction; at >= 0 && at < steps.length; at += direction) {
      const step = steps[at];
      if (step.fd === fd || step.new_fd === fd) return at;
      if (step.kind === "WaitEnded" && step.events.some((/** @type {any} */ [one]) => one === fd)) {
        return at;
      }
    }
    return null;
  }

  /** Steps came to the end of the trace, and `dropped` left its beginning. @param {number} dropped */
  grow(dropped) {
    this.known.drop(dropped);
  }

  /** @param {number | null} number */
  outside(number) {
    return number === null ? null : number - this.known.first;
  }
}

/**
 * What the steps refer to. A step has a number that stays when older ones are dropped: its place
 * since the trace began. Every list holds numbers, rising.
 */
class KnownSteps {
  /** @param {any} words @param {Trace} trace */
  constructor(words, trace) {
    this.words = words;
    this.trace = trace;
    this.base = trace.base;
    this.first = 0; // the number of the oldest step that is there
    this.length = 0; // the number of the next step that is read
    this.trimmed = 0; // the number of the first entry of the next two
    /** @type {number[]} */
    this.lastEffect = [];
    /** @type {number[]} */
    this.effectBefore = []; // of the same cause
    /** @type {number[]} */
    this.causes = []; // like them, by number
    /** @type {Record<string, number[]>} */
    this.lists = { waits: [], returned: [], queued: [], sent: [], received: [], ended: [] };
    /** @type {Record<string, any[][]>} */
    this.beside = { // when it began, tasks queued, next timer; counter; whose callback, events left
      waits: [[], [], []], sent: [[]], ended: [[], []],
    };
    /** @type {Map<number, number[]>} */
    this.registered = new Map(); // or modified; by descriptor, as the next three
    /** @type {Map<number, number[]>} */
    this.added = new Map(); // registered, not modified
    /** @type {Map<number, number[]>} */
    this.deleted = new Map();
    /** @type {Map<number, number[]>} */
    this.accepted = new Map();
    /** @type {Set<number>} */
    this.listeners = new Set();
    /** @type {Map<number, [number[], string[]]>} */
    this.named = new Map(); // since when, and what
    /** @type {Map<number, string>} */
    this.namesThen = new Map(); // of events, where the number means another by now
    /** @type {Set<number>} */
    this.marked = new Set(); // steps that found a wait, or a row, see glance
    /** @type {Map<number, number | null>} */
    this.callers = new Map(); // of calls without function or cause: what ran
    this.now = new MomentOfSteps(trace.base);
    for (const [fd, name] of this.now.names) this.named.set(fd, [[-1], [name]]);
  }

  /** Read what has come since the last time. */
  read() {
    const end = this.first + this.trace.steps.length;
    while (this.length < end) this.add(this.step(this.length));
    return this;
  }

  /** Read on; the `dropped` oldest steps have gone meanwhile. @param {number} dropped */
  drop(dropped) {
    this.first += dropped;
    if (this.length < this.first) { // nobody can know any more what those steps told
      this.length = this.first;
      this.trim();
    } else if (this.first - this.trimmed >= TRIMMED_AT_ONCE) {
      this.trim();
    }
    this.read();
  }

  trim() {
    const old = this.first - this.trimmed;
    for (const list of [this.lastEffect, this.effectBefore, this.causes]) list.splice(0, old);
    this.trimmed = this.first;
    const cut = (/** @type {number[]} */ list, /** @type {any[][]} */ ...others) => {
      const dead = countBelow(list, this.first) - 1; // the last one still tells what holds
      if (dead > 0) for (const one of [list, ...others]) one.splice(0, dead);
    };
    for (const [name, list] of Object.entries(this.lists)) cut(list, ...(this.beside[name] ?? []));
    for (const [since, names] of this.named.values()) cut(since, names);
    for (const lists of [this.registered, this.added, this.deleted, this.accepted]) {
      for (const list of lists.values()) cut(list);
    }
    for (const numbers of [this.namesThen, this.marked, this.callers]) {
      for (const number of numbers.keys()) {
        if (number >= this.first) break;
        numbers.delete(number);
      }
    }
  }

  // ---- asking ----

  /** @param {number} number @returns {Step} */
  step(number) {
    return this.trace.steps[number - this.first];
  }

  /** @param {number} seq */
  find(seq) {
    const { steps } = this.trace;
    if (!steps.length) return null;
    // Where it stands unless some seq is missing before it; then it stands further left.
    const guess = seq - steps[0].seq;
    if (steps[guess]?.seq === seq) return guess + this.first;
    let low = 0;
    let high = Math.max(0, Math.min(steps.length, guess));
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (steps[middle].seq < seq) low = middle + 1;
      else high = middle;
    }
    return low < steps.length && steps[low].seq === seq ? low + this.first : null;
  }

  /** @param {number} number */
  cause(number) {
    const cause = this.causes[number - this.trimmed];
    return cause < this.first ? null : cause;
  }

  /** @param {number} number */
  effects(number) {
    const found = [];
    let effect = this.lastEffect[number - this.trimmed];
    while (effect >= 0) {
      found.push(effect);
      effect = this.effectBefore[effect - this.trimmed];
    }
    return found.reverse();
  }

  /** The steps before of the same cause, the nearest first; none when they are too many.
   * @param {number} number */
  siblings(number) {
    const found = [];
    let sibling = this.effectBefore[number - this.trimmed];
    while (sibling >= this.first) {
      if (found.length === MOST_SIBLINGS) return [];
      found.push(sibling);
      sibling = this.effectBefore[sibling - this.trimmed];
    }
    return found;
  }

  /** The last of `list` before `number`. @param {number[] | undefined} list @param {number} number */
  before(list, number) {
    if (!list) return null;
    const place = countBelow(list, number);
    return place && list[place - 1] >= this.first ? list[place - 1] : null;
  }

  /** The first of `list` behind `number`. @param {number[]} list @param {number} number */
  after(list, number) {
    return list[countBelow(list, number + 1)] ?? null;
  }

  /** What people call `fd` after the step `number`. @param {number} fd @param {number} number */
  name(fd, number) {
    const [since, names] = this.named.get(fd) ?? [[], []];
    const place = countBelow(since, number + 1);
    return place ? names[place - 1] : "";
  }

  /** The name that an event came with: `fd` may be used again. @param {number} fd @param {number} number */
  nameThen(fd, number) {
    return this.namesThen.get(number) ?? this.name(fd, number);
  }

  /** For how many nanoseconds the wait had slept that ended there. @param {number} number */
  slept(number) {
    const place = countBelow(this.lists.waits, number);
    return place ? Math.max(0, this.step(number).t_ns - this.beside.waits[0][place - 1]) : 0;
  }

  /** How many tasks are queued when a wait begins. @param {number} wait @returns {number} */
  tasks(wait) {
    return this.beside.waits[1][countBelow(this.lists.waits, wait)];
  }

  /** The timer that the time limit of a wait comes from. @param {number} wait @returns {Timer | null} */
  limitingTimer(wait) {
    const timer = this.beside.waits[2][countBelow(this.lists.waits, wait)];
    const { t_ns, timeout_ns } = this.step(wait);
    if (!timer || timeout_ns == null) return null;
    const apart = Math.abs(timer.due_ns - t_ns - timeout_ns);
    return apart <= 1e6 + Math.floor(timeout_ns / 100) ? timer : null;
  }

  /** Whether something of this number was registered before the steps that are there.
   * @param {number} fd @param {number} number */
  registeredEarlier(fd, number) {
    return countBelow(this.registered.get(fd) ?? [], number) > 0
      || this.base.registrations.some((/** @type {any} */ row) => row.fd === fd);
  }

  /** What the step did, as `sentence` says it with the whole state. @param {number} number */
  sentence(number) {
    const step = this.step(number);
    return sentence(this.words, step, this.glance(number, step), this.trace);
  }

  /**
   * Of the state after a step what its sentence looks at.
   * @param {number} number @param {Step} step
   * @returns {LoopState}
   */
  glance(number, step) {
    const marked = this.marked.has(number);
    /** @type {any} */
    const state = {
      phase: "between", steps: 0, registrations: new Map(), descriptors: new Map(), batch: [],
      running: null, finished: null, wakeup_fd: this.base.wakeup_fd, wakeup_counter: 0,
      wait_began: null,
    };
    let fds = [step.fd, step.new_fd];
    switch (step.kind) {
      case "Registered":
      case "Modified":
      case "Closed":
        if (marked || (step.error == null && step.kind !== "Closed")) {
          state.registrations.set(step.fd, { closed: marked });
        }
        break;
      case "DispatchStarted":
      case "EventDropped":
        state.batch = [{ fd: step.fd, name: this.nameThen(step.fd, number), status: "now" }];
        break;
      case "WaitEnded":
        fds = step.events.slice(0, REASON_EVENTS).map((/** @type {any} */ [fd]) => fd);
        state.wait_began = step.t_ns - this.slept(number);
        break;
      case "DispatchEnded":
      case "TaskEnded": {
        const place = countBelow(this.lists.ended, number);
        const [finished, left] = this.beside.ended;
        state.finished = { callback: finished[place] };
        state.batch = Array(left[place]).fill({ fd: -1, status: "pending" });
        break;
      }
      case "WakeupSent":
        if (step.error != null) break;
        if (marked) state.phase = "waiting";
        state.wakeup_counter = this.beside.sent[0][countBelow(this.lists.sent, number)];
        break;
    }
    if (CALL_STEPS.has(step.kind) && step.function == null && this.callers.has(number)) {
      state.running = { thread: step.thread, callback: this.callers.get(number) };
    }
    for (const fd of fds) {
      if (fd != null) state.descriptors.set(fd, { name: this.name(fd, number) });
    }
    return state;
  }

  // ---- reading ----

  /** @param {Step} step */
  add(step) {
    const number = this.length;
    this.length += 1;
    const cause = (step.cause == null ? null : this.find(step.cause)) ?? -1;
    this.causes.push(cause);
    this.lastEffect.push(-1);
    this.effectBefore.push(cause < 0 ? -1 : this.lastEffect[cause - this.trimmed]);
    if (cause >= 0) this.lastEffect[cause - this.trimmed] = number;
    const { now } = this;
    if (step.error == null || TOLD_EVEN_IF_FAILED.has(step.kind)) {
      this.change(number, step);
    } else if ((step.kind === "Registered" || step.kind === "Modified") && now.rows.has(step.fd)) {
      this.marked.add(number);
    }
    if (!CALL_STEPS.has(step.kind)) return;
    if (now.running === null) {
      if (step.function != null) now.finished = null; // the last call is not its any more
    } else if (now.running.thread === step.thread && (step.function == null || step.cause == null)) {
      this.callers.set(number, now.running.callback);
    }
  }

  /** @param {number} number @param {Step} step */
  change(number, step) {
    const { now, lists, beside } = this;
    switch (step.kind) {
      case "WaitStarted":
        lists.waits.push(number);
        beside.waits[0].push(step.t_ns);
        beside.waits[1].push(now.queued);
        beside.waits[2].push(now.timers[0] ?? null);
        now.waiting = true;
        now.running = null;
        now.emptyBatch();
        break;
      case "WaitEnded":
        lists.returned.push(number);
        now.waitEnded(step.events);
        break;
      case "DispatchStarted":
        if (!now.batch.has(step.fd)) now.batch.set(step.fd, now.names.get(step.fd) ?? "");
        now.called(step);
        this.event(number, step);
        break;
      case "EventDropped":
        this.event(number, step);
        break;
      case "DispatchEnded":
      case "TaskEnded":
        now.returned();
        lists.ended.push(number);
        beside.ended[0].push(now.finished);
        beside.ended[1].push(now.left);
        break;
      case "TaskQueued":
        lists.queued.push(number);
        now.queue(step.seq);
        if (now.waiting) this.marked.add(number);
        break;
      case "TaskStarted":
        now.called(step);
        now.unqueue(step.cause ?? null);
        break;
      case "WakeupSent":
        now.counter += 1;
        lists.sent.push(number);
        beside.sent[0].push(now.counter);
        if (now.waiting) this.marked.add(number);
        break;
      case "WakeupReceived":
        lists.received.push(number);
        now.counter = 0;
        break;
      case "TimerSet":
        now.setTimer(step.t_ns + step.delay_ns, step.seq, step.callback ?? null);
        break;
      case "TimerCanceled":
        now.removeTimer(step.timer ?? null);
        break;
      case "TimerFired":
        now.waiting = false;
        now.removeTimer(step.cause ?? null);
        break;
      case "Registered":
      case "Modified":
        this.append(this.registered, step.fd, number);
        if (step.kind === "Registered") this.append(this.added, step.fd, number);
        if (step.kind === "Registered" || !now.rows.has(step.fd)) {
          now.register(step.fd, step.who);
          this.rename(number, step.fd);
        }
        break;
      case "Deleted":
        this.append(this.deleted, step.fd, number);
        now.delete(step.fd);
        break;
      case "Accepted":
        if (step.new_fd == null) break;
        this.listeners.add(step.fd);
        this.append(this.accepted, step.new_fd, number);
        now.accept(step.new_fd);
        this.rename(number, step.new_fd);
        break;
      case "Closed":
        if (now.close(step.fd)) this.marked.add(number);
        break;
      case "PollerClosed":
        now.closePoller();
        break;
    }
  }

  /** @param {number} number @param {Step} step */
  event(number, step) {
    const { now } = this;
    const name = now.batch.get(step.fd);
    if (name !== undefined && name !== (now.names.get(step.fd) ?? "")) {
      this.namesThen.set(number, name);
    }
    now.handled(step.fd);
  }

  /** @param {Map<number, number[]>} lists @param {number} fd @param {number} number */
  append(lists, fd, number) {
    const list = lists.get(fd);
    if (list) list.push(number);
    else lists.set(fd, [number]);
  }

  /** @param {number} number @param {number} fd */
  rename(number, fd) {
    const name = /** @type {string} */ (this.now.names.get(fd));
    const known = this.named.get(fd);
    if (!known) {
      this.named.set(fd, [[number], [name]]);
    } else if (known[1].at(-1) !== name) {
      known[0].push(number);
      known[1].push(name);
    }
  }
}

/**
 * What holds at the step that is being read: of fold.js only what sentences need. It changes in
 * place, which costs the same with one descriptor as with a thousand.
 */
class MomentOfSteps {
  /** @param {any} base */
  constructor(base) {
    this.wakeupFd = base.wakeup_fd;
    /** @type {Map<number, string>} */
    this.names = new Map();
    /** @type {Map<number, number | null>} */
    this.owners = new Map(); // the registration whose a descriptor is
    this.gone = new Set(); // descriptors that were closed
    /** @type {Map<number, number>} */
    this.rows = new Map(); // the registrations on the list
    this.dropped = new Set(); // rows whose descriptor was closed
    this.registrations = 0;
    this.clients = 0;
    this.waiting = false;
    /** @type {{callback: number | null, thread: string} | null} */
    this.running = null;
    /** @type {number | null} */
    this.finished = null;
    /** @type {Map<number, string>} */
    this.batch = new Map(); // the names that the last wait's events came with
    /** @type {Map<number, number>} */
    this.pending = new Map(); // how often each is in the batch, not yet handled
    this.left = 0; // how many that are
    this.counter = 0;
    /** @type {Map<number | null, number>} */
    this.tasks = new Map(); // by the seq of their TaskQueued
    this.queued = 0; // how many they are
    /** @type {Timer[]} */
    this.timers = []; // by their deadlines
    this.timersSet = 0;
    /** @type {Map<number, Timer>} */
    this.due = new Map();
    this.register(base.wakeup_fd, "wakeup");
    for (const row of base.registrations) {
      if (row.fd === base.wakeup_fd) continue;
      this.register(row.fd, row.who);
      if (row.closed) this.dropped.add(row.fd);
    }
    for (const task of base.tasks) this.queue(task.seq ?? null);
    const timers = [...(base.timers ?? [])].sort((a, b) => a.due_ns - b.due_ns);
    for (const timer of timers) {
      this.setTimer(timer.due_ns, timer.seq ?? null, timer.callback ?? null);
    }
  }

  /** @param {Step} step */
  called(step) {
    this.waiting = false;
    this.running = { callback: step.callback ?? null, thread: step.thread };
    this.finished = null;
  }

  returned() {
    this.waiting = false;
    if (this.running !== null) this.finished = this.running.callback;
    this.running = null;
  }

  emptyBatch() {
    this.batch = new Map();
    this.pending = new Map();
    this.left = 0;
  }

  /** @param {[number, number][]} events */
  waitEnded(events) {
    this.waiting = false;
    this.emptyBatch();
    for (const [fd] of events) {
      if (this.rows.has(fd)) this.dropped.delete(fd); // what the kernel reports, it has not dropped
      if (!this.batch.has(fd)) this.batch.set(fd, this.names.get(fd) ?? "");
      if (fd === this.wakeupFd) {
        this.counter = Math.max(this.counter, 1);
      } else {
        this.pending.set(fd, (this.pending.get(fd) ?? 0) + 1);
        this.left += 1;
      }
    }
  }

  /** @param {number} fd */
  handled(fd) {
    const pending = this.pending.get(fd) ?? 0;
    if (pending === 0) return;
    this.pending.set(fd, pending - 1);
    this.left -= 1;
  }

  /** @param {number} fd @param {string} who */
  register(fd, who) {
    const old = this.rows.get(fd);
    const same = old !== undefined && this.owners.get(fd) === old;
    if (!this.names.has(fd) || this.gone.has(fd) || same) {
      this.names.set(fd, who);
      this.gone.delete(fd);
    }
    this.owners.set(fd, this.registrations);
    this.rows.set(fd, this.registrations);
    this.registrations += 1;
    this.dropped.delete(fd);
  }

  /** @param {number} fd */
  delete(fd) {
    const row = this.rows.get(fd);
    this.rows.delete(fd);
    this.dropped.delete(fd);
    if (row !== undefined && this.owners.get(fd) === row) this.owners.set(fd, null);
  }

  /** @param {number} fd */
  accept(fd) {
    if (this.rows.has(fd)) this.dropped.add(fd);
    this.names.set(fd, clientName(this.clients));
    this.owners.set(fd, null);
    this.gone.delete(fd);
    this.clients += 1;
  }

  /** Whether the kernel thereby dropped a row, or had dropped one of the number. @param {number} fd */
  close(fd) {
    const row = this.rows.get(fd);
    if (row !== undefined && (!this.names.has(fd) || this.owners.get(fd) === row)) {
      this.dropped.add(fd);
    }
    if (this.names.has(fd)) this.gone.add(fd);
    return this.dropped.has(fd);
  }

  closePoller() {
    this.rows.clear();
    this.dropped.clear();
    for (const fd of this.owners.keys()) this.owners.set(fd, null);
    this.waiting = false;
    this.emptyBatch();
    this.tasks = new Map();
    this.queued = 0;
    this.timers = [];
    this.due = new Map();
    this.counter = 0;
  }

  /** @param {number | null} seq */
  queue(seq) {
    this.tasks.set(seq, (this.tasks.get(seq) ?? 0) + 1);
    this.queued += 1;
  }

  /** @param {number | null} seq */
  unqueue(seq) {
    const same = this.tasks.get(seq) ?? 0;
    if (same === 0) return;
    if (same === 1) this.tasks.delete(seq);
    else this.tasks.set(seq, same - 1);
    this.queued -= 1;
  }

  /** The place of a timer, or where one comes that is due then. @param {number} due @param {number} number */
  timerPlace(due, number) {
    let low = 0;
    let high = this.timers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const timer = this.timers[middle];
      if (timer.due_ns < due || (timer.due_ns === due && timer.number < number)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** @param {number} due @param {number | null} seq @param {number | null} callback */
  setTimer(due, seq, callback) {
    const timer = { due_ns: due, number: this.timersSet, seq, callback };
    this.timersSet += 1;
    this.timers.splice(this.timerPlace(due, timer.number), 0, timer);
    if (seq !== null) this.due.set(seq, timer);
  }

  /** @param {number | null} seq */
  removeTimer(seq) {
    const timer = seq === null // the first one of the base state
      ? this.timers.find((one) => one.seq === null)
      : this.due.get(seq);
    if (!timer) return;
    if (seq !== null) this.due.delete(seq);
    this.timers.splice(this.timerPlace(timer.due_ns, timer.number), 1);
  }
}

/** @param {any} words @param {number} fd @param {string} name */
function describe(words, fd, name) {
  return fill(name ? words.descriptor : words.descriptor_only, { name: shown(name), fd });
}

/** Goes from a step back to its causes. A link is the number of a step, or null, and a text. */
class ReasonChain {
  /** @param {any} words @param {KnownSteps} known */
  constructor(words, known) {
    this.words = words;
    this.texts = words.why;
    this.known = known;
  }

  /** @param {number} number @returns {Generator<[number | null, string]>} */
  *of(number) {
    const step = this.known.step(number);
    const cause = this.known.cause(number);
    switch (step.kind) {
      case "DispatchStarted":
      case "EventDropped":
        yield* this.event(number, step, cause);
        break;
      case "TaskStarted":
        yield* this.task(number, cause);
        break;
      case "TimerFired":
        yield* this.timer(number, cause);
        break;
      case "WaitStarted":
        yield* this.wait(number, step);
        break;
      case "WaitEnded":
        yield* this.answer(number, step, cause);
        break;
      case "WakeupSent":
        yield* this.wakeup(number, cause);
        break;
      case "WakeupReceived":
        if (cause === null) {
          yield this.inferred("earlier");
        } else {
          yield this.told(cause);
          yield* this.wakeup(cause, this.known.cause(cause));
        }
        break;
      default:
        if (cause !== null) {
          yield* this.inside(cause);
        } else if (CALL_STEPS.has(step.kind) && step.cause == null) {
          const place = this.place(step)
            || fill(this.texts.thread, { thread: shown(step.thread) });
          yield this.inferred("outside", { place });
        } else {
          yield this.inferred("earlier");
        }
    }
  }

  /** @param {number} number @param {Step} step @param {number | null} wait
   * @returns {Generator<[number | null, string]>} */
  *event(number, step, wait) {
    const { fd } = step;
    const name = describe(this.words, fd, this.known.nameThen(fd, number));
    if (step.kind === "EventDropped") {
      const deleted = this.known.before(this.known.deleted.get(fd), number);
      const registered = this.known.before(this.known.registered.get(fd), number);
      // By another thread it may have been deleted during the wait, before its end.
      if (deleted !== null && deleted > Math.min(wait ?? -1, registered ?? -1)) {
        yield this.call(deleted);
      }
    }
    if (wait === null) {
      yield this.inferred("earlier wait", { descriptor: name });
    } else {
      const slept = this.known.slept(wait);
      yield [wait, fill(this.texts[slept > 0 ? "returned" : "returned at once"], {
        duration: duration(slept), descriptor: name, event: eventWords(this.words, step.event),
      })];
    }
    yield* this.readiness(number, step.event, fd, name);
    yield* this.registration(wait ?? number, fd, name);
  }

  /** What the kernel must have seen, and what the callback then found, which proves more.
   * @param {number} number @param {number} event @param {number} fd @param {string} name
   * @returns {Generator<[number | null, string]>} */
  *readiness(number, event, fd, name) {
    const read = this.known.effects(number).find((effect) => {
      const step = this.known.step(effect);
      return succeeded(step, "Read") && step.fd === fd;
    });
    const telling = event & (HUP | ERR) ? "hung up"
      : event & RDHUP ? "half closed"
      : event & READ ? (this.known.listeners.has(fd) ? "connection" : "arrived")
      : event & WRITE ? "room" : "";
    if (telling) yield this.inferred(telling, { descriptor: name });
    if (read !== undefined) {
      yield [read, fill(this.texts.found, { sentence: this.known.sentence(read) })];
    }
  }

  /** The registration that held, and where its descriptor came from.
   * @param {number} number @param {number} fd @param {string} name
   * @returns {Generator<[number | null, string]>} */
  *registration(number, fd, name) {
    const { known } = this;
    const modified = known.before(known.registered.get(fd), number);
    if (modified === null) {
      if (known.registeredEarlier(fd, number)) {
        yield this.inferred("earlier registration", { descriptor: name });
      }
      return;
    }
    const registered = known.before(known.added.get(fd), modified + 1);
    yield this.call(modified);
    if (registered === null) {
      yield this.inferred("earlier registration", { descriptor: name });
      return;
    }
    if (registered !== modified) yield this.call(registered);
    const accepted = known.before(known.accepted.get(fd), registered);
    if (accepted !== null && known.name(fd, accepted) === known.name(fd, registered)) {
      yield this.call(accepted); // else it accepted another one of this number
    }
  }

  /** @param {number} number @param {number | null} cause
   * @returns {Generator<[number | null, string]>} */
  *task(number, cause) {
    if (cause === null) {
      yield this.inferred("earlier task");
    } else if (this.known.step(cause).kind === "TimerFired") {
      yield this.told(cause);
      yield* this.timer(cause, this.known.cause(cause));
    } else {
      yield this.call(cause);
      yield* this.carried(cause, number);
      yield* this.inside(this.known.cause(cause));
    }
  }

  /** The wakeup that carried a task, and the wait it ended.
   * @param {number} queued @param {number} started
   * @returns {Generator<[number | null, string]>} */
  *carried(queued, started) {
    const { lists } = this.known;
    const [sent, own] = this.carrier(queued, started);
    if (sent === null) {
      yield this.inferred("no wakeup");
      return;
    }
    if (own) yield this.told(sent);
    else yield [sent, fill(this.texts.shared, { count: count(this.under(sent), "task") })];
    const received = this.known.after(lists.received, sent);
    if (received === null || received > started) {
      yield this.inferred("before its wakeup");
      return;
    }
    const ended = this.known.before(lists.returned, received);
    if (ended !== null && ended > sent && this.returnedWakeup(ended)) {
      yield [ended, this.texts.woken];
    } else {
      yield [received, this.texts["no wait"]];
    }
  }

  /** The WakeupSent that carried a task, and whether it was written for this one.
   * @param {number} queued @param {number} started @returns {[number | null, boolean]} */
  carrier(queued, started) {
    const { lists } = this.known;
    const following = this.known.after(lists.sent, queued);
    if (following !== null && this.known.cause(following) === queued) return [following, true];
    const earlier = this.known.before(lists.sent, queued);
    if (earlier !== null) {
      const received = this.known.after(lists.received, earlier);
      if (received === null || received > queued) return [earlier, false]; // still on its way
    }
    // Another thread was about to write: its step comes a moment later.
    return following !== null && following < started ? [following, false] : [null, false];
  }

  /** How many tasks one wakeup carried: those queued until it was read. @param {number} sent */
  under(sent) {
    const { lists } = this.known;
    let first = this.known.cause(sent);
    if (first === null || this.known.step(first).kind !== "TaskQueued") first = sent;
    const last = this.known.after(lists.received, sent) ?? this.known.length;
    return countBelow(lists.queued, last) - countBelow(lists.queued, first);
  }

  /** @param {number} number @param {number | null} cause
   * @returns {Generator<[number | null, string]>} */
  *wakeup(number, cause) {
    if (cause === null) {
      yield this.inferred("no task");
      return;
    }
    yield this.call(cause);
    const others = this.under(number) - Number(this.known.step(cause).kind === "TaskQueued");
    if (others > 0) yield this.inferred("coalesced", { count: count(others, "more task") });
    yield* this.inside(this.known.cause(cause));
  }

  /** @param {number} number @param {number | null} cause
   * @returns {Generator<[number | null, string]>} */
  *timer(number, cause) {
    const ended = this.known.before(this.known.lists.returned, number);
    if (ended !== null) yield this.told(ended);
    if (cause === null) {
      yield this.inferred("earlier timer");
      return;
    }
    yield this.call(cause);
    yield* this.inside(this.known.cause(cause));
  }

  /** @param {number} number @param {Step} step @returns {Generator<[number | null, string]>} */
  *wait(number, step) {
    const { known } = this;
    const queued = known.tasks(number);
    const timer = known.limitingTimer(number);
    if (step.timeout_ns === 0 && queued) {
      yield this.inferred("no sleep", { tasks: count(queued, "task") });
    } else if (timer) {
      const callback = functionName(this.words, known.trace, timer.callback);
      yield this.inferred("until timer", { callback });
      const at = timer.seq === null ? null : known.find(timer.seq);
      if (at !== null) yield this.call(at);
    }
    yield this.inferred(known.before(known.lists.returned, number) === null ? "first" : "again");
  }

  /** @param {number} number @param {Step} step @param {number | null} began
   * @returns {Generator<[number | null, string]>} */
  *answer(number, step, began) {
    const { known } = this;
    if (began !== null) yield this.told(began);
    if (step.error == null && !step.events.length) yield this.inferred("nothing");
    const wakeup = known.base.wakeup_fd;
    /** @type {[number, number][]} */
    const others = step.events.filter((/** @type {any} */ [fd]) => fd !== wakeup);
    if (others.length < step.events.length) {
      const sent = known.before(known.lists.sent, number);
      if (sent === null) {
        yield this.inferred("earlier wakeup");
      } else {
        yield this.told(sent);
        yield* this.wakeup(sent, known.cause(sent));
      }
    }
    for (const [fd] of others.slice(0, REASON_EVENTS)) {
      yield* this.registration(number, fd, describe(this.words, fd, known.name(fd, number)));
    }
  }

  /** The step that `cause` is, and its own reasons.
   * @param {number | null} cause @returns {Generator<[number | null, string]>} */
  *inside(cause) {
    if (cause === null) return;
    yield this.told(cause);
    yield* this.of(cause);
  }

  /** @param {number} number @returns {[number, string]} */
  told(number) {
    return [number, this.known.sentence(number)];
  }

  /** A step, with the place in the source where the call stands.
   * @param {number} number @returns {[number, string]} */
  call(number) {
    const place = this.place(this.known.step(number));
    const text = this.known.sentence(number);
    return [number, place ? `${text} (${place})` : text];
  }

  /** @param {string} name @param {Record<string, string>} [fields] @returns {[null, string]} */
  inferred(name, fields = {}) {
    return [null, fill(this.texts[name], fields)];
  }

  /** @param {Step} step */
  place(step) {
    if (!CALL_STEPS.has(step.kind)) return "";
    const known = step.function == null ? null : this.known.trace.functions.get(step.function);
    if (!known?.file || step.line == null) return "";
    const parts = known.file.split("/").filter((/** @type {string} */ part) => part && part !== ".");
    const cell = /^ipykernel_\d+$/.test(parts.at(-2) ?? ""); // a notebook's cell has no name
    return fill(this.texts.place, {
      file: cell ? "a cell," : shown(parts.at(-1) ?? ""), line: step.line, thread: shown(step.thread),
    });
  }

  /** @param {number} number */
  returnedWakeup(number) {
    const wakeup = this.known.base.wakeup_fd;
    return this.known.step(number).events.some((/** @type {any} */ [fd]) => fd === wakeup);
  }
}

/** Finds and fills in the short sentence of a step, kind by kind. */
class ShortReason {
  /** @param {any} words @param {KnownSteps} known */
  constructor(words, known) {
    this.words = words;
    this.whole = words.why;
    this.texts = words.why.because;
    this.known = known;
  }

  /** @param {number} number @returns {string} */
  of(number) {
    const step = this.known.step(number);
    const cause = this.known.cause(number);
    if (CALL_STEPS.has(step.kind)) return this.call(number, step, cause);
    switch (step.kind) {
      case "WaitStarted": return this.wait(number, step);
      case "WaitEnded": return this.answer(number, step, cause);
      case "DispatchStarted": return this.dispatch(number, step, cause);
      case "EventDropped": return this.dropped(number, step, cause);
      case "WakeupSent": return step.error != null ? "" : this.wakeupSent(number, cause);
      case "WakeupReceived":
        if (cause === null) return this.given("earlier wakeup");
        return this.say("read back", { duration: this.between(cause, number) });
      case "TimerFired": return this.timer("fired", cause, number);
      case "TaskStarted": return this.task(number, cause);
      case "BatchResized": return this.resized(cause);
      default: return "";
    }
  }

  // ---- the loop ----

  /** @param {number} number @param {Step} step */
  wait(number, step) {
    const queued = this.known.tasks(number);
    const timer = this.known.limitingTimer(number);
    if (step.timeout_ns === 0 && queued) return this.given("no sleep", { tasks: count(queued, "task") });
    if (timer) return this.given("until timer", { callback: this.function(timer.callback) });
    const ended = this.known.before(this.known.lists.returned, number);
    if (ended === null) return this.given("first");
    const last = this.known.step(ended);
    return last.events.length || last.error != null ? this.given("again") : this.say("nothing came");
  }

  /** @param {number} number @param {Step} step @param {number | null} began */
  answer(number, step, began) {
    const { known } = this;
    if (step.error != null) return "";
    const { events } = step;
    const cause = began === null ? null : known.step(began);
    const started = cause?.kind === "WaitStarted" ? cause : null;
    if (!events.length) return this.empty(step, started);
    if (events.length > 1) {
      const full = started !== null && events.length >= started.size;
      return this.say(full ? "full" : "all", { count: grouped(events.length) });
    }
    const [[fd, event]] = events;
    if (fd === known.base.wakeup_fd) return this.woken(number);
    const dispatch = known.effects(number)
      .find((effect) => known.step(effect).kind === "DispatchStarted");
    const [ready, found] = this.readiness(fd, event, known.name(fd, number), dispatch);
    return `${ready}${found}.`;
  }

  /** @param {Step} step @param {Step | null} started */
  empty(step, started) {
    if (!started) return "";
    const limit = started.timeout_ns ?? null;
    if (limit === 0) return this.say("not to sleep");
    if (limit !== null && step.t_ns - started.t_ns >= limit) {
      return this.say("time over", { limit: duration(limit) });
    }
    return this.say("interrupted");
  }

  /** @param {number} number */
  woken(number) {
    const { known } = this;
    const sent = known.before(known.lists.sent, number);
    if (sent === null) return this.given("earlier wakeup");
    const received = known.after(known.lists.received, sent);
    if (received !== null && received < number) return "";
    const cause = known.cause(sent);
    const queued = cause === null ? null : known.step(cause);
    if (queued?.kind !== "TaskQueued") {
      return this.say("woken otherwise", { duration: this.between(sent, number) });
    }
    return this.say("woken", {
      duration: this.between(sent, number),
      callback: this.function(queued.callback),
      thread: shown(queued.thread, SHORT_NAME),
    });
  }

  /** @param {number} number @param {Step} step @param {number | null} wait */
  dispatch(number, step, wait) {
    const name = this.known.nameThen(step.fd, number);
    const [ready, found] = this.readiness(step.fd, step.event, name, number);
    let returned = this.texts["returned earlier"];
    if (wait !== null) {
      const slept = this.known.slept(wait);
      returned = this.say(slept ? "returned" : "returned at once", { duration: duration(slept) });
    }
    return `${ready}${returned}${found}.`;
  }

  /** What made `fd` ready, and what the callback found, in two parts of a sentence.
   * @param {number} fd @param {number} event @param {string} name
   * @param {number | undefined} dispatch @returns {[string, string]} */
  readiness(fd, event, name, dispatch) {
    const { known } = this;
    /** @type {Record<string, number>} */
    const totals = { Read: 0, Wrote: 0, Accepted: 0 };
    let ended = false;
    for (const effect of dispatch === undefined ? [] : known.effects(dispatch)) {
      const step = known.step(effect);
      if (!(step.kind in totals) || step.fd !== fd || step.error != null) continue;
      totals[step.kind] += step.kind === "Accepted" ? 1 : step.count;
      ended ||= step.kind === "Read" && step.count === 0;
    }
    let ready = "ready";
    let found = "";
    if (event & READ && totals.Read) [ready, found] = ["arrived", "Read"];
    else if (event & READ && totals.Accepted) [ready, found] = ["connected", "Accepted"];
    else if (event & (HUP | ERR)) ready = "hung up";
    else if (event & RDHUP || (event & READ && ended)) ready = "ended";
    else if (event & READ) ready = known.listeners.has(fd) ? "connected?" : "arrived?";
    else if (event & WRITE) [ready, found] = ["room", totals.Wrote ? "Wrote" : ""];
    const text = this.say(ready, { who: this.who(fd, name) });
    if (!found || dispatch === undefined) return [text, ""];
    const callback = this.function(known.step(dispatch).callback);
    const then = { Read: "then read", Accepted: "then accepted", Wrote: "then wrote" }[found] ?? "";
    return [text, this.say(then, { callback, count: this.amount(found, totals[found]) })];
  }

  /** @param {number} number @param {Step} step @param {number | null} wait */
  dropped(number, step, wait) {
    const deleted = this.known.before(this.known.deleted.get(step.fd), number);
    const registered = this.known.before(this.known.registered.get(step.fd), number);
    if (deleted === null || deleted <= Math.min(wait ?? -1, registered ?? -1)) return "";
    return this.since("deleted", deleted, number);
  }

  /** @param {number | null} ended */
  resized(ended) {
    const step = ended === null ? null : this.known.step(ended);
    const began = ended === null ? null : this.known.before(this.known.lists.waits, ended);
    if (step?.kind !== "WaitEnded" || began === null) return "";
    const { size } = this.known.step(began);
    return this.say("resized", { count: grouped(step.events.length), size: grouped(size) });
  }

  // ---- tasks ----

  /** @param {number} number @param {number | null} cause */
  wakeupSent(number, cause) {
    const queued = cause === null ? null : this.known.step(cause);
    if (queued?.kind !== "TaskQueued") return this.say("no task");
    const asleep = this.known.marked.has(number);
    return this.say(asleep ? "wake the sleeper" : "wake the next",
      { callback: this.function(queued.callback) });
  }

  /** @param {number} number @param {number | null} cause */
  task(number, cause) {
    if (cause === null) return this.given("earlier task");
    const queued = this.known.step(cause);
    if (queued.kind === "TimerFired") return this.timer("timed", this.known.cause(cause), number);
    const outside = queued.thread !== this.known.step(number).thread;
    return this.since(outside ? "queued outside" : "queued", cause, number);
  }

  /** @param {string} name @param {number | null} cause @param {number} number */
  timer(name, cause, number) {
    const timer = cause === null ? null : this.known.step(cause);
    if (cause === null || timer?.kind !== "TimerSet") return this.given("earlier timer");
    return this.since(name, cause, number, { delay: duration(timer.delay_ns) });
  }

  // ---- calls ----

  /** @param {number} number @param {Step} step @param {number | null} cause */
  call(number, step, cause) {
    if (step.error != null) return this.failed(number, step);
    const own = this.special(number, step);
    if (own) return own;
    if (cause === null) return this.outside(number, step);
    const started = this.known.step(cause);
    const callback = this.function(started.callback);
    if (started.kind === "DispatchStarted") {
      const { fd, event } = started;
      const telling = TELLING.find((bit) => event & bit) ?? 0;
      const who = this.who(fd, this.known.nameThen(fd, cause));
      return this.say("in callback", { callback, who, event: eventWords(this.words, telling) });
    }
    return started.kind === "TaskStarted" ? this.say("in task", { callback }) : "";
  }

  /** Why it was refused: what had been registered or deleted before.
   * @param {number} number @param {Step} step */
  failed(number, step) {
    if (step.fd == null) return "";
    const registered = this.known.before(this.known.registered.get(step.fd), number);
    const deleted = this.known.before(this.known.deleted.get(step.fd), number);
    if (step.error.startsWith("AlreadyRegistered") && registered !== null
      && registered > (deleted ?? -1)) {
      return this.since("on the list", registered, number);
    }
    if (step.error.startsWith("NotRegistered") && deleted !== null && deleted > (registered ?? -1)) {
      return this.since("off the list", deleted, number);
    }
    return "";
  }

  /** What the callback did before, in the same call, where that tells more than the call.
   * @param {number} number @param {Step} step */
  special(number, step) {
    switch (step.kind) {
      case "Registered": return this.registered(number, step);
      case "Wrote": return this.relayed(number);
      case "WouldBlock": return this.exhausted(number, step);
      case "Closed":
      case "Deleted": return this.ended(number, step);
      default: return "";
    }
  }

  /** @param {number} number @param {Step} step */
  registered(number, step) {
    const { known } = this;
    const accepted = known.before(known.accepted.get(step.fd), number);
    const earlier = known.before(known.registered.get(step.fd), number);
    if (accepted === null || (earlier !== null && earlier > accepted)) return "";
    const same = known.name(step.fd, accepted) === known.name(step.fd, number);
    return same ? this.since("accepted", accepted, number) : "";
  }

  /** @param {number} number */
  relayed(number) {
    for (const sibling of this.known.siblings(number)) {
      const other = this.known.step(sibling);
      if (succeeded(other, "Read") && other.count) {
        const who = this.who(other.fd, this.known.name(other.fd, sibling));
        return this.say("had read", { count: count(other.count, "byte"), who });
      }
    }
    return "";
  }

  /** Why a call would block: what the same calls before it had used up.
   * @param {number} number @param {Step} step */
  exhausted(number, step) {
    const kind = KINDS_OF_CALLS.find(([start]) => step.call.startsWith(start))?.[1] ?? "";
    let total = 0;
    for (const sibling of this.known.siblings(number)) {
      const other = this.known.step(sibling);
      if (!succeeded(other, kind) || other.fd !== step.fd) continue;
      total += kind === "Accepted" ? 1 : other.count;
    }
    return total ? this.say(`no more ${kind}`, { count: this.amount(kind, total) }) : "";
  }

  /** @param {number} number @param {Step} step */
  ended(number, step) {
    for (const sibling of this.known.siblings(number)) {
      const other = this.known.step(sibling);
      const read = other.kind === "Read";
      if ((!read && other.kind !== "Wrote") || other.fd !== step.fd) continue;
      if (other.error != null) {
        return this.say(read ? "reading failed" : "writing failed",
          { error: shown(other.error, 2 * SHORT_NAME) });
      }
      return read && !other.count ? this.say("had ended") : "";
    }
    return "";
  }

  /** @param {number} number @param {Step} step */
  outside(number, step) {
    const { known } = this;
    if (step.cause != null) return this.given("earlier");
    if (known.callers.has(number)) return "";
    const began = known.before(known.lists.waits, number);
    if (began === null && !known.base.running) return this.say("not running");
    if (step.kind !== "TaskQueued") {
      return this.say("outside", { thread: shown(step.thread, SHORT_NAME) });
    }
    if (began === null || !known.marked.has(number)) return "";
    if (known.step(began).thread === step.thread) return ""; // a signal handler, say
    return this.say("queued asleep", { duration: this.between(began, number) });
  }

  // ---- words ----

  /** Who made an earlier call, on which thread, and how long before.
   * @param {string} name @param {number} call @param {number} number
   * @param {Record<string, string>} [fields] */
  since(name, call, number, fields = {}) {
    const step = this.known.step(call);
    const known = this.known.trace.functions.has(step.function);
    return this.say(name, {
      actor: known ? this.function(step.function) : this.words.nobody,
      duration: this.between(call, number),
      thread: shown(step.thread, SHORT_NAME),
      ...fields,
    });
  }

  /** @param {string} kind @param {number} total */
  amount(kind, total) {
    return count(total, kind === "Accepted" ? "connection" : "byte");
  }

  /** @param {number} earlier @param {number} later */
  between(earlier, later) {
    return duration(Math.max(0, this.known.step(later).t_ns - this.known.step(earlier).t_ns));
  }

  /** @param {number | null | undefined} id */
  function(id) {
    return shown(functionName(this.words, this.known.trace, id), SHORT_NAME);
  }

  /** @param {number} fd @param {string} name */
  who(fd, name) {
    return name ? shown(name, SHORT_NAME) : describe(this.words, fd, "");
  }

  /** @param {string} text @param {Record<string, string>} fields */
  say(text, fields = {}) {
    return fill(this.texts[text], fields);
  }

  /** The same words as in a chain of reasons. @param {string} text @param {Record<string, string>} [fields] */
  given(text, fields = {}) {
    return fill(this.whole[text], fields);
  }
}
