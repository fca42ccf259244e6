// The avatar for other renderers: what a clip and its clock make of the Gaussians, in metres, y up, facing along z.

const METRES = 0.01;
const TO_UP = [METRES, 0, 0, 0, -METRES, 0, 0, 0, -METRES];

export class Performer extends EventTarget {
  /** Loads the folder at `base` (an absolute URL that ends with a slash). */
  static async load(base) {
    return new Performer(base, ...(await openFolder(base)));
  }

  constructor(base, manifest, arrays) {
    super();
    Object.assign(this, { base, manifest, clip: null, motion: null, frame: -1, values: {}, changed: true });
    this.gaussians = new Gaussians(arrays, manifest.skinning);
    this.view = new View(manifest);
    this.clock = new Clock(0);
    const { count } = this.gaussians;
    this.centers = new Float32Array(3 * count); // metres from the point that views turn around
    this.rotations = new Float32Array(4 * count); // quaternions xyzw
    this.scales = new Float32Array(3 * count); // metres
    this.colors = new Float32Array(3 * count);
    this.opacities = new Float32Array(count);
  }

  /** Chooses a clip by its name, and stands at its beginning; gives false where another was chosen meanwhile. */
  async choose(name) {
    const opened = await openWanted(this, name);
    if (!opened) return false;
    const { clip, motion, clock } = opened;
    for (const event of ["play", "pause", "ended"]) clock.addEventListener(event, () => this.dispatchEvent(new Event(event)));
    this.clock.close();
    Object.assign(this, { clip, motion, clock, frame: -1 });
    return true;
  }

  /** Sets a control; the face stays changed until it is set again. */
  set(control, value) {
    this.values[control] = value;
    this.changed = true;
  }

  /** Brings the arrays to where the clock is. Returns whether they have changed. */
  update() {
    const frame = this.motion ? frameAt(this.motion, this.clock.seconds) : -1;
    if (frame < 0 || (frame === this.frame && !this.changed)) return false;
    this.place(frame);
    return true;
  }

  /** Brings the arrays to a frame of the clip. */
  place(frame) {
    const { coefficients, pose, warp } = this.motion.at(frame), { gaussians, manifest } = this;
    addControls(coefficients, manifest.controls, this.values);
    gaussians.change(coefficients);
    const pivot = manifest.pivot, translation = [0, 1, 2].map((k) => -TO_UP[4 * k] * pivot[k]);
    this.pose({ ...rigidMotions(pose, manifest.skinning, { view: TO_UP, translation }), warp });
    Object.assign(this, { frame, changed: false });
  }

  /** Skinning as in `Gaussians.project`, without a camera. */
  pose({ head, torso, qHead, qTorso, warp: nodes }) {
    const { gaussians, centers, rotations, scales, colors, opacities } = this;
    const { count, now, sizes, shown, weights, quaternions } = gaussians, warp = new Warp(gaussians.skinning, nodes);
    const turned = (q) => product([0, 1, 0, 0], q), onlyHead = turned(qHead), onlyTorso = turned(qTorso);
    for (let i = 0; i < count; i += 1) {
      const x = now[i], y = now[count + i], z = now[2 * count + i], w = weights[i] / 255;
      warp.at(x, y, z);
      for (let k = 0; k < 3; k += 1) {
        const row = 4 * k;
        centers[3 * i + k] = w * (head[row] * x + head[row + 1] * y + head[row + 2] * z + head[row + 3])
          + (1 - w) * (torso[row] * (x + warp.x) + torso[row + 1] * (y + warp.y) + torso[row + 2] * z + torso[row + 3]);
        scales[3 * i + k] = METRES * sizes[k * count + i];
        colors[3 * i + k] = now[(7 + k) * count + i];
      }
      const turn = w === 1 ? onlyHead : w === 0 ? onlyTorso : turned(unit(between(qTorso, qHead, w)));
      rotations.set(rotated(turn, quaternions, 4 * i), 4 * i);
      opacities[i] = shown[i];
    }
  }

  /**
   * Where the filming camera is, turned by degrees; it stops softly at the view limits.
   * @returns {{matrix: number[], fov: number, center: number[]}} From camera axes (y up, looking along -z) to the
   *   world, column by column; degrees from bottom to top; and the principal point in pixels.
   */
  camera(width, height, azimuth = 0, elevation = 0, zoom = 1) {
    this.view.set(azimuth, elevation, zoom);
    const { view: r, translation: t, focal, cx, cy } = this.view.at(width, height), up = [1, -1, -1];
    const eye = [0, 1, 2].map((k) => -(r[k] * t[0] + r[3 + k] * t[1] + r[6 + k] * t[2]) - this.manifest.pivot[k]);
    const axes = [0, 1, 2].flatMap((k) => [...up.map((sign, i) => sign * up[k] * r[3 * k + i]), 0]);
    const matrix = [...axes, ...eye.map((x, k) => METRES * up[k] * x), 1];
    return { matrix, fov: (360 / Math.PI) * Math.atan(height / 2 / focal), center: [cx, cy] };
  }

  close() {
    this.closed = true;
    this.clock.close();
  }
}

/** Product xyzw of a quaternion wxyz and one out of many. */
function rotated([a, b, c, d], many, at) {
  const e = many[at], f = many[at + 1], g = many[at + 2], h = many[at + 3];
  return [a * f + b * e + c * h - d * g, a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e, a * e - b * f - c * g - d * h];
}
