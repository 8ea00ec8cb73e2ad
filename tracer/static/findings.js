// The panel with what tracer.lint found: a card for each finding, grouped by lint.

import { classed } from "./elements.js";
import { count, fill, grouped, shown } from "./words.js";

/** @typedef {{title: string, why: string, how: string}} Lint */
/** @typedef {{name: string, index: number, indices: number[], place: string, source: string,
 *   text: string, times: number}} Finding */
/** @typedef {{searched: number, lints: Record<string, Lint>, findings: Finding[]}} Found
 *   as `findings_json` of tracer/panels.py gives it */
/** @typedef {{name: string, lint: Lint, findings: Finding[], page: number, cards: FindingCard[],
 *   list: HTMLElement, range: HTMLElement | null, turns: HTMLElement[]}} FindingGroup */
/** @typedef {{finding: Finding, item: HTMLElement, button: HTMLElement, more: HTMLElement}} FindingCard */

const FINDINGS_TEXT = Object.freeze({
  label: "Findings",
  waiting: "Looking for mistakes in the recording…",
  some: "{findings} in {steps}",
  first: "Choose one to go to its step and to see how to mend it.",
  none: "Nothing wrong was found in {steps}.",
  noProof: "That is a good sign, not a proof: only what the recorded steps show can be found.",
  lookedFor: "This was looked for:",
  step: "step {number}",
  times: "{count} times, this is the first",
  why: "Why it hurts",
  how: "How to mend it",
  range: "{first} to {last} of {total}",
  earlier: "Earlier ones: {title}",
  later: "Later ones: {title}",
});

/** So many cards of a group are drawn at once. */
const FINDINGS_ON_PAGE = 10;
const FINDING_LONGEST_TEXT = 600;

export class Findings {
  /**
   * @param {{go: (position: number) => void}} host
   * @param {Found | null} found null until it is known: `update` tells it then
   */
  constructor(host, found = null) {
    this.host = host;
    this.position = 0;
    /** The steps that findings tell of, by index, in order. @type {number[]} */
    this.indices = [];
    /** Where `next` stops. @type {number[]} */
    this.stops = [];
    /** @type {FindingGroup[]} */
    this.groups = [];
    /** @type {Map<number, [FindingGroup, Finding][]>} */
    this.at = new Map();
    /** @type {Finding | null} */
    this.selected = null;
    /** @type {FindingGroup[]} those with a finding at the step that is shown */
    this.marked = [];
    this.frame = 0;
    this.root = classed("div", "findings");
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", FINDINGS_TEXT.label);
    this.root.tabIndex = 0; // it scrolls, also when nothing in it takes the focus
    this.update(found);
  }

  /** Show other findings. @param {Found | null} found */
  update(found) {
    this.found = found && {
      ...found,
      findings: found.findings.map((finding) => ({ ...finding, indices: [...finding.indices] })),
    };
    this.selected = null;
    this.build();
  }

  /** Live mode: the oldest `dropped` steps are gone, and what was found there. @param {number} dropped */
  grow(dropped) {
    if (!dropped || !this.found) return;
    for (const finding of this.found.findings) {
      finding.index -= dropped;
      finding.indices = finding.indices.map((index) => index - dropped).filter((index) => index >= 0);
    }
    this.found.findings = this.found.findings.filter((finding) => finding.index >= 0);
    this.position -= dropped;
    this.build();
  }

  /** Draw everything anew; the pages that were open stay open. */
  build() {
    const pages = new Map(this.groups.map((group) => [group.name, group.page]));
    const found = this.found;
    this.groups = [];
    this.at = new Map();
    this.marked = [];
    const all = found ? found.findings : [];
    this.indices = [...new Set(all.flatMap((finding) => finding.indices))].sort((a, b) => a - b);
    this.stops = [...new Set(all.map((finding) => finding.index + 1))].sort((a, b) => a - b);
    if (!found || !all.length) {
      this.root.replaceChildren(...(found ? findingsNone(found) : [
        classed("p", "findings-title", FINDINGS_TEXT.waiting),
      ]));
      return;
    }
    /** @type {Map<string, Finding[]>} */
    const byName = new Map();
    for (const finding of all) {
      const alike = byName.get(finding.name);
      if (alike) alike.push(finding);
      else byName.set(finding.name, [finding]);
    }
    const title = fill(FINDINGS_TEXT.some, {
      findings: count(all.length, "finding"), steps: count(found.searched, "step"),
    });
    this.root.replaceChildren(
      classed("p", "findings-title", title), classed("p", "findings-note", FINDINGS_TEXT.first),
    );
    for (const [name, findings] of byName) {
      const last = Math.ceil(findings.length / FINDINGS_ON_PAGE) - 1;
      this.addGroup(name, found.lints[name], findings, Math.min(pages.get(name) ?? 0, last));
    }
    this.show(this.position);
  }

