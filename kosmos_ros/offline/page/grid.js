// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// All frames in rows. Only the rows near the screen have elements, so 10,000 frames cost no more
// than 20.

import { $, h } from "./dom.js";
import { coloursOfFrame, linked, shown, told, where } from "./tile.js";

const WIDTH = 240; // px, least width of a tile
const HEIGHT = 280; // px, height of a row
const GAP = 16; // px between tiles
const SPARE = 2; // rows with elements above and below the screen

export class Grid {
  // `open(frame)` is called for a frame that was chosen, `moved(first, last)` with the frames on the
  // screen.
  constructor({ open, moved }) {
    this.list = $("#frames");
    this.open = open;
    this.moved = moved;
    this.frames = [];
    this.tiles = new Map(); // index in this.frames -> element
    addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.list);
  }

  show(frames) {
    this.frames = frames;
    for (const tile of this.tiles.values()) tile.remove();
    this.tiles.clear();
    this.draw();
  }

  scrollTo(frame) {
    const at = this.frames.indexOf(frame);
    const top = this.list.getBoundingClientRect().top + scrollY;
    scrollTo({ top: top + Math.floor(at / this.columns) * HEIGHT - GAP });
    this.draw();
    this.#focus(this.tiles.get(at));
  }

  // Focus a frame, and scroll only if it is not on the screen.
  focus(frame) {
    const tile = this.tiles.get(this.frames.indexOf(frame));
    const { top, bottom } = tile?.getBoundingClientRect() ?? { top: -1 };
    if (top >= 0 && bottom <= innerHeight) this.#focus(tile);
    else this.scrollTo(frame);
  }

  #focus(tile) {
    tile?.querySelector("button").focus({ preventScroll: true });
  }

  draw() {
    const width = this.list.clientWidth;
    this.columns = Math.max(1, Math.floor((width + GAP) / (WIDTH + GAP)));
    this.list.style.height = `${Math.ceil(this.frames.length / this.columns) * HEIGHT}px`;
    const above = -this.list.getBoundingClientRect().top;
    const firstRow = Math.max(0, Math.floor(above / HEIGHT));
    const lastRow = Math.max(0, Math.floor((above + innerHeight) / HEIGHT));
    const begin = Math.max(0, firstRow - SPARE) * this.columns;
    const end = Math.min(this.frames.length, (lastRow + SPARE + 1) * this.columns);
    for (const [at, tile] of this.tiles) {
      const focused = tile.contains(document.activeElement); // its focus must not be lost
      if ((at < begin || at >= end) && !focused) {
        tile.remove();
        this.tiles.delete(at);
      }
    }
    for (let at = begin; at < end; at++) this.#place(at, width);
    const onScreen = this.frames.slice(firstRow * this.columns, (lastRow + 1) * this.columns);
    if (onScreen.length) this.moved(onScreen[0], onScreen.at(-1));
  }

  #place(at, width) {
    let tile = this.tiles.get(at);
    if (!tile) {
      tile = this.#tile(this.frames[at]);
      this.tiles.set(at, tile);
      // In the order of the frames, for the Tab key and for readers of the screen.
      const next = [...this.list.children].find((other) => Number(other.dataset.at) > at);
      tile.dataset.at = at;
      tile.setAttribute("aria-posinset", at + 1);
      tile.setAttribute("aria-setsize", this.frames.length);
      this.list.insertBefore(tile, next ?? null);
    }
    const across = (width - GAP * (this.columns - 1)) / this.columns;
    tile.style.width = `${across}px`;
    tile.style.left = `${(at % this.columns) * (across + GAP)}px`;
    tile.style.top = `${Math.floor(at / this.columns) * HEIGHT}px`;
  }

  #tile(frame) {
    const colours = coloursOfFrame(frame);
    const button = h(
      "button",
      { type: "button", class: "open", "aria-label": `Frame at ${where(frame)}`, onclick: () => this.open(frame) },
      shown(frame, colours),
    );
    const text = h("div", { class: "text" }, h("p", { class: "where" }, where(frame)), ...told(frame, colours, true));
    return linked(h("li", { class: "tile" }, button, text));
  }
}
