// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Health at a glance: four small plots of the last minute, and the node's first warning.

import { $, count, h, icon, s, told } from "./dom.js";
import { Figures } from "./figures.js";
import { warnings } from "./warnings.js";

const POINTS = 60; // of each plot
const one = (v) => v.toFixed(1);
const number = (camera, key) => Number(camera.values[key] ?? 0) || 0;

// `whole`: of the node, not of a camera.
const TILES = [
  { name: "Captions", value: (p) => [one(p.captions), "per s"], note: (p, c) => `${count(number(c, "described"))} in all`, series: [(p) => p.captions] },
  { name: "Latency", value: (p) => (p.p50 ? [p.p50.toFixed(0), "ms p50"] : ["–", ""]), note: (p) => (p.p95 ? `${p.p95.toFixed(0)} ms p95` : "nothing described"), series: [(p) => p.p95, (p) => p.p50] },
  { name: "Images in", value: (p) => [one(p.images), "Hz"], note: (p) => (p.images ? `${(p.lost * 100).toFixed(0)} % lost on the way` : "none arrive"), series: [(p) => p.images] },
  { name: "Memory", value: (p) => [p.memory.toFixed(0), "MB"], note: (p) => (p.device ? `${p.device} MB on the device` : "of the process"), series: [(p) => p.memory], floor: 0.5, whole: true },
];

export class Health {
  constructor(node, open) {
    Object.assign(this, { node, open });
    this.figures = new Figures($("#figures"));
    this.tiles = TILES.map((tile) => this.#make(tile));
    $("#tiles").replaceChildren(...this.tiles.map((tile) => tile.button));
  }

  #make(tile) {
    const name = h("span", { class: "name" }, tile.name);
    const value = h("span", { class: "big" }), unit = h("span", { class: "unit" }), note = h("span", { class: "note" });
    const svg = s("svg", { class: "plot", viewBox: "0 0 100 32", preserveAspectRatio: "none", "aria-hidden": "true" });
    const lines = tile.series.map((_, i) => s("path", { class: i === tile.series.length - 1 ? "main" : "other" }));
    const fill = s("path", { class: "under" }), cursor = s("path", { class: "cursor" });
    svg.append(fill, ...lines, cursor);
    const button = h(
      "button",
      { type: "button", class: "tile", onclick: this.open },
      name,
      h("span", { class: "reading" }, value, h("span", { class: "hidden" }, " "), unit), note, svg,
    );
    const shown = { ...tile, button, parts: { name, value, unit, note, svg, lines, fill, cursor }, at: null };
    svg.addEventListener("pointermove", (event) => {
      const r = svg.getBoundingClientRect();
      shown.at = (event.clientX - r.left) / r.width;
      this.#tile(shown);
    });
    svg.addEventListener("pointerleave", () => {
      shown.at = null;
      this.#tile(shown);
    });
    return shown;
  }

  show(camera) {
    const known = this.node.camera(camera);
    if (known !== this.camera) this.figures.open(known.name);
    this.camera = known;
    const of = this.node.cameras.size > 1 ? ` · ${known.label}` : "";
    for (const tile of this.tiles) {
      tile.parts.name.textContent = tile.whole ? tile.name : tile.name + of;
      this.#tile(tile);
    }
    this.#words();
    if (!$("#panel-health").hidden) this.figures.draw(this.node);
  }

  #tile({ parts, at, value, note, series, floor }) {
    const points = this.camera.samples.slice(-POINTS);
    const last = points.length - 1;
    const place = at === null ? last : Math.round(at * last);
    const point = points[place] ?? this.camera.last;
    [parts.value.textContent, parts.unit.textContent] = value(point);
    const text = at === null ? note(point, this.camera) : `${last - place} s ago`;
    parts.note.textContent = text;
    parts.note.title = text; // the note may be cut off
    const all = points.flatMap((p) => series.map((get) => get(p)));
    const high = Math.max(...all, 1e-6) * 1.15, low = floor ? Math.min(...all) * floor : 0;
    const y = (v) => (30 - ((v - low) / (high - low)) * 28).toFixed(2);
    const x = (i) => ((i / Math.max(last, 1)) * 100).toFixed(2);
    const paths = series.map((get) => points.map((p, i) => `${i ? "L" : "M"}${x(i)} ${y(get(p))}`).join(""));
    paths.forEach((path, n) => parts.lines[n].setAttribute("d", path));
    parts.fill.setAttribute("d", points.length > 1 ? `${paths.at(-1)}L100 32L0 32Z` : "");
    parts.cursor.setAttribute("d", at === null ? "" : `M${x(place)} 0V32`);
  }

  #words() {
    const words = warnings(this.node);
    const place = $("#warnings");
    const text = words.map((w) => w.text).join("\n");
    if (place.dataset.text === text && place.childElementCount) return;
    place.dataset.text = text;
    const held = place.contains(document.activeElement);
    const [first] = words;
    const more = words.length > 1 && h("span", { class: "others" }, `+${words.length - 1}`);
    place.replaceChildren(
      first
        ? h("button", { type: "button", class: `word ${first.level}`, onclick: this.open }, icon("warn"), h("span", {}, ...told(first.text)), more)
        : h("p", { class: "word calm" }, icon("check"), h("span", {}, "No warnings from the node")),
    );
    if (held) $("button", place)?.focus({ preventScroll: true });
  }
}
