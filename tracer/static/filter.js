// What the step list says of each step, and which steps a filter lets through. A step's number
// counts from the first one that was ever seen, so it stays when the oldest steps are dropped.

import { clientName, initial } from "./fold.js";
import { count, duration, eventNames, functionName, grouped, mode, queueName, shown } from "./words.js";

/** @typedef {import("./fold.js").Step} Step */
/** @typedef {import("./fold.js").Trace} Trace */
/** @typedef {{fd: number, name: string, steps: number, last: number}} NamedDescriptor
 *   a number and what people called it: `steps` named it so, the last one is `last` */
/** @typedef {{descriptor: NamedDescriptor, closed: boolean, registration: number | null}} KnownNumber */
/** @typedef {{text: string, fd: number | null, kinds: Set<string> | null, failed: boolean,
 *   descriptor: NamedDescriptor | null, callback: number | null}} StepFilter */

/** The wording of the rows; functions, since a search makes every row.
 * @type {Readonly<Record<string, (...fields: (string | number)[]) => string>>} */
const ROW_TEXT = Object.freeze({
  unnamed: (fd) => `descriptor ${fd}`,
  forever: () => "until something is ready",
  timed: (time) => `at most ${time}`,
  poll: () => "without sleeping",
  nothing: () => "nothing is ready",
  event: (event, name) => `${event} on ${name}`,
  events: (count, names) => `${count} events: ${names}`,
  more: (count) => `${count} more`,
  dispatch: (event, name, callback) => `${event} on ${name} → ${callback}`,
  registered: (name, interest, mode) => `${name}: ${interest}, ${mode}`,
  queued: (callback, queue) => `${callback}, ${queue} queue`,
  set: (callback, time) => `${callback} in ${time}`,
  late: (callback, time) => `${callback}, ${time} late`,
  sent: (thread) => `from thread ${thread}`,
  received: () => "counter back to 0",
  resized: (count) => `at most ${count} events`,
  accepted: (name, peer) => `${name} from ${peer}`,
  read: (bytes, name) => `${bytes} from ${name}`,
  end: (name) => `end of the stream from ${name}`,
  wrote: (bytes, name) => `${bytes} to ${name}`,
  partly: (count, asked, name) => `${count} of ${asked} bytes to ${name}`,
  agree: (descriptors) => `${descriptors}, they agree`,
  unread: (name, unread) => `${name}: ${unread} unread`,
  buffers: (name, unread, unsent) => `${name}: ${unread} unread, ${unsent} unsent`,
  wouldBlock: (call, name) => `${call} on ${name}`,
  failed: (text, error) => `${text}: ${error}`,
});

/** The kinds of steps as the filter groups them. @type {Readonly<Record<string, string[]>>} */
export const STEP_GROUPS = Object.freeze({
  "registrations": [
    "PollerOpened", "Registered", "Modified", "Deleted", "PollerClosed", "ListRebuilt", "ListChecked",
  ],
  "waits": ["WaitStarted", "WaitEnded", "BatchResized"],
  "dispatches": ["DispatchStarted", "DispatchEnded", "EventDropped"],
  "tasks and timers": [
    "TaskQueued", "TaskStarted", "TaskEnded", "WakeupSent", "WakeupReceived",
    "TimerSet", "TimerFired", "TimerCanceled",
  ],
  "input and output": ["Accepted", "Read", "Wrote", "WouldBlock", "Closed", "BuffersSeen"],
});

const ROW_EVENTS = 3;
const ROW_ERROR = 96;
const SEARCHED_ERROR = 2000;
const OUTSIDE = -1; // no callback was running
const NAMELESS = -2; // one was, but no step says which
const RUN_ENDS = new Set(["DispatchStarted", "DispatchEnded", "TaskStarted", "TaskEnded"]);
const STEPS_BETWEEN_LOOKS = 32; // at the clock

/**
 * What somebody typed: "fd 7" means a descriptor's number, the rest is looked for as it is.
 * @param {string} typed
 * @returns {{text: string, fd: number | null}}
 */
export function parseTyped(typed) {
  const found = /(?:^|\s)(?:fd|descriptor)\s*[=:]?\s*(\d{1,9})(?=\s|$)/i.exec(typed);
  const text = found ? typed.replace(found[0], " ") : typed;
  return { text: text.trim().replace(/\s+/g, " ").toLowerCase(), fd: found ? Number(found[1]) : null };
}

