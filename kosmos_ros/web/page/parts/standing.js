// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// An editor of the parameters `phrases` and `questions`, with the newest result of each entry.

import { $, announce, h, icon } from "./dom.js";
import { phraseWord } from "./words.js";

export class Standing {
  constructor(node, coloursOf) {
    Object.assign(this, { node, coloursOf });
    this.camera = "";
    for (const kind of ["phrases", "questions"]) {
      const input = $(`#${kind}-add`);
      $(`#${kind}-form`).addEventListener("submit", (event) => {
        event.preventDefault();
        const texts = (kind === "phrases" ? input.value.split(",") : [input.value]).map((t) => t.trim()).filter(Boolean);
        if (texts.length) this.#set(kind, [...new Set([...(this.node.value(this.camera, kind) ?? []), ...texts])], input);
      });
      input.addEventListener("keydown", (event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        input.value = "";
        this.#refuse("");
        input.blur();
      });
    }
  }

  show(camera, look) {
    const moved = camera !== this.camera;
    this.camera = camera;
    const texts = (this.node.value(camera, "phrases") ?? []).map((text) => ({ text }));
    const colours = this.coloursOf(look, texts);
    const seen = new Map((look?.phrases ?? []).map((p) => [p.text, p]));
    const said = new Map((look?.answers ?? []).map((a) => [a.question, a]));
    this.#fill("phrases", (text) => {
      const phrase = seen.get(text) ?? { text, boxes: [] };
      const there = phrase.boxes.length > 0;
      const value = there ? Math.max(...phrase.boxes.map((b) => b[4])).toFixed(2) : look?.caption ? "not in view" : "–";
      return [phraseWord(phrase, colours), h("span", { class: "value", "aria-hidden": "true" }, value)];
    });
    this.#fill("questions", (text) => [
      h("span", { class: "asked" }, text),
      h("span", { class: "now" }, said.get(text)?.answer ?? "–"),
    ]);
    if (moved) this.#refuse("");
  }

  // Chips are kept by their text, so that focus and pointer stay where they are.
  #fill(kind, content) {
    const list = $(`#${kind}-list`);
    const texts = this.node.value(this.camera, kind) ?? [];
    const form = list.lastElementChild; // the form that adds an entry
    const old = new Map([...list.children].map((item) => [item.dataset.text, item]));
    const items = texts.map((text) => {
      const item = old.get(text) ?? h("li", { class: "chip", "data-text": text }, h("span", { class: "content" }), this.#remover(kind, text));
      const place = $(".content", item);
      const inside = content(text);
      const held = place.contains(document.activeElement);
      const hot = $(".phrase.hot", place);
      place.replaceChildren(...inside);
      if (hot) $(".phrase", place)?.classList.add("hot");
      if (held) $(".phrase", place)?.focus({ preventScroll: true });
      return item;
    });
    for (const item of [...list.children]) if (item !== form && !items.includes(item)) item.remove();
    for (const item of items) if (!item.isConnected) form.before(item);
  }

  #remover(kind, text) {
    const remove = async () => {
      await this.#set(kind, this.node.value(this.camera, kind).filter((t) => t !== text));
      announce(`${text} removed`);
      $(`#${kind}-add`).focus();
    };
    return h("button", { type: "button", class: "remove", "aria-label": `Remove ${text}`, onclick: remove }, icon("close"));
  }

  async #set(kind, value, input) {
    const refusal = await this.node.set(this.camera, kind, value);
    this.#refuse(refusal);
    if (!refusal && input) input.value = "";
  }

  #refuse(text) {
    const note = $("#standing-refusal");
    note.hidden = !text;
    note.textContent = text;
  }
}
