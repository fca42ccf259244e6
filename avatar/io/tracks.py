"""Choosing the video and the audio track of a file: the same one for every reader and for the muxer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar.errors import AvatarError
from avatar.io.media import Treatment

if TYPE_CHECKING:
    from av import AudioStream, VideoStream
    from av.container import InputContainer

# Tracks that go along with another one: they come last.
_BESIDE = (
    "comment", "visual_impaired", "hearing_impaired", "descriptions", "karaoke", "lyrics", "dependent", "dub",
    "clean_effects", "non_diegetic",
)  # fmt: skip
_NO_VIDEO = ("attached_pic", "timed_thumbnails", "still_image")  # a cover or a list of previews does not move


def video_track(container: InputContainer, path: Path | str, wanted: int | None = None) -> VideoStream:
    """Choose the video track: the one that players show by default, of those that can be decoded.

    Args:
        container: The opened file.
        path: Its name, for errors.
        wanted: Number of the track from 1, among the video tracks without cover images; None: as players do.

    Raises:
        AvatarError: There is no video track, none with this number, or none that FFmpeg can decode.
    """
    moving = [s for s in container.streams.video if not any(_has(s, name) for name in _NO_VIDEO)]
    if not moving:
        raise AvatarError(f"{path} has no video track.", fix="Give a video of the person talking.")
    if wanted is not None:
        return _numbered(moving, wanted, path, "video")
    usable = [s for s in moving if s.codec_context is not None]
    if not usable:
        raise AvatarError(f"{path} is coded in a way that FFmpeg does not know.", fix="Convert it to mp4 (H.264).")
    return min(usable, key=_rank)


def told_of_video_track(container: InputContainer, chosen: VideoStream, wanted: int | None) -> tuple[Treatment, ...]:
    """Say which video track was taken, where a file has several."""
    moving = [s for s in container.streams.video if not any(_has(s, name) for name in _NO_VIDEO)]
    if len(moving) < 2:
        return ()
    number = [s.index for s in moving].index(chosen.index) + 1
    why = "as asked for" if wanted is not None else "the default one" if _has(chosen, "default") else "the first"
    return (Treatment("video-track", f"Video track {number} of {len(moving)} was taken: {why}."),)


def audio_track(container: InputContainer, path: Path | str, wanted: int | None = None) -> AudioStream:
    """Choose the audio track: the default one, of those that can be decoded and are heard.

    Args:
        container: The opened file.
        path: Its name; it is opened once more to listen where there are several tracks.
        wanted: Number of the track from 1, among the audio tracks; None: choose.

    Raises:
        AvatarError: There is no audio track, none with this number, or none that FFmpeg can decode.
    """
    tracks = list(container.streams.audio)
    if not tracks:
        raise AvatarError(f"{path} has no audio track.", fix="Give a file with audio: wav, flac, mp3, m4a, mp4.")
    if wanted is not None:
        return _numbered(tracks, wanted, path, "audio")
    usable = [s for s in tracks if s.codec_context is not None]
    if not usable:
        raise AvatarError(
            f"The audio of {path} is coded in a way that FFmpeg does not know.", fix="Convert it, for example to AAC."
        )
    return min(usable, key=_rank)


def _has(stream: Any, name: str) -> bool:
    return bool(stream.disposition & getattr(type(stream.disposition), name))


def _rank(stream: Any) -> tuple[bool, bool, int]:
    return any(_has(stream, name) for name in _BESIDE), not _has(stream, "default"), stream.index


def _numbered(tracks: Sequence[Any], wanted: int, path: Path | str, kind: str) -> Any:
    if not 1 <= wanted <= len(tracks):
        listed = ", ".join(f"{i}: {describe(s)}" for i, s in enumerate(tracks, 1))
        raise AvatarError(
            f"{path} has no {kind} track {wanted};", why=f"its {kind} tracks are {listed}.",
            fix=f"Give --{kind}-track with one of these numbers.",
        )  # fmt: skip
    stream = tracks[wanted - 1]
    if stream.codec_context is None:  # PyAV: FFmpeg has no decoder
        raise AvatarError(
            f"{kind.capitalize()} track {wanted} of {path} is coded in a way that FFmpeg does not know.",
            fix="Choose another one, or convert it.",
        )
    return stream


def describe(stream: Any) -> str:
    """A track in a few words: title or language, codec, size or channels."""
    context = stream.codec_context
    words = [stream.metadata.get("title") or stream.metadata.get("handler_name", ""), stream.language or ""]
    if context is None:
        words.append("of an unknown codec")
    elif stream.type == "video":
        words.append(f"{context.name} {context.width}x{context.height}")
    else:
        words.append(f"{context.name}, {'mono' if context.channels == 1 else f'{context.channels} channels'}")
    words += ["default"] if _has(stream, "default") else []
    return " ".join(word for word in words if word and word not in ("und", "SoundHandler", "VideoHandler"))
