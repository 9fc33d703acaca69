// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// The cameras: tabs with small pictures, and an overview with a tile for each.
//
// Event: "choose" (name of a camera).

import { $, h } from "./dom.js";
import { thumbnail } from "./images.js";
import { arrangement } from "./tiles.js";
import { captionOf } from "./words.js";

const TAB_PICTURES = 4; // cameras up to which tabs have pictures
const USUAL = 4 / 3; // width over height of a picture
const TILE = 640; // px, width of a tile's picture; the server makes this size

export class Cameras extends EventTarget {
  // `marksOf(look)` returns the boxes of its caption.
  constructor(node, marksOf) {
    super();
    Object.assign(this, { node, marksOf });
    this.list = $("#cameras");
    this.grid = $("#overview");
    this.tabs = new Map(); // name -> element
    this.tiles = new Map();
    new ResizeObserver(() => {
      this.#arrange();
      this.#pictures(this.tiles, TILE);
    }).observe(this.grid);
  }

  // Makes the tabs and tiles of the node's cameras.
  build() {
    const cameras = [...this.node.cameras.values()];
    if (cameras.map((c) => c.name).join() === [...this.tabs.keys()].join()) return;
    this.tabs = new Map(cameras.map((camera) => [camera.name, this.#tab(camera)]));
    this.tiles = new Map(cameras.map((camera) => [camera.name, this.#tile(camera)]));
    this.list.replaceChildren(...this.tabs.values());
    this.list.classList.toggle("plain", cameras.length > TAB_PICTURES);
    this.grid.replaceChildren(...[...this.tiles.values()].map((tile) => h("li", {}, tile)));
    this.#arrange();
  }

  // Makes the tiles as large as the window allows.
  #arrange() {
    const { grid } = this;
    if (!grid.clientWidth) return;
    const padding = 2 * parseFloat(getComputedStyle(grid).paddingLeft);
    const room = { width: grid.clientWidth - padding, height: grid.clientHeight - padding };
    this.shape = this.#shape();
    const { columns, picture, beside, narrow, lines } = arrangement(this.tiles.size, room, this.shape);
    grid.classList.toggle("beside", beside);
    grid.classList.toggle("narrow", narrow);
    for (const [name, value] of Object.entries({ columns, picture: `${picture}px`, lines, shape: this.shape })) {
      grid.style.setProperty(`--${name}`, value);
    }
  }

  // Width over height of the cameras' pictures: of the first camera that has one.
  #shape() {
    const looks = [...this.tiles.keys()].map((name) => this.node.newest(name));
    const look = looks.find((look) => look?.height);
    return look ? look.width / look.height : USUAL;
  }

  #choose(camera) {
    this.dispatchEvent(new CustomEvent("choose", { detail: camera.name }));
  }

  #tab(camera) {
    return h(
      "button",
      { type: "button", role: "tab", "aria-controls": "view", class: "camera", onclick: () => this.#choose(camera) },
      h("canvas", { "aria-hidden": "true" }),
      h("span", { class: "text" }, h("span", { class: "name" }, h("span", { class: "dot", "aria-hidden": "true" }), camera.label), h("span", { class: "line" })),
    );
  }

  #tile(camera) {
    return h(
      "button",
      { type: "button", class: "camera tile-camera", onclick: () => this.#choose(camera) },
      h("canvas", { "aria-hidden": "true" }),
      h(
        "span", { class: "text" },
        h("span", { class: "head" }, h("span", { class: "name" }, h("span", { class: "dot", "aria-hidden": "true" }), camera.label), h("span", { class: "line" })),
        h("span", { class: "words" }),
      ),
    );
  }

  // `chosen` is the name of the camera that is shown.
  draw(chosen) {
    if (chosen !== this.chosen) this.tabs.get(chosen)?.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.chosen = chosen;
    for (const [name, tab] of this.tabs) {
      tab.setAttribute("aria-selected", String(name === chosen));
      tab.tabIndex = name === chosen ? 0 : -1;
      this.#state(name, tab);
    }
    for (const [name, tile] of this.tiles) {
      this.#state(name, tile);
      const look = this.node.newest(name);
      const words = look?.caption ? captionOf(look) : "";
      if ($(".words", tile).textContent !== words) $(".words", tile).textContent = words;
    }
    if (!this.list.classList.contains("plain")) this.#pictures(this.tabs, 160);
    if (this.shape !== this.#shape()) this.#arrange();
    this.#pictures(this.tiles, TILE);
  }

  #pictures(elements, width) {
    for (const [name, element] of elements) {
      const look = this.node.newest(name);
      const canvas = $("canvas", element);
      if (look?.picture && canvas.offsetParent) thumbnail(canvas, look, this.marksOf(look), width);
    }
  }

  #state(name, element) {
    const { level, line } = state(this.node, name);
    element.dataset.level = level;
    $(".line", element).textContent = line;
  }
}

// The state of a camera, for its dot and its line of text.
function state(node, name) {
  const camera = node.camera(name);
  const { captions, p50, images } = camera.last;
  if (!node.connected) return { level: "lost", line: "no connection" };
  if (node.state === "gone") return { level: "lost", line: "no node" };
  if (camera.level === "stale") return { level: "stale", line: "no image" };
  if (!node.value(name, "enabled")) return { level: "off", line: "switched off" };
  if (!node.ready) return { level: "waiting", line: `${images.toFixed(0)} Hz in` };
  if (camera.level !== "ok") return { level: camera.level, line: camera.message };
  return { level: "ok", line: `${captions.toFixed(1)}/s · ${p50.toFixed(0)} ms` };
}
