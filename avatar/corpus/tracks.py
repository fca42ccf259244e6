"""Tracks that somebody gave: what mouth and head did and the speech features of what was said; no image, no audio.

A folder of them holds a file per take, the basis that the features are told in, and `ABOUT`: who gave them, when, in
which words, and what the checks said. It names each file by its hash, so numbers and statement belong together.

Kept is what training uses, and no more. Of the features of speech these are their components in the shared model's
basis, an eighth of the numbers. The shape of the lips at rest is taken out, because training takes it out anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avatar.audio2motion.shared import RATE
from avatar.checks import Record
from avatar.corpus.mouth import Mouth
from avatar.corpus.prepared import read_features, read_mouth, write_prepared
from avatar.errors import AvatarError
from avatar.io.arrays import check_numbers, check_tensors
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.motion.arkit import ARKIT
from avatar.motion.mouth import GEOMETRY
from avatar.paths import file_sha256, read_json, write_json
from avatar.sync.judge import MIN_FPS

if TYPE_CHECKING:
    from avatar.audio.encoders.base import SpeechEncoder
    from avatar.audio2motion.shared import SharedPrior

FORMAT = "avatar-tracks-1"
SUFFIX = ".tracks.safetensors"  # of a take
ABOUT = "tracks.json"
BASIS = "basis.safetensors"
LICENCE = "CC0-1.0"
_BASIS = {"input_mean": "F", "input_std": "F", "basis": "F K"}
_FIX = "Ask who gave the tracks for the whole folder."


@dataclass(frozen=True, kw_only=True)
class Take:
    """What is kept of one recording.

    Attributes:
        mouth: What the mouth did.
        speech: [mouth.rows, K] components of the features of its audio.
        arkit: [T, 52] coefficients of the face at `mouth.fps`.
        head: [T, 3] how the head was turned, axis-angle in radians, head axes to camera.
        text: What was to be read, or talked about.
        checks: What the checks said, as it stands in `ABOUT`.
    """

    mouth: Mouth
    speech: np.ndarray
    arkit: np.ndarray
    head: np.ndarray
    text: str
    checks: Mapping[str, Any] = field(default_factory=dict)


def write_tracks(folder: Path, takes: Sequence[Take], prior: SharedPrior, about: Mapping[str, Any]) -> None:
    """Write a folder of tracks.

    Args:
        folder: It is there and empty.
        takes: Of one person, at least one.
        prior: In whose basis the speech is told.
        about: Who gave them, when and how, for `ABOUT`.

    Raises:
        AvatarError: The disk is full or cannot be written.
    """
    listed: list[dict[str, Any]] = []
    for number, take in enumerate(without_rest(takes), 1):
        path = folder / f"{number:03}{SUFFIX}"
        more = {"arkit": take.arkit.astype(np.float32), "head": take.head.astype(np.float32)}
        write_prepared(path, take.mouth, take.speech.astype(np.float16), more, format=FORMAT)
        listed.append({
            "file": path.name, "sha256": file_sha256(path), "text": take.text, "seconds": round(take.mouth.seconds, 2),
            "checks": dict(take.checks),
        })  # fmt: skip
    save_tensors(folder / BASIS, {name: getattr(prior, name) for name in _BASIS}, {"format": FORMAT})
    basis = {"file": BASIS, "sha256": file_sha256(folder / BASIS), "encoder": prior.encoder.config}
    head = {"format": FORMAT, "licence": LICENCE, **about}
    write_json(folder / ABOUT, head | {"speech": basis, "takes": listed})


def without_rest(takes: Sequence[Take]) -> list[Take]:
    """Take out the lips at rest: the median of their shape over all that was seen. The gap between them stays."""
    values = np.concatenate([take.mouth.values[take.mouth.seen] for take in takes])
    rest = np.zeros(values.shape[1], np.float32)
    rest[: len(GEOMETRY)] = np.median(values, 0)[: len(GEOMETRY)]
    return [replace(take, mouth=replace(take.mouth, values=take.mouth.values - rest)) for take in takes]


def read_take(path: Path, encoder: SpeechEncoder) -> tuple[Mouth, np.ndarray]:
    """Read a take as `prior train` takes it.

    Args:
        path: Its file, with the rest of the folder beside it.
        encoder: Whose features are wanted.

    Returns:
        What the mouth did, and features [mouth.rows, encoder.dim], as far as the components tell.

    Raises:
        AvatarError: The statement is missing or does not name this file, another encoder made the features, or a file
            is damaged.
    """
    about = _about(path)
    speech = about.record("speech")
    if speech.value("encoder") != _plain(encoder.config):
        raise AvatarError(
            f"{about.where} has speech features of another encoder than the shared model's.",
            fix="Give the --base of that model.",
        )
    basis_path = path.with_name(BASIS)
    _check_hash(basis_path, speech.text("sha256"))
    tensors = load_tensors(basis_path)[0]
    sizes = check_tensors(tensors, basis_path, _BASIS)
    mean, std, basis = (tensors[name].float() for name in _BASIS)
    if sizes["F"] != encoder.dim or not bool((std > 0).all()):
        raise AvatarError(f"{basis_path} does not fit its encoder.", fix=_FIX)
    mouth, components = read_mouth(path), read_features(path)
    check_numbers(mouth.values, f"{path}: values")
    if components.shape != (mouth.rows, sizes["K"]):
        raise AvatarError(f"{path}: its features are {list(components.shape)}, not {[mouth.rows, sizes['K']]}.")
    check_tensors(load_tensors(path)[0], path, {"arkit": f"T {len(ARKIT)}", "head": "T 3", "values": "T A"})
    frames = len(mouth.values)
    if mouth.fps < MIN_FPS or mouth.rows > frames / mouth.fps * RATE:  # memory follows from what is in the file
        raise AvatarError(f"{path}: its {frames} frames at {mouth.fps:g} per second do not last as long as its speech.")
    features = mean + std * (torch.from_numpy(components).float() @ basis.T)
    check_numbers(features, f"{path}: its speech by {basis_path.name}")
    return mouth, features.numpy()


def _about(path: Path) -> Record:
    """What is said about a take, once its statement is found to be one for it."""
    file = path.with_name(ABOUT)
    if not file.is_file():
        raise AvatarError(f"{path} has no {ABOUT} beside it, which says who gave the tracks.", fix=_FIX)
    about = Record(read_json(file, _FIX), file)
    if about.value("format", None) != FORMAT:
        raise AvatarError(f"{file} is of another version: its format is not {FORMAT}.", fix="Record the tracks again.")
    if about.text("licence") != LICENCE or not about.text("name") or not about.list("statement"):
        raise AvatarError(f"{file} holds no statement that gives the tracks under {LICENCE}.", fix=_FIX)
    for take in about.records("takes"):
        if take.text("file") == path.name:
            _check_hash(path, take.text("sha256"))
            return about
    raise AvatarError(f"{file} does not name {path.name}:", why="nobody said that it may be used.", fix=_FIX)


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise AvatarError(f"{path} is missing.", fix=_FIX)
    if file_sha256(path) != expected:
        raise AvatarError(f"{path} is not the file that {ABOUT} names: it was changed.", fix=_FIX)


def _plain(config: Any) -> Any:
    """A configuration as JSON gives it back."""
    import json

    return json.loads(json.dumps(config))
