"""Measure what the audio-to-motion prior guarantees: closed lips, stillness, speed, hours, noise.

docs/notes/audio2motion.md explains the numbers.

Speech that is not a person's own is spoken with that person's mouth; what is compared with tracked lips is the
person's held-out part, or, for the prior as it is, which never saw the person, the whole video.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from avatar.audio.encoders import whisper
from avatar.audio.levels import frame_levels, silent_frames
from avatar.audio2motion.base import AudioToMotion, drive, motion_of
from avatar.audio2motion.ensemble import Ensemble
from avatar.audio2motion.load import PERSONAL
from avatar.audio2motion.personal import PersonalSpeech
from avatar.audio2motion.shared import WEIGHTS, SharedPrior
from avatar.audio2motion.shared_adaptation import adapt
from avatar.data.person import PersonInfo
from avatar.device import cpu_threads
from avatar.environment import environment
from avatar.eval.speech_metrics import closed_at, closure_times, read_words
from avatar.infer.avatar import Avatar
from avatar.io.audio import SAMPLE_RATE, chunked, load_audio
from avatar.log import info, on_terminal
from avatar.motion import Motion
from avatar.motion.mouth import FACE, opening_weights
from avatar.paths import file_sha256, write_json
from avatar.synth import speech
from avatar.train.speech import STREAMING_SECONDS
from pipelines.prior import pink, resampled
from pipelines.prior_speaking import bilabials

CHUNK = SAMPLE_RATE // 50  # of a microphone: 20 ms
SETTLED_SECONDS, EARLY_SECONDS = 0.8, 0.2  # of a pause: lips take time to close, and part before the next sound
_SENTENCE_SECONDS, _PAUSE_SECONDS = 4.0, 2.0
_ROOM_DB = -55.0  # dBFS, of the quiet room
# Said by the project's own voice; hardly a word of it trained anything.
TEXTS = (
    "Before breakfast, the baker's apprentice carried empty baskets up the steep pavement. Nobody had swept the steps. "
    "A lamp burned behind the pantry window, and somebody hummed an old campaign tune, slightly out of time.",
    "The harbour pilot grumbled about maps. Every spring the sandbanks shift, the buoys drift, and captains complain. "
    "My grandfather kept a notebook of it: depth, swell, fog, and the number of ropes lost at the northern jetty.",
    "Please bring a small umbrella. It may rain by evening, though the morning is bright. We will stop at the museum, "
    "compare a couple of portraits, have soup with pepper and bread, and be home again before the last tram.",
)
_FAR = 4  # frames from any p, b and m


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure with."""

    persons: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PERSON=RUN")]
    """Prepared people and their runs; the mouth of the first speaks what is not a person's own."""
    words: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PERSON=FILE")] = ()
    """Words with their times of some of these people."""
    speech: Path
    """Speech."""
    seconds: float = 30.0
    """How much of it is spoken."""
    noises: tuple[Path, ...] = ()
    """Sounds to lay under the speech, as loud as it, besides white and pink noise."""
    hour: float = 3600.0
    """Seconds of the long run."""
    only: tuple[str, ...] = ()
    """Measure this alone: opening, closure, silence, live, pictures, noise, hour."""
    json: Path | None = None
    """Write the numbers here."""


@dataclass(frozen=True)
class Person:
    """A prepared person, and what speaks with their mouth.

    Attributes:
        motion: T frames as tracked.
        sound: 16 kHz mono, in step with frame 0.
        test: The first held-out frame.
        delay: Frames by which the recorded audio, and the times of its words, come after the video.
        voices: By name: ``prior`` as it is, the same ``live``, ``live, adapted`` to the training part, ``adapted``
            alone, and ``together``: that and the own network.
    """

    motion: Motion
    sound: np.ndarray
    test: int
    delay: float
    voices: dict[str, AudioToMotion]

    @property
    def opening(self) -> np.ndarray:
        return opening(self.motion)

    def said(self, voice: str, start: int, stop: int) -> np.ndarray:
        """Opening [stop - start] of frames that follow a second of context."""
        fps = self.motion.fps
        lead = min(start, round(fps))
        first, last = (round(frame / fps * SAMPLE_RATE) for frame in (start - lead, stop))
        values = opening(spoken(self.voices[voice], self.sound[first:last]))[lead:]
        return np.pad(values, (0, max(0, stop - start - len(values))), "edge")[: stop - start]


