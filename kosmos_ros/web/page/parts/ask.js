// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Questions about one frame: the form, suggestions, and the dialogues with their streamed answers.
// A dialogue belongs to the frame (and region) that it began with.
//
// Events: "begin" ({words}: a question; the picture must freeze), "progress" and "done"
// ({dialogue, turn}), "open" ({dialogue}), "scope" (the region must be removed).

import { $, announce, clock, h, icon, s, span } from "./dom.js";
import { small } from "./images.js";
import { blank, grounded, phraseWord } from "./words.js";

const DETAIL = "Describe in detail", DESCRIBE = "Describe it"; // suggestions with a task of their own
const QUESTIONS = ["What is in the picture?", "What is in the foreground?", "How many are there?"];
const REGION_QUESTIONS = ["What is it?", "What is next to it?", "What colour is it?"];
const REFERS = /\b(it|this|that|these|those|them|they)\b/i; // words that mean the region
const IDEAS = 3; // suggestions, besides a description
const MOST_DIALOGUES = 100;
const HINTS = { ask: "Ask about this picture…", region: "Ask about the region: what is it?", find: "Phrases, separated by commas" };

const sizeOf = ([x0, y0, x1, y1]) => `${Math.round(x1 - x0)} × ${Math.round(y1 - y0)}`;
const unique = (texts) => [...new Set(texts)];

export class Ask extends EventTarget {
  constructor(node, coloursOf) {
    super();
    Object.assign(this, { node, coloursOf });
    this.mode = "ask"; // or "find"
    this.region = null;
    this.follow = null; // the dialogue that the next question continues
    this.look = null; // the frame that a question would be about
    this.dialogues = []; // newest first
    this.list = $("#answers");
    this.input = $("#question");
    $("#ask-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit(this.input.value);
    });
    for (const button of document.querySelectorAll("#ask-mode button")) {
      button.addEventListener("click", () => {
        this.setMode(button.value);
        this.input.focus();
      });
    }
    $("#scope-clear").append(icon("close"));
    $("#scope-clear").addEventListener("click", () => {
      this.follow = null;
      this.dispatchEvent(new CustomEvent("scope"));
      this.input.focus();
    });
    $("#quick").append(
      ...REGION_QUESTIONS.slice(0, 2).map((text) => this.#idea(text)),
      h("button", { type: "button", class: "idea strong", onclick: () => this.focus("ask") }, "Ask…"),
    );
    this.draw();
  }

  // The form -----------------------------------------------------------------------------------

  setMode(mode) {
    this.mode = mode;
    if (mode === "find") this.follow = null;
    this.draw();
  }

  focus(mode) {
    this.setMode(mode);
    this.input.focus();
  }

  setRegion(box) {
    this.region = box;
    if (box && this.mode === "find") this.mode = "ask";
    this.draw();
  }

  // `look` is null if there is no single frame to ask about. `reason`: why questions cannot be
  // asked; empty: they can. `soon`: they can be asked soon, so words may be typed already.
  show(look, reason, soon = false) {
    Object.assign(this, { look, reason, soon });
    this.draw();
  }

  draw() {
    const find = this.mode === "find";
    for (const button of document.querySelectorAll("#ask-mode button")) {
      button.setAttribute("aria-pressed", String(button.value === this.mode));
    }
    this.#scope(find);
    this.input.placeholder = this.look ? HINTS[find ? "find" : this.region ? "region" : "ask"] : "";
    $("#question-label").textContent = find ? "Phrases to find" : "Question";
    $("#ask-send").textContent = find ? "Find" : "Ask";
    const off = Boolean(this.reason);
    this.input.disabled = off && !this.soon;
    $("#ask-send").disabled = off;
    $("#ask-reason").hidden = !off;
    $("#ask-reason").textContent = this.reason ?? "";
    this.#offer(this.#suggestions(find));
    for (const button of document.querySelectorAll("#ideas button, #quick button")) button.disabled = off;
    $("#answers-empty").hidden = this.dialogues.length > 0 || !this.look;
  }

