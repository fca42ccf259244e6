"""Write the reference of the Python API: an entry of autodoc for each public name, by what it is for."""

from __future__ import annotations

import inspect

import avatar

GROUPS = {
    "An avatar": ("Avatar", "render_avatar", "Controls", "Camera", "CameraPath", "Renderer"),
    "Live sessions": ("Session", "Frame"),
    "Motion": ("Motion", "plan_motion", "MotionPlan"),
    "Prepare and train": (
        "prepare", "PrepareConfig", "PersonInfo", "PersonDataset", "train_avatar", "train_options", "TrainConfig",
        "RunInfo",
    ),
    "Measure and export": ("evaluate", "EvalOptions", "Evaluation", "export_avatar", "ExportSource"),
    "Extensions": (
        "Method", "RenderOutput", "register_method", "Exporter", "register_exporter", "AudioEncoder",
        "register_encoder", "AudioToMotion", "TextToSpeech", "register_tts",
    ),
    "Errors": ("AvatarError",),
}  # fmt: skip
OTHERS = "More"  # names that nobody has put into a group yet


def groups() -> dict[str, list[str]]:
    """Every public name, by title of its group."""
    public = [name for name in avatar.__all__ if not name.startswith("__")]
    found = {title: [name for name in names if name in public] for title, names in GROUPS.items()}
    placed = {name for names in found.values() for name in names}
    found[OTHERS] = [name for name in public if name not in placed]
    return {title: names for title, names in found.items() if names}


def markdown() -> str:
    """A section per group."""
    parts = []
    for title, names in groups().items():
        entries = [f".. auto{_kind(name)}:: {name}{_members(name)}" for name in names]
        parts.append("\n".join([f"## {title}", "", "```{eval-rst}", ".. currentmodule:: avatar", "", *entries, "```"]))
    return "\n\n".join(parts)


def _kind(name: str) -> str:
    thing = getattr(avatar, name)
    return "class" if inspect.isclass(thing) else "function" if callable(thing) else "data"


def _members(name: str) -> str:
    return "\n   :members:\n" if _kind(name) == "class" else "\n"
