// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Dark or light: the system's, until the reader chooses.

import { $, icon } from "./dom.js";

const KEY = "kosmos-theme";

function stored() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // no storage: the system's theme
  }
}

function store(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // As above.
  }
}

// `changed` is called after each change.
export function theme(changed) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = stored();
  const isDark = () => (chosen ? chosen === "dark" : dark.matches);
  const apply = () => {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    $("#theme").replaceChildren(icon(isDark() ? "sun" : "moon"));
    const words = `Change to ${isDark() ? "light" : "dark"} theme`;
    $("#theme").setAttribute("aria-label", words);
    $("#theme").title = words;
    changed();
  };
  dark.addEventListener("change", apply);
  $("#theme").addEventListener("click", () => {
    chosen = isDark() ? "light" : "dark";
    store(chosen);
    apply();
  });
  apply();
}
