"""A recording made ready for training: tracked, listened to, judged for sync, and kept."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from avatar.assets.canonical_face import canonical_face
from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.encoders.registry import build_encoder
from avatar.audio.features import features_at
from avatar.audio2motion.shared import RATE
from avatar.corpus.cache import Cache
from avatar.corpus.find import Item
from avatar.corpus.mouth import Mouth, of_coefficients, of_face
from avatar.corpus.tracks import read_take
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, is_silent, load_audio
from avatar.io.video import VideoInfo, read_info, sample_frames
from avatar.motion import arkit_files, facegood
from avatar.motion.arkit import ARKIT, INDEX
from avatar.preprocess.face_tracker import FaceTracker, Track, track_video
from avatar.preprocess.faces import MIN_FACE
from avatar.preprocess.head_fit import canonical_in_head_axes
from avatar.preprocess.landmarker import Landmarker
from avatar.preprocess.learned_face import MIN_FACE_SHARE
from avatar.preprocess.speaker import RIVAL_SHARE, RIVAL_SIZE
from avatar.sync.judge import MIN_FPS, MIN_SECONDS, SyncJudge, mouth_motion

SHORTEST = 1.0  # seconds
PROBES = 10  # frames of a video that are looked at for faces before all are


def prepare(item: Item, cache: Cache) -> tuple[str, str, bool]:
    """Prepare one recording, unless that was done before.

    Returns:
        Name and key of the recording, and whether there was anything to do.

    Raises:
        AvatarError: The result cannot be written, or a pretrained part is not available. That a recording cannot be
            used is no error: the cache keeps why.
    """
    try:
        key = cache.key(item)
    except OSError as error:
        key = hashlib.sha256(os.fsencode(item.name)).hexdigest()  # a name may be no UTF-8
        cache.refuse(key, f"It cannot be read: {error.strerror or error}.", final=False)
        return item.name, key, True
    if cache.done(key):
        return item.name, key, False
    tools = _tools(json.dumps(cache.encoder))
    if item.video:
        tools.load_tracker()  # that it is not available is not the recording's fault
    try:
        mouth, features = tools.video(item) if item.video else tools.numbers(item)
    except AvatarError as error:  # of tracks, it may be about a name: reading them again costs nothing
        cache.refuse(key, str(error), final=not item.tracks)
    except Exception as error:  # a decoder that trips over one file must not stop the others
        cache.refuse(key, f"{type(error).__name__}: {error}", final=False)
    else:
        cache.save(key, mouth, features)
    return item.name, key, True


@functools.cache
def _tools(encoder: str) -> Tools:
    """Made once in a process, at the first recording that is new."""
    return Tools(build_encoder(json.loads(encoder)))


class Tools:
    """What turns recordings into numbers.

    Args:
        encoder: Makes the speech features.

    Attributes:
        shape: [478, 3] the face at rest that lips are measured against, once the tracker is loaded.
        several: Finds up to two faces in an image, once the tracker is loaded.
    """

    def __init__(self, encoder: SpeechEncoder) -> None:
        self._encoder = encoder
        self._judge = SyncJudge.load()

    @functools.cache  # noqa: B019  (one object per process, for good)
    def load_tracker(self) -> None:
        """Load what only videos need.

        Raises:
            AvatarError: It is not available.
        """
        self._tracker, self.several = FaceTracker(), Landmarker(num_faces=2)
        self.shape = canonical_in_head_axes(canonical_face()[0])

    def close(self) -> None:
        """Let go of what :meth:`load_tracker` loaded."""
        self._tracker.close()
        self.several.close()

    def numbers(self, item: Item) -> tuple[Mouth, np.ndarray]:
        """The mouth of tracks or coefficients, and the features [mouth.rows, F] of their audio.

        Raises:
            AvatarError: They cannot be used.
        """
        if not item.tracks:
            return self.coefficients(item)
        mouth, features = read_take(item.files[0], self._encoder)
        _check_long(mouth.seconds)
        _check_seen(mouth.seen)
        return mouth, features

    def video(self, item: Item) -> tuple[Mouth, np.ndarray]:
        """The mouth in a video, and the features of its audio; after :meth:`load_tracker`.

        Raises:
            AvatarError: It cannot be used.
        """
        return self.listen(self.track(item.files[0]))

    def track(self, path: Path) -> Track:
        """Landmarks and audio of a video that can be used; after :meth:`load_tracker`.

        Raises:
            AvatarError: It cannot.
        """
        info = read_info(path)
        if not info.has_audio:
            raise AvatarError("It has no audio.")
        if float(info.fps) < MIN_FPS:
            raise AvatarError(f"It has only {float(info.fps):g} frames per second.")
        if info.duration < SHORTEST:
            raise AvatarError(f"It is only {info.duration:.1f} s long.")
        if is_silent(load_audio(info.path, start=info.start)):
            raise AvatarError("Its audio is silent.")
        self._look_for_one_face(info)
        return track_video(info.path, self._tracker)

    def listen(self, track: Track) -> tuple[Mouth, np.ndarray]:
        """The mouth of a track, and the features of its audio; after :meth:`load_tracker`.

        Raises:
            AvatarError: The face is seen too seldom, or it is too short.
        """
        geometry, seen = mouth_motion(track.landmarks, self.shape)
        _check_seen(seen)
        frames = np.arange(len(seen))
        arkit = np.stack([np.interp(frames, frames[seen], c[seen]) for c in track.arkit.T], 1)
        rows = _rows(len(frames), track.fps, track.audio)
        curve = None
        if rows >= MIN_SECONDS * RATE:
            curve = self._judge.distances(track.landmarks, track.audio, track.fps)
        mouth = Mouth(values=of_face(geometry, arkit), seen=seen, fps=track.fps, rows=rows, curve=curve)
        return mouth, self._hear(track.audio, rows)

    def coefficients(self, item: Item) -> tuple[Mouth, np.ndarray]:
        """Coefficients, and the features of their audio.

        Raises:
            AvatarError: They cannot be used.
        """
        path = item.files[0]
        if item.audio is None:
            raise AvatarError("There is no audio of the same name beside it.")
        if path.name.endswith(facegood.SUFFIX):
            arkit, fps = facegood.load(path), facegood.FPS
            seen = np.ones(len(arkit), bool)
            arkit[:, [INDEX[name] for name in ARKIT if name not in facegood.KNOWN]] = np.nan
        else:
            arkit, seen, fps = arkit_files.coefficients(path)
            _check_seen(seen)
        audio = load_audio(item.audio)
        if is_silent(audio):
            raise AvatarError("Its audio is silent.")
        rows = _rows(len(arkit), fps, audio)
        mouth = Mouth(values=of_coefficients(arkit), seen=seen, fps=fps, rows=rows)
        return mouth, self._hear(audio, rows)

    def _look_for_one_face(self, info: VideoInfo) -> None:
        found = [faces for frame in sample_frames(info, PROBES) if (faces := self.several.detect(frame))]
        if not found:
            raise AvatarError("No face is seen in it.")
        rivals = sum(len(faces) > 1 and faces[1].height >= RIVAL_SIZE * faces[0].height for faces in found)
        if rivals > RIVAL_SHARE * len(found):
            raise AvatarError("It shows two faces of about equal size.")
        height = float(np.median([faces[0].height for faces in found]))
        if height < MIN_FACE:
            raise AvatarError(f"The face is only {height:.0f} pixels high.")

    def _hear(self, audio: np.ndarray, rows: int) -> np.ndarray:
        return features_at(self._encoder, audio, RATE, rows).features


def _check_seen(seen: np.ndarray) -> None:
    if seen.mean() < MIN_FACE_SHARE:
        raise AvatarError(f"A face is seen in only {seen.mean():.0%} of it.")


def _check_long(seconds: float) -> None:
    if seconds < SHORTEST:
        raise AvatarError(f"It is only {seconds:.1f} s long.")


def _rows(frames: int, fps: float, audio: np.ndarray) -> int:
    """Rows of audio that there are frames for."""
    seconds = min(frames / fps, len(audio) / SAMPLE_RATE)
    _check_long(seconds)
    return int(seconds * RATE)