/** Says of each step which descriptor it names, in which callback it was made, and its row. */
export class StepIndex {
  /** @param {any} words @param {Trace} trace */
  constructor(words, trace) {
    this.words = words;
    this.trace = trace;
    /** The number of `trace.steps[0]`. */
    this.dropped = 0;
    /** The number of the first step in the two lists below. */
    this.first = 0;
    /** @type {(NamedDescriptor | null)[]} */
    this.descriptors = [];
    /** The callback that was running. @type {number[]} */
    this.runs = [];
    /** @type {Map<string, NamedDescriptor>} */
    this.named = new Map();
    /** Functions that were called back. @type {Set<number>} */
    this.callbacks = new Set();
    /** @type {Map<any, string>} */
    this.functionNames = new Map();
    /** What a number meant, and from which step on. @type {Map<number, {from: number, descriptor: NamedDescriptor}[]>} */
    this.history = new Map();
    /** @type {Map<number, KnownNumber>} */
    this.known = new Map();
    /** Registrations: their descriptor's number and their own. @type {Map<number, number>} */
    this.watched = new Map();
    /** What the last wait returned, as it was called then. @type {Map<number, NamedDescriptor>} */
    this.batch = new Map();
    /** @type {{thread: string, callback: number} | null} */
    this.running = null;
    this.begin();
  }

  /** Take up what held before `trace.steps[0]`, as `initial` and `advance` of fold.js see it. */
  begin() {
    const state = initial(this.trace.base);
    this.first = this.dropped;
    this.descriptors = [];
    this.runs = [];
    for (const map of [this.history, this.known, this.watched, this.batch]) map.clear();
    this.running = null;
    this.registrations = state.next_registration;
    this.clients = state.next_client;
    for (const row of state.registrations.values()) {
      this.watched.set(row.fd, row.id);
      if (row.callback !== null) this.callbacks.add(row.callback);
    }
    for (const { fd, name, closed, registration } of state.descriptors.values()) {
      this.rename(fd, name, closed, registration);
    }
  }

  /** The number behind the last step that was taken in. */
  get end() {
    return this.first + this.runs.length;
  }

  /** The number behind the last step there is. */
  get total() {
    return this.dropped + this.trace.steps.length;
  }

  /** @param {number} number @returns {Step} */
  step(number) {
    return this.trace.steps[number - this.dropped];
  }

  /** The oldest `dropped` steps are gone. @param {number} dropped */
  drop(dropped) {
    this.dropped += dropped;
    if (this.end < this.dropped) { // some went before they were seen
      this.begin();
      return;
    }
    const gone = this.dropped - this.first;
    if (gone * 2 < this.runs.length) return; // seldom and much, so that it costs little a step
    this.descriptors.splice(0, gone);
    this.runs.splice(0, gone);
    this.first = this.dropped;
    for (const past of this.history.values()) {
      past.splice(0, past.findLastIndex((entry) => entry.from <= this.first));
    }
    for (const [key, descriptor] of this.named) {
      if (descriptor.last < this.first && this.known.get(descriptor.fd)?.descriptor !== descriptor) {
        this.named.delete(key);
      }
    }
  }

  /** Take in the next step. */
  take() {
    const number = this.end;
    const step = this.step(number);
    const { kind, fd } = step;
    if (step.callback != null) this.callbacks.add(step.callback);
    if (kind === "DispatchStarted" || kind === "TaskStarted") {
      this.running = { thread: step.thread, callback: step.callback ?? NAMELESS };
    }
    if (kind === "WaitStarted") this.running = null;
    this.runs.push(this.running && this.running.thread === step.thread ? this.running.callback : OUTSIDE);
    if (kind === "DispatchEnded" || kind === "TaskEnded") this.running = null;
    if (step.error == null || kind === "WaitEnded") this.follow(step, number);

    let descriptor = null;
    if (fd != null) {
      const now = this.known.get(fd)?.descriptor;
      const then = kind === "DispatchStarted" || kind === "EventDropped" ? this.batch.get(fd) : undefined;
      descriptor = then ?? now ?? this.find(fd, step.who ?? "");
      if (kind === "DispatchStarted") this.batch.set(fd, descriptor);
      descriptor.steps += 1;
      descriptor.last = number;
    }
    this.descriptors.push(descriptor);
  }

