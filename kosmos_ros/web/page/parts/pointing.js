// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Highlight a phrase and its boxes together, wherever the mouse, the focus or a finger points at
// one of them.

import { $ } from "./dom.js";

const of = (event) => event.target.closest?.("[data-phrase]")?.dataset.phrase ?? null;

// `ghosts(text)` returns marks that are drawn only while the phrase is pointed at; `pick(mark)` is
// called for Enter on a box. Returns {at(text), which points at a phrase or null, and again(), which
// must be called after words were replaced}.
export function pointing(picture, ghosts, pick) {
  let hot = null;
  const light = () => {
    for (const element of document.querySelectorAll(".phrase")) {
      element.classList.toggle("hot", hot !== null && element.dataset.phrase === hot);
    }
  };
  const at = (text) => {
    if (text === hot) return;
    hot = text;
    light();
    picture.setHot(text, text === null ? [] : ghosts(text));
  };
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch" && !event.target.closest("#frame")) at(of(event));
  });
  document.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && at(of(event)));
  document.addEventListener("focusout", (event) => of(event) !== null && at(null));
  document.addEventListener("click", (event) => {
    const phrase = event.target.closest(".phrase");
    if (phrase || !event.target.closest("#frame")) at(phrase?.dataset.phrase ?? null);
  });
  $("#overlay").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    const text = of(event);
    const placed = picture.placed.find((p) => p.mark.text === text);
    if (placed) pick(placed.mark);
  });
  const again = () => {
    light();
    picture.setHot(hot, hot === null ? [] : ghosts(hot));
  };
  return { at, again };
}
