// What the avatar does in a clip, and the clock: the audio's, or the computer's where nothing is said.

const TYPES_OF_AUDIO = { opus: 'audio/ogg; codecs="opus"', m4a: 'audio/mp4; codecs="mp4a.40.2"' };

/** The motion of a clip, frame by frame. */
export class Motion {
  constructor(arrays, fps) {
    const { coefficient, coefficient_step, pose, warp, warp_step } = arrays;
    [this.modes, this.frames] = coefficient.shape;
    this.fps = fps;
    this.coefficients = summed(coefficient, coefficient_step.data);
    this.pose = pose.data;
    this.warp = summed(warp, warp_step.data);
    this.nodes = warp.shape[0];
  }

  /** Coefficients, the pose as twelve numbers, and the torso's warp in a frame. */
  at(frame) {
    const column = (data, rows) => Float32Array.from({ length: rows }, (_, row) => data[row * this.frames + frame]);
    return { coefficients: column(this.coefficients, this.modes), pose: column(this.pose, 12), warp: column(this.warp, this.nodes) };
  }
}

/** The frame of a motion that is shown at a second. */
const frameAt = (motion, seconds) => Math.min(motion.frames - 1, Math.floor(seconds * motion.fps + 1e-3));

/** Plays, pauses and jumps; `seconds` says where it is. With audio, that is where the audio is. */
export class Clock extends EventTarget {
  constructor(duration) {
    super();
    this.duration = duration;
    this.audio = null;
    this.began = null; // milliseconds at which second 0 was, while a clip without audio plays
    this.rest = 0;
    this.loop = false;
  }

  /** Takes the audio at an address, and its duration. */
  async hear(address) {
    this.audio = new Audio(address);
    this.wire();
    await new Promise((done, fail) => {
      this.audio.addEventListener("loadedmetadata", done);
      this.audio.addEventListener("error", () => fail(new Error("This browser cannot play that audio. WAV, MP3, M4A, OGG and FLAC usually work.")));
    });
    this.duration = this.audio.duration;
  }

  /** Takes the audio of a clip: files of the same sound, of which the first that the browser can play is chosen. */
  async listen(base, files) {
    this.audio = new Audio();
    const type = (name) => TYPES_OF_AUDIO[name.split(".").pop()];
    const file = files.find((name) => this.audio.canPlayType(type(name)));
    if (!file) throw new Error("This browser plays neither Opus nor AAC, which the clip's audio is in.");
    const url = new URL(file, base);
    // Of some servers a browser can only jump within what it has loaded; from a blob it always can.
    this.audio.src = url.protocol === "file:" ? url.href : URL.createObjectURL(new Blob([await readFile(base, file)], { type: type(file) }));
    this.wire();
  }

  wire() {
    this.audio.addEventListener("ended", () => this.end());
    for (const name of ["play", "pause"]) this.audio.addEventListener(name, () => this.dispatchEvent(new Event(name)));
  }

  get playing() {
    return this.audio ? !this.audio.paused && !this.audio.ended : this.began !== null;
  }

  get seconds() {
    if (this.audio) return Math.min(this.audio.currentTime, this.duration);
    const now = this.began === null ? this.rest : (performance.now() - this.began) / 1000;
    if (now < this.duration) return now;
    if (this.loop) return now % this.duration;
    if (this.began !== null) this.end();
    return this.duration;
  }

  async play() {
    if (this.seconds >= this.duration - 0.001) this.seek(0);
    if (this.audio) return this.audio.play();
    if (this.began === null) this.began = performance.now() - 1000 * this.rest;
    this.dispatchEvent(new Event("play"));
  }

  pause() {
    if (this.audio) return this.audio.pause();
    if (this.began === null) return;
    this.rest = this.seconds;
    this.began = null;
    this.dispatchEvent(new Event("pause"));
  }

  seek(seconds) {
    this.rest = Math.max(0, Math.min(this.duration, seconds));
    if (this.audio) this.audio.currentTime = this.rest;
    else if (this.began !== null) this.began = performance.now() - 1000 * this.rest;
  }

  end() {
    if (this.loop && this.audio) {
      this.seek(0);
      this.audio.play();
      return;
    }
    [this.rest, this.began] = [this.duration, null];
    this.dispatchEvent(new Event("pause"));
    this.dispatchEvent(new Event("ended"));
  }

  close() {
    this.pause();
    const address = this.audio?.src;
    if (!address?.startsWith("blob:")) return;
    this.audio.removeAttribute("src"); // or the browser would go on to ask for it
    this.audio.load();
    URL.revokeObjectURL(address);
  }
}
