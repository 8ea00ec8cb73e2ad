// Steps in plain words, as tracer/words.py makes them from the same words.json.

import { nameOf } from "./fold.js";

/** @typedef {import("./fold.js").Step} Step */
/** @typedef {import("./fold.js").Trace} Trace */
/** @typedef {import("./fold.js").LoopState} LoopState */

const LONGEST_NAME = 48;
const LISTED_EVENTS = 3;
const PLAIN = /^[\x20-\x7e]*$/;
const UNSAFE = /[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]|\p{Surrogate}/u;

/**
 * `text` on one line, without control or direction marks, cut to `longest` characters.
 * @param {string} text
 * @param {number} longest
 */
export function shown(text, longest = LONGEST_NAME) {
  if (text.length <= longest && PLAIN.test(text)) return text;
  const letters = Array.from(text, (c) => (c < " " ? " " : UNSAFE.test(c) ? "\ufffd" : c));
  return letters.length <= longest
    ? letters.join("")
    : letters.slice(0, longest - 1).join("") + "…";
}

/**
 * Put `fields` into the braces of a template.
 * @param {string} template
 * @param {Record<string, string | number>} fields
 */
export function fill(template, fields) {
  return template.replace(/\{(\w+)\}/g, (_, name) => String(fields[name]));
}

const GROUPED = new Intl.NumberFormat("en-US");

/** @param {number} number */
export function grouped(number) {
  return number > -1000 && number < 1000 ? String(number) : GROUPED.format(number);
}

/** @param {number} number @param {string} thing */
export function count(number, thing) {
  return `${grouped(number)} ${thing}${number === 1 ? "" : "s"}`;
}

/** A time span with its unit. @param {number} nanoseconds */
export function duration(nanoseconds) {
  /** @type {[string, number][]} */
  const units = [["s", 1e9], ["ms", 1e6], ["µs", 1e3]];
  for (const [unit, size] of units) {
    if (nanoseconds >= size) {
      const tenths = Math.floor((nanoseconds * 10) / size);
      const whole = Math.floor(tenths / 10);
      return whole >= 100 ? `${grouped(whole)} ${unit}` : `${whole}.${tenths % 10} ${unit}`;
    }
  }
  return `${nanoseconds} ns`;
}

/** The names of the bits of an event. @param {any} words @param {number} event */
export function eventNames(words, event) {
  const bits = Object.entries(words.events).filter(([bit]) => event & Number(bit));
  return bits.map(([, [name]]) => name).join("|") || "0";
}

/** What an event says of its descriptor. @param {any} words @param {number} event */
export function eventWords(words, event) {
  const bits = Object.entries(words.events).filter(([bit]) => event & Number(bit));
  return bits.map(([, [, text]]) => text).join(words.and) || words.no_event;
}

/** A trigger mode: its short name and what it means. @param {any} words @param {any} row */
export function mode(words, row) {
  return words.modes[row.oneshot ? "once" : row.edge_triggered ? "edge" : "level"];
}

/** @param {any} words @param {string} queue @returns {string} */
export function queueName(words, queue) {
  return Object.hasOwn(words.queues, queue) ? words.queues[queue] : shown(queue);
}

/** @param {any} words @param {Trace} trace @param {number | null | undefined} id */
export function functionName(words, trace, id) {
  const known = id == null ? undefined : trace.functions.get(id);
  return known?.name ? shown(known.name.split("<locals>.").at(-1)) : words.no_function;
}

/**
 * What `step` did; `state` is the state after it. Without a step: how it begins.
 * @param {any} words
 * @param {Step | null} step
 * @param {LoopState} state
 * @param {Trace} trace
 * @returns {string}
 */
export function sentence(words, step, state, trace) {
  if (step === null) return beginning(words, state);
  if (!Object.hasOwn(words.steps, step.kind)) return fill(words.steps.unknown.text, { kind: shown(step.kind) }); // of a newer tracer
  const texts = words.steps[step.kind];
  return fill(texts[variant(step, state)], sentenceFields(words, step, state, trace));
}

/** @param {any} words @param {LoopState} state */
function beginning(words, state) {
  const watched = state.registrations.size - Number(state.registrations.has(state.wakeup_fd));
  const many = fill(words.watched[Math.min(watched, 2)], { count: grouped(watched) });
  return fill(words.beginning, { watched: many, phase: words.phases[state.phase] });
}

