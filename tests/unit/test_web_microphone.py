"""The player of a web folder lets go of the microphone where nobody hears it any more."""

from __future__ import annotations

from typing import Any

import pytest

from avatar.export.web import page
from tests.node import told

SCENE = """
const part = () => ({ addEventListener() {}, classList: { add() {}, remove() {} }, textContent: "" });
const names = ["choose", "file", "microphone", "stop", "stage", "note"];
const ui = Object.fromEntries(names.map((name) => [name, part()])), tracks = [], asked = [];
class Stream {
  constructor() {
    this.track = { live: true, stop() { this.live = false; }, addEventListener() {} };
    tracks.push(this.track);
  }
  getTracks() { return [this.track]; }
  getAudioTracks() { return [this.track]; }
}
const getUserMedia = () => new Promise((done) => { asked.push(() => { done(new Stream()); return settle(); }); });
Object.defineProperty(globalThis, "navigator", { value: { mediaDevices: { getUserMedia } }, configurable: true });
const settle = () => new Promise((done) => setTimeout(done, 5));
const engine = { clock: { pause() {} }, clip: { name: "idle" }, close() {}, listen: async () => {} };
const player = Object.create(AvatarPlayer.prototype);
Object.assign(player, { ui, engine, watcher: { disconnect() {} } });
player.speaking = new Speaking(player);
const said = player.speaking.told(player.listen()), live = () => tracks.filter((one) => one.live).length;
const tell = () => {
  console.log(JSON.stringify({ live: live(), tracks: tracks.length, note: ui.note.textContent }));
  process.exit(0);
};
"""


def run(code: str) -> dict[str, Any]:
    return told("-e", f"{page.code()}\n(async () => {{ {SCENE}\n{code} tell(); }})();")


def test_it_is_open_while_the_avatar_speaks_along():
    found = run("await asked[0](); await said;")
    assert (found["live"], found["tracks"]) == (1, 1) and "speaks along" in found["note"]


@pytest.mark.parametrize("code", [
    "await asked[0](); player.disconnectedCallback();",
    "player.disconnectedCallback(); await asked[0]();",
])  # fmt: skip
def test_a_player_that_is_taken_out_of_its_page_closes_it(code: str):
    found = run(code)
    assert (found["live"], found["tracks"]) == (0, 1)


def test_it_is_closed_where_the_avatar_cannot_listen():
    found = run('engine.listen = async () => { throw new Error("no voice"); }; await asked[0](); await said;')
    assert found == {"live": 0, "tracks": 1, "note": "no voice"}
