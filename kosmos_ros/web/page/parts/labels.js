// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Where the labels of boxes are drawn: beside their box, and over as little else as possible.

const LABEL = 20; // px, height of a label

const ruler = document.createElement("canvas").getContext("2d");

export const area = (a) => a.w * a.h;

// px² that two rectangles share.
export function shared(a, b) {
  const across = Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x);
  const down = Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y);
  return Math.max(across, 0) * Math.max(down, 0);
}

const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

// Places for a label of width w at a rectangle, the best first.
function places(a, w) {
  return [
    [a.x, a.y - LABEL], [a.x + a.w - w, a.y - LABEL],
    [a.x, a.y], [a.x + a.w - w, a.y],
    [a.x, a.y + a.h], [a.x + a.w - w, a.y + a.h],
    [a.x, a.y + a.h - LABEL], [a.x + a.w - w, a.y + a.h - LABEL],
    [a.x + a.w, a.y], [a.x - w, a.y],
    [a.x, a.y - 2 * LABEL], [a.x, a.y + a.h + LABEL],
  ];
}

// The text of a label, cut so that it fits into `most` px with its score; and the widths.
function fitted(mark, font, most) {
  ruler.font = `600 12px ${font}`;
  const measure = (text) => ruler.measureText(text).width;
  const score = mark.box[4].toFixed(2);
  const tail = measure(score) + 20;
  let letters = Array.from(mark.text), text = mark.text;
  while (letters.length > 1 && measure(text) + tail > most) {
    letters = letters.slice(0, -1);
    text = `${letters.join("").trimEnd()}…`;
  }
  return { text, score, w: Math.min(Math.ceil(measure(text) + tail), most) };
}

// Returns {x, y, w, h, text, score} for each mark. `areas` are their rectangles on the screen, and
// `stage` is {width, height, font} of the picture on the screen.
export function labels(marks, areas, stage) {
  const found = [];
  const order = marks.map((_, i) => i).sort((a, b) => areas[a].y - areas[b].y);
  for (const i of order) {
    const { text, score, w } = fitted(marks[i], stage.font, stage.width - 4);
    let best = null, least = Infinity;
    places(areas[i], w).forEach(([x, y], rank) => {
      const place = { x: clamp(x, 0, stage.width - w), y: clamp(y, 0, stage.height - LABEL), w, h: LABEL };
      let cost = rank * 4 + Math.abs(place.x - x) + Math.abs(place.y - y) * 4;
      for (const other of found) if (other) cost += 12 * shared(place, other);
      for (const other of areas) if (other !== areas[i]) cost += 0.2 * shared(place, other);
      if (cost < least) [best, least] = [place, cost];
    });
    found[i] = { ...best, text, score };
  }
  return found;
}
