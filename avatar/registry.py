"""One registry for everything that is found by its name: methods, encoders, exporters, text-to-speech engines.

Built-ins are imported when they are asked for. Other people's packages announce theirs as entry points::

    [project.entry-points."avatar.exporters"]
    gltf = "my_package.gltf:GltfExporter"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from avatar import log
from avatar.errors import AvatarError

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(Generic[T]):
    """Names of one kind of thing, and the classes behind them.

    Args:
        kind: What messages call one of them, such as "exporter".
        group: Entry-point group of other people's packages, such as "avatar.exporters".
        builtins: Module to import for each built-in name; importing it registers the name.
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, str]) -> None:
        self.kind, self.group, self.builtins = kind, group, dict(builtins)
        self._known: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: enter a class under a name.

        Raises:
            AvatarError: Another class has the name already.
        """

        def enter(cls: C) -> C:
            known = self._known.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise AvatarError(f"Two classes want to be the {self.kind} {name!r}.",
                                  why=f"{known.__module__} has registered it before {cls.__module__}.")  # fmt: skip
            self._known[name] = cls
            return cls

        return enter

    def names(self) -> list[str]:
        """Every known name, sorted, without importing what is behind it."""
        return sorted({*self.builtins, *self._known, *(point.name for point in entry_points(group=self.group))})

    def get(self, name: str) -> type[T]:
        """The class behind a name.

        A plug-in that cannot be loaded is a warning; the name is then unknown.

        Raises:
            AvatarError: The name is unknown; the known ones are listed.
        """
        if name not in self._known and name in self.builtins:
            import_module(self.builtins[name])
        if name not in self._known:
            for point in entry_points(group=self.group, name=name):
                self._load(point)
        if name not in self._known:
            raise AvatarError(f"There is no {self.kind} {name!r}.", fix=f"Known are {', '.join(self.names())}.")
        return self._known[name]

    def _load(self, point: Any) -> None:
        """Import the class of an entry point. Its own `register` may have entered it; otherwise its name does."""
        try:
            self._known.setdefault(point.name, point.load())
        except Exception as error:  # anything can go wrong in other people's code; the command goes on without it
            log.warn(
                f"The {self.kind} {point.name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
            )
