// A question before the replay, and its verdict after it. The kernel keeps the answer until it is
// revealed: nothing here knows it before.

import { classed, make } from "./elements.js";

const PREDICTION_TEXT = Object.freeze({
  prompt: "Choose, then go on.",
  noted: "Noted. Go on.",
  revealed: "To begin anew, run this cell again.",
  right: "✓ right",
  rightChosen: "✓ right, your choice",
  wrong: "✗ your choice",
});
const VERDICT_SIGNS = /** @type {Record<string, string>} */ ({ right: "✓", wrong: "✗", none: "" });

/**
 * Build a prediction in `el` for a model with `question`, `choices`, `chosen` and `revealed`; or a
 * verdict, for one with `question`, `before`, `verdict`, `after`, `result` and `because`.
 * @param {{model: any, el: HTMLElement}} context
 * @returns {() => void} what takes it away again
 */
export function render({ model, el }) {
  const view = model.get("verdict") ? new VerdictView(model) : new PredictionView(model);
  el.append(view.root);
  return () => view.close();
}

export default { render };

class PredictionView {
  /** @param {any} model */
  constructor(model) {
    this.model = model;
    this.root = classed("div", "netpoll-prediction");
    const fieldset = make("fieldset");
    const legend = make("legend");
    writePredictionText(legend, model.get("question"));
    fieldset.append(legend);
    const group = `prediction-${Math.random().toString(36).slice(2)}`;
    /** @type {{row: HTMLElement, radio: HTMLInputElement, mark: HTMLElement}[]} */
    this.choices = model.get("choices").map((/** @type {string} */ text) => {
      const row = classed("label", "prediction-choice");
      const radio = make("input", { type: "radio", name: group });
      const label = classed("span", "prediction-label");
      writePredictionText(label, text);
      const mark = classed("span", "prediction-mark");
      row.append(radio, label, mark);
      fieldset.append(row);
      return { row, radio, mark };
    });
    this.note = make("p", { "class": "prediction-note", "role": "status" });
    this.root.append(fieldset, this.note);
    this.root.addEventListener("change", () => {
      model.set("chosen", this.choices.findIndex(({ radio }) => radio.checked));
      model.save_changes();
      this.show();
    });
    this.show = this.show.bind(this);
    model.on("change:chosen", this.show);
    model.on("change:revealed", this.show);
    this.keys = new NotebookKeys(this.root);
    this.show();
  }

  show() {
    const chosen = this.model.get("chosen") ?? null;
    const revealed = this.model.get("revealed") ?? null;
    this.choices.forEach(({ row, radio, mark }, number) => {
      radio.checked = number === chosen;
      row.classList.toggle("chosen", number === chosen);
      const right = revealed !== null && number === revealed.right;
      const said = revealed !== null && number === revealed.said;
      row.classList.toggle("right", right);
      row.classList.toggle("wrong", said && !right);
      const words = PREDICTION_TEXT;
      mark.textContent = right ? (said ? words.rightChosen : words.right) : said ? words.wrong : "";
    });
    const note = revealed ? "revealed" : chosen === null ? "prompt" : "noted";
    if (this.note.textContent !== PREDICTION_TEXT[note]) {
      this.note.textContent = PREDICTION_TEXT[note];
    }
  }

  close() {
    this.model.off("change:chosen", this.show);
    this.model.off("change:revealed", this.show);
    this.keys.close();
  }
}

class VerdictView {
  /** @param {any} model */
  constructor(model) {
    const result = model.get("result");
    this.root = classed("div", `netpoll-prediction verdict ${result}`);
    const question = classed("p", "verdict-question");
    writePredictionText(question, model.get("question"));
    const status = make("div", { role: "status" });
    this.root.append(question, status);
    // A screen reader reads out what comes into a status that is there already.
    this.timer = window.setTimeout(() => {
      const told = classed("p", "verdict-told");
      const verdict = make("b");
      writePredictionText(verdict, model.get("verdict"));
      if (VERDICT_SIGNS[result]) told.append(make("b", {}, VERDICT_SIGNS[result]), " ");
      if (model.get("before")) writePredictionText(told, `${model.get("before")} `);
      told.append(verdict);
      if (model.get("after")) told.append(` ${model.get("after")}`);
      status.append(told);
      if (model.get("because")) {
        const because = classed("p", "verdict-because");
        writePredictionText(because, model.get("because"));
        status.append(because);
      }
    });
  }

  close() {
    clearTimeout(this.timer);
  }
}

/**
 * Append text to an element, with what stands between backticks as code: the only markup.
 * @param {HTMLElement} element @param {string} text
 */
function writePredictionText(element, text) {
  text.split(/`([^`]+)`/).forEach((part, number) => {
    if (number % 2) element.append(classed("code", "prediction-code", part));
    else element.append(part);
  });
}

/**
 * Keeps Jupyter's shortcuts away from the keys that choose, such as the arrows; those with Shift,
 * Control, Alt or Meta, such as the one that runs the cell, stay Jupyter's. It looks for the mark
 * when the key arrives at the document: ours is set before.
 */
class NotebookKeys {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.heard = (/** @type {KeyboardEvent} */ event) => {
      if (!(event.target instanceof Element) || !root.contains(event.target)) return;
      const ours = !(event.shiftKey || event.ctrlKey || event.altKey || event.metaKey);
      root.toggleAttribute("data-lm-suppress-shortcuts", ours);
      event.target.toggleAttribute("data-lm-suppress-shortcuts", ours);
    };
    window.addEventListener("keydown", this.heard, true);
  }

  close() {
    window.removeEventListener("keydown", this.heard, true);
  }
}
