// The avatar in a canvas: what a clip, its clock, controls and a view make of the Gaussians.

export class Engine extends EventTarget {
  /**
   * Loads the folder at `base` (an absolute URL that ends with a slash).
   * @param {"webgl" | "cpu" | null} renderer What draws; by default WebGL where there is a graphics card.
   */
  static async load(canvas, base, renderer = null) {
    const [manifest, arrays] = await openFolder(base), byCard = renderer ? renderer !== "cpu" : hasGraphics();
    return new Engine(canvas, base, manifest, arrays, byCard ? Painter : Blender);
  }

  constructor(canvas, base, manifest, arrays, Drawing) {
    super();
    Object.assign(this, { canvas, base, manifest, clip: null, motion: null, frame: -1, values: {} });
    this.gaussians = new Gaussians(arrays, manifest.skinning);
    this.painter = new Drawing(canvas, this.gaussians.count);
    this.view = new View(manifest);
    this.clock = new Clock(0);
    this.drawn = { frames: 0, milliseconds: 0 };
    this.dirty = { face: true, view: true };
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => { this.painter.prepare(); this.touch("view"); });
  }

  /** Draws when the browser is ready, and goes on while a clip plays. A page that shows nothing new costs nothing. */
  wake() {
    if (this.awake) return;
    this.awake = true;
    const tick = () => {
      this.step();
      this.awake = !this.closed && this.clock.playing;
      if (this.awake) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  /** Notes that the view or the face has changed. */
  touch(part) {
    this.dirty[part] = true;
    this.wake();
  }

  /** Chooses a clip by its name, and stands at its beginning; gives false where something else was begun meanwhile. */
  async choose(name) {
    const opened = await openWanted(this, name);
    if (opened) this.perform(opened.clip, opened.motion, opened.clock);
    return Boolean(opened);
  }

  /** Goes over to another motion, on another clock. */
  perform(clip, motion, clock) {
    for (const event of ["play", "pause", "ended"]) {
      clock.addEventListener(event, () => { this.wake(); if (clock === this.clock) this.dispatchEvent(new Event(event)); });
    }
    this.clock.close();
    Object.assign(this, { clip, motion, clock, frame: -1 });
    this.wake();
    this.dispatchEvent(new Event("clip"));
  }

  /** What hears, loaded once. */
  voice() {
    const { speech } = this.manifest;
    if (!speech) throw new Error("This avatar was exported without --speech-input: it only plays its clips.");
    this.hearing ||= Voice.load(this.base, speech).catch((error) => { this.hearing = null; throw error; });
    return this.hearing;
  }

  /** Speaks audio: a Blob, an ArrayBuffer or an AudioBuffer. It is heard once its first second is ready. */
  async speak(source, title = "Audio") {
    const file = this.wanted = this.saying = audioFile(source), voice = await this.voice(), clock = new Clock(0);
    let samples;
    try {
      await clock.hear(URL.createObjectURL(file));
      if (clock.duration < Infinity) checkLength(clock.duration); // what browsers record does not say how long it is
      samples = await samplesOf(file);
      checkLength(samples.length / HEARING_RATE);
    } catch (error) {
      clock.close();
      throw error;
    }
    if (this.closed || this.wanted !== file) return clock.close(); // something else was begun meanwhile
    clock.duration = samples.length / HEARING_RATE;
    const spoken = new Spoken(voice, Math.max(1, Math.ceil(clock.duration * voice.about.fps - 1e-6)));
    this.perform({ name: "", title, audio: [title] }, spoken, clock);
    await this.feed(spoken, clock, samples, voice);
  }

  /** Lets the lips be made piece by piece, and plays as soon as they are far enough ahead. */
  async feed(spoken, clock, samples, voice) {
    const id = voice.utterances += 1, piece = PIECE_SECONDS * HEARING_RATE;
    let begun = null;
    for (let from = 0; from < samples.length && this.motion === spoken; from += piece) {
      const { frames, count } = await voice.hear(id, samples.slice(from, from + piece), HEARING_RATE, from + piece >= samples.length);
      spoken.add(frames, count);
      const ahead = spoken.frames / spoken.fps - clock.seconds;
      if (this.motion !== spoken || !(spoken.complete || ahead > LEAD_SECONDS)) continue;
      if (!begun || this.starved) begun = clock.play().catch((error) => this.unplayed(error));
      this.starved = false;
      await begun;
    }
  }

  /** Lips go on where nothing is wrong with the audio: it was paused already, or this browser wants a click first. */
  unplayed(error) {
    if (error.name === "NotAllowedError") this.dispatchEvent(new Event("blocked"));
    else if (error.name !== "AbortError") throw error;
  }

  /** Speaks along with a MediaStream, until `perform` is called again. */
  async listen(stream) {
    this.wanted = this.saying = stream;
    const voice = await this.voice(), spoken = new Spoken(voice, Infinity), clock = new LiveClock(spoken), id = voice.utterances += 1;
    let waiting = 0; // seconds
    await clock.listen(stream, async (samples, rate) => {
      waiting += samples.length / rate;
      if (waiting > MOST_BEHIND) return this.dispatchEvent(new Event("slow"));
      const { frames, count } = await voice.hear(id, samples, rate, false);
      waiting -= samples.length / rate;
      if (!count) return;
      clock.came(spoken.frames);
      spoken.add(frames, count);
      if (clock === this.clock) this.wake();
    });
    if (this.closed || this.wanted !== stream) return clock.close();
    this.perform({ name: "", title: "Microphone", audio: [] }, spoken, clock);
  }

  /** Gives up speech that is still being loaded; a clip that was chosen after it goes on. */
  unsay() {
    if (this.saying && this.wanted === this.saying) this.wanted = null;
  }

  /** Sets a control; the face stays changed until it is set again. */
  set(control, value) {
    this.values[control] = value;
    this.touch("face");
  }

  seek(seconds) {
    this.clock.seek(seconds);
    this.wake();
  }

  /** Draws whatever has changed. */
  step() {
    if (!this.motion?.frames || this.painter.lost) return;
    if (this.motion.complete === false && this.clock.audio && this.clock.playing && this.clock.seconds * this.motion.fps > this.motion.frames) {
      this.starved = true; // the audio waits for the lips
      this.clock.pause();
    }
    const frame = frameAt(this.motion, this.clock.seconds);
    if (frame !== this.frame) this.dispatchEvent(new Event("frame"));
    if (frame !== this.frame || this.dirty.face || this.dirty.view) this.draw(frame);
  }

  /** Draws a frame of the clip now. */
  draw(frame) {
    const began = performance.now(), { gaussians, manifest } = this;
    const { coefficients, pose, warp } = this.motion.at(frame);
    if (frame !== this.frame || this.dirty.face) {
      addControls(coefficients, manifest.controls, this.values);
      gaussians.change(coefficients);
    }
    const camera = this.view.at(this.canvas.width, this.canvas.height);
    const count = gaussians.project({ ...rigidMotions(pose, manifest.skinning, camera), warp }, camera, this.painter.space);
    this.painter.draw(count);
    Object.assign(this, { frame, dirty: { face: false, view: false } });
    this.drawn.frames += 1;
    this.drawn.milliseconds += performance.now() - began;
  }

  close() {
    this.closed = true;
    this.clock.close();
    this.hearing?.then((voice) => voice.close(), () => {});
  }
}

/** The manifest and the Gaussians of a folder. */
async function openFolder(base) {
  const manifest = await readJson(base, "avatar.json");
  if (manifest.format !== FORMAT) throw new Error(`This player reads ${FORMAT}, the folder is ${manifest.format}.`);
  return [manifest, await readArrays(base, "avatar.bin")];
}

/** A clip by its name, its motion, and a clock that stands at its beginning. */
async function openClip(base, manifest, name) {
  const clip = manifest.clips.find((one) => one.name === name);
  if (!clip) throw new Error(`There is no clip ${name}.`);
  const motion = new Motion(await readArrays(base, clip.file), manifest.fps);
  const clock = new Clock(motion.frames / motion.fps);
  if (clip.audio.length) await clock.listen(base, clip.audio);
  return { clip, motion, clock };
}

/** A clip for an engine or a performer; null where that was closed, or began something else, meanwhile. */
async function openWanted(owner, name) {
  const wanted = owner.wanted = { name }, mine = () => !owner.closed && owner.wanted === wanted;
  const opened = await openClip(owner.base, owner.manifest, name).catch((error) => { if (mine()) throw error; });
  if (mine()) return opened;
  opened?.clock.close();
  return null;
}

/** Refuses audio of so many seconds, if it is too long to be decoded as a whole. */
function checkLength(seconds) {
  if (seconds > 60 * MOST_MINUTES) throw new Error(`A page speaks ${MOST_MINUTES} minutes at most; cut it into parts.`);
}

/** Adds to a frame's coefficients what controls are set to. */
function addControls(coefficients, controls, values) {
  for (const { name, coefficients: change } of controls) {
    const value = values[name] || 0;
    if (value) for (let m = 0; m < coefficients.length; m += 1) coefficients[m] += value * change[m];
  }
}

/** Rigid motions of head and torso from canonical to camera axes, and their quaternions in the world. */
function rigidMotions(pose, { head_rotation, head_translation, torso_pivot }, camera) {
  const part = (k) => Array.from(pose.subarray(3 * k, 3 * k + 3));
  let qHead = product(quaternion(part(0)), quaternion(head_rotation.map((x) => -x)));
  const qTorso = quaternion(part(2));
  if (qHead.reduce((sum, value, k) => sum + value * qTorso[k], 0) < 0) qHead = qHead.map((x) => -x);
  const torsoTo = part(3).map((x, k) => x + torso_pivot[k]);
  return {
    head: seen(matrix(qHead), head_translation, part(1), camera), qHead,
    torso: seen(matrix(qTorso), torso_pivot, torsoTo, camera), qTorso,
  };
}

/** Unit quaternion wxyz of axis times angle. */
function quaternion(axisAngle) {
  const angle = Math.hypot(...axisAngle), scale = angle > 1e-8 ? Math.sin(angle / 2) / angle : 0.5;
  return [Math.cos(angle / 2), ...axisAngle.map((x) => x * scale)];
}

function product([a, b, c, d], [e, f, g, h]) {
  return [a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g, a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e];
}

/** Rows [3, 4] of turning about a centre, moving it somewhere, and going from the world to the camera. */
function seen(turn, center, to, { view, translation }) {
  const shift = [0, 1, 2].map((i) => to[i] - [0, 1, 2].reduce((sum, k) => sum + turn[3 * i + k] * center[k], 0));
  return [0, 1, 2].flatMap((i) => {
    const row = [0, 1, 2].map((k) => [0, 1, 2].reduce((sum, j) => sum + view[3 * i + j] * turn[3 * j + k], 0));
    return [...row, [0, 1, 2].reduce((sum, j) => sum + view[3 * i + j] * shift[j], translation[i])];
  });
}
