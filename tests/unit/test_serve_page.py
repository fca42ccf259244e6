"""The page of `avatar serve`: its microphone is open as long as a button says so, and a lost way leads to the next."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.page_world import PAGE, run_page

AFTER = """
  const [on, said] = [sockets[0].said("listen"), part("notices").textContent];
  tell({ live: live(), pressed: pressed("talk"), on, said });
"""


def test_a_second_click_while_the_browser_asks_leaves_the_microphone_closed(tmp_path: Path):
    found = run_page(tmp_path, f'await load(); click("talk"); click("talk"); await asked[0].grant(); {AFTER}')
    assert (found["live"], found["pressed"], True in found["on"]) == (0, "false", False)


def test_of_several_clicks_while_the_browser_asks_the_last_one_counts(tmp_path: Path):
    scene = 'await load(); click("talk"); click("talk"); click("talk"); for (const one of asked) await one.grant();'
    found = run_page(tmp_path, f"{scene} {AFTER}")
    assert (found["live"], found["pressed"], found["on"].count(True), found["on"][-1]) == (1, "true", 1, True)
    scene = """
      await load(); click("talk"); click("echo"); for (const one of asked) await one.grant();
      const [talks, echoes] = [sockets[0].said("listen"), sockets[0].said("echo")];
      tell({ live: live(), talk: pressed("talk"), echo: pressed("echo"), talks, echoes });
    """
    found = run_page(tmp_path, scene)
    assert (found["live"], found["talk"], found["echo"], found["echoes"]) == (1, "false", "true", [True])
    assert True not in found["talks"]


def test_a_microphone_that_cannot_be_sent_is_closed_and_can_be_opened_again(tmp_path: Path):
    scene = """
      await load();
      rules.worklet = () => Promise.reject(new Error("no worklet"));
      click("talk"); await asked[0].grant();
      const first = { live: live(), pressed: pressed("talk"), said: part("notices").textContent };
      const open = contexts.filter((one) => one.state !== "closed").length;
      rules.worklet = () => Promise.resolve();
      click("talk"); await asked[1].grant();
      tell({ first, open, live: live(), pressed: pressed("talk"), on: sockets[0].said("listen") });
    """
    found = run_page(tmp_path, scene)
    assert found["first"] == {"live": 0, "pressed": "false", "said": "no worklet"}
    assert found["open"] == 1, "that of the voice"
    assert (found["live"], found["pressed"], found["on"]) == (1, "true", [False, True])


def test_a_microphone_that_is_given_back_while_it_is_set_up_is_not_sent(tmp_path: Path):
    scene = """
      await load();
      let go; rules.worklet = () => new Promise((done) => { go = done; });
      click("talk"); await asked[0].grant(); click("talk"); await settle(); go(); await settle();
      const open = contexts.filter((one) => one.state !== "closed").length;
      tell({ live: live(), open, on: sockets[0].said("listen") });
    """
    assert run_page(tmp_path, scene) == {"live": 0, "open": 1, "on": [False]}


def test_a_connection_that_is_lost_while_the_browser_asks_leaves_the_microphone_closed(tmp_path: Path):
    found = run_page(tmp_path, f'await load(); click("talk"); sockets[0].close(); await asked[0].grant(); {AFTER}')
    assert (found["live"], found["pressed"], found["said"]) == (0, "false", "The connection was lost.")


def test_a_microphone_of_another_rate_is_connected_where_contexts_do_not_convert(tmp_path: Path):
    found = run_page(tmp_path, f'await load(); click("talk"); await asked[0].grant(); {AFTER}')
    assert (found["live"], found["pressed"], found["on"]) == (1, "true", [True])


def test_the_websocket_names_the_session_of_the_connection_that_did_not_come_about(tmp_path: Path):
    found = run_page(tmp_path, 'await load("", false); await elapse(); tell({ urls: sockets.map((one) => one.url) });')
    assert found["urls"] == ["ws://here/ws?replaces=r1.name"]
    scene = 'await load("", false); rules.peer.connectionState = "failed"; rules.peer.onconnectionstatechange();'
    found = run_page(tmp_path, f'{scene} tell({{ shown: part("waiting").firstElementChild.textContent }});')
    assert found["shown"] == "Connecting …", "the other door has not been tried yet"


@pytest.mark.parametrize("codecs, urls", [(["avc1", "vp8"], ["/ws"]), (["vp8"], ["/ws?codec=vp8"]), ([], [])])
def test_a_codec_is_asked_for_that_the_browser_decodes(tmp_path: Path, codecs: list[str], urls: list[str]):
    scene = f"""
      rules.codecs = {json.dumps(codecs)};
      await load("?door=websocket", false);
      tell({{ urls: sockets.map((one) => one.url), said: part("notices").textContent }});
    """
    found = run_page(tmp_path, scene)
    assert found["urls"] == [f"ws://here{url}" for url in urls]
    assert urls or "neither H.264 nor VP8" in found["said"]


@pytest.mark.parametrize("worked", [False, True])
def test_a_decoder_that_always_fails_is_given_up_in_words(tmp_path: Path, worked: bool):
    fails = "rules.decoder = (one) => { if (decoders.length < 100) queueMicrotask(one.error); };"
    before = f"await load(); {fails} decoders[0].error();" if worked else (
        f'{fails} await load("?door=websocket", false); await sockets[0].hello();'
    )  # fmt: skip
    found = run_page(tmp_path, f"""
      {before} await settle();
      tell({{ count: decoders.length, open: sockets[0].readyState, said: part("notices").textContent }});
    """)  # fmt: skip
    assert found["count"] < 10 and found["open"] == 3 and "cannot decode the video" in found["said"]


def test_a_server_that_sends_no_image_is_not_waited_for_without_end(tmp_path: Path):
    found = run_page(tmp_path, """
      await load("?door=websocket", false); await sockets[0].hello(); await elapse();
      tell({ open: sockets[0].readyState, said: part("notices").textContent, again: part("again").hidden });
    """)  # fmt: skip
    assert found == {"open": 3, "said": "No image came through the WebSocket.", "again": False}


WORKLET = """
globalThis.sampleRate = Number(process.argv[2]);
globalThis.AudioWorkletProcessor = class { port = { postMessage: (one) => pieces.push([...one]) }; };
let Microphone; globalThis.registerProcessor = (_, made) => { Microphone = made; };
const pieces = [], fs = require("fs");
(0, eval)(fs.readFileSync(process.argv[3], "utf8"));
const microphone = new Microphone(), said = JSON.parse(fs.readFileSync(0)), length = Number(process.argv[4]);
for (let from = 0; from < said.length; from += length) {
  microphone.process([[Float32Array.from(said.slice(from, from + length))]]);
}
microphone.process([[]]);
console.log(JSON.stringify(pieces));
"""


def taken(rate: int, frequency: float, block: int = 128) -> np.ndarray:
    """What the worklet makes of a second of a tone, after its begin: values from -1 to 1."""
    if (node := shutil.which("node")) is None:
        pytest.skip("there is no node")
    said = (0.5 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)).tolist()
    command = [node, "-e", WORKLET, "worklet", str(rate), str(PAGE / "microphone-worklet.js"), str(block)]
    done = subprocess.run(command, input=json.dumps(said), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    pieces: Any = json.loads(done.stdout)
    assert {len(piece) for piece in pieces} == {320} and len(pieces) in (49, 50)
    return np.concatenate(pieces)[320:] / 32767


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 96000, 8000])
def test_the_worklet_makes_a_microphone_of_any_rate_16_khz(rate: int):
    heard = taken(rate, 1000)
    n = np.arange(320, 320 + len(heard))
    exact = 0.5 * np.sin(2 * np.pi * 1000 * n / 16000)
    assert np.abs(heard - exact).max() < 0.01
    np.testing.assert_allclose(heard, taken(rate, 1000, 100), atol=1e-4)


@pytest.mark.parametrize("rate", [44100, 48000])
def test_what_16_khz_cannot_hold_does_not_come_back_as_another_tone(rate: int):
    for frequency in (8200, 10000, 15000):
        assert np.abs(taken(rate, frequency)).max() < 0.005, f"{frequency} Hz: 40 dB less"
    assert np.abs(taken(rate, 6500)).max() > 0.45


# The speaker says what it plays, and images come; `decoded` holds their seconds.
TIMED = """
      await load();
      const decoded = [], [screen] = decoders;
      const hear = (pts) => nodes[0].port.onmessage({ data: { playing: true, pts, at: 0 } });
      const packet = (n, key = 0) => {
        const view = new DataView(new ArrayBuffer(25));
        view.setUint8(0, 2); view.setUint8(1, key); view.setFloat64(8, n / 25, true);
        sockets[0].onmessage({ data: view.buffer });
      };
      contexts[0].currentTime = 0;