  #scope(find) {
    const region = !find && this.region;
    const set = Boolean(region || this.follow);
    $("#scope-text").textContent = this.follow
      ? `Follow-up to “${this.follow.turns.at(-1).question}”`
      : region ? `Region, ${sizeOf(region)} px` : "About the whole picture";
    $("#scope").hidden = !this.look;
    $("#scope").classList.toggle("set", set);
    $("#scope-clear").hidden = !set;
  }

  #suggestions(find) {
    if (!this.look) return [];
    const { camera, caption } = this.look;
    if (find) {
      const seen = (caption?.phrases ?? []).map((p) => p.text);
      return unique([...(this.node.value(camera, "phrases") ?? []), ...seen]).slice(0, IDEAS + 1);
    }
    if (this.region) return [...REGION_QUESTIONS, DESCRIBE];
    const standing = this.node.value(camera, "questions") ?? [];
    return [...unique([...standing, ...QUESTIONS]).slice(0, IDEAS), DETAIL];
  }

  // Buttons stay while their words are the same. While the reader points at one of them, they also
  // stay when the caption changes.
  #offer(texts) {
    const place = $("#ideas");
    const words = texts.join("\n"), scope = [this.mode, Boolean(this.region), this.look?.camera].join();
    const held = scope === this.offered?.scope && place.matches(":hover, :focus-within");
    if (words === this.offered?.words || held) return;
    this.offered = { words, scope };
    place.replaceChildren(...texts.map((text) => this.#idea(text)));
  }

  #idea(text) {
    return h("button", { type: "button", class: "idea", title: text, onclick: () => this.submit(text, true) }, text);
  }

  // `suggested`: the words are a suggestion, so the typed text stays.
  submit(text, suggested = false) {
    const words = text.trim().replace(/\s+/g, " ");
    if (!words) {
      this.input.focus();
      return;
    }
    if (!suggested) this.input.value = "";
    this.dispatchEvent(new CustomEvent("begin", { detail: { words } }));
  }

  // Requests -----------------------------------------------------------------------------------

  // Asks about the frozen look. The page calls it after "begin".
  async ask(look, words) {
    const dialogue = this.follow ?? this.#dialogue(look);
    this.follow = null;
    const stop = new AbortController();
    const turn = { question: words, state: "waiting", text: "", phrases: [], ahead: 0, stop };
    const request = { look: dialogue.look, signal: stop.signal, ...this.#goal(dialogue, words) };
    dialogue.turns.push(turn);
    this.#turn(dialogue, turn);
    this.draw();
    this.list.scrollTop = 0;
    this.#tell("progress", dialogue, turn);
    const began = performance.now();
    for await (const part of this.node.ask(request)) {
      Object.assign(turn, changed(part, turn), { took: performance.now() - began });
      this.#turn(dialogue, turn);
      this.#tell("progress", dialogue, turn);
    }
    const last = turn.state === "failed" ? `No answer: ${turn.message}` : turn.text;
    announce(dialogue.find && turn.state === "done" ? found(turn) : last);
    this.#tell("done", dialogue, turn);
  }

  #tell(type, dialogue, turn) {
    this.dispatchEvent(new CustomEvent(type, { detail: { dialogue, turn } }));
  }

  #dialogue(look) {
    const find = this.mode === "find";
    const dialogue = { look, region: find ? null : this.region && [...this.region], turns: [], find };
    this.dialogues.unshift(dialogue);
    this.list.prepend(this.#card(dialogue));
    for (const old of this.dialogues.splice(MOST_DIALOGUES)) old.card.remove();
    return dialogue;
  }

  // Returns the fields of a request that depend on the question.
  #goal({ find, region, turns }, words) {
    if (find) return { task: "phrase_grounding", phrases: unique(words.split(",").map((p) => p.trim()).filter(Boolean)) };
    if (words === DETAIL && !region) return { task: "detailed_caption" };
    if (words === DESCRIBE && region) return { task: "region_description", regions: [region] };
    const history = turns.filter((t) => t.state === "done").flatMap((t) => [t.question, t.text]);
    // In a dialogue, the history already contains the region.
    const regions = region && (!history.length || REFERS.test(words)) ? [region] : [];
    return { task: "question", text: words, regions, history };
  }

  cancel() {
    for (const dialogue of this.dialogues) for (const turn of dialogue.turns) turn.stop.abort();
  }

  get busy() {
    return this.dialogues.some((d) => d.turns.some(busy));
  }

  // Cards --------------------------------------------------------------------------------------

  mark(dialogue) {
    for (const d of this.dialogues) d.card.classList.toggle("current", d === dialogue);
  }

  #card(dialogue) {
    const { look, region, find } = dialogue;
    const cut = s("svg", { viewBox: `0 0 ${look.width || 4} ${look.height || 3}`, "aria-hidden": "true", preserveAspectRatio: "xMidYMid slice" });
    if (region) cut.append(s("rect", { class: "cut", x: region[0], y: region[1], width: region[2] - region[0], height: region[3] - region[1], "stroke-width": look.width / 40 }));
    const size = region ? `region ${sizeOf(region)}` : find ? "find" : "whole picture";
    dialogue.body = h("div", { class: "turns" });
    dialogue.card = h(
      "li",
      { class: "card" },
      h(
        "button",
        { class: "origin", type: "button", onclick: () => this.#open(dialogue) },
        h("span", { class: "thumb" }, look.picture && h("img", { src: small(look), alt: "", width: 48, height: 36 }), cut),
        h("span", { class: "where" }, h("span", {}, this.node.camera(look.camera).label, " ", h("time", {}, clock(look.time))), h("span", { class: "size" }, size)),
        h("span", { class: "hidden" }, ", show this frame"),
      ),
      dialogue.body,
    );
    return dialogue.card;
  }

  #turn(dialogue, turn) {
    if (!turn.node) {
      turn.answer = h("p", { class: "answer" });
      turn.foot = h("div", { class: "foot" });
      turn.node = h("div", { class: "turn" }, !dialogue.find && h("p", { class: "asked" }, turn.question), turn.answer, turn.foot);
      dialogue.body.append(turn.node);
    }
    turn.node.dataset.state = turn.state;
    turn.answer.setAttribute("aria-busy", String(busy(turn)));
    turn.answer.replaceChildren(...this.#words(dialogue, turn));
    if (busy(turn)) this.#waiting(turn);
    else turn.foot.replaceChildren(h("span", { class: "facts" }, facts(dialogue, turn)), this.#actions(dialogue, turn));
  }

  #words(dialogue, turn) {
    const colours = this.coloursOf(dialogue.look, turn.phrases);
    if (turn.state === "failed") return [icon("warn"), h("span", {}, turn.message)];
    if (dialogue.find && turn.state === "done") return turn.phrases.map((phrase) => foundLine(phrase, colours));
    if (turn.state === "done" && !turn.text.trim()) return [blank("")];
    const words = dialogue.find ? [turn.question] : grounded(turn.text, turn.phrases, colours);
    return busy(turn) ? [...words, h("span", { class: "caret", "aria-hidden": "true" })] : words;
  }

  // The button stays the same element, so that it keeps the focus.
  #waiting(turn) {
    if (!$("button", turn.foot)) {
      turn.foot.replaceChildren(
        h("span", { class: "facts" }),
        h("button", { type: "button", class: "link", onclick: () => turn.stop.abort() }, icon("stop"), "Cancel"),
      );
    }
    const ahead = turn.ahead === 1 ? "1 request goes first" : `${turn.ahead} requests go first`;
    $(".facts", turn.foot).textContent = turn.ahead ? ahead : turn.state === "waiting" ? "waiting" : "";
  }

  #actions(dialogue, turn) {
    const link = (act, ...content) => h("button", { type: "button", class: "link", onclick: act }, ...content);
    const follows = turn.state === "done" && !dialogue.find && turn === dialogue.turns.at(-1);
    return h(
      "span",
      { class: "actions" },
      turn.state !== "done" && link(() => this.#edit(dialogue, turn), "Edit and ask again"),
      follows && link(() => this.#followUp(dialogue), icon("reply"), "Follow up"),
    );
  }

  #followUp(dialogue) {
    this.#open(dialogue);
    this.follow = dialogue;
    this.focus("ask");
  }

  #edit(dialogue, turn) {
    this.#open(dialogue);
    this.input.value = turn.question;
    this.focus(dialogue.find ? "find" : "ask");
  }

  #open(dialogue) {
    this.dispatchEvent(new CustomEvent("open", { detail: { dialogue } }));
  }
}

