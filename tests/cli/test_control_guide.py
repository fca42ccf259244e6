"""The commands in docs/control.md are ones that exist."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from avatar.cli.main import COMMANDS, read_options
from avatar.motion import timeline

GUIDE = (Path(__file__).resolve().parents[2] / "docs/control.md").read_text()
EXAMPLES = [line for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.S) for line in block.splitlines()]


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_is_understood(line: str):
    program, name, *options = shlex.split(line)
    assert program == "avatar"
    config = read_options(importlib.import_module(COMMANDS[name][0]), name, options)
    controls = config.controls if hasattr(config, "controls") else config.doing.controls  # of `avatar export`
    for control in ("lip_scale", "emotion", "pose_scale", "blink", "gaze"):
        for text in getattr(controls, control):
            timeline.from_option(control.replace("_", "-"), text, [(0.0, 1.0, "please")])


def test_the_timeline_shown_can_be_loaded(tmp_path: Path):
    (shown,) = re.findall(r"```json\n(.*?)```", GUIDE, re.S)
    path = tmp_path / "t.json"
    path.write_text(shown)
    assert timeline.to_json(timeline.load(path)) == json.loads(shown)
