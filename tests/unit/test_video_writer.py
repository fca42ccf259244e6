"""The mp4 writer: timing of the sound, odd sizes, and never half a file under the final name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avatar.errors import AvatarError
from avatar.io.video_writer import VideoWriter

FPS = 25


def click_track(path: Path, rate: int, seconds: float, clicks: list[float]) -> Path:
    """A silent file with a 20 ms tone at each of the given seconds."""
    samples = np.zeros(round(rate * seconds), np.float32)
    tone = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(rate // 50) / rate)
    for at in clicks:
        samples[round(at * rate) : round(at * rate) + len(tone)] = tone
    soundfile.write(path, samples, rate)
    return path


def heard_clicks(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        frames = list(file.decode(file.streams.audio[0]))
    samples = np.concatenate([f.to_ndarray()[0] for f in frames])
    times = frames[0].time + np.flatnonzero(np.abs(samples) > 0.3) / frames[0].sample_rate
    return [float(t) for i, t in enumerate(times) if i == 0 or t - times[i - 1] > 0.1]


def seen(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    return [f.to_ndarray(format="rgb24") for f in frames], [f.time for f in frames]


def picture(i: int, width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 2 + i, y * 2, np.full_like(x, 90)], -1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("suffix", "rate"), [(".wav", 16000), (".flac", 44100), (".mp3", 24000)])
def test_sound_stays_with_the_picture(tmp_path: Path, suffix: str, rate: int) -> None:
    sound = click_track(tmp_path / f"clicks{suffix}", rate, 4, [1.0, 2.0, 3.0])
    with VideoWriter(tmp_path / "out.mp4", 64, 48, FPS, audio=sound) as writer:
        for i in range(4 * FPS):
            writer.write(np.full((48, 64, 3), 255 if i in (25, 50, 75) else 20, np.uint8))
    pictures, times = seen(tmp_path / "out.mp4")
    flashes = [t for p, t in zip(pictures, times, strict=True) if p.mean() > 200]
    assert flashes == pytest.approx([1, 2, 3], abs=1e-6)
    assert heard_clicks(tmp_path / "out.mp4") == pytest.approx([1, 2, 3], abs=0.004)


def test_audio_start_skips_and_sound_ends_with_the_picture(tmp_path: Path) -> None:
    sound = click_track(tmp_path / "clicks.wav", 16000, 20, [float(t) for t in range(1, 20)])
    with VideoWriter(tmp_path / "out.mp4", 64, 48, FPS, audio=sound, audio_start=10.6) as writer:
        for i in range(2 * FPS):
            writer.write(picture(i, 64, 48))
    assert heard_clicks(tmp_path / "out.mp4") == pytest.approx([0.4, 1.4], abs=0.004)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.duration / av.time_base == pytest.approx(2.0, abs=0.1)


def test_sound_of_a_video_is_copied_and_can_be_cut(tmp_path: Path) -> None:
    sound = click_track(tmp_path / "clicks.wav", 16000, 6, [1.0, 2.0, 3.0, 4.0, 5.0])
    for source, start, expected in ((sound, 0.0, [1.0, 2.0]), (tmp_path / "0.mp4", 0.0, [1.0, 2.0])):
        with VideoWriter(tmp_path / f"{int(source != sound)}.mp4", 64, 48, FPS, audio=source, audio_start=start) as w:
            for i in range(int(2.5 * FPS)):
                w.write(picture(i, 64, 48))
        assert heard_clicks(w.path) == pytest.approx(expected, abs=0.004)
    packets = []
    for name in ("0.mp4", "1.mp4"):
        with av.open(str(tmp_path / name)) as file:
            packets.append([bytes(p) for p in file.demux(audio=0) if p.size])
    assert packets[1] == packets[0][: len(packets[1])]  # bit for bit the packets of the source
    with VideoWriter(tmp_path / "cut.mp4", 64, 48, FPS, audio=tmp_path / "0.mp4", audio_start=0.8) as w:
        for i in range(2 * FPS):
            w.write(picture(i, 64, 48))
    assert heard_clicks(w.path) == pytest.approx([0.2, 1.2], abs=0.004)


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (33, 50)])
def test_size_count_and_colours(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    with VideoWriter(tmp_path / "out.mp4", width, height, 29.97) as writer:
        for i in range(12):
            writer.write(picture(i, width, height))
    pictures, times = seen(tmp_path / "out.mp4")
    assert len(pictures) == 12
    assert times[-1] == pytest.approx(11 / 29.97, abs=1e-3)
    assert pictures[0].shape == (height + height % 2, width + width % 2, 3)
    for i in (0, 11):
        assert np.abs(pictures[i][:height, :width].astype(int) - picture(i, width, height)).mean() < 4
    with av.open(str(tmp_path / "out.mp4")) as file:
        context = file.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert tags == (1, 1, 1, 1)  # BT.709 throughout, limited range


def test_saturated_colours_are_read_back_by_the_matrix_that_is_tagged(tmp_path: Path) -> None:
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [229, 153, 131]], np.uint8)
    image = np.repeat(np.repeat(colours[None], 64, 0), 32, 1)
    with VideoWriter(tmp_path / "out.mp4", 128, 64, FPS) as writer:
        writer.write(image)
    with av.open(str(tmp_path / "out.mp4")) as file:
        planes = next(file.decode(video=0)).to_ndarray(format="yuv444p")[:, 32, 16::32].astype(float)
    luma = (planes[0] - 16) / 219 * 255
    np.testing.assert_allclose(luma, colours @ [0.2126, 0.7152, 0.0722], atol=3)
    assert np.abs(seen(tmp_path / "out.mp4")[0][0][8:56, 8:24].astype(int) - colours[0]).max() < 8


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "out.mp4", 64, 48, FPS) as writer:
        writer.write(picture(0, 64, 48))
        raise RuntimeError("the renderer failed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", [b"", b"a video"])
def test_a_kill_changes_nothing_under_the_final_name(tmp_path: Path, before: bytes) -> None:
    if before:
        (tmp_path / "out.mp4").write_bytes(before)
    code = f"""
        import numpy as np, pathlib, time
        from avatar.io.video_writer import VideoWriter
        w = VideoWriter(pathlib.Path({str(tmp_path / "out.mp4")!r}), 64, 48, 25)
        for _ in range(200): w.write(np.zeros((48, 64, 3), np.uint8))
        print("ready", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert ((tmp_path / "out.mp4").read_bytes() if before else (tmp_path / "out.mp4").exists()) == (before or False)
    with VideoWriter(tmp_path / "out.mp4", 64, 48, FPS) as writer:
        writer.write(picture(0, 64, 48))
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"] and (tmp_path / "out.mp4").stat().st_size > 500


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "silent film"])
def test_bad_sound_is_a_sentence_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    sound = tmp_path / "sound.mp4"
    if kind == "empty":
        sound.touch()
    elif kind == "text":
        sound.write_text("not a sound at all" * 50)
    elif kind == "silent film":
        with VideoWriter(sound, 64, 48, FPS) as writer:
            writer.write(picture(0, 64, 48))
    with pytest.raises(AvatarError, match="sound"):
        VideoWriter(tmp_path / "out.mp4", 64, 48, FPS, audio=sound)
    assert [p.name for p in tmp_path.iterdir()] == ([] if kind == "missing" else ["sound.mp4"])


def test_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AvatarError, match=r"file"):
        VideoWriter(tmp_path / "file" / "out.mp4", 64, 48, FPS)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write fails in the same place."""
    code = f"""
        import numpy as np, pathlib, resource, signal
        from avatar.errors import AvatarError
        from avatar.io.video_writer import VideoWriter
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        noise = np.random.default_rng(0).integers(0, 255, (5, 96, 96, 3), dtype=np.uint8)
        try:
            with VideoWriter(pathlib.Path({str(tmp_path / "out.mp4")!r}), 96, 96, 25) as writer:
                for i in range(200):
                    writer.write(noise[i % 5])
        except AvatarError as error:
            print("told:", error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert "told:" in done.stdout and "out.mp4" in done.stdout, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
