// Collects 20 ms of a microphone, made 16 kHz, and hands them on as int16. The context has the browser's own rate,
// because Firefox connects no microphone to a context that was given another one.

const RATE = 16000, PIECE = 320, BLOCK = 128;
const TAPS = 24; // samples of the lower rate that the low pass reaches to each side: 1.5 ms
const KEPT = 0.92; // of the band that 16 kHz can hold; in the rest the low pass falls, so that nothing folds back

/** Samples of any rate to 16 kHz, by a sinc in a Hann window; how they are cut into blocks makes no difference. */
class Resampler {
  constructor(rate) {
    let [divisor, rest] = [rate, RATE];
    while (rest) [divisor, rest] = [rest, divisor % rest];
    // Sample n is at n * down / up: whole samples, and a phase of 1 / up of one.
    Object.assign(this, { down: rate / divisor, up: RATE / divisor, phase: 0, filters: [] });
    this.cut = rate > RATE ? (KEPT * RATE) / rate : 1;
    this.wide = Math.ceil(TAPS * Math.max(1, rate / RATE));
    this.held = new Float32Array(2 * this.wide + BLOCK);
    this.count = this.at = this.wide; // samples that are held, and at which the next one is: silence came before
  }

  /** The filter of a phase: what the held samples around it count. */
  filter(phase) {
    const { cut, wide, up } = this;
    const weights = Float32Array.from({ length: 2 * wide + 1 }, (_, n) => {
      const at = n - wide - phase / up, x = Math.PI * cut * at;
      return Math.abs(at) < wide ? (0.5 + 0.5 * Math.cos((Math.PI * at) / wide)) * (x ? Math.sin(x) / x : 1) : 0;
    });
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return weights.map((weight) => weight / sum);
  }

  push(samples, take) {
    const { held, wide, up, down } = this;
    held.set(samples, this.count);
    this.count += samples.length;
    while (this.at + wide < this.count) {
      const weights = this.filters[this.phase] ||= this.filter(this.phase);
      let sum = 0;
      for (let n = 0, from = this.at - wide; n < weights.length; n += 1) sum += weights[n] * held[from + n];
      take(sum);
      this.phase += down;
      this.at += Math.floor(this.phase / up);
      this.phase %= up;
    }
    const drop = this.at - wide;
    held.copyWithin(0, drop, this.count);
    this.count -= drop;
    this.at = wide;
  }
}

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Int16Array(PIECE);
    this.filled = 0;
    this.resampler = new Resampler(Math.round(sampleRate));
  }

  process([[input]]) {
    if (input) this.resampler.push(input, (value) => this.take(value));
    return true;
  }

  take(value) {
    this.samples[this.filled] = Math.max(-1, Math.min(1, value)) * 32767;
    this.filled += 1;
    if (this.filled < PIECE) return;
    this.port.postMessage(this.samples.slice());
    this.filled = 0;
  }
}

registerProcessor("microphone", Microphone);