def main(config: Config) -> None:
    """Measure everything, one thing after the other."""
    prior = SharedPrior.load()
    folders = [entry.partition("=")[::2] for entry in config.persons]
    people = {Path(a).stem: load_person(prior, Path(a), Path(b)) for a, b in folders}
    first = next(iter(people.values()))
    said = load_audio(config.speech)[: round(config.seconds * SAMPLE_RATE)]
    words = {Path(a).stem: Path(b) for a, b in (entry.partition("=")[::2] for entry in config.words)}
    result: dict[str, Any] = environment() | {"prior": prior.about, "sha256": file_sha256(WEIGHTS)}

    sections: dict[str, Callable[[], Any]] = {
        "opening": lambda: {name: held_out(person) for name, person in people.items()},
        "closure": lambda: {k: closure(people[k], path) for k, path in words.items()} | synthetic_closure(first),
        "silence": lambda: silence(first, said),
        "live": lambda: live(first, said),
        "pictures": lambda: pictures(Path(folders[0][1]), said),
        "noise": lambda: in_noise(first, said, config.noises),
        "hour": lambda: long_run(first.voices["prior"], said, config.hour),
    }
    for name in config.only or tuple(sections):
        result[name] = sections[name]()
        info(f"{name}: {result[name]}")
        if config.json is not None:
            write_json(config.json, result)


def load_person(prior: SharedPrior, person: Path, run: Path) -> Person:
    about = PersonInfo.read(person / "person.json")
    motion = Motion.load(person / "pose" / "motion.safetensors")
    audio, delay, test = load_audio(person / "ingest" / "audio.wav"), about.audio_delay_frames, about.test_start
    train = motion[:test]
    plain = prior.person(train, motion.fps)
    adapted = adapt(plain, train, audio, delay / motion.fps)
    own = PersonalSpeech.load(run / PERSONAL)
    together, live = Ensemble.of(own, adapted), prior.streaming().person(train, motion.fps)
    teacher = together if own.share > 0 else None
    voices: dict[str, AudioToMotion] = {
        "prior": plain,
        "live": live,
        "live, adapted": adapt(
            live, train[: round(STREAMING_SECONDS * motion.fps)], audio, delay / motion.fps, teacher
        ),
        "adapted": adapted,
        "together": together,
    }
    shift = round(delay / motion.fps * SAMPLE_RATE)
    sound = audio[shift:] if shift >= 0 else np.pad(audio, (-shift, 0))
    return Person(motion, sound, test, delay, voices)


def opening(motion: Motion) -> np.ndarray:
    """[T] centimetres between the inner lips, as against the person's mean face."""
    return (motion.face[:, FACE].numpy() @ opening_weights()).astype(float)


def spoken(voice: AudioToMotion, sound: np.ndarray) -> Motion:
    return motion_of(voice, sound)


def held_out(person: Person) -> dict[str, Any]:
    """Opening on the held-out part."""
    real = person.opening[person.test :]
    valid = person.motion.valid.numpy()[person.test :]
    rows = {}
    for name in person.voices:
        said = person.said(name, person.test, len(person.motion))
        rows[name] = {
            "correlation": _correlation(said[valid], real[valid]),
            "movement": _ratio(said[valid], real[valid]),
        }
    return rows


# --- closed lips ------------------------------------------------------------------------------------------------------


def closure(person: Person, path: Path) -> dict[str, Any]:
    """Closed lips at p, b and m by the words' times, and at other sounds; real and said.

    On the held-out part, and, for the prior as it is, on the whole video.
    """
    words = read_words(path)
    fps = person.motion.fps
    closures = closure_times(words) * fps - person.delay
    spoken = [(a * fps - person.delay, b * fps - person.delay) for a, b, word in words if word != "sil"]
    others = np.array([t for a, b in spoken for t in np.arange(a + 1, b - 1)])
    others = others[np.abs(others[:, None] - closures).min(1) > _FAR]
    real = np.where(person.motion.valid.numpy(), person.opening, np.nan)
    rows: dict[str, Any] = {}
    for part, start, voices in (("held out", person.test, tuple(person.voices)), ("whole video", 0, ("prior",))):
        tracks = {"real": real[start:]} | {v: person.said(v, start, len(real)) for v in voices}
        rows[part] = {"closures": int(((closures >= start) & (closures < len(real))).sum())}
        rows[part] |= {
            name: _closed(track, real, closures - start, others - start, fps) for name, track in tracks.items()
        }
    return rows