  /** What a step that did not fail changes in the names. @param {Step} step @param {number} number */
  follow(step, number) {
    switch (step.kind) {
      case "Modified":
        if (this.watched.has(step.fd)) return;
        // falls through: it stands for a registration that was not recorded
      case "Registered": {
        const known = this.known.get(step.fd);
        const old = this.watched.get(step.fd);
        const id = this.registrations++;
        this.watched.set(step.fd, id);
        if (!known || known.closed || (old !== undefined && known.registration === old)) {
          this.rename(step.fd, step.who, false, id, number);
        } else {
          known.registration = id;
        }
        return;
      }
      case "Deleted":
        this.watched.delete(step.fd);
        return;
      case "Accepted":
        if (step.new_fd == null) return;
        this.rename(step.new_fd, clientName(this.clients++), false, null, number);
        return;
      case "Closed": {
        const known = this.known.get(step.fd);
        if (known) known.closed = true;
        return;
      }
      case "WaitStarted":
        this.batch.clear();
        return;
      case "WaitEnded":
        this.batch.clear();
        for (const [fd] of step.events) {
          this.batch.set(fd, this.known.get(fd)?.descriptor ?? this.find(fd, ""));
        }
        return;
      case "PollerClosed":
        this.watched.clear();
        this.batch.clear();
    }
  }

  /**
   * From the step `from` on the number `fd` means something else.
   * @param {number} fd @param {string} name @param {boolean} closed
   * @param {number | null} registration @param {number} from
   */
  rename(fd, name, closed, registration, from = this.first) {
    const descriptor = this.find(fd, name);
    descriptor.last = Math.max(descriptor.last, from);
    this.known.set(fd, { descriptor, closed, registration });
    const past = this.history.get(fd);
    if (past) past.push({ from, descriptor });
    else this.history.set(fd, [{ from, descriptor }]);
  }

  /** @param {number} fd @param {string} name @returns {NamedDescriptor} */
  find(fd, name) {
    const key = `${fd} ${name}`;
    let descriptor = this.named.get(key);
    if (!descriptor) {
      const called = name ? shown(name) : ROW_TEXT.unnamed(fd);
      descriptor = { fd, name: called, steps: 0, last: -1 };
      this.named.set(key, descriptor);
    }
    return descriptor;
  }

