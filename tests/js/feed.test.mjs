// Following a live loop: whatever comes in whatever portions, the states are those of the whole.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Feed } from "../../tracer/static/feed.js";
import { Replay, advance, initial, stateToJson } from "../../tracer/static/fold.js";

/** @typedef {import("../../tracer/static/feed.js").Message} Message */

const MOST = 512;

/** @param {number} size tells one base state from another */
function baseState(size) {
  return {
    kind: "base", backend: "epoll", fd: 4, wakeup_fd: 5, size, running: true,
    registrations: [], tasks: [], timers: [],
  };
}

/** Numbers that look random and are the same each time. @param {number} seed */
function random(seed) {
  return (/** @type {number} */ below) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
}

/** Steps of all kinds that leave something behind. @param {number} count @param {number} seed */
function manySteps(count, seed) {
  const below = random(seed);
  return Array.from({ length: count }, (_, at) => {
    const fd = 6 + below(9);
    const common = { seq: at + 1, t_ns: at * 1000, thread: "loop", cause: Math.max(1, at - below(4)) };
    const kinds = [
      { kind: "WaitStarted", timeout_ns: null, size: 8 },
      { kind: "WaitEnded", events: [[fd, 1], [5, 1]] },
      { kind: "DispatchStarted", fd, event: 1, flags: 0, callback: below(3) },
      { kind: "DispatchEnded", fd },
      { kind: "Registered", fd, who: `socket ${at}`, interest: "read", callback: 1, function: 1, line: at },
      { kind: "Deleted", fd, function: 1, line: 7 },
      { kind: "Accepted", fd: 6, new_fd: fd, peer: `127.0.0.1:${at}`, function: 1, line: 8 },
      { kind: "Read", fd, count: below(50), asked: 50, function: 1, line: 9 },
      { kind: "Closed", fd, function: 1, line: 10, ...(below(3) ? {} : { error: "OSError" }) },
      { kind: "TaskQueued", priority: "high", queue: below(2) ? "high" : "low", callback: 2 },
      { kind: "TaskStarted", callback: 2 },
      { kind: "TaskEnded" },
      { kind: "TimerSet", callback: 2, delay_ns: below(9000) },
      { kind: "TimerFired", callback: 2, late_ns: 5 },
      { kind: "WakeupSent" },
    ];
    return /** @type {any} */ ({ ...common, ...kinds[below(kinds.length)] });
  });
}

/** Lines as they stand in a trace file. @param {any[]} values */
function lines(...values) {
  return new TextEncoder().encode(values.map((value) => `${JSON.stringify(value)}\n`).join(""));
}

/** What tracer/follower.py would send. */
class Sender {
  /** @param {any[]} steps */
  constructor(steps) {
    this.steps = steps;
    this.run = 0;
    this.sent = 0;
    this.next = 0;
  }

  /** @param {number} count @returns {[Message, Uint8Array]} */
  more(count) {
    return this.message("steps", count, []);
  }

  /** @param {number} first @param {number} count @returns {[Message, Uint8Array]} */
  restart(first, count) {
    this.next = first;
    const header = { format: "netpoll-trace", version: 1, minor: 1 };
    const known = { kind: "function", id: 1, name: `known at ${first}`, file: "", first_line: 1, text: "" };
    return this.message("restart", count, [header, baseState(first), known]);
  }

  /** @param {string} type @param {number} count @param {any[]} before @returns {[Message, Uint8Array]} */
  message(type, count, before) {
    const first = this.next;
    const steps = this.steps.slice(first, first + count);
    this.next = first + steps.length;
    const data = lines(...before, ...steps);
    this.sent += data.length;
    return [{ type, run: this.run, first, count: steps.length, quiet: 0, sent: this.sent }, data];
  }
}

/** @param {number} most */
function feedOf(most) {
  const trace = { base: baseState(0), functions: new Map(), steps: [] };
  return new Feed(trace, new Replay(trace), most);
}

/** The states before the first and after each of `steps`. @param {number} size @param {any[]} steps */
function statesOf(size, steps) {
  const states = [initial(baseState(size))];
  for (const step of steps) states.push(advance(states[states.length - 1], step));
  return states;
}

/** @param {any} state @param {number} steps */
function plain(state, steps) {
  return JSON.stringify({ ...stateToJson(state), steps });
}

/** Assert that a feed shows, at each kept step, the fold of all from step `origin` on.
 * @param {Feed} feed @param {any[]} steps @param {number} origin */
