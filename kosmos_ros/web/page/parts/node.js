// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// The connection to the web server, and the newest state of the node. Knows no element of the page.
//
// Events: "hello" (cameras and parameters are known, perhaps new ones), "look" (a described frame
// or more parts of it), "event", "health", "state", "parameters".

const PAUSES = [1, 2, 4, 8, 10]; // s before each attempt to connect; the last one repeats
const MOST_LOOKS = 900; // as many as the server sends at first
const MOST_EVENTS = 300;
const SAMPLES = 60; // of each plot, one a second
const SKEW = 5000; // ms between the robot's clock and this one, from which the page uses the robot's
const OLD = 3000; // ms before the page was connected, from which a look is not of now
const REPORT = 3000; // ms in which the node reports a parameter that it has set
const MOST_BYTES = 256 * 1024; // of a message to the server, which reads no longer one

const NO_CONNECTION = "This page has no connection to its server. Try again when it is back.";
const TOO_LONG = "This text is too long for the server. Shorten it.";
const REASONS = {
  connecting: "This page is connecting to its server.",
  loading: "The model is loading. Ask when it is ready.",
  error: "The model cannot be used. Health shows the reason.",
  inactive: "The node is not active. Activate it to ask.",
  gone: "The node is not running. Ask when it is back.",
};

class Camera {
  constructor(name, topic) {
    Object.assign(this, { name, topic, level: "ok", message: "", values: {}, samples: [] });
  }

  // The name that people read; a single camera has none.
  get label() {
    return this.name || "camera";
  }

  get last() {
    return this.samples.at(-1) ?? NO_SAMPLE;
  }
}

const NO_SAMPLE = {
  captions: 0, images: 0, p50: 0, p95: 0, lost: 0, memory: 0, device: 0,
};
const NO_CAMERA = new Camera("", "");

export class Node extends EventTarget {
  constructor() {
    super();
    this.name = "";
    this.cameras = new Map();
    this.parameters = {};
    this.values = { "": {} };
    this.looks = []; // as they arrived; their stamps may repeat, as those of a bag that plays again
    this.events = [];
    this.model = null; // {level, message, values, loading}; null until the first diagnostics
    this.state = "connecting"; // "disconnected" after the first failure
    this.message = "";
    this.connected = false;
    this.retryAt = 0; // ms since 1970, of the next attempt to connect; 0: one is under way
    this.known = new Map(); // "camera stamp" -> newest look
    this.greeted = 0; // ms since 1970, when the server last sent all that it knows
    this.requests = new Map(); // id -> function that takes an answer
    this.changes = new Map(); // id -> function that takes the refusal
    this.reports = 0; // of values of parameters so far
    this.skippedAt = 0; // ms since 1970, when looks were last left out because this page read too slowly
    this.skew = 0; // ms that this clock is ahead of the robot's
    this.failures = 0;
    this.number = 0;
    document.addEventListener("visibilitychange", () => this.#show());
  }

  // Connecting ----------------------------------------------------------------------------------

  connect() {
    clearTimeout(this.timer);
    this.retryAt = 0;
    const address = new URL("/ws", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    this.socket?.close();
    this.socket = socket;
    let opened = false;
    const current = (act) => (event) => this.socket === socket && act(event);
    socket.addEventListener("open", current(() => {
      opened = true;
      this.#show();
    }));
    socket.addEventListener("message", current((event) => this.#take(JSON.parse(event.data))));
    socket.addEventListener("close", current((event) => {
      if (opened || event.reason) this.message = event.reason;
      else this.#explain(current);
      this.#lost();
    }));
    this.#emit("state");
  }

  #lost() {
    const pause = PAUSES[Math.min(this.failures++, PAUSES.length - 1)];
    this.connected = false;
    this.state = "disconnected";
    this.retryAt = Date.now() + pause * 1000;
    this.timer = setTimeout(() => this.connect(), pause * 1000);
    for (const answer of this.requests.values()) answer({ done: true, success: false, message: NO_CONNECTION });
    for (const refuse of this.changes.values()) refuse(NO_CONNECTION);
    this.changes.clear();
    this.#emit("state");
  }

  // Browsers do not say why a websocket was refused. The server refuses other requests likewise.
  async #explain(current) {
    const response = await fetch("icon.svg", { cache: "no-store" }).catch(() => null);
    const reason = response?.status === 403 ? (await response.text()).trim() : "";
    current(() => {
      this.message = reason && `The server refuses this page: ${reason}.`;
      this.#emit("state");
    })();
  }

  // Returns why a message cannot be sent; empty: it is sent.
  #send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return NO_CONNECTION;
    const text = JSON.stringify(message);
    if (new Blob([text]).size > MOST_BYTES) return TOO_LONG;
    this.socket.send(text);
    return "";
  }

  // A hidden tab receives only the answers to its own questions.
  #show() {
    this.#send({ type: "visible", visible: !document.hidden });
  }

