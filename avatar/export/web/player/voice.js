// Speech in the page: a worker that hears, and what its lips make of the face while a loop moves the rest.

const HEARING_RATE = 16000, PIECE_SECONDS = 0.5, LEAD_SECONDS = 1; // begins, and goes on, once so much is ready
const MOST_MINUTES = 30; // of a file: it is decoded as a whole
const KEPT_FRAMES = 1000; // of what a microphone said
const CATCH_UP = 0.05; // of what an image is later than it has to be, each time that frames come
const MOST_BEHIND = 2; // seconds of a microphone that wait for the worker

/** Coefficients of a face from its inputs; see `avatar.export.web.face_regression`. */
class Face {
  constructor({ face_unit: unit, face_linear: linear, face_example: example, face_weight: weight }, width) {
    const inputs = unit.shape[1], row = (k) => unit.data.subarray(k * inputs, (k + 1) * inputs);
    [this.mean, this.scale, this.low, this.high] = [0, 1, 2, 3].map(row);
    Object.assign(this, { inputs, linear: linear.data, examples: example.data, weights: weight.data, modes: linear.shape[1], width });
  }

  coefficients(values) {
    const { inputs, modes, mean, scale, low, high, linear, examples, weights, width } = this;
    const units = values.map((value, i) => (value - mean[i]) * scale[i]);
    const near = units.map((value, i) => Math.max(low[i], Math.min(high[i], value)));
    const sums = Float32Array.from({ length: modes }, (_, m) => linear[inputs * modes + m]);
    const add = (data, row, factor) => { for (let m = 0; m < modes; m += 1) sums[m] += factor * data[row * modes + m]; };
    units.forEach((value, i) => add(linear, i, value));
    for (let s = 0; s < examples.length / inputs; s += 1) {
      let square = 0;
      for (let i = 0; i < inputs; i += 1) square += (near[i] - examples[s * inputs + i]) ** 2;
      add(weights, s, Math.exp((-0.5 * square) / (width * width)));
    }
    return sums;
  }
}

/** What the avatar does while it speaks: its frames come one after the other. Stands in for the `Motion` of a clip. */
export class Spoken {
  /** @param {number} total Frames that there will be; Infinity where nobody knows. */
  constructor(voice, total) {
    Object.assign(this, { voice, total, fps: voice.about.fps, frames: 0, rows: [], first: 0 });
  }

  get complete() {
    return this.frames >= this.total;
  }

  add(lips, count) {
    const { channels } = this.voice.about;
    for (let n = 0; n < count; n += 1) this.rows.push(lips.subarray(n * channels, (n + 1) * channels));
    this.frames += count;
    if (this.total === Infinity && this.rows.length > 2 * KEPT_FRAMES) {
      this.rows.splice(0, KEPT_FRAMES);
      this.first += KEPT_FRAMES;
    }
  }

  at(frame) {
    const row = this.rows[Math.max(0, frame - this.first)];
    return this.voice.frame(frame, row);
  }
}

/** The worker, and the person's face and loop. */
export class Voice {
  static async load(base, about) {
    const [arrays, code] = await Promise.all([readArrays(base, about.file), readFile(base, about.code)]);
    return new Voice(arrays, about, code);
  }

  constructor(arrays, about, code) {
    Object.assign(this, { about, face: new Face(arrays, about.width), utterances: 0, waiting: [] });
    this.base = arrays.base;
    this.loop = { frames: about.frames, pose: arrays.pose.data, warp: summed(arrays.warp, arrays.warp_step.data), nodes: arrays.warp.shape[0] };
    const heard = Object.fromEntries(Object.entries(arrays).filter(([name]) => !/^(face_|base$|pose$|warp)/.test(name)));
    const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" })); // a page from disk may load no other worker
    this.worker = new Worker(url);
    this.worker.onmessage = ({ data }) => {
      if (data.error && data.id === undefined) return this.fails(data.error);
      const { done, fail } = this.waiting.shift();
      if (data.error) fail(new Error(data.error));
      else done(data);
    };
    this.worker.onerror = () => this.fails("The page cannot begin to hear.");
    this.worker.postMessage({ arrays: heard, about });
  }

  /** The worker could not begin: this browser, or a policy of the page, lacks what it needs. Nothing is ever heard. */
  fails(why) {
    this.broken = new Error(`This page cannot make lips: ${why}`);
    for (const { fail } of this.waiting.splice(0)) fail(this.broken);
  }

  /** Hears a piece of an utterance; gives { frames, count, final }. Pieces are answered one after the other. */
  hear(id, samples, rate, final) {
    if (this.broken) return Promise.reject(this.broken);
    return new Promise((done, fail) => {
      this.waiting.push({ done, fail });
      this.worker.postMessage({ id, samples, rate, final });
    });
  }

