// The panel of findings: what it shows, where it goes, and that many are no burden.

import assert from "node:assert/strict";
import { test } from "node:test";
import { frames } from "./small_dom.mjs";
import { Findings } from "../../tracer/static/findings.js";

const LINTS = {
  "edge-not-drained": { title: "Edge not drained", why: "Bytes stay.", how: "Read on." },
  "task-flood": { title: "Task flood", why: "It never sleeps.", how: "Call later." },
};

/** @param {string} name @param {number} index @param {object} more */
function finding(name, index, more = {}) {
  return {
    name, index, indices: [index, index + 2], place: "server.py line 12 in echo",
    source: "conn.recv(64)", text: `It happened at ${index}.`, times: 1, ...more,
  };
}

/** @param {any[] | null} found */
function panelOf(found) {
  /** @type {number[]} */
  const went = [];
  const host = { go: (/** @type {number} */ position) => went.push(position) };
  const panel = new Findings(host, found && { searched: 500, lints: LINTS, findings: found });
  return { panel, went, root: /** @type {any} */ (panel.root) };
}

/** The texts of the cards that are marked as current. @param {any} root */
function current(root) {
  return root.withClass("current").map((/** @type {any} */ one) => one.withClass("finding-text")[0].textContent);
}

test("cards say where, what and which line, and unfold why and how when they are chosen", () => {
  const { root, went } = panelOf([finding("edge-not-drained", 4), finding("task-flood", 9, { times: 3 })]);
  assert.match(root.textContent, /2 findings in 500 steps/);
  const [first, second] = root.withClass("finding-go");
  assert.match(first.textContent, /step 5 server\.py line 12 in echo conn\.recv\(64\) It happened at 4\./);
  assert.match(second.textContent, /3 times/);
  assert.doesNotMatch(root.textContent, /Bytes stay/);
  first.click();
  assert.deepEqual(went, [5]);
  assert.match(root.textContent, /Why it hurts.*Bytes stay\..*How to mend it.*Read on\./);
  assert.equal(first.getAttribute("aria-expanded"), "true");
  second.click();
  assert.deepEqual(root.withClass("finding-more").map((/** @type {any} */ one) => one.hidden), [true, false]);
});

test("the findings at the step that is shown are marked, one of them is unfolded", () => {
  const { panel, root } = panelOf([
    finding("edge-not-drained", 4), finding("task-flood", 4, { text: "B" }), finding("task-flood", 9),
  ]);
  panel.show(4);
  assert.deepEqual(current(root), []);
  panel.show(5);
  assert.deepEqual(current(root), ["It happened at 4.", "B"]);
  assert.equal(root.withClass("finding-more").filter((/** @type {any} */ one) => !one.hidden).length, 1);
  panel.show(6);
  assert.deepEqual(current(root), []);
});

test("next and previous go from finding to finding and end where there is none", () => {
  const { panel } = panelOf([finding("edge-not-drained", 4), finding("task-flood", 4), finding("task-flood", 9)]);
  assert.deepEqual([0, 5, 7, 10].map((at) => panel.next(1, at)), [5, 10, 10, null]);
  assert.deepEqual([5, 6, 10, 99].map((at) => panel.next(-1, at)), [null, 5, 5, 10]);
  assert.deepEqual(panel.indices, [4, 6, 9, 11]);
});

test("of a thousand findings a few are drawn, and the current one is always among them", () => {
  const many = Array.from({ length: 1000 }, (_, number) => finding("task-flood", number));
  const { panel, root } = panelOf(many);
  assert.equal(root.withClass("finding").length, 10);
  assert.match(root.textContent, /1 to 10 of 1,000/);
  panel.show(778);
  assert.deepEqual(current(root), ["It happened at 777."]);
  assert.equal(root.withClass("finding").length, 10);
  const [earlier, later] = root.withClass("findings-turn");
  later.click();
  assert.match(root.textContent, /781 to 790 of 1,000/);
  earlier.click();
  earlier.click();
  assert.match(root.textContent, /761 to 770 of 1,000/);
  panel.show(1000);
  later.click();
  assert.match(root.textContent, /991 to 1,000 of 1,000/);
  assert.equal(later.getAttribute("aria-disabled"), "true");
});

test("in live mode numbers move as steps are dropped, and what is gone leaves the list", () => {
  const found = [finding("edge-not-drained", 4), finding("task-flood", 9)];
  const { panel, root, went } = panelOf(found);
  panel.show(10);
  panel.grow(0);
  panel.grow(5);
  assert.deepEqual(current(root), ["It happened at 9."]);
  assert.match(root.textContent, /1 finding in 500 steps.*step 5/);
  root.withClass("finding-go")[0].click();
  assert.deepEqual(went, [5]);
  assert.deepEqual(panel.indices, [4, 6]);
  assert.equal(found[1].index, 9); // what was handed in is somebody else's
});

test("of several findings at one step the one that was chosen stays unfolded, on its page", () => {
  const alike = Array.from({ length: 20 }, (_, number) => finding("task-flood", 4, { text: `No. ${number}` }));
  const { panel, root } = panelOf(alike);
  root.withClass("findings-turn")[1].click();
  const third = root.withClass("finding-go")[2];
  third.click();
  panel.show(5);
  assert.equal(root.withClass("finding-go")[2], third); // not drawn anew: it keeps the focus
  assert.match(third.textContent, /No\. 12/);
  assert.equal(third.getAttribute("aria-expanded"), "true");
});

test("pages stay open in live mode for as long as they have something to show", () => {
  const many = Array.from({ length: 25 }, (_, number) => finding("task-flood", number, { indices: [0, number] }));
  const { panel, root } = panelOf(many);
  root.withClass("findings-turn")[1].click();
  const card = root.withClass("finding")[0];
  panel.grow(0);
  assert.equal(root.withClass("finding")[0], card);
  panel.grow(5);
  assert.match(root.textContent, /11 to 20 of 20/);
  assert.equal(panel.indices[0], 0);
  panel.grow(9);
  assert.match(root.textContent, /11 to 11 of 11/);
  panel.grow(1);
  assert.equal(root.withClass("finding").length, 10);
});

test("the current card is scrolled into view, by moving the panel alone", () => {
  const { panel, root } = panelOf([finding("edge-not-drained", 4), finding("task-flood", 9)]);
  const [first, second] = root.withClass("finding");
  Object.assign(first, { offsetTop: 10, offsetHeight: 40 });
  Object.assign(second, { offsetTop: 250, offsetHeight: 40 });
  root.clientHeight = 100;
  /** @param {number} position */
  const shown = (position) => {
    panel.show(position);
    for (const draw of frames.splice(0)) draw();
    return root.scrollTop;
  };
  assert.deepEqual([10, 5, 6, 10].map(shown), [190, 10, 10, 190]);
});

test("without findings it says what was looked for; before they are known, that it is looking", () => {
  const { panel, root } = panelOf(null);
  assert.match(root.textContent, /Looking for mistakes/);
  assert.equal(panel.next(1, 0), null);
  panel.update({ searched: 500, lints: LINTS, findings: [] });
  assert.match(root.textContent, /Nothing wrong was found in 500 steps.*Edge not drainedTask flood/);
});

test("hostile texts become harmless, and are cut", () => {
  const name = "<b>\u202e\n" + "x".repeat(10_000);
  const { root } = panelOf([finding("task-flood", 1, { place: name, source: name, text: name })]);
  assert.ok(root.textContent.includes("<b>\ufffd "));
  assert.ok(!root.textContent.includes("\u202e"));
  assert.ok(root.textContent.length < 3000);
});
