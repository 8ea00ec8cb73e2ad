// Prints, for a trace file, what the browser says of the causes of every step, as JSON.
// Usage: node dump_causes.mjs <trace file>

import { readFileSync } from "node:fs";
import { Causes } from "../../tracer/static/causes.js";
import { parseTrace } from "../../tracer/static/fold.js";

const words = JSON.parse(
  readFileSync(new URL("../../tracer/static/words.json", import.meta.url), "utf8"),
);
const trace = parseTrace(readFileSync(process.argv[2], "utf8"));
const causes = new Causes(words, trace);
for (let index = 0; index < trace.steps.length; index++) {
  console.log(JSON.stringify({
    found: causes.indexOf(trace.steps[index].seq),
    cause: causes.cause(index),
    effects: causes.effects(index),
    why: causes.why(index).map((reason) => [reason.index, reason.text, reason.inferred]),
    because: causes.because(index),
    sentence: causes.known.sentence(index),
  }));
}
