// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// The captions, events and answers that the page knows, the newest first, and the last minute as a
// strip under the picture. A click shows the frame. Consecutive equal captions are one row.
//
// Events: "open" ({look, entry}).

import { $, clock, h, icon, s, set, span } from "./dom.js";
import { lose, small } from "./images.js";
import { blank, changeWords, grounded } from "./words.js";

const LONG = 120; // characters of a question in a row, so that its answer is seen, too
const REFUSED = 40; // characters of a question without an answer, so that the reason is seen whole
const MOST = 600; // entries
const DRAWN = 150; // rows
const RECENT = 30; // entries whose looks may still be incomplete
const STRIP = 60000; // ms

const KINDS = { caption: "captions", event: "events", answer: "answers" };

const short = (text, most = LONG) => (text.length > most ? `${text.slice(0, most)}…` : text);

export class Timeline extends EventTarget {
  constructor(node, coloursOf) {
    super();
    Object.assign(this, { node, coloursOf });
    this.entries = []; // oldest first
    this.kind = "all";
    this.camera = "";
    this.words = "";
    this.list = $("#timeline-list");
    this.more = $("#timeline-new");
    this.unseen = 0;
    for (const button of document.querySelectorAll("#timeline-kinds button")) {
      button.addEventListener("click", () => this.filter({ kind: button.value }));
    }
    $("#timeline-words").addEventListener("input", (e) => this.filter({ words: e.target.value.trim().toLowerCase() }));
    $("#timeline-camera").addEventListener("change", (e) => this.filter({ camera: e.target.value }));
    this.list.addEventListener("scroll", () => {
      if (this.list.scrollTop < 8) this.#seen();
    });
    this.more.addEventListener("click", () => {
      this.list.scrollTop = 0;
      this.#seen();
    });
    this.list.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const row = event.target.closest("li");
      if (!step || !row) return;
      event.preventDefault();
      const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
      if (next) $(".open", next).focus();
    });
    this.list.addEventListener("focusin", (event) => {
      const open = event.target.closest(".open");
      if (open) this.#stop(open);
    });
  }

  // Adds an entry {kind, camera, time, look, text, ...}; equal captions in a row become one.
  add(entry, draw = true) {
    const last = this.entries.findLast((e) => e.camera === entry.camera && e.kind === "caption");
    if (entry.kind === "caption" && last?.text === entry.text) {
      last.times += 1;
      Object.assign(last, { time: entry.time, look: entry.look });
      if (draw && last.row) this.#refresh(last);
      return;
    }
    entry.times = 1;
    entry.first = entry.time;
    this.entries.push(entry);
    if (this.entries.length > MOST) this.entries.shift();
    if (!draw) return;
    this.#counts();
    if (this.#fits(entry)) this.#prepend(entry);
  }

  // Shows the picture of a look that has just arrived.
  refresh(look) {
    for (const entry of this.entries.slice(-RECENT)) if (entry.look === look && entry.row) this.#refresh(entry);
  }

  // The names of the cameras to choose from.
  cameras() {
    const select = $("#timeline-camera");
    const options = [...this.node.cameras.values()].map((c) => h("option", { value: c.name }, c.label));
    select.replaceChildren(h("option", { value: "" }, "All cameras"), ...options);
    select.value = this.camera;
    select.parentElement.hidden = options.length < 2;
  }

  filter(change) {
    Object.assign(this, change);
    this.draw();
  }

  draw() {
    for (const button of document.querySelectorAll("#timeline-kinds button")) {
      button.setAttribute("aria-pressed", String(button.value === this.kind));
    }
    this.#counts();
    const shown = this.entries.filter((entry) => this.#fits(entry)).slice(-DRAWN).reverse();
    for (const entry of this.entries) entry.row = null;
    this.list.replaceChildren(...shown.map((entry) => this.#row(entry)));
    this.#empty();
  }

  mark(entry) {
    this.current = entry;
    for (const e of this.entries) e.row?.classList.toggle("current", e === entry);
  }

  #counts() {
    for (const button of document.querySelectorAll("#timeline-kinds button")) {
      const number = this.entries.filter((e) => button.value === "all" || KINDS[e.kind] === button.value).length;
      $(".number", button).textContent = number || "";
    }
  }

  // The Tab key stops at one row of the list only. Arrow keys move to the other rows.
  #stop(open) {
    for (const other of this.list.querySelectorAll('.open[tabindex="0"]')) other.tabIndex = -1;
    open.tabIndex = 0;
  }

  #empty() {
    const first = $(".open", this.list);
    if (first && !this.list.contains(document.activeElement)) this.#stop(first);
    const note = $("#timeline-empty");
    note.hidden = this.list.childElementCount > 0;
    this.list.hidden = !note.hidden;
    note.textContent = this.entries.length
      ? "Nothing here matches the filter."
      : "Captions, events and answers appear here.";
  }

  #fits(entry) {
    return (
      (this.kind === "all" || KINDS[entry.kind] === this.kind) &&
      (!this.camera || entry.camera === this.camera) &&
      (!this.words || `${entry.text} ${entry.question ?? ""} ${entry.subject ?? ""}`.toLowerCase().includes(this.words))
    );
  }

  #prepend(entry) {
    const away = this.list.scrollTop >= 8;
    const row = this.#row(entry);
    this.list.prepend(row);
    if (away) {
      this.list.scrollTop += row.offsetHeight;
      this.unseen += 1;
      this.more.hidden = false;
      $(".number", this.more).textContent = this.unseen;
    }
    while (this.list.childElementCount > DRAWN) this.list.lastElementChild.remove();
    this.#empty();
  }

  #seen() {
    this.unseen = 0;
    this.more.hidden = true;
  }

  #row(entry) {
    const sign = { event: entry.event, answer: entry.failed ? "warn" : entry.sign }[entry.kind] ?? "caption";
    const image = h("img", { alt: "", width: 56, height: 42, loading: "lazy", onerror: () => {
      image.hidden = true;
      lose(entry.look, image.getAttribute("src"));
    } });
    const open = h(
      "button",
      { class: "open", type: "button", tabindex: -1, onclick: () => this.#emit(entry) },
      h("span", { class: "hidden" }, "Show the frame of "), h("time", {}),
    );
    const head = h("div", { class: "head" }, open, h("span", { class: "from" }, this.node.camera(entry.camera).label), h("span", { class: "times" }));
    const row = h(
      "li",
      { class: `row is-${entry.kind} is-${sign}` },
      h("span", { class: "sign" }, icon(sign)),
      h("div", { class: "body" }, head, h("div", { class: "words" }, ...this.#words(entry))),
      image,
    );
    row.addEventListener("click", (event) => {
      if (!event.target.closest(".open")) this.#emit(entry);
    });
    entry.row = row;
    this.#refresh(entry);
    row.classList.toggle("current", entry === this.current);
    return row;
  }

  #words(entry) {
    const colours = this.coloursOf(entry.look, entry.phrases ?? []);
    if (entry.kind === "caption" && !entry.text.trim()) return [h("span", { class: "asked" }, blank(entry.look.task))];
    if (entry.kind === "caption") return grounded(entry.text, entry.phrases, colours, true);
    if (entry.failed) return [h("span", { class: "asked" }, short(entry.question, REFUSED)), " ", h("span", { class: "failed" }, entry.text)];
    if (entry.kind === "answer") return [h("span", { class: "asked" }, short(entry.question)), " ", ...grounded(entry.text, entry.phrases, colours, true)];
    const asked = entry.event === "answered";
    const of = asked ? colours : this.coloursOf(entry.look, [{ text: entry.subject }]);
    return changeWords({ ...entry, kind: entry.event, subject: asked ? short(entry.subject) : entry.subject }, of);
  }

  #refresh(entry) {
    $("time", entry.row).textContent = clock(entry.first);
    const times = $(".times", entry.row);
    times.textContent = entry.times > 1 ? `${entry.times} frames, ${span(entry.time - entry.first)}` : "";
    const image = $("img", entry.row);
    const address = small(entry.look);
    image.hidden = !address;
    if (address && image.getAttribute("src") !== address) image.src = address;
  }

  #emit(entry) {
    this.dispatchEvent(new CustomEvent("open", { detail: { look: entry.look, entry } }));
  }
}

