// The WebSocket door: encoded images for WebCodecs and plain audio for a worklet, on the time line of the audio.

import { socketUrl } from "./place.js";
import { Player, decoding } from "./player.js";
import { MicrophoneReader } from "./microphone.js";

const HEADER = 24, AUDIO = 1, IMAGE = 2, KEY = 1, BEFORE = 4, VOID = 8;
const FIRST_WORD_MS = 10000, FIRST_IMAGE_MS = 10000;
const PING_MS = 2000, MOST_UNHEARD = 8; // pings in a row without any message, after which the connection is lost

/** Connects; `replaces` is the name of a session that ends for it. */
export async function connectSocket(canvas, handlers, replaces = "") {
  if (!("VideoDecoder" in window)) {
    throw new Error(window.isSecureContext
      ? "This browser cannot decode video by itself (WebCodecs). Use a current Chrome, Edge, Firefox or Safari."
      : "Without https, browsers do not decode video here. Open this page by https, or on the server's own machine.");
  }
  const socket = new WebSocket(socketUrl({ codec: await wantedCodec(), replaces }));
  socket.binaryType = "arraybuffer";
  let reader = null, heard = null, goodbye = "", closed = false, clock = 0, unheard = 0, fail;
  const failed = new Promise((_, no) => { fail = (sentence) => no(new Error(sentence)); });
  failed.catch(() => {}); // also where nobody waits for it
  const player = new Player(canvas, (sentence) => fail(sentence), handlers.silent);
  const send = (words) => { if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(words)); };
  const close = () => { closed = true; reader?.stop(); player.close(); socket.close(); };

  function take(words) {
    if (words.type === "hello") player.configure(words);
    if (words.type === "goodbye") goodbye = words.message;
    if (words.type === "pong") clock = words.server - (words.at + performance.timeOrigin + performance.now()) / 2;
    handlers.message(words);
  }
  socket.onmessage = ({ data }) => {
    unheard = 0;
    if (typeof data === "string") return take(JSON.parse(data));
    const view = new DataView(data);
    const kind = view.getUint8(0), flags = view.getUint8(1), pts = view.getFloat64(8, true);
    if (kind === AUDIO) player.audio(pts, new Int16Array(data.slice(HEADER)), Boolean(flags & BEFORE), Boolean(flags & VOID));
    if (kind === IMAGE) player.image(pts, view.getFloat64(16, true), Boolean(flags & KEY), new Uint8Array(data, HEADER));
  };
  const word = new Promise((done) => socket.addEventListener("message", done, { once: true }));
  socket.onclose = () => { if (!closed) fail(goodbye || "The server did not let us in."); };
  try {
    await within(FIRST_WORD_MS, [word, failed], "The server does not answer.");
    socket.onclose = () => { if (!closed) fail(goodbye || "The connection was lost."); };
    await within(FIRST_IMAGE_MS, [player.first(), failed], "No image came through the WebSocket.");
  } catch (error) {
    close();
    throw error;
  }
  fail = (sentence) => { if (!closed) handlers.lost(sentence); };
  const timer = setInterval(() => {
    if (closed) return clearInterval(timer);
    unheard += 1; // pings and not seconds: a computer that slept reads what came only after this
    if (unheard > MOST_UNHEARD) return fail("The connection was lost.");
    send({ type: "ping", at: performance.timeOrigin + performance.now() });
  }, PING_MS);
  send({ type: "ping", at: performance.timeOrigin + performance.now() });
  return {
    door: "WebSocket", send, close,
    microphone: async (stream) => {
      reader?.stop();
      [reader, heard] = [null, stream];
      if (!stream) return;
      const opened = await MicrophoneReader.open(stream, (samples) => socket.send(samples.buffer));
      if (heard === stream && !closed) reader = opened; else opened.stop(); // it was taken back meanwhile
    },
    listen: () => player.listen(),
    interrupted: () => player.flush(),
    stats: async () => player.stats(clock),
  };
}

/** The codec to ask the server for: none where its own choice, H.264, will do. */
async function wantedCodec() {
  const can = async (codec) => (await VideoDecoder.isConfigSupported(decoding(codec)).catch(() => null))?.supported;
  if (await can("avc1.42E01F")) return "";
  if (await can("vp8")) return "vp8";
  throw new Error("This browser decodes neither H.264 nor VP8. Use a current Chrome, Edge, Firefox or Safari.");
}

/** What the first of several promises gives; an error in words where it takes too long. */
function within(milliseconds, promises, sentence) {
  let timer;
  const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error(sentence)), milliseconds); });
  return Promise.race([...promises, late]).finally(() => clearTimeout(timer));
}
