"""The page of `avatar prior record` in Node.js: its modules run as they are, in a browser that is made up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.node import told

PACKAGE = Path(__file__).parents[2] / "avatar"
# A browser as far as the page needs it. A camera is asked for until `asked[n]()`; what is `held` arrives by `arrive()`;
# `tick(ms)` lets time pass. `say` is what the server answers, but not to what is `failing`; `told` what it was given.
WORLD = r"""
class Part {
  constructor() { Object.assign(this, { on: {}, textContent: "", attributes: {}, dataset: {}, children: [] }); }
  addEventListener(name, act) { (this.on[name] ||= []).push(act); }
  setAttribute(name, value) { this.attributes[name] = value; }
  replaceChildren(...parts) { this.textContent = parts.map((part) => part.textContent).join("\n"); }
  append(...parts) { this.children.push(...parts); }
  focus() {} scrollIntoView() {}
  get firstChild() { return this.words ||= new Part(); }
  classList = { toggle() {}, remove() {} };
}
const parts = {}, part = (id) => parts[id] ||= new Part();
const realTimeout = setTimeout, settle = () => new Promise((done) => realTimeout(done, 2));
const click = (id) => { for (const act of part(id).on.click || []) act({}); return settle(); };
let now = 0, late = [];
const tick = (ms) => {
  now += ms;
  const due = late.filter((one) => one.at <= now);
  late = late.filter((one) => one.at > now);
  for (const one of due) one.act();
  return settle();
};
class Track extends EventTarget {
  readyState = "live";
  stop() { this.readyState = "ended"; }
  taken() { this.stop(); this.dispatchEvent(new Event("ended")); return settle(); }
}
class Stream { constructor() { this.tracks = [new Track(), new Track()]; } getTracks() { return this.tracks; } }
const asked = [], streams = [], recorders = [], told = [];
const camera = () => new Promise((done) => asked.push(() => {
  streams.push(new Stream());
  done(streams.at(-1));
  return settle();
}));
const live = () => streams.filter((one) => one.tracks.some((track) => track.readyState === "live")).length;
class Recorder {
  static isTypeSupported() { return true; }
  constructor(stream, { mimeType }) {
    Object.assign(this, { stream, mimeType, state: "inactive" });
    recorders.push(this);
  }
  start() { this.state = "recording"; }
  stop() { if (this.state === "inactive") return; this.state = "inactive"; queueMicrotask(() => this.onstop?.()); }
}
const prompt = (name, kind) => ({ name, kind, text: `text ${name}`, state: "good", message: "", seconds: 10 });
const say = { agreed: true, statement: [], agreement: [], waiting: 0, least: 30, seconds: 40, result: null,
  prompts: [prompt("first", "first"), { ...prompt("s1", "sentence"), state: "open" },
    { ...prompt("s2", "sentence"), state: "open" }, prompt("last", "last")] };
const on = (name) => say.prompts.find((one) => one.name === name);
let held = null, failing = null, arrive = () => {};
const answer = (content, ok = true) => ({ ok, json: async () => structuredClone(content) });
Object.assign(globalThis, {
  window: globalThis, location: { hash: "", search: "" }, MediaRecorder: Recorder, setInterval: () => 0,
  clearInterval() {}, performance: { now: () => now },
  document: {
    baseURI: "http://here/", hidden: false, getElementById: part, querySelector: () => null, querySelectorAll: () => [],
    createElement: (kind) => Object.assign(new Part(), kind === "canvas" &&
      { getContext: () => ({ drawImage() {} }), toBlob: (done) => done(new Blob()) }),
    addEventListener() {},
  },
  setTimeout: (act, ms = 0, ...given) => { late.push({ act: () => act(...given), at: now + ms }); return late.at(-1); },
  clearTimeout: (one) => { late = late.filter((other) => other !== one); },
  AudioContext: class {
    createAnalyser() { return {}; }
    createMediaStreamSource() { return { connect() {} }; }
    close() {}
  },
  fetch: async (path, { method = "GET" } = {}) => {
    told.push(path);
    if (held && path.startsWith(held)) await new Promise((done) => { arrive = () => { done(); return settle(); }; });
    if (path === failing) return answer({ error: "The disk is full." }, false);
    return path === "api/frame" ? answer({ findings: [] }) : answer(path === "api/finish" ? say.result : say);
  },
});
const devices = { mediaDevices: { getUserMedia: camera } };
Object.defineProperty(globalThis, "navigator", { value: devices, configurable: true });
part("video").videoWidth = 640;
await import("./main.js");
await settle();
const tell = (found) => { console.log(JSON.stringify(found)); process.exit(0); };
const page = () => window.recordState(), ready = async () => { await click("open"); await asked.at(-1)(); };
"""


def run_page(folder: Path, code: str) -> Any:
    """What a scene tells; it runs beside the page's modules, in a module of its own."""
    shutil.copytree(PACKAGE / "record/page", folder / "page")
    shutil.copy(PACKAGE / "serve/page/place.js", folder / "page")
    (folder / "page/package.json").write_text('{"type": "module"}')
    (folder / "page/scene.js").write_text(WORLD + code)
    return told(folder / "page/scene.js")


