// The page: connects by WebRTC, or by the WebSocket where no image comes that way, and wires the controls to it.

import { connectRtc } from "./rtc.js";
import { connectSocket } from "./socket.js";
import { Microphone } from "./microphone.js";
import { ask, wantedDoor } from "./place.js";
import { View } from "./view.js";

const get = (id) => document.getElementById(id);
const FACE = ["jaw", "smile", "blink", "yaw", "pitch", "roll"];
const CONTROLS = ["emotion", "strength", "gaze", "pose", "pose_scale", "lip_scale"];
const STATES = {
  idle: "Waiting", listening: "Listening", thinking: "Thinking …", speaking: "Speaking", interrupted: "Interrupted",
};
// What the microphone is for, by the buttons that turn it on: messages to the server, and words about it.
const USES = {
  talk: { type: "listen", notice: "Talk: the avatar answers when you pause. You can interrupt it." },
  attend: { type: "attend", notice: "The avatar listens to your microphone, and nods where you pause." },
  echo: { type: "echo", notice: "The avatar repeats what the microphone hears. Headphones keep it from hearing itself." },
};
const MOST_LOG = 60; // entries of the conversation
let connection = null, session = "", use = "", tries = 0;
const pageLoaded = performance.now();
// What tests and curious people read in the console.
const state = { door: "", frames: 0, segments: [], states: [], firstImageMs: null, stats: null, hello: null };
window.avatarState = state;

const view = new View(get("stage"), get("dial"), (words) => connection?.send(words));
const microphone = new Microphone({
  hand: async (stream) => connection?.microphone(stream),
  ended: () => { notice("The microphone is gone.", true); setMicrophone(""); },
  level: (level) => { get("level").value = level; },
});

function notice(sentence, wrong = false) {
  const line = document.createElement("p");
  line.textContent = sentence;
  line.className = wrong ? "wrong" : "";
  get("notices").replaceChildren(line);
}

function take(words) {
  if (words.type === "hello") {
    if (!state.hello) view.free = get("beyond").checked = Boolean(words.beyond); // later it is as the user left it
    session = words.session;
    state.hello = words;
    get("name").textContent = words.avatar;
    get("stage").style.aspectRatio = `${words.width} / ${words.height}`;
    fill("emotion", words.emotions);
    fill("pose", words.poses);
    view.allow(words.limits, words.measured);
    offerFace(words);
    get("speak").disabled = !words.text;
    for (const id of ["echo", "file"]) get(id).disabled = Boolean(words.speechless);
    get("attend").hidden = Boolean(words.hears);
    if (words.speechless) notice(words.speechless, true);
    get("text").disabled = !words.text && !words.agent;
    if (get("text").disabled) get("text").placeholder = "This server has no text to speech; send an audio file.";
    offerAgent(words);
    showState("idle");
    if (connection) sendShown();
  } else if (words.type === "state") {
    showState(words.state);
  } else if (words.type === "heard") {
    if (words.continues) remove(words.continues);
    write("You", words.text, words.segment);
  } else if (words.type === "answer") {
    write("Avatar", words.text, words.segment);
  } else if (words.type === "answer.done") {
    if (words.stopped) mark(words.segment);
  } else if (words.type === "agent.failed") {
    notice(words.message, true);
  } else if (words.type === "error" || words.type === "goodbye") {
    notice(words.message, true);
  } else if (words.type === "segment.failed") {
    notice(words.message, true);
  } else if (words.type === "interrupted") {
    connection?.interrupted(); // also where somebody else interrupted, or a turn did
    state.interrupted = words;
    if (words.played_ms) notice(`Stopped after ${(words.played_ms / 1000).toFixed(1)} s.`);
    else if (use !== "talk") notice("Nothing was being said.");
  } else if (words.type === "segment.queued") {
    notice("Preparing to speak …");
  } else if (words.type === "segment.started" && get("notices").textContent === "Preparing to speak …") {
    get("notices").replaceChildren(); // the state says the rest
  }
  if (words.segment && words.type !== "answer") state.segments.push(words);
}

/** Show sliders for the face where the server takes them: in `avatar view`. */
function offerFace(words) {
  get("face").hidden = !words.face;
  for (const id of words.face ? FACE : []) [get(id).min, get(id).max] = words.face[id];
}

