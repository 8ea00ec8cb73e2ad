// Elements of the page, made the one way that is safe: attributes and text, never markup.

export const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {string} text
 * @returns {any}
 */
export function make(name, attributes = {}, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  if (text) element.textContent = text;
  return element;
}

/** An element with class names. @param {string} name @param {string} classes @param {string} text
 * @returns {HTMLElement} */
export function classed(name, classes, text = "") {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  if (text) element.textContent = text;
  return element;
}

/**
 * Keep Jupyter's own shortcuts away from the keys pressed in `root`: it looks for this at the
 * element that has the focus before it looks at those around it.
 * @param {HTMLElement} root
 */
export function keepKeys(root) {
  const mark = (/** @type {Element} */ element) => {
    element.setAttribute("data-lm-suppress-shortcuts", "true");
  };
  mark(root);
  root.addEventListener("focusin", (event) => {
    if (event.target instanceof Element) mark(event.target);
  });
}

/** A sign of 16 by 16 units, drawn with one path. @param {string} path @returns {SVGElement} */
export function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

/**
 * A button with a sign; its title is what it is called.
 * @param {string} action @param {string} title @param {string} path @returns {HTMLButtonElement}
 */
export function signButton(action, title, path) {
  const button = make("button", {
    "type": "button", "data-action": action, "title": title, "aria-label": title,
  });
  button.append(icon(path));
  return button;
}
