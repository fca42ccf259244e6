// Plays audio as it comes, behind a buffer that grows where the network needs it and shrinks in silences.

const LEAST = 0.05, MOST = 0.4; // seconds of the buffer
const GROWS = 1.5, SHRINKS = 0.9, CALM = 10; // factors, and seconds without a gap before it shrinks
const FADE = 160; // samples: 10 ms
const QUIET = 0.25; // seconds after an interruption: what the server had sent before it knew is not heard

class Speaker extends AudioWorkletProcessor {
  constructor() {
    super();
    this.parts = []; // { pts, samples, at }: at is the first sample that was not played
    this.queued = 0;
    this.target = LEAST;
    this.playing = false;
    this.underruns = 0;
    this.last = 0; // sample
    this.calm = 0; // samples since the last gap
    this.least = Infinity; // fewest samples that waited in the last second
    this.since = 0;
    this.blocks = 0;
    this.quietUntil = 0;
    this.port.onmessage = ({ data }) => {
      if (data.flush) this.flush();
      else {
        if (currentTime < this.quietUntil) data.samples.fill(0);
        this.parts.push({ ...data, at: 0 });
        this.queued += data.samples.length;
      }
    };
  }

  flush() {
    if (currentTime < this.quietUntil) return; // it is quiet already
    this.quietUntil = currentTime + QUIET;
    let left = FADE;
    for (const part of this.parts) {
      for (let i = part.at; i < part.samples.length; i += 1) {
        part.samples[i] *= left > 0 ? left / FADE : 0;
        left -= 1;
      }
    }
  }

  process(_, [[out]]) {
    if (!this.playing && this.queued >= this.target * sampleRate) this.playing = true;
    if (this.playing && this.queued < out.length) {
      this.playing = false;
      this.underruns += 1;
      this.calm = 0;
      this.target = Math.min(MOST, this.target * GROWS);
    }
    if (this.playing) this.play(out); else this.fade(out);
    this.calm += out.length;
    if (this.calm > CALM * sampleRate) { this.calm = 0; this.target = Math.max(LEAST, this.target * SHRINKS); }
    this.blocks += 1;
    if (this.blocks % 2 === 0) {
      const pts = this.parts.length ? this.parts[0].pts + this.parts[0].at / sampleRate : 0;
      const at = currentTime + out.length / sampleRate;
      this.port.postMessage({
        pts, at, playing: this.playing && this.parts.length > 0, underruns: this.underruns, target: this.target,
      });
    }
    return true;
  }

  play(out) {
    this.copy(out);
    // What waits beyond the buffer is delay: a silent block is left out for it.
    this.least = Math.min(this.least, this.queued);
    this.since += out.length;
    if (this.since > sampleRate) {
      this.spare = this.least - (this.target + 0.02) * sampleRate;
      this.least = Infinity;
      this.since = 0;
    }
    if (this.spare > out.length && this.queued > 2 * out.length && this.silentAhead(out.length)) {
      this.copy(new Float32Array(out.length));
      this.spare -= out.length;
    }
    this.last = out[out.length - 1];
  }

  silentAhead(count) {
    const part = this.parts[0];
    if (!part || part.samples.length - part.at < count) return false;
    return part.samples.subarray(part.at, part.at + count).every((value) => Math.abs(value) < 1e-3);
  }

  copy(out) {
    let filled = 0;
    while (filled < out.length && this.parts.length) {
      const part = this.parts[0];
      const piece = part.samples.subarray(part.at, part.at + out.length - filled);
      out.set(piece, filled);
      filled += piece.length;
      part.at += piece.length;
      this.queued -= piece.length;
      if (part.at >= part.samples.length) this.parts.shift();
    }
  }

  fade(out) {
    for (let i = 0; i < out.length; i += 1) { this.last *= 0.97; out[i] = this.last; }
  }
}

registerProcessor("speaker", Speaker);
