// The front of Whisper's encoder over a short sliding window; the arithmetic is that of `avatar.audio.encoders.whisper`.
// Of the last layer only those rows are made that are read.

const SAMPLE_RATE = 16000, BANDS = 80, FRAME = 400, HOP = 160, BINS = FRAME / 2 + 1;
const ROWS_PER_SECOND = 50, FIRST = 0.01, HEAD = 64, EPSILON = 1e-5;
const GELU_STEPS = 512, GELU_END = 8; // beyond, it is 0 or the number itself

/** Adds up `count` numbers that a function gives. */
const total = (count, give) => {
  let sum = 0;
  for (let i = 0; i < count; i += 1) sum += give(i);
  return sum;
};

/** GELU at steps of 1 / 512: x times the normal distribution, whose density is summed by Simpson's rule. */
const GELU = (() => {
  const count = 2 * GELU_END * GELU_STEPS + 2, table = new Float32Array(count), density = (x) => Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
  const width = 1 / GELU_STEPS;
  let below = 0;
  for (let n = 0; n < count; n += 1) {
    const x = n * width - GELU_END;
    table[n] = x * below;
    below += (width / 6) * (density(x) + 4 * density(x + width / 2) + density(x + width));
  }
  return table;
})();

function gelu(data, from, to) {
  for (let i = from; i < to; i += 1) {
    const x = data[i];
    if (x <= -GELU_END) data[i] = 0;
    else if (x < GELU_END) {
      const at = (x + GELU_END) * GELU_STEPS, low = at | 0;
      data[i] = GELU[low] + (at - low) * (GELU[low + 1] - GELU[low]);
    }
  }
}

/** Rows of a Fourier transform of windowed samples: the packed matrix of cosines and sines of some bins. */
export function transform(matrices, size, first, last) {
  const count = last - first + 1, hann = (n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / FRAME);
  return matrices.packed(FRAME, 2 * count, (n, column) => {
    const angle = (2 * Math.PI * ((n * (first + (column % count))) % size)) / size;
    return hann(n) * (column < count ? Math.cos(angle) : Math.sin(angle));
  });
}

/** Triangles [201, 80] of unit area on Slaney's mel scale: linear up to 1 kHz, logarithmic above. */
function filters(matrices) {
  const step = Math.log(6.4) / 27, last = 15 + Math.log(SAMPLE_RATE / 2000) / step;
  const edges = Array.from({ length: BANDS + 2 }, (_, n) => {
    const mark = (n * last) / (BANDS + 1);
    return mark < 15 ? (mark * 200) / 3 : 1000 * Math.exp((mark - 15) * step);
  });
  return matrices.packed(Math.ceil(BINS / 4) * 4, BANDS, (bin, band) => {
    const [low, peak, high] = edges.slice(band, band + 3), frequency = (bin * SAMPLE_RATE) / FRAME;
    if (bin >= BINS) return 0;
    return (Math.max(0, Math.min((frequency - low) / (peak - low), (high - frequency) / (high - peak))) * 2) / (high - low);
  });
}

/** Decades of power in mel bands of a window that slides on by whole hops. */
class LogMel {
  constructor(matrices, frames) {
    Object.assign(this, { matrices, frames, fourier: transform(matrices, FRAME, 0, BINS - 1), filters: filters(matrices) });
    this.across = 2 * BINS + 6; // numbers to a row: whole panels of eight
    this.cut = matrices.room(FRAME * (frames + 4));
    this.spectra = matrices.room(this.across * (frames + 4));
    this.power = matrices.room(this.filters.depth * (frames + 4));
    this.bands = matrices.room(BANDS * (frames + 4));
    this.decades = new Float32Array(BANDS * frames);
  }

  /** Slides on by `shift` hops to a window of samples, and writes what the network sees [frames, bands]. */
  into(out, window, shift) {
    const { frames, decades } = this;
    decades.copyWithin(0, BANDS * Math.min(shift, frames));
    // The samples are mirrored at both ends, so that the frames there are new as well.
    const fresh = [0, 1];
    for (let t = Math.max(2, frames - 1 - shift); t < frames; t += 1) fresh.push(t);
    this.fill(window, fresh);
    let most = -Infinity;
    for (let i = 0; i < decades.length; i += 1) if (decades[i] > most) most = decades[i];
    for (let i = 0; i < decades.length; i += 1) out[i] = (Math.max(decades[i], most - 8) + 4) / 4;
  }

