// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// When each of the most frequent phrases was seen: a strip over the time of the report for each.

import { $, count, h, s, set } from "./dom.js";
import { coloursOf } from "./colours.js";
import { at, counted, first, last, mark, thing } from "./frames.js";

const STRIPS = 10; // phrases that are shown
const BINS = 240; // parts of the time
const TICKS = 5; // times on the axis; a narrow screen shows every second one

const span = Math.max(last - first, 1);
const bin = (time) => Math.min(BINS - 1, Math.floor(((time - first) / span) * BINS));

// Returns [thing, frames] of the most frequent things, the most frequent first.
function frequent(frames) {
  const found = new Map();
  for (const frame of frames) {
    const seen = frame.phrases.filter((phrase) => phrase.boxes.length).map((phrase) => thing(phrase.text));
    for (const each of new Set(seen)) {
      if (!found.has(each)) found.set(each, []);
      found.get(each).push(frame);
    }
  }
  return [...found].sort((a, b) => b[1].length - a[1].length).slice(0, STRIPS);
}

export class Strips {
  // `search(words)` is called for a phrase that was chosen, `go(frame)` for a place on a strip.
  constructor({ search, go }) {
    this.search = search;
    this.go = go;
    this.windows = [];
    const marks = Array.from({ length: TICKS }, (_, i) => mark(first + (span * i) / (TICKS - 1)));
    $("#axis").replaceChildren(...marks.map((text) => h("span", {}, text)));
  }

  show(frames) {
    const found = frequent(frames);
    const colours = coloursOf(found.map(([words]) => words));
    $(".strips").hidden = found.length === 0;
    this.windows = [];
    $("#strips").replaceChildren(...found.map(([words, seen]) => this.#strip(words, seen, colours.get(words))));
  }

  // Mark the time between the frames on the screen.
  move(from, to) {
    const x = ((from.time - first) / span) * BINS;
    const width = Math.max(((to.time - from.time) / span) * BINS, 1);
    for (const shade of this.windows) set(shade, { x, width });
  }

  #strip(words, seen, colour) {
    // A frame stands for the time up to the next one of its camera.
    const bars = new Map(); // first part of the time -> end
    let open = -1;
    for (const frame of seen) {
      const x = bin(frame.time), end = Math.max(x + 1, bin(frame.until));
      if (open >= 0 && x <= bars.get(open)) bars.set(open, Math.max(bars.get(open), end));
      else bars.set((open = x), end);
    }
    const shade = s("rect", { class: "window", y: 0, height: 1 });
    this.windows.push(shade);
    const times = `in ${counted(seen.length)}, from ${at(seen[0])} to ${at(seen.at(-1))}`;
    const svg = s(
      "svg",
      { class: `strip c${colour}`, viewBox: `0 0 ${BINS} 1`, preserveAspectRatio: "none", role: "img", "aria-label": times },
      ...[...bars].map(([x, end]) => s("rect", { x, y: 0, width: end - x, height: 1 })), shade,
    );
    svg.addEventListener("click", (event) => {
      const area = svg.getBoundingClientRect();
      const time = first + ((event.clientX - area.left) / area.width) * span;
      this.go(nearest(seen, time));
    });
    return h(
      "div",
      { class: "row" },
      h("button", { type: "button", class: "link", onclick: () => this.search(words), title: `Search for ${words}`, dir: "auto" }, words),
      svg,
      h("span", { class: "number" }, count(seen.length)),
    );
  }
}

const nearest = (frames, time) =>
  frames.reduce((best, frame) => (Math.abs(frame.time - time) < Math.abs(best.time - time) ? frame : best));
