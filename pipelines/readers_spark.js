// What `python -m pipelines.readers_check` does in a page with three.js and Spark.

import * as THREE from "three";
import { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
import { AS_TRAINED, AvatarMesh } from "./web/three-spark.js";
import { Engine } from "./web/player.js";

const EMPTY = 20000; // characters of a picture that is black
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** A canvas before black, as PNG. */
export function picture(canvas) {
  const copy = new OffscreenCanvas(canvas.width, canvas.height), context = copy.getContext("2d");
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(canvas, 0, 0);
  const flat = document.createElement("canvas");
  Object.assign(flat, { width: copy.width, height: copy.height });
  flat.getContext("2d").drawImage(copy, 0, 0);
  return flat.toDataURL("image/png");
}

class Stage {
  constructor(size, matched) {
    this.renderer = new THREE.WebGLRenderer({ antialias: false, preserveDrawingBuffer: true });
    this.renderer.setPixelRatio(1);
    this.renderer.setSize(size, size);
    document.body.replaceChildren(this.renderer.domElement);
    this.scene = new THREE.Scene();
    this.scene.background = new THREE.Color(0, 0, 0);
    this.camera = new THREE.PerspectiveCamera(30, 1, 0.05, 100);
    this.scene.add(new SparkRenderer({ renderer: this.renderer, ...(matched ? AS_TRAINED : {}) }));
  }

  /** Draws until nothing changes any more: Spark sorts in another thread, and shows nothing until that has answered. */
  async draw() {
    let before = "";
    for (let n = 0, same = 0; n < 200 && same < 3; n += 1) {
      this.renderer.render(this.scene, this.camera);
      const now = picture(this.renderer.domElement);
      same = now === before && now.length > EMPTY ? same + 1 : 0;
      before = now;
      await pause(60);
    }
    return before;
  }

  close() {
    this.renderer.dispose();
    this.renderer.forceContextLoss();
  }
}

window.readers = {
  /** A file of Gaussians, from a camera: { size, fov, matrix }. */
  async still(url, { size, fov, matrix }, matched) {
    const stage = new Stage(size, matched), mesh = new SplatMesh({ url, extSplats: matched });
    await mesh.initialized;
    if (url.endsWith(".ply")) mesh.quaternion.set(1, 0, 0, 0); // such files are y down
    stage.scene.add(mesh);
    const { camera } = stage;
    new THREE.Matrix4().fromArray(matrix).decompose(camera.position, camera.quaternion, camera.scale);
    camera.fov = fov;
    camera.updateProjectionMatrix();
    const shown = await stage.draw();
    stage.close();
    return shown;
  },

  async open(size, matched) {
    const avatar = await AvatarMesh.load(), stage = new Stage(size, matched), canvas = document.createElement("canvas");
    Object.assign(canvas, { width: size, height: size });
    stage.scene.add(avatar);
    const engine = await Engine.load(canvas, new URL("./web/", location.href).href, "webgl");
    await engine.choose(avatar.performer.clip.name);
    this.state = { avatar, stage, engine, size };
    return { frames: avatar.performer.motion.frames, limits: avatar.performer.manifest.limits };
  },

  /** One frame from one side, here and by the page's own player, and the milliseconds that moving the splats took. */
  async frame(index, azimuth, elevation) {
    const { avatar, stage, engine, size } = this.state;
    engine.view.set(azimuth, elevation);
    engine.dirty = { face: true, view: true };
    engine.draw(index);
    const ours = picture(engine.canvas);
    avatar.currentTime = (index + 0.5) / avatar.performer.motion.fps;
    avatar.performer.changed = true;
    const began = performance.now();
    avatar.show();
    const milliseconds = performance.now() - began;
    avatar.aim(stage.camera, size, size, azimuth, elevation);
    return { ours, theirs: await stage.draw(), milliseconds };
  },

  /** A mesh in glTF from three sides. */
  async mesh(url, size) {
    const { GLTFLoader } = await import("three/addons/loaders/GLTFLoader.js");
    const renderer = new THREE.WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
    renderer.setPixelRatio(1);
    renderer.setSize(3 * size, size);
    const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(24, 1, 0.05, 10);
    scene.background = new THREE.Color(0x778899);
    scene.add((await new GLTFLoader().loadAsync(url)).scene);
    renderer.setScissorTest(true);
    [[0, 0], [50, 5], [-90, 0]].forEach(([azimuth, elevation], n) => {
      const [a, e] = [azimuth, elevation].map((angle) => (angle * Math.PI) / 180);
      camera.position.set(0.75 * Math.sin(a) * Math.cos(e), 0.75 * Math.sin(e) - 0.01, 0.75 * Math.cos(a) * Math.cos(e));
      camera.lookAt(0, -0.01, -0.03);
      renderer.setViewport(size * n, 0, size, size);
      renderer.setScissor(size * n, 0, size, size);
      renderer.render(scene, camera);
    });
    const shown = picture(renderer.domElement);
    renderer.dispose();
    return shown;
  },
};
