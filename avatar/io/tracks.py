"""Choosing the video and the audio track of a file: the same one for every reader and for the muxer."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.errors import AvatarError
from avatar.io.listening import (
    AudioContent,
    Excerpts,
    audio_content,
    channel_to_take,
    excerpts,
    level_to_match,
)
from avatar.io.media import Treatment, open_media

if TYPE_CHECKING:
    from av import AudioStream, VideoStream
    from av.container import InputContainer

# Tracks that go along with another one: they come last.
_BESIDE = (
    "comment", "visual_impaired", "hearing_impaired", "descriptions", "karaoke", "lyrics", "dependent", "dub",
    "clean_effects", "non_diegetic",
)  # fmt: skip
_CARRIES = {
    AudioContent.SILENCE: "is silent",
    AudioContent.NOISE: "is only noise",
    AudioContent.SOUND: "has no voice",
    AudioContent.VOICE: "is spoken, too",
}
_LEAST_RATE = 5  # frames per second; previews have fewer, and come behind a track that moves
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
    return min(usable, key=lambda s: (_is_slow(s), *_rank(s)))


def video_track_treatments(container: InputContainer, chosen: VideoStream, wanted: int | None) -> tuple[Treatment, ...]:
    """Say which video track was taken, where a file has several."""
    moving = [s for s in container.streams.video if not any(_has(s, name) for name in _NO_VIDEO)]
    if len(moving) < 2:
        return ()
    number = [s.index for s in moving].index(chosen.index) + 1
    if wanted is not None:
        why = "as asked for"
    elif (first := min(moving, key=_rank)).index != chosen.index and first.codec_context is not None:
        other = [s.index for s in moving].index(first.index) + 1
        why = f"track {other} has fewer than {_LEAST_RATE} frames per second"
    else:
        why = "the default one" if _has(chosen, "default") else "the first"
    return (Treatment("video-track", f"Video track {number} of {len(moving)} was taken: {why}."),)


@dataclass(frozen=True)
class AudioChoice:
    """The audio that all readers of a file take.

    Attributes:
        index: Of the track among the audio tracks, from 0.
        channel: The only channel that is listened to, from 0; None: all, mixed.
        content: What it carries; None where nobody listened.
        treatments: Which track and which channel were taken and why, where there was a choice.
        voice_db: Level of the voice, or of what may be a whisper or speech in noise, dBFS; None where there is neither,
            or nobody listened.
    """

    index: int
    channel: int | None = None
    content: AudioContent | None = None
    treatments: tuple[Treatment, ...] = ()
    voice_db: float | None = None


def choose_audio(path: Path | str, wanted: int | None = None, *, listen: bool = False) -> AudioChoice:
    """Choose the audio track and its channels: the default track first, then one with a voice.

    Tracks that FFmpeg cannot decode are passed over. A track that is silent or only noise loses to one with a voice.
    The choice is kept for as long as the file stays the same.

    Args:
        path: The file.
        wanted: Number of the track from 1, among the audio tracks; None: choose.
        listen: Say what the chosen track carries even where there was no choice.

    Raises:
        AvatarError: The file cannot be read; there is no audio track, none with this number, or none that FFmpeg can
            decode.
    """
    path = Path(path)
    try:
        stat = path.stat()
        key = stat.st_size, stat.st_mtime_ns, stat.st_ino
    except (OSError, ValueError):
        key = (0, 0, 0)  # opening it says what is wrong
    return _choose_audio(path.absolute(), path, key, wanted, listen)


@functools.lru_cache(maxsize=64)
def _choose_audio(
    _where: Path, path: Path, _key: tuple[int, int, int], wanted: int | None, listen: bool
) -> AudioChoice:
    with open_media(path, "audio") as container:
        tracks = list(container.streams.audio)
        if not tracks:
            raise AvatarError(f"{path} has no audio track.", fix="Give a file with audio: wav, flac, mp3, m4a, mp4.")
        if wanted is not None:
            candidates = [_numbered(tracks, wanted, path, "audio")]
        else:
            candidates = sorted((s for s in tracks if s.codec_context is not None), key=_rank)
        if not candidates:
            raise AvatarError(
                f"{path} has audio that is coded in a way that FFmpeg does not know.",
                fix="Convert it, for example to AAC.",
            )
        if len(candidates) == 1 and candidates[0].codec_context.channels < 2 and not listen:
            places: dict[int, Excerpts] = {}
        else:
            seconds = container.duration / 1_000_000 if container.duration else None
            places = excerpts(container, candidates, seconds)
        channels = {index: channel_to_take(place) for index, place in places.items() if place.places}
        kinds = {}
        if len(candidates) > 1 or listen:
            kinds = {index: audio_content(_taken(place, channels.get(index))) for index, place in places.items()}
        best = max(candidates, key=lambda s: kinds.get(s.index, AudioContent.SILENCE))  # the first of equal ones
        told = [] if len(tracks) < 2 else [_told_track(tracks, candidates[0], best, kinds, wanted)]
        channel = channels.get(best.index)
        if channel is not None:
            told.append(_told_channel(best, channel))
        number = [s.index for s in tracks].index(best.index)
        level = None
        if listen and best.index in kinds:
            level = level_to_match(_taken(places[best.index], channel), kinds[best.index])
        return AudioChoice(number, channel, kinds.get(best.index), tuple(told), level)


def _taken(place: Excerpts, channel: int | None) -> list[np.ndarray]:
    """Samples [n] of every place, of a channel or mixed."""
    return place.mixed() if channel is None else place.channel(channel)


def _told_track(
    tracks: Sequence[AudioStream], first: AudioStream, best: AudioStream, kinds: Mapping[int, AudioContent],
    wanted: int | None,
) -> Treatment:  # fmt: skip
    number = {s.index: i for i, s in enumerate(tracks, 1)}
    if wanted is not None:
        why = "as asked for"
    elif best.index != first.index:
        why = f"track {number[first.index]} {_CARRIES[kinds.get(first.index, AudioContent.SILENCE)]}"
    elif _has(best, "default"):
        why = "the default one"
    else:
        why = "the first that can be used"
    unknown = [str(number[s.index]) for s in tracks if s.codec_context is None]
    text = f"Audio track {number[best.index]} of {len(tracks)} ({describe(best)}) was taken: {why}."
    if unknown:
        text = text[:-1] + f"; FFmpeg has no decoder for track {' and '.join(unknown)}."
    return Treatment("audio-track", text)


def _told_channel(stream: AudioStream, channel: int) -> Treatment:
    names = [c.description for c in stream.codec_context.layout.channels]
    name = names[channel] if channel < len(names) else ""
    side = f"{channel + 1} of {stream.codec_context.channels}" + (f" ({name})" if name and name != "none" else "")
    return Treatment(
        "channel", f"Audio channel {side} was taken alone: mixed, the channels would cancel or cover the voice."
    )


def _has(stream: Any, name: str) -> bool:
    return bool(stream.disposition & getattr(type(stream.disposition), name))


def _is_slow(stream: VideoStream) -> bool:
    return bool(stream.average_rate) and stream.average_rate < _LEAST_RATE


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
    words = [stream.metadata.get("title", ""), stream.language or ""]
    if context is None:
        words.append("of an unknown codec")
    elif stream.type == "video":
        words.append(f"{context.name} {context.width}x{context.height}")
    else:
        words.append(f"{context.name}, {'mono' if context.channels == 1 else f'{context.channels} channels'}")
    named = " ".join(word for word in words if word and word != "und")
    return f"{named}, default" if _has(stream, "default") else named
