// The talking avatar in a scene of three.js, as a SplatMesh of Spark 2:
//
//   const avatar = await AvatarMesh.load();             // from the folder that this file lies in
//   scene.add(new SparkRenderer({ renderer, ...AS_TRAINED }), avatar);
//   avatar.aim(camera, width, height);                  // as filmed, 30 degrees to the side, ... or any camera of yours
//   await avatar.play();                                // it moves whenever the scene is rendered
//
// Where you show it, say that it was made by a model.

import { Matrix4, Vector3 } from "three";
import { ExtSplats, SplatMesh, utils } from "@sparkjsdev/spark";
import { Performer } from "./player.js";

/** Options of SparkRenderer with which Gaussians look as they were trained. */
export const AS_TRAINED = {
  preBlurAmount: 0.3, blurAmount: 0, maxStdDev: Math.sqrt(2 * Math.log(255)), minAlpha: 1 / 255, sortRadial: false,
  accumExtSplats: true,
};

export class AvatarMesh extends SplatMesh {
  /** Loads a web folder, by default the one that this file lies in, and shows the first frame of a clip. */
  static async load(folder = new URL("./", import.meta.url).href, clip = null) {
    const performer = await Performer.load(folder);
    await performer.choose(clip || performer.manifest.clips[0].name);
    return new AvatarMesh(performer);
  }

  constructor(performer) {
    const { count } = performer.gaussians, { maxSplats } = utils.getTextureSize(count);
    const extArrays = [0, 1].map(() => new Uint32Array(4 * maxSplats));
    const extSplats = new ExtSplats({ extArrays, numSplats: count });
    super({ extSplats, editable: false, raycastable: false, onFrame: () => this.show() });
    this.performer = performer;
    this.show();
  }

  get clips() { return this.performer.manifest.clips.map(({ name, title }) => ({ name, title })); }
  get controlNames() { return this.performer.manifest.controls.map(({ name }) => name); }
  get paused() { return !this.performer.clock.playing; }
  get duration() { return this.performer.clock.duration; }
  get currentTime() { return this.performer.clock.seconds; }
  set currentTime(seconds) { this.performer.clock.seek(seconds); }
  set loop(value) { this.performer.clock.loop = value; }

  /** Plays; browsers let audio begin only after a click. */
  play() { return this.performer.clock.play(); }
  pause() { this.performer.clock.pause(); }
  choose(clip) { return this.performer.choose(clip); }

  /** Changes the expression: a name of `controlNames`, and a value of -1 to 1. */
  set(control, value) { this.performer.set(control, value); }

  /** Puts a PerspectiveCamera where the avatar was filmed from, turned by degrees; it stops softly at the view limits. */
  aim(camera, width, height, azimuth = 0, elevation = 0, zoom = 1) {
    const { matrix, fov, center: [cx, cy] } = this.performer.camera(width, height, azimuth, elevation, zoom);
    this.updateWorldMatrix(true, false);
    const place = new Matrix4().fromArray(matrix).premultiply(this.matrixWorld);
    place.decompose(camera.position, camera.quaternion, new Vector3());
    Object.assign(camera, { fov, aspect: width / height });
    camera.setViewOffset(width, height, width / 2 - cx, height / 2 - cy, width, height);
  }

  /** Brings the splats to where the clock is; Spark calls it before each image. */
  show() {
    const { performer } = this;
    if (!performer?.update()) return;
    const { gaussians: { count }, centers: c, scales: s, rotations: q, opacities, colors } = performer;
    for (let i = 0, k = 0; i < count; i += 1, k += 3) {
      utils.encodeExtSplat(
        this.extSplats.extArrays, i, c[k], c[k + 1], c[k + 2], s[k], s[k + 1], s[k + 2],
        q[4 * i], q[4 * i + 1], q[4 * i + 2], q[4 * i + 3], opacities[i], colors[k], colors[k + 1], colors[k + 2],
      );
    }
    for (const texture of this.extSplats.textures) texture.needsUpdate = true;
    this.updateVersion();
  }

  dispose() {
    this.performer.close();
    super.dispose();
  }
}
