// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// How the overview arranges its tiles: as large as the window allows, with the words below or
// beside each picture. Pure; knows no element.

const GAP = 16; // px between tiles
const HEAD = 40; // px of the name and the margins below a picture
const NARROW = 240; // px of a tile below which its name and its state have a line each
const LINE = 20; // px of a line of the caption
const SIDE = 192; // px of the words beside a picture
const LEAST = 150; // px, smallest width of a picture; with smaller ones the overview scrolls
const WORTH = 1.1; // how much larger a picture must be for words beside it
const LINES = { least: 2, most: 6 }; // of a caption below its picture

// Returns {columns, picture: width in px, beside: whether the words are beside it, narrow: whether
// the name and the state have a line each, lines: of the caption} for `count` tiles in `room`,
// {width, height} in px. `shape`: width over height of a picture.
export function arrangement(count, room, shape) {
  let best = { picture: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const width = (room.width - GAP * (columns - 1)) / columns, height = (room.height - GAP * (rows - 1)) / rows;
    const under = below(width, height, shape), side = beside(width, height, shape);
    if (under.picture > best.picture) best = { columns, ...under };
    if (side.picture > WORTH * best.picture) best = { columns, ...side };
  }
  return best.picture >= LEAST ? best : scrolling(room);
}

// The largest picture in a cell with the words below it.
function below(width, height, shape) {
  const fit = (head) => Math.floor(Math.min(width, (height - head - LINES.least * LINE) * shape));
  const narrow = fit(HEAD) < NARROW;
  const head = narrow ? HEAD + LINE : HEAD, picture = fit(head);
  const free = Math.floor((height - head - picture / shape) / LINE);
  return { picture, beside: false, narrow, lines: Math.min(Math.max(free, LINES.least), LINES.most) };
}

function beside(width, height, shape) {
  const picture = Math.floor(Math.min(width - SIDE, height * shape));
  return { picture, beside: true, narrow: false, lines: Math.max(Math.floor(picture / shape / LINE) - 2, 1) };
}

function scrolling({ width }) {
  const columns = Math.max(Math.floor((width + GAP) / (LEAST + GAP)), 1);
  const picture = Math.floor((width + GAP) / columns - GAP);
  return { columns, picture, beside: false, narrow: true, lines: LINES.least };
}
