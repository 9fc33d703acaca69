// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// The page: which frame of which camera is shown, and which part informs which other part. Only
// this file knows all parts.

import { Ask, summary } from "./parts/ask.js";
import { Cameras } from "./parts/cameras.js";
import { coloursOf } from "./parts/colours.js";
import { $, announce, h, icon, span } from "./parts/dom.js";
import { Health } from "./parts/health.js";
import { shortcuts, tabKeys } from "./parts/keys.js";
import { Live } from "./parts/live.js";
import { drawMoment } from "./parts/moment.js";
import { Node } from "./parts/node.js";
import { banner, notice } from "./parts/notice.js";
import { Panels } from "./parts/panels.js";
import { Parameters } from "./parts/parameters.js";
import { Picture } from "./parts/picture.js";
import { pointing } from "./parts/pointing.js";
import { begin } from "./parts/region.js";
import { Standing } from "./parts/standing.js";
import { theme } from "./parts/theme.js";
import { Strip, Timeline } from "./parts/timeline.js";
import { captionOf, grounded } from "./parts/words.js";

const OVERVIEW = 6; // cameras from which the page begins with the overview
const STATES = { disconnected: "offline" }; // other states are shown by their names

const view = {
  camera: null, // name
  look: null, // the described frame that is shown
  frozen: "", // why it does not change; empty: the newest is shown
  layer: "caption", // boxes that are drawn: caption, phrases or none
  dialogue: null, turn: null, // the answer whose boxes are drawn instead
  entry: null, // entry of the timeline that is shown
  overview: false,
  video: false,
};

// Colours and marks -----------------------------------------------------------------------------

// Colours of the phrases of a frame, by text. `more` are phrases of an answer.
function colours(look, more = []) {
  return coloursOf([...(look?.caption?.phrases ?? []), ...(look?.phrases ?? []), ...more].map((p) => p.text));
}

const marks = (phrases, of) => phrases.flatMap((p) => p.boxes.map((box) => ({ text: p.text, box, colour: of.get(p.text) ?? 0 })));
const captionMarks = (look) => marks(look.caption?.phrases ?? [], colours(look));

// Whether the boxes are those of an answer. If an answer has none, the frame's own boxes stay.
const ofAnswer = () => view.turn && (view.dialogue.find || view.turn.phrases.some((p) => p.boxes.length));
const ofEvent = () => view.entry?.kind === "event" && view.entry.event !== "answered";

function shownMarks() {
  const { look, turn, entry, layer } = view;
  if (!look) return [];
  if (ofAnswer()) return marks(turn.phrases, colours(look, turn.phrases));
  if (ofEvent()) return marks(look.phrases.filter((p) => p.text === entry.subject), colours(look));
  if (layer === "caption") return captionMarks(look);
  return layer === "phrases" ? marks(look.phrases, colours(look)) : [];
}

// Marks of a phrase that is pointed at, if its layer is not shown.
function ghosts(text) {
  const { look } = view;
  if (!look || shownMarks().some((mark) => mark.text === text)) return [];
  const all = [...(look.caption?.phrases ?? []), ...look.phrases].filter((p) => p.text === text);
  return marks(all.slice(0, 1), colours(look));
}

// Parts -----------------------------------------------------------------------------------------

const node = new Node();
const picture = new Picture($("#stage"));
const live = new Live(() => picture.image, (video) => {
  picture.setVideo(video);
  drawAge();
});
const timeline = new Timeline(node, colours);
const strip = new Strip(node);
const standing = new Standing(node, colours);
const ask = new Ask(node, colours);
const parameters = new Parameters(node);
const panels = new Panels((name) => name === "health" && health.show(view.camera));
const health = new Health(node, () => panels.open("health", true));
const cameras = new Cameras(node, captionMarks);
const point = pointing(picture, ghosts, pick);

// What is shown ---------------------------------------------------------------------------------

function drawView() {
  const { look, frozen } = view;
  const camera = node.camera(view.camera);
  picture.show(look, shownMarks());
  drawTools();
  $("#frame").setAttribute("aria-label", look ? `Picture of ${camera.label}: ${look.caption ? captionOf(look) : "no caption yet"}` : "Picture");
  drawBubble();
  drawCaption();
  standing.show(view.camera, look);
  drawStrip();
  drawVideo();
  drawAge();
  notice(node, camera, look, frozen, { last: () => showLook(node.newest(view.camera), "Last image"), choose });
  drawAsk();
}

function drawAsk() {
  const { look, frozen, overview } = view;
  const soon = Boolean(look) && !frozen && !overview && node.outdated(look);
  const old = soon && `This frame is ${span(node.now() - look.time)} old. Wait for a new one, or freeze the picture to ask about this one.`;
  const none = !look?.arrived && "There is no described frame to ask about.";
  const reason = node.unready || (overview && "Choose a camera to ask about its picture.") || none || old || "";
  ask.show(overview ? null : look, reason, soon);
}

