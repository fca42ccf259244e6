"""Numbers that pages quote are those of their records."""

from __future__ import annotations

from pathlib import Path

from avatar.paths import write_json
from pipelines import quoted
from pipelines.quoted import Quote

ROOT = Path(__file__).resolve().parents[2]


def test_pages_say_what_their_records_say() -> None:
    assert not quoted.wrong(quoted.QUOTES, ROOT)


def test_a_number_of_an_earlier_record_is_found(tmp_path: Path) -> None:
    write_json(
        tmp_path / "record.json", {"audio": {"psnr": 34.74, "intervals": {"psnr": [33.96, 35.5]}}, "bytes": 5.96e6}
    )
    (tmp_path / "page.md").write_text("The head has 34.7 dB\n(34.0 to 35.5), in 6.0 MB.\n")
    interval = ("audio|psnr", "audio|intervals|psnr")
    right = Quote("page.md", "{:.1f} dB ({:.1f} to {:.1f})", "record.json", interval)
    scaled = Quote("page.md", "in {:.1f} MB", "record.json", ("bytes*1e-6",))
    earlier = Quote("page.md", "{:.2f} dB", "record.json", ("audio|psnr",))
    assert quoted.wrong([right, scaled, earlier], tmp_path) == ["page.md should say '34.74 dB', of record.json"]
