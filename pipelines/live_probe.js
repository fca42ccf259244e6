// Runs in the page before its own code: notes which frame is shown when, how loud it is, and what the connection says.
// The page itself is not changed. Times are milliseconds since 1970.

(() => {
  const CELLS = 26, MOST = 20000;
  const probe = window.liveProbe = {
    images: [], levels: [], voice: [], spoken: [], sync: [], peers: [], contexts: [], samples: [], keep: false, noUdp: false, unread: 0,
    tapped: false,
  };
  const limited = (list, one) => { list.push(one); if (list.length > MOST) list.splice(0, MOST / 4); };
  const epoch = (ms) => performance.timeOrigin + ms;

  const small = new OffscreenCanvas(4 * CELLS, 4);
  const pixels = small.getContext("2d", { willReadFrequently: true });
  const original = CanvasRenderingContext2D.prototype.drawImage;

  /** The number in the corner of a video frame or element; null where it cannot be read. */
  function number(image, width) {
    const cell = Math.max(8, Math.floor(width / 32));
    pixels.drawImage(image, 0, 0, CELLS * cell, cell, 0, 0, 4 * CELLS, 4);
    const { data } = pixels.getImageData(0, 0, 4 * CELLS, 4);
    const value = (n) => {
      let sum = 0;
      for (const y of [1, 2]) for (const x of [1, 2]) sum += data[4 * (4 * CELLS * y + 4 * n + x) + 1];
      return sum / 4;
    };
    const white = value(0), black = value(1);
    if (white - black < 60) return null;
    let found = 0;
    for (let n = 2; n < CELLS; n += 1) found = 2 * found + (value(n) > (white + black) / 2 ? 1 : 0);
    const check = found & 255, frame = found >> 8;
    return check === ((((frame ^ (frame >> 8) ^ 0xa5) & 0xffff) * 7) & 255) ? frame : null;
  }

  function note(image, width, shown, presented) {
    const frame = number(image, width);
    if (frame === null) { probe.unread += 1; return; }
    limited(probe.images, [frame, shown, presented]);
  }

  // The WebSocket door draws decoded frames into a canvas. They are on the screen when the next frame begins.
  CanvasRenderingContext2D.prototype.drawImage = function (image, ...rest) {
    original.call(this, image, ...rest);
    if (!(image instanceof VideoFrame) || this.canvas.id !== "canvas") return;
    const index = probe.images.length;
    note(image, image.displayWidth, epoch(performance.now()), null);
    const row = probe.images[index];
    if (row) requestAnimationFrame((at) => { row[1] = epoch(at); });
  };

  // The WebRTC door has a video element, which says for each image when it is on the screen.
  document.addEventListener("DOMContentLoaded", () => {
    const video = document.getElementById("video");
    if (!video) return;
    const shown = (now, data) => {
      note(video, data.width, epoch(data.expectedDisplayTime), data.presentedFrames);
      const audio = probe.receiver?.getSynchronizationSources()[0];
      if (audio) limited(probe.sync, [epoch(data.expectedDisplayTime), data.rtpTimestamp, audio.timestamp, audio.rtpTimestamp]);
      video.requestVideoFrameCallback(shown);
    };
    video.requestVideoFrameCallback(shown);
  });

  const Peer = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Peer {
    constructor(settings, ...rest) {
      super(probe.noUdp ? { ...settings, iceTransportPolicy: "relay" } : settings, ...rest); // and there is no relay
      probe.peers.push(this);
      this.addEventListener("track", ({ track, receiver }) => { if (track.kind === "audio") probe.receiver = receiver; });
    }
  };

  async function tap(context, source, heard = () => true) {
    await context.audioWorklet.addModule("live-check/live_tap.js");
    const node = new AudioWorkletNode(context, "live-tap", { numberOfOutputs: 0, processorOptions: { keep: probe.keep } });
    node.port.onmessage = ({ data }) => {
      const out = context.getOutputTimestamp();
      const at = epoch(out.performanceTime + 1000 * (data.at - out.contextTime));
      limited(probe.levels, [at, heard() ? 10 * Math.log10(data.power + 1e-12) : -120]);
      if (data.samples) probe.samples.push([at, context.sampleRate, data.samples]);
    };
    connect.call(source, node);
    probe.tapped = true;
  }

  // Where samples are kept, so are those of the microphone.
  const media = navigator.mediaDevices, open = media?.getUserMedia?.bind(media);
  if (open) media.getUserMedia = async (wanted) => {
    const stream = await open(wanted);
    if (probe.keep) {
      const context = new AudioContext({ latencyHint: "interactive" });
      await context.audioWorklet.addModule("live-check/live_tap.js");
      const node = new AudioWorkletNode(context, "live-tap", { numberOfOutputs: 0, processorOptions: { keep: true } });
      node.port.onmessage = ({ data }) => {
        const at = epoch(performance.now());
        limited(probe.voice, [at, 10 * Math.log10(data.power + 1e-12)]);
        probe.spoken.push([at, context.sampleRate, data.samples]);
      };
      connect.call(context.createMediaStreamSource(stream), node);
    }
    return stream;
  };

  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode) tap(this.context, this).catch(() => {});
    return connect.call(this, to, ...rest);
  };

  /** Listen to what the video element plays. The WebSocket door is listened to by itself. */
  probe.listen = async () => {
    const video = document.getElementById("video");
    if (window.avatarState?.door !== "WebRTC" || probe.tapped) return;
    const context = new AudioContext({ latencyHint: "interactive" });
    await tap(context, context.createMediaStreamSource(video.srcObject), () => !video.muted);
    await context.resume();
  };

  /** What the browser says of the connection, the page of itself, and the clocks of each other. */
  probe.stats = async () => {
    const found = { page: window.avatarState?.stats, at: epoch(performance.now()), ahead: epoch(performance.now()) - Date.now() };
    const peer = probe.peers.at(-1);
    for (const report of peer ? (await peer.getStats()).values() : []) {
      if (report.type === "inbound-rtp") found[report.kind] = report;
    }
    return found;
  };

  /** Take what was noted since the last time. */
  probe.take = () => {
    const found = { images: probe.images, levels: probe.levels, voice: probe.voice, sync: probe.sync, unread: probe.unread };
    probe.images = []; probe.levels = []; probe.voice = []; probe.sync = []; probe.unread = 0;
    return found;
  };

  /** The samples that were kept of what is heard, or of the microphone, as 16 bits in base64, and when they begin. */
  probe.sound = (kept = probe.samples) => {
    if (!kept.length) return null;
    const [[begin, rate]] = kept;
    const all = Int16Array.from(kept.flatMap((one) => [...one[2]]), (v) => 32767 * Math.max(-1, Math.min(1, v)));
    const bytes = new Uint8Array(all.buffer);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return { begin, rate, data: btoa(text) };
  };
})();
