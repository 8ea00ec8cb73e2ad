// The lanes of the timeline: what stands in them, and what of it is drawn at a scale.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Lanes, LanesView, Spans, axisTicks, axisTime } from "../../tracer/static/lanes.js";

const WORDS = JSON.parse(
  readFileSync(new URL("../../tracer/static/words.json", import.meta.url), "utf8"),
);

/**
 * A trace of the steps, 10 ns apart unless they say when; `seq` counts from 1.
 * @param {[string, object?][]} list @param {object} base
 */
function traceOf(list, base = {}) {
  const steps = list.map(([kind, more = {}], index) =>
    ({ kind, seq: index + 1, t_ns: 1000 + index * 10, thread: "loop", ...more }));
  return {
    base: {
      backend: "epoll", fd: 3, wakeup_fd: 4, size: 128, running: false, registrations: [],
      tasks: [], timers: [], ...base,
    },
    functions: new Map(),
    steps,
  };
}

/** @param {number} fd @param {string} who @returns {[string, object]} */
function registered(fd, who) {
  return ["Registered", { fd, who, interest: "read", edge_triggered: false, oneshot: false, exclusive: false }];
}

/** @param {any} trace */
function read(trace) {
  const lanes = new Lanes(WORDS, trace);
  lanes.work(Infinity);
  return lanes;
}

/** Where the spans are: pairs of numbers. @param {Spans} spans */
function pairs(spans) {
  return spans.starts.map((start, at) => [start, spans.ends[at]]);
}

/** What the lanes hold, without what drawing looks up. @param {Lanes} lanes */
function told(lanes) {
  const lane = (/** @type {any} */ one) => ({
    spans: Object.fromEntries(Object.entries(one.spans).map(([name, spans]) => [name, pairs(spans)])),
    ticks: Object.fromEntries(Object.entries(one.ticks).filter(([, list]) => list.length)), failed: one.failed,
  });
  return [lanes.loop, lanes.tasks, ...lanes.descriptors].map(lane);
}

/** A busy loop: rounds of a wait and one dispatch each, on one of some descriptors.
 * @param {number} rounds */
function busy(rounds) {
  /** @type {[string, object?][]} */
  const list = [registered(7, "a"), registered(8, "b"), registered(9, "c")];
  for (let round = 0; round < rounds; round++) {
    const fd = 7 + ((round * round) % 3);
    const t_ns = 1e6 + round * 1000;
    list.push(
      ["WaitStarted", { timeout_ns: null, size: 128, t_ns }], ["WaitEnded", { events: [[fd, 1]], t_ns: t_ns + 700 }],
      ["DispatchStarted", { fd, event: 1, t_ns: t_ns + 720 }], ["Read", { fd, count: 5, t_ns: t_ns + 750 }],
      ["DispatchEnded", { fd, t_ns: t_ns + 900, error: round % 50 === 7 ? "E: x" : null }],
    );
  }
  return traceOf(list);
}

test("the loop's lane holds waits, dispatches and tasks, those of descriptors and tasks their own", () => {
  const lanes = read(traceOf([
    registered(7, "a"), ["WaitStarted", {}], ["WaitEnded", { events: [[7, 1]] }],
    ["DispatchStarted", { fd: 7, event: 1 }], ["Read", { fd: 7, count: 1 }], ["DispatchEnded", { fd: 7 }],
    ["TaskQueued", { queue: "high", thread: "other" }], ["TaskStarted", { cause: 7 }],
    ["TaskEnded", { cause: 8, error: "ValueError: x" }], ["WaitStarted", {}],
  ]));
  assert.deepEqual(pairs(lanes.loop.spans.wait), [[1, 2], [9, Infinity]]);
  assert.deepEqual(pairs(lanes.loop.spans.dispatch), [[3, 5]]);
  assert.deepEqual(pairs(lanes.loop.spans.task), [[7, 8]]);
  assert.deepEqual(pairs(lanes.tasks.spans.task), [[7, 8]]);
  assert.deepEqual(pairs(lanes.tasks.spans.queued), [[6, 7]]);
  assert.deepEqual([lanes.loop.failed, lanes.tasks.failed], [[8], [8]]);
  const [wakeup, a] = lanes.descriptors;
  assert.deepEqual([wakeup.fd, a.fd], [4, 7]);
  assert.deepEqual(pairs(a.spans.dispatch), [[3, 5]]);
  assert.deepEqual([a.ticks.changed, a.ticks.read, pairs(a.spans.life)], [[0], [4], [[0, Infinity]]]);
});