/** @param {Step} step @param {LoopState} state */
function variant(step, state) {
  if (step.error != null) return "error";
  switch (step.kind) {
    case "WaitStarted":
      return step.timeout_ns == null ? "text" : step.timeout_ns > 0 ? "timed" : "poll";
    case "WaitEnded":
      return step.events.length === 1 ? "text" : step.events.length ? "many" : "empty";
    case "DispatchEnded": return left(state) ? "more" : "text";
    case "TaskQueued": return step.queue !== step.priority ? "moved" : "text";
    case "Read": return step.count === 0 ? "end" : "text";
    case "Wrote": return step.count < step.asked ? "partly" : "text";
    case "WakeupSent": return state.phase === "waiting" ? "waiting" : "text";
    case "BuffersSeen": return step.unsent == null ? "unread" : step.unread == null ? "unsent" : "text";
    case "Closed": return state.registrations.get(step.fd)?.closed ? "registered" : "text";
    default: return "text";
  }
}

/** @param {LoopState} state */
function left(state) {
  return state.batch.filter((/** @type {any} */ entry) =>
    entry.status === "pending" && entry.fd !== state.wakeup_fd).length;
}

/** @param {any} words @param {number} fd @param {string} name */
function descriptor(words, fd, name) {
  return fill(name ? words.descriptor : words.descriptor_only, { name: shown(name), fd });
}

/** @param {any} words @param {Step} step @param {LoopState} state */
function eventList(words, step, state) {
  const told = step.events.slice(0, LISTED_EVENTS).map((/** @type {any} */ [fd, event]) =>
    `${descriptor(words, fd, nameOf(state, fd))} ${eventWords(words, event)}`);
  const rest = step.events.length - LISTED_EVENTS;
  if (rest > 0) told.push(fill(words.more, { count: grouped(rest) }));
  return told.join("; ");
}

/** @param {any} words @param {Step} step @param {LoopState} state @param {Trace} trace */
function sentenceFields(words, step, state, trace) {
  /** @type {Record<string, string>} */
  const fields = { thread: shown(step.thread), counter: grouped(state.wakeup_counter) };
  if (step.error != null) fields.error = shown(step.error, 2 * LONGEST_NAME);
  if (step.fd != null) fields.descriptor = descriptor(words, step.fd, nameOf(state, step.fd));
  const own = state.running?.thread === step.thread;
  const actor = step.function ?? (own ? state.running.callback : null);
  fields.actor = trace.functions.has(actor) ? functionName(words, trace, actor) : words.nobody;
  fields.callback = functionName(words, trace, step.callback);
  switch (step.kind) {
    case "Registered":
    case "Modified":
      if (!state.registrations.has(step.fd)) { // it failed, or names a number not known yet
        fields.descriptor = descriptor(words, step.fd, nameOf(state, step.fd) || step.who);
      }
      fields.interest = words.interests[step.interest]?.[1] ?? words.no_event;
      fields.mode = mode(words, step)[1];
      break;
    case "WaitStarted":
      fields.timeout = duration(step.timeout_ns ?? 0);
      break;
    case "WaitEnded": {
      const began = state.wait_began ?? step.t_ns;
      fields.duration = duration(Math.max(0, step.t_ns - began));
      fields.events = eventList(words, step, state);
      fields.count = grouped(step.events.length);
      break;
    }
    case "DispatchStarted":
    case "EventDropped": {
      // The name at the time of the last wait: the number may be used again.
      const then = state.batch.find((/** @type {any} */ entry) => entry.fd === step.fd);
      fields.descriptor = descriptor(words, step.fd, then ? then.name : nameOf(state, step.fd));
      fields.event = eventWords(words, step.event);
      break;
    }
    case "TimerSet":
      fields.delay = duration(step.delay_ns);
      break;
    case "TimerFired":
      fields.late = duration(step.late_ns);
      break;
    case "PollerOpened":
      fields.backend = shown(step.backend, 12);
      break;
    case "ListChecked":
      fields.count = count(step.count, "descriptor");
      break;
    case "BuffersSeen":
      fields.unread = count(step.unread ?? 0, "byte");
      fields.unsent = count(step.unsent ?? 0, "byte");
      break;
    case "BatchResized":
      fields.size = grouped(step.size);
      break;
    case "Accepted":
      fields.peer = shown(step.peer);
      if (step.new_fd != null) {
        fields.new = descriptor(words, step.new_fd, nameOf(state, step.new_fd));
      }
      break;
    case "Wrote":
      fields.asked = grouped(step.asked);
      // falls through: both say how many bytes
    case "Read":
      fields.bytes = count(step.count, "byte");
      break;
    case "WouldBlock":
      fields.call = shown(step.call);
      break;
    case "TaskQueued":
      fields.queue = queueName(words, step.queue);
      fields.priority = queueName(words, step.priority);
      break;
    case "DispatchEnded":
    case "TaskEnded":
      fields.finished = functionName(words, trace, state.finished?.callback);
      fields.left = count(left(state), "event");
      break;
  }
  return fields;
}