function drawTools() {
  const { look, frozen } = view;
  const own = ofAnswer() ? "Answer" : ofEvent() ? "Event" : "";
  document.body.dataset.frozen = frozen ? "yes" : "no";
  $("#freeze").classList.toggle("primary", Boolean(frozen));
  label($("#freeze"), frozen ? "play" : "pause", frozen ? "Back to live" : "Freeze");
  for (const button of document.querySelectorAll("#layers button[value]:not(#layer-own)")) {
    button.setAttribute("aria-pressed", String(button.value === view.layer && !own));
  }
  $("#layer-own").hidden = !own;
  $("#layer-own").textContent = own;
  $("#region-tool").disabled = !look?.arrived;
  $("#freeze").disabled = !look;
  $("#video-tool").disabled = !node.cameras.size;
  $("#video-tool").setAttribute("aria-pressed", String(view.video));
}

// A button's icon and words. Small windows hide the words, and the title shows them.
function label(button, sign, words) {
  if (button.title === words) return;
  button.title = words;
  button.replaceChildren(icon(sign), h("span", {}, words));
}

let drawn = null; // the caption whose words are shown

function drawCaption() {
  const { look } = view;
  const place = $("#caption");
  if (look?.caption && look.caption === drawn) return;
  drawn = look?.caption ?? null;
  place.classList.toggle("waiting", !look?.caption?.text.trim());
  if (!look?.caption) {
    place.replaceChildren(look?.arrived ? "No caption yet" : "No described frame");
    $("#caption-facts").textContent = "";
    fold();
    return;
  }
  const { caption, task, latency } = look;
  const held = place.contains(document.activeElement) && document.activeElement.dataset.phrase;
  place.replaceChildren(...(caption.text.trim() ? grounded(caption.text, caption.phrases, colours(look)) : [captionOf(look)]));
  if (held) $(`[data-phrase="${CSS.escape(held)}"]`, place)?.focus({ preventScroll: true });
  const cut = caption.truncated ? ["cut off at max_new_tokens"] : [];
  const facts = [task.replaceAll("_", " "), `score ${caption.score.toFixed(2)}`, `${caption.tokens} token${caption.tokens === 1 ? "" : "s"}`, `${latency.toFixed(0)} ms`, ...cut];
  $("#caption-facts").textContent = facts.join(" · ");
  fold();
  point.again();
}

// Shows the first lines of a long caption, and a button that opens the rest.
function fold() {
  const place = $("#caption"), more = $("#caption-more");
  const whole = place.classList.contains("whole");
  more.hidden = !whole && place.scrollHeight <= place.clientHeight + 1;
  more.textContent = whole ? "Show less" : "Show all";
  more.setAttribute("aria-expanded", String(whole));
}

function drawBubble() {
  const { turn, dialogue, look } = view;
  if (!turn) {
    if (picture.said) picture.setBubble(null, null);
    return;
  }
  const { text, phrases } = summary(dialogue, turn);
  const words = text ? grounded(text, phrases, colours(look, phrases), true) : ["…"];
  picture.setBubble(turn.question, words, turn.state === "failed");
}

function drawStrip() {
  const own = (thing) => thing.camera === view.camera;
  strip.update(node.looks.filter(own), timeline.entries.filter(own), view.frozen ? view.look : null);
}

function drawAge() {
  const { look, frozen } = view;
  drawMoment(node, node.camera(view.camera), { look, frozen, video: Boolean(picture.video) });
}

// Video runs if it is switched on, or if there is no described frame yet because the model is not ready.
function drawVideo() {
  const images = node.camera(view.camera).level !== "stale" && node.connected && node.cameras.has(view.camera);
  const waiting = !view.look && ["loading", "error"].includes(node.state);
  live.play(images && !view.frozen && !view.overview && (view.video || waiting) ? view.camera : null);
}

function drawState() {
  const { model, state } = node;
  const ready = model && model.level !== "ok" ? "warn" : "ok";
  const level = { ready, error: "error", gone: "lost", disconnected: "lost" }[state] ?? "warn";
  $("#model-state").dataset.level = level;
  $("#model-text").textContent = STATES[state] ?? state;
  const { model: name, device } = model?.values ?? {};
  $("#model-more").textContent = [name?.split("/").at(-1), device].filter(Boolean).join(" · ");
  $("#node-name").textContent = node.name;
  banner(node);
}

function drawCameras() {
  cameras.draw(view.camera);
  $("#overview-tool").hidden = node.cameras.size < 2;
}

// Live, frozen ----------------------------------------------------------------------------------

// The look that is shown while nothing is frozen. A silent camera has none.
const current = () => (node.camera(view.camera).level === "stale" ? null : node.newest(view.camera));