test("a callback that never returned ends where the loop goes on, and everything with the poller", () => {
  const lanes = read(traceOf([
    registered(7, "a"), ["DispatchStarted", { fd: 7, event: 1 }], ["WaitStarted", {}],
    ["TimerSet", { delay_ns: 9 }], ["PollerClosed"],
  ]));
  assert.deepEqual(pairs(lanes.loop.spans.dispatch), [[1, 2]]);
  assert.deepEqual(pairs(lanes.byNumber.get(7)?.spans.dispatch ?? new Spans()), [[1, 2]]);
  assert.deepEqual(pairs(lanes.loop.spans.wait), [[2, 4]]);
  assert.deepEqual(pairs(lanes.tasks.spans.timers), [[3, 4]]);
  assert.deepEqual(lanes.descriptors.map((lane) => pairs(lane.spans.life)), [[[-1, 4]], [[0, 4]]]);
});

test("a task ends a callback that never returned; a registration that replaces another ends that", () => {
  const lanes = read(traceOf([
    registered(7, "a"), ["Modified", { fd: 7, who: "a", interest: "write" }], ["DispatchStarted", { fd: 7, event: 1 }],
    ["TaskStarted", {}], ["TaskEnded", {}], registered(7, "b"),
  ]));
  assert.deepEqual(pairs(lanes.loop.spans.dispatch), [[2, 3]]);
  assert.deepEqual(pairs(/** @type {any} */ (lanes.byNumber.get(7)).spans.life), [[0, 5], [5, Infinity]]);
});

test("what was registered before the recording is watched from the beginning, unless it was closed", () => {
  const lanes = read(traceOf([["WaitStarted"]], { registrations: [{ fd: 5, who: "a" }, { fd: 6, who: "b", closed: true }] }));
  assert.deepEqual(lanes.descriptors.map((lane) => pairs(lane.spans.life)), [[[-1, Infinity]], [[-1, Infinity]], []]);
});

test("something is queued while any task is, also one of the base state; a timer until it fires or is called off", () => {
  const lanes = read(traceOf([
    ["TaskQueued", { queue: "low" }], ["TaskStarted", {}], ["TaskEnded"], ["TaskStarted", { cause: 1 }],
    ["TimerSet", { delay_ns: 5 }], ["TimerSet", { delay_ns: 5 }], ["TimerFired", { cause: 5 }],
    ["TimerCanceled", { timer: 6 }], ["TaskQueued", { queue: "low", error: "ValueError: closed" }],
  ], { tasks: [{ queue: "high", callback: 1 }] }));
  assert.deepEqual(pairs(lanes.tasks.spans.queued), [[-1, 3]]);
  assert.deepEqual(pairs(lanes.tasks.spans.timers), [[4, 7]]);
  assert.deepEqual(lanes.tasks.failed, [8]);
});

test("a number that is used again keeps its lane, and is called what it meant then", () => {
  const lanes = read(traceOf([
    registered(6, "listener"), ["Accepted", { fd: 6, new_fd: 9, peer: "p" }], registered(9, "p"),
    ["Deleted", { fd: 9 }], ["Closed", { fd: 9 }], ["Accepted", { fd: 6, new_fd: 9, peer: "q" }], registered(9, "q"),
    ["Registered", { fd: 9, who: "q", error: "AlreadyRegistered: 9" }], ["Closed", { fd: 9 }],
  ]));
  const lane = /** @type {any} */ (lanes.byNumber.get(9));
  assert.deepEqual(pairs(lane.spans.life), [[2, 3], [6, 8]]);
  assert.deepEqual([0, 2, 4, 8].map((number) => lanes.nameAt(lane, number)), ["client A", "client A", "client A", "client B"]);
  assert.deepEqual([lane.ticks.accepted, lane.failed], [[1, 5], [7]]);
});

