// What each place of the picture shows in a state, as tracer/contents.py says it.

import { count, eventNames, fill, functionName, grouped, mode, shown } from "./words.js";

/** @typedef {import("./fold.js").Step} Step */
/** @typedef {import("./fold.js").Trace} Trace */
/** @typedef {import("./fold.js").LoopState} LoopState */
/** @typedef {{rows: number, events: number, lines: number, more_rows: boolean,
 *   more_events: boolean}} Shape */
/** @typedef {{text: string, classes: string, title: string}} Place */
/** @typedef {Map<string, Place>} Contents */

/** So many characters of code stand on a line; the rest of a longer one follows below it. */
const LONGEST_LINE = 48;

/** The arrows along which a step of each kind moves something.
 * @type {Record<string, string[]>} */
const LIT = {
  Registered: ["register"],
  Modified: ["register"],
  Deleted: ["register"],
  WaitStarted: ["wait"],
  WaitEnded: ["ready", "wait"],
  DispatchStarted: ["dispatch"],
  TaskStarted: ["run"],
  WakeupSent: ["wake"],
};

/**
 * What each place shows in `state`; a place that is left out is empty.
 * @param {any} words
 * @param {LoopState} state
 * @param {Trace} trace
 * @param {Shape} shape
 * @returns {Contents}
 */
export function contents(words, state, trace, shape) {
  const step = state.steps ? trace.steps[state.steps - 1] : null;
  /** @type {Contents} */
  const filled = new Map();
  const put = (/** @type {string} */ name, /** @type {string} */ text, classes = "", title = "") => {
    filled.set(name, { text, classes, title });
  };
  putLabels(put, words, state, trace, step);
  putRows(put, words, state, step, shape);
  putEvents(put, words, state, shape);
  putTasks(put, words, state, trace, shape);
  putCode(put, words, state, trace, shape);
  return filled;
}

/**
 * The names of the arrows along which `step` moved something.
 * @param {Step | null} step
 * @param {Contents} filled
 * @returns {string[]}
 */
export function litArrows(step, filled) {
  if (step === null) return [];
  if (step.kind === "Read" || step.kind === "Wrote") {
    for (const [name, place] of filled) {
      if (place.classes.includes("flow")) {
        return [name.replace("flow", step.kind === "Read" ? "in" : "out")];
      }
    }
    return [];
  }
  if (step.kind === "WaitEnded" && !step.events.length) return [];
  return Object.hasOwn(LIT, step.kind) ? LIT[step.kind] : [];
}

/** A number of bytes short enough for a column. @param {number} number */
export function amount(number) {
  if (number < 100_000) return grouped(number);
  return number < 10_000_000
    ? `${grouped(Math.floor(number / 1000))}k`
    : `${grouped(Math.floor(number / 1_000_000))}M`;
}

/**
 * The lines of a function's source without the indentation that all of them share.
 * @param {string} text
 */
export function sourceLines(text) {
  const lines = text.replaceAll("\t", "    ").replace(/\n+$/, "").split("\n");
  const indents = lines.filter((line) => line.trim()).map((line) => line.match(/^ */)?.[0].length ?? 0);
  const shared = indents.length ? Math.min(...indents) : 0;
  return lines.map((line) => shown(line.slice(shared), 10_000));
}

/**
 * A line of code as the lines that fit, each but the first indented some more.
 * @param {string} line
 */
export function wrapped(line) {
  let letters = Array.from(line);
  const pieces = [];
  const indent = Math.min((line.match(/^ */)?.[0].length ?? 0) + 4, LONGEST_LINE / 2);
  while (letters.length > LONGEST_LINE && pieces.length < 10) {
    let cut = LONGEST_LINE - 1;
    while (cut >= indent && letters[cut] !== " " && letters[cut] !== "(") cut -= 1;
    cut = cut < indent ? LONGEST_LINE : cut + 1;
    pieces.push(letters.slice(0, cut).join(""));
    letters = [...Array(indent).fill(" "), ...letters.slice(cut).join("").replace(/^ +/, "")];
  }
  if (letters.length > LONGEST_LINE) letters.splice(LONGEST_LINE - 1, Infinity, "…");
  return [...pieces, letters.join("")];
}

