// The WebSocket door: encoded images for WebCodecs and plain audio for a worklet, on the time line of the audio.

import { socketUrl } from "./place.js";
import { Player } from "./player.js";
import { MicrophoneReader } from "./microphone.js";

const HEADER = 24, AUDIO = 1, IMAGE = 2, KEY = 1, BEFORE = 4, VOID = 8;
const FIRST_WORD_MS = 10000;

export async function connectSocket(canvas, handlers) {
  if (!("VideoDecoder" in window)) {
    throw new Error(window.isSecureContext
      ? "This browser cannot decode video by itself (WebCodecs). Use a current Chrome, Edge, Firefox or Safari."
      : "Without https, browsers do not decode video here. Open this page by https, or on the server's own machine.");
  }
  const socket = new WebSocket(socketUrl());
  socket.binaryType = "arraybuffer";
  const player = new Player(canvas);
  let reader = null, goodbye = "", closed = false, clock = 0, sent = [];
  const send = (words) => { if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(words)); };
  const close = () => { closed = true; reader?.stop(); player.close(); socket.close(); };

  function take(words) {
    if (words.type === "hello") player.configure(words);
    if (words.type === "goodbye") goodbye = words.message;
    if (words.type === "pong") clock = words.server - (words.at + performance.timeOrigin + performance.now()) / 2;
    handlers.message(words);
  }
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") return take(JSON.parse(data));
    const view = new DataView(data);
    const kind = view.getUint8(0), flags = view.getUint8(1), pts = view.getFloat64(8, true);
    if (kind === AUDIO) player.audio(pts, new Int16Array(data.slice(HEADER)), Boolean(flags & BEFORE), Boolean(flags & VOID));
    if (kind === IMAGE) player.image(pts, view.getFloat64(16, true), Boolean(flags & KEY), new Uint8Array(data, HEADER));
  };
  await new Promise((done, failed) => {
    const timer = setTimeout(() => failed(new Error("The server does not answer.")), FIRST_WORD_MS);
    socket.addEventListener("message", () => { clearTimeout(timer); done(); }, { once: true });
    socket.onclose = () => { clearTimeout(timer); failed(new Error(goodbye || "The server did not let us in.")); };
  }).catch((error) => { close(); throw error; });
  socket.onclose = () => { if (!closed) handlers.lost(goodbye || "The connection was lost."); };
  await player.first();
  const timer = setInterval(() => {
    if (closed) return clearInterval(timer);
    send({ type: "ping", at: performance.timeOrigin + performance.now() });
  }, 2000);
  send({ type: "ping", at: performance.timeOrigin + performance.now() });
  return {
    door: "WebSocket", send, close,
    microphone: async (stream) => {
      reader?.stop();
      reader = stream ? await MicrophoneReader.open(stream, (samples) => socket.send(samples.buffer)) : null;
    },
    listen: () => player.listen(),
    interrupted: () => player.flush(),
    stats: async () => player.stats(clock),
  };
}