// Freezes the frame that is on the screen. The picture of a newer one may still be on its way.
function freeze(why = "Frozen") {
  if (view.frozen || !view.look) return;
  if (picture.look?.camera === view.camera) view.look = picture.look;
  view.frozen = why;
  drawView();
}

function toLive() {
  Object.assign(view, { look: current(), frozen: "", dialogue: null, turn: null, entry: null });
  ask.follow = null;
  region(null);
  ask.mark(null);
  timeline.mark(null);
  drawView();
}

function grab() {
  freeze();
  Object.assign(view, { turn: null, dialogue: null });
  ask.follow = null;
  drawView();
}

function region(box, offer = false) {
  picture.setRegion(box, offer);
  ask.setRegion(box);
}

function pick(mark) {
  grab();
  region(mark.box.slice(0, 4), true);
}

function showLook(look, why = "Frozen", entry = null) {
  if (!look) return;
  choose(look.camera);
  Object.assign(view, { look, frozen: why, dialogue: null, turn: null, entry });
  ask.follow = null;
  region(null);
  timeline.mark(entry);
  ask.mark(null);
  drawView();
}

function showDialogue(dialogue, turn = dialogue.turns.at(-1)) {
  choose(dialogue.look.camera);
  Object.assign(view, { look: dialogue.look, frozen: "Frozen", dialogue, turn, entry: null });
  ask.follow = null;
  region(dialogue.region);
  ask.mark(dialogue);
  drawView();
}

function choose(name) {
  overview(false);
  if (name === view.camera || !node.cameras.has(name)) return;
  view.camera = name;
  toLive();
  parameters.show(name);
  health.show(name);
  drawState();
  drawCameras();
  document.title = `${[name, node.name].filter(Boolean).join(" – ")} – kosmos`;
}

function overview(on) {
  if (view.overview === on) return;
  view.overview = on;
  $("#overview").hidden = !on;
  $("#view").hidden = on;
  $("#overview-tool").setAttribute("aria-pressed", String(on));
  drawCameras();
  drawVideo();
  drawAsk();
  picture.layout();
}

function layer(name) {
  Object.assign(view, { layer: name, turn: null });
  if (view.entry?.kind === "event") view.entry = null;
  drawView();
}

function video() {
  view.video = !view.video;
  if (view.video && view.frozen) toLive();
  else drawView();
}

// A finger scrolls the page, so it draws only after this.
function arm(on) {
  picture.armed = on;
  $("#frame").classList.toggle("armed", on);
  $("#region-tool").setAttribute("aria-pressed", String(on));
}

function toAsk(mode) {
  overview(false);
  panels.open("ask");
  ask.focus(mode);
}

function escape() {
  if (ask.busy) ask.cancel();
  else if (picture.region && !view.turn) {
    region(null);
    $("#frame").focus({ preventScroll: true });
  } else if (view.frozen) toLive();
}

// The node --------------------------------------------------------------------------------------

function captionEntry(look) {
  look.listed = true;
  return { kind: "caption", camera: look.camera, time: look.time, look, text: look.caption.text, phrases: look.caption.phrases };
}

const eventEntry = (event) => ({ ...event, kind: "event", event: event.kind, text: event.answer || event.subject });

// Adds captions and events from before this page was connected.
function remember({ looks, events }) {
  const fresh = looks.filter((look) => look.caption && !look.listed);
  const all = [...fresh.map(captionEntry), ...events.map(eventEntry)];
  all.sort((a, b) => a.time - b.time || (a.kind === "caption" ? -1 : 1));
  for (const entry of all) timeline.add(entry, false);
  timeline.draw();
}

node.addEventListener("hello", ({ detail }) => {
  const first = view.camera === null;
  remember(detail);
  cameras.build();
  timeline.cameras();
  parameters.build();
  const [name] = node.cameras.keys();
  if (name === undefined) {
    drawState();
    drawView();
  } else if (node.cameras.has(view.camera)) refresh();
  else choose(name);
  if (first && node.cameras.size >= OVERVIEW) overview(true);
  if (name === undefined) view.camera = null;
  document.body.dataset.ready = "yes";
});

function refresh() {
  if (!view.frozen) view.look = current();
  drawView();
  drawState();
  drawCameras();
  health.show(view.camera);
  parameters.show(view.camera);
}

node.addEventListener("look", ({ detail: look }) => {
  if (look.caption && !look.listed) timeline.add(captionEntry(look));
  timeline.refresh(look); // events of this frame may have come before its picture
  if (view.overview) drawCameras();
  if (look.camera !== view.camera) return;
  if (!view.frozen) view.look = current();
  if (!view.frozen || look === view.look) drawView();
  else drawStrip();
});