/**
 * The first of the `lines` lines to show of `total`, so that `marked` is among them.
 * @param {number} total
 * @param {number | null} marked
 * @param {number} lines
 */
export function firstShown(total, marked, lines) {
  return marked === null ? 0 : Math.max(0, Math.min(marked - Math.floor(lines / 2), total - lines));
}

/**
 * Which slot each row shows: its own, or at the bottom an active one that has no row.
 * @param {number[]} active
 * @param {number} rows
 */
export function visibleSlots(active, rows) {
  const slots = Array.from({ length: rows }, (_, row) => row);
  let at = rows - 1;
  for (const slot of active) {
    if (slot >= rows && !slots.includes(slot)) {
      while (at > 0 && active.includes(slots[at])) at -= 1;
      slots[at] = slot;
    }
  }
  return slots;
}

/**
 * The function whose source belongs to a state, and the line to mark in it, from 0.
 * @param {LoopState} state
 * @param {Trace} trace
 * @returns {{function: any, marked: number | null}}
 */
export function sourceOf(state, trace) {
  const own = (state.running ?? state.finished)?.callback;
  const site = state.site;
  const found = (site && trace.functions.get(site.function)) ?? trace.functions.get(own) ?? null;
  const marked = found && site && site.line !== null ? site.line - found.first_line : null;
  return { function: found, marked };
}

/** @type {WeakMap<any, {at: number, number: string, piece: string}[]>} */
const PIECES = new WeakMap();

/** The lines of a function as they are drawn, made once. @param {any} known */
function piecesOf(known) {
  let pieces = PIECES.get(known);
  if (!pieces) {
    pieces = sourceLines(known.text).flatMap((line, at) =>
      wrapped(line).map((piece, part) =>
        ({ at, number: part ? "" : String(at + known.first_line), piece })));
    PIECES.set(known, pieces);
  }
  return pieces;
}

/** @typedef {(name: string, text: string, classes?: string, title?: string) => void} Put */

/** @param {Put} put @param {any} words @param {LoopState} state @param {Trace} trace
 * @param {Step | null} step */
function putLabels(put, words, state, trace, step) {
  const texts = words.picture;
  const base = trace.base;
  const asleep = state.phase === "waiting";
  put("peers", texts.peers);
  put("kernel", asleep ? texts.asleep : texts.kernel, asleep ? "asleep" : "");
  put("user", texts.user, asleep || state.phase === "outside" ? "" : "awake");
  for (const name of ["interest", "ready", "wakeup", "batch", "tasks"]) {
    put(`${name}-head`, texts[name]);
  }
  texts.columns.forEach((/** @type {string} */ column, /** @type {number} */ number) => {
    put(`column${number}`, column);
  });
  if (base.fd != null) {
    put("interest-note", fill(texts["interest note"], { backend: shown(base.backend, 12), fd: base.fd }));
  }
  put("ready-note", texts.inferred);
  put("wakeup-note", texts.inferred);
  if (state.batch.length) {
    const numbers = { count: grouped(state.batch.length), size: grouped(state.size) };
    put("batch-note", fill(texts["batch note"], numbers));
  }
  put("urgent", texts.urgent);
  put("low", texts.low);
  const arrows = { ...texts.arrows };
  arrows.register = texts.changes[step?.kind ?? ""] ?? arrows.register;
  arrows.wait = texts.calls[base.backend] ?? arrows.wait;
  const running = state.running;
  const held = asleep ? "wait" : !running ? "" : running.fd === null ? "run" : "dispatch";
  for (const [name, text] of Object.entries(arrows)) {
    put(`${name}-label`, text, name === held ? "held" : "");
  }
  put("wakeup-fd", fill(words.descriptor_only, { fd: state.wakeup_fd }));
  const counter = fill(texts.counter, { count: grouped(state.wakeup_counter) });
  put("wakeup-count", counter, state.wakeup_counter ? "now" : "");
}

