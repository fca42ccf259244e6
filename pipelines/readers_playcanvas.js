// What `python -m pipelines.readers_check` does in a page with PlayCanvas.

import * as pc from "playcanvas";
import { AvatarEntity, asTrained } from "./web/playcanvas.js";
import { Engine } from "./web/player.js";

const SAME_FRAMES = 3, MOST_FRAMES = 2000;
const EMPTY = 20000; // characters of a picture that is black

function black(canvas) {
  const flat = document.createElement("canvas"), context = flat.getContext("2d");
  Object.assign(flat, { width: canvas.width, height: canvas.height });
  context.fillRect(0, 0, flat.width, flat.height);
  context.drawImage(canvas, 0, 0);
  return flat.toDataURL("image/png");
}

function stage(size, matched) {
  const canvas = document.createElement("canvas");
  document.body.replaceChildren(canvas);
  const app = new pc.Application(canvas, { graphicsDeviceOptions: { antialias: false, preserveDrawingBuffer: true, alpha: false } });
  app.setCanvasFillMode(pc.FILLMODE_NONE, size, size);
  app.setCanvasResolution(pc.RESOLUTION_FIXED, size, size);
  if (matched) asTrained(app);
  const camera = new pc.Entity("camera");
  camera.addComponent("camera", { clearColor: new pc.Color(0, 0, 0, 1), nearClip: 0.05, farClip: 100, toneMapping: pc.TONEMAP_LINEAR });
  app.root.addChild(camera);
  app.start();
  return { app, canvas, camera };
}

/** The picture once nothing changes any more: the sorter, which is a thread, shows nothing until it has answered. */
async function settled({ app, canvas }) {
  let before = "", same = 0, left = MOST_FRAMES;
  return new Promise((done) => {
    const look = () => {
      const now = black(canvas);
      same = now === before && now.length > EMPTY ? same + 1 : 0;
      before = now;
      if (same < SAME_FRAMES && (left -= 1)) return;
      app.off("frameend", look);
      done(now);
    };
    app.on("frameend", look);
  });
}

window.readers = {
  /** A file of Gaussians, from a camera: { size, fov, matrix }. */
  async still(url, { size, fov, matrix }, matched) {
    const here = stage(size, matched), { app, camera } = here, place = new pc.Mat4().set(matrix), glb = url.endsWith(".glb");
    camera.setPosition(place.getTranslation());
    camera.setRotation(new pc.Quat().setFromMat4(place));
    camera.camera.fov = fov;
    const asset = new pc.Asset("file", glb ? "container" : "gsplat", { url });
    app.assets.add(asset);
    await new Promise((done, fail) => { asset.ready(done); asset.on("error", fail); app.assets.load(asset); });
    const shown = glb ? asset.resource.instantiateRenderEntity() : new pc.Entity();
    if (!glb) {
      shown.addComponent("gsplat", { asset });
      shown.setLocalEulerAngles(180, 0, 0);
    }
    app.root.addChild(shown);
    const result = await settled(here);
    app.destroy();
    return result;
  },

  async open(size, matched) {
    const here = stage(size, matched), avatar = await AvatarEntity.load(here.app), canvas = document.createElement("canvas");
    Object.assign(canvas, { width: size, height: size });
    here.app.root.addChild(avatar);
    const engine = await Engine.load(canvas, new URL("./web/", location.href).href, "webgl");
    await engine.choose(avatar.performer.clip.name);
    this.state = { ...here, avatar, engine, size };
    return { frames: avatar.performer.motion.frames, limits: avatar.performer.manifest.limits };
  },

  /** One frame from one side, here and by the page's own player, and the milliseconds that moving the splats took. */
  async frame(index, azimuth, elevation) {
    const { avatar, camera, engine, size } = this.state, { performer: one } = avatar;
    engine.view.set(azimuth, elevation);
    engine.dirty = { face: true, view: true };
    engine.draw(index);
    const ours = black(engine.canvas);
    one.clock.seek((index + 0.5) / one.motion.fps);
    one.changed = true;
    const began = performance.now();
    avatar.show();
    const milliseconds = performance.now() - began;
    avatar.aim(camera, size, size, azimuth, elevation);
    return { ours, theirs: await settled(this.state), milliseconds };
  },
};
