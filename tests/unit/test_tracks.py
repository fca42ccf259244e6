"""Several tracks and channels: the one with the voice is taken, by all readers and by the muxer, and it is told."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avatar.errors import AvatarError
from avatar.infer.sources import AudioFile
from avatar.io.audio import load_audio, probe_audio, read_audio
from avatar.io.listening import AudioContent, audio_content
from avatar.io.media import Treatment, open_media
from avatar.io.tracks import choose_audio, video_track, video_track_treatments
from avatar.io.video_writer import VideoWriter
from tests.sounds import RATE, Sound, hum, likeness, music, noise, voice, write_tracks

SILENT = np.zeros_like(voice())


@pytest.mark.parametrize(
    ("tracks", "taken", "why"),
    [
        ([Sound(noise()), Sound(voice(), ["default"], "Mic")], 2, "(Mic pcm_s16le, mono, default) was taken"),
        ([Sound(noise(), ["default"]), Sound(voice())], 2, "track 1 is only noise"),
        ([Sound(SILENT, ["default"]), Sound(voice())], 2, "track 1 is silent"),
        ([Sound(music(), ["default"]), Sound(voice())], 2, "track 1 "),
        ([Sound(SILENT), Sound(hum(), ["default"]), Sound(voice())], 3, "track 2 is only noise"),
        ([Sound(voice(), ["comment"]), Sound(voice()[::-1])], 2, "the first that can be used"),
        ([Sound(voice()[::-1], ["visual_impaired", "default"]), Sound(voice())], 2, "the first that can be used"),
        ([Sound(SILENT, ["default"]), Sound(noise())], 2, "track 1 is silent"),
        ([Sound(voice()), Sound(voice()[::-1])], 1, "the first that can be used"),
    ],
)  # fmt: skip
def test_the_default_track_first_then_one_with_a_voice(tmp_path: Path, tracks: list[Sound], taken: int, why: str):
    path = write_tracks(tmp_path / "a.mkv", tracks)
    info = probe_audio(path)
    assert info.choice.index == taken - 1
    (told,) = info.treatments
    assert told.kind == "audio-track" and told.text.startswith(f"Audio track {taken} of {len(tracks)}")
    assert why in told.text
    wanted = tracks[taken - 1].samples
    kept: list[Treatment] = []
    whole = np.concatenate(list(read_audio(path, 0.0, 5.0, treatments=kept)))
    for heard in (load_audio(path), whole / 32768, np.concatenate(list(AudioFile(path)))):
        assert likeness(heard, wanted) > 0.8
    assert kept == [told] and len(whole) == 80_000
    with VideoWriter(tmp_path / "out.mp4", 64, 64, 5.0, audio=path) as writer:
        for _ in range(25):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    assert likeness(load_audio(tmp_path / "out.mp4"), wanted) > 0.8


def test_another_track_can_be_asked_for(tmp_path: Path):
    path = write_tracks(tmp_path / "a.mkv", [Sound(voice(), ["default"]), Sound(music(), title="Band")])
    assert likeness(load_audio(path, track=2), music()) > 0.99 > 0.5 > likeness(load_audio(path), music())
    assert likeness(np.concatenate(list(read_audio(path, 0.0, 5.0, track=2))), music()) > 0.99
    assert likeness(np.concatenate(list(AudioFile(path, 2))), music()) > 0.99
    assert "as asked for" in probe_audio(path, 2).treatments[0].text
    for number in (0, 3):
        with pytest.raises(AvatarError, match=rf"no audio track {number}; its audio tracks are 1: .*, 2: Band pcm"):
            probe_audio(path, number)


def test_a_track_without_a_decoder_is_passed_over(tmp_path: Path):
    path = write_tracks(tmp_path / "a.mkv", [Sound(noise(), ["default"]), Sound(voice())])
    data = path.read_bytes()
    at = data.index(b"A_PCM/INT/LIT")
    path.write_bytes(data[:at] + b"A_APC/INT/LIT" + data[at + 13 :])
    assert likeness(load_audio(path), voice()) > 0.98
    assert "FFmpeg has no decoder for track 1" in probe_audio(path).treatments[0].text
    with pytest.raises(AvatarError, match=r"Audio track 1 of .* is coded in a way that FFmpeg does not know"):
        load_audio(path, track=1)


def test_the_default_video_track_is_taken(tmp_path: Path):
    from av.stream import Disposition

    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("mjpeg", rate=25) for _ in range(2)]
        for stream, size, kind in zip(streams, (64, 96), ("original", "default"), strict=True):
            stream.width = stream.height = size
            stream.pix_fmt, stream.disposition = "yuvj420p", Disposition[kind]
        for number in range(5):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.zeros((stream.width, stream.width, 3), np.uint8), format="rgb24")
                frame.pts = number
                file.mux(stream.encode(frame))
    with open_media(path) as file:
        assert [video_track(file, path, wanted).width for wanted in (None, 1, 2)] == [96, 64, 96]
        (told,) = video_track_treatments(file, video_track(file, path), None)
        assert told.text == "Video track 2 of 2 was taken: the default one."
        with pytest.raises(AvatarError, match="no video track 3; its video tracks are 1: mjpeg 64x64, 2: mjpeg 96x96"):
            video_track(file, path, 3)


# -- channels --------------------------------------------------------------------------------------------------------


def half(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    middle = len(first) // 2
    return np.concatenate([first[:middle], second[middle:]])


@pytest.mark.parametrize(
    ("channels", "taken"),
    [
        ([voice(), voice()], None),
        ([voice(), 0.4 * voice() + music()], None),
        ([half(voice(), 0.03 * voice()), half(0.03 * voice(), voice())], None),  # a microphone for each of two speakers
        ([voice(), -voice()], 0),
        ([0.5 * voice(), -voice()], 1),
        ([voice(), half(voice(), -voice())], 0),
        ([voice(), 0.3 * noise() - 0.8 * voice()], 0),
        ([voice(), SILENT], 0),
        ([noise(0.3), voice()], 1),
        ([0.01 * noise(), 0.01 * noise()[::-1], voice(), SILENT, SILENT, SILENT], 2),
        ([voice()] * 6, None),
        ([SILENT] * 7 + [voice()], 7),
        ([voice()] * 18, None),  # as mixing desks record; nobody names so many channels
        ([SILENT] * 8 + [voice()], 8),
        ([SILENT, SILENT], None),
    ],
)
def test_channels_that_would_lose_the_voice_are_not_mixed(
    tmp_path: Path, channels: list[np.ndarray], taken: int | None
):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.clip(np.stack(channels, 1), -1, 1), RATE)
    choice = choose_audio(path)
    assert choice.channel == taken
    samples = load_audio(path)
    if taken is None:
        assert choice.treatments == () and len(samples) == len(load_audio(path, track=1))
    else:
        assert [t.kind for t in choice.treatments] == ["channel"] and f"channel {taken + 1} of" in choice.treatments[
            0
        ].text
        assert likeness(samples, channels[taken]) > 0.99


def test_a_mix_is_as_loud_as_its_channels_whoever_reads_it(tmp_path: Path):
    soundfile.write(tmp_path / "one.wav", voice(), RATE)
    soundfile.write(tmp_path / "two.wav", np.stack([voice()] * 2, 1), RATE)
    one, two = (load_audio(tmp_path / f"{name}.wav") for name in ("one", "two"))
    np.testing.assert_allclose(one, two, atol=1e-4)
    read = np.concatenate(list(read_audio(tmp_path / "two.wav", 0.0, len(two) / 16_000)))
    np.testing.assert_array_equal(read, np.clip(np.rint(two * 32768), -32768, 32767))


def test_the_muxed_audio_keeps_its_channels(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.stack([voice(), -voice()], 1), RATE)
    with VideoWriter(tmp_path / "out.mp4", 64, 64, 5.0, audio=tmp_path / "a.wav") as writer:
        for _ in range(10):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with av.open(str(tmp_path / "out.mp4")) as file:
        left, right = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], 1)
    assert np.corrcoef(left, right)[0, 1] < -0.99


def test_the_muxed_audio_has_the_voice_of_more_channels_than_have_names(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.stack([SILENT] * 8 + [voice()], 1), RATE)
    with VideoWriter(tmp_path / "out.mp4", 64, 64, 5.0, audio=tmp_path / "a.wav") as writer:
        for _ in range(10):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    assert likeness(load_audio(tmp_path / "out.mp4"), voice()[: 2 * RATE]) > 0.95


# -- what is heard ---------------------------------------------------------------------------------------------------


def test_a_voice_is_told_from_other_sounds():
    sounds = {
        AudioContent.VOICE: [voice(), 0.1 * voice(), voice() + noise(0.03), voice() + hum()],
        AudioContent.SILENCE: [SILENT, noise(1e-4)],
    }
    for content, many in sounds.items():
        for samples in many:
            sixteen = np.interp(np.arange(len(samples) * 2 // 3) * 1.5, np.arange(len(samples)), samples)
            assert audio_content([sixteen]) is content
    for samples in (noise(), hum(), music(), np.cumsum(noise(0.01)) - np.cumsum(noise(0.01)).mean()):
        assert audio_content([samples]) < AudioContent.VOICE


@pytest.mark.parametrize(
    ("samples", "says"), [(SILENT, "it is silent, so the mouth stays closed"), (noise(), "only noise"), (voice(), None)]
)
def test_speaking_a_file_without_a_voice_is_warned_of(
    tmp_path: Path, samples: np.ndarray, says: str | None, caplog: pytest.LogCaptureFixture
):
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    with caplog.at_level(logging.INFO, "avatar"):
        AudioFile(tmp_path / "a.wav")
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (says is not None)
    if says is not None:
        assert says in warnings[0] and f"audio track 1 of {tmp_path / 'a.wav'}" in warnings[0]
