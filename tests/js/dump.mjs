// Prints, for a trace file and a shape, what the browser's modules make of every step, as JSON.
// Usage: node dump.mjs <trace file> <shape as JSON>

import { readFileSync } from "node:fs";
import { contents, litArrows } from "../../tracer/static/contents.js";
import { Replay, parseTrace, stateToJson } from "../../tracer/static/fold.js";
import { sentence } from "../../tracer/static/words.js";

const words = JSON.parse(
  readFileSync(new URL("../../tracer/static/words.json", import.meta.url), "utf8"),
);
const trace = parseTrace(readFileSync(process.argv[2], "utf8"));
const shape = JSON.parse(process.argv[3]);
const replay = new Replay(trace);
for (let index = -1; index < trace.steps.length; index++) {
  const state = replay.state(index);
  const step = index < 0 ? null : trace.steps[index];
  const filled = contents(words, state, trace, shape);
  console.log(JSON.stringify({
    state: stateToJson(state),
    sentence: sentence(words, step, state, trace),
    contents: Object.fromEntries(filled),
    lit: litArrows(step, filled),
  }));
}
