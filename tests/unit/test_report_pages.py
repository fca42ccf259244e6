"""The design that all HTML reports share: what is in a page, and what its script does in a real browser."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import av
import numpy as np

from avatar import page
from avatar.page import Cell
from pipelines.live_browser import Browser
from tests.browser import found_tools

ROWS = [
    ("PSNR", Cell("31.25", ("30.10 to 32.40",)), Cell("9.5"), "more is better"),
    ("LPIPS", Cell("-0.1"), Cell("1,200"), "less is better"),
    ("SSIM <script>", Cell("7%"), Cell("-"), "more is better"),
]


def example() -> str:
    """A page with everything on it."""
    sections = {
        "Numbers & more": page.table("Some numbers", ("metric", "audio", "real", "better"), ROWS),
        "Other": page.image("frames.jpg", 'A "sheet"', "A caption")
        + page.image("data:image/png;base64,", "Lines", plot=True),
        "List": page.items(["one", "<two>"]) + page.paragraph("Careful.", "warning"),
    }  # fmt: skip
    return page.page("A & B", page.video("side.mp4", "Real beside rendered", 25.0), sections)


def test_what_is_text_is_escaped_and_nothing_comes_from_elsewhere() -> None:
    text = example()
    assert "<title>A &amp; B</title>" in text and "SSIM &lt;script&gt;" in text and "<li>&lt;two&gt;</li>" in text
    assert 'alt="A &quot;sheet&quot;"' in text and text.count("<script>") == 1
    sources = re.findall(r"""(?:src|href|url|import)\s*[=(]\s*["']?([^"')\s>]+)""", text)
    files = {"frames.jpg", "data:image/png;base64,", "side.mp4"}
    assert set(sources) == {"data:,", "#numbers-more", "#other", "#list", *files}
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_a_page_can_be_read_aloud() -> None:
    text = example()
    assert '<html lang="en">' in text and text.count("<h1>") == 1 and "<main>" in text
    assert text.count('scope="col"') == 4 and text.count('scope="row"') == 3 and "<th></th>" not in text
    assert all(' alt="' in tag for tag in re.findall(r"<img[^>]*>", text))
    assert '<p class="warning">Careful.</p>' in text and page.items([]) == ""
    assert 'class="sortable"' not in page.table("Facts", ("what", "value"), [("a", "b")], sorts=False)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_text_has_the_contrast_of_wcag_aa() -> None:
    style = (Path(page.__file__).with_name("report.css")).read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for ink in ("ink", "soft", "strong", "good", "note", "bad"):
            for back in ("back", "card"):
                high, low = sorted((luminance(colors[ink]), luminance(colors[back])), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, back)


def counted_video(path: Path) -> None:
    """40 frames, each of its own brightness."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.gop_size = "yuv420p", 10
        for i in range(40):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 + 5 * i, np.uint8), "rgb24")))
        file.mux(stream.encode())


FIRST = "[...document.querySelectorAll('tbody th')].map((cell) => cell.textContent.slice(0, 5)).join()"


def test_tables_sort_and_the_video_steps_in_a_browser(tmp_path: Path) -> None:
    tools = found_tools()
    counted_video(tmp_path / "side.mp4")
    (tmp_path / "report.html").write_text(example())
    shown = "document.querySelector('.steps output').textContent"

    async def use() -> None:
        async with Browser(tools) as browser, browser.started() as chromium:
            async with browser.page(chromium, (tmp_path / "report.html").as_uri()) as tab:
                await tab.wait("document.querySelector('th button') && document.querySelector('video').readyState > 0")
                orders = []
                await tab.run("document.querySelectorAll('th button')[1].focus()")
                for _ in range(3):
                    await tab.act(["key", "Enter"])
                    orders.append([await tab.run(FIRST), await tab.run("document.querySelectorAll('th')[1].ariaSort")])
                assert orders == [
                    ["LPIPS,SSIM ,PSNR", "ascending"], ["PSNR,SSIM ,LPIPS", "descending"], ["PSNR,LPIPS,SSIM ", None],
                ]  # fmt: skip
                await tab.act(["click", "th:nth-child(3) button"])
                assert await tab.run(FIRST) == "PSNR,LPIPS,SSIM "  # 9.5, 1,200 and what is no number
                for key, frame in ((".", 1), (".", 2), (",", 1)):
                    await tab.act(["key", key])
                    await tab.wait(f"{shown}.startsWith('frame {frame} of 39')", 10)
                await tab.act(["click", ".steps button[data-step='1']"])
                await tab.wait(f"{shown} === 'frame 2 of 39, 0.08 s'", 10)
                assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
            async with browser.page(chromium, (tmp_path / "report.html").as_uri(), width=360, height=700) as tab:
                await tab.wait("document.querySelector('th button')")
                assert await tab.run("document.documentElement.scrollWidth <= innerWidth")  # only tables scroll

    asyncio.run(use())


def test_headings_have_names() -> None:
    named = {"In numbers": "in-numbers", "Fréchet, 95 %": "fr-chet-95", "é": "part"}
    assert {heading: page.anchor(heading) for heading in named} == named