function assertStates(feed, steps, origin) {
  const { trace, replay, dropped } = feed;
  const end = dropped + trace.steps.length;
  assert.deepEqual(trace.steps, steps.slice(dropped, end));
  const whole = statesOf(origin, steps.slice(origin, end));
  for (let index = -1; index < trace.steps.length; index++) {
    const state = replay.state(index);
    assert.equal(state.steps, index + 1);
    assert.equal(plain(state, 0), plain(whole[dropped - origin + index + 1], 0), `step ${dropped + index}`);
  }
}

for (let seed = 1; seed <= 12; seed++) {
  test(`states are those of the whole, whatever the portions: ${seed}`, () => {
    const below = random(seed);
    const steps = manySteps(4000, seed);
    const sender = new Sender(steps);
    const feed = feedOf(MOST);
    let origin = -1; // the step that the last new beginning began with
    let end = 0; // the feed's, as it should be
    let run = 0;
    for (let turn = 0; sender.next < steps.length && turn < 300; turn++) {
      let message, data;
      const what = below(30);
      if (turn === 3) [message, data] = sender.restart(0, 10); // what comes before can't be used
      else if (what === 0) [message, data] = sender.restart(Math.max(0, sender.next - below(300)), below(200));
      else if (what === 1) [message, data] = sender.restart(Math.min(sender.next + below(900), 3999), below(200));
      else if (what === 2) { sender.run += 1; [message, data] = sender.restart(sender.next, below(99)); }
      else if (what === 3) { sender.more(below(20)); continue; } // lost on its way
      else [message, data] = sender.more([0, 1, 5, 60, 130, 700][below(6)]);
      const first = message.first ?? 0;
      const goesOn = origin >= 0 && message.run === run && first <= end;
      const before = feed.dropped + feed.trace.steps.length;
      const { appended, dropped, restarted, answer } = feed.apply(message, new DataView(data.buffer));
      if (goesOn) {
        end = Math.max(end, sender.next);
      } else if (message.type === "restart") {
        [origin, end, run] = [first, sender.next, message.run ?? 0];
        assert.ok(restarted);
      } else {
        assert.deepEqual([appended, dropped, restarted], [0, 0, false]);
        continue;
      }
      assert.equal(answer, null);
      assert.equal(feed.dropped + feed.trace.steps.length, end);
      if (restarted) assert.equal(appended, feed.trace.steps.length);
      else assert.equal(appended, end - before);
      assert.ok(feed.trace.steps.length <= MOST);
      if (below(8) === 0) assertStates(feed, steps, origin);
    }
    assert.ok(origin >= 0);
    assertStates(feed, steps, origin);
  });
}

test("a restart that goes on where the steps end keeps the older ones", () => {
  const steps = manySteps(300, 1);
  const sender = new Sender(steps);
  const feed = feedOf(MOST);
  feed.apply(...sender.restart(0, 200));
  assert.deepEqual(feed.apply(...sender.restart(150, 100)),
    { appended: 50, dropped: 0, restarted: false, answer: null });
  assertStates(feed, steps, 0);
  assert.equal(feed.trace.functions.get(1).name, "known at 150");
});

test("where something is missing, nothing is taken and a restart asked for, now and then", () => {
  const sender = new Sender(manySteps(300, 2));
  const feed = feedOf(MOST);
  feed.apply(...sender.restart(0, 10));
  sender.more(10);
  const answers = Array.from({ length: 51 }, () => feed.apply(...sender.more(1)).answer);
  assert.deepEqual(answers.map((answer) => answer !== null), Array.from({ length: 51 }, (_, at) => at % 50 === 0));
  assert.deepEqual(answers[0], { type: "again" });
  assert.equal(feed.trace.steps.length, 10);
  assert.equal(feed.apply(...sender.restart(60, 10)).restarted, true);
  assert.equal(feed.dropped, 60);
  sender.more(1);
  assert.deepEqual(feed.apply(...sender.more(1)).answer, { type: "again" });
  assert.equal(feedOf(MOST).apply({ type: "ended", fault: null }).answer, null);
});

test("what comes is acknowledged now and then", () => {
  const feed = feedOf(MOST);
  const [message, data] = new Sender(manySteps(5, 1)).restart(0, 5);
  assert.equal(feed.apply({ ...message, sent: 1_000_000 }, data).answer, null);
  assert.deepEqual(feed.apply({ ...message, sent: 3_000_000 }, data).answer, { type: "got", sent: 3_000_000 });
  assert.equal(feed.apply({ ...message, sent: 4_000_000 }, data).answer, null);
});

