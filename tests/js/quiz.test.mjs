// The quiz: what it asks, when it tells the answer, what it counts and what it keeps.

import assert from "node:assert/strict";
import { test } from "node:test";
import { smallDocument } from "./small_dom.mjs";
import { Quiz, QuizProgress } from "../../tracer/static/quiz.js";

/** Questions after the steps 1, 11, 21, …: the second choice is right. @param {number} count */
function questions(count) {
  return Array.from({ length: count }, (_, number) => ({
    index: 10 * number,
    text: `What comes after ${number}?`,
    choices: ["one thing", "the truth", "another thing"],
    right: 1,
    explanation: `Because of rule ${number}.`,
    proof: number % 2 ? null : 10 * number + 1,
  }));
}

/** A quiz, and what it told its host. @param {any} asked @param {any} saved */
function quizOf(asked, saved = null) {
  /** @type {any[]} */
  const told = [];
  const host = {
    go: (/** @type {any} */ position) => told.push(["go", position]),
    hold: (/** @type {any} */ position) => told.push(["hold", position]),
    report: (/** @type {any} */ answer) => told.push(["report", answer]),
    keep: (/** @type {any} */ state) => told.push(["keep", structuredClone(state)]),
  };
  const quiz = new Quiz(host, asked, saved);
  const root = /** @type {any} */ (quiz.root);
  return {
    quiz,
    root,
    /** What was told since the last call, without the states. */
    told: () => told.splice(0).filter(([what]) => what !== "keep"),
    button: (/** @type {string} */ text) =>
      root.all((/** @type {any} */ one) => one.tagName === "BUTTON" && one.textContent.startsWith(text))[0],
    key: (/** @type {string} */ key, more = {}) => {
      let taken = false;
      const stop = () => { taken = true; };
      root.dispatch("keydown", { key, preventDefault: stop, stopPropagation: () => {}, ...more });
      return taken;
    },
  };
}

test("starting goes to the moment of the first question and holds the player there", () => {
  const { quiz, root, told, button } = quizOf(questions(3));
  assert.deepEqual(told(), []);
  button("Start").click();
  assert.deepEqual(told(), [["hold", 1], ["go", 1]]);
  assert.ok(quiz.open);
  assert.match(root.textContent, /Question 1 of 3.*What comes after 0\?/);
  assert.match(smallDocument.activeElement?.textContent ?? "", /What comes after 0/);
});

test("nothing tells the answer before it is given", () => {
  const { root, button } = quizOf(questions(1));
  button("Start").click();
  assert.doesNotMatch(root.textContent, /rule 0|right answer|answer is/i);
  const choices = root.withClass("quiz-choice");
  assert.equal(choices.length, 3);
  assert.equal(new Set(choices.map((/** @type {any} */ one) => one.className)).size, 1);
  assert.ok(choices.every((/** @type {any} */ one) => one.attributes.size === 1)); // its type
});

test("a wrong answer says so in words, tells the truth and the rule, and lets the player go", () => {
  const { quiz, root, told, button } = quizOf(questions(3));
  button("Start").click();
  told();
  root.withClass("quiz-choice")[0].click();
  const score = { right: 0, asked: 1, total: 3 };
  assert.deepEqual(told(), [["hold", null], ["report", { question: 0, choice: 0, right: false, score }]]);
  assert.ok(!quiz.open);
  const verdict = root.withClass("quiz-verdict")[0];
  assert.equal(verdict.getAttribute("role"), "status");
  assert.match(verdict.textContent, /✗ Not this time.*The answer is: the truth.*Because of rule 0/);
  assert.match(root.withClass("right")[0].textContent, /the truth ✓ right answer/);
  assert.match(root.withClass("quiz-choice")[0].textContent, /✗ your answer/);
});

test("a right answer counts, and only the first one does", () => {
  const { root, told, button } = quizOf(questions(2));
  button("Start").click();
  const [first, second] = root.withClass("quiz-choice");
  told();
  second.click();
  first.click();
  assert.deepEqual(told().map(([what, value]) => (what === "report" ? value.score : what)),
    ["hold", { right: 1, asked: 1, total: 2 }]);
  assert.match(root.textContent, /1 right so far/);
  assert.match(root.withClass("quiz-verdict")[0].textContent, /^✓ Right\.Because/);
});

test("show it happen steps to the proof, and is not offered where there is none", () => {
  const { told, button, key } = quizOf(questions(2));
  button("Start").click();
  key("b");
  told();
  button("Show it happen").click();
  assert.ok(key("s"));
  assert.deepEqual(told(), [["go", 2], ["go", 2]]);
  key("n");
  key("b");
  assert.equal(button("Show it happen"), undefined);
  assert.ok(!key("s"));
});

test("letters and digits answer, n goes on, and other keys stay the player's", () => {
  const { quiz, button, key } = quizOf(questions(4));
  assert.ok(!key("a"));
  button("Start").click();
  for (const other of ["d", "4", "0", "n", " ", "ArrowRight", "Home", ""]) assert.ok(!key(other), other);
  assert.ok(!key("a", { ctrlKey: true }));
  for (const answer of ["B", "2", "a", "1"]) {
    assert.ok(key(answer));
    assert.ok(!key(answer));
    assert.ok(key("n"));
  }
  assert.deepEqual(quiz.progress.first, [1, 1, 0, 0]);
  assert.equal(quiz.progress.phase, "summary");
});

