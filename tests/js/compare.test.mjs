// Two players in step: the ways through two runs, and who follows whom. The document is a stand-in.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Compare, CompareWay, compareMatch } from "../../tracer/static/compare.js";

/** As much of an element as the component uses. */
class Element {
  constructor(/** @type {string} */ name) {
    this.name = name;
    /** @type {Record<string, string>} */
    this.attributes = {};
    /** @type {any[]} */
    this.children = [];
    /** @type {Record<string, (event: any) => void>} */
    this.listeners = {};
    this.classes = new Set();
    this.text = "";
    this.removed = false;
    const properties = /** @type {Record<string, string>} */ ({});
    this.style = { properties, setProperty: (/** @type {string} */ key, /** @type {string} */ value) => { properties[key] = value; } };
    this.classList = {
      add: (/** @type {string} */ one) => this.classes.add(one),
      remove: (/** @type {string} */ one) => this.classes.delete(one),
      toggle: (/** @type {string} */ one, /** @type {boolean} */ on) => (on ? this.classes.add(one) : this.classes.delete(one)),
    };
  }

  setAttribute(/** @type {string} */ key, /** @type {string} */ value) { this.attributes[key] = value; }

  append(/** @type {any[]} */ ...children) { this.children.push(...children); }

  replaceChildren(/** @type {any[]} */ ...children) { this.children = children; }

  addEventListener(/** @type {string} */ kind, /** @type {any} */ listener) { this.listeners[kind] = listener; }

  matches(/** @type {string} */ name) { return this.name === name; }

  after() {}

  querySelector() { return this.all().find((one) => one.name === "path"); }

  closest(/** @type {string} */ names) { return names.split(", ").includes(this.name) ? this : null; }

  remove() { this.removed = true; }

  get dataset() { return { beat: this.attributes["data-beat"], action: this.attributes["data-action"] }; }

  get textContent() { return this.text + this.children.map((one) => one.textContent ?? one).join(""); }

  set textContent(text) { this.text = text; this.children = []; }

  /** @returns {any[]} */
  all() { return [this, ...this.children.flatMap((one) => one.all?.() ?? [])]; }
}

Object.assign(globalThis, {
  Element,
  window: globalThis,
  document: {
    createElement: (/** @type {string} */ name) => new Element(name),
    createElementNS: (/** @type {string} */ _, /** @type {string} */ name) => new Element(name),
  },
});

/** A side that remembers what it showed. @param {string} kinds a letter a step: W begins a round */
function side(kinds) {
  /** @type {((position: number) => void)[]} */
  const callbacks = [];
  const steps = Array.from(kinds, (letter) => ({ kind: letter === "W" ? "WaitStarted" : "Read" }));
  return {
    total: steps.length, position: -1, trace: { steps }, shows: 0, aloud: true,
    root: /** @type {any} */ (new Element("div")),
    show(/** @type {number} */ position) {
      this.position = position;
      this.shows += 1;
      for (const callback of callbacks) callback(position);
    },
    speak(/** @type {boolean} */ aloud) { this.aloud = aloud; },
    onShow(/** @type {(position: number) => void} */ callback) { callbacks.push(callback); },
  };
}

/** Two runs of two rounds: the first round of a has two steps more. */
function compared() {
  const [left, right] = [side("xWxxxWx"), side("xWxWx")];
  const player = new Compare({
    words: {}, left, right, labels: ["level\u202e", "<b>edge</b>"],
    pairing: {
      by_round: [0, 0, 3, 3, 5, 3, 7, 5],
      by_time: [0, 0, 1, 1, 1, 5, 7, 5],
      matches: [0, 0, 3, 5, 3, 2],
    },
    divergence: { text: "read in a, wait in b.", at: [4, 4] },
  });
  return { left, right, player };
}

/** @param {Compare} player @param {string} key @param {any} more */
function press(player, key, more = {}) {
  const event = {
    key, target: player.root, prevented: false, stopped: false,
    preventDefault() { this.prevented = true; }, stopPropagation() { this.stopped = true; }, ...more,
  };
  /** @type {any} */ (player.root).listeners.keydown(event);
  return event;
}

const places = (/** @type {any} */ { left, right }) => [left.position, right.position];

