// What the step `speech` of `python -m pipelines.web_check` does in a page of a web folder, beside web_probe.js.

window.speechCheck = {
  bytes: (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer,

  /** Speaks a file without letting it be heard; gives its frames of lips and coefficients, and when it began to play. */
  async speak(base64) {
    const { player } = window.webCheck, { engine } = player, began = performance.now();
    let played = 0;
    player.addEventListener("play", () => { played ||= performance.now() - began; player.pause(); });
    await player.speak(this.bytes(base64), "spoken.wav");
    player.pause();
    const { motion } = engine, numbers = (rows) => Array.from(rows, (row) => Array.from(row));
    return {
      began: played, all: performance.now() - began, lips: numbers(motion.rows),
      coefficients: numbers(motion.rows.map((_, frame) => motion.at(frame).coefficients)),
    };
  },

  /** Hears samples that were spoken, as fast as it goes, and draws nothing. */
  async hear(base64) {
    const voice = await window.webCheck.player.engine.voice(), sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(this.bytes(base64));
    const samples = sound.getChannelData(0), id = voice.utterances += 1, began = performance.now();
    for (let from = 0; from < samples.length; from += 8000) await voice.hear(id, samples.slice(from, from + 8000), 16000, from + 8000 >= samples.length);
    return { seconds: samples.length / 16000, milliseconds: performance.now() - began };
  },

  /** Speaks along with the microphone: of each image when it was, and which frame; and the lips. */
  async listen(seconds) {
    const { player } = window.webCheck, { engine } = player, rows = [], draw = engine.draw;
    await player.listen();
    const { clock, motion } = engine;
    engine.draw = function noted(frame) {
      draw.call(engine, frame);
      rows.push([clock.heard, frame / motion.fps]);
    };
    while (clock.playing && clock.heard < seconds) await new Promise(requestAnimationFrame);
    const answer = { rows, slow: !clock.playing, behind: clock.delay, frames: motion.frames, heard: clock.heard, rate: clock.context.sampleRate, lips: motion.rows.map((row) => Array.from(row)) };
    engine.draw = draw;
    await player.stop();
    return answer;
  },
};
