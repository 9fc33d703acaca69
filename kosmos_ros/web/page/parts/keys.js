// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Single-key shortcuts, the list of them, and the arrow keys in lists of tabs.

import { $, h, icon } from "./dom.js";

const SHORTCUTS = [
  ["1 … 9", "Camera"], ["O", "Overview of all cameras"], ["Space", "Freeze, or back to live"],
  ["R", "Begin a region"], ["Arrow keys", "Move the region; in the strip: frame before or after"],
  ["Shift + arrow keys", "Resize the region"], ["A", "Ask"], ["F", "Find phrases"],
  ["B", "Boxes: caption, phrases, none"], ["V", "Video between captions"],
  ["Esc", "Cancel an answer; remove the region; back to live"], ["T", "Dark or light"], ["?", "This list"],
];

// `acts` has a function for each key, in lower case; "1" takes the number, and "escape" too.
export function shortcuts(acts) {
  const dialog = $("#keys-dialog");
  const open = () => dialog.showModal();
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || dialog.open) return;
    if (event.key === "Escape") acts.escape();
    else if ($("#keys-on").checked && !taken(event)) press(event, { ...acts, "?": open });
  });
  $("#keys-list").append(...SHORTCUTS.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]));
  $("#keys").append(icon("keys"));
  $("#keys-close").append(icon("close"));
  $("#keys").addEventListener("click", open);
}

// Whether a key belongs to the element that has the focus.
function taken({ key, target }) {
  return target.matches("input, select, textarea") || (key === " " && target.matches("button, summary, [role=button], [role=tab]"));
}

function press(event, acts) {
  const digit = /^[1-9]$/.test(event.key);
  const act = digit ? () => acts.digit(Number(event.key)) : acts[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
}

// Arrow keys in a list of tabs. `step` is called with the next one.
export function tabKeys(list, step) {
  list.addEventListener("keydown", (event) => {
    const tabs = [...list.querySelectorAll("[role=tab]")].filter((tab) => tab.offsetParent);
    const at = tabs.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    step(tabs[(to + tabs.length) % tabs.length]);
  });
}