/** @param {Put} put @param {any} words @param {LoopState} state @param {Step | null} step
 * @param {Shape} shape */
function putRows(put, words, state, step, shape) {
  const slots = new Map();
  for (const row of state.registrations.values()) slots.set(row.slot, row);
  for (const known of state.descriptors.values()) {
    if (known.registration === null && known.slot !== null) slots.set(known.slot, known);
  }
  const active = [];
  for (const fd of [step?.new_fd, step?.fd, state.running?.fd]) {
    if (fd == null) continue;
    for (const [slot, entry] of slots) if (entry.fd === fd) active.push(slot);
  }
  const drawn = visibleSlots(active, shape.rows);
  drawn.forEach((slot, row) => {
    const entry = slots.get(slot);
    if (entry) putRow(put, words, row, entry, state, step);
  });
  const left = slots.size - drawn.filter((slot) => slots.has(slot)).length;
  if (left && shape.more_rows) put("interest-more", fill(words.picture.more, { count: grouped(left) }));
}

/** @param {Put} put @param {any} words @param {number} row @param {any} entry
 * @param {LoopState} state @param {Step | null} step */
function putRow(put, words, row, entry, state, step) {
  const texts = words.picture;
  const registered = "interest" in entry;
  let known = state.descriptors.get(entry.fd);
  if (registered && known?.registration !== entry.id) known = undefined; // another one by now
  let classes = state.running?.fd === entry.fd && known ? "now" : "";
  let interest = texts.unwatched;
  let trigger = texts.nothing;
  if (!registered) {
    classes += " unwatched";
  } else {
    interest = (words.interests[entry.interest] ?? [shown(entry.interest, 12)])[0];
    trigger = mode(words, entry)[0];
    if (entry.closed) {
      trigger = texts.closed;
      classes += " closed";
    } else if (!entry.armed) {
      trigger = texts.disarmed;
      classes += " disarmed";
    }
  }
  classes = classes.trim();
  const peer = known?.peer ?? "";
  let who = shown(entry.name);
  if (peer.includes(":")) who += ` :${shown(peer.slice(peer.lastIndexOf(":") + 1), 8)}`;
  const title = shown(peer || (entry.who ?? entry.name), 200);
  const linked = known
    && Boolean(known.accepted || known.bytes_read || known.bytes_written || known.end_of_stream);
  const read = known?.bytes_read ?? 0;
  const written = known?.bytes_written ?? 0;
  put(`row${row}-fd`, String(entry.fd), classes);
  put(`row${row}-who`, who, classes, title);
  put(`row${row}-interest`, interest, classes);
  put(`row${row}-trigger`, trigger, classes);
  put(`row${row}-in`, linked ? amount(read) : texts.nothing, classes, count(read, "byte"));
  put(`row${row}-out`, linked ? amount(written) : texts.nothing, classes, count(written, "byte"));
  if (!linked) return;
  put(`peer${row}`, shown(entry.name), known.end_of_stream || known.closed ? "ended" : "", title);
  if ((step?.kind === "Read" || step?.kind === "Wrote") && step.fd === entry.fd) {
    if (step.error != null) put(`flow${row}`, texts.failed, "flow failed");
    else if (step.kind === "Read" && step.count === 0) put(`flow${row}`, texts.end, "flow");
    else put(`flow${row}`, step.count === 1 ? "1 byte" : `${amount(step.count)} bytes`, "flow");
  }
}

