"""Which face is learned: the only one, the one that the user names, or the one that moves and speaks.

A first look at a few dozen frames is enough where one person is alone and talks, and where the picture is too small to
hide another one. Otherwise small faces are looked for as well, and all mouths are watched for a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from avatar import log
from avatar.data import ernerf
from avatar.errors import AvatarError
from avatar.io import video
from avatar.io.media import Treatment
from avatar.io.video import VideoInfo
from avatar.preprocess.config import PrepareConfig, Square
from avatar.preprocess.faces import (
    MIN_FACE,
    Person,
    ProbedFace,
    distinct,
    face_colour,
    find_in_tiles,
    group,
    lasting,
    lip_gap,
    moved_face,
)
from avatar.preprocess.identity import second_person
from avatar.preprocess.landmarker import Face, Landmarker
from avatar.preprocess.speaker import choose, watch

PROBE_FRAMES = 40
PROBE_SIDE = 1280  # pixels; the frame is reduced to this before faces are looked for
MIN_FACE_SHARE = 0.5
SPARSE_FRAMES = 8  # are searched for small faces first, and all probes where that finds somebody
OVERLOOKED = 0.1  # of the longer side of a picture: smaller faces escape the detector in the first look
LIVELY = 0.01  # spread of the lip gap over the whole recording, in face heights: people who talk start at 0.014
FAR = 2.0  # face heights from a given point to the face that it means

Samples = list[list[Face]]


def reader(path: Path) -> ModuleType:
    """Choose what reads a recording: both modules have read_info, read_frames and sample_frames."""
    return ernerf if path.is_dir() else video


@dataclass(frozen=True, kw_only=True)
class LearnedFace:
    """The face to learn.

    Attributes:
        boxes: [N, 4] x0, y0, x1, y1 in the probed frames that show it, pixels of the upright source.
            Rare ones in another place are left out, since they show somebody else.
        height: Median height in pixels.
        usual: x, y and height of it in pixels where it is most of the time.
        place: x, y and height of it in pixels where it was chosen among several; None where it is alone.
        others: [M, 4] usual box of every other face.
        treatments: What the user is told of the choice.
    """

    boxes: np.ndarray
    height: float
    usual: tuple[int, int, int]
    place: tuple[int, int, int] | None = None
    others: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    treatments: tuple[Treatment, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Looks for faces in frames of a recording.

    Attributes:
        info: The recording.
        part: The square in which faces are looked for; None: everywhere.
    """

    info: VideoInfo
    part: Square | None = None

    @property
    def longer(self) -> int:
        """Longer side in pixels of what is looked at."""
        return self.part.side if self.part else max(self.info.width, self.info.height)

    def find(self, detect: Callable[[np.ndarray], list[Face]], title: str, count: int | None = None) -> Samples:
        """Call ``detect`` with the image of each of ``count`` probes; its faces, in pixels of the upright source.

        Args:
            detect: Finds faces in an image.
            title: Of the progress bar.
            count: Of the frames; None: `PROBE_FRAMES`.
        """
        count = PROBE_FRAMES if count is None else count
        x, y, side = self.part or (0, 0, self.longer)
        scale = min(1.0, PROBE_SIDE / side)
        found: Samples = []
        for frame in log.track(reader(self.info.path).sample_frames(self.info, count), title, count):
            image = _reduced(frame[y : y + side, x : x + side], scale)
            found.append([_in_source(face, image, x, y, scale) for face in detect(image)])
        return found

    def first_look(self) -> Samples:
        """Find the large faces, largest first; small ones only where there are no others."""
        with Landmarker(num_faces=3) as landmarker:
            return self.find(
                lambda image: distinct(landmarker.detect(image)) or find_in_tiles(landmarker, image),
                "looking for the face",
            )

    def search(self, samples: Samples) -> Samples:
        """Find small faces as well; ``samples`` themselves where that finds nobody who is there most of the time."""
        with Landmarker(num_faces=4) as landmarker:

            def everywhere(image: np.ndarray) -> list[Face]:
                return find_in_tiles(landmarker, image, landmarker.detect(image))

            few = self.find(everywhere, "looking for more faces", SPARSE_FRAMES)
            if len(frequent(group(few), len(few))) <= len(frequent(group(samples), len(samples))):
                return samples
            return self.find(everywhere, "looking for small faces")


def _in_source(face: Face, image: np.ndarray, x: int, y: int, scale: float) -> ProbedFace:
    moved = moved_face(face, x, y, scale)
    return ProbedFace(landmarks=moved.landmarks, arkit=moved.arkit, colour=face_colour(image, face))


def _reduced(image: np.ndarray, scale: float) -> np.ndarray:
    import cv2

    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image


def learned_face(info: VideoInfo, config: PrepareConfig, voice: Callable[[], np.ndarray]) -> LearnedFace:
    """Choose the face to learn.

    Args:
        info: The recording.
        config: ``face`` and ``crop`` choose for the user.
        voice: Gives the audio [N] at 16 kHz, empty where there is none; called only where it is needed.

    Raises:
        AvatarError: There is no face, too seldom one, too small a one, or several that could be meant.
    """
    probe = Probe(info=info, part=config.square)
    first = probe.first_look()
    found = lasting(group(first))
    hidden = OVERLOOKED * probe.longer > MIN_FACE  # whether somebody of a size to learn may have been overlooked
    if config.face is None and not hidden and _plain(found, has_audio=config.audio):
        return _alone(info, config, first)
    samples = probe.search(first)
    people = lasting(group(samples))
    if (wanted := config.wanted_face) is not None:
        return _asked_for(info, config, wanted, people, len(samples))
    often = frequent(people, len(samples))
    if not often or len(people) < 2 or (len(often) == len(found) == 1 and found[0].distance(*often[0].centre) == 0):
        return _alone(info, config, first)
    if len(often) == 1:
        person, why = often[0], "no other one is seen in half of the frames"
    else:
        frames = log.track(reader(info.path).read_frames(info), "looking who speaks", info.num_frames)
        person, why = choose(watch(frames, info, often, voice()), info.path)
    others = [other for other in people if other is not person]
    text = f"Of {len(people)} faces, {person} is learned, because {why}; not {_listed(others)} (--face X,Y chooses)."
    return _checked(info, person, others, len(samples), text)


