"""The player of a web folder where one thing overtakes another: it is removed, moved, or another clip is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.player_world import run_player

STATE = "tell({ open: engines.filter(({ closed }) => !closed).length, playing: playing(), errors });"
QUIET: dict[str, Any] = {"open": 0, "playing": 0, "errors": []}


@pytest.mark.parametrize("scene", [
    "player.put(); player.remove(); await loads[0](); await clips[0]?.();",
    "player.put(); await loads[0](); player.remove(); await clips[0]();",
    "player.put(); player.remove(); await loads[0](new Error('avatar.json cannot be reached.'));",
    "await load(); player.remove(); await settle();",
    "await load(); player.addEventListener('clip', () => player.remove()); player.choose('second'); await clips[1]();",
])  # fmt: skip
def test_a_player_that_is_removed_does_not_talk(scene: str):
    assert run_player(f"player.attributes.autoplay = ''; {scene} {STATE}") == QUIET


def test_a_player_that_is_moved_talks_once():
    found = run_player(f"""
        player.attributes.autoplay = "";
        player.put(); player.remove(); player.put();
        await loads[0](); await loads[1](); for (const come of clips) await come();
        {STATE}""")
    assert found == {"open": 1, "playing": 1, "errors": []}


def test_the_clip_that_was_chosen_last_is_shown():
    found = run_player("""
        await load();
        await player.play();
        const slow = player.choose("second"), fast = player.choose("first");
        await clips[2](); await clips[1](); await Promise.all([slow, fast]);
        tell({ clip: player.engine.clip.name, playing: playing(), addresses: addresses.size, errors });""")
    assert found == {"clip": "first", "playing": 1, "addresses": 1, "errors": []}


def test_a_clip_attribute_goes_back_while_another_clip_loads():
    found = run_player("""
        await load();
        player.setAttribute("clip", "second");
        player.setAttribute("clip", "first");
        await clips[2]?.(); await clips[1]();
        tell(player.engine.clip.name);""")
    assert found == "first"


def test_a_clip_that_nobody_waits_for_fails_in_silence():
    found = run_player("""
        await load();
        const slow = player.choose("second"), fast = player.choose("first");
        await clips[2](); await clips[1](new Error("second.bin cannot be reached.")); await Promise.all([slow, fast]);
        tell({ said: player.ui.said.textContent, clip: player.engine.clip.name, errors });""")
    assert found == {"said": "", "clip": "first", "errors": []}


def test_a_clip_is_not_played_where_speech_was_begun_meanwhile():
    found = run_player("""
        await load();
        await player.play();
        const chosen = player.choose("second");
        player.engine.clock.pause();
        player.engine.wanted = new Blob(["speech"]);
        await clips[1](); await chosen;
        tell({ playing: playing(), clip: player.engine.clip.name });""")
    assert found == {"playing": 0, "clip": "first"}


def test_no_clip_is_chosen_before_there_is_a_folder():
    assert run_player("player.put(); await player.choose('second'); tell(errors);") == []


def test_a_performer_shows_the_clip_that_was_chosen_last():
    found = run_player("""
        const performer = made(Performer), slow = performer.choose("second"), fast = performer.choose("first");
        await clips[1](); await clips[0]();
        const taken = [await slow, await fast], late = performer.choose("second");
        performer.close();
        await clips[2](); taken.push(await late);
        tell({ taken, clip: performer.clip.name, addresses: addresses.size });""")
    assert found == {"taken": [False, True, False], "clip": "first", "addresses": 0}


def test_another_size_is_drawn_at_once():
    found = run_player("""
        await load();
        player.setAttribute("size", "300");
        tell([player.ui.canvas.width, player.ui.canvas.height]);""")
    assert found == [300, 300]


# The avatar speaks audio whose samples the scene gives; its lips come at once.
SPEAK = """
await load();
let samples = new Float32Array(16000);
samplesOf = async () => { if (samples instanceof Error) throw samples; return samples; };
const { engine } = player;
engine.hearing = Promise.resolve({
  about: { fps: 25, channels: 1 }, utterances: 0, close() {},
  hear: async (id, { length }) => ({ frames: new Float32Array(length / 640), count: length / 640 }),
});
const spoken = async () => {
  const said = await player.speak(new Blob(["audio"])).then(() => "", ({ message }) => message);
  const { clock, clip } = engine;
  tell({ said, duration: clock.duration, clip: clip.name, playing: playing(), kept: addresses.size });
};
"""


def test_what_a_browser_has_recorded_is_spoken():
    """Its WebM does not say how long it is."""
    found = run_player(f"{SPEAK} await spoken();")
    assert found == {"said": "", "duration": 1, "clip": "", "playing": 1, "kept": 1}


@pytest.mark.parametrize(("code", "words"), [
    ("samples = { length: 1801 * 16000 };", "30 minutes at most"),
    ("samples = new Error('no audio');", "no audio"),
])  # fmt: skip
def test_audio_that_is_refused_is_let_go(code: str, words: str):
    found = run_player(f"{SPEAK} {code} await spoken();")
    assert words in found.pop("said")
    assert found == {"duration": 1, "clip": "first", "playing": 0, "kept": 1}


def test_audio_that_says_it_is_too_long_is_not_decoded():
    scene = "samples = new Error('decoded'); rules.duration = 1801; await spoken();"
    found = run_player(f"{SPEAK} {scene}")
    assert "30 minutes at most" in found["said"] and found["kept"] == 1


def test_audio_that_cannot_be_played_is_let_go():
    found = run_player(f"{SPEAK} rules.broken = true; await spoken();")
    assert "cannot play that audio" in found["said"] and found["kept"] == 1


def test_lips_go_on_where_the_browser_wants_a_click_before_it_plays():
    """As Safari does where the voice was loaded for long after the file was chosen."""
    found = run_player(f"""{SPEAK}
        const refusal = Object.assign(new Error("not now"), {{ name: "NotAllowedError" }});
        Audio.prototype.play = async () => {{ throw refusal; }};
        samples = new Float32Array(64000);
        const said = await player.speak(new Blob(["audio"])).then(() => "", ({{ message }}) => message);
        tell({{ said, frames: engine.motion.frames, note: player.ui.note.textContent }});""")
    assert (found["said"], found["frames"]) == ("", 100) and "Press Play" in found["note"]


def test_without_its_attributes_a_player_has_its_first_clip_or_says_what_is_missing():
    found = run_player("""
        await load();
        const drop = (name, before) => {
          delete player.attributes[name];
          player.attributeChangedCallback(name, before, null);
          return settle();
        };
        player.setAttribute("clip", "second"); await clips[1]();
        await drop("clip", "second"); await clips[2]?.();
        const clip = player.engine.clip.name, wrong = [...errors];
        await drop("src", "web/");
        tell({ clip, wrong, said: player.ui.said.textContent });""")
    assert (found["clip"], found["wrong"]) == ("first", []) and "src" in found["said"]


def test_folders_on_disk_whose_files_have_the_same_names_are_not_mixed_up():
    found = run_player("""
        const scripts = [], text = (bytes) => String.fromCharCode(...bytes);
        document.createElement = () => ({ remove() {} });
        document.head = { append: (script) => scripts.push(script) };
        const read = ["one", "two"].map((folder) => readFile(`file:///${folder}/`, "avatar.json"));
        scripts.forEach((script, n) => {
          document.currentScript = script;
          avatarFile("avatar.json", btoa(`of ${n}`));
          script.onload();
        });
        tell((await Promise.allSettled(read)).map(({ value, reason }) => (value ? text(value) : reason.message)));""")
    assert found == ["of 0", "of 1"]


def test_a_second_finger_does_not_throw_the_view_about():
    found = run_player("""
        await load();
        const { stage } = player.ui, turns = [];
        Object.assign(stage, { setPointerCapture() {}, closest: () => null });
        player.engine.view = {
          turn: (across) => turns.push(Math.round(across * 100)),
          place: () => [0, 0], camera: { width: 1, height: 1 }, zoom: 1,
        };
        const touch = (name, pointerId, clientX) => stage.dispatchEvent(Object.assign(new Event(name), {
          pointerId, isPrimary: pointerId === 1, pointerType: "touch", clientX, clientY: 0,
        }));
        touch("pointerdown", 1, 100); touch("pointerdown", 2, 300);
        touch("pointermove", 1, 101); touch("pointermove", 2, 300); touch("pointerup", 2, 300);
        touch("pointermove", 1, 102); touch("pointerup", 1, 102); touch("pointermove", 1, 150);
        tell(turns);""")
    assert found == [-20, -20]


def test_a_player_that_stands_in_a_page_loads_its_folder_once():
    """A browser tells the attributes of a part that it upgrades before it says that the part is in the page."""
    found = run_player("""
        player.isConnected = true;
        player.attributeChangedCallback("src", null, "web/");
        player.connectedCallback();
        tell({ loads: loads.length, look: player.shadowRoot.adoptedStyleSheets[0].text.includes(".stage") });""")
    assert found == {"loads": 1, "look": True}


def test_speech_that_is_stopped_while_it_loads_is_not_spoken():
    found = run_player(f"""{SPEAK}
        const said = player.speak(new Blob(["audio"]));
        await player.stop(); await said; await settle();
        tell({{ playing: playing(), clip: engine.clip.name, kept: addresses.size }});""")
    assert found == {"playing": 0, "clip": "first", "kept": 1}


def test_a_clip_that_is_chosen_goes_on_where_speech_is_stopped():
    found = run_player(f"""{SPEAK}
        const said = player.speak(new Blob(["audio"])), chosen = player.choose("second");
        await player.stop(); await clips[1](); await chosen; await said;
        tell(engine.clip.name);""")
    assert found == "second"


@pytest.mark.parametrize(
    ("error", "said"),
    [("NotSupportedError", "media-src blob:"), ("NotAllowedError", "NotAllowedError"), ("AbortError", "")],
)
def test_a_click_that_plays_nothing_says_why(error: str, said: str):
    found = run_player(f"""
        await load();
        rules.refused = {error!r};
        player.ui.play.dispatchEvent(new Event("click"));
        await settle();
        tell(player.ui.said.textContent);""")
    assert said in found if said else not found


def test_a_worker_that_cannot_begin_says_so_and_is_not_asked_again():
    voice = """
        let worker = null;
        globalThis.Worker = class { constructor() { worker = this; } postMessage() {} terminate() {} };
        const row = { data: new Float32Array(4), shape: [4, 1] };
        const named = ["face_unit", "face_linear", "face_example", "face_weight", "base", "pose", "warp", "warp_step"];
        const arrays = Object.fromEntries(named.map((name) => [name, row]));
        const voice = () => new Voice(arrays, { frames: 1, width: 1 }, "");
        const why = (asked) => asked.then(() => "", ({ message }) => message);
    """
    found = run_player(f"""{voice}
        const early = voice();
        worker.onmessage({{ data: {{ error: "too old" }} }});
        const late = voice(), waiting = why(late.hear(1, new Float32Array(1), 16000, true));
        worker.onerror();
        const piece = voice(), [one, two] = [why(piece.hear(1, [], 1, false)), piece.hear(1, [], 1, true)];
        worker.onmessage({{ data: {{ id: 1, error: "a bad piece" }} }});
        worker.onmessage({{ data: {{ id: 1, count: 3 }} }});
        const after = [await why(early.hear(1, [], 1, true)), await waiting, await why(late.hear(2, [], 1, true))];
        tell([...after, await one, (await two).count]);""")
    assert "too old" in found[0] and "cannot begin" in found[1] and "cannot begin" in found[2]
    assert found[3:] == ["a bad piece", 3]
