// The quiz: what happens next? It asks, takes an answer, says why, and keeps the score.

import { classed } from "./elements.js";
import { count, fill, grouped, shown } from "./words.js";

/** @typedef {{index: number, text: string, choices: string[], right: number, explanation: string,
 *   proof: number | null}} Question as `questions_json` of tracer/panels.py gives it */
/** @typedef {{right: number, asked: number, total: number}} Score */
/** @typedef {{queue: number[], at: number, chosen: number | null, first: (number | null)[],
 *   latest: (number | null)[]}} QuizState */
/** @typedef {{
 *   go: (position: number) => void,
 *   hold?: (position: number | null) => void,
 *   report?: (answer: {question: number, choice: number, right: boolean, score: Score}) => void,
 *   keep?: (state: QuizState) => void,
 * }} QuizHost what the quiz tells the player: where to go, beyond which position nothing may be
 *   shown while a question is open, an answer, and the state to keep */

const QUIZ_TEXT = Object.freeze({
  label: "Quiz",
  waiting: "Making questions of the recording…",
  title: "What happens next?",
  intro: "{questions}. Each stops the replay at a moment and asks what comes next. Look at the picture, then predict. It is practice, not an exam.",
  one: "{questions}. It stops the replay at a moment and asks what comes next. Look at the picture, then predict. It is practice, not an exam.",
  none: "This recording has no moment to ask about.",
  noneWhy: "A question is made where the rules of the loop decide what comes next. Record a server with two or three clients.",
  start: "Start",
  paused: "You are at question {number} of {total}.",
  resume: "Go on",
  restart: "Start over",
  number: "Question {number} of {total}",
  again: "Once more: {number} of {total}",
  progress: "Progress",
  score: "{right} right so far",
  moment: "after step {number}",
  toMoment: "Show the moment asked about: after step {number}",
  choices: "Answers",
  hint: "Press a to {letter}, or 1 to {number}.",
  pause: "Pause",
  right: "Right.",
  wrong: "Not this time.",
  truth: "The answer is: {truth}",
  isRight: "right answer",
  isChosen: "your answer",
  show: "Show it happen",
  next: "Next question",
  finish: "See how it went",
  allRight: "All {total} right.",
  result: "{right} of {total} right.",
  later: "That counts the first answers. By now you have found {right} of {total}.",
  missed: "Worth another look:",
  missedOne: "Question {number}, after step {step}",
  retry: "Try the missed ones again",
});

const QUIZ_LETTERS = "abcdefgh";
const QUIZ_LONGEST_TEXT = 1000;

/** How far somebody has come: plain values, no picture. */
export class QuizProgress {
  /**
   * @param {Question[]} questions
   * @param {QuizState | null | undefined} saved what `state` gave; ignored if it is of another quiz
   */
  constructor(questions, saved = null) {
    const from = quizStateFits(questions, saved) ? saved : quizUntouched(questions);
    this.questions = questions;
    /** The numbers of the questions that are asked in this pass. */
    this.queue = [...from.queue];
    /** The place in the queue; -1 before the start, its length after the last. */
    this.at = from.at;
    /** The answer to the question that is asked. */
    this.chosen = from.chosen;
    /** The first answer to each question: the score counts these. */
    this.first = [...from.first];
    this.latest = [...from.latest];
  }

  /** @returns {"start" | "question" | "answered" | "summary"} */
  get phase() {
    if (this.at < 0) return "start";
    if (this.at >= this.queue.length) return "summary";
    return this.chosen === null ? "question" : "answered";
  }

  /** The number of the question that is asked, from 0. */
  get number() {
    return this.queue[this.at];
  }

  get question() {
    return this.questions[this.number];
  }

  /** Take the answer `choice`, and say whether it is right. @param {number} choice */
  answer(choice) {
    this.chosen = choice;
    this.first[this.number] ??= choice;
    this.latest[this.number] = choice;
    return choice === this.question.right;
  }

  next() {
    this.at += 1;
    this.chosen = null;
  }

  /** The questions whose last answer was wrong. */
  missed() {
    return this.questions.flatMap((question, number) => {
      const latest = this.latest[number];
      return latest === null || latest === question.right ? [] : [number];
    });
  }

  /** Ask the missed ones again. @param {number[]} numbers */
  retry(numbers) {
    this.queue = numbers;
    this.at = 0;
    this.chosen = null;
  }

  /** @returns {Score} */
  get score() {
    const asked = this.first.filter((choice) => choice !== null).length;
    const right = this.questions.filter((question, number) => this.first[number] === question.right);
    return { right: right.length, asked, total: this.questions.length };
  }

  /** What a new `QuizProgress` goes on from. @returns {QuizState} */
  state() {
    return {
      queue: [...this.queue], at: this.at, chosen: this.chosen,
      first: [...this.first], latest: [...this.latest],
    };
  }
}