test("while frozen the trace stays as it is; then everything comes at once", () => {
  const steps = manySteps(1500, 3);
  const sender = new Sender(steps);
  const feed = feedOf(MOST);
  feed.apply(...sender.restart(0, 500));
  feed.freeze();
  for (let turn = 0; turn < 6; turn++) {
    const nothing = { appended: 0, dropped: 0, restarted: false, answer: null };
    assert.deepEqual(feed.apply(...sender.more(40)), nothing);
  }
  assert.equal(feed.came, 240);
  assertStates(feed, steps, 0);
  assert.equal(feed.trace.steps.length, 500);
  const { appended, dropped, restarted } = feed.follow();
  assert.deepEqual([appended, restarted, feed.came], [240, false, 0]);
  assert.equal(500 + 240 - dropped, feed.trace.steps.length);
  assertStates(feed, steps, 0);
  assert.equal(feed.apply(...sender.more(10)).appended, 10);
  feed.freeze();
  assert.equal(feed.follow().appended, 0);
});

test("a new beginning while frozen replaces what was kept aside", () => {
  const steps = manySteps(1500, 4);
  const sender = new Sender(steps);
  const feed = feedOf(MOST);
  feed.apply(...sender.restart(0, 100));
  feed.freeze();
  feed.apply(...sender.more(50));
  feed.trace.functions.set(9, {});
  feed.apply(...sender.restart(400, 50));
  assert.equal(feed.aside.length, 1);
  assert.deepEqual(feed.follow(), { appended: 50, dropped: 0, restarted: true, answer: null });
  assertStates(feed, steps, 400);
  assert.deepEqual([...feed.trace.functions.keys()], [1]);
});

test("what is kept aside is bounded: beyond that the player begins anew", () => {
  const steps = manySteps(1500, 5);
  const sender = new Sender(steps);
  const feed = feedOf(MOST);
  feed.apply(...sender.restart(0, 100));
  feed.freeze();
  const huge = new TextEncoder().encode(" ".repeat(6_000_000));
  for (let turn = 0; turn < 3; turn++) feed.apply(sender.more(10)[0], huge);
  assert.deepEqual([feed.aside.length, feed.asideBytes], [0, 0]);
  assert.deepEqual(feed.apply(...sender.more(10)).answer, { type: "again" });
  feed.apply(...sender.restart(130, 20));
  assert.equal(feed.follow().restarted, true);
  assertStates(feed, steps, 130);
});

test("when all that was there is dropped at once, that is a new beginning", () => {
  const steps = manySteps(3000, 6);
  const sender = new Sender(steps);
  const feed = feedOf(MOST);
  feed.apply(...sender.restart(0, 100));
  const { appended, dropped, restarted } = feed.apply(...sender.more(2000));
  assert.deepEqual([dropped, restarted], [0, true]);
  assert.equal(appended, feed.trace.steps.length);
  assertStates(feed, steps, 0);
  sender.restart(2200, 0);
  const { dropped: none, restarted: anew } = feed.apply(...sender.restart(2200, 520));
  assert.deepEqual([none, anew], [0, true]);
  assertStates(feed, steps, 2200);
});

test("a replay goes on where it was when its oldest steps are dropped", () => {
  const steps = manySteps(300, 8);
  const whole = statesOf(0, steps);
  const replay = new Replay({ base: baseState(0), functions: new Map(), steps: [...steps] });
  assert.equal(replay.drop(140), 128);
  for (const index of [130, -1, 5]) {
    assert.equal(plain(replay.state(index), 0), plain(whole[index + 129], 0));
  }
  assert.equal(replay.drop(63), 0);
});

test("the base state tells what is registered and queued when old steps are dropped", () => {
  const steps = manySteps(3000, 7);
  const sender = new Sender(steps);
  const feed = feedOf(MOST);
  feed.apply(...sender.restart(0, 1));
  while (sender.next < steps.length) feed.apply(...sender.more(100));
  const { base } = feed.trace;
  const [state, anew] = [feed.replay.state(-1), initial(base)];
  assert.equal(base.dropped, feed.dropped);
  const names = (/** @type {any} */ one) => [...one.registrations.values()].map((row) => [row.fd, row.name]).sort();
  assert.deepEqual(names(anew), names(state));
  assert.deepEqual([anew.urgent, anew.low, anew.timers], [state.urgent, state.low, state.timers]);
  assert.ok(state.timers.length && state.urgent.length && state.registrations.size > 1);
});

test("how long the loop has been quiet is told by the messages", () => {
  const feed = feedOf(MOST);
  const [message, data] = new Sender(manySteps(5, 1)).restart(0, 5);
  feed.apply({ ...message, quiet: 12 }, data);
  assert.ok(feed.quietFor() >= 12 && feed.silentFor() >= 0);
  feed.apply({ type: "ended", fault: null });
  assert.ok(feed.quietFor() >= 12);
  assert.equal(feed.trace.steps.length, 5);
});
