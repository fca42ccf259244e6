"""Check the installation: what is here, whether it works, and what to do where it does not."""

from __future__ import annotations

from dataclasses import dataclass

from avatar.errors import AvatarError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Check the installation."""


def main(config: Config) -> None:
    """Print the findings.

    Raises:
        AvatarError: Something that is needed is broken.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from avatar.doctor.checks import examine
    from avatar.doctor.finding import BROKEN, GOOD, NOTE
    from avatar.log import next_command

    styles = {GOOD: "green", NOTE: "yellow", BROKEN: "red"}
    findings = examine()
    table = Table("part", "state", "found", "what to do", show_lines=False)
    for f in findings:
        table.add_row(f.part, f"[{styles[f.state]}]{f.state}[/]", escape(f.detail), escape(f.fix))
    Console().print(table)
    if broken := [f for f in findings if f.state == BROKEN]:
        raise AvatarError(
            f"Broken: {', '.join(f.part for f in broken)}.", fix=" ".join(f"{f.part}: {f.fix}" for f in broken if f.fix)
        )
    next_command("avatar demo")
