// When somebody speaks: the level in the speech band, and a gate on it. The arithmetic is that of
// `avatar.audio.spectra.SpeechEnergy`, `avatar.audio.resampling` and `avatar.audio.vad.VoiceActivityDetector`.

const FOURIER = 512, FLOOR_DB = -80, LOW_HZ = 100, HIGH_HZ = 6000, BLOCK = 4;
const SILENCE_DB = -60, SILENCE_BELOW = 50, BELOW_VOICE = 38, ABOVE_FLOOR = 5, CLEAR_RANGE = 20, STEADY_RANGE = 5;
const VOICE_FORGETS = 1, VOICE_ABOVE = 25, FLOOR_RISES = 1, EARLY_SECONDS = 0.08, RELEASE_SECONDS = 0.15;

/** Level in the speech band in dB relative to full scale, every 10 ms. */
export class Energy {
  constructor(matrices) {
    const [first, last] = [Math.ceil((LOW_HZ * FOURIER) / SAMPLE_RATE), Math.floor((HIGH_HZ * FOURIER) / SAMPLE_RATE)];
    Object.assign(this, { matrices, fourier: transform(matrices, FOURIER, first, last), bins: 2 * (last - first + 1) });
    this.across = Math.ceil(this.bins / 8) * 8;
    [this.cut, this.spectra] = [matrices.room(FRAME * BLOCK), matrices.room(this.across * BLOCK)];
    const hann = total(FRAME, (n) => (0.5 - 0.5 * Math.cos((2 * Math.PI * n) / FRAME)) ** 2);
    this.scale = 2 / (FOURIER * hann); // Parseval
    this.begin();
  }

  /** Begins a recording. */
  begin() {
    [this.held, this.all, this.done] = [new Float32Array(FRAME / 2), 0, 0];
  }

  push(samples) {
    this.held = joined(this.held, samples);
    this.all += samples.length;
    return this.take(Math.max(0, Math.floor((this.held.length - FRAME + HOP) / (BLOCK * HOP))) * BLOCK);
  }

  finish() {
    const rest = this.all ? Math.floor(this.all / HOP) + 1 - this.done : 0;
    this.held = joined(this.held, new Float32Array(Math.max(0, (rest - 1) * HOP + FRAME - this.held.length)));
    return this.take(Math.max(0, rest));
  }

  take(count) {
    const { held, cut, spectra, across, bins } = this, levels = [];
    for (let n = 0; n < count; n += BLOCK) {
      for (let row = 0; row < BLOCK; row += 1) {
        cut.fill(0, row * FRAME, (row + 1) * FRAME);
        cut.set(held.subarray((n + row) * HOP, (n + row) * HOP + FRAME), row * FRAME);
      }
      this.matrices.product(cut, FRAME, this.fourier, spectra, across, BLOCK);
      for (let row = 0; row < Math.min(BLOCK, count - n); row += 1) {
        const power = total(bins, (k) => spectra[row * across + k] ** 2) * this.scale;
        levels.push(Math.max(10 * Math.log10(power + 1e-12), FLOOR_DB));
      }
    }
    this.held = held.slice(count * HOP);
    this.done += count;
    return levels;
  }
}

export function joined(a, b) {
  const both = new Float32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/** Numbers at one rate to another that is at most as high: averaged with a triangle two of the new steps wide. */
export class Averages {
  constructor(rate, fps) {
    Object.assign(this, { rate, fps, half: rate / fps, reach: Math.ceil(rate / fps), held: [], base: 0, frame: 0 });
  }

  push(values) {
    this.held.push(...values);
    if (!this.held.length) return [];
    const out = this.take(false), needed = Math.floor((this.frame / this.fps) * this.rate) - this.reach;
    const drop = Math.min(Math.max(0, needed - this.base), this.held.length - 1);
    this.held.splice(0, drop);
    this.base += drop;
    return out;
  }

  finish() {
    return this.held.length ? this.take(true) : [];
  }

  take(final) {
    const { held, base, half, reach } = this, top = base + held.length - (final ? 1 : half), out = [];
    const last = Math.floor((top / this.rate) * this.fps + 1e-9) + Number(final);
    for (; this.frame <= last; this.frame += 1) {
      const at = (this.frame / this.fps) * this.rate, nearest = Math.floor(at);
      let sum = 0, weights = 0;
      for (let k = nearest - reach + 1; k <= nearest + reach; k += 1) {
        const weight = Math.max(0, 1 - Math.abs(k - at) / half);
        sum += weight * held[Math.max(0, Math.min(held.length - 1, k - base))];
        weights += weight;
      }
      out.push(sum / weights);
    }
    return out;
  }
}

/** Judges rows with two rows of look-ahead: 0 where nobody speaks, up to 1 where somebody does. */
export class Gate {
  constructor(rate, pause, silence) {
    Object.assign(this, { rate, silenceHold: Math.round(silence * rate), pauseHold: Math.round(Math.max(pause, silence) * rate) });
    this.early = Math.max(1, Math.round(EARLY_SECONDS * rate));
    Object.assign(this, { rows: [], voice: -Infinity, floor: Infinity, open: 0, hold: 0 });
  }

  push(levels) {
    for (const level of levels) this.rows.push(this.follow(level));
    return this.take(this.rows.length - this.early);
  }

  finish() {
    return this.take(this.rows.length);
  }

  follow(level) {
    if (level > SILENCE_DB) this.floor = Math.min(level, this.floor + FLOOR_RISES / this.rate);
    const sunk = Math.max(this.voice - VOICE_FORGETS / this.rate, this.floor + VOICE_ABOVE);
    this.voice = Math.max(level, Math.min(this.voice, sunk));
    const { voice, floor } = this, span = voice - floor;
    let threshold = Math.max(SILENCE_DB, voice - BELOW_VOICE);
    if (span > CLEAR_RANGE) threshold = Math.max(threshold, floor + ABOVE_FLOOR);
    return { speech: level > threshold && span > STEADY_RANGE, silence: level <= Math.max(SILENCE_DB, voice - SILENCE_BELOW) };
  }

  take(count) {
    const gates = [];
    for (let i = 0; i < count; i += 1) {
      gates.push(this.step(this.rows.slice(i, i + this.early + 1).some((row) => row.speech), this.rows[i].silence));
    }
    this.rows.splice(0, gates.length);
    return gates;
  }

  step(speech, silence) {
    if (speech) {
      [this.open, this.hold] = [Math.min(1, this.open + 1 / this.early), this.pauseHold];
      return this.open;
    }
    if (silence) this.hold = Math.min(this.hold, this.silenceHold);
    if (this.hold > 0) this.hold -= 1;
    else this.open = Math.max(0, this.open - 1 / (RELEASE_SECONDS * this.rate));
    return this.open;
  }
}
