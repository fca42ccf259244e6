"""The Containerfile names what is there, runs as nobody in particular, and starts nothing that is open to all."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from avatar.cli.main import main
from avatar.provenance import keys
from tests.docs_text import ROOT

TEXT = (ROOT / "Containerfile").read_text()
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def argument(keyword: str) -> str:
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{keyword} ")][-1]


def test_what_is_copied_is_there():
    copied = [
        word for line in LINES if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "avatar", "cuda_ext"} <= set(copied)
    assert argument("USER").isdigit() and argument("USER") != "0"
    assert not re.search(r"https?://(?!127\.0\.0\.1)|\.(org|io|com|dev)\b", TEXT)


def test_the_command_is_refused_without_a_token_and_passes_options_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "avatar").write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    (tmp_path / "avatar").chmod(0o755)

    def given(token: dict[str, str], *options: str) -> list[str]:
        env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **token}
        command = [*json.loads(argument("ENTRYPOINT")), *options]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()

    assert given({"AVATAR_TOKEN": "a b$c" * 4}, "/runs/my run", "--size", "256") == [
        "serve", "/runs/my run", "--size", "256", "--host", "0.0.0.0", "--port", "8080", "--token", "a b$c" * 4
    ]  # fmt: skip
    pytest.importorskip("aiortc", reason="it is not installed")
    assert main(given({}, str(tmp_path))) == 2
    assert "--token is needed" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_server_that_is_well_is_found_to_be(secure: bool, tmp_path: Path) -> None:
    """Also with --tls-certificate, whose certificate has the name by which people reach it."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" and well else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    well = True
    server = HTTPServer(("127.0.0.1", 0), Answer)
    if secure:
        made = keys._make()
        (tmp_path / "both.pem").write_bytes(made.key + made.certificates)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "both.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # plain words to a server of https
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        command = argument("HEALTHCHECK").partition("CMD ")[2].replace(":8080", f":{server.server_port}")
        asked = [sys.executable, *json.loads(command)[1:]]
        assert subprocess.run(asked, capture_output=True).returncode == 0
        well = False
        assert subprocess.run(asked, capture_output=True).returncode != 0
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
