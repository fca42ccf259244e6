"""One registry for everything that is found by its name: methods, encoders, exporters, text-to-speech engines.

Built-ins are imported when they are asked for. Other people's packages announce theirs as entry points::

    [project.entry-points."avatar.exporters"]
    gltf = "my_package.gltf:GltfExporter"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from avatar import log
from avatar.errors import AvatarError

T = TypeVar("T")
C = TypeVar("C", bound=type)
_GROUPS: set[str] = set()  # entry-point groups of all registries


def plug_ins() -> dict[str, str]:
    """Top-level modules of other people's packages that announce something, and the name of each package."""
    points = [point for group in sorted(_GROUPS) for point in entry_points(group=group)]
    return {_top(point): _package(point) for point in points}


def _top(point: Any) -> str:
    return point.value.partition(":")[0].partition(".")[0]


def _package(point: Any) -> str:
    return point.dist.name if point.dist else _top(point)


class Registry(Generic[T]):
    """Names of one kind of thing, and the classes behind them.

    Args:
        kind: What messages call one of them, such as "exporter".
        group: Entry-point group of other people's packages, such as "avatar.exporters".
        builtins: For each built-in name ``module:Class``, or a module that registers the name when it is imported.
        needed: Attributes that every class has.
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, str], needed: Sequence[str] = ()) -> None:
        self.kind, self.group, self.builtins, self.needed = kind, group, dict(builtins), tuple(needed)
        self._known: dict[str, Any] = {}
        self._broken: set[str] = set()  # announced, but cannot be loaded
        self._ignored: set[str] = set()  # entry points that were warned of
        _GROUPS.add(group)

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: enter a class under a name.

        Raises:
            AvatarError: Another class has the name already, or the class lacks something.
        """

        def enter(cls: C) -> C:
            self._check(name, cls)
            known = self._known.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise AvatarError(f"Two classes want to be the {self.kind} {name!r}.",
                                  why=f"{known.__module__} has registered it before {cls.__module__}.")  # fmt: skip
            self._known[name] = cls
            return cls

        return enter

    def names(self) -> list[str]:
        """Every known name, sorted, without importing what is behind it."""
        announced = {point.name for point in entry_points(group=self.group)} - self._broken
        return sorted({*self.builtins, *self._known, *announced})

    def get(self, name: str) -> type[T]:
        """The class behind a name.

        A plug-in that cannot be loaded is a warning; the name is then unknown.

        Raises:
            AvatarError: The name is unknown; the known ones are listed.
        """
        if name not in self._known and name in self.builtins:
            module, _, cls = self.builtins[name].partition(":")
            loaded = import_module(module)
            if cls:
                self._known.setdefault(name, getattr(loaded, cls))
        points = [point for point in entry_points(group=self.group) if point.name == name]
        if name in self.builtins:
            for point in points:
                self._ignore(point, "the built-in one")
        elif name not in self._known:
            self._load(name, points)
        if name not in self._known:
            raise AvatarError(f"There is no {self.kind} {name!r}.", fix=f"Known are {', '.join(self.names())}.")
        return self._known[name]

    def _load(self, name: str, points: Sequence[Any]) -> None:
        """Import the class of the first entry point that can be. Its own `register` may have entered it."""
        found = None
        for point in points:
            if found is not None:
                if point.value != found.value:
                    self._ignore(point, f"that of the package {_package(found)}")
                continue
            try:
                cls = point.load()
                self._check(name, cls)
                self._known.setdefault(name, cls)
                found = point
            except (Exception, SystemExit) as error:  # anything can go wrong in other people's code
                self._known.pop(name, None)
                kind = "" if isinstance(error, AvatarError) else f"{type(error).__name__}: "
                log.warn(f"The {self.kind} {name!r} of the package {_package(point)} ({point.value}) cannot be loaded: "
                         f"{kind}{error}")  # fmt: skip
        if found is None and points:
            self._broken.add(name)

    def _ignore(self, point: Any, other: str) -> None:
        if point.value not in self._ignored:
            self._ignored.add(point.value)
            log.warn(f"The {self.kind} {point.name!r} of the package {_package(point)} is ignored: "
                     f"{other} has its name.")  # fmt: skip

    def _check(self, name: str, cls: Any) -> None:
        """Refuse what is no class of this kind, or takes the name of a built-in."""
        if not isinstance(cls, type):
            raise AvatarError(f"The {self.kind} {name!r} is a {type(cls).__name__}, not a class.")
        lacking = sorted({*getattr(cls, "__abstractmethods__", ()), *(n for n in self.needed if not hasattr(cls, n))})
        if lacking:
            raise AvatarError(f"The {self.kind} {name!r} lacks {', '.join(lacking)}.")
        own = self.builtins.get(name, cls.__module__)
        if own.partition(".")[0] != cls.__module__.partition(".")[0]:
            raise AvatarError(f"The {self.kind} {name!r} of {cls.__module__} has the name of a built-in one.",
                              fix="Choose another name.")  # fmt: skip