  /** @param {string} name @param {Lint} lint @param {Finding[]} findings @param {number} page */
  addGroup(name, lint, findings, page) {
    const section = classed("section", "findings-group");
    const head = classed("p", "findings-head");
    const title = shown(lint.title);
    head.append(classed("span", "", title));
    if (findings.length > 1) {
      const badge = classed("span", "findings-count", grouped(findings.length));
      badge.setAttribute("aria-hidden", "true"); // the label of the group says it
      head.append(badge);
    }
    section.setAttribute("role", "group");
    section.setAttribute("aria-label", `${title}: ${count(findings.length, "finding")}`);
    /** @type {FindingGroup} */
    const group = {
      name, lint, findings, page, cards: [], list: classed("ul", "findings-list"), range: null, turns: [],
    };
    section.append(head, group.list);
    if (findings.length > FINDINGS_ON_PAGE) section.append(this.pager(group, title));
    this.root.append(section);
    this.groups.push(group);
    for (const finding of findings) {
      const here = this.at.get(finding.index + 1);
      if (here) here.push([group, finding]);
      else this.at.set(finding.index + 1, [[group, finding]]);
    }
    this.drawPage(group);
  }

  /** @param {FindingGroup} group @param {string} title */
  pager(group, title) {
    const pager = classed("div", "findings-pager");
    group.range = classed("span", "findings-range");
    group.range.setAttribute("role", "status");
    /** @type {[number, string, string][]} */
    const directions = [[-1, "‹", FINDINGS_TEXT.earlier], [1, "›", FINDINGS_TEXT.later]];
    group.turns = directions.map(([direction, sign, label]) => {
      const button = classed("button", "findings-turn", sign);
      button.setAttribute("type", "button");
      button.setAttribute("aria-label", fill(label, { title }));
      button.addEventListener("click", () => {
        const page = group.page + direction;
        if (page < 0 || page * FINDINGS_ON_PAGE >= group.findings.length) return;
        group.page = page;
        this.drawPage(group);
      });
      return button;
    });
    pager.append(group.turns[0], group.range, group.turns[1]);
    return pager;
  }

  /** @param {FindingGroup} group */
  drawPage(group) {
    const first = group.page * FINDINGS_ON_PAGE;
    const findings = group.findings.slice(first, first + FINDINGS_ON_PAGE);
    group.cards = findings.map((finding) => this.card(group, finding));
    const { activeElement } = /** @type {Document | ShadowRoot} */ (group.list.getRootNode());
    const focused = group.list.contains(activeElement);
    group.list.replaceChildren(...group.cards.map((card) => card.item));
    this.markGroup(group);
    if (focused) {
      const card = group.cards.find((one) => one.finding === this.selected) ?? group.cards[0];
      card.button.focus({ preventScroll: true });
    }
    if (!group.range) return;
    const last = first + findings.length;
    const total = group.findings.length;
    group.range.textContent = fill(FINDINGS_TEXT.range, {
      first: grouped(first + 1), last: grouped(last), total: grouped(total),
    });
    group.turns[0].setAttribute("aria-disabled", String(first === 0));
    group.turns[1].setAttribute("aria-disabled", String(last === total));
  }

