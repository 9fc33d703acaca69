// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// The report: search, strips, frames, and a frame at full size.

import { $, count, h } from "./dom.js";
import { theme } from "./theme.js";
import { cameras, counted, date, first, frames, length, matches, offset, zone } from "./frames.js";
import { coloursOfFrame, linked, shown, told, where } from "./tile.js";
import { Grid } from "./grid.js";
import { Strips } from "./strips.js";

const state = { words: "", camera: "", changed: false, shown: frames };

const strips = new Strips({ search, go: (frame) => grid.scrollTo(frame) });
const grid = new Grid({ open, moved: (from, to) => strips.move(from, to) });

function filter(changes) {
  Object.assign(state, changes);
  const words = state.words.trim().toLowerCase();
  state.shown = frames.filter(
    (frame) =>
      (!state.camera || frame.camera === state.camera) && (!state.changed || frame.events.length) && matches(frame, words),
  );
  const all = state.shown.length === frames.length;
  $("#count").textContent = all
    ? counted(frames.length)
    : `${count(state.shown.length)} of ${counted(frames.length)}`;
  $("#none").textContent = frames.length ? "No frame matches the search and the filters." : "The log has no frames in this period.";
  $("#none").hidden = state.shown.length > 0;
  strips.show(state.shown);
  grid.show(state.shown);
}

function search(words) {
  $("#words").value = words;
  filter({ words });
  $("#words").focus();
}

function open(frame) {
  const index = state.shown.indexOf(frame);
  const dialog = $("#detail");
  const colours = coloursOfFrame(frame);
  // The focus is moved here. The browser sends its event "close" later, when the focus may be elsewhere.
  const close = () => {
    dialog.close();
    grid.focus(frame);
  };
  const step = (by, label) =>
    h("button", { type: "button", class: "button", disabled: !state.shown[index + by], onclick: () => open(state.shown[index + by]) }, label);
  const box = (phrase) =>
    phrase.boxes.map((each) => `${phrase.text}: ${each.slice(0, 4).map((v) => v.toFixed(1)).join(", ")}; score ${each[4].toFixed(2)}`);
  const facts = [
    ["Time", `${date(frame.time)} ${zone(frame.time)}`], ["After the first frame", offset(frame)],
    ["Camera", frame.camera], ["Coordinate frame", frame.frame_id],
    ["Place", frame.pose && `x ${frame.pose.x.toFixed(2)} m, y ${frame.pose.y.toFixed(2)} m in ${frame.pose.frame_id}`],
    ["Task", frame.task], ["Score", frame.score.toFixed(2)],
    ["Image", `${frame.width} x ${frame.height} pixels`],
    ["Boxes", frame.phrases.flatMap(box).join("\n")],
  ];
  dialog.replaceChildren(
    linked(h(
      "div",
      { class: "sheet" },
      h("div", { class: "head" }, h("h2", { id: "detail-title" }, `Frame at ${where(frame)}`),
        step(-1, "Previous"), step(1, "Next"),
        h("button", { type: "button", class: "button", onclick: close }, "Close")),
      shown(frame, colours),
      ...told(frame, colours, false),
      h("dl", {}, ...facts.filter(([, text]) => text).flatMap(([name, text]) => [h("dt", {}, name), h("dd", { dir: "auto" }, text)])),
    )),
  );
  if (!dialog.open) dialog.showModal();
  $("button:not(:disabled)", dialog).focus();
  dialog.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && state.shown[index + by]) open(state.shown[index + by]);
  };
  dialog.oncancel = close; // the Esc key
  dialog.onclick = (event) => event.target === dialog && close();
}

function start() {
  $("#facts").textContent = frames.length
    ? [`${date(first)} ${zone(first)}`, `${length} long`, cameras.filter(Boolean).join(", ")].filter(Boolean).join(" · ")
    : "";
  const options = cameras.map((name) => h("option", { value: name }, name));
  $("#camera").replaceChildren(h("option", { value: "" }, "All cameras"), ...options);
  $("#camera-field").hidden = cameras.length < 2;
  $("#changed-field").hidden = !frames.some((frame) => frame.events.length);
  $("#changed").addEventListener("change", (event) => filter({ changed: event.target.checked }));
  $("#words").addEventListener("input", (event) => filter({ words: event.target.value }));
  $("#camera").addEventListener("change", (event) => filter({ camera: event.target.value }));
  theme(() => {});
  filter({});
}

start();
