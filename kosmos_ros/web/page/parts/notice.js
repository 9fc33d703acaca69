// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Messages about a missing connection, node, model or image.

import { $, h, icon, told } from "./dom.js";

// The banner over the whole page -----------------------------------------------------------------

export function banner(node) {
  const place = $("#banner");
  const gone = node.connected && node.state === "gone";
  document.body.dataset.connected = node.connected && !gone ? "yes" : "no";
  const lost = !node.connected && node.state !== "connecting";
  place.hidden = !lost && !(gone && node.cameras.size); // the notice is about a node that was never found
  if (place.hidden) return;
  const text = gone ? `${node.name} does not respond. The page shows its last data.` : node.message || "No connection to the server. The page shows its last data.";
  if ($("#banner-text").textContent !== text) $("#banner-text").textContent = text;
  const left = Math.max(Math.ceil((node.retryAt - Date.now()) / 1000), 0);
  $("#banner-time").textContent = gone ? "The page continues when the node is back." : left ? `Trying again in ${left} s.` : "Trying…";
  $("#banner-act").hidden = gone || !left;
}

// The notice in place of, or over, the picture ---------------------------------------------------

const RECENT = 3000; // ms since a look arrived, in which a failed frame is not worth a notice

// Returns the kind of notice for a camera; empty: none. `look` is the look that is shown.
function kindOf(node, camera, look, frozen) {
  if (!node.connected) return "";
  if (look && !look.arrived) return "past";
  if (node.state === "gone") return look ? "" : "gone";
  if (camera.level === "stale" && !frozen) return "silent";
  if (["loading", "error", "inactive"].includes(node.state)) return node.state;
  if (!look && !node.value(camera.name, "enabled")) return "off";
  if (camera.level === "error" && !frozen && !(look && Date.now() - look.arrived < RECENT)) return "failing";
  return look ? "" : "first";
}

// `acts` are {last(): show the last image, choose(name)}.
export function notice(node, camera, look, frozen, acts) {
  const place = $("#notice");
  const kind = kindOf(node, camera, look, frozen);
  place.hidden = !kind;
  document.body.dataset.notice = kind;
  if (!kind) return;
  const content = CONTENTS[kind](node, camera, acts);
  // Elements are not made again for the same text, so that focus and selection stay.
  const words = JSON.stringify([kind, camera.name, content.words]);
  if (place.dataset.words === words) return;
  place.dataset.words = words;
  place.replaceChildren(...content.make());
}

const text = (title, ...paragraphs) => h("div", {}, h("h2", {}, title), ...paragraphs.filter(Boolean).map((p) => h("p", {}, ...told(p))));
const spinner = () => h("span", { class: "spinner", "aria-hidden": "true" });

function silent(node, camera, acts) {
  const { topic, values } = camera;
  const other = [...node.cameras.values()].find((c) => c.level === "ok" && c !== camera);
  const why = values.cause || "Check that the camera’s driver runs and publishes on this topic.";
  const last = node.newest(camera.name);
  const button = (act, words) => h("button", { type: "button", class: "button", onclick: act }, words);
  return {
    words: [topic, why, other?.name, Boolean(last)],
    make: () => [
      icon("off"),
      h("h2", {}, `No image on ${topic}`),
      h("p", {}, ...told(why)),
      h("code", {}, `ros2 topic info -v ${topic}`),
      h("div", { class: "acts" }, last && button(acts.last, "Show the last image"), other && button(() => acts.choose(other.name), `Show ${other.label}`)),
    ],
  };
}

function loading({ model, message }) {
  const progress = model?.loading;
  const { phase, done, total } = progress ?? {};
  const words = total ? `${phase}: ${done.toFixed(0)} of ${total.toFixed(0)} MB` : phase || (message !== "loading" && message);
  return {
    words: [phase, done, total, message],
    make: () => [
      spinner(),
      h(
        "div", {}, h("h2", {}, "The model is loading"),
        h("p", {}, words || "Captions begin when the model is ready."),
        total ? h("progress", { max: total, value: done, "aria-label": "Loaded" }) : null,
      ),
    ],
  };
}

const plain = (sign, title, message) => ({ words: [message], make: () => [sign(), text(title, message)] });

const CONTENTS = {
  silent,
  loading,
  error: ({ message }) => plain(() => icon("warn"), "No model", message),
  failing: (_, { message }) => plain(() => icon("warn"), "Frames cannot be described", message),
  inactive: ({ message }) => plain(() => icon("off"), "The node is not active", `${message}. Activate it with \`ros2 lifecycle set\`, or start it with \`autostart:=true\`.`),
  gone: ({ name }) => plain(spinner, `Waiting for ${name || "the node"}`, "Start it with `ros2 launch kosmos_ros kosmos.launch.py`. This page then continues by itself."),
  off: (_, { label }) => plain(() => icon("off"), `${label} is switched off`, "Set its parameter `enabled` to true to describe frames again."),
  past: () => plain(() => icon("off"), "This frame is not kept", "It is too old, or the node described it before web_node started."),
  first: () => plain(spinner, "Waiting for the first caption", ""),
};
