// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// An editor of the parameters `phrases` and `questions`, with the newest result of each entry.

import { $, announce, h, icon } from "./dom.js";
import { phraseWord } from "./words.js";

const LONG = 120; // characters of a text from which an entry shows only its beginning

const cut = (text, whole) => (whole || text.length <= LONG ? text : `${text.slice(0, LONG).trimEnd()}…`);

// For each kind: how words are split into entries, and the hint in the field while it has the focus.
const KINDS = {
  phrases: { split: (words) => words.split(","), hint: "Phrases, separated by commas" },
  questions: { split: (words) => [words], hint: "A question" },
};

export class Standing {
  constructor(node, coloursOf) {
    Object.assign(this, { node, coloursOf });
    this.camera = "";
    this.look = null;
    this.note = null; // {camera, refusal, kind, missing}: what became of the last change
    this.changes = Promise.resolve(); // they follow each other, because each starts from the node's list
    for (const kind of Object.keys(KINDS)) this.#form(kind);
    node.addEventListener("state", () => {
      if (node.state === this.state) return;
      this.state = node.state;
      this.note = null; // what was refused before may be accepted now
      this.#tell();
    });
  }

  #form(kind) {
    const input = $(`#${kind}-add`);
    const { split, hint } = KINDS[kind];
    const { placeholder } = input;
    input.addEventListener("focus", () => (input.placeholder = hint));
    input.addEventListener("blur", () => (input.placeholder = placeholder));
    $(`#${kind}-form`).addEventListener("submit", (event) => {
      event.preventDefault();
      const words = input.value;
      const texts = split(words).map((text) => text.trim()).filter(Boolean);
      if (!texts.length) return;
      this.#change(kind, (old) => [...new Set([...old, ...texts])]).then((refusal) => {
        if (!refusal && input.value === words) input.value = "";
      });
    });
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      input.value = "";
      this.note = null;
      this.#tell();
      input.blur();
    });
  }

  show(camera, look) {
    if (camera !== this.camera) this.note = null;
    Object.assign(this, { camera, look });
    const texts = (this.node.value(camera, "phrases") ?? []).map((text) => ({ text }));
    const colours = this.coloursOf(look, texts);
    const seen = new Map((look?.phrases ?? []).map((p) => [p.text, p]));
    const said = new Map((look?.answers ?? []).map((a) => [a.question, a]));
    this.#fill("phrases", (text, whole) => {
      const phrase = seen.get(text) ?? { text, boxes: [] };
      const there = phrase.boxes.length > 0;
      const value = there ? Math.max(...phrase.boxes.map((b) => b[4])).toFixed(2) : look?.caption ? "not in view" : "–";
      const word = phraseWord(phrase, colours, { words: cut(text, whole) });
      return { long: text.length > LONG, inside: [word, h("span", { class: "value", "aria-hidden": "true" }, value)] };
    });
    this.#fill("questions", (text, whole) => {
      const answer = said.get(text)?.answer || "–";
      const inside = [h("span", { class: "asked" }, cut(text, whole)), h("span", { class: "now" }, cut(answer, whole))];
      return { long: Math.max(text.length, answer.length) > LONG, inside };
    });
    for (const field of document.querySelectorAll(".standing input, .standing .remove")) field.disabled = !this.node.settable;
    this.#tell();
  }

  // Chips are kept by their text, so that focus and pointer stay where they are. `content` returns
  // {inside: elements, long: whether some of their text can be cut}.
  #fill(kind, content) {
    const list = $(`#${kind}-list`);
    const texts = new Set(this.node.value(this.camera, kind) ?? []);
    const old = new Map([...list.children].map((item) => [item.dataset.text, item]));
    for (const [text, item] of old) if (text !== undefined && !texts.has(text)) item.remove();
    let place = list.firstElementChild;
    for (const text of texts) {
      const item = old.get(text) ?? this.#chip(kind, text);
      if (item === place) place = place.nextElementSibling;
      else list.insertBefore(item, place);
      this.#renew(item, content(text, item.dataset.whole === "yes"));
    }
  }

  #renew(item, { inside, long }) {
    const place = $(".content", item);
    const held = place.contains(document.activeElement);
    const hot = $(".phrase.hot", place);
    place.replaceChildren(...inside);
    if (hot) $(".phrase", place)?.classList.add("hot");
    if (held) $(".phrase", place)?.focus({ preventScroll: true });
    item.classList.toggle("long", long);
    $(".more", item).hidden = !long;
    $(".more", item).textContent = item.dataset.whole === "yes" ? "Less" : "More";
  }

  #chip(kind, text) {
    const more = h("button", { type: "button", class: "link more", onclick: () => {
      item.dataset.whole = item.dataset.whole === "yes" ? "no" : "yes";
      this.show(this.camera, this.look);
    } });
    const remove = h("button", { type: "button", class: "remove", "aria-label": `Remove ${text}`, onclick: () => this.#remove(kind, text, item) }, icon("close"));
    const item = h("li", { class: "chip", "data-text": text }, h("span", { class: "content" }), more, remove);
    return item;
  }

  async #remove(kind, text, item) {
    const next = $(".remove", item.nextElementSibling) ?? $(".remove", item.previousElementSibling ?? item);
    const refusal = await this.#change(kind, (old) => old.filter((t) => t !== text));
    if (refusal) return;
    announce(`${text} removed`);
    (next?.isConnected ? next : $(`#${kind}-add`)).focus({ preventScroll: true });
  }

  // Sets the list that `change` makes of the node's. Resolves to the refusal.
  #change(kind, change) {
    const { camera } = this;
    const set = async () => {
      const texts = change(this.node.value(camera, kind) ?? []);
      const { refusal, stored } = await this.node.set(camera, kind, texts);
      const missing = stored ? texts.filter((text) => !stored.includes(text)) : [];
      this.note = { camera, refusal, kind, missing };
      this.#tell();
      return refusal;
    };
    this.changes = this.changes.then(set);
    return this.changes;
  }

  // Shows what became of the last change, while its camera is shown.
  #tell() {
    const place = $("#standing-refusal");
    const words = this.note?.camera === this.camera ? this.#words(this.note) : "";
    place.hidden = !words;
    if (place.textContent !== words) place.textContent = words;
  }

  #words({ camera, refusal, kind, missing }) {
    const now = this.node.value(camera, kind) ?? []; // a report may come late
    const dropped = missing.filter((text) => !now.includes(text)).map((text) => `“${cut(text)}”`);
    if (refusal || !dropped.length) return refusal;
    return `The node dropped ${dropped.join(", ")} from ${kind}. ROS reads words such as null, None and ~ as no value.`;
  }
}
