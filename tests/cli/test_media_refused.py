"""A sound or video file is the recording itself: nothing that names other files or addresses is followed."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.io.audio import load_audio
from avatar.io.media import open_media
from avatar.io.video import read_info
from avatar.io.video_writer import VideoWriter
from tests.media import write_sound, write_video

CONCAT = "ffconcat version 1.0\nfile {name}\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{name}\n#EXT-X-ENDLIST\n"
DASH = """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S"
profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1"
bandwidth="1"><BaseURL>{name}</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>"""
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a secret sound and a secret video that can be read."""
    monkeypatch.chdir(tmp_path)
    write_sound(tmp_path / "secret.wav", 1.0)
    picture = np.full((64, 64, 3), 90, np.uint8)
    write_video(tmp_path / "secret.mp4", [picture] * 10, tmp_path / "secret.wav")
    with av.open("secret.ts", "w") as output:  # what hls reads
        stream = output.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.ffconcat", CONCAT.format(name="secret.mp4")),
        ("list.txt", "# my takes\nfile 'secret.mp4'\n"),
        ("list.mp4", CONCAT.format(name="secret.mp4")),  # the content decides, not the name
        ("list.wav", CONCAT.format(name="secret.wav")),
        ("list.m3u8", HLS.format(name="secret.ts")),
        ("hls.mp4", HLS.format(name="secret.ts")),
        ("list.m3u8", HLS.format(name="http://127.0.0.1:9/secret.ts")),
        ("list.mpd", DASH.format(name="secret.mp4")),
        ("radio.sdp", SDP),
        ("concat:secret.wav", "nothing"),  # FFmpeg would take these two names for addresses
        ("subfile,,start,0,end,90000,,:secret.mp4", "nothing"),
    ],
)
def test_no_other_file_is_read(here: Path, name: str, content: str) -> None:
    Path(name).write_text(content)
    for read in (load_audio, read_info, lambda path: VideoWriter(here / "o.mp4", 64, 64, 25, audio=path)):
        with pytest.raises(AvatarError) as caught:
            read(Path(name))
        assert name in str(caught.value)
    assert not list(here.glob("*o.*mp4"))


@pytest.mark.parametrize("before", ["", "\ufeff", "\r\n \t", "\n\n"])
@pytest.mark.parametrize(
    "content",
    [
        CONCAT.format(name="secret.mp4"), HLS.format(name="secret.ts"), DASH.format(name="secret.mp4"), SDP,
        "file 'secret.mp4'\n", "[playlist]\nFile1=secret.wav\n", "rtsp://127.0.0.1:9/a\n",
        "<smil><body><video src='secret.mp4'/></body></smil>",
    ],
)  # fmt: skip
def test_a_list_is_called_what_it_is_whatever_its_name_and_its_first_bytes(here: Path, before: str, content: str):
    for name, encoding in (("list.mp4", "utf-8"), ("list.wav", "utf-16"), ("list.txt", "utf-8")):
        Path(name).write_text(before + content, encoding)
        for read in (load_audio, read_info):
            with pytest.raises(AvatarError, match=rf"{name} is not .* of a kind that is opened here.*not followed"):
                read(Path(name))


def test_a_name_with_a_pattern_is_no_sequence_of_pictures(here: Path) -> None:
    for number in range(1, 6):
        cv2.imwrite(f"picture{number}.png", np.full((64, 64, 3), 40 * number, np.uint8))
    Path("picture%d.png").write_bytes(Path("picture1.png").read_bytes())
    with pytest.raises(AvatarError, match=r"picture%d\.png"):
        read_info(Path("picture%d.png"))


@pytest.mark.parametrize("name", ["-speech.wav", "a:b.wav", "a|b.wav", "take%03d.wav", "file:x.wav", "http:x.wav"])
def test_odd_names_are_only_names(here: Path, name: str) -> None:
    os.rename("secret.wav", name)
    assert len(load_audio(Path(name))) == 16000
    picture = np.zeros((64, 64, 3), np.uint8)
    write_video(Path("out:%d.mp4"), [picture] * 3, Path(name))
    assert read_info(Path("out:%d.mp4")).num_frames == 3


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a.wav", "concat:secret.wav|secret.wav", "file:secret.wav"])
def test_addresses_are_names_of_files_that_do_not_exist(here: Path, address: str) -> None:
    with pytest.raises(AvatarError, match="does not exist"):
        load_audio(Path(address))


def test_a_pipe_is_refused_before_it_is_waited_for(here: Path) -> None:
    os.mkfifo("pipe.wav")
    for read in (load_audio, read_info):
        with pytest.raises(AvatarError, match="plain file"):
            read(Path("pipe.wav"))


def test_a_movie_that_keeps_its_sound_in_another_file_gives_none_of_it(here: Path) -> None:
    def movie(name: str, level: int) -> None:
        with av.open(name, "w", format="mov") as output:
            stream = output.add_stream("pcm_s16le", rate=16000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.full((1, 8000), level, np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            output.mux(stream.encode(frame))

    movie("other.mov", 2000)
    movie("outer.mov", 1000)
    assert load_audio(Path("outer.mov")).max() > 0
    data = bytearray(Path("outer.mov").read_bytes())
    start, end, parents = 0, len(data), []  # the table of what the tracks refer to gets an alias of the other file
    for wanted in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        while data[start + 4 : start + 8] != wanted:
            start += int.from_bytes(data[start : start + 4], "big")
            assert start < end
        end = start + int.from_bytes(data[start : start + 4], "big")
        parents.append(start)
        start += 8
    table = parents.pop()
    alias = bytes(10) + bytes(28) + bytes(12) + b"\x09" + b"other.mov".ljust(63, b"\0") + bytes(16)
    alias += struct.pack(">HH", 1, 1) + bytes(16) + struct.pack(">HH", 2, 10) + b"/other.mov" + b"\xff\xff\0\0"
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    data[table:end] = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    for parent in parents:
        grown = int.from_bytes(data[parent : parent + 4], "big") + 16 + len(entry) - (end - table)
        data[parent : parent + 4] = grown.to_bytes(4, "big")
    Path("outer.mov").write_bytes(data)
    with pytest.raises(AvatarError, match="zero length"):
        load_audio(Path("outer.mov"))


def test_the_command_says_it_in_one_sentence(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("list.mp4").write_text(CONCAT.format(name="secret.mp4"))
    assert main(["prepare", "list.mp4", "--out", "person"]) == 2
    said = capfd.readouterr().err
    assert "list.mp4" in said and "not followed" in said and "Traceback" not in said
    assert not Path("person").exists()


def test_the_usual_kinds_are_opened(here: Path) -> None:
    import soundfile

    samples = load_audio(Path("secret.wav"))
    for name in ("a.flac", "a.ogg", "a.aiff", "a.au", "a.caf", "a.w64"):
        soundfile.write(name, samples, 16000)
        assert abs(len(load_audio(Path(name))) - 16000) < 100
    formats = {"a.mp3": "mp3", "a.m4a": "aac", "a.opus": "libopus", "a.mkv": "flac", "a.webm": "libopus",
               "a.avi": "mp3", "a.aac": "aac", "a.mov": "aac"}  # fmt: skip
    for name, codec in formats.items():
        with av.open("secret.wav") as source, av.open(name, "w") as output:
            stream = output.add_stream(codec, rate=48000, layout="mono")
            for frame in source.decode(audio=0):
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        with open_media(name, "audio") as container:
            assert container.streams.audio
        assert len(load_audio(Path(name))) > 12000
