// From samples to the lips of one person; the arithmetic is that of `avatar.audio2motion.shared.SharedStream`.

const FEATURE_LIMIT = 6, SPREADS = 5;

/** y = x W for one row, W [rows, columns] stored row by row. */
function times(x, { data, shape: [rows, columns] }) {
  const y = new Float64Array(columns);
  for (let k = 0; k < rows; k += 1) {
    const value = x[k];
    if (value) for (let c = 0; c < columns; c += 1) y[c] += value * data[k * columns + c];
  }
  return y;
}

/** One utterance at a time: samples of 16 kHz in, frames of lip channels out. How the samples are cut makes no difference. */
export class Speech {
  /** @param about The manifest's `speech`; @param arrays Those of speech.bin. */
  constructor(matrices, arrays, about) {
    Object.assign(this, { arrays, about, channels: about.channels });
    this.encoder = new Encoder(matrices, arrays, about.encoder);
    this.energy = new Energy(matrices);
    this.begin();
  }

  /** Begins an utterance. */
  begin() {
    const { about } = this;
    this.encoder.begin();
    this.energy.begin();
    this.averages = new Averages(SAMPLE_RATE / HOP, about.encoder.rate);
    this.gate = new Gate(about.encoder.rate, about.pause, about.silence);
    this.waiting = new Float32Array(0); // samples since the last window
    this.all = 0;
    this.level = FLOOR_DB; // the last one
    this.features = []; // rows in the directions in which speech varies, from row `base` on
    [this.base, this.gates, this.judged, this.made] = [0, [], 0, 0];
    [this.rows, this.first, this.frame] = [[], 0, 0]; // rows of channels from row `first` on; the next frame
  }

  /** Takes samples; returns the frames that they complete. */
  push(samples) {
    this.all += samples.length;
    this.hear(samples);
    this.judge(this.averages.push(this.energy.push(samples)));
    return this.frames(this.lips(this.about.ahead));
  }

  /** Ends the audio; returns the remaining frames: in all as many as begin within it. */
  finish() {
    const { rate } = this.about.encoder, at = (fps) => Math.max(1, Math.ceil((this.all / SAMPLE_RATE) * fps - 1e-6)), count = at(rate);
    if (!this.all) return [];
    while (this.base + this.features.length < count) this.hear(new Float32Array(this.encoder.step));
    this.features.length = count - this.base; // what came after the end is of no use
    const levels = [...this.averages.push(this.energy.finish()), ...this.averages.finish()];
    this.judge(levels.slice(0, count - this.judged));
    while (this.judged < count) this.judge([this.level]); // the last one lasts
    this.gates.push(...this.gate.finish());
    return this.frames(this.lips(0), at(this.about.fps));
  }

  judge(levels) {
    if (!levels.length) return;
    this.gates.push(...this.gate.push(levels));
    this.judged += levels.length;
    this.level = levels[levels.length - 1];
  }

  hear(samples) {
    this.waiting = joined(this.waiting, samples);
    const { step } = this.encoder, { input_mean: mean, input_std: std, basis } = this.arrays;
    let from = 0;
    for (; from + step <= this.waiting.length; from += step) {
      for (const row of this.encoder.next(this.waiting.subarray(from, from + step))) {
        const unit = row.map((value, k) => Math.max(-FEATURE_LIMIT, Math.min(FEATURE_LIMIT, (value - mean.data[k]) / std.data[k])));
        this.features.push(times(unit, basis));
      }
    }
    this.waiting = this.waiting.slice(from);
  }

  /** Rows that are ready: channels, and how surely the lips are closed. */
  lips(ahead) {
    const { arrays, about, features, base } = this, rows = [];
    const stop = Math.min(base + features.length - ahead, this.made + this.gates.length);
    for (; this.made < stop; this.made += 1) {
      const inputs = [];
      for (let r = this.made - about.behind; r <= this.made + about.ahead; r += 1) {
        inputs.push(...features[Math.max(0, Math.min(features.length - 1, r - base))]);
      }
      inputs.push(1);
      const z = times(inputs, arrays.weights).map((value) => Math.max(-SPREADS, Math.min(SPREADS, value)));
      const mouth = times(z, arrays.matrix), more = arrays.correction && times(inputs, arrays.correction);
      const gate = this.gates.shift(), row = new Float64Array(this.channels + 1);
      for (let c = 0; c < this.channels; c += 1) {
        const rest = arrays.rest.data[c], middle = arrays.bias.data[c];
        const free = middle + arrays.gain.data[c] * (mouth[c] + (more ? more[c] : 0));
        row[c] = rest + gate * (free - rest);
      }
      if (arrays.closure) row[this.channels] = Math.max(0, Math.min(1, times(inputs, arrays.closure)[0]));
      rows.push(row);
    }
    const drop = Math.max(0, this.made - about.behind - base);
    features.splice(0, drop);
    this.base += drop;
    return rows;
  }

  /** Frames [n][channels] at the avatar's rate, lips brought together; without `count`, those that are ready. */
  frames(rows, count = null) {
    this.rows.push(...rows);
    const held = this.rows, { fps, encoder: { rate } } = this.about, out = [];
    if (!held.length) return out;
    const end = count ?? Math.floor(((this.first + held.length - 1) * fps) / rate + 1e-6) + 1;
    for (; this.frame < end; this.frame += 1) {
      const at = Math.min(this.frame * (rate / fps) - this.first, held.length - 1), low = Math.floor(at), part = at - low;
      const [a, b] = [held[low], held[Math.min(low + 1, held.length - 1)]];
      out.push(this.closed(a.map((value, c) => value * (1 - part) + b[c] * part)));
    }
    const drop = Math.max(0, Math.min(Math.floor((this.frame * rate) / fps) - this.first, held.length - 1));
    held.splice(0, drop);
    this.first += drop;
    return out;
  }

  closed(row) {
    const { channels, arrays: { opening, direction }, about: { gap } } = this;
    const excess = Math.max(0, total(channels, (c) => row[c] * opening.data[c]) - gap), probability = row[channels];
    return Float32Array.from({ length: channels }, (_, c) => row[c] - probability * excess * direction.data[c]);
  }
}