  /** What the number `fd` meant after a step. @param {number} fd @param {number} number */
  meant(fd, number) {
    const past = this.history.get(fd) ?? [];
    let low = 0;
    let high = past.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (past[middle].from <= number) low = middle + 1;
      else high = middle;
    }
    return low ? past[low - 1].descriptor : null;
  }

  /** The descriptor that a step names. @param {number} number */
  descriptor(number) {
    return this.descriptors[number - this.first] ?? null;
  }

  /** The callback in which a step was made, its own ends included; negative: none. @param {number} number */
  run(number) {
    return this.runs[number - this.first] ?? OUTSIDE;
  }

  /** Whether a step was made by a callback, and stands under its dispatch. @param {number} number */
  inside(number) {
    return this.run(number) !== OUTSIDE && !RUN_ENDS.has(this.step(number).kind);
  }

  /** @param {number | null | undefined} id @returns {string} */
  functionName(id) {
    const told = this.functionNames.get(id);
    if (told !== undefined) return told;
    const name = functionName(this.words, this.trace, id);
    if (id == null || this.trace.functions.has(id)) this.functionNames.set(id, name);
    return name;
  }

  /** The short name of what a step did. @param {number} number @returns {string} */
  label(number) {
    const { steps } = this.words;
    const { kind } = this.step(number);
    return (Object.hasOwn(steps, kind) ? steps[kind] : steps.unknown).label;
  }

  /** What else the row of a step says; empty before it is taken in. @param {number} number @returns {string} */
  text(number) {
    if (number >= this.end) return "";
    const step = this.step(number);
    if (step.error == null) return this.plainText(step, number);
    const text = this.descriptor(number)?.name ?? this.failedText(step, number);
    const error = shown(step.error, ROW_ERROR);
    return text ? ROW_TEXT.failed(text, error) : error;
  }

  /** What failed, where that was no call on a descriptor. @param {Step} step @param {number} number */
  failedText(step, number) {
    if (step.callback != null) return this.functionName(step.callback);
    return step.kind === "TaskEnded" ? this.runName(number) : "";
  }

  /** @param {number} number */
  runName(number) {
    const run = this.run(number);
    return run === OUTSIDE ? "" : this.functionName(run === NAMELESS ? null : run);
  }

  /** @param {Step} step @param {number} number @returns {string} */
  plainText(step, number) {
    const { words } = this;
    const name = this.descriptor(number)?.name ?? "";
    const callback = () => this.functionName(step.callback);
    switch (step.kind) {
      case "PollerOpened":
        return shown(step.backend, 12);
      case "Registered":
      case "Modified": {
        const interest = words.interests[step.interest]?.[0] ?? shown(step.interest);
        return ROW_TEXT.registered(name, interest, mode(words, step)[0]);
      }
      case "Deleted":
      case "Closed":
        return name;
      case "WaitStarted":
        if (step.timeout_ns == null) return ROW_TEXT.forever();
        return step.timeout_ns > 0 ? ROW_TEXT.timed(duration(step.timeout_ns)) : ROW_TEXT.poll();
      case "WaitEnded":
        return this.eventsText(step, number);
      case "DispatchStarted":
        return ROW_TEXT.dispatch(eventNames(words, step.event), name, callback());
      case "EventDropped":
        return ROW_TEXT.event(eventNames(words, step.event), name);
      case "DispatchEnded":
      case "TaskEnded":
        return this.runName(number);
      case "TaskQueued":
        return ROW_TEXT.queued(callback(), queueName(words, step.queue));
      case "TaskStarted":
      case "TimerCanceled":
        return callback();
      case "WakeupSent":
        return ROW_TEXT.sent(shown(step.thread, 24));
      case "WakeupReceived":
        return ROW_TEXT.received();
      case "TimerSet":
        return ROW_TEXT.set(callback(), duration(step.delay_ns));
      case "TimerFired":
        return ROW_TEXT.late(callback(), duration(step.late_ns));
      case "BatchResized":
        return ROW_TEXT.resized(grouped(step.size));
      case "Accepted": {
        const client = step.new_fd == null ? null : this.meant(step.new_fd, number);
        return ROW_TEXT.accepted(client?.name ?? name, shown(step.peer));
      }
      case "Read":
        return step.count === 0
          ? ROW_TEXT.end(name)
          : ROW_TEXT.read(count(step.count, "byte"), name);
      case "Wrote":
        return step.count < step.asked
          ? ROW_TEXT.partly(grouped(step.count), grouped(step.asked), name)
          : ROW_TEXT.wrote(count(step.count, "byte"), name);
      case "WouldBlock":
        return ROW_TEXT.wouldBlock(shown(step.call), name);
      case "ListChecked":
        return ROW_TEXT.agree(count(step.count, "descriptor"));
      case "BuffersSeen":
        return step.unsent == null
          ? ROW_TEXT.unread(name, grouped(step.unread ?? 0))
          : ROW_TEXT.buffers(name, grouped(step.unread ?? 0), grouped(step.unsent));
      case "PollerClosed":
      case "ListRebuilt":
        return "";
      default:
        return shown(step.kind);
    }
  }

  /** What a wait returned. @param {Step} step @param {number} number */
  eventsText(step, number) {
    const names = step.events.slice(0, ROW_EVENTS).map((/** @type {[number, number]} */ [fd]) =>
      this.meant(fd, number)?.name ?? ROW_TEXT.unnamed(fd));
    if (!names.length) return ROW_TEXT.nothing();
    if (step.events.length === 1) {
      return ROW_TEXT.event(eventNames(this.words, step.events[0][1]), names[0]);
    }
    const rest = step.events.length - names.length;
    if (rest) names.push(ROW_TEXT.more(grouped(rest)));
    return ROW_TEXT.events(grouped(step.events.length), names.join(", "));
  }

  /** Whether a step, taken in already, is one that `filter` asks for. @param {StepFilter} filter @param {number} number */
  matches(filter, number) {
    const step = this.step(number);
    if (filter.kinds && !filter.kinds.has(step.kind)) return false;
    if (filter.failed && step.error == null) return false;
    if (filter.fd !== null && !this.names(step, filter.fd)) return false;
    if (filter.descriptor && !this.means(step, number, filter.descriptor)) return false;
    if (filter.callback !== null && step.callback !== filter.callback && this.run(number) !== filter.callback) {
      return false;
    }
    return !filter.text || this.says(step, number).includes(filter.text);
  }

  /** @param {Step} step @param {number} fd */
  names(step, fd) {
    return step.fd === fd || step.new_fd === fd
      || (step.kind === "WaitEnded" && step.events.some((/** @type {any} */ [one]) => one === fd));
  }

  /** @param {Step} step @param {number} number @param {NamedDescriptor} descriptor */
  means(step, number, descriptor) {
    if (this.descriptor(number) === descriptor) return true;
    if (step.kind !== "WaitEnded" && step.kind !== "Accepted") return false;
    return this.names(step, descriptor.fd) && this.meant(descriptor.fd, number) === descriptor;
  }

  /** All that a text is looked for in, in small letters. @param {Step} step @param {number} number */
  says(step, number) {
    let all = `${this.label(number)} ${this.text(number)}\n${step.thread}`;
    if (step.callback != null) all += `\n${this.functionName(step.callback)}`;
    if (step.function != null) all += `\n${this.functionName(step.function)}`;
    if (step.error != null) all += `\n${step.error.slice(0, SEARCHED_ERROR)}`;
    return all.toLowerCase();
  }
}

