// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Elements from plain values. Text always becomes a text node, so that no caption is ever markup.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

export function s(tag, props = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  set(node, props);
  node.append(...children);
  return node;
}

export function set(node, props) {
  for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
}

export const $ = (selector, root = document) => root.querySelector(selector);

const ICONS = {
  caption: "M2.5 4.5h11M2.5 8h11M2.5 11.5h6.5",
  appeared: "M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10",
  disappeared: "M8 11V3M4.5 6 8 2.5 11.5 6M3 13.5h10",
  answered: "M3 5.5h9M9.5 3 12 5.5 9.5 8M13 10.5H4M6.5 8 4 10.5 6.5 13",
  asked: "M3 3.5h10v7H8l-3 2.5v-2.5H3z",
  found: "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM10.4 10.4l3.1 3.1",
  close: "M4 4l8 8M12 4l-8 8",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3.2v9.6L12.5 8z",
  region: "M2.5 5.5v-3h3M10.5 2.5h3v3M13.5 10.5v3h-3M5.5 13.5h-3v-3M6 6h4v4H6z",
  moon: "M13 9.6A5.6 5.6 0 0 1 6.4 3a5.6 5.6 0 1 0 6.6 6.6z",
  sun: "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3.1 3.1l1.1 1.1M11.8 11.8l1.1 1.1M3.1 12.9l1.1-1.1M11.8 4.2l1.1-1.1",
  keys: "M1.5 4.5h13v7h-13zM4 7h.01M6.7 7h.01M9.3 7h.01M12 7h.01M5 9.3h6",
  warn: "M8 2 14.5 13.5h-13zM8 6.5v3.2M8 11.6h.01",
  off: "M2 2l12 12M2.5 5h2.3M13.5 12.5v-7.5h-2.3l-1-1.5H6.5M2.5 5v7.5h9",
  stop: "M4 4h8v8H4z",
  reply: "M6 4 2.5 7.5 6 11M2.5 7.5H10a3.5 3.5 0 0 1 3.5 3.5v1.5",
  check: "M3 8.5 6.5 12 13 4.5",
  tiles: "M2.5 2.5h4.5v4.5h-4.5zM9 2.5h4.5v4.5H9zM2.5 9h4.5v4.5h-4.5zM9 9h4.5v4.5H9z",
  video: "M1.5 4.5h9v7h-9zM10.5 7l4-2v6l-4-2",
};

export function icon(name) {
  return s(
    "svg",
    { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
    s("path", { d: ICONS[name] ?? "" }),
  );
}

// Returns the node's text, with the parts in backticks as code.
export const told = (text) =>
  text.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));

const two = (n) => String(n).padStart(2, "0");

export function clock(stamp, tenths = true) {
  const d = new Date(stamp);
  const text = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return tenths ? `${text}.${Math.floor(d.getMilliseconds() / 100)}` : text;
}

export function span(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 0.9995) return `${Math.round(milliseconds)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
}

export const count = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");

let region;
export function announce(text) {
  region ??= $("#announcer");
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = text));
}
