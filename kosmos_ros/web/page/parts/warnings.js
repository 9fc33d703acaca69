// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// What the node and this page warn of. Knows no element of the page.

const RECENT = 10000; // ms for which the page warns that it has left out frames

// Returns the warnings, errors first: [{level, text}].
export function warnings(node) {
  if (node.state === "connecting") return [{ level: "warn", text: "This page is connecting to its server." }];
  if (!node.connected) return [{ level: "error", text: "No connection to the server. The page shows its last data." }];
  if (node.state === "gone") return [{ level: "error", text: `${node.name} does not respond: ${node.message}` }];
  const found = [];
  const say = (level, text) => found.push({ level, text });
  if (Date.now() - node.skippedAt < RECENT) say("warn", "This page reads too slowly, so it receives only the newest frames.");
  if (node.model && node.model.level !== "ok") say(node.model.level, `model: ${node.model.message}`);
  for (const { label, level, message, values } of node.cameras.values()) {
    const words = [level !== "ok" && message, values.cause].filter(Boolean);
    if (words.length) say(level === "error" ? "error" : "warn", `${label}: ${words.join(": ")}`);
  }
  return found.sort((a, b) => (b.level === "error") - (a.level === "error"));
}