test("between two corners both set out together and the shorter way is spread over the longer", () => {
  const way = new CompareWay([0, 0, 2, 5, 2, 7]);
  assert.equal(way.total, 7);
  const all = Array.from({ length: 8 }, (_, moment) => way.at(moment));
  assert.deepEqual(all, [[0, 0], [1, 1], [1, 2], [2, 3], [2, 4], [2, 5], [2, 6], [2, 7]]);
});

test("a position's moment is the first at which it is reached, on any way", () => {
  let seed = 7;
  const random = (/** @type {number} */ below) => (seed = (seed * 48271) % 2147483647) % below;
  for (let round = 0; round < 50; round++) {
    const corners = [0, 0];
    for (let corner = 1; corner < 12; corner++) {
      const [a, b] = corners.slice(-2);
      corners.push(a + random(9), b + 1 + random(200));
    }
    const way = new CompareWay(corners);
    const all = Array.from({ length: way.total + 1 }, (_, moment) => way.at(moment));
    for (const side of /** @type {(0 | 1)[]} */ ([0, 1])) {
      for (let position = 0; position <= all[way.total][side]; position++) {
        assert.equal(way.momentOf(side, position), all.findIndex((at) => at[side] >= position));
      }
      assert.equal(way.momentOf(side, 1e9), way.momentOf(side, all[way.total][side]));
    }
  }
});

test("a way without a step has one moment", () => {
  const way = new CompareWay([0, 0]);
  assert.deepEqual([way.total, way.at(0), way.momentOf(1, 3)], [0, [0, 0], 0]);
});

test("a step's match is found in both directions, and none outside of the stretches", () => {
  const matches = [0, 0, 3, 5, 3, 2];
  assert.deepEqual([0, 2, 3, 4, 5, 6, 7].map((at) => compareMatch(matches, 0, at)), [0, 2, null, null, 3, 4, null]);
  assert.deepEqual([2, 3, 4, 5].map((at) => compareMatch(matches, 1, at)), [2, 5, 6, null]);
  assert.equal(compareMatch([], 0, 0), null);
});

test("keys step, go round by round, to the ends and to the difference, on both sides at once", () => {
  const both = compared();
  const went = (/** @type {string} */ key, more = {}) => {
    const event = press(both.player, key, more);
    assert.ok(event.prevented && event.stopped);
    return places(both);
  };
  assert.deepEqual(places(both), [0, 0]);
  assert.deepEqual(went("ArrowRight"), [1, 1]);
  assert.deepEqual(went("ArrowRight", { shiftKey: true }), [2, 2]);
  assert.deepEqual(went("ArrowRight", { shiftKey: true }), [6, 4]);
  assert.deepEqual(went("ArrowRight", { shiftKey: true }), [7, 5]);
  assert.deepEqual(went("ArrowRight"), [7, 5]);
  assert.deepEqual(went("ArrowLeft", { shiftKey: true }), [6, 4]);
  assert.deepEqual(went("ArrowLeft"), [5, 3]);
  assert.deepEqual(went("d"), [4, 3]);
  assert.deepEqual(went("Home"), [0, 0]);
  assert.deepEqual(went("ArrowLeft"), [0, 0]);
  assert.deepEqual(went("End"), [7, 5]);
});

test("keys of others stay theirs: with Ctrl, in the speed menu, Space on a button, letters", () => {
  const { player } = compared();
  assert.equal(press(player, "ArrowRight", { ctrlKey: true }).prevented, false);
  assert.equal(press(player, "ArrowRight", { target: player.controls.speed }).prevented, false);
  assert.equal(press(player, " ", { target: new Element("button") }).prevented, false);
  assert.equal(press(player, "x").prevented, false);
  assert.equal(player.position, 0);
});

test("whichever side is moved by somebody else, the other follows, and neither is shown twice", () => {
  const both = compared();
  both.left.show(6);
  assert.deepEqual(places(both), [6, 4]);
  both.right.show(2);
  assert.deepEqual(places(both), [2, 2]);
  const shows = both.left.shows;
  both.right.show(2);
  assert.equal(both.left.shows, shows);
});