  /** Coefficients, pose and warp of a frame: the loop with other lips. */
  frame(frame, lips) {
    const { loop, base, about: { back, lips: channels } } = this;
    const at = frame < loop.frames ? frame : back + ((frame - back) % (loop.frames - back));
    const column = (data, rows) => Float32Array.from({ length: rows }, (_, row) => data[row * loop.frames + at]);
    const inputs = column(base.data, base.shape[0]);
    channels.forEach((channel, c) => { inputs[channel] = lips[c]; });
    return { coefficients: this.face.coefficients(inputs), pose: column(loop.pose, 12), warp: column(loop.warp, loop.nodes) };
  }

  close() {
    this.worker.terminate();
    for (const { fail } of this.waiting.splice(0)) fail(new Error("The avatar is gone."));
  }
}

/** Audio as a file that the browser plays: what is one already, its bytes, or an AudioBuffer. */
export function audioFile(source) {
  if (source instanceof Blob) return source;
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return new Blob([source]);
  if (typeof AudioBuffer !== "undefined" && source instanceof AudioBuffer) return wave(source);
  throw new Error("The avatar speaks a Blob, an ArrayBuffer or an AudioBuffer.");
}

/** An AudioBuffer as a WAV file of 16 bits. */
function wave(buffer) {
  const { numberOfChannels: channels, length, sampleRate } = buffer, view = new DataView(new ArrayBuffer(44 + 2 * channels * length));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); text(8, "WAVEfmt "); text(36, "data");
  for (const [at, value] of [[4, view.byteLength - 8], [16, 16], [24, sampleRate], [28, 2 * channels * sampleRate], [40, view.byteLength - 44]]) view.setUint32(at, value, true);
  for (const [at, value] of [[20, 1], [22, channels], [32, 2 * channels], [34, 16]]) view.setUint16(at, value, true);
  for (let channel = 0; channel < channels; channel += 1) {
    const data = buffer.getChannelData(channel);
    for (let i = 0; i < length; i += 1) view.setInt16(44 + 2 * (i * channels + channel), Math.max(-1, Math.min(1, data[i])) * 32767, true);
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}

/** Samples [N] of a file, 16 kHz, channels averaged. */
export async function samplesOf(file) {
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, HEARING_RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error("This browser cannot read that audio. WAV, MP3, M4A, OGG and FLAC usually work.");
  }
  const samples = new Float32Array(sound.length), channels = sound.numberOfChannels;
  for (let channel = 0; channel < channels; channel += 1) {
    const data = sound.getChannelData(channel);
    for (let i = 0; i < samples.length; i += 1) samples[i] += data[i] / channels;
  }
  return samples;
}

const TAP = `registerProcessor("avatar-tap", class extends AudioWorkletProcessor {
  constructor() { super(); this.held = new Float32Array(Math.round(sampleRate / 50)); this.at = 0; }
  process([[heard]]) {
    for (const value of heard || []) {
      this.held[this.at] = value;
      this.at += 1;
      if (this.at === this.held.length) { this.port.postMessage(this.held.slice()); this.at = 0; }
    }
    return true;
  }
});`;

/** The clock of what is still being said: as near to the microphone as frames come out without a pause. */
export class LiveClock extends EventTarget {
  constructor(motion) {
    super();
    Object.assign(this, { motion, duration: Infinity, audio: null, loop: false, playing: true, delay: 0, latest: 0 });
  }

  /** Takes a stream of a microphone, whose pieces of 20 ms go to a function. */
  async listen(stream, take) {
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(TAP)}`); // of a blob, a page from disk may not
    await this.context.resume();
    const tap = new AudioWorkletNode(this.context, "avatar-tap", { channelCount: 1, channelCountMode: "explicit" });
    tap.port.onmessage = ({ data }) => {
      this.began ??= this.context.currentTime - data.length / this.context.sampleRate;
      if (this.playing) take(data, this.context.sampleRate);
    };
    this.context.createMediaStreamSource(stream).connect(tap);
    tap.connect(this.context.destination); // silent; without a way out it would not run
  }

  /** Seconds since the microphone began. */
  get heard() {
    return this.began === undefined ? 0 : this.context.currentTime - this.began;
  }

  /** Notes that frames from number `first` on have come: those who wait longest say how far the image stays behind. */
  came(first) {
    const needed = this.heard - first / this.motion.fps;
    this.delay = Math.max(needed, this.delay + CATCH_UP * (needed - this.delay));
  }

  get seconds() {
    const ready = (this.motion.frames - 0.5) / this.motion.fps;
    this.latest = Math.max(this.latest, Math.min(this.heard - this.delay, ready));
    return Math.max(0, this.latest);
  }

  async play() {}
  pause() {}
  seek() {}

  close() {
    if (!this.playing) return;
    this.playing = false;
    this.context?.close();
    this.dispatchEvent(new Event("pause"));
  }
}