"""


def test_images_wait_for_audio_that_is_heard_late(tmp_path: Path):
    """Behind a buffer, and with wireless headphones; decoded ones that do not fit would be lost before their time."""
    found = run_page(tmp_path, TIMED + """
      const lost = [];
      screen.decode = ({ timestamp }) => {
        decoded.push(timestamp / 1e6);
        screen.output({ timestamp, close: () => lost.push(timestamp) });
      };
      hear(1);
      for (let n = 25; n < 50; n += 1) packet(n);
      const first = { lost: lost.length, newest: decoded.at(-1) };
      for (let n = 0; n < 6; n += 1) screen.output({ timestamp: 0, close() {} }); // as if the others had been shown
      hear(1.4); packet(50);
      tell({ first, newest: decoded.at(-1) });
    """)  # fmt: skip
    assert found["first"]["lost"] == 0 and 1 < found["first"]["newest"] < 1.3
    assert 1.4 < found["newest"] < 1.7


def test_images_wait_for_audio_that_is_seconds_late(tmp_path: Path):
    """After a gap in the network what came late is all played; key frames meanwhile must not drop what is not heard."""
    found = run_page(tmp_path, TIMED + """
      screen.decode = ({ timestamp }) => { decoded.push(Math.round(timestamp / 4e4)); };
      for (let n = 25; n < 600; n += 1) { hear(Math.max(1, n / 25 - 6)); packet(n, Number(n % 50 === 0)); }
      const followed = decoded.slice();
      hear(1);
      for (let n = 600; n < 2000; n += 1) packet(n, Number(n % 50 === 0)); // more than is ever behind
      hear(100); packet(2000, 1);
      tell({ followed, kept: decoded.length - followed.length });
    """)  # fmt: skip
    assert found["followed"] == list(range(25, found["followed"][-1] + 1)) and found["followed"][-1] >= 599 - 150
    assert found["kept"] <= 12 * 25


def test_a_connection_that_says_nothing_any_more_is_lost(tmp_path: Path):
    found = run_page(tmp_path, """
      await load();
      const { act: ping } = clocks.find(({ ms }) => ms === 2000);
      for (let n = 0; n < 7; n += 1) ping();
      await sockets[0].image();
      for (let n = 0; n < 7; n += 1) ping();
      const open = sockets[0].readyState;
      for (let n = 0; n < 7; n += 1) ping();
      tell({ open, then: sockets[0].readyState, said: part("notices").textContent, again: part("again").hidden });
    """)  # fmt: skip
    assert found == {"open": 1, "then": 3, "said": "The connection was lost.", "again": False}


def test_a_new_session_does_what_the_page_shows(tmp_path: Path):
    found = run_page(tmp_path, """
      const later = () => new Promise((done) => realTimeout(done, 60));
      const words = (n) => Object.fromEntries(sockets[n].sent.map((one) => [one.type, one]));
      await load(); await later();
      const fresh = Object.keys(words(0));
      part("strength").value = "1.2";
      part("stage").on.keydown[0]({ target: part("stage"), key: "ArrowLeft", preventDefault() {} });
      sockets[0].close(); click("again"); await settle();
      await sockets[1].hello(); await sockets[1].image(); await later();
      tell({ fresh, strength: words(1).controls?.strength, azimuth: words(1).view?.azimuth });
    """)  # fmt: skip
    assert found["fresh"] == ["ping"] and found["strength"] == 1.2 and found["azimuth"] < 0


def test_a_page_that_the_browser_kept_connects_again(tmp_path: Path):
    found = run_page(tmp_path, """
      await load();
      heard.pagehide(); heard.pageshow?.({ persisted: true }); await settle();
      await sockets[1]?.hello(); await sockets[1]?.image();
      tell({ open: sockets.map((one) => one.readyState), door: avatarState.door });
    """)  # fmt: skip
    assert found == {"open": [3, 1], "door": "WebSocket"}


def test_a_page_that_the_browser_kept_while_it_connected_has_one_connection(tmp_path: Path):
    found = run_page(tmp_path, """
      const seen = () => ({ open: sockets.map((one) => one.readyState), again: part("again").hidden });
      await load("?door=websocket", false);
      heard.pageshow({ persisted: true }); await settle();
      heard.pageshow({ persisted: true }); await settle();
      await sockets[2].hello(); await sockets[2].image();
      sockets[0].close(); await settle();
      await sockets[1].hello(); await sockets[1].image();
      tell({ ...seen(), door: avatarState.door });
    """)  # fmt: skip
    assert found == {"open": [3, 3, 1], "again": True, "door": "WebSocket"}


def test_audio_that_the_browser_stopped_can_be_turned_on_again(tmp_path: Path):
    found = run_page(tmp_path, """
      await load(); await click("listen");
      const before = part("listen").hidden, [context] = contexts;
      context.state = "interrupted"; context.onstatechange?.();
      const stopped = part("listen").hidden;
      await click("listen");
      const after = { hidden: part("listen").hidden, state: context.state };
      context.state = "interrupted"; context.onstatechange();
      context.state = "running"; context.onstatechange(); // as where a call is over
      const byItself = part("listen").hidden;
      sockets[0].close(); context.onstatechange?.();
      tell({ before, stopped, after, byItself, gone: part("listen").attributes.hidden });
    """)  # fmt: skip
    assert (found["before"], found["stopped"]) == (True, False)
    assert found["after"] == {"hidden": True, "state": "running"} and found["gone"] == "" and found["byItself"]


def test_a_second_finger_does_not_throw_the_view_about(tmp_path: Path):
    found = run_page(tmp_path, """
      await load();
      const later = () => new Promise((done) => realTimeout(done, 60)), stage = part("stage");
      Object.assign(stage, { setPointerCapture() {} });
      const touch = (name, pointerId, clientX) => {
        const about = { pointerType: "touch", clientY: 0, target: { closest: () => null } };
        stage.on[name][0]({ ...about, pointerId, isPrimary: pointerId === 1, clientX });
      };
      touch("pointerdown", 1, 100); touch("pointerdown", 2, 300);
      touch("pointermove", 1, 101); touch("pointermove", 2, 300); touch("pointermove", 1, 102);
      touch("pointerup", 2, 300);
      touch("pointermove", 1, 103); touch("pointerup", 1, 103); touch("pointermove", 1, 150);
      await later();
      tell(sockets[0].sent.filter((one) => one.type === "view").map((one) => one.azimuth));
    """)  # fmt: skip
    assert found == [pytest.approx(-0.6)]
