// Runs in a worker of the page. Messages in: { arrays, about } once; then { id, samples, rate, final }, one utterance
// after the other. Each is answered by { id, frames, count, final }: lip channels, `count` frames one after the other.

const SPARE = 4e6; // numbers that are worked on, beside those that are stored
const TAPS = 24; // zero crossings of the low-pass filter that makes another rate 16 kHz

/** Samples of any rate to 16 kHz, by a sinc in a Hann window; how they are cut makes no difference. */
class Resampler {
  constructor(rate) {
    Object.assign(this, { step: rate / SAMPLE_RATE, held: new Float32Array(0), base: 0, made: 0 });
    this.wide = TAPS * Math.max(1, this.step);
  }

  push(samples, final = false) {
    if (this.step === 1) return samples;
    this.held = joined(this.held, final ? joined(samples, new Float32Array(Math.ceil(this.wide))) : samples);
    const { held, step, wide } = this, cut = 1 / Math.max(1, step), out = [], end = this.base + held.length - (final ? wide : 0);
    for (; ; this.made += 1) {
      const at = this.made * step, first = Math.ceil(at - wide), last = Math.floor(at + wide);
      if (final ? at >= end : last >= this.base + held.length) break;
      let sum = 0;
      for (let n = Math.max(first, this.base); n <= Math.min(last, this.base + held.length - 1); n += 1) {
        const x = (n - at) * cut, window = 0.5 + 0.5 * Math.cos((Math.PI * (n - at)) / wide);
        sum += held[n - this.base] * window * (x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1);
      }
      out.push(sum * cut);
    }
    const drop = Math.max(0, Math.min(held.length, Math.ceil(this.made * step - wide) - this.base));
    this.held = held.slice(drop);
    this.base += drop;
    return Float32Array.from(out);
  }
}

/** Answers the messages. */
class Speaker {
  constructor({ arrays, about }) {
    const numbers = Object.values(arrays).reduce((sum, { data }) => sum + data.length, SPARE);
    Object.assign(this, { speech: new Speech(new Matrices(numbers), arrays, about), channels: about.channels, id: null });
  }

  answer({ id, samples, rate, final }) {
    if (id !== this.id) {
      this.speech.begin();
      Object.assign(this, { id, resampler: new Resampler(rate) });
    }
    const heard = this.resampler.push(samples, final), rows = this.speech.push(heard);
    if (final) rows.push(...this.speech.finish());
    const frames = new Float32Array(rows.length * this.channels);
    rows.forEach((row, n) => frames.set(row, n * this.channels));
    return { id, frames, count: rows.length, final };
  }
}

let speaker = null;
if (typeof WorkerGlobalScope !== "undefined") {
  onmessage = ({ data }) => {
    try {
      if (data.arrays) speaker = new Speaker(data);
      else postMessage(speaker.answer(data));
    } catch (error) {
      postMessage({ id: data.id, error: error.message });
    }
  };
}
