// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// The picture: one frame, its boxes and labels, and the region of a question. Knows pixels of the
// frame and of the screen; no node.
//
// Events: "hot" (text of the phrase under the pointer, or null), "region" ({box}), "drawn" (a drag
// has ended), "pick" (a box was clicked), "grab" (a region has begun), "question" (Enter in a region).

import { $, s, set } from "./dom.js";
import { load } from "./images.js";
import { area as size, labels, shared } from "./labels.js";
import { gridLines, keyboard, pointer } from "./region.js";

const EDGE = 8; // px between the picture's edge and an answer about the whole picture

const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
const snap = (v) => Math.round(v * devicePixelRatio) / devicePixelRatio;

export class Picture extends EventTarget {
  constructor(stage) {
    super();
    this.stage = stage;
    this.frame = $("#frame");
    this.canvas = $("#pixels");
    this.overlay = $("#overlay");
    this.regionBox = $("#region");
    this.quick = $("#quick");
    this.bubble = $("#bubble");
    this.missing = $("#missing");
    this.look = null; // the described frame that is shown
    this.extent = { width: 0, height: 0 }; // of the frame, in its pixels
    this.marks = []; // [{text, box: [x0, y0, x1, y1, score], colour}]
    this.ghosts = []; // marks of a phrase that is pointed at, whose layer is not shown
    this.hot = null; // text of the phrase that is pointed at
    this.region = null; // [x0, y0, x1, y1] in pixels of the frame
    this.video = null; // {bitmap, differs}: a newer image of the camera, over the described frame
    this.armed = false; // one finger draws
    this.groups = []; // elements of marks, used again
    this.placed = []; // [{mark, area, label}], the last on top
    this.grid = s("path", { class: "grid", "aria-hidden": "true" });
    this.shade = s("path", { class: "shade", "fill-rule": "evenodd", "aria-hidden": "true" });
    this.outline = s("g", { class: "outline", "aria-hidden": "true" });
    this.layer = s("g", {});
    this.overlay.append(this.grid, this.shade, this.layer, this.outline);
    new ResizeObserver(() => this.layout()).observe(stage);
    pointer(this);
    keyboard(this);
  }

  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // Frames --------------------------------------------------------------------------------------

  // Shows a look with its marks. While a picture arrives, only the newest call waits for the next.
  show(look, marks) {
    this.wanted = { look, marks };
    if (!this.loading) this.#follow();
  }

