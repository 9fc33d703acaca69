// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// How the overview arranges its tiles: as large as the window allows, with the words below or
// beside each picture. Pure; knows no element.

const GAP = 16; // px between tiles
const HEAD = 40; // px of the name and the margins below a picture
const NARROW = 208; // px of a tile below which its name and its state have a line each
const LINE = 20; // px of a line of the caption
const SIDE = 192; // px of the words beside a picture
const LEAST = 150; // px, smallest width of a picture; with smaller ones the overview scrolls
const WORTH = 1.1; // how much larger a picture must be for words beside it
const LINES = { least: 2, most: 6 }; // of a caption below its picture

// Returns {columns, picture: width in px, beside: whether the words are beside it, lines: of the
// caption} for `count` tiles in `room`, {width, height} in px. `shape`: width over height of a picture.
export function arrangement(count, room, shape) {
  let best = { picture: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const width = (room.width - GAP * (columns - 1)) / columns, height = (room.height - GAP * (rows - 1)) / rows;
    const head = width < NARROW ? HEAD + LINE : HEAD;
    const below = Math.floor(Math.min(width, (height - head - LINES.least * LINE) * shape));
    const free = Math.floor((height - head - below / shape) / LINE);
    const lines = Math.min(Math.max(free, LINES.least), LINES.most);
    const beside = Math.floor(Math.min(width - SIDE, height * shape));
    if (below > best.picture) best = { columns, picture: below, beside: false, lines };
    if (beside > WORTH * best.picture) best = { columns, picture: beside, beside: true, lines: Math.floor(beside / shape / LINE) - 2 };
  }
  if (best.picture >= LEAST) return best;
  const columns = Math.max(Math.floor((room.width + GAP) / (LEAST + GAP)), 1);
  return { columns, picture: Math.floor((room.width + GAP) / columns - GAP), beside: false, lines: LINES.least };
}
