// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// A frame as a picture with its boxes, and its text, whose phrases light up their boxes.

import { h, icon, s } from "./dom.js";
import { coloursOf } from "./colours.js";
import { changeWords, grounded, phraseWord } from "./words.js";
import { at, cameras, picture } from "./frames.js";

const inCaption = (phrase) => phrase.end > phrase.start;

const missing = (text) => h("span", { class: "missing" }, text);

function replace(event) {
  event.target.replaceWith(missing("The picture is damaged"));
}

// The picture of a frame, with its boxes over it.
export function shown(frame, colours) {
  const url = picture(frame);
  const boxes = frame.phrases.flatMap((phrase) =>
    phrase.boxes.map(([x0, y0, x1, y1]) =>
      s("rect", {
        class: `box c${colours.get(phrase.text)}`, "data-phrase": phrase.text,
        x: x0, y: y0, width: x1 - x0, height: y1 - y0,
      }),
    ),
  );
  return h(
    "div",
    { class: "picture" },
    url ? h("img", { src: url, alt: "", decoding: "async", onerror: replace }) : missing("No picture was kept"),
    s("svg", { class: "boxes", viewBox: `0 0 ${frame.width} ${frame.height}`, "aria-hidden": "true" }, ...boxes),
  );
}

// The events of a frame, its caption, its other phrases and its answers, in this order.
export function told(frame, colours, still) {
  const more = frame.phrases.filter((phrase) => !inCaption(phrase));
  return [
    frame.events.length > 0 &&
      h("p", { class: "changes" }, frame.events.map((event) =>
        h("span", { class: `change is-${event.kind}` }, icon(event.kind), " ", ...changeWords(event, colours)))),
    h("p", { class: "caption", dir: "auto" }, ...grounded(frame.caption, frame.phrases.filter(inCaption), colours, still)),
    more.length > 0 &&
      h("p", { class: "looked-for", dir: "auto" }, ...more.map((phrase) => phraseWord(phrase, colours, { still }))),
    ...frame.answers.map((answer) =>
      h("p", { class: "answer" }, h("bdi", { class: "question" }, answer.question), " ", h("bdi", {}, answer.text)),
    ),
  ];
}

export const coloursOfFrame = (frame) =>
  coloursOf([...frame.phrases.map((phrase) => phrase.text), ...changed(frame)]);

const changed = (frame) =>
  frame.events.filter((event) => event.kind !== "answered").map((event) => event.subject);

export const where = (frame) =>
  [at(frame), cameras.length > 1 && frame.camera].filter(Boolean).join(" · ");

// Light the boxes and words of a phrase while the pointer or the focus is on one of them.
export function linked(element) {
  const light = (phrase) => {
    for (const each of element.querySelectorAll("[data-phrase]")) {
      each.classList.toggle("lit", each.dataset.phrase === phrase);
    }
    element.classList.toggle("pointed", phrase !== undefined);
  };
  const from = (event) => light(event.target.closest?.("[data-phrase]")?.dataset.phrase);
  element.addEventListener("pointerover", from);
  element.addEventListener("focusin", from);
  element.addEventListener("pointerleave", () => light());
  element.addEventListener("focusout", () => light());
  return element;
}
