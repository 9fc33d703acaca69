// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// The node's parameters: those of the camera that is shown, those of the node, and those that are
// fixed. If the node refuses a value, its reason and the old value are shown.

import { $, h } from "./dom.js";

const ELSEWHERE = ["phrases", "questions"]; // below the picture
const FIRST = ["enabled", "task", "max_rate", "min_score", "grounded"]; // those that change most
const UNITS = {
  max_rate: "Hz", max_new_tokens: "tokens", event_frames: "frames", event_seconds: "s", kept_frames: "frames",
  max_image_age: "s", stale_timeout: "s", request_timeout: "s", hard_timeout: "s",
  max_image_pixels: "px", queue_size: "requests", max_batch_size: "prompts",
};
const LEAVE = 200; // ms after which a field that was left shows the node's value

export class Parameters {
  constructor(node) {
    this.node = node;
    this.root = $("#parameters");
    this.rows = []; // functions that show a row's value
    this.refusals = []; // functions that hide a row's refusal
    node.addEventListener("state", () => {
      if (node.state === this.state) return;
      this.state = node.state;
      for (const clear of this.refusals) clear(); // what was refused before may be accepted now
    });
  }

  // Makes the rows again, for other parameters.
  build() {
    this.camera = undefined;
  }

  show(camera) {
    if (camera !== this.camera) {
      this.camera = camera;
      this.#build();
    }
    for (const refresh of this.rows) refresh();
  }

  #build() {
    this.rows = [];
    this.refusals = [];
    // Parameters of rclpy, such as use_sim_time, have no known default.
    const all = Object.entries(this.node.parameters).filter(([name, field]) => field.default !== null && !ELSEWHERE.includes(name));
    const names = (fits) => all.filter(([, field]) => fits(field)).map(([name]) => name).sort(order);
    const rows = (owner, fits) => names(fits).map((name) => this.#row(owner, name));
    this.root.replaceChildren(
      group(`Camera ${this.camera}`.trim(), "changes at once", rows(this.camera, (f) => f.camera && !f.read_only)),
      group("Node", "changes at once", rows("", (f) => !f.camera && !f.read_only)),
      group("Fixed", "set when the node starts", [h("dl", { class: "facts" }, ...names((f) => f.read_only).map((name) => this.#fixed(name)))]),
    );
  }

  #fixed(name) {
    const value = h("dd", {});
    this.rows.push(() => (value.textContent = text(this.node.value(this.camera, name))));
    return [h("dt", {}, name), value];
  }

  #row(camera, name) {
    const field = this.node.parameters[name];
    const id = `p-${name}`;
    const refusal = h("p", { class: "refusal", id: `${id}-no`, role: "alert", hidden: true });
    const set = async (value) => {
      const { refusal: refused, stored } = await this.node.set(camera, name, value);
      const changed = value !== null && stored !== undefined && stored !== value;
      const still = refused && `${refused.replace(/\.$/, "")}. The value is still ${text(this.node.value(camera, name))}.`;
      const reason = still || (changed ? `The node stores ${text(stored)} instead. ROS reads words such as null, None and ~ as no value.` : "");
      refusal.hidden = !reason;
      refusal.textContent = reason;
      row.classList.toggle("refused", Boolean(reason));
      row.classList.remove("saved");
      void row.offsetWidth; // begins the animation again
      row.classList.toggle("saved", !reason);
      show();
    };
    const clear = () => {
      refusal.hidden = true;
      row.classList.remove("refused");
    };
    const about = { id, "aria-describedby": `${id}-why ${id}-no`, oninput: clear };
    const { input, box } = control(field, name, about, set, () => setTimeout(() => document.activeElement !== input && show(), LEAVE));
    const reset = h("button", { type: "button", class: "link", onclick: () => set(null) });
    const show = () => {
      const value = this.node.value(camera, name), common = this.node.common(camera, name);
      const typing = document.activeElement === input && input.matches("[type=number], [type=text]");
      if (input.type === "checkbox") input.checked = value;
      else if (!typing) input.value = String(value);
      reset.hidden = value === common;
      reset.textContent = `Reset to ${text(common)}`;
      input.disabled = reset.disabled = !this.node.settable;
    };
    const row = h(
      "div",
      { class: "parameter" },
      h("div", { class: "line" }, h("label", { for: id }, name), box),
      h("p", { class: "why", id: `${id}-why` }, field.description, " ", reset),
      refusal,
    );
    this.rows.push(show);
    this.refusals.push(clear);
    return row;
  }
}

const text = (value) => (Array.isArray(value) ? value.join(", ") : String(value ?? "")) || "–";

function order(a, b) {
  const place = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return place(a) - place(b);
}

const group = (title, note, content) => h("section", { class: "group" }, h("h3", {}, title, h("span", {}, note)), ...content);

// The control of a parameter: {input, and box around it}. `set` takes a new value; `leave` is
// called when the field loses the focus.
function control(field, name, about, set, leave) {
  if (field.type === "bool") {
    const input = h("input", { ...about, type: "checkbox", role: "switch", class: "switch", onchange: () => set(input.checked) });
    return { input, box: input };
  }
  if (field.choices) {
    const input = h("select", { ...about, onchange: () => set(input.value) }, ...field.choices.map((c) => h("option", { value: c }, c)));
    return { input, box: h("span", { class: "select" }, input) };
  }
  if (field.type === "str") {
    const input = h("input", { ...about, type: "text", autocomplete: "off", onchange: () => set(input.value), onblur: leave });
    return { input, box: h("span", { class: "number" }, input) };
  }
  const change = () => input.value !== "" && set(Number(input.value));
  const step = field.type === "int" ? 1 : "any";
  const input = h("input", { ...about, type: "number", inputmode: "decimal", step, onchange: change, onblur: leave });
  if (field.limits) input.title = `${field.limits[0]} to ${field.limits[1]}`;
  return { input, box: h("span", { class: "number" }, input, h("span", { class: "unit", "aria-hidden": "true" }, UNITS[name] ?? "")) };
}