const busy = (turn) => turn.state === "waiting" || turn.state === "streaming";

// Returns the fields of a turn that a part of the answer changes.
function changed(part, turn) {
  if (part.done && part.success) return { ...part.result, state: "done" };
  if (part.done) return { state: turn.stop.signal.aborted ? "cancelled" : "failed", message: part.message };
  if (part.waiting !== undefined) return { ahead: part.waiting };
  if (part.begun) return { ahead: 0, state: "streaming" };
  return { ahead: 0, state: "streaming", text: part.text, phrases: part.phrases };
}

function found(turn) {
  return `${turn.phrases.filter((p) => p.boxes.length).length} of ${turn.phrases.length} found`;
}

// The answer in one line, for the bubble in the picture: text and its phrases.
export function summary({ find }, turn) {
  if (turn.state === "failed") return { text: turn.message, phrases: [] };
  if (find) return { text: turn.state === "done" ? found(turn) : "", phrases: [] };
  return { text: turn.state === "done" && !turn.text.trim() ? blank("") : turn.text, phrases: turn.phrases };
}

function foundLine(phrase, colours) {
  const score = phrase.boxes.length ? Math.max(...phrase.boxes.map((b) => b[4])).toFixed(2) : "not found";
  return h("span", { class: "found" }, phraseWord(phrase, colours), h("span", { class: "value", "aria-hidden": "true" }, score));
}

function facts(dialogue, turn) {
  if (turn.state !== "done") return turn.state === "cancelled" ? "cancelled" : "";
  const words = dialogue.find ? [found(turn), span(turn.took)] : [span(turn.took), `score ${turn.score.toFixed(2)}`];
  if (turn.truncated) words.push("cut off at max_new_tokens");
  return words.join(" · ");
}
