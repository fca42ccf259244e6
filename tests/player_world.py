"""The player of a web folder in Node.js: its modules as they are, in a page that is made up."""

from __future__ import annotations

from typing import Any

from avatar.export.web import page
from tests.node import told

# A page as far as the player needs it. What is loaded waits for `loads[n](…)`; `sounds` are the audio that was made.
WORLD = r"""
class Part extends EventTarget { // of a document
  constructor() {
    super();
    Object.assign(this, { attributes: {}, style: {}, value: "", textContent: "", hidden: false, clientWidth: 100 });
    this.classList = { add() {}, remove() {} };
  }
  getAttribute(name) { return this.attributes[name] ?? null; }
  hasAttribute(name) { return name in this.attributes; }
  setAttribute(name, value) {
    const before = this.getAttribute(name);
    this.attributes[name] = value;
    if (this.constructor.observedAttributes?.includes(name)) this.attributeChangedCallback(name, before, value);
  }
  cloneNode() { return new Part(); }
  replaceWith() {} replaceChildren() {} append() {}
}
globalThis.HTMLElement = class extends Part {
  attachShadow() {
    const parts = {};
    return this.shadowRoot = { adoptedStyleSheets: [], querySelector: (name) => parts[name] ||= new Part() };
  }
  put() { this.isConnected = true; this.connectedCallback(); }
  remove() { this.isConnected = false; this.disconnectedCallback(); }
};
const sounds = [], addresses = new Set();
const rules = { duration: Infinity, broken: false, refused: "" }; // of what browsers record, none says how long it is
class Audio extends EventTarget {
  constructor(src = "") {
    super();
    Object.assign(this, { src, paused: true, currentTime: 0, duration: rules.duration });
    sounds.push(this);
    setTimeout(() => this.dispatchEvent(new Event(rules.broken ? "error" : "loadedmetadata")));
  }
  async play() {
    if (rules.refused) throw Object.assign(new Error(rules.refused), { name: rules.refused });
    this.paused = false;
  }
  pause() {
    if (!this.paused) setTimeout(() => this.dispatchEvent(new Event("pause"))); // it says so later
    this.paused = true;
  }
  removeAttribute() { this.src = ""; }
  load() {}
}
const playing = () => sounds.filter((sound) => !sound.paused).length;
URL.createObjectURL = () => { addresses.add(`blob:${addresses.size}`); return `blob:${addresses.size - 1}`; };
URL.revokeObjectURL = (address) => addresses.delete(address);
Object.assign(globalThis, {
  ResizeObserver: class { observe() {} disconnect() {} }, document: { baseURI: "http://here/" }, Audio,
  Option: class {}, matchMedia: () => ({ matches: false }), requestAnimationFrame: () => 0, devicePixelRatio: 1,
  customElements: { get: () => null, define() {} }, CSSStyleSheet: class { replaceSync(text) { this.text = text; } },
});
const settle = () => new Promise((done) => setTimeout(done, 5));
const tell = (found) => { console.log(JSON.stringify(found)); process.exit(0); };
"""
# Folders without Gaussians, and clips without motion, that come when a scene says so.
FOLDERS = r"""
const loads = [], clips = [], engines = [], errors = [];
const later = (list, make) => new Promise((done, fail) => {
  list.push((error) => { if (error) fail(error); else done(make()); return settle(); });
});
const names = ["first", "second"].map((name) => ({ name, title: name, audio: ["a.opus"] }));
const manifest = {
  name: "A", clips: names, controls: [], camera: { width: 512, height: 512 }, background: "b.webp", speech: {}, fps: 25,
};
const made = (kind) => Object.assign(Reflect.construct(EventTarget, [], kind), {
  base: "http://here/", manifest, clip: null, motion: null, frame: -1, values: {}, clock: new Clock(0), dirty: {},
});
Engine.load = () => later(loads, () => { engines.push(made(Engine)); return engines.at(-1); });
openClip = (base, { clips: all }, name) => later(clips, () => {
  const clock = new Clock(1);
  clock.audio = new Audio(URL.createObjectURL());
  clock.wire();
  return { clip: all.find((one) => one.name === name), motion: {}, clock };
});
const player = new AvatarPlayer();
player.addEventListener("error", ({ detail }) => errors.push(detail.message));
player.attributes.src = "web/";
/** Loads the folder, with its first clip. */
const load = async () => { player.put(); await loads[0](); await clips[0](); };
"""


def run_player(scene: str) -> Any:
    """What a scene tells; it runs beside the player's modules."""
    return told("-e", f"{WORLD}\n{page.code()}\n{FOLDERS}\n(async () => {{ {scene} }})();")