def synthetic_closure(person: Person) -> dict[str, Any]:
    """The same for the project's own voice, whose phones have exact times."""
    texts = [speech.speak(text, "neural", seed) for seed, text in enumerate(TEXTS)]
    rows: dict[str, Any] = {"closures": sum(len(bilabials(said)) for said in texts)}
    fps = person.motion.fps
    for name, voice in person.voices.items():
        parts = []
        for said in texts:
            track = opening(spoken(voice, resampled(said)))
            vowels = np.array([(p.start + p.end) / 2 for p in said.phones if p.symbol in speech.VOWELS])
            parts.append(_closed(track, person.opening[: person.test], bilabials(said) * fps, vowels * fps, fps))
        rows[name] = {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}
    return {"synthetic": rows}


def _closed(
    track: np.ndarray, real: np.ndarray, closures: np.ndarray, others: np.ndarray, fps: float
) -> dict[str, float]:
    inside = [times[(times >= 0) & (times < len(track))] for times in (closures, others)]
    rates = [float(np.nanmean(closed_at(track, real, times, fps))) for times in inside]
    return {"closed": rates[0], "elsewhere": rates[1]}


# --- silence ----------------------------------------------------------------------------------------------------------


def silence(person: Person, said: np.ndarray) -> dict[str, Any]:
    """Movement of the mouth in pauses over that in speech, and how far it is open in them, of the person's range.

    ``pauses``: as `avatar eval` has it, in all of every pause; ``settled``: without the first 0.8 s and the last 0.2 s
    of the pauses laid in, in which the lips close and part.
    """
    fps = person.motion.fps
    rng = np.random.default_rng(0)
    low, high = np.percentile(person.opening[: person.test], [5, 95])
    rows: dict[str, Any] = {}
    for kind, level in (("digital silence", None), ("quiet room", _ROOM_DB)):
        sound = _with_pauses(said)
        if level is not None:
            sound = sound + (10 ** (level / 20) * rng.standard_normal(len(sound))).astype(np.float32)
        for name, voice in person.voices.items():
            track = opening(spoken(voice, sound))
            silent = silent_frames(frame_levels([sound], len(track), fps), fps)
            within = np.arange(len(track)) / fps % (_SENTENCE_SECONDS + _PAUSE_SECONDS) - _SENTENCE_SECONDS
            settled = (within > SETTLED_SECONDS) & (within < _PAUSE_SECONDS - EARLY_SECONDS)
            velocity = np.diff(track, prepend=track[:1])
            rows[f"{kind}, {name}"] = {
                "pauses": _ratio(velocity[silent], velocity[~silent]),
                "settled": _ratio(velocity[settled], velocity[~silent]),
                "opening when settled": float(((track[settled] - low) / (high - low)).max()),
            }
    return rows


