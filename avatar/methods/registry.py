"""Methods by name, and the models of files, which say by which method they were written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from avatar.errors import AvatarError
from avatar.methods.options import PHOTO, MethodConfig
from avatar.registry import Registry

if TYPE_CHECKING:
    from avatar.backends import RendererName
    from avatar.methods.base import Method
    from avatar.methods.options import TrainPreset

DEFAULT = "gaussian"
GROUP = "avatar.methods"  # entry-point group of other packages
_REGISTRY: Registry[Method] = Registry(
    "method",
    GROUP,
    {
        "gaussian": "avatar.methods.gaussian.method:GaussianAvatar",
        "nerf": "avatar.methods.nerf.method:NerfAvatar",
    },
    ("Config", "presets", "from_person", "from_checkpoint", "param_groups", "forward", "reference_motion"),
)
# Presets of built-in methods that can be read without torch, for a quick `avatar train --help`.
PRESETS = {
    "gaussian": "avatar.methods.gaussian.presets:PRESETS",
    "nerf": "avatar.methods.nerf.presets:PRESETS",
}
# What a run can be baked to, and the method that learns it. The first is the default.
BAKED = {"gaussians": "gaussian"}
M = TypeVar("M", bound="type[Method]")


def register_method(name: str) -> Callable[[M], M]:
    """Register a subclass of `avatar.methods.base.Method` under a name (class decorator).

    Raises:
        AvatarError: Another class has the name.
    """

    def register(cls: M) -> M:
        cls.name = name
        return _REGISTRY.register(name)(cls)

    return register


def method(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        AvatarError: There is none of this name; the sentence lists those that there are.
    """
    try:
        found = _REGISTRY.get(name)
    except AvatarError as error:
        raise AvatarError(
            f"There is no method {name!r}.", why=f"Known are {', '.join(method_names())}.",
            fix="Install the package that brings it, or choose another --method.",
        ) from error  # fmt: skip
    if not found.name:
        found.name = name  # named by its entry point alone
    if not (issubclass(found.Config, MethodConfig) and is_dataclass(found.Config)):
        raise AvatarError(f"The options of the method {name!r} ({found.Config.__name__}) are no dataclass below "
                          "MethodConfig.", fix="Report it to those who wrote the method.")  # fmt: skip
    if lacking := [field.name for field in fields(found.Config) if MISSING is field.default is field.default_factory]:
        raise AvatarError(f"Options of the method {name!r} have no default: {', '.join(lacking)}.",
                          fix="Report it to those who wrote the method.")  # fmt: skip
    return found


def method_names() -> list[str]:
    """Names of all methods, sorted, without importing any."""
    return _REGISTRY.names()


def preset(name: str, quality: str) -> TrainPreset:
    """Training options of a method at a quality.

    Raises:
        AvatarError: There is no such method, or it has no such quality.
    """
    if name in PRESETS:
        module, _, attribute = PRESETS[name].partition(":")
        presets: Mapping[str, Callable[[], TrainPreset]] = getattr(import_module(module), attribute)
    else:
        presets = method(name).presets()
    if quality == PHOTO and PHOTO not in presets:
        raise AvatarError(
            f"The method {name} needs a video: one photo is not enough.", fix=f"Leave out --method {name}."
        )
    if quality not in presets:
        raise AvatarError(f"--quality {quality} is not known.", fix=f"Choose one of {', '.join(presets)}.")
    return presets[quality]()


def load_model(path: Path, renderer: RendererName = "native") -> tuple[Method, dict[str, Any]]:
    """Read a model file.

    Args:
        path: The file.
        renderer: Backend that draws.

    Returns:
        The model, on the CPU, and what else the file says: ``method``, ``width``, ``height``, ``steps``.

    Raises:
        AvatarError: The file is missing, damaged or of another version; its method is not installed; a tensor does not
            fit the others; or a backend that it needs is not available.
    """
    from avatar.methods.model_file import read_model

    found = read_model(path, renderer)
    if found.method not in method_names():
        raise AvatarError(
            f"{path} is a model of the method {found.method!r}, which is not installed.",
            why=f"Installed are {', '.join(method_names())}.", fix="Install the package that brings it.",
        )  # fmt: skip
    return method(found.method).from_checkpoint(found.checkpoint), found.meta
