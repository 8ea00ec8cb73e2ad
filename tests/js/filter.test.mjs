// The rows of the step list and which of them a filter lets through.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { StepIndex, StepSearch, parseTyped } from "../../tracer/static/filter.js";
import { Replay, nameOf } from "../../tracer/static/fold.js";

/** @typedef {import("../../tracer/static/fold.js").Step} Step */
/** @typedef {import("../../tracer/static/filter.js").StepFilter} StepFilter */

const words = JSON.parse(readFileSync(new URL("../../tracer/static/words.json", import.meta.url), "utf8"));
const READ = 1;

/** A trace of `steps`, given without the fields that all steps have. @param {any[]} steps */
function traceOf(steps) {
  const base = {
    backend: "epoll", fd: 4, wakeup_fd: 5, size: 8, running: true, tasks: [],
    registrations: [{
      fd: 6, who: "listener :80", interest: "read", edge_triggered: false, oneshot: false,
      exclusive: false, callback: 0,
    }],
  };
  const functions = new Map([[0, { id: 0, name: "accept_all" }], [1, { id: 1, name: "Server.<locals>.echo" }]]);
  return { base, functions, steps: numbered(steps, 0) };
}

/** @param {any[]} steps @param {number} before @returns {Step[]} */
function numbered(steps, before) {
  return steps.map((step, at) => ({ seq: before + at + 1, t_ns: before + at, thread: "loop", ...step }));
}

/** An index that has taken in all of `trace`. @param {ReturnType<typeof traceOf>} trace */
function indexOf(trace) {
  const index = new StepIndex(words, trace);
  while (index.end < index.total) index.take();
  return index;
}

/** @param {Partial<StepFilter>} some @returns {StepFilter} */
function filter(some) {
  return { text: "", fd: null, kinds: null, failed: false, descriptor: null, callback: null, ...some };
}

/** What a finished search for `some` finds. @param {StepIndex} index @param {Partial<StepFilter>} some */
function found(index, some) {
  const search = new StepSearch(index, filter(some));
  while (!search.work(1000));
  return search.found.slice(search.gone);
}

const registered = {
  kind: "Registered", fd: 7, who: "1.2.3.4:5", interest: "read", edge_triggered: true, oneshot: false,
  exclusive: false, callback: 1, function: 0, line: 3,
};
const ECHO = [
  { kind: "WaitStarted", timeout_ns: null, size: 8 },
  { kind: "WaitEnded", events: [[6, READ]] },
  { kind: "DispatchStarted", fd: 6, event: READ, flags: 0, callback: 0 },
  { kind: "Accepted", fd: 6, new_fd: 7, peer: "1.2.3.4:5" },
  registered,
  { kind: "TaskQueued", thread: "main", priority: "high", queue: "high", callback: 1 },
  { ...registered, error: "AlreadyRegistered: 7" },
  { kind: "DispatchEnded", fd: 6 },
  { kind: "WaitStarted", timeout_ns: 0, size: 8 },
  { kind: "WaitEnded", events: [[7, READ], [5, READ]] },
  { kind: "DispatchStarted", fd: 7, event: READ, flags: 0, callback: 1 },
  { kind: "Read", fd: 7, count: 1, asked: 64, function: 1 },
  { kind: "Wrote", fd: 7, count: 1, asked: 3 },
  { kind: "Read", fd: 7, count: 0, asked: 64 },
  { kind: "Closed", fd: 7 },
  { kind: "DispatchEnded", fd: 7, error: "ValueError: no" },
];

/** Steps in any order, more often impossible than not. @param {number} count @param {() => number} random */
function anySteps(count, random) {
  const pick = (/** @type {any[]} */ choices) => choices[Math.floor(random() * choices.length)];
  const fds = [5, 6, 7, 8, 9];
  return Array.from({ length: count }, () => {
    const kind = pick([
      "Registered", "Registered", "Modified", "Deleted", "Closed", "Accepted", "Accepted", "Read",
      "WaitStarted", "WaitEnded", "DispatchStarted", "DispatchEnded", "EventDropped", "TaskStarted", "TaskEnded",
    ]);
    if (random() < 0.02) return { kind: "PollerClosed" };
    const step = { ...registered, kind, fd: pick(fds), new_fd: pick(fds), peer: "p", count: 1, event: READ };
    if (kind === "WaitEnded") return { kind, events: fds.filter(() => random() < 0.5).map((fd) => [fd, READ]) };
    if (kind === "TaskStarted" || kind === "TaskEnded" || kind === "WaitStarted") return { kind, callback: 1, size: 8 };
    const may = kind !== "DispatchStarted" && kind !== "EventDropped";
    if (kind !== "Registered" && kind !== "Modified") delete (/** @type {any} */ (step).who);
    return { ...step, thread: pick(["loop", "loop", "main"]), error: may && random() < 0.2 ? "no" : null };
  });
}

