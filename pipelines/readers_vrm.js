// What `python -m pipelines.readers_check` does in a page with three-vrm.

import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { VRMLoaderPlugin } from "@pixiv/three-vrm";
import { VRMAnimationLoaderPlugin, VRMLookAtQuaternionProxy, createVRMAnimationClip } from "@pixiv/three-vrm-animation";

const SIZE = 512;

function scene(vrm) {
  const shown = new THREE.Scene(), light = new THREE.DirectionalLight(0xffffff, 2);
  shown.background = new THREE.Color(0x223344);
  light.position.set(1, 1, 2);
  shown.add(vrm.scene, light, new THREE.AmbientLight(0xffffff, 1));
  return shown;
}

window.readers = {
  /** Plays an animation on a model: what is shown of two frames, and the values of all. */
  async play(model, animation, shots) {
    const loader = new GLTFLoader();
    loader.register((parser) => new VRMLoaderPlugin(parser));
    loader.register((parser) => new VRMAnimationLoaderPlugin(parser));
    const { vrm } = (await loader.loadAsync(model)).userData;
    const [track] = (await loader.loadAsync(animation)).userData.vrmAnimations;
    const proxy = new VRMLookAtQuaternionProxy(vrm.lookAt);
    proxy.name = "lookAtQuaternionProxy";
    vrm.scene.add(proxy);
    const clip = createVRMAnimationClip(track, vrm), mixer = new THREE.AnimationMixer(vrm.scene), action = mixer.clipAction(clip);
    action.setLoop(THREE.LoopOnce);
    action.clampWhenFinished = true;
    action.play();
    const times = clip.tracks[0].times, names = Object.keys(vrm.expressionManager.expressionMap), frames = [];
    const renderer = new THREE.WebGLRenderer({ preserveDrawingBuffer: true }), shown = scene(vrm);
    const camera = new THREE.PerspectiveCamera(25, 1, 0.1, 10);
    camera.position.set(0, 1.6, 0.8);
    camera.lookAt(0, 1.6, 0);
    renderer.setPixelRatio(1);
    renderer.setSize(SIZE * shots.length, SIZE);
    renderer.setScissorTest(true);
    for (const [index, time] of times.entries()) {
      mixer.setTime(time);
      vrm.update(0);
      const front = new THREE.Vector3(0, 0, 1);
      for (const bone of ["head", "neck"]) front.applyQuaternion(vrm.humanoid.getNormalizedBoneNode(bone).quaternion);
      const expressions = Object.fromEntries(names.map((name) => [name, vrm.expressionManager.getValue(name)]));
      frames.push({ expressions, front: front.toArray(), yaw: vrm.lookAt.yaw, pitch: vrm.lookAt.pitch });
      const shot = shots.indexOf(index);
      if (shot < 0) continue;
      renderer.setViewport(SIZE * shot, 0, SIZE, SIZE);
      renderer.setScissor(SIZE * shot, 0, SIZE, SIZE);
      renderer.render(shown, camera);
    }
    return { frames, shown: renderer.domElement.toDataURL("image/png") };
  },
};