def test_a_camera_is_asked_for_once_and_let_go_of_who_left_meanwhile(tmp_path: Path) -> None:
    found = run_page(
        tmp_path,
        """
        await click("open"); await click("open");
        const once = asked.length;
        await click("leave");
        for (const grant of asked) await grant();
        tell([once, live()]);
        """,
    )
    assert found == [1, 0]


def test_a_text_keeps_its_recording_however_slowly_it_arrives(tmp_path: Path) -> None:
    found = run_page(
        tmp_path,
        """
        await ready();
        const first = page().current;
        await click("record"); await tick(2000);
        held = "api/takes"; await click("record"); await click("record"); // a double click
        const meanwhile = [page().recording, part("record").disabled, page().current];
        held = null; await arrive();
        await click("record"); await tick(2000); await click("record");
        tell([first, meanwhile, told.filter((path) => path.startsWith("api/takes")), page().current]);
        """,
    )
    assert found == ["s1", [False, True, "s1"], ["api/takes/s1", "api/takes/s2"], "s1"]


def test_what_was_begun_can_be_ended_whatever_becomes_of_other_texts(tmp_path: Path) -> None:
    found = run_page(
        tmp_path,
        """
        on("s2").state = "waiting"; say.waiting = 1;
        await ready();
        await click("record"); await tick(2000); await click("record");
        await click("record"); // the next one, while the others are judged
        Object.assign(on("first"), { state: "refused", message: "Not in step." });
        on("s2").state = "good"; say.waiting = 0;
        await tick(800);
        const notice = part("notices").textContent, disabled = part("record").disabled;
        await tick(2000); await click("record");
        tell([disabled, notice, page().recording, page().current, part("record").disabled]);
        """,
    )
    assert found == [False, "“text first” cannot be used. Not in step.", False, "first", False]


def test_a_device_that_fails_ends_the_recording_and_says_so(tmp_path: Path) -> None:
    found = run_page(
        tmp_path,
        """
        await ready();
        await click("record"); await tick(2000);
        await streams[0].tracks[1].taken();
        const taken = [part("record").disabled, part("notices").textContent, live()];
        await ready();
        await click("record"); await tick(2000);
        recorders.at(-1).state = "inactive"; // it ended by itself
        await click("leave");
        tell([taken, told.includes("api/decline"), live()]);
        """,
    )
    assert found == [[True, "Camera or microphone was taken away. Plug it in, and open them again.", 0], True, 0]


def test_who_could_not_leave_has_to_open_the_camera_before_recording(tmp_path: Path) -> None:
    found = run_page(
        tmp_path,
        """
        await ready();
        failing = "api/decline"; await click("leave");
        tell([live(), part("record").disabled, part("notices").textContent]);
        """,
    )
    assert found == [0, True, "The disk is full."]


def test_one_camera_is_looked_at_by_one_loop(tmp_path: Path) -> None:
    found = run_page(
        tmp_path,
        """
        for (const _ of [1, 2, 3]) { await ready(); await streams.at(-1).tracks[0].taken(); }
        await ready();
        const before = told.length;
        await tick(1600);
        tell(told.slice(before));
        """,
    )
    assert found == ["api/frame"]


def test_tracks_are_written_once_and_told_after_a_reload(tmp_path: Path) -> None:
    found = run_page(
        tmp_path,
        """
        await ready();
        held = "api/finish"; await click("finish");
        const meanwhile = [part("finish").disabled, part("record").disabled];
        say.result = { folder: "gift", takes: 4, seconds: 48, left_out: [], sync: { text: "They are in step." } };
        held = null; await arrive();
        const written = part("written").textContent;
        part("written").textContent = "";
        await import("./main.js?reloaded"); await settle();
        tell([meanwhile, written, part("written").textContent, part("done").hidden, live()]);
        """,
    )
    said = "48 s of tracks of 4 recordings are in gift."
    assert found == [[True, True], said, said, False, 0]


def test_an_answer_that_is_lost_does_not_end_the_asking(tmp_path: Path) -> None:
    """As over a tunnel: the first text is being tracked, and one answer about it does not come."""
    found = run_page(
        tmp_path,
        """
        on("s2").state = "waiting"; say.waiting = 1;
        await ready();
        await click("record"); await tick(2000); await click("record");
        Object.assign(on("first"), { state: "refused", message: "Not in step." });
        failing = "api/state"; await tick(800);
        const before = told.filter((path) => path === "api/state").length;
        failing = null; on("s2").state = "good"; say.waiting = 0;
        await tick(3000); await tick(3000);
        tell([told.filter((path) => path === "api/state").length > before, page().current]);
        """,
    )
    assert found == [True, "first"]


def test_the_list_of_texts_is_made_anew_only_where_it_changes(tmp_path: Path) -> None:
    """A button that is made anew loses the keyboard's focus, and a click on it."""
    found = run_page(
        tmp_path,
        """
        on("s2").state = "waiting"; say.waiting = 1;
        await ready();
        await click("record"); await tick(2000); await click("record");
        await tick(800);
        let made = 0;
        const list = part("prompts"), plain = list.replaceChildren.bind(list);
        list.replaceChildren = (...items) => { made += 1; return plain(...items); };
        await tick(800); await tick(800);
        const same = made;
        on("s2").state = "good"; say.waiting = 0;
        await tick(800);
        tell([same, made]);
        """,
    )
    assert found == [0, 1]
