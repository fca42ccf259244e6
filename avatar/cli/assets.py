"""Show, fetch and verify the pretrained parts."""

from __future__ import annotations

from dataclasses import dataclass

from avatar.errors import AvatarError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Show, fetch and verify the pretrained parts."""

    fetch: str = ""
    """Fetch this part now, or `all` of them (for a machine that will be offline later)."""
    verify: bool = False
    """Exit with an error if a part on this machine is damaged or missing."""


def main(config: Config) -> None:
    """Fetch what is asked for, and print a table.

    Raises:
        AvatarError: A part is not known, cannot be fetched or, with ``--verify``, is not here.
    """
    from rich.console import Console
    from rich.table import Table

    from avatar import paths
    from avatar.assets import store
    from avatar.log import next_command

    failed = _fetch_all() if config.fetch == "all" else []
    if config.fetch not in ("", "all"):
        store.fetch(config.fetch)
    current = store.states()
    table = Table("part", "size", "licence", "state", "what for", caption=f"cache: {paths.cache_dir() / 'assets'}")
    for name, asset in store.ASSETS.items():
        table.add_row(name, f"{asset.size / 1e6:.1f} MB", asset.licence, current[name], asset.purpose)
    Console().print(table)
    if failed:
        raise AvatarError(f"{', '.join(failed)} could not be fetched.", why="The warnings say what was tried.",
                          see="a-pretrained-part-cannot-be-fetched")  # fmt: skip
    if wrong := [name for name, state in current.items() if state in ("damaged", "absent")]:
        if config.verify:
            raise AvatarError(f"Damaged or absent: {', '.join(wrong)}.", fix="Fetch with `avatar assets --fetch all`.")
        next_command("avatar assets --fetch all")


def _fetch_all() -> list[str]:
    """Fetch every part that can be had; returns the names of the others, which warnings explain."""
    from avatar.assets import store
    from avatar.log import warn

    failed: list[str] = []
    for name in store.ASSETS:
        try:
            store.fetch(name)
        except AvatarError as error:
            warn(str(error))
            failed.append(name)
    return failed
