// What stands around the stage: the list of steps, the findings, the quiz, the timeline.

import { Findings } from "./findings.js";
import { Quiz } from "./quiz.js";
import { StepList } from "./steplist.js";
import { Tabs } from "./tabs.js";
import { Timeline } from "./timeline.js";
import { grouped } from "./words.js";

const AROUND_TEXT = Object.freeze({
  panels: "Beside the picture",
  steps: "Steps",
  findings: "Findings",
  quiz: "Quiz",
});

export class Around {
  /**
   * @param {{words: any, trace: import("./fold.js").Trace, replay: import("./fold.js").Replay,
   *   causes: import("./causes.js").Causes, model: any, live: boolean,
   *   go: (position: number) => void, hold: (position: number | null) => void,
   *   tell: (values: Record<string, any>) => void}} host
   */
  constructor(host) {
    const { model } = host;
    const parts = {
      ...host,
      keep: (/** @type {any} */ state) => host.tell({ quiz: state }),
      report: (/** @type {any} */ answer) => host.tell({ score: answer.score }),
    };
    this.model = model;
    this.list = new StepList(parts);
    this.findings = new Findings(parts, jsonOf(model.get("findings")));
    this.quiz = new Quiz(parts, jsonOf(model.get("questions")), model.get("quiz") || null);
    this.timeline = new Timeline(parts);
    this.parts = [this.list, this.findings, this.quiz, this.timeline];
    /** @type {[string, string, HTMLElement][]} */
    const panels = [["steps", AROUND_TEXT.steps, this.list.root]];
    if (!host.live) { // while it runs, nobody can say what is wrong or ask what comes next
      panels.push(["findings", AROUND_TEXT.findings, this.findings.root]);
      panels.push(["quiz", AROUND_TEXT.quiz, this.quiz.root]);
    }
    this.tabs = new Tabs(AROUND_TEXT.panels, panels, (name) => this.ask(name));
    this.followFindings = () => {
      this.findings.update(jsonOf(model.get("findings")));
      this.list.mark(this.findings.indices);
      const found = this.findings.found?.findings.length;
      this.tabs.label("findings", AROUND_TEXT.findings + (found ? ` (${grouped(found)})` : ""));
    };
    this.followQuestions = () => this.quiz.update(jsonOf(model.get("questions")));
    model.on("change:findings", this.followFindings);
    model.on("change:questions", this.followQuestions);
    this.followFindings();
  }

  /** Ask for what takes a while to find out, when somebody wants to see it. @param {string} name */
  ask(name) {
    const wanted = name === "quiz" ? "questions" : name;
    if (name !== "steps" && !this.model.get(wanted)) this.model.send?.({ type: wanted });
  }

  /** @param {number} position */
  show(position) {
    for (const part of this.parts) part.show(position);
  }

  /** @param {number} dropped */
  grow(dropped) {
    for (const part of this.parts) part.grow(dropped);
  }

  close() {
    this.model.off("change:findings", this.followFindings);
    this.model.off("change:questions", this.followQuestions);
    for (const part of this.parts) part.close();
    this.tabs.root.remove();
    this.timeline.root.remove();
  }
}

/** What JSON text says; null while there is none. @param {string} text */
export function jsonOf(text) {
  return text ? JSON.parse(text) : null;
}
