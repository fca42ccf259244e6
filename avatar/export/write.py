"""Write an avatar in a format by its name: `avatar export` for Python programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar.errors import AvatarError
from avatar.export.base import write
from avatar.export.registry import EXPORTERS

if TYPE_CHECKING:
    from avatar.export.base import Exporter, ExportSource


def export_avatar(source: ExportSource, format: str, path: Path | None = None, **options: Any) -> Path:
    """Write an avatar, its motion, or its person in a format.

    Args:
        source: What is written; a format needs some of its fields.
        format: Name of the format, as for `avatar export --format`.
        path: The file or folder; by default where the format's files are in the RUN folder.
        options: Those of the format, such as ``modes=16`` of ``baked``.

    Returns:
        Where it was written.

    Raises:
        AvatarError: There is no such format or option, the source lacks what it needs, or it cannot be written.
    """
    kind: Any = EXPORTERS.get(format)
    try:
        exporter: Exporter = kind(**options)
    except TypeError as error:
        raise AvatarError(f"The options of the format {format!r} are not understood.", why=f"{error}.") from None
    needed = {need for need in exporter.needs() if need != "optional-motion"}
    if lacking := sorted(need for need in needed if getattr(source, need) is None):
        raise AvatarError(
            f"The format {format!r} needs {' and '.join(lacking)}.", fix="Give it as a field of ExportSource."
        )
    if path is None:
        if exporter.default is None:
            raise AvatarError(f"The format {format!r} needs a path.", fix="Name the file or folder to write.")
        path = source.folder / exporter.default
    if exporter.suffixes and not path.name.lower().endswith(exporter.suffixes):
        raise AvatarError(f"{path} must end in {' or '.join(exporter.suffixes)}.")
    write(exporter, source, path)
    return path