  /** @param {FindingGroup} group @param {Finding} finding @returns {FindingCard} */
  card(group, finding) {
    const item = classed("li", "finding");
    const button = classed("button", "finding-go");
    button.setAttribute("type", "button");
    const where = classed("span", "finding-where");
    const number = fill(FINDINGS_TEXT.step, { number: grouped(finding.index + 1) });
    where.append(classed("b", "", number), ` ${shown(finding.place, FINDING_LONGEST_TEXT)}`);
    button.append(where);
    if (finding.source) {
      button.append(" ", classed("code", "", shown(finding.source, FINDING_LONGEST_TEXT)));
    }
    button.append(" ", classed("span", "finding-text", shown(finding.text, FINDING_LONGEST_TEXT)));
    if (finding.times > 1) {
      const times = fill(FINDINGS_TEXT.times, { count: grouped(finding.times) });
      button.append(" ", classed("span", "finding-times", times));
    }
    const more = classed("dl", "finding-more");
    button.addEventListener("click", () => {
      this.select(finding);
      this.host.go(finding.index + 1);
    });
    item.append(button, more);
    return { finding, item, button, more };
  }

  /** Unfold one finding, and fold the one before. @param {Finding} finding */
  select(finding) {
    if (finding === this.selected) return;
    const before = this.selected;
    this.selected = finding;
    for (const group of this.groups) {
      if (group.name === finding.name || group.name === before?.name) this.markGroup(group);
    }
  }

  /** Say on the cards which is selected, and which tells of the step that is shown. @param {FindingGroup} group */
  markGroup(group) {
    for (const card of group.cards) {
      const selected = card.finding === this.selected;
      const current = card.finding.index + 1 === this.position;
      if (selected && !card.more.childElementCount) {
        card.more.append(
          classed("dt", "", FINDINGS_TEXT.why), classed("dd", "", group.lint.why),
          classed("dt", "", FINDINGS_TEXT.how), classed("dd", "", group.lint.how),
        );
      }
      card.more.hidden = !selected;
      card.button.setAttribute("aria-expanded", String(selected));
      if (current) card.button.setAttribute("aria-current", "step");
      else card.button.removeAttribute("aria-current");
      card.item.classList.toggle("current", current);
    }
  }

  /** The state after `position` steps is shown. @param {number} position */
  show(position) {
    this.position = position;
    const here = this.at.get(position);
    if (!here && !this.marked.length) return;
    const before = this.marked;
    this.marked = here ? [...new Set(here.map(([group]) => group))] : [];
    if (here && !(this.selected && this.selected.index + 1 === position)) this.select(here[0][1]);
    for (const group of this.marked) {
      const chosen = this.selected && this.selected.name === group.name ? this.selected : null;
      const first = chosen ?? here?.find(([its]) => its === group)?.[1];
      const page = first ? Math.floor(group.findings.indexOf(first) / FINDINGS_ON_PAGE) : group.page;
      if (page === group.page) continue;
      group.page = page;
      this.drawPage(group);
    }
    for (const group of new Set([...before, ...this.marked])) this.markGroup(group);
    if (here && !this.frame) this.frame = requestAnimationFrame(() => this.reveal());
  }

  /** Scroll the selected card into view, and nothing around the panel. */
  reveal() {
    this.frame = 0;
    const card = this.groups.flatMap((group) => group.cards)
      .find((one) => one.finding === this.selected);
    if (!card || !this.root.clientHeight) return;
    const top = card.item.offsetTop;
    const bottom = top + card.item.offsetHeight;
    const seen = this.root.scrollTop;
    if (top < seen || bottom - top > this.root.clientHeight) this.root.scrollTop = top;
    else if (bottom > seen + this.root.clientHeight) this.root.scrollTop = bottom - this.root.clientHeight;
  }

  /**
   * The position of the next finding (1) or the one before (-1) as seen from `position`.
   * @param {number} direction
   * @param {number} position
   * @returns {number | null}
   */
  next(direction, position) {
    const found = direction > 0
      ? this.stops.find((stop) => stop > position)
      : this.stops.findLast((stop) => stop < position);
    return found ?? null;
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.root.remove();
  }
}

/** What is said when nothing was found. @param {Found} found */
function findingsNone(found) {
  const list = classed("ul", "findings-looked-for");
  list.append(...Object.values(found.lints).map((lint) => classed("li", "", lint.title)));
  const title = fill(FINDINGS_TEXT.none, { steps: count(found.searched, "step") });
  return [
    classed("p", "findings-title fine", title),
    classed("p", "findings-note", FINDINGS_TEXT.noProof),
    classed("p", "findings-note", FINDINGS_TEXT.lookedFor),
    list,
  ];
}