  #take(message) {
    const take = {
      hello: () => this.#hello(message),
      look: () => this.#emit("look", this.#look(message)),
      event: () => this.#emit("event", this.#event(message)),
      health: () => this.#health(message),
      state: () => this.#state(message),
      parameters: () => this.#values(message.values),
      answer: () => this.requests.get(message.id)?.(message),
      set: () => this.#answered(message),
      gap: () => (this.skippedAt = Date.now()),
      error: () => console.warn(`the server refused a message: ${message.message}`),
    }[message.type];
    take?.();
  }

  // What arrives --------------------------------------------------------------------------------

  #hello(message) {
    this.connected = true;
    this.failures = 0;
    this.name = message.node;
    this.version = message.version;
    this.parameters = message.parameters;
    this.values = message.values;
    const old = this.cameras;
    this.cameras = new Map(message.cameras.map(({ name, topic }) => [name, old.get(name) ?? new Camera(name, topic)]));
    for (const { name, topic } of message.cameras) this.cameras.get(name).topic = topic;
    this.model = message.health.model;
    for (const [name, health] of Object.entries(message.health.cameras)) {
      const { samples, ...rest } = health;
      const camera = this.cameras.get(name);
      if (camera) Object.assign(camera, rest, { samples: samples ?? [] });
    }
    const before = { looks: new Set(this.looks), events: new Set(this.events) };
    this.greeted = Date.now();
    message.looks.forEach((look, i) => this.#look(look, message.ages[i] * 1000));
    for (const event of message.events) this.#event(event);
    this.#emit("hello", {
      looks: this.looks.filter((look) => !before.looks.has(look)),
      events: this.events.filter((event) => !before.events.has(event)),
    });
  }

  // Parts of a look may come later. The object stays the same, because others refer to it.
  // `age`: ms since it arrived at the server.
  #look(message, age = 0) {
    const look = this.#place(message);
    const fresh = !look.arrived;
    if (message.caption && !look.caption) this.#compare(message, age);
    Object.assign(look, message, { arrived: Date.now() - age });
    if (!fresh) return look;
    this.looks.push(look);
    if (this.looks.length > MOST_LOOKS) this.#forget(this.looks.shift());
    return look;
  }

  // Returns the object of a look. A later frame of the same stamp gets an object of its own.
  #place({ camera, stamp, time, number }) {
    const look = this.at(camera, stamp, time);
    if (!look.arrived || look.number === number) return look;
    this.#forget(look);
    return this.at(camera, stamp, time);
  }

  #forget(look) {
    const key = `${look.camera} ${look.stamp}`;
    if (this.known.get(key) === look) this.known.delete(key);
  }

  // Compares this clock with the robot's, by which a look was published `latency` after its stamp.
  #compare({ time, latency }, age) {
    const ahead = Date.now() - age - time - latency;
    this.skew = Math.abs(ahead) > SKEW ? ahead : 0;
  }

  // Returns the look of a frame, even before it arrives: events and answers may arrive first.
  at(camera, stamp, time) {
    const key = `${camera} ${stamp}`;
    if (!this.known.has(key)) {
      this.known.set(key, { ...EMPTY, camera, stamp, time });
      // Forget the oldest look, which may never have arrived.
      if (this.known.size > 2 * MOST_LOOKS) this.known.delete(this.known.keys().next().value);
    }
    return this.known.get(key);
  }

  #event(message) {
    const same = this.events.find((e) => ["camera", "stamp", "kind", "subject", "sent"].every((key) => e[key] === message[key]));
    if (same) return same;
    const event = { ...message, look: this.at(message.camera, message.stamp, message.time) };
    this.events.push(event);
    if (this.events.length > MOST_EVENTS) this.events.shift();
    return event;
  }

  #health(message) {
    this.model = message.model;
    for (const [name, health] of Object.entries(message.cameras)) {
      const camera = this.cameras.get(name);
      if (!camera) continue;
      Object.assign(camera, health);
      camera.topic = health.values.topic || camera.topic; // with the node's own remapping
      camera.samples.push(health.sample);
      if (camera.samples.length > SAMPLES) camera.samples.shift();
    }
    this.#emit("health");
  }

  #state({ state, message }) {
    this.state = state;
    this.message = message;
    this.#emit("state");
  }

  #values(values) {
    this.values = values;
    this.reports += 1;
    this.#emit("parameters");
  }

  // State and requests --------------------------------------------------------------------------

  get ready() {
    return this.connected && this.state === "ready";
  }

  // Whether parameters can be set.
  get settable() {
    return this.connected && this.state !== "gone";
  }

  // Whether a new frame of a camera is on its way, and this look is from before the page was
  // connected: nobody looked since then.
  outdated(look) {
    const { name, level } = this.camera(look.camera);
    const comes = this.ready && (level === "ok" || level === "warn") && this.value(name, "enabled");
    return Boolean(comes && look.arrived && look.arrived < this.greeted - OLD);
  }

  // Why the node answers no questions; empty: it does.
  get unready() {
    return REASONS[this.state] ?? (this.connected ? "" : NO_CONNECTION);
  }

  // The robot's time, which differs from this machine's in a simulation.
  now() {
    return Date.now() - this.skew;
  }

  camera(name) {
    return this.cameras.get(name) ?? NO_CAMERA;
  }

  // The newest look of a camera that has a picture; without any, the newest.
  newest(camera) {
    const own = (look) => look.camera === camera;
    return this.looks.findLast((look) => own(look) && look.picture) ?? this.looks.findLast(own) ?? null;
  }

  value(camera, name) {
    return this.values[camera]?.[name] ?? this.values[""]?.[name] ?? this.parameters[name]?.default;
  }

  // The value that a parameter has after a reset.
  common(camera, name) {
    return (camera ? this.values[""]?.[name] : null) ?? this.parameters[name]?.default;
  }

  // Resolves to {refusal: of the node; empty: none, and stored: the value that the node reports
  // then; undefined: it did not report}.
  async set(camera, name, value) {
    const id = `set ${++this.number}`;
    const before = this.reports;
    const unsent = this.#send({ type: "set", id, camera, name, value });
    const refusal = unsent || (await new Promise((resolve) => this.changes.set(id, resolve)));
    if (!refusal && this.reports === before) await this.#report();
    return { refusal, stored: !refusal && this.reports > before ? this.value(camera, name) : undefined };
  }

  // Resolves at the next report of values, or after REPORT.
  #report() {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, REPORT);
      const reported = () => {
        clearTimeout(timer);
        resolve();
      };
      this.addEventListener("parameters", reported, { once: true });
    });
  }

  #answered({ id, success, message }) {
    this.changes.get(id)?.(success ? "" : message || "The node refused the value.");
    this.changes.delete(id);
  }

  // Yields {waiting}, {begun} and {text, phrases} as they arrive, last {done, success, message, result}.
  async *ask({ look, signal, ...request }) {
    const id = `ask ${++this.number}`;
    const parts = [];
    let wake = () => {};
    this.requests.set(id, (part) => {
      parts.push(part);
      wake();
    });
    const stop = () => this.#send({ type: "cancel", id });
    signal.addEventListener("abort", stop);
    const unsent = this.#send({ type: "ask", id, camera: look.camera, stamp: look.stamp, grounded: true, ...request });
    if (unsent) parts.push({ done: true, success: false, message: unsent });
    try {
      for (;;) {
        while (!parts.length) await new Promise((resolve) => (wake = resolve));
        const part = parts.shift();
        yield part;
        if (part.done) return;
      }
    } finally {
      signal.removeEventListener("abort", stop);
      this.requests.delete(id);
    }
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

// `arrived`: ms since 1970 by this clock, when the server had the look; 0: it has not arrived.
const EMPTY = {
  arrived: 0, width: 0, height: 0, picture: null, task: "", caption: null, phrases: [], answers: [], latency: 0,
};
