// The fold in the browser: what node can test without Python.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Replay, advance, clientName, initial, parseTrace, stateToJson } from "../../tracer/static/fold.js";

const HEADER = '{"format":"netpoll-trace","version":1}\n';
const BASE = '{"kind":"base","backend":"epoll","fd":4,"wakeup_fd":5,"size":8,"running":true,'
  + '"registrations":[],"tasks":[]}\n';

/** A trace file of waits. @param {number} count */
function waits(count) {
  let text = HEADER + BASE;
  for (let seq = 1; seq <= count; seq++) {
    text += JSON.stringify({ kind: "WaitStarted", seq, t_ns: seq, thread: "t", timeout_ns: null, size: 8 }) + "\n";
  }
  return text;
}

test("a torn last line is left out, a torn line before it is an error", () => {
  assert.equal(parseTrace(waits(3) + '{"kind":"Wai').steps.length, 3);
  assert.throws(() => parseTrace(`${HEADER}${BASE}{"kind"\n{}\n`));
});

test("another format or version is refused", () => {
  assert.throws(() => parseTrace('{"format":"other","version":1}\n' + BASE));
  assert.throws(() => parseTrace('{"format":"netpoll-trace","version":2}\n' + BASE));
});

test("names of clients go on after Z", () => {
  assert.deepEqual([0, 25, 26, 52].map(clientName), ["client A", "client Z", "client AA", "client BA"]);
});

test("advance changes nothing it was given", () => {
  const { base, steps } = parseTrace(waits(1));
  const state = initial(base);
  const before = JSON.stringify(stateToJson(state));
  advance(state, steps[0]);
  assert.equal(JSON.stringify(stateToJson(state)), before);
});

test("seeking gives what folding gives, and costs at most one spacing", () => {
  const trace = parseTrace(waits(1000));
  const replay = new Replay(trace);
  for (const index of [999, 5, 500, 499, -1, 64, 63]) {
    assert.equal(replay.state(index).steps, index + 1);
    assert.equal(replay.state(index).counts.waits, index + 1);
  }
  assert.ok(replay.kept.length >= 15);
});
