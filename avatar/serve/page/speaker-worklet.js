// Plays audio on the time line of the session, behind a buffer.
//
// Parts come frame by frame. While the avatar speaks, the server also sends what follows before its time has come, so
// that a moment without a processor makes no gap; a later part replaces what was sent for its time. What matters is how
// much of the frames still waits when the next one comes at last: the spare. Where it is less than wanted, a silence is
// made longer, before there is a gap; where it is more, shorter.

const LEAST = 0.04, MOST = 0.4; // seconds of the spare that is wanted
const GROWS = 1.5, SHRINKS = 0.9, CALM = 10; // factors, and seconds without a gap before it shrinks
const WINDOW = 0.5, WINDOWS = 4; // seconds over which the spare is the least, and how many of them it must be too much
const LINE = 8; // seconds that are kept
const FADE = 160; // samples: 10 ms
const SILENT = 2e-3, HUSHED = 0.03; // samples below it are silence, or below this share of the loudest one lately
const LATELY = 0.998; // what is left of the loudest after a block: half in a second
const QUIET = 0.25; // seconds after an interruption: what the server had sent before it knew is not heard

class Speaker extends AudioWorkletProcessor {
  constructor() {
    super();
    this.line = new Float32Array(LINE * sampleRate); // a ring; sample n of the session is at n % length
    this.next = this.sure = this.end = 0; // samples: played next; after the newest frame; after what was sent ahead
    this.part = 0; // samples of the last frame
    this.target = LEAST;
    this.playing = false;
    this.underruns = 0;
    this.last = 0; // sample
    this.calm = 0; // samples since the last gap
    this.blocks = 0;
    this.quietUntil = 0;
    this.spare = 0;
    this.loud = 0;
    this.forget();
    this.port.onmessage = ({ data }) => { if (data.flush) this.flush(); else this.take(data); };
  }

  take({ pts, samples, ahead, cut }) {
    const begin = Math.round(pts * sampleRate), end = begin + samples.length, { line } = this;
    if (currentTime < this.quietUntil) samples.fill(0);
    if (begin > this.end + 1 || end < this.next - sampleRate) { // the time line jumped
      if (ahead) return;
      if (begin - this.end > 0.5 * sampleRate || this.end <= this.next || begin < this.next) this.next = this.sure = this.end = begin;
      for (let n = this.end; n < begin; n += 1) line[n % line.length] = 0;
    }
    for (let n = Math.max(begin, this.next); n < end; n += 1) line[n % line.length] = samples[n - begin];
    this.end = cut ? Math.max(end, this.next) : Math.max(this.end, end);
    this.next = Math.max(this.next, this.end - line.length);
    if (!ahead) { this.sure = end; this.part = samples.length; }
  }

  flush() {
    if (currentTime < this.quietUntil) return; // it is quiet already
    this.quietUntil = currentTime + QUIET;
    for (let n = this.next, left = FADE; n < this.end; n += 1, left -= 1) {
      this.line[n % this.line.length] *= left > 0 ? left / FADE : 0;
    }
  }

  process(_, [[out]]) {
    const { playing } = this, wanted = this.target * sampleRate;
    if (!playing && this.sure - this.next >= wanted + this.part) { this.playing = true; this.forget(); }
    if (playing && this.end - this.next < out.length) {
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
      this.port.postMessage({
        pts: this.next / sampleRate, at: currentTime + out.length / sampleRate, playing: this.playing,
        underruns: this.underruns, target: this.target, spare: this.spare / sampleRate,
      });
    }
    return true;
  }

  play(out) {
    const count = out.length;
    this.least = Math.min(this.least, this.sure - this.next - count);
    this.since += count;
    if (this.since >= WINDOW * sampleRate) this.judge();
    if (this.change >= count && this.silent(this.next, count)) {
      this.change -= count; // this block is silence, and nothing that waits is used
      out.fill(0);
    } else {
      if (this.change <= -count && this.end - this.next > 3 * count && this.silent(this.next, count)) {
        this.next += count;
        this.change += count;
      }
      for (let i = 0; i < count; i += 1) out[i] = this.line[(this.next + i) % this.line.length];
      this.next += count;
    }
    this.loud *= LATELY;
    for (const value of out) this.loud = Math.max(this.loud, Math.abs(value));
    this.last = out[count - 1];
  }

  /** Find how much longer or shorter a silence has to be, from the least that waited lately. */
  judge() {
    this.spares = [...this.spares.slice(1 - WINDOWS), this.least];
    const wanted = this.target * sampleRate, least = Math.min(...this.spares);
    const known = this.spares.length === WINDOWS && least - wanted >= 128;
    if (this.least < wanted) this.change = wanted - this.least;
    else if (known) this.change = wanted - least;
    else this.change = Math.max(Math.min(this.change, 0), wanted - this.least); // no silence has come for it yet
    this.spare = this.least;
    this.least = Infinity;
    this.since = 0;
    if (known || this.change >= 128) this.spares = [];
  }

  forget() {
    this.least = Infinity;
    this.spares = [];
    this.since = this.change = 0; // change: samples that a silence is to be longer (> 0) or shorter
  }

  silent(from, count) {
    const most = Math.max(SILENT, HUSHED * this.loud);
    for (let n = from; n < from + count; n += 1) if (Math.abs(this.line[n % this.line.length]) >= most) return false;
    return true;
  }

  fade(out) {
    for (let i = 0; i < out.length; i += 1) { this.last *= 0.97; out[i] = this.last; }
  }
}

registerProcessor("speaker", Speaker);