test("the end lists what was missed, which can be tried again without changing the score", () => {
  const { quiz, root, told, button, key } = quizOf(questions(3));
  button("Start").click();
  for (const answer of ["a", "b", "c"]) {
    key(answer);
    key("n");
  }
  assert.match(root.textContent, /^1 of 3 right/);
  assert.equal(root.withClass("quiz-missed")[0].childElementCount, 2);
  assert.doesNotMatch(root.withClass("quiz-missed")[0].textContent, /truth/);
  told();
  button("Try the missed ones again").click();
  assert.deepEqual(told(), [["hold", 1], ["go", 1]]);
  key("b");
  key("n");
  assert.equal(quiz.progress.number, 2);
  key("a");
  key("n");
  assert.deepEqual(quiz.progress.missed(), [2]);
  assert.deepEqual(quiz.progress.score, { right: 1, asked: 3, total: 3 });
  assert.match(root.textContent, /By now you have found 2 of 3/);
  button("Start over").click();
  assert.deepEqual(quiz.progress.score, { right: 0, asked: 0, total: 3 });
});

test("what was kept is gone on from, without moving or holding the player unasked", () => {
  const before = quizOf(questions(3));
  before.button("Start").click();
  before.key("b");
  before.key("n");
  const { told, button, root, quiz } = quizOf(questions(3), JSON.parse(JSON.stringify(before.quiz.state())));
  assert.deepEqual(told(), []);
  assert.match(root.textContent, /You are at question 2 of 3/);
  button("Go on").click();
  assert.deepEqual(told(), [["hold", 11], ["go", 11]]);
  assert.deepEqual(quiz.progress.score, { right: 1, asked: 1, total: 3 });
});

test("what was kept waits for questions that come later", () => {
  const fits = new QuizProgress(questions(3)).state();
  const saved = { ...fits, at: 1, first: [1, null, null], latest: [1, null, null] };
  const { quiz, root } = quizOf(null, saved);
  assert.deepEqual(quiz.state(), saved);
  quiz.update(questions(3));
  assert.match(root.textContent, /You are at question 2 of 3/);
  quiz.update(questions(3)); // other ones: from the beginning
  assert.match(root.textContent, /3 questions/);
});

test("an answer that was kept is shown with its verdict, and asks for no second one", () => {
  const before = quizOf(questions(3));
  before.button("Start").click();
  before.key("a");
  const { told, button, key, root } = quizOf(questions(3), before.quiz.state());
  button("Go on").click();
  assert.deepEqual(told(), [["go", 1]]);
  assert.match(root.textContent, /Not this time/);
  assert.ok(!key("b"));
  before.quiz.update(questions(3), before.quiz.state());
  assert.ok(!before.key("n")); // its keys wait until it is shown again
});

test("a state of another quiz, or a broken one, is ignored", () => {
  const fits = new QuizProgress(questions(3)).state();
  for (const wrong of [
    { ...fits, first: [0] }, { ...fits, first: [0, 1, 9] }, { ...fits, latest: null },
    { ...fits, latest: [0, 1, 9] }, { ...fits, queue: [7] }, { ...fits, at: 9 }, { ...fits, at: -5 },
    { ...fits, at: 0.5 }, { ...fits, at: -1, chosen: 1 }, { ...fits, at: 0, chosen: 5 }, {}, 3, "x",
  ]) {
    assert.equal(new QuizProgress(questions(3), /** @type {any} */ (wrong)).phase, "start");
    assert.deepEqual(new QuizProgress(questions(3), /** @type {any} */ (wrong)).state(), fits);
  }
  assert.equal(new QuizProgress(questions(3), { ...fits, at: 1 }).phase, "question");
});

test("pausing, closing and new questions let the player go", () => {
  for (const leave of ["pause", "close", "update"]) {
    const { quiz, told, button, key } = quizOf(questions(2));
    button("Start").click();
    told();
    if (leave === "pause") button("Pause").click();
    else if (leave === "close") quiz.close();
    else quiz.update(questions(1));
    assert.deepEqual(told(), [["hold", null]], leave);
    assert.ok(!key("b"), leave);
  }
});

test("in live mode moments move as steps are dropped, and those that are gone are passed over", () => {
  const { quiz, told, button, key, root } = quizOf(questions(4));
  button("Start").click();
  key("b");
  key("n");
  told();
  quiz.grow(0);
  quiz.grow(5);
  assert.deepEqual(told(), [["hold", 6]]);
  quiz.grow(16);
  assert.deepEqual(told(), [["hold", null]]);
  button("Go on").click();
  assert.deepEqual(told(), [["hold", 0], ["go", 0]]);
  assert.equal(quiz.progress.number, 2);
  key("b");
  quiz.grow(1);
  told();
  key("s");
  assert.deepEqual(told(), [["go", 0]]);
  quiz.grow(1000);
  key("n");
  assert.match(root.textContent, /^2 of 4 right/);
  assert.deepEqual(root.withClass("quiz-missed"), []); // what was never asked was not missed
});

test("without questions, or before they are known, it says so", () => {
  assert.match(quizOf([]).root.textContent, /no moment to ask about/);
  const { quiz, root, button } = quizOf(null);
  assert.match(root.textContent, /Making questions/);
  quiz.update(questions(1));
  assert.match(root.textContent, /1 question\. It stops/);
  assert.ok(button("Start"));
});

test("hostile texts become harmless, and are cut", () => {
  const name = "<b>\u202e\n" + "x".repeat(10_000);
  const [question] = questions(1);
  const { root, button, key } = quizOf([{ ...question, text: name, choices: [name, "b"], explanation: name }]);
  button("Start").click();
  key("b");
  assert.ok(root.textContent.includes("<b>\ufffd "));
  assert.ok(!root.textContent.includes("\u202e"));
  assert.ok(root.textContent.length < 4000);
});