node.addEventListener("event", ({ detail: event }) => {
  timeline.add(eventEntry(event));
  if (event.camera !== view.camera) return;
  drawStrip();
  announce(event.kind === "answered" ? `${event.subject} ${event.answer}` : `${event.subject} ${event.kind}`);
});

node.addEventListener("health", () => {
  drawState();
  drawCameras();
  health.show(view.camera);
  if (!view.frozen) view.look = current();
  drawView();
});

node.addEventListener("parameters", () => {
  parameters.show(view.camera);
  drawCameras();
  drawView();
});

node.addEventListener("state", () => {
  drawState();
  drawView();
  drawCameras();
  health.show(view.camera);
  if (view.camera !== null) parameters.show(view.camera);
});

// The picture and the questions -------------------------------------------------------------------

picture.addEventListener("hot", ({ detail }) => point.at(detail));
picture.addEventListener("grab", grab);
picture.addEventListener("region", ({ detail }) => ask.setRegion(detail.box));
picture.addEventListener("drawn", () => arm(false));
picture.addEventListener("pick", ({ detail }) => pick(detail));
picture.addEventListener("question", () => toAsk("ask"));

ask.addEventListener("begin", ({ detail }) => {
  if (!view.look || ask.reason) return;
  panels.open("ask");
  freeze();
  ask.ask(view.look, detail.words);
});

ask.addEventListener("progress", ({ detail: { dialogue, turn } }) => {
  if (view.look !== dialogue.look) return;
  Object.assign(view, { dialogue, turn, entry: null });
  ask.mark(dialogue);
  picture.offer = false;
  drawView();
});

ask.addEventListener("done", ({ detail: { dialogue, turn } }) => {
  if (turn.state === "cancelled") return;
  const { look, find } = dialogue;
  const failed = turn.state === "failed";
  const text = failed ? turn.message : find ? turn.phrases.map((p) => p.text).join(", ") : turn.text;
  timeline.add({
    kind: "answer", sign: find ? "found" : "asked", camera: look.camera, time: node.now(), look, dialogue, turn,
    question: find ? "Find" : turn.question, text, failed, phrases: failed || find ? [] : turn.phrases,
  });
  drawStrip();
});

ask.addEventListener("open", ({ detail }) => showDialogue(detail.dialogue));
ask.addEventListener("scope", () => {
  view.turn = null;
  region(null);
  drawView();
});

timeline.addEventListener("open", ({ detail: { look, entry } }) => {
  if (entry.dialogue) showDialogue(entry.dialogue, entry.turn);
  else showLook(look, "Frozen", entry);
});
strip.addEventListener("open", ({ detail }) => showLook(detail));
strip.addEventListener("live", toLive);
cameras.addEventListener("choose", ({ detail }) => choose(detail));

// Controls --------------------------------------------------------------------------------------

label($("#overview-tool"), "tiles", "Overview");
$("#overview-tool").addEventListener("click", () => overview(!view.overview));
label($("#video-tool"), "video", "Video");
$("#video-tool").addEventListener("click", video);
label($("#region-tool"), "region", "Region");
$("#region-tool").addEventListener("click", () => {
  if (matchMedia("(pointer: coarse)").matches) arm(!picture.armed);
  else begin(picture);
});
$("#caption-more").addEventListener("click", () => {
  $("#caption").classList.toggle("whole");
  $("#caption").scrollTop = 0;
  fold();
});
new ResizeObserver(fold).observe($("#caption"));
$("#freeze").addEventListener("click", () => (view.frozen ? toLive() : freeze()));
$("#model-state").addEventListener("click", () => panels.open("health", true));
$("#banner-act").addEventListener("click", () => node.connect());
for (const button of document.querySelectorAll("#layers button:not(#layer-own)")) {
  button.addEventListener("click", () => layer(button.value));
}
tabKeys($("#cameras"), (tab) => {
  tab.click();
  tab.focus();
});

// An act on the picture, which the overview may hide.
const seen = (act) => () => {
  overview(false);
  act();
};

shortcuts({
  escape,
  digit: (number) => choose([...node.cameras.keys()][number - 1]),
  " ": seen(() => (view.frozen ? toLive() : freeze())),
  r: seen(() => begin(picture)),
  a: () => toAsk("ask"),
  f: () => toAsk("find"),
  b: seen(() => layer({ caption: "phrases", phrases: "none", none: "caption" }[view.layer])),
  o: () => node.cameras.size > 1 && overview(!view.overview),
  v: seen(video),
  t: () => $("#theme").click(),
});

setInterval(() => {
  banner(node);
  if (document.hidden) return;
  drawAge();
  drawStrip();
}, 1000);

theme(drawCameras);
drawState();
drawAge();
timeline.draw();
// The cookie keeps the token. People copy the address bar, so the token must not stay there.
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname);
node.connect();
