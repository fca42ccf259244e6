"""Numbers per frame: they come back from the file, and two avatars are compared on the same frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avatar.errors import AvatarError
from avatar.eval import per_frame, report, report_html
from avatar.eval.summary import Series, as_real, summarise

FPS, FRAMES, FIRST = 25.0, 400, 900


def videos(better: float = 0.0, seed: int = 0) -> dict[str, Series]:
    """A real video and one that is drawn from it; the frames differ much more than ``better``."""
    rng = np.random.default_rng(0)
    opening = rng.random(FRAMES)
    real = {"opening": opening, "jitter": rng.random(FRAMES), "identity": np.full(FRAMES, np.nan)}
    noise = np.random.default_rng(seed).normal(0, 0.01, FRAMES)
    psnr = 30 + 5 * np.sin(np.arange(FRAMES) / 30) + noise + better
    drawn = {"opening": opening + rng.normal(0, 0.3, FRAMES), "psnr": psnr, "identity": np.full(FRAMES, np.nan)}
    drawn["identity"][::10] = 0.9
    return {"real": real, "tracked": drawn, "shuffled": drawn}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, series = tmp_path / "frames.csv", videos()
    per_frame.write(path, series, FIRST, FPS)
    lines = path.read_text().splitlines()
    assert lines[0] == "video,frame,seconds,identity,jitter,opening,psnr" and len(lines) == 1 + 3 * FRAMES
    assert lines[1].startswith("real,900,36.000,,")
    back = per_frame.read(path)
    assert back.first == FIRST and list(back.series) == list(series)
    assert "identity" not in back.series["real"], "no frame has it"
    for name, values in back.series["tracked"].items():
        np.testing.assert_allclose(values, series["tracked"][name], rtol=1e-8)
    table = series["tracked"] | as_real(series["real"])
    again = back.series["tracked"] | as_real(back.series["real"])
    assert summarise(again, FPS)["psnr"] == pytest.approx(summarise(table, FPS)["psnr"])


def test_a_small_difference_on_the_same_frames_is_seen() -> None:
    ours, theirs = videos(0.1, seed=1), videos(seed=2)
    found = per_frame.differences(ours, theirs, FPS)
    assert set(found) == {"tracked", "shuffled"}
    low, high = found["tracked"]["intervals"]["psnr"]
    assert found["tracked"]["psnr"] == pytest.approx(0.1, abs=0.005)
    assert 0.09 < low < found["tracked"]["psnr"] < high < 0.11
    alone = summarise(theirs["tracked"], FPS)["intervals"]["psnr"]
    assert alone[1] - alone[0] > 1, "the intervals of the two hide it"
    turned = per_frame.differences(theirs, ours, FPS)["tracked"]
    assert turned["psnr"] == pytest.approx(-0.1, abs=0.005) and turned["intervals"]["psnr"] == [-high, -low]
    assert found["tracked"]["mouth_correlation"] == 0, "its real opening comes from the video 'real'"
    assert "lpips" not in found["tracked"], "neither has it"


def test_a_frame_that_one_side_lacks_counts_on_neither() -> None:
    """The face is not found in the frames that are hardest: without them that side looks better, and is not."""
    ours, theirs = videos(seed=1), videos(seed=1)
    error = np.where(np.arange(FRAMES) % 5, 1.0, 9.0)
    theirs["tracked"]["lmd"] = error
    ours["tracked"] = ours["tracked"] | {"lmd": np.where(error > 1, np.nan, error)}
    found = per_frame.differences(ours, theirs, FPS)["tracked"]
    assert found["lmd"] == 0 and found["intervals"]["lmd"] == pytest.approx([0, 0])


def test_other_frames_and_other_videos_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "frames.csv"
    per_frame.write(path, videos(), FIRST, FPS)
    other = per_frame.read(path)
    other.require_frames(FIRST, FIRST + FRAMES)
    with pytest.raises(AvatarError, match=r"frames 900 to 1299.*This measures 900 to 1298"):
        other.require_frames(FIRST, FIRST + FRAMES - 1)
    real = videos()["real"]
    other.require_video({name: values * 1.001 for name, values in real.items()})  # as another processor rounds
    with pytest.raises(AvatarError, match="another video"):
        other.require_video(real | {"opening": real["opening"][::-1]})
    with pytest.raises(AvatarError, match="another video"):
        other.require_video({"jitter": real["jitter"]})


def test_words_given_to_one_side_and_a_rounded_blink_are_no_other_video(tmp_path: Path) -> None:
    theirs, ours, notes = videos(seed=2), videos(0.1, seed=1), []
    blink = np.zeros(FRAMES)
    blink[50] = 1
    theirs["real"] = theirs["real"] | {"blink": blink}
    ours["real"] = ours["real"] | {"blink": 0 * blink, "closed": np.where(blink, 1.0, np.nan)}
    per_frame.write(tmp_path / "frames.csv", theirs, FIRST, FPS)
    found = per_frame.compared(ours, per_frame.read(tmp_path / "frames.csv"), FPS, notes)
    assert found is not None and found["file"] == "frames.csv" and notes == []
    assert found["videos"]["tracked"]["psnr"] == pytest.approx(0.1, abs=0.005)


def test_another_video_leaves_a_note_and_what_was_measured(tmp_path: Path) -> None:
    theirs, notes = videos(), []
    theirs["real"] = theirs["real"] | {"opening": theirs["real"]["opening"][::-1]}
    per_frame.write(tmp_path / "frames.csv", theirs, FIRST, FPS)
    assert per_frame.compared(videos(), per_frame.read(tmp_path / "frames.csv"), FPS, notes) is None
    assert len(notes) == 1 and "frames.csv is of another video" in notes[0]


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n", "video,frame,seconds,psnr\n", "video,frame,seconds,psnr\nreal,x,0.0,1\n",
     "video,frame,seconds,psnr\nreal,3,0.0\n", "video,frame,seconds,psnr\nreal,3,0.0,many\n",
     "video,frame,seconds,psnr\nreal,3,0.0,1\naudio,3,0.0,1\naudio,4,0.0,1\n", "\0"],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "frames.csv"
    path.write_text(text)
    with pytest.raises(AvatarError, match="holds no numbers per frame"):
        per_frame.read(path)
    with pytest.raises(AvatarError, match="does not exist"):
        per_frame.read(tmp_path / "other.csv")


def test_reports_show_differences_with_their_sign() -> None:
    found = {name: {"psnr": 0.104, "intervals": {"psnr": [-0.012, 0.2]}} for name in ("tracked", "shuffled")}
    result = {"against": {"file": "other.csv", "videos": found}}
    shown = report.differences(result)
    assert list(shown) == ["tracked"], "the floor is not shown"
    page = report_html.against(result, shown)
    assert "minus that of other.csv" in page and "+0.10" in page and "-0.01 to +0.20" in page
    assert report.differences({}) == {}
    short = {"too_short": True, "better_than_shuffled": {}}
    videos = {"audio": {"lmd": 0.2, "psnr": 0.1, "intervals": {"lmd": [0.1, 0.3]}}}
    result = {"against": {"file": "other.csv", "videos": videos}, "lips": short}
    page = report_html.against(result, report.differences(result))
    assert "too short" in page and "+0.20" not in page and "+0.10" in page, "as in the table of the numbers"
