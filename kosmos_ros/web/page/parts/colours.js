// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// A colour for each phrase: the same words have the same colour in every frame and in every list.
//
// A phrase that names a colour gets the nearest one, so that "a red star" is never underlined in
// green. Any other phrase gets a colour that follows from its words, or the next one that is free
// in its frame, and keeps it while the page is open.

const COLOURS = 8; // classes c0 to c7 of base.css; c8 is for black, white and grey things only
const KEPT = 500; // texts whose colour is remembered, the newest

const NAMED = new Map(
  [
    "red crimson scarlet maroon ruby burgundy",
    "teal cyan turquoise aqua",
    "orange brown amber copper bronze tan",
    "purple violet lilac lavender indigo",
    "green lime olive emerald khaki",
    "pink magenta rose fuchsia",
    "blue navy azure",
    "yellow gold golden beige cream blond blonde",
    "black white grey gray silver dark",
  ].flatMap((words, colour) => words.split(" ").map((word) => [word, colour])),
);

const remembered = new Map(); // text -> colour

// The colour that a phrase names first, or undefined.
function named(text) {
  const words = text.toLowerCase().match(/\p{L}+/gu) ?? [];
  const word = words.find((w) => NAMED.has(w));
  return NAMED.get(word);
}

function hash(text) {
  let sum = 0x811c9dc5; // FNV-1a
  for (const byte of new TextEncoder().encode(text)) sum = Math.imul(sum ^ byte, 0x01000193);
  return (sum >>> 0) % COLOURS;
}

// The first colour from `first` on that is not taken; `first` if all are.
function free(first, taken) {
  for (let step = 0; step < COLOURS; step++) {
    const colour = (first + step) % COLOURS;
    if (!taken.has(colour)) return colour;
  }
  return first;
}

// Colours for the texts of one frame, by text.
export function coloursOf(texts) {
  const colours = new Map();
  for (const text of texts) {
    const colour = named(text) ?? remembered.get(text);
    if (colour !== undefined) colours.set(text, colour);
  }
  for (const text of [...new Set(texts)].sort()) {
    if (colours.has(text)) continue;
    const colour = free(hash(text), new Set(colours.values()));
    colours.set(text, colour);
    remembered.set(text, colour);
  }
  while (remembered.size > KEPT) remembered.delete(remembered.keys().next().value);
  return colours;
}
