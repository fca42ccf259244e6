// The page: consent, camera and checks, the prompter, and the end. The server knows what was recorded; a reload goes on.

import { grab, openCamera, startRecording, watchLevel } from "./camera.js";
import { ask } from "./place.js";

const $ = (id) => document.getElementById(id);
const LEADS = {
  first: "Read this aloud, at your usual pace. It also shows whether audio and video are in step.",
  sentence: "Read this aloud, as if you told it to a friend.",
  topic: "Talk freely, for about a minute. Name nobody, and say nothing private.",
  last: "Read the first text once more: it shows whether audio and video stayed in step.",
};
const SIGNS = { open: "", waiting: "being tracked …", good: "good", refused: "" };
const FRAME_MS = 1500, POLL_MS = 700, MOST_MS = 120000, LEAST_MS = 1500;

let state = null, stream = null, current = "first", last = "", stop = null, since = 0, timer = 0, polling = 0, drawn = "", listed = "", kind = "sentence";
let unwatch = null, leaving = false, opening = false, sending = false, finishing = false;
const findings = new Map();
window.recordState = () => ({ state, current, recording: Boolean(stop), findings: [...findings.values()] });

function notice(text, wrong = true) {
  const line = document.createElement("p");
  line.textContent = text;
  line.className = wrong ? "wrong" : "";
  $("notices").replaceChildren(...(text ? [line] : []));
}

async function request(path, options) {
  try {
    const answer = await ask(path, options);
    if (answer.prompts) { state = answer; draw(); }
    return answer;
  } catch (error) {
    if (!leaving) notice(error.message);
    throw error;
  }
}

const post = (path, body, type) => request(path, { method: "POST", body, headers: { "Content-Type": type } });
const quietly = (work) => work.catch(() => {}); // the notice says it already

// --- what is shown ---

function draw() {
  if (leaving) return;
  for (const [id, shown] of [["consent", !state.agreed], ["studio", state.agreed && !state.result], ["done", Boolean(state.result)]]) {
    $(id).hidden = !shown;
  }
  if (!state.agreed) return;
  const prompt = find(current), ready = stream && !(current !== "first" && find("first").state !== "good");
  $("lead").textContent = LEADS[prompt.kind];
  $("text").textContent = prompt.kind === "topic" ? `Talk about ${prompt.text}.` : prompt.text;
  const busy = sending || finishing || (current === "first" && prompt.state === "waiting");
  $("record").disabled = !stop && (!ready || busy); // what was begun can always be ended
  $("record").firstChild.textContent = stop ? "Stop " : "Record ";
  $("repeat").disabled = !last || Boolean(stop);
  $("skip").disabled = !ready || Boolean(stop) || current === "first";
  $("finish").disabled = state.seconds < state.least || Boolean(stop) || sending || finishing;
  $("progress").value = state.seconds;
  $("seconds").textContent = `${Math.floor(state.seconds)} s can be used; ${state.least} are needed, 180 make a good gift.`;
  drawList();
  if (state.result) drawResult(state.result);
}

