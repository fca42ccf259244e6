"""Benchmark results as tables (on the console and in Markdown) and plots; every number is read from the JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from avatar.checks import Record, read_text, reading
from avatar.errors import AvatarError
from avatar.paths import read_json
from avatar.writing import atomic_file

PAGE = "README.md"
_BEGIN = "# Benchmarks\n\nWritten by `avatar bench --docs`"
HEADER = f"""{_BEGIN} from the JSON files beside it; not edited by hand. Milliseconds are medians. Forward:
without gradients. f+b: forward and backward pass together. Ratios are of times of the same run, taken in turns, each
with the number of threads that suits it best.
Memory is what a run takes beyond what was there before, or, of the whole model, the most that the process had.
"""


class Table(NamedTuple):
    """A title, the names of the columns, and the rows as text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def hardware_name(result: dict[str, Any]) -> str:
    """A file name for the hardware of a result: processor and cores, and the GPU if there is one."""
    hardware = result["hardware"]
    cpu = re.sub(r"\((R|TM|C)\)|\b(CPU|Processor)\b|@.*", " ", hardware["cpu"], flags=re.IGNORECASE)
    words = [cpu, f"{hardware['cores']}core", hardware.get("gpu") or ""]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def tables(result: dict[str, Any]) -> list[Table]:
    """Every table of a result."""
    made = [_cpu_table(result), _gpu_table(result), _model_table(result), _length_table(result)]
    return [table for table in made if table.rows]


def _cpu_table(result: dict[str, Any]) -> Table:
    threads = result["threads"]
    few, many = min(threads), max(threads)
    columns = ["op", "Gaussians", "image"]
    columns += [f"{part}, {count} thr" for count in threads for part in ("forward", "f+b")]
    if few != many:
        columns.append(f"f+b, {few} → {many} thr")
    columns += ["reference f+b", "reference / native", "memory"]
    rows = []
    for point, found in _points(result, "cpu").items():
        native = {row["threads"]: row for row in found if row["implementation"] == "native"}
        # On small inputs and busy machines torch's threads cost more than they help: the better of its times counts.
        reference = min((row for row in found if row["implementation"] == "reference"), key=_time, default=None)
        cells = [point[0], _count(point[1]), _count(point[2])]
        for count in threads:
            cells += [_ms(native.get(count), "forward_ms"), _ms(native.get(count), "both_ms")]
        if few != many:
            cells.append(_ratio(_time(native.get(few)), _time(native.get(many))))
        best = min(native.values(), key=_time, default=None)
        cells += [_ms(reference, "both_ms"), _ratio(_time(reference), _time(best))]
        cells.append(_bytes((best or reference or {}).get("extra_bytes")))
        rows.append(cells)
    return Table("Kernels on the CPU, ms", columns, rows)


def _gpu_table(result: dict[str, Any]) -> Table:
    columns = ["op", "Gaussians", "image", "implementation", "forward", "f+b", "f+b, to native", "memory"]
    rows = []
    for point, found in _points(result, "cuda").items():
        native = next((row for row in found if row["implementation"] == "native"), None)
        for row in found:
            rows.append(
                [
                    point[0], _count(point[1]), _count(point[2]), row["implementation"], _ms(row, "forward_ms"),
                    _ms(row, "both_ms"), _ratio(_time(row), _time(native)), _bytes(row["extra_bytes"]),
                ]
            )  # fmt: skip
    return Table("Kernels on the GPU, ms", columns, rows)


def _model_table(result: dict[str, Any]) -> Table:
    columns = ["Gaussians", "image", "frame, ms", "frames/s", "peak memory", "training step, ms", "peak memory "]
    rows = [
        [
            _count(row["gaussians"]), _count(row["size"]), f"{row['frame_ms']:.1f}", f"{1e3 / row['frame_ms']:.1f}",
            _bytes(row["frame_peak_bytes"]), f"{row['step_ms']:.1f}", _bytes(row["step_peak_bytes"]),
        ]
        for row in result["model"]
    ]  # fmt: skip
    return Table(f"The whole model, {max(result['threads'])} threads", columns, rows)


