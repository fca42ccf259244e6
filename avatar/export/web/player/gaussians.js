// The Gaussians: read, changed by a frame's coefficients, moved as head and torso, projected and sorted.
// The arithmetic is that of `avatar.methods.gaussian.playback` and `avatar.native`.

const ATTRIBUTES = 10, WORDS = 8; // per Gaussian: changes, and 32-bit words for the shader
const NEAR = 0.01, ALPHA_MIN = 1 / 255, FAR_AWAY = 1e9, DEPTHS = 1 << 16;

export class Gaussians {
  constructor(arrays, skinning) {
    const { position, scale, color, opacity, weight, rotation, mode, gain } = arrays;
    const count = opacity.data.length;
    [this.count, this.moved, this.modes] = [count, gain.data.length, mode.shape[0]];
    this.skinning = skinning;
    this.weights = weight.data;
    this.rest = new Float32Array(ATTRIBUTES * count);
    const [low, high] = [arrays.position_range.data.subarray(0, 3), arrays.position_range.data.subarray(3)];
    const levels = (from, attribute, lowest, highest, most) => {
      for (let i = 0; i < count; i += 1) this.rest[attribute * count + i] = lowest + (from[i] / most) * (highest - lowest);
    };
    for (let k = 0; k < 3; k += 1) {
      const row = (array) => array.data.subarray(k * count, (k + 1) * count);
      levels(row(position), k, low[k], high[k], 65535);
      levels(row(scale), 3 + k, ...arrays.scale_range.data, 255);
      levels(row(color), 7 + k, ...arrays.color_range.data, 255);
    }
    for (let i = 0; i < count; i += 1) {
      const share = (opacity.data[i] + 0.5) / 256;
      this.rest[6 * count + i] = Math.log(share / (1 - share));
    }
    this.now = this.rest.slice();
    this.sizes = new Float32Array(3 * count); // of those that do not move, once and for all
    for (let i = 0; i < 3 * count; i += 1) this.sizes[i] = Math.exp(this.rest[3 * count + i]);
    this.shown = new Float32Array(count);
    for (let i = 0; i < count; i += 1) this.shown[i] = (opacity.data[i] + 0.5) / 256;
    this.quaternions = unitQuaternions(rotation.data, count);
    this.turns = rotations(this.quaternions, count);
    this.inverse = Float32Array.from(gain.data, (value) => 2 ** ((128 - value) / 16));
    this.planes = usedPlanes(mode.data, arrays.mode_step.data, this.modes, this.moved);
    this.words = new ArrayBuffer(4 * WORDS * count);
    [this.floats, this.integers] = [new Float32Array(this.words), new Uint32Array(this.words)];
    this.depths = new Float32Array(count);
    this.keys = new Uint16Array(count);
    this.drawn = new Uint32Array(count);
    this.buckets = new Uint32Array(DEPTHS + 1);
  }

  /** What a frame's coefficients [M] change of the Gaussians that move. */
  change(coefficients) {
    const { count, moved, inverse, rest, now } = this;
    const sum = new Float32Array(moved);
    for (let attribute = 0; attribute < ATTRIBUTES; attribute += 1) {
      sum.fill(0);
      addPlanes(sum, this.planes[attribute], coefficients);
      const from = attribute * count;
      for (let i = 0; i < moved; i += 1) now[from + i] = rest[from + i] + sum[i] * inverse[i];
    }
    for (let k = 0; k < 3; k += 1) {
      for (let i = k * count; i < k * count + moved; i += 1) this.sizes[i] = Math.exp(now[3 * count + i]);
    }
    for (let i = 0; i < moved; i += 1) this.shown[i] = 1 / (1 + Math.exp(-now[6 * count + i]));
  }