/** The rows of the list: the steps that a filter lets through, or all. */
export class StepSearch {
  /** @param {StepIndex} index @param {StepFilter | null} filter */
  constructor(index, filter) {
    this.index = index;
    this.filter = filter;
    /** Numbers of steps, in order. @type {number[]} */
    this.found = [];
    this.gone = 0; // so many at the front of `found` are dropped steps
    this.next = filter ? index.dropped : index.end;
  }

  get done() {
    return this.next >= this.index.total;
  }

  /** Go on for some `milliseconds`; return whether all steps were looked at. @param {number} milliseconds */
  work(milliseconds) {
    const { index, filter } = this;
    const until = performance.now() + milliseconds;
    const { total } = index;
    while (this.next < total) {
      const stop = Math.min(this.next + STEPS_BETWEEN_LOOKS, total);
      for (; this.next < stop; this.next++) {
        while (index.end <= this.next) index.take();
        if (filter && index.matches(filter, this.next)) this.found.push(this.next);
      }
      if (performance.now() >= until) break;
    }
    return this.done;
  }

  /** The oldest `dropped` steps are gone from the index; return how many rows that takes away. @param {number} dropped */
  drop(dropped) {
    this.next = Math.max(this.next, this.index.dropped);
    if (!this.filter) return dropped;
    const before = this.gone;
    while (this.gone < this.found.length && this.found[this.gone] < this.index.dropped) this.gone++;
    const away = this.gone - before;
    if (this.gone * 2 > this.found.length) {
      this.found.splice(0, this.gone);
      this.gone = 0;
    }
    return away;
  }

  /** How many rows there are. */
  get size() {
    return this.filter ? this.found.length - this.gone : this.index.trace.steps.length;
  }

  /** The number of the step in a row. @param {number} row */
  at(row) {
    return this.filter ? this.found[this.gone + row] : this.index.dropped + row;
  }

  /** The row of a step or, when it has none, of the last one before it; -1: there is none. @param {number} number */
  rowOf(number) {
    if (!this.filter) return Math.min(number - this.index.dropped, this.size - 1);
    let low = this.gone;
    let high = this.found.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.found[middle] <= number) low = middle + 1;
      else high = middle;
    }
    return low - 1 - this.gone;
  }

  /**
   * The row after (1) or before (-1) a step; null when there is none.
   * @param {number} number
   * @param {number} direction
   */
  beside(number, direction) {
    const row = this.rowOf(number);
    const here = row >= 0 && this.at(row) === number;
    const other = direction > 0 ? row + 1 : here ? row - 1 : row;
    return other >= 0 && other < this.size ? other : null;
  }
}
