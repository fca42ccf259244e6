"""The page, the module and the package description of a web folder."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from pathlib import Path

from avatar.provenance.source_type import TRAINED, json_ld

# In this order they make one module; a name is known to all of them.
MODULES = (
    "read", "gaussians", "draw", "blend", "clip", "voice", "view", "engine", "performer", "look", "speaking", "element",
)  # fmt: skip
SPEECH_MODULES = ("matmul", "stem", "activity", "lips", "worker")  # the same of what runs beside the page
_IMPORT_EXPORT = re.compile(r"^export (?=(async )?(class|function|const)\b)", re.MULTILINE)
PUBLIC = ("AvatarPlayer", "Engine", "Performer")
ADAPTERS = ("three-spark.js", "playcanvas.js")  # modules of their own: they import what they adapt to
PEERS = {"three": ">=0.180", "@sparkjsdev/spark": "^2.2.0", "playcanvas": "^2.23.0"}  # which is this
README = """\
# {name}

A talking avatar that plays without a server. Open `index.html` by double click, or put this folder on any web server.

In a page of your own:

    <script type="module" src="{folder}/player.js"></script>
    <avatar-player src="{folder}/" controls></avatar-player>

The attributes are `controls`, `loop`, `autoplay` (browsers let a page begin with audio only after a click),
`transparent` (no background), `clip="NAME"`, `size="PIXELS"` and `renderer="webgl"` or `"cpu"` (default: WebGL where
there is a graphics card). From scripts: `play()`, `pause()`, `currentTime`, `duration`, `look(azimuth, elevation,
zoom)`, `set(control, value)`, `clips`, `controlNames`; where the avatar was exported with `--speech-input` also
`speak(audio)`, `listen(stream)` and `stop()`; events `ready`, `play`, `pause`, `ended`, `timeupdate`, `clip` and
`error`.

In a scene of three.js with Spark, or of PlayCanvas, the avatar talks as well: the first lines of `three-spark.js` and
of `playcanvas.js` say how.

Files that end in `.js` and belong to another file are for pages that are opened from disk; a web server needs none of
them apart from player.js and those two. The voice and the face were made by a model: say so where you show it.
"""


def module() -> str:
    """The source of player.js: one ES module without imports."""
    return f"{code()}\nexport {{ {', '.join(PUBLIC)} }};\n"


def index(title: str) -> str:
    """The page, with the module inside."""
    text = _source("index.html").replace("{{player}}", code()).replace("{{title}}", html.escape(title))
    return text.replace("{{said}}", json_ld(title, TRAINED))


def write_page(folder: Path, name: str, folder_name: str) -> None:
    """Write everything that is no data into a web folder."""
    (folder / "index.html").write_text(index(name), encoding="utf-8")
    (folder / "player.js").write_text(module(), encoding="utf-8")
    for adapter in ADAPTERS:
        (folder / adapter).write_text(_source(adapter), encoding="utf-8")
    (folder / "README.md").write_text(README.format(name=name, folder=folder_name), encoding="utf-8")
    package = {
        "name": package_name(folder_name), "version": "1.0.0", "private": True,
        "description": f"The talking avatar {name} as a custom element", "type": "module", "main": "player.js",
        "exports": {".": "./player.js", "./*": "./*"}, "sideEffects": ["./player.js"],
        # What pages need that are opened from disk, and `--add`, is no use in a package.
        "files": [
            "*.js", "*.json", "*.bin", "*.webp", "*.html", "*.txt", "clips", "!*.*.js", "!order.bin",
        ],
        "peerDependencies": PEERS, "peerDependenciesMeta": {name: {"optional": True} for name in PEERS},
    }  # fmt: skip
    (folder / "package.json").write_text(json.dumps(package, indent=2) + "\n", encoding="utf-8")


def package_name(text: str) -> str:
    """A name that npm accepts, made from any text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:200] or "avatar"


def speech_code() -> str:
    """The source of speech.js: what turns audio into lips, for a worker of the page."""
    return code("speech/", SPEECH_MODULES)


def code(folder: str = "", modules: tuple[str, ...] = MODULES) -> str:
    """The sources of a folder of the player, one after the other in the order of ``modules``."""
    return "\n".join(_IMPORT_EXPORT.sub("", _source(f"{folder}{name}.js")) for name in modules)


def _source(name: str) -> str:
    return files("avatar.export.web").joinpath(f"player/{name}").read_text(encoding="utf-8")
