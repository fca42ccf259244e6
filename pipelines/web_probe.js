// What `python -m pipelines.web_check` does in a page of a web folder.

window.webCheck = {
  /** Puts the avatar into the corner of an empty page, `size` pixels across, and nothing over it. */
  async open(size, clip, renderer) {
    document.querySelector("avatar-player")?.remove();
    document.body.innerHTML = "";
    const player = document.createElement("avatar-player");
    Object.assign(player.style, { position: "fixed", left: 0, top: 0, width: `${size}px` });
    for (const [name, value] of Object.entries({ src: ".", size, clip, renderer })) if (value) player.setAttribute(name, value);
    document.body.append(player);
    const look = document.createElement("style");
    look.textContent = ".stage { border-radius: 0 !important } .mark, .start { display: none !important }";
    player.shadowRoot.append(look);
    await new Promise((done, fail) => {
      player.addEventListener("ready", done);
      player.addEventListener("error", (event) => fail(event.detail));
    });
    await player.ui.image.decode();
    this.player = player;
    const { manifest } = player.engine;
    return { gaussians: manifest.gaussians, modes: player.engine.motion.modes, moved: player.engine.gaussians.moved };
  },

  /** Shows a frame from a view, and waits until the browser has it. */
  async show(frame, azimuth, elevation, controls = {}) {
    const { engine } = this.player;
    for (const [name, value] of Object.entries(controls)) engine.set(name, value);
    engine.view.set(azimuth, elevation);
    engine.seek((frame + 0.5) / engine.manifest.fps);
    engine.dirty = { face: true, view: true };
    engine.step();
    this.wait();
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return { frame: engine.frame, view: engine.view.shown };
  },

  wait() {
    this.player.engine.painter.wait();
  },

  /** Draws frames one after the other, as fast as it goes; `share` of the Gaussians, for avatars that have fewer. */
  async speed(count, share) {
    const { engine } = this.player, { gaussians, motion } = engine, began = performance.now();
    const change = gaussians.change;
    if (share < 1) {
      const whole = { moved: gaussians.moved, weights: gaussians.weights };
      gaussians.change = function some(coefficients) {
        const all = this.moved;
        this.moved = Math.floor(all * share);
        change.call(this, coefficients);
        this.moved = all;
        for (let i = 0; i < this.count; i += 1) if ((i % 100) / 100 >= share) this.shown[i] = 0;
      };
      Object.assign(gaussians, whole);
    }
    let script = 0;
    for (let n = 0; n < count; n += 1) {
      const from = performance.now();
      engine.dirty = { face: true, view: true };
      engine.draw(Math.floor((n * motion.frames) / count));
      script += performance.now() - from;
      this.wait();
      await new Promise((done) => setTimeout(done));
    }
    gaussians.change = change;
    return { milliseconds: (performance.now() - began) / count, script: script / count };
  },

  /** Plays, and notes of each image when it was, where the audio was, its frame, and how long drawing took. */
  async play(seconds) {
    const { engine } = this.player, rows = [], draw = engine.draw, began = performance.now();
    engine.draw = function noted(frame) {
      const before = engine.clock.seconds, now = (performance.now() - began) / 1000;
      draw.call(engine, frame);
      rows.push([now, before, frame, (performance.now() - began) / 1000 - now]);
    };
    engine.seek(0);
    await this.player.play();
    while (performance.now() - began < 1000 * seconds && engine.clock.playing) await new Promise(requestAnimationFrame);
    this.player.pause();
    engine.draw = draw;
    return rows;
  },

  /** The first seconds of an audio file as the browser decodes it, 16 kHz, whole numbers of 16 bits. */
  async audio(file, seconds) {
    const context = new OfflineAudioContext(1, 16000 * seconds, 16000);
    const buffer = await context.decodeAudioData(await (await fetch(file)).arrayBuffer());
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    source.start();
    const samples = (await context.startRendering()).getChannelData(0);
    return { seconds: buffer.duration, samples: Array.from(samples, (value) => Math.round(value * 32767)) };
  },
};