  async #follow() {
    while (this.wanted) {
      const { look, marks } = this.wanted;
      this.wanted = null;
      if (look?.picture && look.picture !== this.address) {
        this.loading = true;
        const image = await load(look);
        this.loading = false;
        this.#take(look, marks, image);
      } else this.#take(look, marks, look?.picture ? this.image : null);
    }
  }

  #take(look, marks, image) {
    const changed = image !== this.image || look !== this.look;
    Object.assign(this, { look, marks, image, address: image ? look.picture : null });
    this.missing.hidden = !look || Boolean(image) || Boolean(this.video);
    const shape = look?.width ? look : { width: image?.naturalWidth ?? 0, height: image?.naturalHeight ?? 0 };
    this.#reshape(shape);
    if (changed) this.#paint();
    this.draw();
  }

  // Shows a newer image of the camera. `differs`: the boxes do not fit it. Null: the look again.
  setVideo(video) {
    this.video?.bitmap.close(); // otherwise its memory waits for the garbage collector
    this.video = video;
    this.missing.hidden = !this.look || Boolean(this.image) || Boolean(video);
    if (video && !this.look) this.#reshape(video.bitmap);
    this.#paint();
    this.draw();
  }

  #reshape({ width, height }) {
    if (!width && this.video) ({ width, height } = this.video.bitmap);
    this.frame.hidden = !width;
    if (!width || (width === this.extent.width && height === this.extent.height)) return;
    this.extent = { width, height };
    this.layout();
  }

  layout() {
    const { width, height } = this.extent;
    if (!width) return;
    const room = this.stage.getBoundingClientRect();
    const style = getComputedStyle(this.stage);
    const across = room.width - parseFloat(style.paddingLeft) * 2, down = room.height - parseFloat(style.paddingTop) * 2;
    const free = style.getPropertyValue("--fit").trim() === "width"; // the page grows with the picture
    if (across < 64 || (!free && down < 48)) return; // not laid out yet
    const most = parseFloat(style.getPropertyValue("--most")) || Infinity;
    const scale = Math.min(across / width, (free ? most * innerHeight : down) / height);
    this.width = snap(width * scale);
    this.height = snap(height * scale);
    this.scale = [this.width / width, this.height / height];
    this.font = getComputedStyle(this.overlay).fontFamily;
    this.frame.style.width = `${this.width}px`;
    this.frame.style.height = `${this.height}px`;
    set(this.overlay, { width: this.width, height: this.height, viewBox: `0 0 ${this.width} ${this.height}` });
    this.canvas.width = Math.round(this.width * devicePixelRatio);
    this.canvas.height = Math.round(this.height * devicePixelRatio);
    this.#paint();
    this.draw();
  }

  #paint() {
    const context = this.canvas.getContext("2d", { alpha: false });
    const image = this.video?.bitmap ?? this.image;
    context.imageSmoothingQuality = "high";
    if (image) context.drawImage(image, 0, 0, this.canvas.width, this.canvas.height);
    else context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  // Boxes ---------------------------------------------------------------------------------------

  setHot(text, ghosts = []) {
    if (this.hot === text && !ghosts.length && !this.ghosts.length) return;
    this.hot = text;
    this.ghosts = ghosts;
    this.draw();
  }

  draw() {
    if (!this.scale) return;
    const hidden = !this.look || this.video?.differs;
    const marks = hidden ? [] : [...this.marks, ...this.ghosts.map((mark) => ({ ...mark, ghost: true }))];
    const hot = this.hot !== null && marks.some((mark) => mark.text === this.hot);
    this.overlay.classList.toggle("has-hot", hot);
    this.overlay.classList.toggle("asking", Boolean(this.region));
    const areas = marks.map((mark) => this.area(mark.box));
    const named = labels(marks, areas, this);
    // The smaller a box, the later it is drawn, so that it lies on top and is hit first.
    const order = marks.map((_, i) => i).sort((a, b) => size(areas[b]) - size(areas[a]));
    this.placed = order.map((i) => ({ mark: marks[i], area: areas[i], label: named[i] }));
    this.placed.forEach((placed, at) => this.#mark(at, placed));
    for (const spare of this.groups.slice(order.length)) spare.node.remove();
    this.groups.length = order.length;
    this.#drawRegion();
  }

  // A box of the frame as a rectangle on the screen.
  area([x0, y0, x1, y1]) {
    const [across, down] = this.scale;
    const left = snap(clamp(x0 * across, 0, this.width)), top = snap(clamp(y0 * down, 0, this.height));
    const right = snap(clamp(x1 * across, 0, this.width)), bottom = snap(clamp(y1 * down, 0, this.height));
    return { x: left, y: top, w: Math.max(right - left, 2), h: Math.max(bottom - top, 2) };
  }

  // Returns the box at a point of the screen, labels first.
  hit(x, y) {
    const within = (a, by = 0) => x >= a.x - by && x <= a.x + a.w + by && y >= a.y - by && y <= a.y + a.h + by;
    const top = [...this.placed].reverse();
    return top.find((p) => within(p.label)) ?? top.find((p) => within(p.area, 2)) ?? null;
  }

  #mark(at, { mark, area, label }) {
    const { node, parts } = (this.groups[at] ??= group());
    if (node.parentNode !== this.layer) this.layer.append(node);
    node.setAttribute("class", `mark c${mark.colour}${mark.text === this.hot ? " hot" : ""}${mark.ghost ? " ghost" : ""}`);
    node.dataset.phrase = mark.text;
    const box = mark.box.slice(0, 4).map(Math.round).join(", ");
    node.setAttribute("aria-label", `${mark.text || "unnamed"} ${label.score}, box ${box} pixels`);
    // Strokes lie inside the box, so that its outer edge is the published one.
    const inside = (by) => ({ x: area.x + by, y: area.y + by, width: Math.max(area.w - 2 * by, 0), height: Math.max(area.h - 2 * by, 0) });
    set(parts.fill, inside(0));
    set(parts.halo, inside(1.5));
    set(parts.line, inside(1));
    set(parts.plate, { x: label.x, y: label.y, width: label.w, height: label.h });
    set(parts.words, { x: label.x + 6, y: label.y + 14 });
    set(parts.score, { x: label.x + label.w - 6, y: label.y + 14 });
    if (parts.words.textContent !== label.text) parts.words.textContent = label.text;
    if (parts.score.textContent !== label.score) parts.score.textContent = label.score;
  }

  // The region and its answer -------------------------------------------------------------------

  setRegion(box, offer = false) {
    this.region = box;
    this.offer = offer && Boolean(box);
    if (offer || !box) this.said = false;
    if (this.scale) this.draw();
  }

  // An answer beside its region, or at the edge of the picture. `nodes` is its text; null: none.
  // `refused`: the text is the reason why there is no answer.
  setBubble(question, nodes, refused = false) {
    this.said = Boolean(nodes?.length);
    this.bubble.classList.toggle("refused", refused);
    $("#bubble-question").textContent = question ?? "";
    $("#bubble-answer").replaceChildren(...(nodes ?? []));
    if (this.scale) this.#drawRegion();
  }

  #drawRegion() {
    const box = this.region;
    const place = box ? this.area(box) : null;
    this.regionBox.hidden = !box;
    this.outline.replaceChildren();
    this.shade.setAttribute("d", box ? hole(place, this.width, this.height) : "");
    this.grid.setAttribute("d", box && this.drag ? gridLines(this.width, this.height) : "");
    if (box) this.#outline(place, box);
    this.quick.hidden = !box || !this.offer || Boolean(this.drag);
    if (!this.quick.hidden) this.#beside(this.quick, place);
    this.bubble.hidden = !this.said || Boolean(this.drag) || this.offer;
    this.bubble.classList.toggle("whole", !box);
    if (this.bubble.hidden) return;
    this.bubble.style.maxWidth = `${Math.min(this.width - 16, 320)}px`;
    if (place) this.#beside(this.bubble, place);
    else this.#corner(this.bubble);
  }

  #outline(place, box) {
    const { x, y, w, h } = place;
    this.outline.append(
      s("rect", { class: "under", x: x + 0.5, y: y + 0.5, width: Math.max(w - 1, 0), height: Math.max(h - 1, 0) }),
      s("rect", { class: "over", x: x + 1.5, y: y + 1.5, width: Math.max(w - 3, 0), height: Math.max(h - 3, 0) }),
    );
    for (const [cx, cy] of [[x, y], [x + w, y], [x, y + h], [x + w, y + h]]) {
      this.outline.append(
        s("rect", { class: "handle", x: clamp(cx - 4.5, 0.5, this.width - 9.5), y: clamp(cy - 4.5, 0.5, this.height - 9.5), width: 9, height: 9, rx: 2 }),
      );
    }
    Object.assign(this.regionBox.style, { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px` });
    const [x0, y0, x1, y1] = box.map(Math.round);
    this.regionBox.setAttribute(
      "aria-label",
      `Region, ${x1 - x0} by ${y1 - y0} pixels at ${x0}, ${y0}. Arrow keys move it, Shift and arrow keys change its size, Enter asks, Escape removes it.`,
    );
  }

  // Moves an element to the corner where it covers least of the boxes.
  #corner(node) {
    const w = node.offsetWidth, h = node.offsetHeight;
    const left = EDGE, right = Math.max(this.width - w - EDGE, 0), top = EDGE, bottom = Math.max(this.height - h - EDGE, 0);
    const covered = ([x, y]) => this.placed.reduce((sum, p) => sum + shared({ x, y, w, h }, p.area) + shared({ x, y, w, h }, p.label), 0);
    const corners = [[left, bottom], [right, bottom], [left, top], [right, top]];
    const [x, y] = corners.reduce((best, corner) => (covered(corner) < covered(best) ? corner : best));
    Object.assign(node.style, { left: `${Math.round(x)}px`, top: `${Math.round(y)}px` });
  }

  #beside(node, place) {
    const w = node.offsetWidth, h = node.offsetHeight;
    const below = place.y + place.h + 8, above = place.y - 8 - h;
    const y = below + h <= this.height ? below : above >= 0 ? above : place.y + place.h - h - 12;
    const x = clamp(place.x, 4, Math.max(this.width - w - 4, 4));
    Object.assign(node.style, { left: `${Math.round(x)}px`, top: `${Math.round(y)}px` });
  }
}

const hole = ({ x, y, w, h }, width, height) => `M0 0H${width}V${height}H0ZM${x} ${y}V${y + h}H${x + w}V${y}Z`;

function group() {
  const parts = {
    fill: s("rect", { class: "fill" }),
    halo: s("rect", { class: "halo" }),
    line: s("rect", { class: "line" }),
    plate: s("rect", { class: "plate", rx: 3 }),
    words: s("text", { class: "label" }),
    score: s("text", { class: "label score", "text-anchor": "end" }),
  };
  const node = s("g", { role: "button", tabindex: 0 }, ...Object.values(parts));
  return { node, parts };
}
