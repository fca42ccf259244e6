// The viewpoint: turned around the head, stopped softly where the avatar does not look right any more.

const SOFTNESS = 0.25, BEYOND = 1 + SOFTNESS;
const ZOOM = [1, 3]; // what lies outside the frame is not stored

/** A factor on the way to the border that stops it softly there; see `slowed` in avatar/infer/view_cone.py. */
function slowed(asked) {
  if (asked <= 1 - SOFTNESS) return 1;
  return (asked >= BEYOND ? 1 : 1 - (BEYOND - asked) ** 2 / (4 * SOFTNESS)) / asked;
}

export class View {
  constructor({ camera, pivot, limits }) {
    Object.assign(this, { camera, pivot, limits });
    this.reset();
  }

  reset() {
    [this.asked, this.zoom] = [[0, 0], 1];
  }

  /** How far what is asked for is from the centre: 1 on the border. */
  get ratio() {
    const [azimuth, elevation] = this.asked, { left, right, up, down } = this.limits;
    return Math.hypot(azimuth / (azimuth > 0 ? right : left), elevation / (elevation > 0 ? up : down));
  }

  /** Azimuth and elevation that are shown, degrees. */
  get shown() {
    const share = slowed(this.ratio);
    return this.asked.map((angle) => angle * share);
  }

  turn(azimuth, elevation) {
    this.set(this.asked[0] + azimuth, this.asked[1] + elevation);
  }

  /** Asks for a view. More than the softness beyond the border is not kept: dragging back would feel stuck. */
  set(azimuth, elevation, zoom = this.zoom) {
    this.asked = [azimuth, elevation];
    const share = Math.min(1, BEYOND / Math.max(this.ratio, 1e-6));
    this.asked = this.asked.map((angle) => angle * share);
    this.zoom = Math.min(ZOOM[1], Math.max(ZOOM[0], zoom));
  }

  /** The pixel of the point that views turn around, which a zoom leaves in its place. */
  place(width, height) {
    const { camera, pivot: [x, y, z] } = this, scale = width / camera.width;
    return [camera.cx * scale + (x / z) * camera.focal * scale, (camera.cy * height) / camera.height + (y / z) * camera.focal * scale];
  }

  /** The camera for an image of some width: rotation and translation from the world, and intrinsics in pixels. */
  at(width, height, [azimuth, elevation] = this.shown) {
    const { camera, pivot } = this, scale = width / camera.width;
    const [a, e] = [azimuth, elevation].map((angle) => (angle * Math.PI) / 180);
    const [sa, ca, se, ce] = [Math.sin(a), Math.cos(a), Math.sin(e), Math.cos(e)];
    const rotation = [ca, 0, sa, se * sa, ce, -se * ca, -ce * sa, se, ce * ca];
    const translation = [0, 1, 2].map((i) => pivot[i] - [0, 1, 2].reduce((sum, k) => sum + rotation[3 * i + k] * pivot[k], 0));
    const [x, y] = this.place(width, height);
    return {
      view: rotation, translation, width, height, focal: camera.focal * scale * this.zoom,
      cx: x + this.zoom * (camera.cx * scale - x), cy: y + this.zoom * ((camera.cy * height) / camera.height - y),
      // Never less than in the images of the training, or gaps would open in enlarged ones.
      eps2d: camera.eps2d * Math.max(1, camera.enlarged * scale) ** 2,
    };
  }
}