test("lanes stand in the order of their numbers, the wakeup first; its steps are in its own", () => {
  const lanes = read(traceOf([
    registered(12, "c"), registered(2, "a"), ["WakeupSent"], ["WakeupReceived"], ["PollerOpened", { fd: 30 }],
    ["SomethingNew", { fd: 9 }], ["PollerOpened", { fd: 12 }],
  ]));
  assert.deepEqual(lanes.loop.ticks.changed, [4, 6]);
  assert.deepEqual(lanes.descriptors.map((lane) => lane.fd), [4, 2, 9, 12]);
  assert.deepEqual(lanes.descriptors[0].ticks, { wrote: [2], read: [3] });
});

test("times never fall, whatever order the threads looked at the clock in", () => {
  const lanes = read(traceOf([["WaitStarted", { t_ns: 50 }], ["TaskQueued", { t_ns: 40 }], ["WaitEnded", { events: [], t_ns: 60 }]]));
  assert.deepEqual([0, 1, 2].map((number) => lanes.clock(number)), [0, 0, 10]);
});

test("when the oldest steps go, what is left is as if nothing had happened", () => {
  const whole = busy(60);
  const all = read(whole);
  const trace = { ...whole, steps: whole.steps.slice(0, 20) };
  const lanes = read(trace);
  for (let at = 20; at < whole.steps.length; at += 7) {
    trace.steps.push(...whole.steps.slice(at, at + 7));
    trace.steps.splice(0, 5);
    assert.ok(lanes.drop(5));
    lanes.work(Infinity);
  }
  assert.equal(lanes.end, all.end);
  assert.ok(lanes.first > 100, "something was forgotten");
  assert.equal(lanes.clocks.length, lanes.end - lanes.first);
  for (const lane of [all.loop, all.tasks, ...all.descriptors]) lane.trim(lanes.first);
  assert.deepEqual(told(lanes), told(all));
  const all2 = new LanesView(all, false, all.clock(lanes.dropped), all.clock(lanes.end), 200);
  const some = new LanesView(lanes, false, lanes.clock(lanes.dropped), lanes.clock(lanes.end), 200);
  const seen = [all2, some].map((view) => {
    /** @type {any[]} */
    const drawn = [];
    view.spans(view.lanes.loop.spans.dispatch, (from, to, share) => drawn.push([from, to, share.toFixed(6)]));
    return drawn;
  });
  assert.deepEqual(seen[1].slice(2), seen[0].slice(2));
});

test("steps that go before they were read, or all of them, can't be taken in", () => {
  const lanes = new Lanes(WORDS, busy(5));
  lanes.take();
  assert.equal(lanes.drop(2), false);
  assert.equal(lanes.drop(Infinity), false);
});

test("never more marks than pixels, and none that is wide is lost", () => {
  const trace = busy(3000);
  trace.steps.splice(-1, 1); // the last dispatch is long
  const last = trace.steps[trace.steps.length - 1];
  trace.steps.push({ ...last, kind: "DispatchEnded", seq: last.seq + 1, t_ns: last.t_ns + 500_000 });
  const lanes = read(trace);
  for (const bySteps of [false, true]) {
    for (const [from, to] of [[0, 1], [0.2, 0.21], [0.5, 0.5005], [0.7, 1]]) {
      const end = bySteps ? lanes.end : lanes.clock(lanes.end);
      const view = new LanesView(lanes, bySteps, from * end, to * end, 400);
      for (const spans of Object.values(lanes.loop.spans)) {
        let before = -Infinity;
        let drawn = 0;
        const covered = new Set();
        view.spans(spans, (left, right, share) => {
          assert.ok(left >= before - 1 && share > 0 && share <= 1);
          before = left;
          drawn += 1;
          for (let x = Math.floor(left); x < right; x++) covered.add(x);
        });
        assert.ok(drawn <= 2 * view.width, `${drawn} marks`);
        spans.starts.forEach((start, at) => {
          const middle = (view.x(start) + view.x(spans.ends[at])) / 2;
          if (middle < 0 || middle >= view.width) return;
          assert.ok(covered.has(Math.floor(middle)) || covered.has(Math.floor(view.x(start))), `span at ${start}`);
        });
      }
      const lane = /** @type {any} */ (lanes.byNumber.get(7));
      /** @type {number[]} */
      const ticks = [];
      view.ticks(lane.ticks.read, (x) => ticks.push(Math.floor(x)));
      const naive = new Set(lane.ticks.read.map((/** @type {number} */ number) => Math.floor(view.x(number)))
        .filter((/** @type {number} */ x) => x >= 0 && x < view.width));
      assert.deepEqual(ticks, [...naive]);
    }
  }
});