/** Show what there is to do where an agent answers, and what it can. */
function offerAgent(words) {
  const asked = Boolean(words.agent);
  get("ask").hidden = get("conversation").hidden = !asked;
  get("talk").hidden = !words.hears;
  get("speak").classList.toggle("main", !asked);
  get("text_label").textContent = asked ? "Your question, or a text to say" : "Text to say";
  get("text").placeholder = asked ? "Type something; Ctrl+Enter asks it" : get("text").placeholder;
}

function showState(name) {
  get("state").hidden = false;
  get("state").className = name;
  get("state").textContent = STATES[name];
  state.states.push(name);
  if (state.states.length > 1000) state.states.shift();
}

/** Note that an answer was not said to its end. */
function mark(segment) {
  const entry = [...get("log").children].find((one) => one.dataset.id === `Avatar ${segment}`);
  if (entry) entry.firstElementChild.textContent = "Avatar, interrupted";
}

/** Take a turn, and the begin of its answer, out of the conversation: it went on after a pause, and is said anew. */
function remove(segment) {
  for (const one of [...get("log").children]) if (one.dataset.id.endsWith(` ${segment}`)) one.remove();
}

/** Add to the conversation; further pieces of one answer go to its entry. */
function write(who, text, segment) {
  const log = get("log"), id = `${who} ${segment}`;
  let entry = [...log.children].find((one) => one.dataset.id === id && who !== "You");
  if (!entry) {
    entry = document.createElement("li");
    entry.dataset.id = id;
    entry.className = who === "You" ? "you" : "";
    const name = document.createElement("b");
    name.textContent = who;
    entry.append(name, document.createElement("span"));
    log.append(entry);
    while (log.children.length > MOST_LOG) log.firstElementChild.remove();
  }
  entry.lastElementChild.textContent += text;
  get("conversation").scrollTop = log.scrollHeight;
}

function fill(id, names) {
  const list = get(id), chosen = list.value;
  while (list.options.length > 1) list.remove(1);
  for (const name of names) list.add(new Option(name, name));
  if (names.includes(chosen)) list.value = chosen; // a session before this one may have had it
}

async function connect() {
  const mine = tries += 1, overtaken = () => mine !== tries; // the browser kept the page while it connected
  session = "";
  get("again").hidden = true;
  get("waiting").hidden = false;
  get("waiting").firstElementChild.textContent = "Connecting …";
  const message = (words) => { if (!overtaken()) take(words); };
  let opened;
  try {
    opened = await open({ message, lost, silent: (yes) => { get("listen").hidden = !yes; } });
  } catch (error) {
    if (!overtaken()) lost(error.message);
    return;
  }
  if (overtaken()) return opened.close();
  connection = opened;
  state.door = connection.door;
  state.firstImageMs = performance.now() - pageLoaded;
  get("door").textContent = connection.door;
  const rtc = connection.door === "WebRTC";
  get("video").hidden = !rtc;
  get("canvas").hidden = rtc;
  get("waiting").hidden = true;
  get("listen").hidden = false;
  if (session) sendShown(); // hello came, as it mostly does
  if (navigator.userActivation?.hasBeenActive) listen();
}

async function open(handlers) {
  let replaces = ""; // the session at the other door, which still holds a place
  if (wantedDoor !== "websocket") {
    try {
      return await connectRtc(get("video"), handlers);
    } catch (error) {
      if (wantedDoor === "webrtc" || error.status) throw error; // the server said no: the other door would, too
      replaces = error.session;
      get("waiting").firstElementChild.textContent = "WebRTC does not get through; trying a WebSocket …";
    }
  }
  return connectSocket(get("canvas"), handlers, replaces);
}

function lost(sentence) {
  connection?.close();
  connection = null;
  state.door = "";
  setMicrophone("");
  for (const id of ["video", "canvas", "listen", "dial", "state"]) get(id).setAttribute("hidden", "");
  get("waiting").hidden = false;
  get("waiting").firstElementChild.textContent = "Not connected";
  get("door").textContent = "not connected";
  get("rate").textContent = get("latency").textContent = "";
  get("again").hidden = false;
  notice(sentence, true);
}

function comeBack() {
  lost("The connection was closed while you were elsewhere.");
  connect();
}

async function listen() {
  if (!connection || get("listen").hidden) return;
  try {
    await connection.listen();
    get("listen").hidden = true;
  } catch (error) {
    notice(error.message, true);
  }
}

