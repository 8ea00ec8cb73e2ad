// Why steps happened: what node can test without Python.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Causes } from "../../tracer/static/causes.js";

const words = JSON.parse(
  readFileSync(new URL("../../tracer/static/words.json", import.meta.url), "utf8"),
);

/** A trace of an accepted connection and of `rounds` rounds that read from it. @param {number} rounds */
function echoes(rounds) {
  const base = {
    backend: "epoll", fd: 4, wakeup_fd: 5, size: 8, running: true, tasks: [], timers: [],
    registrations: [{ fd: 6, who: "listener", interest: "read" }],
  };
  const steps = [
    { kind: "Accepted", fd: 6, new_fd: 7, peer: "a:1", function: 0, line: 1 },
    { kind: "Registered", fd: 7, who: "a:1", interest: "read", callback: 0, function: 0, line: 2 },
  ];
  const functions = new Map([[0, { id: 0, name: "echo", file: "" }]]);
  /** @type {import("../../tracer/static/fold.js").Trace} */
  const trace = { base, functions, steps: [] };
  for (const step of steps) append(trace, step);
  for (let round = 0; round < rounds; round++) oneRound(trace);
  return trace;
}

/** @param {any} trace @param {any} step */
function append(trace, step) {
  const seq = (trace.steps.at(-1)?.seq ?? 0) + 1;
  trace.steps.push({ seq, t_ns: seq * 1000, thread: "loop", ...step });
  return seq;
}

/** @param {any} trace */
function oneRound(trace) {
  const wait = append(trace, { kind: "WaitStarted", timeout_ns: null, size: 8 });
  const ended = append(trace, { kind: "WaitEnded", events: [[7, 1]], cause: wait });
  const started = append(trace, {
    kind: "DispatchStarted", fd: 7, event: 1, flags: 0, callback: 0, cause: ended,
  });
  append(trace, { kind: "Read", fd: 7, count: 5, function: 0, line: 3, cause: started });
  append(trace, { kind: "DispatchEnded", fd: 7, cause: started });
}

test("a dispatch is explained by the wait and by what was read", () => {
  const causes = new Causes(words, echoes(1));
  assert.equal(causes.because(4),
    "Bytes had arrived from client A, so the wait returned it after 1.0 µs; echo then read 5 bytes.");
  assert.deepEqual(causes.why(4).map(({ index, inferred }) => [index, inferred]),
    [[3, false], [null, true], [5, false], [1, false], [0, false]]);
});

test("a step without a cause in the trace has none, and an unknown seq has no index", () => {
  const causes = new Causes(words, echoes(1));
  assert.deepEqual([causes.cause(0), causes.cause(3), causes.effects(4)], [null, 2, [5, 6]]);
  assert.deepEqual([causes.indexOf(5), causes.indexOf(500)], [4, null]);
});

test("steps are found where some seqs are missing", () => {
  const trace = echoes(3);
  for (const step of trace.steps) {
    step.seq *= 3;
    if (step.cause != null) step.cause *= 3;
  }
  const causes = new Causes(words, trace);
  assert.deepEqual(trace.steps.map((step) => causes.indexOf(step.seq)), trace.steps.map((_, i) => i));
  assert.deepEqual([causes.indexOf(4), causes.indexOf(0), causes.indexOf(999)], [null, null, null]);
  assert.deepEqual([causes.cause(4), causes.effects(4)], [3, [5, 6]]);
});

test("a descriptor is followed in both directions", () => {
  const causes = new Causes(words, echoes(2));
  assert.deepEqual([causes.nextOf(7, 0, 1), causes.nextOf(7, 1, 1)], [1, 3]);
  assert.deepEqual([causes.nextOf(7, 8, -1), causes.nextOf(7, 1, -1)], [6, 0]);
  assert.deepEqual([causes.nextOf(7, 0, -1), causes.nextOf(99, 0, 1)], [null, null]);
});

test("what comes later is found by causes that were asked before", () => {
  const trace = echoes(1);
  const causes = new Causes(words, trace);
  assert.deepEqual(causes.effects(4), [5, 6]);
  oneRound(trace);
  causes.grow(0);
  assert.deepEqual(causes.effects(9), [10, 11]);
  assert.match(causes.because(9), /^Bytes had arrived from client A/);
});

test("after steps were dropped, the others keep their reasons and names", () => {
  const trace = echoes(3);
  const causes = new Causes(words, trace);
  const before = causes.because(14);
  trace.steps.splice(0, 12);
  causes.grow(12);
  assert.equal(causes.because(2), before);
  assert.deepEqual([causes.cause(0), causes.cause(1), causes.effects(2)], [null, 0, [3, 4]]);
  const reasons = causes.why(2);
  assert.deepEqual(reasons.map(({ index }) => index), [1, null, 3, null]);
  assert.match(reasons[3].text, /client A .* was registered before this trace begins/);
});

test("a wait or trigger that was dropped is not pointed to", () => {
  const trace = echoes(2);
  const causes = new Causes(words, trace);
  causes.because(0);
  trace.steps.splice(0, 4); // the first dispatch is left
  causes.grow(4);
  assert.equal(causes.cause(0), null);
  assert.match(causes.because(0), /the wait that returned it lies before this trace begins/);
  assert.match(causes.why(0)[0].text, /^The wait that returned .* lies before/);
});

test("dropping for long forgets what was dropped and keeps the rest", () => {
  const trace = echoes(0);
  const causes = new Causes(words, trace);
  for (let turn = 0; turn < 400; turn++) {
    for (let round = 0; round < 20; round++) oneRound(trace);
    const dropped = Math.max(0, trace.steps.length - 200);
    trace.steps.splice(0, dropped);
    causes.grow(dropped);
  }
  const { known } = causes;
  assert.equal(known.length, 2 + 400 * 100);
  assert.ok(known.causes.length < 20_000, "numbers of dropped steps are let go");
  assert.ok(known.lists.waits.length < 5_000);
  const dispatch = trace.steps.findLastIndex((step) => step.kind === "DispatchStarted");
  assert.match(causes.because(dispatch), /^Bytes had arrived from client A, so the wait returned it after/);
  assert.deepEqual(causes.effects(dispatch), [dispatch + 1, dispatch + 2]);
});

test("steps that were dropped before anybody read them do no harm", () => {
  const trace = echoes(3);
  const causes = new Causes(words, trace);
  trace.steps.splice(0, 7);
  causes.grow(7);
  assert.deepEqual([causes.indexOf(8), causes.cause(1), causes.effects(2)], [0, 0, [3, 4]]);
  assert.match(causes.because(2), /^Bytes had arrived from descriptor 7/);
});
