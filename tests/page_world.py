"""The page of `avatar serve` in Node.js: its modules run as they are, in a browser that is made up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.node import told

PAGE = Path(__file__).parents[1] / "avatar/serve/page"
# A browser as far as the page needs it. A microphone is asked for until `asked[n].grant()`; what takes a second or more
# waits for `elapse()`; servers and decoders do what the test says.
WORLD = r"""
class Part { // of a document
  constructor() {
    Object.assign(this, { on: {}, attributes: {}, children: [], options: [], style: {}, value: "", textContent: "" });
  }
  addEventListener(name, act) { (this.on[name] ||= []).push(act); }
  setAttribute(name, value) { this.attributes[name] = value; }
  removeAttribute(name) { delete this.attributes[name]; }
  replaceChildren(...parts) { this.textContent = parts.map((part) => part.textContent).join(" "); }
  append() {} add() {} play() { return Promise.resolve(); }
  getContext() { return { drawImage() {} }; }
  querySelector(name) { return part(name); }
  get firstElementChild() { return this.first ||= new Part(); }
  classList = { toggle() {} };
}
const parts = {}, part = (name) => parts[name] ||= new Part(), realTimeout = setTimeout;
const click = (name) => Promise.all((part(name).on.click || []).map((act) => act({})));
const pressed = (name) => part(name).attributes["aria-pressed"];
const settle = () => new Promise((done) => realTimeout(done, 5));
const late = [], elapse = () => { for (const act of late.splice(0)) act(); return settle(); };
const asked = [], sockets = [], decoders = [], contexts = [], nodes = [], heard = {}; // the last: what the window hears
const clocks = []; // what is done again and again: { act, ms }
const rules = { rate: 48000, worklet: () => Promise.resolve(), codecs: ["avc1", "vp8"], decoder: () => {}, peer: null };

class Track {
  stop() { this.readyState = "ended"; }
  readyState = "live";
}
class Stream {
  constructor() { this.track = new Track(); }
  getTracks() { return [this.track]; }
  getAudioTracks() { return [this.track]; }
  addTrack() {}
}
const live = () => asked.filter(({ stream }) => stream?.track.readyState === "live").length;

class Context {
  constructor({ sampleRate } = {}) {
    Object.assign(this, { sampleRate: sampleRate || rules.rate, state: "running", destination: {} });
    this.audioWorklet = { addModule: (name) => (name.includes("microphone") ? rules.worklet() : Promise.resolve()) };
    contexts.push(this);
  }
  createAnalyser() { return { fftSize: 32, getFloatTimeDomainData() {} }; }
  createMediaStreamSource() {
    if (this.sampleRate !== rules.rate) throw new Error("AudioNodes with different sample-rate"); // as Firefox does
    return { connect() {} };
  }
  resume() { this.state = "running"; return Promise.resolve(); }
  close() { this.state = "closed"; return Promise.resolve(); }
}
class Node_ { port = { postMessage() {} }; constructor() { nodes.push(this); } connect() {} }

class Socket extends EventTarget {
  static OPEN = 1;
  constructor(url) { super(); Object.assign(this, { url, readyState: 1, sent: [] }); sockets.push(this); }
  send(data) { if (typeof data === "string") this.sent.push(JSON.parse(data)); }
  close() { this.readyState = 3; this.onclose?.(); }
  give(data) { this.onmessage?.({ data }); this.dispatchEvent(new Event("message")); return settle(); }
  hello() {
    const limits = { left: 1, right: 1, up: 1, down: 1 }, about = { emotions: [], poses: [], limits, agent: true };
    const video = { codec: "avc1.42E01F", fps: 25, width: 8, height: 8 };
    return this.give(JSON.stringify({ type: "hello", session: "s", hears: true, ...video, ...about }));
  }
  image() {
    const data = new Uint8Array(25);
    [data[0], data[1]] = [2, 1]; // a key frame
    return this.give(data.buffer);
  }
  said(type) { return this.sent.filter((words) => words.type === type).map((words) => words.on); }
}
class Decoder {
  static async isConfigSupported({ codec }) {
    return { supported: rules.codecs.some((name) => codec.startsWith(name)) };
  }
  constructor(act) { Object.assign(this, act, { state: "unconfigured" }); decoders.push(this); }
  configure() { this.state = "configured"; rules.decoder(this); }
  decode({ timestamp }) { this.output({ timestamp, close() {} }); }
  close() { this.state = "closed"; }
}
class Peer {
  constructor() {
    Object.assign(this, { connectionState: "connecting", localDescription: { sdp: "v=0" } });
    rules.peer = this;
  }
  createDataChannel() { return {}; }
  addTransceiver() { return { sender: { replaceTrack() { return Promise.resolve(); } } }; }
  async createOffer() {} async setLocalDescription() {} async setRemoteDescription() {}
  close() {}
}
const ask = () => new Promise((done) => {
  const one = { grant: () => { done(one.stream = new Stream()); return settle(); } };
  asked.push(one);
});
const answers = { "api/offer": { pc_id: "r1.name", sdp: "", type: "answer" }, "api/ice": {} };
Object.assign(globalThis, {
  window: globalThis, addEventListener: (name, act) => { heard[name] = act; }, isSecureContext: true,
  location: { hash: "", search: "" },
  document: { baseURI: "http://here/", getElementById: part, createElement: () => new Part(), addEventListener() {} },
  requestAnimationFrame: () => 0, Option: class {}, MediaStream: Stream, AudioContext: Context, AudioWorkletNode: Node_,
  WebSocket: Socket, VideoDecoder: Decoder, EncodedVideoChunk: class { constructor(all) { Object.assign(this, all); } },
  RTCPeerConnection: Peer, setInterval: (act, ms) => { clocks.push({ act, ms }); return 0; },
  setTimeout: (act, ms) => { if (ms < 1000) return realTimeout(act, ms); late.push(act); return 0; },
  fetch: async (url) => ({ ok: true, json: async () => answers[url] }),
});
Object.defineProperty(globalThis, "navigator", { value: { mediaDevices: { getUserMedia: ask } }, configurable: true });
/** Loads the page; connected by a WebSocket, unless told otherwise. */
async function load(search = "?door=websocket", connected = true) {
  location.search = search;
  await import("./main.js");
  await settle();
  if (connected) { await sockets[0].hello(); await sockets[0].image(); }
}
const tell = (found) => { console.log(JSON.stringify(found)); process.exit(0); };
"""


def run_page(folder: Path, code: str) -> dict[str, Any]:
    """What a scene tells; it runs beside the page's modules, in a module of its own."""
    shutil.copytree(PAGE, folder / "page", dirs_exist_ok=True)
    (folder / "page/package.json").write_text('{"type": "module"}')
    scene = folder / "page/scene.js"
    scene.write_text(WORLD + code)
    return told(scene)