async function say(event) {
  event?.preventDefault();
  const text = get("text").value.trim();
  if (!text) return notice("Type a text first.", true);
  if (!connection) return notice("Not connected.", true);
  const asked = !get("ask").hidden && event?.submitter !== get("speak");
  connection.send({ type: asked ? "ask" : "say", text, segment: crypto.randomUUID?.() || `${Math.random()}` });
  if (asked) get("text").value = "";
  get("notices").replaceChildren();
}

async function sendFile(file) {
  if (!file) return;
  if (!connection) return notice("Not connected.", true);
  const most = state.hello.file_bytes;
  if (file.size > most) return notice(`${file.name} has more than ${most >> 20} MB. Send it as mp3, m4a or opus.`, true);
  notice(`Sending ${file.name} …`);
  try {
    take(await ask(`api/sessions/${session}/audio`, { method: "POST", body: file }));
  } catch (error) {
    notice(`${file.name}: ${error.message}`, true);
  }
}

/** Open the microphone for one of `USES`, or close it. */
async function setMicrophone(wanted) {
  if (wanted === use) return;
  if (use) connection?.send({ type: USES[use].type, on: false });
  use = wanted;
  for (const id of Object.keys(USES)) get(id).setAttribute("aria-pressed", String(use === id));
  get("level").hidden = !use;
  if (!wanted) return microphone.close();
  try {
    if (!connection) throw new Error("Not connected.");
    if (!await microphone.open() || use !== wanted) return; // another click came meanwhile
    connection.send({ type: USES[wanted].type, on: true });
    notice(USES[wanted].notice);
  } catch (error) {
    setMicrophone("");
    notice(error.message, true);
  }
}

function interrupt() {
  connection?.interrupted(); // at once: the server's answer takes its way
  connection?.send({ type: "interrupt" });
}

function sendControls() {
  const value = Object.fromEntries(CONTROLS.map((id) => [id, get(id).value]));
  const gaze = value.gaze.includes(",") ? value.gaze.split(",").map(Number) : value.gaze || null;
  connection?.send({
    type: "controls", emotion: value.emotion, pose: value.pose, gaze, strength: Number(value.strength),
    pose_scale: Number(value.pose_scale), lip_scale: Number(value.lip_scale),
  });
}

function sendFace() {
  const values = Object.fromEntries(FACE.map((id) => [id, Number(get(id).value)]));
  view.free = get("beyond").checked;
  if (!view.free) view.turn(0, 0); // back to the limits
  connection?.send({ type: "face", ...values, beyond: view.free });
}

/** Tells a new session what the page shows: one before it may have been lost, or browsers remember it. */
function sendShown() {
  if (CONTROLS.some((id) => get(id).value !== (get(id).defaultValue ?? ""))) sendControls();
  if (state.hello.face) sendFace();
  if (view.moved) view.tell();
}

function reset() {
  for (const id of FACE) get(id).value = 0;
  view.reset();
  sendFace();
}

async function showStats() {
  const stats = await connection?.stats().catch(() => null);
  if (!stats) return;
  state.stats = stats;
  state.frames = stats.frames;
  (state.history ||= []).push(stats);
  if (state.history.length > 4000) state.history.shift();
  get("rate").textContent = `${stats.rate.toFixed(0)} frames/s`;
  get("latency").textContent = `${stats.latency.toFixed(0)} ms behind the server`;
  if (stats.audioDelay !== null) connection?.send({ type: "shown", audio_delay: Math.max(-10, Math.min(10, stats.audioDelay)) });
}

get("say").addEventListener("submit", say);
get("text").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) say(event); });
get("stop").addEventListener("click", interrupt);
for (const id of Object.keys(USES)) get(id).addEventListener("click", () => setMicrophone(use === id ? "" : id));
get("listen").addEventListener("click", listen);
get("again").addEventListener("click", connect);
get("file").addEventListener("change", (event) => { sendFile(event.target.files[0]); event.target.value = ""; });
for (const id of CONTROLS) get(id).addEventListener("input", sendControls);
for (const id of [...FACE, "beyond"]) get(id).addEventListener("input", sendFace);
get("reset").addEventListener("click", reset);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") interrupt(); });
for (const name of ["pointerdown", "keydown"]) document.addEventListener(name, listen);
document.addEventListener("dragover", (event) => { event.preventDefault(); get("drop").hidden = false; });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) get("drop").hidden = true; });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  get("drop").hidden = true;
  sendFile(event.dataTransfer.files[0]);
});
window.addEventListener("pagehide", () => connection?.close());
window.addEventListener("pageshow", (event) => { if (event.persisted) comeBack(); });
setInterval(showStats, 1000);
connect();