def _length_table(result: dict[str, Any]) -> Table:
    rows = [
        [
            str(row["frames"]),
            f"{row['seconds']:.2f}",
            f"{row['frames'] / row['seconds']:.1f}",
            _bytes(row["peak_bytes"]),
        ]
        for row in result["length"]
    ]
    first = result["length"][0] if result["length"] else {"gaussians": 0, "size": 0}
    title = f"Rendering to mp4, {_count(first['gaussians'])} Gaussians, {first['size']} pixels"
    return Table(title, ["frames", "seconds", "frames/s", "peak memory"], rows)


def _points(result: dict[str, Any], device: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows of the ops by op, Gaussians and size, in the order of the ops."""
    points: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    order = {name: i for i, name in enumerate(dict.fromkeys(row["case"] for row in result["ops"]))}
    for row in sorted(result["ops"], key=lambda r: (order[r["case"]], r["size"] or 0, r["gaussians"] or 0)):
        if row["device"] == device:
            points.setdefault((row["case"], row["gaussians"], row["size"]), []).append(row)
    return points


def _time(row: dict[str, Any] | None) -> float:
    """What ratios are of: both passes, or the forward pass of an op without gradients; 0 for none."""
    return 0.0 if row is None else row["both_ms"] or row["forward_ms"]


def _ms(row: dict[str, Any] | None, key: str) -> str:
    value = None if row is None else row[key]
    return "" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _ratio(above: float, below: float) -> str:
    return "" if not above or not below else f"{above / below:.2f}" if above < 10 * below else f"{above / below:.0f}"


def _bytes(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:.0f} MB"


def _count(value: int | None) -> str:
    return "" if value is None else str(value)


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table as Grid

    from avatar.log import console

    console.print(_where(result), markup=False)
    for table in tables(result):
        grid = Grid(*table.columns, title=table.title, title_justify="left")
        grid.columns[0].no_wrap = True
        for row in table.rows:
            grid.add_row(*row)
        widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
        wide = max(console.width, sum(widths) + 3 * len(widths) + 1)  # a narrow terminal must not cut numbers
        Console(file=console.file, width=wide).print(grid, crop=False)
    for line in _notes(result):
        console.print(line, markup=False)


def _where(result: dict[str, Any]) -> str:
    hardware = result["hardware"]
    parts = [f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_bytes'] / 2**30:.0f} GB"]
    parts += [hardware["gpu"]] if hardware["gpu"] else []
    commit = (result["commit"] or "unknown")[:12] + ("+changes" if "+changes" in (result["commit"] or "") else "")
    parts += [result["library"], f"torch {result['versions'].get('torch', '?')}", f"commit {commit}", result["date"]]
    if result["load_before"] is not None:
        parts.append(f"load average before the run {result['load_before']:.1f}")
    return "; ".join(parts) + "."


def _notes(result: dict[str, Any]) -> list[str]:
    lines = [
        f"Scene of {s['gaussians']} Gaussians, {s['size']} pixels: {s['pairs_per_tile']:.0f} Gaussians per 16x16 tile."
        for s in result["scenes"]
        if s["pairs_per_tile"] is not None
    ]
    return lines + [f"Left out: {s['case']} by {s['implementation']}. {s['why']}" for s in result["skipped"]]


def markdown(result: dict[str, Any], image: str) -> str:
    """The section of one machine."""
    lines = [f"## {hardware_name(result)}", "", _where(result), "", f"![cost curves]({image})", ""]
    for table in tables(result):
        numbers = ["---" if i == 0 else "--:" for i in range(len(table.columns))]
        lines += [f"### {table.title}", ""]
        lines += ["| " + " | ".join(cells) + " |" for cells in (table.columns, numbers, *table.rows)]
        lines.append("")
    lines += [f"- {line}" for line in _notes(result)]
    return "\n".join(lines).rstrip() + "\n"


def check_page(folder: Path) -> None:
    """Refuse a folder whose README.md somebody else wrote.

    Raises:
        AvatarError: It is one.
    """
    page = folder / PAGE
    if page.exists() and not read_text(page, "a page").startswith(_BEGIN):
        raise AvatarError(f"{page} was not written by `avatar bench`.", fix="Choose another folder for --docs.")


def write_pages(folder: Path) -> Path:
    """README.md with the tables of every JSON file of a folder, and a plot beside each.

    Raises:
        AvatarError: The folder holds no result, a JSON file that is none, or a README.md of somebody else.
    """
    from avatar.bench.run import FORMAT

    check_page(folder)
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise AvatarError(f"{folder} holds no results (*.json).", fix=f"Measure: avatar bench --docs {folder}")
    sections = []
    for path in paths:
        result = Record(read_json(path), path).data
        if result.get("format") != FORMAT:
            raise AvatarError(f"{path} is not a result of this version of `avatar bench`.", fix="Move it away.")
        with reading(path, "a result of `avatar bench`", "Move it away."):
            plot(result, path.with_suffix(".png"))
            sections.append(markdown(result, path.with_suffix(".png").name))
    page = folder / PAGE
    with atomic_file(page) as temporary:
        temporary.write_text("\n".join([HEADER, *sections]), encoding="utf-8")
    return page


def plot(result: dict[str, Any], path: Path) -> None:
    """Four panels: ops against the reference; time over Gaussians, over pixels, over the length of the video."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2)
    _plot_ops(panels[0, 0], result)
    usual = _usual(result["model"])
    over = [row for row in result["model"] if row["size"] == usual[1]]
    _plot_model(panels[0, 1], [row["gaussians"] for row in over], over, f"Gaussians, at {usual[1]} pixels")
    over = [row for row in result["model"] if row["gaussians"] == usual[0]]
    _plot_model(panels[1, 0], [row["size"] ** 2 for row in over], over, f"pixels, at {usual[0]} Gaussians")
    _plot_length(panels[1, 1], result["length"])
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png", metadata={"Software": None})


def _usual(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """The Gaussians and the size that most points of the model share: where its curves cross."""

    def most(key: str) -> int:
        values = [row[key] for row in rows]
        return max(values, key=values.count, default=0)

    return most("gaussians"), most("size")


def _plot_ops(axes: Any, result: dict[str, Any]) -> None:
    """f+b of each op by each implementation, at the largest point where the reference was timed."""
    chosen: dict[tuple[str, str], float] = {}
    for device in ("cpu", "cuda"):
        for (case, _, _), found in _points(result, device).items():
            compared = any(row["implementation"] == "reference" for row in found)
            if compared or not any(name == case for name, _ in chosen):
                for row in sorted(found, key=_time, reverse=True):  # the fastest number of threads is kept
                    label = row["implementation"] if device == "cpu" else f"{row['implementation']}, GPU"
                    chosen[case, label] = _time(row)
    cases = list(dict.fromkeys(case for case, _ in chosen))
    labels = list(dict.fromkeys(label for _, label in chosen))
    width = 0.8 / max(len(labels), 1)
    for i, label in enumerate(labels):
        at = [j + i * width for j, case in enumerate(cases) if (case, label) in chosen]
        axes.bar(at, [chosen[case, label] for case in cases if (case, label) in chosen], width, label=label)
    axes.set_xticks([j + 0.4 - width / 2 for j in range(len(cases))], cases, rotation=25, ha="right", fontsize=8)
    axes.set(yscale="log", ylabel="ms, forward + backward", title="Ops")
    if labels:
        axes.legend(fontsize=8)


def _plot_model(axes: Any, x: list[int], rows: list[dict[str, Any]], label: str) -> None:
    for key, name in (("frame_ms", "frame"), ("step_ms", "training step")):
        axes.plot(x, [row[key] for row in rows], "o-", label=name)
    axes.set(xlabel=label, ylabel="ms", title="The whole model")
    if rows:
        axes.set(xscale="log", yscale="log")
        axes.legend(fontsize=8)
    memory = axes.twinx()
    for i, key in enumerate(("frame_peak_bytes", "step_peak_bytes")):
        memory.plot(x, [row[key] / 2**20 for row in rows], "s--", color=f"C{i}", alpha=0.5, markersize=4)
    memory.set(ylabel="peak memory, MB (dashed)", ylim=(0, None))


def _plot_length(axes: Any, rows: list[dict[str, Any]]) -> None:
    frames = [row["frames"] for row in rows]
    axes.plot(frames, [row["seconds"] for row in rows], "o-", color="C0")
    axes.set(xlabel="frames", ylabel="seconds (blue)", ylim=(0, None), title="Rendering to mp4")
    memory = axes.twinx()
    memory.plot(frames, [row["peak_bytes"] / 2**20 for row in rows], "s--", color="C1")
    most = max((row["peak_bytes"] / 2**20 for row in rows), default=1.0)
    memory.set(ylabel="peak memory, MB (orange)", ylim=(0, 1.2 * most))
