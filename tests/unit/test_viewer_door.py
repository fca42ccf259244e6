"""Who gets into the viewer: raw requests as other pages, other programs and other machines would send them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import viser
from websockets.exceptions import InvalidStatus

from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.motion import Motion
from avatar.viewer import door
from avatar.viewer.door import Door
from avatar.viewer.server import Viewer
from avatar.viewer.start import open_viewer
from tests.page import DrawnAvatar, Page, viewing, wait_for

UPGRADE = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": f"viser-v{viser.__version__}",
}  # fmt: skip


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with viewing() as viewer:
        yield viewer


def ask(viewer: Viewer, path: str, headers: list[tuple[str, str]], websocket: bool = False) -> int:
    """Status of the answer to a GET; 0 if there is none. PORT and TOKEN stand for the right ones."""
    port, token = str(viewer.port), viewer.url.split("/")[3]
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"{name}: {value}" for name, value in UPGRADE.items()] if websocket else []
    text = "\r\n".join([*lines, "", ""]).replace("PORT", port).replace("TOKEN", token)
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=10) as connection:
        connection.sendall(text.encode("latin-1"))
        answer = connection.recv(65536)
    return int(answer.split()[1]) if answer else 0


HOST = ("Host", "127.0.0.1:PORT")


@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/TOKEN/", [HOST]),
        ("/TOKEN", [HOST, ("Origin", "http://127.0.0.1:PORT")]),
        ("/TOKEN/?websocket=ws://127.0.0.1:PORT/TOKEN", [HOST]),  # viser's page adds this to its address
        ("/TOKEN/", [("Host", "localhost:PORT"), ("Origin", "http://localhost:PORT")]),
        ("/TOKEN/", [("Host", "LocalHost:PORT")]),
        ("/TOKEN/", [("Host", "[::1]:PORT")]),
    ],
)
def test_the_page_of_the_printed_address_is_let_in(
    viewer: Viewer, path: str, headers: list[tuple[str, str]], websocket: bool
) -> None:
    assert ask(viewer, path, headers, websocket) == (101 if websocket else 200)


@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", [HOST]),
        ("/index.html", [HOST]),
        ("/TOKENx/", [HOST]),
        ("/x/TOKEN/", [HOST]),
        ("//TOKEN/", [HOST]),
        ("/?TOKEN", [HOST]),
        ("/wrong/", [HOST]),
        ("/%00\xff/", [HOST]),
        ("http://127.0.0.1:PORT/TOKEN/", [HOST]),
        ("/TOKEN/", []),
        ("/TOKEN/", [HOST, HOST]),
        ("/TOKEN/", [("Host", "evil.example:PORT")]),  # DNS rebinding
        ("/TOKEN/", [("Host", "evil.example:PORT"), ("Origin", "http://evil.example:PORT")]),
        ("/TOKEN/", [("Host", "127.0.0.1.evil.example:PORT")]),
        ("/TOKEN/", [("Host", "localhost.evil.example:PORT")]),
        ("/TOKEN/", [("Host", "192.168.1.2:PORT")]),
        ("/TOKEN/", [("Host", "127.0.0.1")]),
        ("/TOKEN/", [("Host", "127.0.0.1:1")]),
        ("/TOKEN/", [("Host", "127.0.0.1:PORT@evil.example")]),
        ("/TOKEN/", [HOST, ("Origin", "http://evil.example")]),
        ("/TOKEN/", [HOST, ("Origin", "null")]),
        ("/TOKEN/", [HOST, ("Origin", "http://127.0.0.1")]),
        ("/TOKEN/", [HOST, ("Origin", "http://127.0.0.1:1")]),
        ("/TOKEN/", [HOST, ("Origin", "https://127.0.0.1:PORT")]),
        ("/TOKEN/", [HOST, ("Origin", "http://localhost:PORT")]),
        ("/TOKEN/", [HOST, ("Origin", "http://127.0.0.1:PORT.evil.example")]),
        ("/TOKEN/", [HOST, ("Origin", "http://127.0.0.1:PORT"), ("Origin", "http://evil.example")]),
    ],
)
def test_everything_else_is_refused_before_viser_sees_it(
    viewer: Viewer, path: str, headers: list[tuple[str, str]], websocket: bool
) -> None:
    assert ask(viewer, path, headers, websocket) == 403


def test_what_is_not_a_request_for_a_page_gets_none(capfd: pytest.CaptureFixture[str]) -> None:
    with viewing() as viewer:
        for start in ("\x16\x03\x01", "POST /TOKEN/ HTTP/1.1", "OPTIONS / HTTP/1.1", "GET /TOKEN/ HTTP/1.0"):
            text = f"{start}\r\nHost: 127.0.0.1:{viewer.port}\r\n\r\n".replace("TOKEN", viewer.url.split("/")[3])
            with socket.create_connection(("127.0.0.1", viewer.port), timeout=10) as connection:
                connection.sendall(text.encode("latin-1"))
                answer = connection.recv(65536)
            assert b"html" not in answer.lower() and b" 200 " not in answer
    assert "Traceback" not in capfd.readouterr().err


def listening() -> set[str]:
    """Addresses that this process listens on, as Linux writes them; nothing on other systems."""
    if not Path("/proc/net/tcp").exists():
        return set()
    own = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
    own = {path.rsplit("/", 1)[-1] for path in own}
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own}


def test_there_is_no_second_port() -> None:
    before = listening()
    with viewing() as viewer:
        if os.path.exists("/proc/net/tcp"):
            assert listening() - before == {f"0100007F:{viewer.port:04X}"}


def test_every_viewer_has_a_token_of_its_own(viewer: Viewer) -> None:
    with viewing() as other:
        mine, others = (v.url.split("/")[3] for v in (viewer, other))
        assert mine != others and min(len(mine), len(others)) >= 32
        with pytest.raises(InvalidStatus):
            Page(other, other.url.replace(others, mine))


def test_so_many_windows_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MOST_WINDOWS", 2)
    with viewing() as viewer:
        pages = [Page(viewer), Page(viewer)]
        for page in pages:
            page.enter()
        with pytest.raises(InvalidStatus) as refused:
            Page(viewer)
        answer = refused.value.response
        assert answer.status_code == 503 and b"open in 2 windows" in answer.body
        pages[0].close()
        wait_for(lambda: viewer.step() >= 0 and len(viewer.visitors) == 1)
        Page(viewer).enter()


def test_an_address_for_other_machines_needs_the_token_as_well() -> None:
    with viewing(host="0.0.0.0") as viewer:
        assert viewer.url.startswith(f"http://127.0.0.1:{viewer.port}/")
        assert ask(viewer, "/TOKEN/", [("Host", "192.168.1.2:PORT")]) == 200  # an address cannot be resolved anew
        assert ask(viewer, "/TOKEN/", [("Host", f"{socket.gethostname()}:PORT")]) == 200
        assert ask(viewer, "/", [HOST]) == 403
        assert ask(viewer, "/TOKEN/", [("Host", "evil.example:PORT")]) == 403
        assert ask(viewer, "/TOKEN/", [HOST, ("Origin", "http://192.168.1.2:PORT")]) == 403


def test_the_next_port_is_taken_where_one_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = Door("localhost", port)
        assert other.port > port and other.url.startswith(f"http://localhost:{other.port}/")
        other.socket.close()


def test_a_viser_that_listens_in_another_way_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = SimpleNamespace(asyncio=SimpleNamespace(server=SimpleNamespace(serve=None)))
    monkeypatch.setattr(door, "websockets", elsewhere)  # viser finds its own function where it was
    before = listening()
    with pytest.raises(AvatarError, match="not supported"), viewing():
        pass
    wait_for(lambda: listening() == before)


def test_the_command_prints_the_address_and_nothing_of_visers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import avatar.infer.avatar as avatar_module

    Motion.zeros(5, 25.0).save(tmp_path / "motion.safetensors")
    monkeypatch.setattr(avatar_module.Avatar, "load", staticmethod(lambda _, device: DrawnAvatar()))
    served: list[str] = []

    def serve(self: Viewer) -> None:
        served.append(self.url)
        raise KeyboardInterrupt

    monkeypatch.setattr(Viewer, "serve", serve)
    assert main(["view", str(tmp_path), "--port", "18900"]) == 0
    said = capfd.readouterr()
    assert served[0] in said.err.replace("\n", "") and "Websocket" not in said.out + said.err
    assert main(["view", str(tmp_path), "--port", "18900", "--host", "0.0.0.0"]) == 0
    assert "reached from other machines" in capfd.readouterr().err


def test_a_host_of_another_machine_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import avatar.infer.avatar as avatar_module

    Motion.zeros(5, 25.0).save(tmp_path / "motion.safetensors")
    monkeypatch.setattr(avatar_module.Avatar, "load", staticmethod(lambda _, device: DrawnAvatar()))
    for host in ("203.0.113.7", "no-such-host.invalid", "a..b"):
        with pytest.raises(AvatarError, match=host):
            open_viewer(tmp_path, Controls(), host=host)
