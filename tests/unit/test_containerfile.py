"""The Containerfile names what is there, runs as nobody in particular, and starts nothing that is open to all."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from avatar.cli.main import main
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
