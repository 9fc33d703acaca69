// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// All figures of the node: its warnings, the model, and each camera. Elements stay while their
// figures change, so that the focus, the scroll position and a selection for copying stay, too.

import { $, h, icon, told } from "./dom.js";
import { warnings } from "./warnings.js";

export class Figures {
  constructor(root) {
    this.root = root;
    this.said = h("div", {});
    this.groups = new Map(); // key -> element
    this.first = ""; // name of the camera whose group begins open
    root.append(h("section", { class: "group" }, h("h3", {}, "The node says"), this.said));
  }

  // Opens the group of a camera.
  open(name) {
    this.first = name;
    const group = this.groups.get(cameraKey(name));
    if (group) group.open = true;
  }

  draw(node) {
    this.#say(warnings(node));
    const figures = figuresOf(node);
    for (const [key, group] of this.groups) {
      if (figures.has(key)) continue;
      group.remove();
      this.groups.delete(key);
    }
    for (const [key, figure] of figures) this.#group(key, figure);
  }

  #say(words) {
    const key = JSON.stringify(words);
    if (this.said.dataset.words === key) return;
    this.said.dataset.words = key;
    const lines = words.map(({ level, text }) => h("p", { class: `word ${level}` }, icon("warn"), h("span", {}, ...told(text))));
    this.said.replaceChildren(...(lines.length ? lines : [h("p", { class: "quiet" }, "No warnings.")]));
  }

  #group(key, { title, line, pairs }) {
    if (!this.groups.has(key)) {
      const group = h(
        "details",
        { class: "group", open: key === "model" || key === cameraKey(this.first) },
        h("summary", {}, h("h3", {}, title), h("span", { class: "line" })),
        h("dl", { class: "facts" }),
      );
      this.groups.set(key, group);
      this.root.append(group);
    }
    const group = this.groups.get(key);
    write($(".line", group), line);
    list($("dl", group), pairs);
  }
}

const cameraKey = (name) => `camera ${name}`;

// Returns a map of {title, line: a state beside it, pairs: [key, value]}.
function figuresOf({ model, version, cameras }) {
  const pairs = [["message", model?.message ?? "unknown"], ...Object.entries(model?.values ?? {}), ["kosmos_ros", version ?? ""]];
  const figures = new Map([["model", { title: "Model", line: "", pairs }]]);
  for (const { name, message, values } of cameras.values()) {
    figures.set(cameraKey(name), { title: `Camera ${name}`.trim(), line: message, pairs: Object.entries(values) });
  }
  return figures;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Shows [key, value] pairs in a `dl`. An empty value has no line.
function list(dl, pairs) {
  const shown = pairs.filter(([, value]) => value !== "");
  const keys = JSON.stringify(shown.map(([key]) => key));
  if (dl.dataset.keys !== keys) {
    dl.dataset.keys = keys;
    dl.replaceChildren(...shown.flatMap(([key]) => [h("dt", {}, key), h("dd", {})]));
  }
  shown.forEach(([, value], i) => write(dl.children[2 * i + 1], value));
}