/** Numbers from 0 to 1, the same ones for a seed. @param {number} seed */
function numbers(seed) {
  let state = seed + 1;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

test("a descriptor has the name that the sentence gives it, at every step", () => {
  for (let seed = 0; seed < 60; seed++) {
    const trace = traceOf(anySteps(150, numbers(seed)));
    const index = indexOf(trace);
    const replay = new Replay(trace);
    trace.steps.forEach((step, at) => {
      const state = replay.state(at);
      for (const fd of [5, 6, 7, 8, 9]) {
        const known = nameOf(state, fd);
        if (known) assert.equal(index.meant(fd, at)?.name, known, `seed ${seed}, step ${at}`);
        else assert.equal(index.meant(fd, at), null, `seed ${seed}, step ${at}`);
      }
      if (step.fd == null) return;
      const batched = ["DispatchStarted", "EventDropped"].includes(step.kind);
      const then = batched ? state.batch.find((/** @type {any} */ entry) => entry.fd === step.fd) : undefined;
      const name = then ? then.name : nameOf(state, step.fd) || step.who;
      const called = index.descriptor(at)?.name;
      if (!batched || then) assert.equal(called, name || `descriptor ${step.fd}`, `seed ${seed}, step ${at}`);
    });
  }
});

test("steps that a callback made on the loop's thread stand under its dispatch", () => {
  const index = indexOf(traceOf(ECHO));
  assert.deepEqual(ECHO.flatMap((_, at) => (index.inside(at) ? [at] : [])), [3, 4, 6, 11, 12, 13, 14]);
  const interrupted = indexOf(traceOf([
    ECHO[2], { kind: "DispatchEnded", fd: 6 }, { kind: "BatchResized", size: 4 }, ECHO[2], ECHO[0], ECHO[1],
  ]));
  assert.deepEqual([2, 4, 5].map((at) => interrupted.inside(at)), [false, false, false]);
});

test("a row says in few words what a step did", () => {
  const index = indexOf(traceOf(ECHO));
  assert.deepEqual(ECHO.map((_, at) => `${index.label(at)} | ${index.text(at)}`), [
    "wait | until something is ready",
    "wait ended | READ on listener :80",
    "dispatch | READ on listener :80 → accept_all",
    "accepted | client A from 1.2.3.4:5",
    "registered | client A: read, edge",
    "task queued | echo, urgent queue",
    "registered | client A: AlreadyRegistered: 7",
    "dispatch ended | accept_all",
    "wait | without sleeping",
    "wait ended | 2 events: client A, wakeup",
    "dispatch | READ on client A → echo",
    "read | 1 byte from client A",
    "wrote | 1 of 3 bytes to client A",
    "read | end of the stream from client A",
    "closed | client A",
    "dispatch ended | client A: ValueError: no",
  ]);
});

test("every kind of step has a row, and a filter of its kind", () => {
  const kinds = Object.keys(words.steps).filter((kind) => kind !== "unknown");
  const steps = kinds.map((kind) => ({
    ...registered, kind, new_fd: 8, peer: "p", count: 1, asked: 1, event: READ, size: 8, backend: "epoll",
    events: [], delay_ns: 1, late_ns: 1, call: "recv", queue: "low", priority: "low", callback: 1,
  }));
  const index = indexOf(traceOf(steps));
  kinds.forEach((kind, at) => {
    assert.ok(!/undefined|null|\{/.test(index.text(at)), `${kind}: ${index.text(at)}`);
    assert.notEqual(index.text(at), kind);
    assert.deepEqual(found(index, { kinds: new Set([kind]) }), [at]);
  });
});

test("hostile names are cut and cleaned, and a kind of any name is only unknown", () => {
  const hostile = `<script>\u202e\n${"x".repeat(10_000)}`;
  const index = indexOf(traceOf([
    { ...registered, who: hostile, interest: hostile }, { ...registered, fd: 9, error: hostile, thread: hostile },
    { kind: "constructor" }, { kind: "__proto__" }, { kind: hostile },
  ]));
  for (let at = 0; at < index.end; at++) {
    assert.ok(!/[\u202e\n]/.test(index.text(at)));
    assert.ok(index.text(at).length < 200);
  }
  assert.equal(index.label(2), words.steps.unknown.label);
  assert.equal(index.label(3), words.steps.unknown.label);
});

test("what is typed may name a descriptor's number", () => {
  assert.deepEqual(parseTyped("  Read  FD 7 "), { text: "read", fd: 7 });
  assert.deepEqual(parseTyped("fd=12"), { text: "", fd: 12 });
  assert.deepEqual(parseTyped("descriptor 3 client"), { text: "client", fd: 3 });
  assert.deepEqual(parseTyped("fd 7a"), { text: "fd 7a", fd: null });
  assert.deepEqual(parseTyped("xfd 7"), { text: "xfd 7", fd: null });
});

test("text is looked for in rows, errors, functions and threads", () => {
  const index = indexOf(traceOf(ECHO));
  assert.deepEqual(found(index, { text: "alreadyregistered" }), [6]);
  assert.deepEqual(found(index, { text: "bytes to client a" }), [12]);
  assert.deepEqual(found(index, { text: "main" }), [5]);
  assert.deepEqual(found(index, { text: "accept_all" }), [2, 4, 6, 7]);
  const long = { kind: "Closed", fd: 6, error: `${"y".repeat(500)}the end` };
  assert.deepEqual(found(indexOf(traceOf([long])), { text: "the end" }), [0]);
});

test("a descriptor's steps are those that name it, its accept and its waits among them", () => {
  const again = [{ kind: "Accepted", fd: 6, new_fd: 7, peer: "q" }, { kind: "Read", fd: 7, count: 1 }];
  const index = indexOf(traceOf([...ECHO, ...again]));
  assert.deepEqual(found(index, { descriptor: index.meant(7, 5) }), [3, 4, 6, 9, 10, 11, 12, 13, 14, 15]);
  assert.deepEqual(found(index, { descriptor: index.meant(7, 17) }), [16, 17]);
  assert.deepEqual(found(index, { fd: 7 }), [3, 4, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
});

test("filters of kind, failure and callback hold together", () => {
  const index = indexOf(traceOf(ECHO));
  assert.deepEqual(found(index, { failed: true }), [6, 15]);
  assert.deepEqual(found(index, { failed: true, kinds: new Set(["Registered"]) }), [6]);
  assert.deepEqual(found(index, { callback: 1 }), [4, 5, 6, 10, 11, 12, 13, 14, 15]);
});

test("a search in slices finds what one at once finds", () => {
  const index = new StepIndex(words, traceOf(anySteps(2000, numbers(1))));
  const search = new StepSearch(index, filter({ text: "client" }));
  let slices = 1;
  while (!search.work(0)) slices += 1;
  assert.ok(slices > 20);
  assert.deepEqual(search.found, found(indexOf(index.trace), { text: "client" }));
});

test("rows and their neighbors are found from any step", () => {
  const index = indexOf(traceOf(ECHO));
  const search = new StepSearch(index, filter({ failed: true }));
  search.work(1000);
  assert.deepEqual([0, 6, 10, 15].map((number) => search.rowOf(number)), [-1, 0, 0, 1]);
  assert.deepEqual([-1, 6, 10, 15].map((number) => search.beside(number, 1)), [0, 1, 1, null]);
  assert.deepEqual([-1, 6, 10, 15].map((number) => search.beside(number, -1)), [null, null, 0, 0]);
  const all = new StepSearch(index, null);
  assert.deepEqual([all.size, all.rowOf(-1), all.rowOf(3), all.beside(15, 1)], [16, -1, 3, null]);
});

test("steps that come and go leave numbers, names and finds as they were", () => {
  const every = anySteps(3000, numbers(2));
  const whole = indexOf(traceOf(every));
  const trace = traceOf(every.slice(0, 100));
  const index = indexOf(trace);
  const search = new StepSearch(index, filter({ text: "client" }));
  search.work(1000);
  for (let at = 100; at < every.length; at += 50) {
    trace.steps.push(...numbered(every.slice(at, at + 50), at));
    trace.steps.splice(0, 50);
    const away = search.size;
    index.drop(50);
    assert.equal(search.drop(50), away - search.size);
    search.work(1000);
    for (let row = 0; row < search.size; row++) {
      assert.ok(search.at(row) >= index.dropped);
      assert.equal(search.rowOf(search.at(row)), row);
    }
    for (let number = index.dropped; number < index.total; number++) {
      assert.equal(index.text(number), whole.text(number));
      assert.equal(index.inside(number), whole.inside(number));
    }
  }
  assert.deepEqual(search.found.slice(search.gone), found(whole, { text: "client" }).filter((n) => n >= index.dropped));
  assert.ok(index.runs.length <= 300 && search.found.length <= 300);
});

test("names of those long gone are forgotten", () => {
  const trace = traceOf([]);
  const index = indexOf(trace);
  const listener = index.meant(6, 0);
  for (let round = 0; round < 200; round++) {
    trace.steps.push(...numbered([{ kind: "Accepted", fd: 8, new_fd: 7, peer: "p" }, { kind: "Closed", fd: 7 }], round));
    while (index.end < index.total) index.take();
    if (round < 10) continue;
    trace.steps.splice(0, 2);
    index.drop(2);
  }
  assert.ok(index.named.size < 40, String(index.named.size));
  assert.ok((index.history.get(7)?.length ?? 0) < 40);
  assert.ok(listener && [...index.named.values()].includes(listener), "it is still open");
});

test("steps that went before they were seen are no trouble", () => {
  const trace = traceOf(anySteps(500, numbers(3)));
  const index = new StepIndex(words, trace);
  const search = new StepSearch(index, filter({ text: "doorman" }));
  trace.steps.splice(0, 300);
  trace.base.registrations[0].who = "doorman"; // what holds now
  index.drop(300);
  search.drop(300);
  while (!search.work(1000));
  assert.ok(search.found.length);
  for (const number of search.found) assert.ok(number >= 300 && index.text(number).includes("doorman"));
});
