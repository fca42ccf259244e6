// Shows images when the audio that belongs to them is heard. While no audio may play, images are shown as they come.
//
// Audio may be heard long after it came: it waits in a buffer, and wireless headphones take their time. Its images wait
// for it as packets, and are decoded shortly before they are shown: a decoder stalls where many of its images are kept.

const MOST_IMAGES = 8, FORESEEN = 6; // decoded images that wait, and that are decoded before their time
const MOST_SECONDS = 10; // of packets that wait, more than the speaker's buffer holds; the next key frame drops the rest
const LISTEN_MS = 3000;
const MOST_ERRORS = 5; // of decoding, one after the other, before it is given up

/** What a decoder is set to. */
export const decoding = (codec) => ({ codec, optimizeForLatency: true });

export class Player {
  /** `failed` hears, in words, that images cannot be decoded; `silent`, whether the browser has stopped the audio. */
  constructor(canvas, failed, silent) {
    Object.assign(this, { canvas, failed, silent, errors: 0 });
    this.context2d = canvas.getContext("2d", { alpha: false, desynchronized: true });
    this.packets = []; // not decoded yet, in order
    this.images = []; // decoded, in order
    this.made = new Map(); // time stamp in microseconds to the server's time of that frame
    this.needKey = true;
    this.position = null; // of the audio: { pts, at } in seconds of the session and of the audio context
    this.shown = { frames: 0, last: 0, latencies: [], delays: [], skipped: 0, freezes: 0 };
    this.started = performance.now();
    this.fps = 25;
    this.firstImage = new Promise((done) => { this.tellFirst = done; });
    this.audioReady = this.openAudio();
    const draw = () => { if (!this.closed) { this.draw(); requestAnimationFrame(draw); } };
    requestAnimationFrame(draw);
  }

  async openAudio() {
    this.audioContext = new AudioContext({ sampleRate: 16000, latencyHint: "interactive" });
    this.audioContext.onstatechange = () => { // such as by a call on a phone, or where the device is gone
      if (!this.closed) this.silent(this.audioContext.state !== "running");
    };
    await this.audioContext.audioWorklet.addModule("page/speaker-worklet.js");
    this.speaker = new AudioWorkletNode(this.audioContext, "speaker", { numberOfInputs: 0, outputChannelCount: [1] });
    this.speaker.port.onmessage = ({ data }) => { this.position = data; };
    this.speaker.connect(this.audioContext.destination);
  }

  async listen() {
    await this.audioReady;
    const late = new Promise((_, failed) => setTimeout(() => failed(new Error("This device plays no audio.")), LISTEN_MS));
    await Promise.race([this.audioContext.resume(), late]);
  }

  configure(hello) {
    this.fps = hello.fps;
    [this.canvas.width, this.canvas.height] = [hello.width - (hello.width % 2), hello.height - (hello.height % 2)];
    this.codec = hello.codec;
    this.openDecoder();
  }

  openDecoder() {
    this.needKey = true;
    this.decoder = new VideoDecoder({
      output: (image) => { this.errors = 0; this.keep(image); },
      error: () => this.tryAgain(),
    });
    this.decoder.configure(decoding(this.codec));
  }

  /** Goes on at the next key frame, but not for ever: a decoder that cannot do it fails at once, each time. */
  tryAgain() {
    if (this.closed) return;
    this.errors += 1;
    if (this.errors < MOST_ERRORS) this.openDecoder();
    else this.failed(`This browser cannot decode the video (${this.codec}). Use another one.`);
  }

  audio(pts, samples, ahead, cut) {
    if (!this.speaker || this.audioContext.state !== "running") return;
    this.speaker.port.postMessage({ pts, samples: Float32Array.from(samples, (value) => value / 32768), ahead, cut });
  }

  image(pts, made, key, data) {
    if (key && this.packets.length > MOST_SECONDS * this.fps) this.shown.skipped += this.packets.splice(0).length;
    this.packets.push({ pts, made, key, data });
    this.decode(this.heard()); // here as well, because a page in the background draws nothing
  }

  /** Decodes the packets whose images are shown soon, where second `now` is heard; all, while no audio plays. */
  decode(now) {
    while (this.packets.length && (now === null || this.packets[0].pts <= now + FORESEEN / this.fps)) {
      const { pts, made, key, data } = this.packets.shift();
      if ((this.needKey && !key) || this.decoder.state !== "configured") continue;
      this.needKey = false;
      const timestamp = Math.round(pts * 1e6);
      this.made.set(timestamp, made);
      if (this.made.size > 200) this.made.delete(this.made.keys().next().value);
      this.decoder.decode(new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp, data }));
    }
  }

  keep(image) {
    this.tellFirst(); // here, because a page in the background draws nothing
    this.images.push(image);
    while (this.images.length > MOST_IMAGES) { this.images.shift().close(); this.shown.skipped += 1; }
  }

  /** Second of the session that is heard now; null while no audio plays. */
  heard() {
    if (!this.position?.playing || this.audioContext.state !== "running") return null;
    const out = this.audioContext.outputLatency || this.audioContext.baseLatency || 0;
    return this.position.pts + (this.audioContext.currentTime - this.position.at) - out;
  }

  draw() {
    const now = this.heard();
    this.decode(now);
    let image = null;
    while (this.images.length && (now === null || this.images[0].timestamp / 1e6 <= now + 0.5 / this.fps)) {
      if (image) { image.close(); this.shown.skipped += 1; }
      image = this.images.shift();
    }
    if (!image) return;
    this.context2d.drawImage(image, 0, 0, this.canvas.width, this.canvas.height);
    const pts = image.timestamp / 1e6, time = performance.now(), shown = this.shown;
    if (shown.frames && time - shown.last > 150 + 3000 / this.fps) shown.freezes += 1;
    shown.frames += 1;
    shown.last = time;
    shown.latencies.push([performance.timeOrigin + time, this.made.get(image.timestamp)]);
    if (now !== null) shown.delays.push(pts - now);
    image.close();
  }

  /** Waits for the first image. */
  first() { return this.firstImage; }

  flush() { this.speaker?.port.postMessage({ flush: true }); }

  stats(clock) {
    const { shown } = this, seconds = (performance.now() - this.started) / 1000;
    const spans = shown.latencies.map(([at, made]) => at + clock - made).sort((a, b) => a - b);
    const delays = shown.delays;
    const found = {
      rate: shown.latencies.length / seconds,
      latency: spans.length ? spans[spans.length >> 1] : 0,
      latency95: spans.length ? spans[Math.min(spans.length - 1, Math.floor(0.95 * spans.length))] : 0,
      audioDelay: delays.length ? delays.reduce((sum, one) => sum + one, 0) / delays.length : null,
      worstDelay: delays.length ? Math.max(...delays.map(Math.abs)) : null,
      frames: shown.frames, skipped: shown.skipped, freezes: shown.freezes,
      underruns: this.position?.underruns || 0, buffer: this.position?.target || 0, spare: this.position?.spare || 0,
      output: this.audioContext?.outputLatency || 0,
    };
    shown.latencies = [];
    shown.delays = [];
    this.started = performance.now();
    return found;
  }

  close() {
    this.closed = true;
    this.images.splice(0).forEach((image) => image.close());
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    this.audioReady.then(() => this.audioContext.close()).catch(() => {});
  }
}
