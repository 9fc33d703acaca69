// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Which panel is open, and where the question's form is: in its panel, or on a phone directly below
// the picture. The Tab key always follows the visible order.

import { $ } from "./dom.js";
import { tabKeys } from "./keys.js";

const WIDE = matchMedia("(min-width: 1360px)"); // "Ask" has a column of its own
const NARROW = matchMedia("(max-width: 899px)"); // one column

export class Panels {
  // `opened` is called with the name of the panel.
  constructor(opened) {
    this.opened = opened;
    this.tabs = [...document.querySelectorAll("#tabs [role=tab]")];
    for (const tab of this.tabs) tab.addEventListener("click", () => this.open(tab.id.slice(4)));
    tabKeys($("#tabs"), (tab) => this.open(tab.id.slice(4), true));
    for (const query of [WIDE, NARROW]) query.addEventListener("change", () => this.open(this.name));
    this.open("ask");
  }

  open(name, focus = false) {
    this.name = WIDE.matches && name === "ask" ? "timeline" : name;
    $("#panels").dataset.panel = this.name;
    for (const tab of this.tabs) this.#tab(tab, focus);
    this.#arrange();
    this.opened(this.name);
  }

  #tab(tab, focus) {
    const own = tab.id.slice(4);
    const on = own === this.name;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(`#panel-${own}`).hidden = !on && !(own === "ask" && WIDE.matches);
    if (on && focus) tab.focus();
  }

  #arrange() {
    const ask = $("#panel-ask"), tabs = $("#tabs"), form = $("#ask-form");
    // An element that moves loses the focus.
    const before = Boolean(ask.compareDocumentPosition(tabs) & ask.DOCUMENT_POSITION_FOLLOWING);
    if (WIDE.matches && !before) tabs.before(ask);
    if (!WIDE.matches && before) tabs.after(ask);
    ask.setAttribute("role", WIDE.matches ? "region" : "tabpanel");
    const place = NARROW.matches ? $("#view") : ask;
    if (form.parentElement === place) return;
    const held = form.contains(document.activeElement) && document.activeElement;
    if (NARROW.matches) $("#stage").after(form);
    else ask.prepend(form);
    if (held) held.focus({ preventScroll: true });
  }
}
