// As much of a browser's document as the panels use, so that node can run them.

class SmallElement {
  /** @param {string} name */
  constructor(name) {
    this.tagName = name.toUpperCase();
    /** @type {(SmallElement | string)[]} */
    this.childNodes = [];
    /** @type {Map<string, string>} */
    this.attributes = new Map();
    /** @type {Record<string, ((event: any) => void)[]>} */
    this.listeners = {};
    this.className = "";
    this.hidden = false;
    this.scrollTop = 0;
    this.clientHeight = 0;
    this.scrollHeight = 0;
    this.offsetTop = 0;
    this.offsetHeight = 0;
    this.classList = {
      add: (/** @type {string} */ name) => this.toggleClass(name, true),
      toggle: (/** @type {string} */ name, /** @type {boolean} */ on) => this.toggleClass(name, on),
    };
  }

  /** @param {string} name @param {boolean} on */
  toggleClass(name, on) {
    const names = new Set(this.className.split(" ").filter(Boolean));
    if (on) names.add(name);
    else names.delete(name);
    this.className = [...names].join(" ");
  }

  /** @param {string} name @param {string} value */
  setAttribute(name, value) {
    this.attributes.set(name, String(value));
  }

  /** @param {string} name */
  getAttribute(name) {
    return this.attributes.get(name) ?? null;
  }

  /** @param {string} name */
  removeAttribute(name) {
    this.attributes.delete(name);
  }

  /** @param {(SmallElement | string)[]} nodes */
  append(...nodes) {
    this.childNodes.push(...nodes);
  }

  /** @param {(SmallElement | string)[]} nodes */
  replaceChildren(...nodes) {
    this.childNodes = nodes;
  }

  get childElementCount() {
    return this.childNodes.filter((node) => typeof node !== "string").length;
  }

  /** @returns {string} */
  get textContent() {
    return this.childNodes.map((node) => (typeof node === "string" ? node : node.textContent)).join("");
  }

  set textContent(text) {
    this.childNodes = [text];
  }

  /** @param {string} type @param {(event: any) => void} listener */
  addEventListener(type, listener) {
    (this.listeners[type] ??= []).push(listener);
  }

  /** @param {string} type @param {object} event */
  dispatch(type, event = {}) {
    for (const listener of this.listeners[type] ?? []) listener(event);
  }

  click() {
    this.dispatch("click");
  }

  focus() {
    smallDocument.activeElement = this;
  }

  getRootNode() {
    return smallDocument;
  }

  /** @param {SmallElement | null} other */
  contains(other) {
    return other !== null && (other === this || this.all((one) => one === other).length > 0);
  }

  remove() {}

  /** @param {string} name a tag @returns {SmallElement | null} */
  querySelector(name) {
    return this.all((one) => one.tagName === name.toUpperCase())[0] ?? null;
  }

  /** Every element below for which `wanted` holds. @param {(one: SmallElement) => boolean} wanted */
  all(wanted) {
    /** @type {SmallElement[]} */
    const found = [];
    for (const node of this.childNodes) {
      if (typeof node === "string") continue;
      if (wanted(node)) found.push(node);
      found.push(...node.all(wanted));
    }
    return found;
  }

  /** The elements with a class. @param {string} name */
  withClass(name) {
    return this.all((one) => one.className.split(" ").includes(name));
  }
}

export const smallDocument = {
  /** @type {SmallElement | null} */
  activeElement: null,
  /** @param {string} name */
  createElement: (name) => new SmallElement(name),
};

/** What waits for the next frame. @type {(() => void)[]} */
export const frames = [];

Object.assign(globalThis, {
  document: smallDocument,
  requestAnimationFrame: (/** @type {() => void} */ draw) => frames.push(draw),
  cancelAnimationFrame: () => {},
});