function drawResult(result) {
  $("written").textContent = `${Math.round(result.seconds)} s of tracks of ${result.takes} recordings are in ${result.folder}.`;
  $("notes").replaceChildren(...[result.sync.text, ...result.left_out.map((one) => `Left out: ${one}`)].map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

function drawList() {
  const rows = state.prompts.filter((one) => one.kind === kind || one.kind === "first" || one.kind === "last");
  const shown = JSON.stringify([rows, current, Boolean(stop)]);
  if (shown === listed) return; // while something is tracked it is asked for again and again: a button keeps its focus
  listed = shown;
  $("prompts").replaceChildren(...rows.map((one) => {
    const item = document.createElement("li"), button = document.createElement("button"), sign = document.createElement("small");
    item.className = one.state;
    sign.textContent = one.message || SIGNS[one.state];
    button.type = "button";
    button.disabled = Boolean(stop);
    button.append(one.text, sign);
    button.setAttribute("aria-current", String(one.name === current));
    button.addEventListener("click", () => { choose(one.name); $("record").focus(); });
    item.append(button);
    return item;
  }));
}

function drawFindings() {
  const shown = JSON.stringify([...findings.values()]);
  if (shown === drawn) return; // the microphone is measured ten times a second
  drawn = shown;
  $("findings").replaceChildren(...[...findings.values()].map((one) => {
    const item = document.createElement("li");
    item.className = one.state;
    item.textContent = one.text;
    return item;
  }));
}

const find = (name) => state.prompts.find((one) => one.name === name);

function choose(name) {
  current = name;
  draw();
  document.querySelector("#prompts [aria-current=true]")?.scrollIntoView({ block: "nearest" });
}

/** Goes to the next text that is still to be said. */
function advance() {
  if (find("first").state === "refused") return choose("first"); // without it nothing else is recorded
  const left = state.prompts.filter((one) => one.kind === kind && (one.state === "open" || one.state === "refused"));
  const at = state.prompts.findIndex((one) => one.name === current);
  const next = left.find((one) => state.prompts.indexOf(one) > at) || left.find((one) => one.name !== current);
  choose(next ? next.name : "last");
}

// --- consent ---

function drawStatement() {
  $("statement").replaceChildren(...state.statement.flatMap(([heading, text]) => {
    const title = document.createElement("h3"), words = document.createElement("p");
    title.textContent = heading;
    words.textContent = text;
    return [title, words];
  }));
  $("agreement").replaceChildren(...state.agreement.map((text) => {
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.required = true;
    label.append(box, text);
    return label;
  }));
}

$("agree").addEventListener("submit", async (event) => {
  event.preventDefault();
  const agreed = [...document.querySelectorAll("#agreement input")].every((box) => box.checked);
  await quietly(post("api/consent", JSON.stringify({ name: $("name").value, agreed }), "application/json").then(() => {
    notice("");
    return open();
  }));
});

async function leave() {
  leaving = true; // what is under way, such as the writing of tracks, has nothing to say any more
  if (stop) await stop();
  close();
  try {
    await ask("api/decline", { method: "POST" });
  } catch (error) {
    leaving = false;
    notice(error.message);
    draw();
    return;
  }
  for (const id of ["consent", "studio"]) $(id).hidden = true;
  notice("Nothing is kept, and nothing was written. You can close this page; the program has ended.", false);
}

$("decline").addEventListener("click", leave);
$("leave").addEventListener("click", leave);

// --- camera ---

async function open() {
  if (opening || stream) return; // the browser may still be asking
  opening = true;
  let given;
  try {
    given = await openCamera();
  } catch (error) {
    if (!leaving) notice(error.message);
    return;
  } finally {
    opening = false;
  }
  stream = given;
  if (leaving) return close();
  notice("");
  $("video").srcObject = stream;
  $("open").hidden = true;
  for (const track of stream.getTracks()) {
    track.addEventListener("ended", () => {
      notice("Camera or microphone was taken away. Plug it in, and open them again.");
      close();
      draw();
    });
  }
  unwatch = watchLevel(stream, (level, finding) => {
    $("level").value = level;
    findings.set("level", finding);
    drawFindings();
  });
  draw();
  look(stream);
}

function close() {
  for (const track of stream?.getTracks() || []) track.stop();
  unwatch?.();
  stream = stop = unwatch = null;
  clearTimeout(timer);
  $("stage").classList.remove("recording");
  $("badge").hidden = true;
  $("open").hidden = false;
}

async function look(seen) {
  if (stream !== seen) return; // it was closed; another one that was opened is looked at by itself
  if (!stop && !document.hidden && $("video").videoWidth && !state.waiting) {
    try {
      const answer = await ask("api/frame", { method: "POST", body: await grab($("video")) });
      if (stream !== seen) return;
      for (const one of ["face", "light"]) findings.delete(one);
      for (const one of answer.findings) findings.set(one.name, one);
      drawFindings();
    } catch (error) {
      if (stream === seen) notice(error.message);
    }
  }
  setTimeout(look, FRAME_MS, seen);
}

$("open").addEventListener("click", open);

// --- recording ---

async function toggle() {
  if ($("record").disabled) return;
  if (!stop) {
    notice("");
    try {
      stop = startRecording(stream);
    } catch (error) {
      return notice(`The browser cannot record: ${error.message}`);
    }
    since = performance.now();
    timer = setTimeout(toggle, MOST_MS);
  } else {
    const name = current, ended = stop, short = performance.now() - since < LEAST_MS;
    stop = null;
    sending = true; // until it has arrived, nothing else is recorded: the next text is not shown yet
    clearTimeout(timer);
    draw();
    const recording = await ended();
    if (short) {
      notice("That was too short. Press Record, say all of it, then press Stop.");
    } else {
      await quietly(post(`api/takes/${name}`, recording, recording.type).then(() => {
        last = name;
        if (name !== "first" && current === name) advance(); // unless somebody chose another meanwhile
        poll();
      }));
    }
    sending = false;
  }
  $("stage").classList.toggle("recording", Boolean(stop));
  $("badge").hidden = !stop;
  draw();
}

/** Asks what came of recordings until none is being tracked. */
async function poll() {
  clearTimeout(polling);
  const before = new Map(state.prompts.map((one) => [one.name, one.state]));
  try {
    await request("api/state");
  } catch {
    if (!leaving) polling = setTimeout(poll, 3 * POLL_MS); // one answer was lost, as over a tunnel: the next may come
    return;
  }
  for (const one of state.prompts) {
    const was = before.get(one.name);
    if (was === one.state || !["waiting", "good"].includes(was)) continue; // others may show that a good one is not
    if (one.state === "refused") {
      notice(`“${one.text.length > 44 ? `${one.text.slice(0, 40)} …` : one.text}” cannot be used. ${one.message}`);
      if (one.name === "first" && !stop) choose("first");
    } else if (one.state === "good" && one.name === "first" && current === "first") { notice("Audio and video are in step.", false); advance(); }
  }
  if (state.waiting) polling = setTimeout(poll, POLL_MS);
}

$("record").addEventListener("click", toggle);
// Then Space records, and does not press the same button again.
$("repeat").addEventListener("click", () => { choose(last); $("record").focus(); });
$("skip").addEventListener("click", () => { advance(); $("record").focus(); });
for (const button of document.querySelectorAll("#modes button")) {
  button.addEventListener("click", () => {
    kind = button.dataset.kind;
    for (const one of document.querySelectorAll("#modes button")) one.setAttribute("aria-pressed", String(one === button));
    if (find("first").state === "good" && !stop) advance();
    else draw();
    $("record").focus();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.repeat || $("studio").hidden || event.target.closest("button, input, summary, #list")) return;
  event.preventDefault();
  toggle();
});

// --- the end ---

$("finish").addEventListener("click", async () => {
  if (find("last").state === "open" && current !== "last") {
    choose("last");
    notice("One last thing: read this text again. Or press Finish again to leave it out.", false);
    $("record").focus();
    return;
  }
  finishing = true;
  draw();
  notice("The tracks are being written …", false);
  await quietly(post("api/finish", "", "application/json").then((result) => {
    if (leaving) return;
    state.result = result;
    close();
    notice("");
  }));
  finishing = false;
  draw();
});

quietly(request("api/state").then(() => {
  drawStatement();
  if (find("first").state === "good") advance();
  if (state.waiting) poll();
}));