test("a wide span that begins in a pixel full of narrow ones is drawn", () => {
  const lanes = read(traceOf([0, 1, 2, 3, 4, 900].flatMap((at) => [
    ["TaskStarted", { t_ns: at * 10 }], ["TaskEnded", { t_ns: at * 10 + (at === 4 ? 5000 : 5) }],
  ])));
  /** @type {number[][]} */
  const drawn = [];
  const view = new LanesView(lanes, false, 0, 10_000, 100);
  view.spans(lanes.loop.spans.task, (from, to) => drawn.push([from, to].map(Math.round)));
  assert.deepEqual(drawn, [[0, 1], [0, 50], [90, 91]]);
});

test("a pixel tells how much of it the spans fill", () => {
  const lanes = read(busy(4000));
  const view = new LanesView(lanes, false, lanes.clock(1000), lanes.clock(19000), 100);
  /** @type {number[]} */
  const shares = [];
  view.spans(lanes.loop.spans.dispatch, (_from, _to, share) => shares.push(share));
  assert.equal(shares.length, 100);
  assert.ok(shares.every((share) => Math.abs(share - 0.18) < 0.01), "a dispatch is 180 of 1000 ns");
});

test("what stands under the pointer is a tick, else the span around it, else one nearby", () => {
  const lanes = read(busy(10));
  const a = /** @type {any} */ (lanes.byNumber.get(7));
  const view = new LanesView(lanes, false, lanes.clock(3), lanes.clock(3) + 1000, 1000);
  assert.deepEqual(view.hit(a, 752), { number: 6, end: null });
  assert.deepEqual(view.hit(a, 800), { number: 5, end: 7 });
  assert.deepEqual(view.hit(a, 903), { number: 5, end: 7 });
  assert.equal(view.hit(a, 300), null);
  assert.deepEqual(view.hit(lanes.loop, 300), { number: 3, end: 4 });
  lanes.drop(4);
  const now = lanes.clock(4);
  assert.equal(new LanesView(lanes, false, now, now + 10, 1000).hit(lanes.loop, 0), null, "it began in a step that is gone");
  const far = new LanesView(lanes, true, 0, 1e6, 1000);
  assert.notEqual(far.hit(lanes.loop, 0), null, "all in one pixel: some step of it");
});

test("an axis has round ticks and says them in the unit that tells them apart", () => {
  assert.deepEqual(axisTicks(0, 1000, 10), { first: 0, spacing: 100 });
  assert.deepEqual(axisTicks(130, 1000, 5), { first: 200, spacing: 200 });
  assert.deepEqual(axisTicks(0.2, 3, 100), { first: 1, spacing: 1 });
  assert.deepEqual(
    [axisTime(1_234_000_000, 2_000_000), axisTime(1_500, 500), axisTime(3e9, 1e9), axisTime(1_207_500_000, 500_000)],
    ["1,234 ms", "1,500 ns", "3 s", "1,207,500 µs"],
  );
  assert.deepEqual([axisTime(4_860_000, 1e6, 10), axisTime(4_860_000, 2e5, 10)], ["4.8 ms", "4,860 µs"]);
});
