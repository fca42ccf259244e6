"""The one door through which audio and video files come in: local, and whole in themselves."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avatar.errors import AvatarError

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer

# FFmpeg's demuxers that read the file itself and nothing else. Playlists and lists (hls, dash, concat, sdp, image2)
# name other files and addresses, so a file that somebody sends could have this machine read those.
CONTAINERS = (
    "aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "au", "avi", "caf", "dts", "dv", "eac3", "flac", "flv",
    "h264", "hevc", "ivf", "loas", "m4v", "matroska", "mjpeg", "mov", "mp3", "mpeg", "mpegts", "mpegvideo", "mxf",
    "nut", "obu", "ogg", "rm", "tak", "tta", "voc", "w64", "wav", "webm", "wv", "yuv4mpegpipe",
)  # fmt: skip
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}
ADVICE = {
    "audio": "Use an audio file that ffmpeg can read: wav, flac, mp3, m4a, ogg, opus, or a video with audio.",
    "video": "Check that it plays, or copy or download it again.",
}
# What such lists begin with: HLS, DASH, concat, SDP, and the playlists of players.
_LISTS = (
    "#extm3u", "#ext-x", "<?xml", "<mpd", "<smil", "<asx", "<playlist", "<smoothstreamingmedia", "ffconcat", "file ",
    "file=", "v=0", "[playlist]", "[reference]", "http://", "https://", "rtsp://", "rtmp://", "mms://",
)  # fmt: skip
_ARTICLE = {"audio": "an", "video": "a"}


@dataclass(frozen=True)
class Treatment:
    """Tell what a reader did to a recording that a user may want to know.

    Attributes:
        kind: A short word that stays the same, such as "mirrored", "tone-mapped" or "audio-track".
        text: One plain sentence, with its full stop.
    """

    kind: str
    text: str


def open_media(path: Path | str, kind: Literal["audio", "video"] = "video") -> InputContainer:
    """Open a local audio or video file for reading; the container closes itself as a context manager.

    The content decides what a file is, whatever its name says. Nothing but this file is opened.

    Args:
        path: The file; its name is never taken for an address, a list or a pattern.
        kind: What the user was asked for, for the wording of errors.

    Raises:
        AvatarError: It is missing, not a plain file, empty, unreadable, of no known kind, or names other files.
    """
    import av

    path = Path(path)
    try:
        if path.is_dir():
            raise AvatarError(f"{path} is a folder, not {_ARTICLE[kind]} {kind} file.", fix=ADVICE[kind])
        if not path.exists():
            raise AvatarError(
                f"The {kind} file {path} does not exist.", fix="Check the path for a typing mistake; it must be a file."
            )
        if not path.is_file():  # a pipe or a device may have no end
            raise AvatarError(f"{path} is not a plain file.", fix="Save what it gives to a file first.")
        if path.stat().st_size == 0:
            raise AvatarError(f"The {kind} file {path} is empty (0 bytes).", fix="Copy or download it again.")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AvatarError(f"Cannot read {path}:", why=f"{reason}.", fix="Check its name and its permissions.") from None
    try:
        return av.open(f"file:{path}", options=_OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.EINVAL or _is_list(path):  # EINVAL: not in the list of formats
            raise AvatarError(
                f"{path} is not {_ARTICLE[kind]} {kind} file of a kind that is opened here.",
                why="Playlists and other files that name further files or addresses are not followed.",
                fix="Give the recording itself: for example wav, flac, mp3, m4a, mp4, mov, mkv or webm.",
            ) from None
        raise _broken(path, kind, ffmpeg_reason(error)) from None


def _is_list(path: Path) -> bool:
    """Whether a file is text that names other files, as FFmpeg and players read it."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = head.decode("utf-16" if wide else "utf-8-sig", "ignore").lstrip("\ufeff \t\r\n").lower()
    text = re.sub(r"\A(#(?!ext)[^\n]*\s*)+", "", text)  # remarks
    return text.startswith(_LISTS)


def decode_packets(
    packets: Iterable[Packet[Any]], most_broken: float, damaged: Callable[[int, int], AvatarError]
) -> Iterator[tuple[Packet[Any], list[Any]]]:
    """Decode packet by packet; damaged ones are passed over while they are few.

    Args:
        packets: Of one track.
        most_broken: Share of them that may be damaged; three may be in any case.
        damaged: Makes the error from the numbers of damaged and of all packets.

    Yields:
        Each packet that can be decoded, and its frames.

    Raises:
        AvatarError: ``damaged``, at the end, where more packets are damaged.
    """
    import av

    count = broken = 0
    for packet in packets:
        count += 1
        try:
            frames = packet.decode()
        except av.FFmpegError:
            broken += 1
            continue
        yield packet, frames
    if broken > max(3, most_broken * count):
        raise damaged(broken, count)


def ffmpeg_reason(error: Exception) -> str:
    """FFmpeg's own words, without the full stop."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _broken(path: Path, kind: str, reason: str) -> AvatarError:
    if kind == "audio":
        return AvatarError(f"{path} is not an audio file that can be read:", why=f"{reason}.", fix=ADVICE[kind])
    return AvatarError(
        f"{path} cannot be opened as a video:",
        why=f"it is not one, or its index is missing because the file was cut off ({reason}).",
        fix=ADVICE[kind],
    )