  fill(window, fresh) {
    const { matrices, cut, spectra, power, bands, decades, across } = this, width = this.filters.depth;
    fresh.forEach((t, row) => {
      for (let n = 0; n < FRAME; n += 1) {
        const at = t * HOP + n - FRAME / 2, last = window.length - 1;
        cut[row * FRAME + n] = window[at < 0 ? -at : at > last ? 2 * last - at : at];
      }
    });
    matrices.product(cut, FRAME, this.fourier, spectra, across, fresh.length);
    for (let row = 0; row < fresh.length; row += 1) {
      for (let bin = 0; bin < BINS; bin += 1) {
        power[row * width + bin] = spectra[row * across + bin] ** 2 + spectra[row * across + BINS + bin] ** 2;
      }
    }
    matrices.product(power, width, this.filters, bands, BANDS, fresh.length);
    fresh.forEach((t, row) => {
      for (let band = 0; band < BANDS; band += 1) decades[t * BANDS + band] = Math.log10(Math.max(bands[row * BANDS + band], 1e-10));
    });
  }
}

/** A stored tensor as numbers: whole ones have a scale for each row. */
function floats(arrays, name) {
  const { data, shape } = arrays[name], scale = arrays[`${name}:scale`]?.data;
  if (!scale) return Float32Array.from(data);
  const width = data.length / shape[0];
  return Float32Array.from(data, (value, i) => value * scale[(i / width) | 0]);
}

/** A layer's matrix and bias: y = x W^T + b. */
class Linear {
  constructor(matrices, arrays, name) {
    const weight = floats(arrays, `${name}.weight`), depth = weight.length / arrays[`${name}.weight`].shape[0];
    Object.assign(this, { matrices, bias: floats(arrays, `${name}.bias`), width: arrays[`${name}.weight`].shape[0] });
    const [outs, ins, taps = 1] = arrays[`${name}.weight`].shape; // of a convolution: tap by tap
    this.packed = matrices.packed(depth, outs, (k, out) => weight[(out * ins + (k % ins)) * taps + ((k / ins) | 0)]);
  }

  /** Writes x [rows, depth], `step` numbers to a row, times the matrix, plus the bias. */
  into(out, x, step, rows) {
    const { width, bias } = this;
    this.matrices.product(x, step, this.packed, out, width, rows);
    for (let row = 0, i = 0; row < rows; row += 1) for (let k = 0; k < width; k += 1, i += 1) out[i] += bias[k];
  }
}

class Norm {
  constructor(arrays, name) {
    Object.assign(this, { weight: floats(arrays, `${name}.weight`), bias: floats(arrays, `${name}.bias`) });
  }

  into(out, x, rows) {
    const { weight, bias } = this, width = weight.length;
    for (let row = 0; row < rows; row += 1) {
      const at = row * width, mean = total(width, (k) => x[at + k]) / width;
      const scale = 1 / Math.sqrt(total(width, (k) => (x[at + k] - mean) ** 2) / width + EPSILON);
      for (let k = 0; k < width; k += 1) out[at + k] = (x[at + k] - mean) * scale * weight[k] + bias[k];
    }
  }
}

/** Attention and feed-forward network with normalisation before either. */
class Layer {
  constructor(matrices, arrays, name, rows, width) {
    Object.assign(this, { matrices, rows, width });
    for (const part of ["project", "merge", "widen", "narrow"]) this[part] = new Linear(matrices, arrays, `${name}.${part}`);
    for (const part of ["norm", "norm2"]) this[part] = new Norm(arrays, `${name}.${part}`);
    const room = (count) => matrices.room(count * (rows + 4));
    [this.calm, this.parts, this.mixed, this.wide, this.back] = [room(width), room(3 * width), room(width), room(4 * width), room(width)];
    this.across = Math.ceil(rows / 8) * 8;
    this.scores = room(this.across);
    this.keys = matrices.packed(HEAD, rows, () => 0);
    this.values = matrices.packed(this.across, HEAD, () => 0);
  }

  /** Changes rows `first` and later of x [rows, width]; the others are only looked at. */
  change(x, first) {
    const { width, rows } = this, count = rows - first, from = first * width;
    this.norm.into(this.calm, x, rows);
    this.project.into(this.parts, this.calm, width, rows);
    for (let head = 0; head < width; head += HEAD) this.attend(head, first);
    this.merge.into(this.back, this.mixed.subarray(from), width, count);
    for (let i = 0; i < count * width; i += 1) x[from + i] += this.back[i];
    this.norm2.into(this.calm, x.subarray(from), count);
    this.widen.into(this.wide, this.calm, width, count);
    gelu(this.wide, 0, count * 4 * width);
    this.narrow.into(this.back, this.wide, 4 * width, count);
    for (let i = 0; i < count * width; i += 1) x[from + i] += this.back[i];
  }