// The last minute of one camera.
export class Strip extends EventTarget {
  constructor(node) {
    super();
    this.robot = node;
    this.node = $("#strip");
    this.svg = $("#strip-svg");
    this.looks = [];
    this.entries = [];
    this.chosen = null; // the look that is shown, where it is not the newest
    const pick = (event) => {
      const r = this.svg.getBoundingClientRect();
      const time = this.now - STRIP * (1 - (event.clientX - r.left) / r.width);
      const best = this.#nearest(time);
      if (best) this.#emit(best);
    };
    this.node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.node.setPointerCapture(event.pointerId);
      this.held = true;
      pick(event);
    });
    this.node.addEventListener("pointermove", (event) => this.held && pick(event));
    this.node.addEventListener("pointerup", () => (this.held = false));
    this.node.addEventListener("pointercancel", () => (this.held = false));
    this.node.addEventListener("keydown", (event) => {
      const at = this.chosen ? this.looks.indexOf(this.chosen) : this.looks.length - 1;
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 10, PageDown: at + 10, Home: 0, End: Infinity }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      if (to >= this.looks.length) this.dispatchEvent(new CustomEvent("live"));
      else this.#emit(this.looks[Math.max(to, 0)]);
    });
    new ResizeObserver(() => this.draw()).observe(this.node);
  }

  update(looks, entries, chosen) {
    this.now = this.robot.now();
    this.looks = looks.filter((look) => look.time > this.now - STRIP && look.caption);
    this.entries = entries;
    this.chosen = chosen;
    this.draw();
  }

  draw() {
    const width = this.svg.clientWidth;
    if (!width || !this.now) return;
    set(this.svg, { viewBox: `0 0 ${width} 24` });
    const x = (time) => Math.round(width * (1 - (this.now - time) / STRIP)) + 0.5;
    const nodes = [];
    let ticks = "";
    for (const look of this.looks) ticks += `M${x(look.time)} 15V21`;
    nodes.push(s("path", { class: "ticks", d: ticks }));
    const signs = this.entries.filter((e) => e.kind !== "caption" && e.time >= this.now - STRIP);
    const rank = (e) => (e.kind === "answer" ? 2 : e.event === "answered" ? 0 : 1); // the last is on top
    for (const entry of signs.sort((a, b) => rank(a) - rank(b))) {
      const at = Math.min(Math.max(x(entry.time), 6), width - 6);
      const d = [`M${at - 3} 4h6v6h-6z`, `M${at} 2l5 5-5 5-5-5z`][rank(entry)];
      nodes.push(d ? s("path", { class: `sign ${entry.event}`, d }) : s("circle", { class: "sign mine", cx: at, cy: 7, r: 4 }));
    }
    const head = this.chosen ? Math.max(x(this.chosen.time), 1.5) : width - 1.5;
    nodes.push(s("path", { class: "head", d: `M${head} 0V24` }));
    this.svg.replaceChildren(...nodes);
    const shown = this.chosen ?? this.looks.at(-1);
    const ago = shown ? Math.round((this.now - shown.time) / 1000) : 0;
    set(this.node, {
      "aria-valuemin": -60,
      "aria-valuemax": 0,
      "aria-valuenow": this.chosen ? -Math.min(ago, 60) : 0,
      "aria-valuetext": this.chosen ? `${ago} seconds ago: ${shown.caption?.text ?? ""}` : "live",
    });
  }

  #nearest(time) {
    let best = null;
    for (const look of this.looks) {
      if (!best || Math.abs(look.time - time) <= Math.abs(best.time - time)) best = look;
    }
    return best;
  }

  #emit(look) {
    this.dispatchEvent(new CustomEvent("open", { detail: look }));
  }
}