test("where both wait for each other's rest, a side that is there already moves nothing", () => {
  const both = compared();
  both.player.show(4);
  assert.deepEqual(places(both), [4, 3]);
  both.right.show(3);
  assert.deepEqual(places(both), [4, 3]);
});

test("by time the other way is gone, a stays where it is, and the marker moves", () => {
  const both = compared();
  both.player.show(5);
  const before = both.player.marker.style.properties["--compare-part"];
  press(both.player, "t");
  assert.deepEqual(places(both), [5, 5]);
  assert.deepEqual(both.player.beats.map((one) => one.attributes["aria-pressed"]), ["false", "true"]);
  assert.equal(both.player.controls.slider.max, String(1 + 4 + 6));
  assert.notEqual(both.player.marker.style.properties["--compare-part"], before);
});

test("the banner says that they are the same so far, where they part, and since when", () => {
  const { player } = compared();
  const banner = (/** @type {number} */ moment) => {
    player.show(moment);
    return [player.bannerText.textContent.trim(), player.banner.classes.has("parted")];
  };
  assert.deepEqual(banner(3), ["The same so far.", false]);
  assert.deepEqual(banner(4), ["They differ from here. read in a, wait in b.", true]);
  assert.deepEqual(banner(6), ["They differ since step 4. read in a, wait in b.", true]);
  assert.deepEqual(banner(0), ["The same so far.", false]);
});

test("equal runs have no marker and no button, and say so", () => {
  const [left, right] = [side("xx"), side("xx")];
  const player = new Compare({
    words: {}, left, right, labels: ["a", "b"],
    pairing: { by_round: [0, 0, 2, 2], by_time: [0, 0, 2, 2], matches: [0, 0, 2] },
    divergence: { text: "The runs are equal: 2 steps each.", at: null },
  });
  assert.equal(player.marker.hidden, true);
  assert.equal(player.banner.children.length, 1);
  assert.equal(player.bannerText.textContent.trim(), "The runs are equal: 2 steps each.");
  press(player, "d");
  assert.equal(player.position, 0);
});

test("the headings count, name the step that only one run has, and the run that is over", () => {
  const { player } = compared();
  const heads = (/** @type {number} */ moment) => {
    player.show(moment);
    return player.heads.map(({ at, note }) => `${at.textContent} ${note.textContent}`.trim());
  };
  assert.deepEqual(heads(1), ["1 of 7 steps", "1 of 5 steps"]);
  assert.deepEqual(heads(4), ["4 of 7 steps only in a", "3 of 5 steps"]);
  press(player, "t");
  assert.deepEqual(heads(5), ["1 of 7 steps", "5 of 5 steps over"]);
  assert.match(player.controls.slider.attributes["aria-valuetext"], /^a: 1 of 7, b: 5 of 5$/);
});

test("labels are cleaned and stay text", () => {
  const { player } = compared();
  const labels = (/** @type {any} */ (player.root)).all().filter((/** @type {any} */ one) => one.attributes.class === "compare-label");
  assert.deepEqual(labels.map((/** @type {any} */ one) => one.textContent), ["level\ufffd", "<b>edge</b>"]);
});

test("playing silences the sentences of both, until it is paused or one side is moved", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] }); // the bar's own timing is not tested here
  const both = compared();
  const aloud = () => [both.left.aloud, both.right.aloud, !both.player.controls.playing];
  press(both.player, " ");
  assert.deepEqual(aloud(), [false, false, false]);
  press(both.player, " ");
  assert.deepEqual(aloud(), [true, true, true]);
  press(both.player, " ");
  both.left.show(3);
  assert.deepEqual(aloud(), [true, true, true]);
});

test("pairing otherwise ends playing", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { player } = compared();
  press(player, " ");
  press(player, "t");
  assert.equal(player.controls.playing, false);
});

test("playing begins anew at the end", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const both = compared();
  both.player.show(both.player.total);
  press(both.player, " ");
  assert.deepEqual(places(both), [0, 0]);
  both.player.close();
});

test("once closed, it plays and follows no more", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const both = compared();
  both.player.controls.play();
  both.player.close();
  assert.equal(both.player.controls.playing, false);
  both.left.show(6);
  assert.deepEqual([places(both), /** @type {any} */ (both.player.root).removed], [[6, 0], true]);
});