def _with_pauses(said: np.ndarray) -> np.ndarray:
    """Speech with two seconds of nothing every four seconds."""
    size, pause = round(_SENTENCE_SECONDS * SAMPLE_RATE), np.zeros(round(_PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    return np.concatenate([x for part in chunked(said, size) for x in (part, pause)])


# --- live -------------------------------------------------------------------------------------------------------------


def live(person: Person, said: np.ndarray) -> dict[str, Any]:
    """Waiting and work, chunk by chunk, in processor time of one thread."""
    rows = {}
    for name, voice in person.voices.items():
        rows[name] = timed(voice, said)
    return rows


def timed(voice: AudioToMotion, said: np.ndarray) -> dict[str, float]:
    """What a microphone's listener would see of a stream, if chunks took the processor time that they took here.

    ``look_ahead``: seconds of audio after a frame's time that had been pushed when it came out, at most;
    ``ready_p95``: seconds between the end of the chunk that a frame waited for and the frame;
    ``real_time_factor``: processor seconds per second of audio.
    """
    whisper.encoded.cache_clear()  # a voice before may have asked for the same windows
    stream = voice.open()
    ready: list[float] = []
    ahead: list[float] = []
    free = work = 0.0  # when the listener is done with all chunks so far; processor time in all
    for number, chunk in enumerate(chunked(said, CHUNK), 1):
        began = time.process_time()
        block = stream.push(chunk)
        seconds = time.process_time() - began
        arrived = number * CHUNK / SAMPLE_RATE
        free = max(free, arrived) + seconds
        work += seconds
        ready += [free - arrived] * len(block)
        ahead += [arrived - (len(ahead) + i) / voice.fps for i in range(len(block))]
    return {
        "look_ahead": max(ahead, default=np.nan),
        "ready_p95": float(np.percentile(ready, 95)) if ready else np.nan,
        "real_time_factor": work * SAMPLE_RATE / len(said),
    }


def pictures(run: Path, said: np.ndarray) -> dict[str, Any]:
    """Seconds from a frame's time to its picture, by the clock, on all cores, of sound as from a microphone."""
    began, cores = 0.0, os.cpu_count() or 1

    def microphone() -> Iterator[np.ndarray]:
        nonlocal began
        began = time.monotonic()
        for k, chunk in enumerate(chunked(said, CHUNK)):
            time.sleep(max(0.0, began + (k + 1) * CHUNK / SAMPLE_RATE - time.monotonic()))
            yield chunk

    avatar = Avatar.load(run)
    with cpu_threads(cores):
        waits = [time.monotonic() - began - i / avatar.fps for i, _ in enumerate(avatar.speak(microphone()))]
    width, height = avatar.camera.width, avatar.camera.height
    return {
        "median": float(np.median(waits)), "p95": float(np.percentile(waits, 95)), "most": max(waits),
        "frames": len(waits), "width": width, "height": height, "gaussians": avatar.info["gaussians"],
        "threads": cores,
    }  # fmt: skip


# --- noise ------------------------------------------------------------------------------------------------------------


def in_noise(person: Person, said: np.ndarray, files: Sequence[Path]) -> dict[str, Any]:
    """Speech in noise as loud as it, against the same without noise, gate and person included."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal(len(said))
    noises = {"white": white, "pink": pink(white)}
    noises |= {path.stem: np.resize(load_audio(path), len(said)) for path in files}
    fps = person.motion.fps
    talking = ~silent_frames(frame_levels([said], int(len(said) / SAMPLE_RATE * fps), fps), fps)
    rows: dict[str, Any] = {}
    for name, voice in person.voices.items():
        clean = opening(spoken(voice, said))[: len(talking)]
        for kind, noise in noises.items():
            noisy = (said + noise * said.std() / noise.std()).astype(np.float32)
            track = opening(spoken(voice, noisy))[: len(talking)]
            rows[f"{kind}, {name}"] = {
                "correlation": _correlation(track[talking], clean[talking]),
                "movement": _ratio(track[talking], clean[talking]),
                "velocity": _ratio(np.diff(track), np.diff(clean)),
                "longest_still_seconds": _longest_still(track, clean, talking) / fps,
            }
    return rows


def _longest_still(track: np.ndarray, clean: np.ndarray, talking: np.ndarray) -> int:
    """Frames of speech without movement: velocities below a tenth of the usual ones without noise."""
    still = (np.abs(np.diff(track)) < 0.1 * np.diff(clean).std()) & talking[1:]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(np.int8), [0]])))
    return int(np.diff(edges.reshape(-1, 2), axis=1).max(initial=0))


# --- an hour ----------------------------------------------------------------------------------------------------------


def long_run(voice: AudioToMotion, said: np.ndarray, seconds: float) -> dict[str, Any]:
    """Memory, and the mouth at the end of each pause, over hours of speech with pauses."""
    sound = _with_pauses(said)
    memory: list[int] = []
    rests: list[np.ndarray] = []
    period = len(sound) / SAMPLE_RATE
    ends = [(i + 1) * (_SENTENCE_SECONDS + _PAUSE_SECONDS) for i in range(int(period / 6))]

    def loop() -> Iterator[np.ndarray]:
        for _ in range(round(seconds / period)):
            memory.append(_resident_bytes())
            yield from chunked(sound)

    frame = 0
    for block in drive(voice, loop()):
        times = (frame + np.arange(len(block))) / voice.fps
        for end in ends:
            inside = np.abs(times % period - (end - 0.2)) < 0.5 / voice.fps
            rests += [*block.face[:, FACE].numpy()[inside]]
        frame += len(block)
    settled = memory[min(3, len(memory) - 1) :]
    return {
        "seconds": frame / voice.fps,
        "pauses": len(rests),
        "memory_growth_bytes": settled[-1] - settled[0],
        "peak_memory_growth_bytes": max(settled) - settled[0],
        "memory_bytes": settled[-1],
        "largest_change_of_rest": float(np.abs(np.stack(rests) - rests[0]).max()),
    }


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- numbers ----------------------------------------------------------------------------------------------------------


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _ratio(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.std() / b.std())


if __name__ == "__main__":
    torch.set_num_threads(1)
    with on_terminal():
        main(tyro.cli(Config))