  /**
   * Projects everything and sorts it back to front.
   * @param {{head: number[], torso: number[], qHead: number[], qTorso: number[], warp: Float32Array}} pose
   *   Rigid motions [3, 4] from canonical to camera axes, their quaternions, and the torso's warp.
   * @param {{view: number[], focal: number, cx: number, cy: number, width: number, height: number, eps2d: number}} camera
   *   `view` is the rotation [3, 3] from the world to the camera.
   * @param {Uint32Array} sorted Where the words of those that are to be drawn go.
   * @returns {number} How many they are.
   */
  project(pose, camera, sorted) {
    const { count, now, sizes, turns, weights, floats, integers, depths, shown } = this;
    const [X, Y, Z, R, G, B] = [0, 1, 2, 7, 8, 9].map((k) => k * count);
    const { focal, cx, cy, width, height, eps2d } = camera;
    const lowX = (-cx - 0.15 * width) / focal, highX = (width - cx + 0.15 * width) / focal;
    const lowY = (-cy - 0.15 * height) / focal, highY = (height - cy + 0.15 * height) / focal;
    const [h, t] = [pose.head, pose.torso];
    const spinHead = spin(pose.qHead, camera.view), spinTorso = spin(pose.qTorso, camera.view);
    const warp = new Warp(this.skinning, pose.warp);
    let drawn = 0, nearest = Infinity, farthest = 0;
    for (let i = 0; i < count; i += 1) {
      const opacity = shown[i];
      if (!(opacity > ALPHA_MIN)) continue;
      const px = now[X + i], py = now[Y + i], pz = now[Z + i], w = weights[i] / 255;
      let x = 0, y = 0, z = 0, m = spinHead;
      if (w > 0) {
        x = w * (h[0] * px + h[1] * py + h[2] * pz + h[3]);
        y = w * (h[4] * px + h[5] * py + h[6] * pz + h[7]);
        z = w * (h[8] * px + h[9] * py + h[10] * pz + h[11]);
      }
      if (w < 1) {
        const v = 1 - w;
        warp.at(px, py, pz);
        const qx = px + warp.x, qy = py + warp.y;
        x += v * (t[0] * qx + t[1] * qy + t[2] * pz + t[3]);
        y += v * (t[4] * qx + t[5] * qy + t[6] * pz + t[7]);
        z += v * (t[8] * qx + t[9] * qy + t[10] * pz + t[11]);
        m = w > 0 ? spin(between(pose.qTorso, pose.qHead, w), camera.view) : spinTorso;
      }
      if (!(z >= NEAR)) continue;
      const inverse = 1 / z, gain = focal * inverse;
      const rayX = Math.max(lowX, Math.min(highX, x * inverse)), rayY = Math.max(lowY, Math.min(highY, y * inverse));
      let xx = eps2d, xy = 0, yy = eps2d;
      for (let k = 0; k < 3; k += 1) { // the axes of the Gaussian, seen
        const a = turns[9 * i + k], b = turns[9 * i + 3 + k], c = turns[9 * i + 6 + k], size = sizes[k * count + i] * gain;
        const az = m[6] * a + m[7] * b + m[8] * c;
        const u = (m[0] * a + m[1] * b + m[2] * c - rayX * az) * size;
        const v = (m[3] * a + m[4] * b + m[5] * c - rayY * az) * size;
        xx += u * u;
        xy += u * v;
        yy += v * v;
      }
      const determinant = xx * yy - xy * xy, middle = 0.5 * (xx + yy);
      const reach = 3 * Math.sqrt(middle + Math.sqrt(Math.max(0, middle * middle - determinant)));
      const u = gain * x + cx, v = gain * y + cy;
      if (!(determinant > 0 && reach < FAR_AWAY)) continue;
      if (u + reach <= 0 || u - reach >= width || v + reach <= 0 || v - reach >= height) continue;
      const l11 = Math.sqrt(xx), l21 = xy / l11, at = WORDS * drawn;
      floats[at] = u;
      floats[at + 1] = v;
      floats[at + 2] = l11; // Cholesky factor of the covariance: its columns span the quadrilateral
      floats[at + 3] = l21;
      floats[at + 4] = Math.sqrt(determinant) / l11;
      integers[at + 5] = pair(now[R + i], now[G + i]);
      integers[at + 6] = pair(now[B + i], opacity);
      depths[drawn] = z;
      if (z < nearest) nearest = z;
      if (z > farthest) farthest = z;
      drawn += 1;
    }
    this.sort(sorted, drawn, nearest, farthest);
    return drawn;
  }

  /** Counting sort by depth, the farthest first; equal ones in the reverse of their order. */
  sort(sorted, drawn, nearest, farthest) {
    const { keys, depths, buckets, integers } = this;
    const factor = (DEPTHS - 1) / Math.max(farthest - nearest, 1e-6);
    buckets.fill(0);
    for (let i = 0; i < drawn; i += 1) {
      const key = DEPTHS - 1 - ((depths[i] - nearest) * factor | 0);
      keys[i] = key;
      buckets[key + 1] += 1;
    }
    for (let k = 0; k < DEPTHS; k += 1) buckets[k + 1] += buckets[k];
    for (let i = drawn - 1; i >= 0; i -= 1) {
      const to = WORDS * buckets[keys[i]], from = WORDS * i;
      buckets[keys[i]] += 1;
      for (let k = 0; k < WORDS - 1; k += 1) sorted[to + k] = integers[from + k];
    }
  }
}

