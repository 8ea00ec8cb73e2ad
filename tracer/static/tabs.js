// Panels in one place, of which one is shown.

import { make } from "./elements.js";

/** Panels of which one is shown. Source: the tabs pattern of the ARIA authoring practices. */
export class Tabs {
  /**
   * @param {string} label of all of them
   * @param {[string, string, HTMLElement][]} entries name, label, panel
   * @param {(name: string) => void} onSelect
   */
  constructor(label, entries, onSelect) {
    this.onSelect = onSelect;
    /** @type {string | null} */
    this.locked = null;
    this.names = entries.map(([name]) => name);
    const list = make("div", { "class": "tabs", "role": "tablist", "aria-label": label });
    this.root = make("div", { class: "panels" });
    this.root.append(list);
    this.entries = entries.map(([name, title, content]) => {
      const tab = make("button", { "type": "button", "role": "tab", "data-tab": name }, title);
      const panel = make("div", { "class": "panel", "role": "tabpanel", "aria-label": title });
      panel.append(content);
      tab.addEventListener("click", () => this.select(name));
      list.append(tab);
      this.root.append(panel);
      return { name, tab, panel };
    });
    list.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.onKey(event));
    this.selected = this.names[0];
    this.select(this.selected);
  }

  /** Show `name` and nothing else until null lets go again. @param {string | null} name */
  lock(name) {
    this.locked = name;
    if (name !== null) this.select(name);
    for (const entry of this.entries) entry.tab.disabled = name !== null && entry.name !== name;
  }

  /** @param {string} name */
  select(name) {
    if (this.locked != null && name !== this.locked) return;
    this.selected = name;
    for (const entry of this.entries) {
      const current = entry.name === name;
      entry.tab.setAttribute("aria-selected", String(current));
      entry.tab.tabIndex = current ? 0 : -1;
      entry.panel.hidden = !current;
    }
    this.onSelect(name);
  }

  /** @param {string} name @param {string} text */
  label(name, text) {
    const entry = this.entries.find((one) => one.name === name);
    if (entry) entry.tab.textContent = text;
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const direction = Number(event.key === "ArrowRight") - Number(event.key === "ArrowLeft");
    if (!direction || this.locked != null) return;
    event.preventDefault();
    event.stopPropagation();
    const at = this.names.indexOf(this.selected) + direction;
    const next = this.entries[(at + this.entries.length) % this.entries.length];
    this.select(next.name);
    next.tab.focus();
  }
}
