// Measures the loudness of what it hears, every 8 ms or so, and keeps the samples where it is asked to.

class Tap extends AudioWorkletProcessor {
  constructor(options) {
    super();
    this.blocks = Math.max(1, Math.round((0.008 * sampleRate) / 128));
    this.keep = Boolean(options.processorOptions?.keep);
    this.count = 0;
    this.power = 0;
    this.samples = [];
  }

  process([[input]]) {
    if (input) {
      for (const value of input) this.power += value * value;
      if (this.keep) this.samples.push(...input);
    } else if (this.keep) this.samples.push(...new Float32Array(128));
    this.count += 1;
    if (this.count === this.blocks) {
      this.port.postMessage({
        at: currentTime + 128 / sampleRate, power: this.power / (128 * this.count),
        samples: this.keep ? Float32Array.from(this.samples) : null,
      });
      this.count = this.power = 0;
      this.samples = [];
    }
    return true;
  }
}

registerProcessor("live-tap", Tap);
