// <avatar-player src="folder/" controls loop autoplay transparent clip="name" size renderer>: the avatar with its stage and controls.

const FORMAT = "avatar-web-1";
const DEGREES_PER_PIXEL = 0.2, KEY_DEGREES = 3, MOST_ENLARGED = 2;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const HOW = "Drag, or use the arrow keys, to look from another side; 0 goes back, space plays.";

export class AvatarPlayer extends (globalThis.HTMLElement || Object) { // Node.js has none
  static observedAttributes = ["src", "clip", "controls", "transparent", "loop", "size"];

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).innerHTML = PARTS;
    dress(this.shadowRoot);
    const all = (names) => names.map((name) => [name, this.shadowRoot.querySelector(`.${name}`)]);
    this.ui = Object.fromEntries(all(["stage", "image", "canvas", "said", "start", "bar", "play", "seek", "time", "mute", "clips", "sliders", "expression", "speech", "choose", "microphone", "stop", "note", "file"]));
    this.wire();
    this.turn = 0; // of loading: one that has been overtaken is not used any more
    this.speaking = new Speaking(this);
  }

  connectedCallback() {
    this.watcher = new ResizeObserver(() => this.fit());
    this.watcher.observe(this.ui.stage);
    if (!this.engine && this.hasAttribute("src")) this.load();
  }

  disconnectedCallback() {
    this.watcher.disconnect();
    this.unload();
  }

  /** Lets go of the folder, also of one that is still being loaded, and of the microphone. */
  unload() {
    this.turn += 1;
    this.speaking.end();
    this.engine?.close();
    this.engine = null;
  }

  attributeChangedCallback(name, before, now) {
    if (before === now || !this.isConnected || !this.watcher) return; // what stands in the page is read once it is in it
    if (name === "src") this.load();
    else if (name === "size") this.fit();
    else if (name === "clip" && this.engine) {
      const clip = now || this.engine.manifest.clips[0].name; // without the attribute as it would be loaded
      if (clip !== this.engine.wanted?.name) this.choose(clip);
    }
    else if (this.engine) this.show();
  }

  /** Loads the folder that `src` names. */
  async load() {
    const wanted = this.getAttribute("src");
    this.unload();
    const { turn } = this;
    this.say("Loading …");
    const canvas = this.ui.canvas.cloneNode(); // a canvas keeps the kind of drawing that it was first used with
    this.ui.canvas.replaceWith(canvas);
    this.ui.canvas = canvas;
    try {
      if (wanted === null) throw new Error("There is no avatar: the attribute src is missing.");
      const base = new URL(wanted.endsWith("/") ? wanted : `${wanted}/`, document.baseURI).href;
      const engine = await Engine.load(canvas, base, this.getAttribute("renderer"));
      if (turn !== this.turn) return engine.close(); // the player was removed or moved, or loads another folder
      this.engine = engine;
      this.present(engine, base);
      await this.choose(this.getAttribute("clip") || engine.manifest.clips[0].name);
      if (turn !== this.turn) return;
      if (this.hasAttribute("autoplay") && !matchMedia("(prefers-reduced-motion: reduce)").matches) await this.play().catch(() => {});
    } catch (error) {
      if (turn === this.turn) this.fail(error);
    }
  }

  fail(error) {
    this.say(error.message);
    this.dispatchEvent(new CustomEvent("error", { detail: error }));
  }

  /** Fills the element with what the folder holds. */
  present(engine, base) {
    const { ui } = this, { manifest } = engine;
    ui.stage.style.aspectRatio = `${manifest.camera.width} / ${manifest.camera.height}`;
    ui.image.src = new URL(manifest.background, base).href;
    ui.image.style.transform = ""; // of another avatar that was zoomed in on
    ui.stage.setAttribute("aria-label", `${manifest.name}, a talking avatar. ${HOW}`);
    ui.clips.replaceChildren(...manifest.clips.map((clip) => new Option(clip.title, clip.name)));
    ui.sliders.replaceChildren(...manifest.controls.map((control) => this.slider(control)));
    this.speaking.present(engine);
    for (const name of ["play", "pause", "ended", "clip"]) {
      engine.addEventListener(name, () => {
        if (engine !== this.engine) return; // audio says later that it was paused
        this.show();
        this.dispatchEvent(new Event(name));
      });
    }
    engine.addEventListener("frame", () => this.showTime());
    this.fit();
  }

  slider({ name, title, low, high }) {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "range", min: low, max: high, step: 0.01, value: 0 });
    input.addEventListener("input", () => this.engine?.set(name, Number(input.value)));
    input.addEventListener("dblclick", () => { input.value = 0; this.engine?.set(name, 0); });
    label.append(title, input);
    return label;
  }

  async choose(name) {
    const { engine } = this, playing = engine?.clock.playing;
    try {
      if (!(await engine?.choose(name)) || engine !== this.engine) return; // something else was begun meanwhile
    } catch (error) {
      return this.fail(error);
    }
    this.say("");
    this.ui.canvas.setAttribute("aria-label", `${engine.manifest.name}: ${engine.clip.title}`);
    engine.clock.loop = this.hasAttribute("loop");
    this.show();
    engine.step();
    this.dispatchEvent(new Event("ready"));
    if (playing) await this.play();
  }

  /** Says why a click plays nothing: the audio is refused, by the browser or by the page's own policy. */
  unplayed(error) {
    if (error.name === "AbortError") return; // it was paused already
    const audio = error.name === "NotSupportedError";
    this.fail(audio ? new Error("The audio of this clip cannot be played: the browser, or a policy of this page without media-src blob:, refuses it.") : error);
  }

  play() { return this.engine.clock.play(); }
  pause() { this.engine?.clock.pause(); }
  get paused() { return !this.engine?.clock.playing; }
  get duration() { return this.engine?.clock.duration || 0; }
  get currentTime() { return this.engine?.clock.seconds || 0; }
  set currentTime(seconds) { this.engine?.seek(seconds); }
  get clips() { return this.engine?.manifest.clips.map(({ name, title }) => ({ name, title })) || []; }
  get controlNames() { return this.engine?.manifest.controls.map(({ name }) => name) || []; }

  /** Speaks audio, with lips made here: a Blob (a File), an ArrayBuffer or an AudioBuffer. */
  speak(source, title) { return this.speaking.speak(source, title); }
  /** Speaks along with a MediaStream; by default it asks for the microphone. */
  listen(stream) { return this.speaking.listen(stream); }
  /** Ends what is spoken, and goes back to the clip. */
  stop() { return this.speaking.stop(); }

  /** Looks from an azimuth and elevation in degrees; the view stops softly where the avatar is not good any more. */
  look(azimuth, elevation, zoom = 1) {
    this.engine.view.set(azimuth, elevation, zoom);
    this.aim();
  }

  /** Shows the view that was asked for; what is behind the person grows with them. */
  aim() {
    const { view } = this.engine, { width, height } = view.camera, [x, y] = view.place(width, height);
    Object.assign(this.ui.image.style, {
      transformOrigin: `${(100 * x) / width}% ${(100 * y) / height}%`, transform: view.zoom === 1 ? "" : `scale(${view.zoom})`,
    });
    this.engine.touch("view");
  }

  /** Changes the expression: a name of `controlNames`, and a value of -1 to 1. */
  set(control, value) {
    this.engine.set(control, value);
  }

  say(sentence) {
    this.ui.said.hidden = !sentence;
    this.ui.said.textContent = sentence;
    this.ui.canvas.hidden = Boolean(sentence);
  }

  show() {
    const { ui, engine } = this, playing = engine.clock.playing, shown = this.hasAttribute("controls");
    ui.bar.hidden = !shown;
    ui.speech.hidden = !shown || !engine.manifest.speech;
    for (const part of [ui.play, ui.seek, ui.time]) part.hidden = this.duration === Infinity;
    ui.expression.hidden = !shown || !engine.manifest.controls.length;
    ui.clips.hidden = engine.manifest.clips.length < 2;
    ui.clips.value = engine.clip?.name;
    ui.mute.hidden = !engine.clip?.audio.length;
    ui.image.hidden = this.hasAttribute("transparent");
    ui.play.textContent = playing ? "Pause" : "Play";
    ui.start.hidden = playing || shown;
    ui.seek.max = Math.min(this.duration, Number.MAX_SAFE_INTEGER);
    this.speaking.show();
    engine.clock.loop = this.hasAttribute("loop");
    if (engine.clock.audio) engine.clock.audio.muted = ui.mute.getAttribute("aria-pressed") === "true";
    this.showTime();
  }

  showTime() {
    const { ui } = this, seconds = this.currentTime, text = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
    ui.seek.value = seconds;
    ui.time.textContent = `${text(seconds)} / ${text(this.duration)}`;
    this.dispatchEvent(new Event("timeupdate"));
  }

  /** Gives the canvas as many pixels as are seen, or `size` pixels across. */
  fit() {
    if (!this.engine) return;
    const { width, height } = this.engine.manifest.camera, { canvas, stage } = this.ui;
    const seen = Number(this.getAttribute("size")) || stage.clientWidth * devicePixelRatio;
    const across = Math.max(16, Math.round(Math.min(seen, width * (this.engine.painter instanceof Painter ? MOST_ENLARGED : 1))));
    const down = Math.max(16, Math.round((across * height) / width));
    if (canvas.width === across && canvas.height === down) return;
    Object.assign(canvas, { width: across, height: down });
    this.engine.dirty.view = true;
    this.engine.step(); // a canvas of a new size is empty
  }

  wire() {
    const { ui } = this, toggle = () => (this.paused ? this.play().catch((error) => this.unplayed(error)) : this.pause());
    for (const button of [ui.play, ui.start]) button.addEventListener("click", toggle);
    ui.seek.addEventListener("input", () => { this.currentTime = Number(ui.seek.value); });
    ui.clips.addEventListener("change", () => this.choose(ui.clips.value));
    ui.mute.addEventListener("click", () => {
      const muted = ui.mute.getAttribute("aria-pressed") !== "true";
      ui.mute.setAttribute("aria-pressed", String(muted));
      if (this.engine?.clock.audio) this.engine.clock.audio.muted = muted;
    });
    this.wireView(toggle);
  }

  wireView(toggle) {
    const { stage } = this.ui, change = (act) => {
      if (!this.engine) return;
      act(this.engine.view);
      this.aim();
    };
    let held = null;
    stage.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.target.closest("button")) return; // a second finger is elsewhere
      held = [event.clientX, event.clientY];
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!held || !event.isPrimary) return;
      const across = event.clientX - held[0], along = event.pointerType === "touch" ? 0 : event.clientY - held[1];
      held = [event.clientX, event.clientY];
      change((view) => view.turn(-across * DEGREES_PER_PIXEL, along * DEGREES_PER_PIXEL));
    });
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => { if (event.isPrimary) held = null; });
    }
    stage.addEventListener("dblclick", () => change((view) => view.reset()));
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return; // the page must scroll
      event.preventDefault();
      change((view) => view.set(...view.asked, view.zoom * Math.exp(-(event.deltaY || event.deltaX) / 500)));
    }, { passive: false });
    stage.addEventListener("keydown", (event) => {
      if (event.target !== stage || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key in ARROWS) change((view) => view.turn(...ARROWS[event.key].map((steps) => steps * KEY_DEGREES)));
      else if (event.key === "0") change((view) => view.reset());
      else if (event.key === "+" || event.key === "-") change((view) => view.set(...view.asked, view.zoom * (event.key === "+" ? 1.1 : 1 / 1.1)));
      else if (event.key === " ") toggle();
      else return;
      event.preventDefault();
    });
  }
}

if (globalThis.customElements && !customElements.get("avatar-player")) customElements.define("avatar-player", AvatarPlayer);
