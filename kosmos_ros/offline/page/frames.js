// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// The frames of the report, as report.py wrote them, and their pictures, which are read when needed.
//
// A frame: {time [ms], camera, frame_id, width, height, task, caption, score, pose, phrases, answers,
// events}. A phrase: {text, start, end, boxes}; start and end are 0 if it is not a part of the caption.
// A box: [x_min, y_min, x_max, y_max, score] in pixels of the image. An event: {kind, subject, answer,
// previous}; kind is appeared, disappeared or answered.

import { count } from "./dom.js";
import { VIEW } from "./words.js";

const texts = (name) =>
  [...document.querySelectorAll(`script.${name}`)].map((element) => element.textContent.trim());

const blocks = texts("frames").map(JSON.parse);
const size = blocks[0]?.length; // frames in a block; the last block may have fewer

export const frames = blocks.flat();

const pictures = document.querySelectorAll("script.pictures"); // of the same blocks
const BLOCKS_READ = 4; // newest blocks whose pictures stay in memory
const read = new Map(); // number of a block -> its pictures

// The data URL of a frame's picture; "" if it has none.
export function picture(frame) {
  const number = Math.floor(frame.index / size);
  const lines = read.get(number) ?? pictures[number].textContent.trim().split("\n");
  read.delete(number);
  read.set(number, lines);
  if (read.size > BLOCKS_READ) read.delete(read.keys().next().value);
  const data = lines[frame.index % size];
  return data && data !== "-" ? `data:image/webp;base64,${data}` : "";
}

// "A red circle" and "the red circle" are the same thing in the list of phrases.
export const thing = (text) => text.toLowerCase().replace(/^(an?|the)\s+/, "");

frames.forEach((frame, index) => {
  frame.index = index;
  const answers = frame.answers.flatMap((answer) => [answer.question, answer.text]);
  const events = frame.events.flatMap(({ kind, subject, answer, previous }) =>
    kind === "answered" ? [subject, answer, previous] : [`${subject} ${VIEW[kind]}`]);
  frame.text = [frame.caption, ...answers, ...events].join("\n").toLowerCase();
  frame.seen = frame.phrases.filter((phrase) => phrase.boxes.length).map((phrase) => phrase.text.toLowerCase());
});

const LONGEST = 3; // gaps between two frames of a camera, after which the time between them is unknown
const LIMIT = 60000; // ms, after which it is unknown in any case

// A frame stands for the time until the next one of its camera.
function fillTime(own) {
  const gaps = own.slice(1).map((frame, i) => frame.time - own[i].time).sort((a, b) => a - b);
  const usual = gaps[Math.floor(gaps.length / 2)] ?? 0;
  own.forEach((frame, i) => {
    frame.until = Math.min(own[i + 1]?.time ?? frame.time, frame.time + Math.min(LONGEST * usual, LIMIT));
  });
}

for (const camera of new Set(frames.map((frame) => frame.camera))) {
  fillTime(frames.filter((frame) => frame.camera === camera));
}

// Whether one of a frame's phrases has all words of `text`, or another text of the frame contains it.
// So "blue cup" does not find "a blue chair and a red cup".
export function matches(frame, text) {
  const words = text.split(/\s+/);
  return frame.text.includes(text) || frame.seen.some((phrase) => words.every((word) => phrase.includes(word)));
}

export const cameras = [...new Set(frames.map((frame) => frame.camera))].sort();
export const first = frames[0]?.time ?? 0;
export const last = frames.at(-1)?.time ?? 0;

const DAY = 86_400_000; // ms
const days = last - first >= DAY; // whether hours since the first frame mean little

const clock = new Intl.DateTimeFormat("sv", {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

// How long the report is.
export const length = days ? `${((last - first) / DAY).toFixed(1)} days` : offset({ time: last });

// Date and time in the time zone of the browser, such as 2026-05-31 14:00:00.
export const date = (time) => clock.format(new Date(time));

// The time of a frame: since the first frame, as players of bags show it, or date and time if the
// report spans days.
export const at = (frame) => (days ? date(frame.time) : offset(frame));

// The time of a mark of an axis, which has little room: month, day, hour and minute.
export const mark = (time) => (days ? date(time).slice(5, 16) : offset({ time }));

export const zone = (time) =>
  new Intl.DateTimeFormat("en", { timeZoneName: "longOffset" }).formatToParts(new Date(time))
    .find((part) => part.type === "timeZoneName").value;

export const counted = (n) => `${count(n)} ${n === 1 ? "frame" : "frames"}`;

// Hours, minutes and seconds since the first frame.
export function offset(frame) {
  const tenths = Math.round((frame.time - first) / 100);
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  const hours = Math.floor(tenths / 36000);
  const rest = `${two((tenths / 600) % 60)}:${two((tenths / 10) % 60)}.${tenths % 10}`;
  return hours ? `${hours}:${rest}` : rest;
}