  attend(head, first) {
    const { matrices, parts, width, rows, scores, keys, values, across, mixed } = this, step = 3 * width, count = rows - first;
    for (let row = 0; row < rows; row += 1) {
      const key = row * step + width + head, value = key + width;
      for (let k = 0; k < HEAD; k += 1) {
        keys.data[((row >> 3) * HEAD + k) * 8 + (row & 7)] = parts[key + k];
        values.data[((k >> 3) * across + row) * 8 + (k & 7)] = parts[value + k];
      }
    }
    matrices.product(parts.subarray(first * step + head), step, keys, scores, across, count);
    const scale = 1 / Math.sqrt(HEAD);
    for (let row = 0; row < count; row += 1) {
      const at = row * across;
      let most = -Infinity, sum = 0;
      for (let i = at; i < at + rows; i += 1) most = Math.max(most, scores[i]);
      for (let i = at; i < at + rows; i += 1) sum += scores[i] = Math.exp((scores[i] - most) * scale);
      for (let i = at; i < at + rows; i += 1) scores[i] /= sum;
    }
    matrices.product(scores, across, values, mixed.subarray(first * width + head), width, count);
  }
}

/** Rows k / 25 s of features, each from the first window whose end is late enough. */
export class Encoder {
  /** @param {{window: number, hop: number, ahead: number, rate: number}} about Seconds, and rows per second. */
  constructor(matrices, arrays, about) {
    Object.assign(this, { ...about, size: Math.round(about.window * SAMPLE_RATE), step: Math.round(about.hop * SAMPLE_RATE) });
    const frames = this.size / HOP, rows = frames / 2;
    this.width = arrays["conv1.bias"].shape[0];
    this.mel = new LogMel(matrices, frames);
    [this.conv1, this.conv2] = ["conv1", "conv2"].map((name) => new Linear(matrices, arrays, name));
    this.position = floats(arrays, "position");
    const layers = new Set(Object.keys(arrays).filter((name) => name.startsWith("layers.")).map((name) => name.split(".")[1])).size;
    this.layers = Array.from({ length: layers }, (_, n) => new Layer(matrices, arrays, `layers.${n}`, rows, this.width));
    this.seen = matrices.room(BANDS * (frames + 6)); // with a row of zeros on both sides, as the next
    this.once = matrices.room(this.width * (frames + 8));
    this.x = matrices.room(this.width * (rows + 4));
    Object.assign(this, { frames, rows, held: new Float32Array(this.size) });
    this.begin();
  }

  /** Begins a recording. */
  begin() {
    this.held.fill(0);
    this.mel.decades.fill(-10); // of silence
    [this.done, this.row] = [0, 0];
  }

  /** Slides on over the next `step` samples; returns rows [n][2 * width] of features. */
  next(samples) {
    this.held.copyWithin(0, this.step);
    this.held.set(samples, this.size - this.step);
    this.done += this.step;
    const end = this.done / SAMPLE_RATE, last = Math.floor((end - this.ahead) * this.rate + 1e-6);
    this.mel.into(this.seen.subarray(BANDS), this.held, this.step / HOP);
    const at = [];
    for (let row = this.row; row <= last; row += 1) {
      for (const part of [-0.5, 0.5]) {
        const time = row / this.rate + part / (2 * this.rate);
        at.push(Math.max(0, Math.min(this.rows - 1.001, (time - (end - this.window) - FIRST) * ROWS_PER_SECOND)));
      }
    }
    if (!at.length) return [];
    this.row = last + 1;
    this.encode(Math.floor(Math.min(...at)));
    const { x, width } = this, rows = Array.from({ length: at.length / 2 }, () => new Float32Array(2 * width));
    at.forEach((place, n) => {
      const low = Math.floor(place), part = place - low, out = rows[n >> 1];
      for (let k = 0; k < width; k += 1) out[(n & 1) * width + k] = x[low * width + k] * (1 - part) + x[(low + 1) * width + k] * part;
    });
    return rows;
  }

  /** Rows of the network from number `first` on, in `x`. */
  encode(first) {
    const { width, frames, rows, seen, once, x, position } = this, inside = once.subarray(width);
    this.conv1.into(inside, seen, BANDS, frames);
    gelu(inside, 0, frames * width);
    inside.fill(0, frames * width, (frames + 2) * width); // behind the end, where a product may have left something
    this.conv2.into(x, once, 2 * width, rows);
    gelu(x, 0, rows * width);
    for (let i = 0; i < rows * width; i += 1) x[i] += position[i];
    this.layers.forEach((layer, n) => layer.change(x, n === this.layers.length - 1 ? first : 0));
  }
}