/** Two numbers of -0.5 to 1.5 as sixteen bits each. */
function pair(low, high) {
  const a = Math.max(0, Math.min(65535, (low + 0.5) * 32767.5 + 0.5)) | 0;
  const b = Math.max(0, Math.min(65535, (high + 0.5) * 32767.5 + 0.5)) | 0;
  return (a | (b << 16)) >>> 0;
}

/** Unit quaternions wxyz, one after the other, of stored ones i8 [4, N]. */
function unitQuaternions(stored, count) {
  const found = new Float32Array(4 * count);
  for (let i = 0; i < count; i += 1) found.set(unit([0, 1, 2, 3].map((k) => stored[k * count + i])), 4 * i);
  return found;
}

/** Rotation matrices of unit quaternions: row-major, nine numbers each. */
function rotations(quaternions, count) {
  const turns = new Float32Array(9 * count);
  for (let i = 0; i < count; i += 1) turns.set(matrix(quaternions.subarray(4 * i, 4 * i + 4)), 9 * i);
  return turns;
}

const unit = (quaternion) => { const n = Math.hypot(...quaternion); return quaternion.map((x) => (n ? x / n : 0)); };

/** Rotation matrix [3, 3] of a quaternion wxyz of any length. */
export function matrix([a, b, c, d]) {
  const n = 1 / Math.hypot(a, b, c, d) || 0, w = a * n, x = b * n, y = c * n, z = d * n;
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
  ];
}

const between = (a, b, w) => a.map((value, k) => value + w * (b[k] - value));

function spin(quaternion, view) {
  const r = matrix(quaternion), out = new Array(9);
  for (let i = 0; i < 3; i += 1) {
    for (let k = 0; k < 3; k += 1) out[3 * i + k] = view[3 * i] * r[k] + view[3 * i + 1] * r[3 + k] + view[3 * i + 2] * r[6 + k];
  }
  return out;
}

/** The planes [K] of each attribute that are not all zero, with the mode that they belong to and their step. */
function usedPlanes(data, steps, modes, moved) {
  const used = Array.from({ length: ATTRIBUTES }, () => []);
  for (let mode = 0; mode < modes; mode += 1) {
    for (let attribute = 0; attribute < ATTRIBUTES; attribute += 1) {
      const at = mode * ATTRIBUTES + attribute, plane = data.subarray(at * moved, (at + 1) * moved);
      if (plane.some(Boolean)) used[attribute].push({ mode, step: steps[at], plane });
    }
  }
  return used;
}

/** Adds planes times their coefficients, four at a time: the sums are then read and written a quarter as often. */
function addPlanes(sum, planes, coefficients) {
  const length = sum.length;
  for (let n = 0; n < planes.length; n += 4) {
    const at = (k) => planes[Math.min(n + k, planes.length - 1)];
    const factor = (k) => (n + k < planes.length ? coefficients[at(k).mode] * at(k).step : 0);
    const [a, b, c, d] = [0, 1, 2, 3].map((k) => at(k).plane), [p, q, r, s] = [0, 1, 2, 3].map(factor);
    for (let i = 0; i < length; i += 1) sum[i] += p * a[i] + q * b[i] + r * c[i] + s * d[i];
  }
}

/** The torso's warp: displacements on a grid in the plane of the pivot, bilinear in between. */
class Warp {
  constructor({ torso_pivot: pivot, warp_box: [low, high], warp_grid: [rows, columns] }, nodes) {
    Object.assign(this, { pivot, low, rows, columns, nodes, x: 0, y: 0 });
    this.perX = (columns - 1) / (high[0] - low[0]);
    this.perY = (rows - 1) / (high[1] - low[1]);
  }

  at(px, py, pz) {
    const { pivot, low, rows, columns, nodes } = this, near = pivot[2] / Math.max(pz, 1e-3);
    const x = Math.max(0, Math.min(columns - 1, (px * near - pivot[0] - low[0]) * this.perX));
    const y = Math.max(0, Math.min(rows - 1, (py * near - pivot[1] - low[1]) * this.perY));
    const left = Math.min(columns - 2, x | 0), top = Math.min(rows - 2, y | 0), fx = x - left, fy = y - top;
    const a = 2 * (top * columns + left), b = a + 2 * columns;
    const mix = (k) => (1 - fy) * ((1 - fx) * nodes[a + k] + fx * nodes[a + 2 + k])
      + fy * ((1 - fx) * nodes[b + k] + fx * nodes[b + 2 + k]);
    this.x = mix(0) / near;
    this.y = mix(1) / near;
  }
}
