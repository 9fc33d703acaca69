// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// The moment that the picture shows, above it: live or frozen, or why it does not change; the time
// of the frame, and its age.

import { $, clock, span } from "./dom.js";

const OLD = 3000; // ms from which the age of a frame is shown
const LATE = 10000; // ms from which the newest frame is not called live

const STATES = { loading: "Loading", error: "No model", inactive: "Not active" };

// Returns {state, text}; `age` is that of the look in ms. The first that is true counts.
function moment(node, camera, { look, frozen, video }, age) {
  if (node.state === "connecting") return { state: "waiting", text: "Connecting" };
  if (!node.connected) return { state: "lost", text: "No connection" };
  if (node.state === "gone") return { state: "lost", text: "No node" };
  if (frozen) return { state: "frozen", text: frozen };
  if (camera.level === "stale") return { state: "silent", text: "No image" };
  if (video) return { state: "live", text: "Video" };
  if (STATES[node.state]) return { state: "waiting", text: STATES[node.state] };
  if (!node.value(camera.name, "enabled")) return { state: "waiting", text: "Switched off" };
  if (camera.level === "error") return { state: "failing", text: "No results" };
  if (!look) return { state: "waiting", text: "Waiting" };
  if (age > LATE || node.outdated(look)) return { state: "waiting", text: "Latest frame" };
  return { state: "live", text: "Live" };
}

// `shown` is {look, frozen: why the picture does not change, video: whether it is a newer image}.
export function drawMoment(node, camera, shown) {
  const { look } = shown;
  const age = look ? node.now() - look.time : 0;
  const { state, text } = moment(node, camera, shown, age);
  $("#live").dataset.state = state;
  $("#live-text").textContent = text;
  $("#stamp").textContent = look ? clock(look.time) : "";
  $("#age").textContent = age > OLD ? `${span(age)} ago` : "";
}