def frequent(people: Sequence[Person], probed: int) -> list[Person]:
    """Those who are seen in enough of the probes to be learned."""
    return [person for person in people if len(person.views) >= MIN_FACE_SHARE * probed]


def _plain(people: Sequence[Person], *, has_audio: bool) -> bool:
    """Whether one person is alone, and moves and speaks."""
    return len(people) == 1 and not people[0].still and (not has_audio or _lively(people[0]))


def _lively(person: Person) -> bool:
    return float(np.std(lip_gap(person.landmarks))) >= LIVELY


def _alone(info: VideoInfo, config: PrepareConfig, samples: Samples) -> LearnedFace:
    """Take the only face; a smaller one that is seen now and then does not matter."""
    seen = [faces[0] for faces in samples if faces]
    if not seen:
        where = "the square of --crop" if config.square else f"{info.path}"
        raise AvatarError(
            f"No face was found in {where}",
            why=f"(in {len(samples)} frames).",
            fix="The face must be well visible; "
            + ("choose another square." if config.square else "cut a small one out with --crop X,Y,SIDE."),
            see="no-face-is-found",
        )
    person = Person(views=dict(enumerate(seen)))
    _check_share(info, len(seen), len(samples))
    _check_height(info, person, [])
    return LearnedFace(
        boxes=person.own_boxes, height=person.height, usual=person.usual, treatments=_hint_of_two(person)
    )  # fmt: skip


def _asked_for(
    info: VideoInfo, config: PrepareConfig, wanted: int | tuple[int, int], people: Sequence[Person], probed: int
) -> LearnedFace:
    """Take the face that the user named.

    Raises:
        AvatarError: There is none of that number, or none near that point.
    """
    if not people:
        return _alone(info, config, [[]] * probed)
    in_order = sorted(people, key=lambda person: person.centre)
    if isinstance(wanted, int):
        if wanted > len(in_order):
            raise AvatarError(
                f"There is no face {wanted} in {info.path};",
                why=f"there are, from the left, {_listed(in_order)}.",
                fix=f"Give --face a number up to {len(in_order)}, or a point.",
            )
        person = in_order[wanted - 1]
    else:
        x, y = wanted
        person = min(in_order, key=lambda person: person.distance(x, y))
        if person.distance(x, y) > FAR * person.height:
            raise AvatarError(
                f"There is no face near {x},{y} in {info.path};",
                why=f"there are {_listed(in_order)}.",
                fix="Give --face a point of one of them, or cut a small one out with --crop X,Y,SIDE.",
            )
    others = [other for other in people if other is not person]
    also = f" Not learned: {_listed(others)}." if others else ""
    text = f"{_capital(str(person))} is learned, as asked for (--face {config.face}).{also}"
    return _checked(info, person, others, probed, text)


def _checked(info: VideoInfo, person: Person, others: Sequence[Person], probed: int, text: str) -> LearnedFace:
    _check_share(info, len(person.views), probed)
    _check_height(info, person, others)
    return LearnedFace(
        boxes=person.own_boxes, height=person.height, usual=person.usual, place=person.usual,
        others=np.array([np.median(other.boxes, axis=0) for other in others]).reshape(-1, 4),
        treatments=(Treatment("face", text), *_hint_of_two(person)),
    )  # fmt: skip


def _hint_of_two(person: Person) -> tuple[Treatment, ...]:
    """Say where the face looks like two people's, for an avatar of both is one of neither."""
    views = [face for _, face in sorted(person.views.items()) if isinstance(face, ProbedFace)]
    if not views:
        return ()
    others = second_person(np.stack([face.landmarks for face in views]), np.stack([face.colour for face in views]))
    if others is None:
        return ()
    text = (
        f"The face looks like two people's: in {others.sum()} of {len(others)} probed frames it differs in shape and "
        "colour. If so, cut out the parts with the other person."
    )
    log.warn(text)
    return (Treatment("two-people", text),)


def _check_share(info: VideoInfo, seen: int, probed: int) -> None:
    if seen < MIN_FACE_SHARE * probed:
        raise AvatarError(
            f"A face was found in only {seen} of {probed} probed frames of {info.path};",
            why="an avatar needs it in at least half of them.",
            fix="Cut out the parts without the face.",
            see="no-face-is-found",
        )


def _check_height(info: VideoInfo, person: Person, others: Sequence[Person]) -> None:
    if person.height >= MIN_FACE:
        return
    fit = [other for other in others if other.height >= MIN_FACE]
    which = f"The face at {person.centre[0]},{person.centre[1]} in" if others else "The face in"
    raise AvatarError(
        f"{which} {info.path} is only {person.height:.0f} pixels high;",
        why=f"at least {MIN_FACE} are needed, and 200 make a good avatar.",
        fix="Give a closer or larger video"
        + (f", or choose {_listed(fit)} with --face {'{},{}'.format(*fit[0].centre)}." if fit else "."),
        see="the-face-is-small",
    )


def _listed(people: Sequence[Person]) -> str:
    names = [str(person) for person in people]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
