"""Person-specific talking avatars: a video of a person in, an avatar that speaks any audio out.

The public names are loaded when they are first used, so ``import avatar`` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

from avatar.device import wait_passively as _wait_passively

_wait_passively()  # before torch is loaded

if TYPE_CHECKING:
    from avatar.audio.encoders.base import AudioEncoder
    from avatar.audio.encoders.registry import register_encoder
    from avatar.audio2motion.base import AudioToMotion
    from avatar.data.dataset import PersonDataset
    from avatar.data.person import PersonInfo
    from avatar.data.run import RunInfo
    from avatar.errors import AvatarError
    from avatar.eval.options import EvalOptions
    from avatar.eval.run import Evaluation, evaluate
    from avatar.export.base import Exporter, ExportSource
    from avatar.export.registry import register_exporter
    from avatar.export.write import export_avatar
    from avatar.geometry.cameras import Camera
    from avatar.infer.avatar import Avatar
    from avatar.infer.camera_path import CameraPath
    from avatar.infer.controls import Controls
    from avatar.infer.jobs import render_avatar
    from avatar.infer.planner import MotionPlan, plan_motion
    from avatar.infer.renderer import Renderer
    from avatar.infer.session import Frame, Session
    from avatar.io.text_to_speech import TextToSpeech, register_tts
    from avatar.methods.base import Method, RenderOutput
    from avatar.methods.registry import register_method
    from avatar.motion.motion import Motion
    from avatar.preprocess.config import PrepareConfig
    from avatar.preprocess.pipeline import prepare
    from avatar.train.config import TrainConfig
    from avatar.train.config import from_preset as train_options
    from avatar.train.run import train as train_avatar

# Where each public name is: a module, or module:name where a folder of the package has the shorter name already.
_PUBLIC = {
    # An avatar, and what it does.
    "Avatar": "avatar.infer.avatar",
    "Camera": "avatar.geometry.cameras",
    "CameraPath": "avatar.infer.camera_path",
    "Controls": "avatar.infer.controls",
    "Frame": "avatar.infer.session",
    "Motion": "avatar.motion.motion",
    "MotionPlan": "avatar.infer.planner",
    "Renderer": "avatar.infer.renderer",
    "Session": "avatar.infer.session",
    "plan_motion": "avatar.infer.planner",
    "render_avatar": "avatar.infer.jobs",
    # From a video to an avatar, its numbers, and other formats.
    "EvalOptions": "avatar.eval.options",
    "Evaluation": "avatar.eval.run",
    "ExportSource": "avatar.export.base",
    "PersonDataset": "avatar.data.dataset",
    "PersonInfo": "avatar.data.person",
    "PrepareConfig": "avatar.preprocess.config",
    "RunInfo": "avatar.data.run",
    "TrainConfig": "avatar.train.config",
    "evaluate": "avatar.eval.run",
    "export_avatar": "avatar.export.write",
    "prepare": "avatar.preprocess.pipeline",
    "train_avatar": "avatar.train.run:train",
    "train_options": "avatar.train.config:from_preset",
    # Extensions.
    "AudioEncoder": "avatar.audio.encoders.base",
    "AudioToMotion": "avatar.audio2motion.base",
    "Exporter": "avatar.export.base",
    "Method": "avatar.methods.base",
    "RenderOutput": "avatar.methods.base",
    "TextToSpeech": "avatar.io.text_to_speech",
    "register_encoder": "avatar.audio.encoders.registry",
    "register_exporter": "avatar.export.registry",
    "register_method": "avatar.methods.registry",
    "register_tts": "avatar.io.text_to_speech",
    "AvatarError": "avatar.errors",
}

__all__ = [
    "AudioEncoder",
    "AudioToMotion",
    "Avatar",
    "AvatarError",
    "Camera",
    "CameraPath",
    "Controls",
    "EvalOptions",
    "Evaluation",
    "ExportSource",
    "Exporter",
    "Frame",
    "Method",
    "Motion",
    "MotionPlan",
    "PersonDataset",
    "PersonInfo",
    "PrepareConfig",
    "RenderOutput",
    "Renderer",
    "RunInfo",
    "Session",
    "TextToSpeech",
    "TrainConfig",
    "__version__",
    "evaluate",
    "export_avatar",
    "plan_motion",
    "prepare",
    "register_encoder",
    "register_exporter",
    "register_method",
    "register_tts",
    "render_avatar",
    "train_avatar",
    "train_options",
]


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, defined = _PUBLIC[name].partition(":")
    value = globals()[name] = getattr(import_module(module), defined or name)
    return value


def __dir__() -> list[str]:
    """Public names, also those that are not loaded yet."""
    return sorted({*globals(), *__all__})
