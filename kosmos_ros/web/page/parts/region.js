// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Draw, move and resize a region by mouse, finger and keyboard, and find the box under the pointer.
// Works on a Picture; knows no questions.

import { announce } from "./dom.js";

const CELLS = 32; // of the model's grid, in each direction
const DRAG = 4; // px, until a press is a drag
const LEAST = 8; // px on the screen, smallest region
const REACH = { mouse: 10, touch: 22 }; // px from a corner within which a press still hits it
const OVER = "#quick, #bubble"; // elements over the picture that handle their own clicks

const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
const reach = (event) => REACH[event.pointerType] ?? REACH.mouse;

// Pointer ---------------------------------------------------------------------------------------

export function pointer(picture) {
  const { frame } = picture;
  let press = null;
  const at = (event) => {
    const r = frame.getBoundingClientRect();
    return [clamp(event.clientX - r.left, 0, picture.width), clamp(event.clientY - r.top, 0, picture.height)];
  };
  const hover = (event) => {
    if (event.pointerType === "touch") return;
    const [x, y] = at(event);
    const edge = grip(picture, x, y, REACH.mouse);
    frame.dataset.cursor = edge ?? "";
    const hit = edge ? null : picture.hit(x, y);
    if (!event.target.closest(OVER)) picture.emit("hot", hit ? hit.mark.text : null);
  };
  const drag = (event) => {
    const [x, y] = at(event);
    if (!picture.drag && Math.hypot(x - press.x, y - press.y) < DRAG) return;
    if (!picture.drag) {
      picture.drag = true;
      picture.emit("hot", null);
      picture.emit("grab");
    }
    picture.offer = false;
    picture.region = dragged(picture, press, x, y);
    picture.draw();
    picture.emit("region", { box: picture.region });
  };
  const click = (x, y) => {
    const hit = picture.hit(x, y);
    if (hit) picture.emit("pick", hit.mark);
    else if (picture.region) {
      picture.setRegion(null);
      picture.emit("region", { box: null });
    }
  };
  const end = (event) => {
    if (press?.id !== event.pointerId) return;
    const { x, y } = press;
    press = null;
    if (picture.drag) finish(picture);
    else if (event.type === "pointerup") click(x, y);
  };

  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !picture.look || event.target.closest(OVER)) return;
    const [x, y] = at(event);
    const edge = grip(picture, x, y, reach(event));
    if (event.pointerType === "touch" && !picture.armed && !edge) return; // the page scrolls; a tap comes as a click
    press = { x, y, edge, box: picture.region && [...picture.region], id: event.pointerId };
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    if (press?.id === event.pointerId) drag(event);
    else hover(event);
  });
  frame.addEventListener("pointerleave", () => !picture.drag && picture.emit("hot", null));
  frame.addEventListener("pointerup", end);
  frame.addEventListener("pointercancel", end);
  frame.addEventListener("click", (event) => {
    if (event.pointerType === "touch" && !picture.armed && picture.look && !event.target.closest(OVER)) click(...at(event));
  });
}

function finish(picture) {
  picture.drag = false;
  const { w, h } = picture.area(picture.region);
  const box = w < LEAST || h < LEAST ? null : picture.region;
  picture.setRegion(box, true);
  picture.emit("region", { box });
  picture.emit("drawn");
}

// Which part of the region is at a point: a corner such as "nw", "move", or null.
function grip(picture, x, y, reach) {
  if (!picture.region) return null;
  const a = picture.area(picture.region);
  const near = (v, edge) => Math.abs(v - edge) <= reach;
  const row = near(y, a.y) ? "n" : near(y, a.y + a.h) ? "s" : "";
  const column = near(x, a.x) ? "w" : near(x, a.x + a.w) ? "e" : "";
  if (row && column) return row + column;
  const inside = x > a.x && x < a.x + a.w && y > a.y && y < a.y + a.h;
  return inside ? "move" : null;
}

// The region in pixels of the frame after a drag from `press` to a point of the screen.
function dragged(picture, press, x, y) {
  const { width, height } = picture.extent;
  const [across, down] = picture.scale;
  const to = [x / across, y / down], from = [press.x / across, press.y / down];
  let box = [...from, ...to];
  if (press.edge === "move") {
    const [x0, y0, x1, y1] = press.box;
    const dx = clamp(to[0] - from[0], -x0, width - x1), dy = clamp(to[1] - from[1], -y0, height - y1);
    box = [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
  } else if (press.edge) {
    box = [...press.box];
    box[press.edge.includes("w") ? 0 : 2] = to[0];
    box[press.edge.includes("n") ? 1 : 3] = to[1];
  }
  return [Math.min(box[0], box[2]), Math.min(box[1], box[3]), Math.max(box[0], box[2]), Math.max(box[1], box[3])];
}

// Keyboard --------------------------------------------------------------------------------------

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// Begins a region in the middle, or continues with the present one.
export function begin(picture) {
  if (!picture.look) return;
  picture.emit("grab");
  const { width, height } = picture.extent;
  const box = picture.region ?? [width * 0.375, height * 0.375, width * 0.625, height * 0.625];
  picture.setRegion(box, true);
  picture.emit("region", { box });
  picture.regionBox.focus({ preventScroll: true });
}

export function keyboard(picture) {
  let saying = 0;
  picture.frame.addEventListener("keydown", (event) => {
    if (event.target !== picture.frame || event.key !== "Enter") return;
    event.preventDefault();
    begin(picture);
  });
  picture.regionBox.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (event.key === "Enter") {
      event.preventDefault();
      picture.emit("question");
    }
    if (!step || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const box = stepped(picture, step, event);
    picture.setRegion(box, true);
    picture.emit("region", { box });
    const [x0, y0, x1, y1] = box.map(Math.round);
    clearTimeout(saying);
    saying = setTimeout(() => announce(`${x1 - x0} by ${y1 - y0} pixels at ${x0}, ${y0}`), 400);
  });
}

// The region after an arrow key: moved by a cell of the model's grid, with Alt by a pixel; with
// Shift its size changes.
function stepped(picture, [right, down], { altKey, shiftKey }) {
  const { width, height } = picture.extent;
  const cell = altKey ? [1, 1] : [width / CELLS, height / CELLS];
  const [x0, y0, x1, y1] = picture.region;
  const dx = right * cell[0], dy = down * cell[1];
  if (shiftKey) return [x0, y0, clamp(x1 + dx, x0 + cell[0], width), clamp(y1 + dy, y0 + cell[1], height)];
  const mx = clamp(dx, -x0, width - x1), my = clamp(dy, -y0, height - y1);
  return [x0 + mx, y0 + my, x1 + mx, y1 + my];
}

// Lines of the model's grid, as a path on the screen.
export function gridLines(width, height) {
  let path = "";
  for (let i = 1; i < CELLS; i++) path += `M${(i * width) / CELLS} 0V${height}M0 ${(i * height) / CELLS}H${width}`;
  return path;
}