/** @param {Put} put @param {any} words @param {LoopState} state @param {Shape} shape */
function putEvents(put, words, state, shape) {
  const texts = words.picture;
  state.ready.slice(0, shape.events).forEach((/** @type {any} */ entry, /** @type {number} */ row) => {
    const title = eventNames(words, entry.event);
    put(`ready${row}-fd`, String(entry.fd));
    put(`ready${row}-who`, shown(entry.name), "", shown(entry.name, 200));
    put(`ready${row}-event`, title, "", title);
  });
  // A long batch scrolls, so that the event being handled has a row.
  const statuses = state.batch.map((/** @type {any} */ entry) => entry.status);
  let now = statuses.indexOf("now");
  if (now < 0) now = Math.max(statuses.lastIndexOf("done"), statuses.lastIndexOf("dropped"));
  const first = firstShown(statuses.length, now < 0 ? null : now, shape.events);
  const drawn = state.batch.slice(first, first + shape.events);
  drawn.forEach((/** @type {any} */ entry, /** @type {number} */ row) => {
    const title = eventNames(words, entry.event);
    put(`batch${row}-mark`, texts.statuses[entry.status], entry.status);
    put(`batch${row}-fd`, String(entry.fd), entry.status);
    put(`batch${row}-who`, shown(entry.name), entry.status, shown(entry.name, 200));
    put(`batch${row}-event`, title, entry.status, title);
  });
  for (const name of ["ready", "batch"]) {
    const left = state[name].length - shape.events;
    if (left > 0 && shape.more_events) put(`${name}-more`, fill(texts.more, { count: grouped(left) }));
    else if (!state[name].length) put(`${name}0-who`, texts.empty, "empty");
  }
}

/** @param {Put} put @param {any} words @param {LoopState} state @param {Trace} trace
 * @param {Shape} shape */
function putTasks(put, words, state, trace, shape) {
  for (const name of ["urgent", "low"]) {
    const queue = state[name];
    queue.slice(0, shape.events).forEach((/** @type {any} */ task, /** @type {number} */ row) => {
      const text = functionName(words, trace, task.callback);
      put(`${name}${row}`, text.slice(text.lastIndexOf(".") + 1), "", text);
    });
    const left = queue.length - shape.events;
    if (left > 0 && shape.more_events) {
      put(`${name}-more`, fill(words.picture.more, { count: grouped(left) }));
    } else if (!queue.length) {
      put(`${name}0`, words.picture.empty, "empty");
    }
  }
}

/** @param {Put} put @param {any} words @param {LoopState} state @param {Trace} trace
 * @param {Shape} shape */
function putCode(put, words, state, trace, shape) {
  const texts = words.picture;
  const running = state.running ?? state.finished;
  const site = state.site;
  if (!running && !site) {
    put("running-head", texts.idle, "idle");
    put("running-note", "", "idle");
    return;
  }
  const source = sourceOf(state, trace);
  let head = source.function ? functionName(words, trace, source.function.id) : texts.idle;
  let note = texts.called;
  if (running) {
    const name = functionName(words, trace, running.callback);
    const isTask = running.fd === null;
    head = isTask ? `${name}()` : `${name}(${running.fd}, ${eventNames(words, running.event ?? 0)})`;
    note = isTask ? texts.task : shown(running.name);
    if (source.function && source.function.id !== running.callback) {
      const inner = functionName(words, trace, source.function.id);
      note = fill(texts.inside, { function: inner.slice(inner.lastIndexOf(".") + 1) });
    }
    if (!state.running) note = texts.returned;
  }
  const classes = state.running ? "now" : "idle";
  put("running-head", head, classes, head);
  put("running-note", note, classes);
  if (!source.function) return;
  const lines = piecesOf(source.function);
  const at = lines.findIndex((line) => line.at === source.marked);
  const first = firstShown(lines.length, at < 0 ? null : at, shape.lines);
  lines.slice(first, first + shape.lines).forEach((line, row) => {
    const mark = line.at === source.marked ? "marked" : "";
    put(`code${row}-line`, line.number, mark);
    put(`code${row}-text`, line.piece, mark);
  });
}