export class Quiz {
  /**
   * @param {QuizHost} host
   * @param {Question[] | null} questions null until they are known: `update` tells them then
   * @param {QuizState | null} saved what `state` gave
   */
  constructor(host, questions = null, saved = null) {
    this.host = host;
    this.progress = new QuizProgress(questions ?? [], saved);
    this.waiting = questions === null;
    /** What to go on from when the questions come. */
    this.saved = this.waiting ? saved : null;
    this.dropped = 0;
    /** A question waits for its answer, and the player is held at its moment. */
    this.open = false;
    /** What the keys do after an answer. @type {Record<string, () => void>} */
    this.actions = {};
    this.root = classed("div", "quiz");
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", QUIZ_TEXT.label);
    this.root.tabIndex = 0; // it scrolls, also when nothing in it takes the focus
    this.root.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.press(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.drawBeginning();
  }

  /**
   * Ask other questions; the first ones go on from what the quiz was made with.
   * @param {Question[] | null} questions
   * @param {QuizState | null} saved
   */
  update(questions, saved = this.saved) {
    this.release();
    this.progress = new QuizProgress(questions ?? [], saved);
    this.waiting = questions === null;
    this.saved = this.waiting ? saved : null;
    this.dropped = 0;
    this.drawBeginning();
  }

  /** What a new quiz goes on from. */
  state() {
    return this.saved ?? this.progress.state();
  }

  /** Nothing here follows the step that is shown. @param {number} _position */
  show(_position) {}

  /** Live mode: the oldest `dropped` steps are gone. @param {number} dropped */
  grow(dropped) {
    this.dropped += dropped;
    if (!dropped || !this.open) return;
    if (this.positionOf(this.progress.number) < 0) this.pause(); // its moment can't be shown any more
    else this.host.hold?.(this.positionOf(this.progress.number));
  }

  close() {
    this.release();
    this.root.remove();
  }

  /**
   * Do what a key stands for, and say whether it stands for something.
   * @param {string} key
   */
  press(key) {
    const phase = this.progress.phase;
    if (this.open && phase === "question") {
      const letter = QUIZ_LETTERS.indexOf(key.toLowerCase());
      const choice = letter >= 0 && key.length === 1 ? letter : Number(key) - 1;
      if (!(choice in this.progress.question.choices)) return false;
      this.answer(choice);
      /** @type {HTMLElement | null} */ (this.root.querySelector(".quiz-primary"))?.focus({ preventScroll: true });
      return true;
    }
    const action = phase === "answered" ? this.actions[key.toLowerCase()] : null;
    action?.();
    return Boolean(action);
  }

  // ---- what one can do ----------------------------------------------------------------------

  start() {
    this.progress.next();
    this.ask();
  }

  /** Go to the moment of the question and ask; questions whose moment is gone are passed over. */
  ask() {
    while (this.progress.phase === "question" && this.positionOf(this.progress.number) < 0) {
      this.progress.next();
    }
    this.keep();
    if (this.progress.phase === "summary") {
      this.drawSummary();
    } else {
      const position = this.positionOf(this.progress.number);
      this.open = this.progress.phase === "question";
      if (this.open) this.host.hold?.(position);
      this.host.go(Math.max(0, position));
      this.drawQuestion();
    }
    this.saying?.focus({ preventScroll: true });
  }

  /** @param {number} choice */
  answer(choice) {
    if (this.progress.phase !== "question") return;
    const right = this.progress.answer(choice);
    this.release();
    this.keep();
    this.host.report?.({ question: this.progress.number, choice, right, score: this.progress.score });
    this.drawVerdict();
  }

  next() {
    this.progress.next();
    this.ask();
  }

  /** Step to where the recording shows the answer. */
  showIt() {
    const proof = this.progress.question.proof;
    if (proof !== null) this.host.go(Math.max(0, proof + 1 - this.dropped));
  }

  pause() {
    this.release();
    this.drawBeginning();
    this.root.querySelector("button")?.focus({ preventScroll: true });
  }

  restart() {
    this.progress = new QuizProgress(this.progress.questions);
    this.start();
  }

  release() {
    if (this.open) this.host.hold?.(null);
    this.open = false;
  }

  keep() {
    this.host.keep?.(this.progress.state());
  }

  /** The position of the moment that a question asks about. @param {number} number */
  positionOf(number) {
    return this.progress.questions[number].index + 1 - this.dropped;
  }

  // ---- what is drawn ------------------------------------------------------------------------

  /** The first screen, or the one to go on from. */
  drawBeginning() {
    const total = this.progress.questions.length;
    this.actions = {};
    this.root.scrollTop = 0;
    if (this.waiting || !total) {
      const text = this.waiting ? QUIZ_TEXT.waiting : QUIZ_TEXT.none;
      const why = this.waiting ? [] : [classed("p", "quiz-note", QUIZ_TEXT.noneWhy)];
      this.root.replaceChildren(classed("p", "quiz-title", text), ...why);
    } else if (this.progress.phase === "start") {
      const intro = total === 1 ? QUIZ_TEXT.one : QUIZ_TEXT.intro;
      this.root.replaceChildren(
        classed("p", "quiz-title", QUIZ_TEXT.title),
        classed("p", "quiz-note", fill(intro, { questions: count(total, "question") })),
        quizRow(quizButton("primary", QUIZ_TEXT.start, () => this.start())),
      );
    } else if (this.progress.phase === "summary") {
      this.drawSummary();
    } else {
      const place = { number: grouped(this.progress.at + 1), total: grouped(this.progress.queue.length) };
      this.root.replaceChildren(
        classed("p", "quiz-title", QUIZ_TEXT.title),
        classed("p", "quiz-note", fill(QUIZ_TEXT.paused, place)),
        quizRow(
          quizButton("primary", QUIZ_TEXT.resume, () => this.ask()),
          quizButton("plain", QUIZ_TEXT.restart, () => this.restart()),
        ),
      );
    }
  }

  drawQuestion() {
    const { progress } = this;
    const question = progress.question;
    const again = progress.queue.length < progress.questions.length;
    const place = { number: grouped(progress.at + 1), total: grouped(progress.queue.length) };
    const step = { number: grouped(this.positionOf(progress.number)) };

    const head = classed("div", "quiz-head");
    this.scoreShown = classed("span", "quiz-score");
    head.append(
      classed("span", "quiz-number", fill(again ? QUIZ_TEXT.again : QUIZ_TEXT.number, place)),
      this.scoreShown,
    );
    const line = document.createElement("progress");
    line.max = progress.queue.length;
    line.value = progress.at;
    line.setAttribute("aria-label", QUIZ_TEXT.progress);
    this.line = line;

    this.saying = classed("p", "quiz-question", shown(question.text, QUIZ_LONGEST_TEXT));
    this.saying.tabIndex = -1;
    const moment = quizButton("link", fill(QUIZ_TEXT.moment, step), () =>
      this.host.go(Math.max(0, this.positionOf(progress.number))));
    moment.setAttribute("aria-label", fill(QUIZ_TEXT.toMoment, step));

    this.choices = question.choices.map((text, choice) => {
      const button = quizButton("choice", "", () => this.answer(choice));
      const letter = classed("kbd", "", QUIZ_LETTERS[choice]);
      button.append(letter, " ", classed("span", "quiz-choice-text", shown(text, QUIZ_LONGEST_TEXT)));
      return button;
    });
    const choices = classed("div", "quiz-choices");
    choices.setAttribute("role", "group");
    choices.setAttribute("aria-label", QUIZ_TEXT.choices);
    choices.append(...this.choices);

    this.verdict = classed("div", "quiz-verdict");
    this.verdict.setAttribute("role", "status");
    this.foot = classed("div", "quiz-foot");
    const last = question.choices.length;
    this.foot.append(
      classed("span", "quiz-hint", fill(QUIZ_TEXT.hint, { letter: QUIZ_LETTERS[last - 1], number: last })),
      quizButton("plain", QUIZ_TEXT.pause, () => this.pause()),
    );
    this.root.replaceChildren(head, line, this.saying, moment, choices, this.verdict, this.foot);
    this.root.scrollTop = 0;
    this.drawScore();
    if (progress.phase === "answered") this.drawVerdict();
  }

  drawScore() {
    if (!this.scoreShown) return;
    this.scoreShown.textContent = fill(QUIZ_TEXT.score, { right: grouped(this.progress.score.right) });
  }

  /** Mark the choices, say what is right and why, and offer what comes next. */
  drawVerdict() {
    const { progress } = this;
    const question = progress.question;
    const chosen = progress.chosen;
    const right = chosen === question.right;
    for (const [choice, button] of (this.choices ?? []).entries()) {
      button.setAttribute("aria-disabled", "true");
      if (choice === question.right) quizMark(button, "right", "✓", QUIZ_TEXT.isRight);
      else if (choice === chosen) quizMark(button, "wrong", "✗", QUIZ_TEXT.isChosen);
      else button.classList.add("other");
    }
    const lead = classed("b", "", right ? `✓ ${QUIZ_TEXT.right}` : `✗ ${QUIZ_TEXT.wrong}`);
    const said = [lead];
    if (!right) {
      const truth = shown(question.choices[question.right], QUIZ_LONGEST_TEXT);
      said.push(classed("p", "", fill(QUIZ_TEXT.truth, { truth })));
    }
    said.push(classed("p", "", shown(question.explanation, QUIZ_LONGEST_TEXT)));
    this.verdict?.classList.add(right ? "right" : "wrong");
    this.verdict?.replaceChildren(...said);

    const last = progress.at + 1 === progress.queue.length;
    this.actions = { n: () => this.next() };
    const next = quizButton("primary", last ? QUIZ_TEXT.finish : QUIZ_TEXT.next, this.actions.n);
    quizKey(next, "n");
    const buttons = [next];
    if (question.proof !== null) {
      this.actions.s = () => this.showIt();
      const show = quizButton("plain", QUIZ_TEXT.show, this.actions.s);
      quizKey(show, "s");
      buttons.unshift(show);
    }
    this.foot?.replaceChildren(...buttons);
    if (this.line) this.line.value = progress.at + 1;
    this.drawScore();
    this.root.scrollTop = this.root.scrollHeight;
  }

  drawSummary() {
    const { progress } = this;
    const { right, total } = progress.score;
    const missed = progress.missed();
    const result = right === total ? QUIZ_TEXT.allRight : QUIZ_TEXT.result;
    this.saying = classed("p", "quiz-title", fill(result, { right: grouped(right), total: grouped(total) }));
    this.saying.tabIndex = -1;
    /** @type {HTMLElement[]} */
    const parts = [this.saying];
    const found = progress.questions.filter((one, number) => progress.latest[number] === one.right).length;
    if (found > right) {
      const later = fill(QUIZ_TEXT.later, { right: grouped(found), total: grouped(total) });
      parts.push(classed("p", "quiz-note", later));
    }
    const again = [];
    const buttons = [quizButton("plain", QUIZ_TEXT.restart, () => this.restart())];
    if (missed.length) {
      buttons.unshift(quizButton("primary", QUIZ_TEXT.retry, () => {
        progress.retry(missed);
        this.ask();
      }));
      again.push(classed("p", "quiz-note", QUIZ_TEXT.missed), this.missedList(missed));
    }
    this.root.replaceChildren(...parts, quizRow(...buttons), ...again);
    this.root.scrollTop = 0;
  }

  /** @param {number[]} missed */
  missedList(missed) {
    const list = classed("ul", "quiz-missed");
    for (const number of missed) {
      const item = classed("li", "");
      const which = { number: grouped(number + 1), step: grouped(this.positionOf(number)) };
      item.append(
        classed("span", "quiz-number", fill(QUIZ_TEXT.missedOne, which)), " ",
        classed("span", "", shown(this.progress.questions[number].text, QUIZ_LONGEST_TEXT)),
      );
      list.append(item);
    }
    return list;
  }
}

/** The state in which nobody has answered. @param {Question[]} questions @returns {QuizState} */
function quizUntouched(questions) {
  const none = questions.map(() => null);
  return { queue: questions.map((_, number) => number), at: -1, chosen: null, first: none, latest: none };
}

/**
 * Whether `saved` can have come from a quiz with these questions.
 * @param {Question[]} questions
 * @param {QuizState | null | undefined} saved
 * @returns {saved is QuizState}
 */
function quizStateFits(questions, saved) {
  const isChoice = (/** @type {number | null} */ choice, /** @type {number} */ number) =>
    choice === null || choice in questions[number].choices;
  return saved != null
    && [saved.queue, saved.first, saved.latest].every(Array.isArray)
    && saved.first.length === questions.length && saved.first.every(isChoice)
    && saved.latest.length === questions.length && saved.latest.every(isChoice)
    && saved.queue.every((number) => number in questions)
    && Number.isInteger(saved.at) && saved.at >= -1 && saved.at <= saved.queue.length
    && (saved.chosen === null || (saved.at in saved.queue && isChoice(saved.chosen, saved.queue[saved.at])));
}

/** Say on a choice what it was, in a sign and in words. @param {HTMLElement} button
 * @param {string} name @param {string} sign @param {string} words */
function quizMark(button, name, sign, words) {
  button.classList.add(name);
  button.append(" ", classed("span", "quiz-mark", `${sign} ${words}`));
}

/** @param {HTMLElement} button @param {string} key */
function quizKey(button, key) {
  const hint = classed("kbd", "", key);
  hint.setAttribute("aria-hidden", "true");
  button.setAttribute("aria-keyshortcuts", key);
  button.append(" ", hint);
}

/** @param {string} classes @param {string} text @param {() => void} act */
function quizButton(classes, text, act) {
  const button = classed("button", `quiz-${classes}`, text);
  button.setAttribute("type", "button");
  button.addEventListener("click", act);
  return button;
}

/** @param {HTMLElement[]} buttons */
function quizRow(...buttons) {
  const row = classed("div", "quiz-foot");
  row.append(...buttons);
  return row;
}
