// What stands in the places of the picture, and the words: cases that traces seldom reach.

import assert from "node:assert/strict";
import { test } from "node:test";
import { amount, firstShown, sourceLines, visibleSlots, wrapped } from "../../tracer/static/contents.js";
import { count, duration, fill, shown } from "../../tracer/static/words.js";

test("numbers of bytes stay short", () => {
  assert.deepEqual([0, 99_999, 1_234_567, 12_345_678_900].map(amount), ["0", "99,999", "1,234k", "12,345M"]);
  assert.deepEqual([count(1, "byte"), count(1024, "byte")], ["1 byte", "1,024 bytes"]);
});

test("times carry the unit that fits", () => {
  assert.deepEqual([0, 999, 1250, 250_000_000, 61e9].map(duration), ["0 ns", "999 ns", "1.2 µs", "250 ms", "61.0 s"]);
});

test("names are made harmless and cut by characters, not by halves of them", () => {
  assert.equal(shown("a\nb\u202ec"), "a b\ufffdc");
  assert.equal(shown("😀😀😀", 2), "😀…");
});

test("a template takes braces and dollars in values as they are", () => {
  assert.equal(fill("{a} {b}", { a: "{b} $& $1", b: 2 }), "{b} $& $1 2");
});

test("the active slot always has a row", () => {
  assert.deepEqual(visibleSlots([3, 20], 4), [0, 1, 20, 3]);
  assert.deepEqual(visibleSlots([20, 21], 4), [0, 1, 21, 20]);
});

test("code is dedented, wrapped and scrolled to its marked line", () => {
  assert.deepEqual(sourceLines("    def f():\n\treturn 1\n\n"), ["def f():", "return 1"]);
  assert.ok(wrapped("    " + "x".repeat(200)).every((line) => line.length <= 48));
  assert.deepEqual([null, 0, 15, 29].map((at) => firstShown(30, at, 10)), [0, 0, 10, 20]);
});
