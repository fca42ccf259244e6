// The talking avatar in a scene of PlayCanvas 2.23, as an entity with a gsplat component:
//
//   const avatar = await AvatarEntity.load(app);        // from the folder that this file lies in
//   app.root.addChild(avatar);
//   avatar.aim(camera, width, height);                  // an entity with a camera; or place any camera of yours
//   await avatar.performer.clock.play();                // it moves whenever the application updates
//
// Where you show it, say that it was made by a model.

import * as pc from "playcanvas";
import { Performer } from "./player.js";

const MARGIN = 0.05; // metres
const STREAMS = ["Center", "Scale", "Rotation", "Color"];
const PARTS = { Center: 3, Scale: 3, Rotation: 4, Color: 4 };
const read = (write) => STREAMS.map((name) => write(name, PARTS[name], PARTS[name] < 4 ? ".xyz" : "")).join("\n");
const READ = {
  readGLSL: read((name, size, part) => `vec${size} get${name}() { return load${name}()${part}; }`),
  readWGSL: read((name, size, part) => `fn get${name}() -> vec${size}f { return load${name}()${part}; }`),
};

/** Makes an application draw Gaussians as they were trained: filter, tails, and order. Before it loads any. */
export function asTrained(app) {
  const { gsplat } = app.scene, chunks = pc.ShaderChunks.get(app.graphicsDevice, "glsl");
  Object.assign(gsplat, { dataFormat: pc.GSPLATDATA_LARGE, radialSorting: false, alphaClip: 1 / 255, alphaClipForward: 1 / 255, minPixelSize: 0 });
  const reach = Math.sqrt(2 * Math.log(255)).toFixed(4); // standard deviations to alpha 1/255, where PlayCanvas has sqrt(8)
  chunks.set("gsplatCornerVS", chunks.get("gsplatCornerVS")
    .replaceAll("2.0 * min(sqrt(2.0 *", `${(reach / Math.SQRT2).toFixed(4)} * min(sqrt(2.0 *`).replaceAll("+ 0.3;", "+ 1.2;"));
  chunks.set("gsplatPS", chunks.get("gsplatPS")
    .replace("return (exp(x * -4.0) - EXP4) * INV_EXP4;", `return exp(x * -${((reach * reach) / 2).toFixed(5)});`));
}

/** A box around points, with room to move. It stays small, because depths are sorted in steps of its size. */
function box(centers) {
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  centers.forEach((value, i) => {
    low[i % 3] = Math.min(low[i % 3], value - MARGIN);
    high[i % 3] = Math.max(high[i % 3], value + MARGIN);
  });
  const bounds = new pc.BoundingBox();
  bounds.setMinMax(new pc.Vec3(...low), new pc.Vec3(...high));
  return bounds;
}

export class AvatarEntity extends pc.Entity {
  /** Loads a web folder, by default the one that this file lies in, and shows the first frame of a clip. */
  static async load(app, folder = new URL("./", import.meta.url).href, clip = null) {
    const performer = await Performer.load(folder);
    await performer.choose(clip || performer.manifest.clips[0].name);
    return new AvatarEntity(app, performer);
  }

  constructor(app, performer) {
    super(performer.manifest.name, app);
    const { graphicsDevice: device } = app, { count } = performer.gaussians;
    const format = new pc.GSplatFormat(device, STREAMS.map((name) => ({ name, format: pc.PIXELFORMAT_RGBA32F })), READ);
    this.container = new pc.GSplatContainer(device, count, format);
    this.performer = performer;
    this.show();
    this.container.aabb = box(performer.centers);
    this.addComponent("gsplat", { resource: this.container });
    this.gsplat.workBufferUpdate = pc.WORKBUFFER_UPDATE_ALWAYS;
    app.on("update", this.show, this);
    this.on("destroy", () => { app.off("update", this.show, this); performer.close(); this.container.destroy(); });
  }

  /** Puts an entity with a camera where the avatar was filmed from, turned by degrees. */
  aim(camera, width, height, azimuth = 0, elevation = 0, zoom = 1) {
    const { matrix, fov, center: [cx, cy] } = this.performer.camera(width, height, azimuth, elevation, zoom);
    const place = new pc.Mat4().mul2(this.getWorldTransform(), new pc.Mat4().set(matrix));
    camera.setPosition(place.getTranslation());
    camera.setRotation(new pc.Quat().setFromMat4(place));
    camera.camera.fov = fov;
    // The optical axis need not meet the middle of the image: a person is cropped out of a frame.
    const { nearClip: near, farClip: far } = camera.camera, step = (2 * near * Math.tan((fov * Math.PI) / 360)) / height;
    camera.camera.calculateProjection = (projection) => {
      projection.setFrustum(-cx * step, (width - cx) * step, -(height - cy) * step, cy * step, near, far);
    };
  }

  /** Brings the splats to where the clock is. */
  show() {
    const { performer, container } = this;
    if (!performer.update()) return;
    const { gaussians: { count }, centers, scales, rotations, colors, opacities } = performer;
    const [center, scale, rotation, color] = STREAMS.map((name) => container.getTexture(name).lock());
    for (let i = 0; i < count; i += 1) {
      for (let k = 0; k < 3; k += 1) {
        center[4 * i + k] = centers[3 * i + k];
        scale[4 * i + k] = scales[3 * i + k];
        color[4 * i + k] = colors[3 * i + k];
      }
      color[4 * i + 3] = opacities[i];
      for (let k = 0; k < 4; k += 1) rotation[4 * i + k] = rotations[4 * i + ((k + 3) & 3)]; // wxyz
    }
    for (const name of STREAMS) container.getTexture(name).unlock();
    container.centers.set(centers); // by which they are sorted
    container.update(count, true);
  }
}
