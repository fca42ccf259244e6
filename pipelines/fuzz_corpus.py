"""The files that are damaged: one of each kind that a command reads, small, made from the tests' synthetic people.

Each comes with what reads it, used as the commands use it, and what is asserted of a result: finite numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avatar.motion import Motion
from avatar.motion.statistics import MotionStats
from avatar.paths import write_json
from pipelines.fuzz_tracks import build_tracks, given_tracks

SIZE, FRAMES, FPS = 64, 12, 25.0  # of the person
_SECOND = 16_000
_KEY, _OTHER_KEY = "ab" * 32, "cd" * 32  # of recordings in a corpus
_KEPT = hashlib.sha256(b"never read").hexdigest()


@dataclass(frozen=True)
class Target:
    """A file and its reader.

    Attributes:
        kind: Its name in the report.
        contents: What its mutations are made for, of `pipelines.fuzz_mutations.KINDS`.
        path: Where it is read.
        good: What it holds before it is damaged.
        read: Reads it as a command does; an AssertionError says that something not finite came of it.
    """

    kind: str
    contents: str
    path: Path
    good: bytes
    read: Callable[[Path], Any]


def corpus(folder: Path, ready: Path, kinds: set[str]) -> list[Target]:
    """All targets, or those of some kinds; their files are made where they are not there yet.

    Raises:
        ValueError: A kind is not known.
    """
    if not ready.is_file():
        build(folder)
        ready.touch()
    found = _tables(folder) + _models(folder) + _people(folder) + _media(folder) + _recordings(folder)
    if unknown := kinds - {target.kind for target in found}:
        raise ValueError(f"There is no kind {', '.join(sorted(unknown))}.")
    return [target for target in found if not kinds or target.kind in kinds]


def build(folder: Path) -> None:
    """Write all files of the corpus."""
    from avatar.motion import arkit_files
    from avatar.motion.timeline import FORMAT
    from tests.person import make_person, small_config, train
    from tests.talking import talking

    person, run = make_person(folder / "person", frames=FRAMES, size=SIZE), folder / "run"
    trainer = train(small_config(person, run, steps=2))
    trainer.model.eval().bake(run, Motion.load(run / "motion.safetensors"), 3)
    write_json(run / "training.json", {"steps": 2, "seconds": 1.0, "psnr": 20.0})
    _build_speech(run)
    tables = folder / "tables"
    tables.mkdir()
    track = talking(text="Mama may bake.")[0][:20]
    track.save(tables / "motion.safetensors")
    arkit_files.save(track[:6], tables / "arkit.csv")
    arkit_files.save(track[:6], tables / "arkit.json")
    lines = (tables / "arkit.csv").read_text().replace(",", ";").splitlines()
    lost = lines[2].split(";")[0] + ";0"  # a frame without a face, and one that was dropped
    (tables / "take.csv").write_text("\r\n".join([*lines[:2], lost, lines[3], *lines[5:]]))
    gaze = {"control": "gaze", "value": "5,2", "start": 1, "end": 2.5, "fade": 0.2}
    spans = [{"control": "blink", "value": 20}, gaze, {"control": "emotion", "value": "happy:0.5", "start": 1}]
    write_json(tables / "timeline.json", {"format": FORMAT, "spans": spans})
    write_json(tables / "words.json", {"unit": "seconds", "words": [[0.1, 0.4, "mama"], [0.5, 0.7, "may"]]})
    path = [{"time": 0, "azimuth": -15}, {"time": 1, "azimuth": 15, "elevation": 3.5, "zoom": 1.2}, {"time": 2.5}]
    write_json(tables / "camera.json", path)
    _build_media(folder / "media")
    _build_recordings(folder / "recordings")


def _build_speech(run: Path) -> None:
    from avatar.audio.encoders.base import SpeechEncoder
    from avatar.audio.encoders.mel import MelEncoder
    from avatar.audio2motion.personal_training import train_personal
    from avatar.audio2motion.shared import SharedPrior
    from avatar.data.run import PERSONAL, SHARED
    from avatar.headmotion.generator import MotionGenerator
    from avatar.motion.mouth import ARTICULATION
    from tests.swaying import swaying
    from tests.talking import talking

    torch.manual_seed(0)
    encoder = SpeechEncoder([MelEncoder(12)])
    track, sound = swaying(20.0)
    MotionGenerator.fit(track, [(0, len(track))], sound, steps=1).save(run / "headmotion.safetensors")
    part = talking()[0][:100]  # with a mouth that moves
    train_personal(part, sound[: 4 * _SECOND], encoder, steps=1, progress=lambda *_: None).save(run / PERSONAL)
    weights = 0.1 * torch.randn(3 * 4 + 1, len(ARTICULATION))
    prior = SharedPrior(encoder, torch.ones(12), torch.ones(12), torch.randn(12, 4), weights, 1, 1, 1.0, {"id": "fuzz"})
    prior.save(run / "prior.safetensors")
    prior.person(part, FPS).save(run / SHARED)


def _build_media(folder: Path) -> None:
    import cv2

    from avatar.io.images import write_jpeg, write_png
    from tests.media import write_sound, write_video

    dataset = folder / "dataset"
    (dataset / "ori_imgs").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = [cv2.resize(rng.integers(0, 255, (6, 6, 3), np.uint8), (48, 48)) for _ in range(30)]
    write_jpeg(folder / "frame.jpg", pictures[0])
    write_png(folder / "mask.png", np.dstack([pictures[0], pictures[1][..., :1]]))
    write_sound(folder / "sound.wav", 1.2)
    write_video(folder / "video.mp4", pictures, folder / "sound.wav", 25.0)
    for i, picture in enumerate(pictures[:25]):
        write_jpeg(dataset / "ori_imgs" / f"{i}.jpg", picture)
    write_sound(dataset / "aud.wav", 1.0)
    for name, frames in (("train", range(22)), ("val", range(22, 25))):
        poses = [{"img_id": i, "aud_id": i, "transform_matrix": np.eye(4).tolist()} for i in frames]
        content = {"focal_len": 200.0, "cx": 24.0, "cy": 24.0, "frames": poses}
        write_json(dataset / f"transforms_{name}.json", content)
    for suffix, codec in (("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "vorbis"), ("m4a", "aac")):
        _encode(folder / "sound.wav", folder / f"sound.{suffix}", codec)


def _build_recordings(folder: Path) -> None:
    from avatar.corpus.cache import Cache
    from avatar.corpus.mouth import Mouth
    from avatar.motion.facegood import NAMES_FILE, SUFFIX
    from avatar.motion.mouth import ARTICULATION
    from avatar.preprocess.face_tracker import Track
    from avatar.sync.judge import REACH

    folder.mkdir()
    rng = np.random.default_rng(0)
    cache = Cache.open(folder / "cache", {"name": "mel"})
    values = rng.random((20, len(ARTICULATION))).astype(np.float32)
    cache.save(
        _KEY,
        Mouth(values=values, seen=np.ones(20, bool), fps=FPS, rows=20, curve=rng.random(2 * REACH + 1)),
        np.zeros((20, 4), np.float32),
    )
    cache.refuse(_OTHER_KEY, "no face")
    names = [*(f"{name}_l" for name in ("mouth_stretch_c", "mouth_oh_c", "mouth_oo_c", "mouth_pucker", "mouth_funnel")),
             *("mouth_lowerLipDepress", "mouth_upperLipRaise", "mouth_lipCornerPull", "mouth_lipStretch", "mouth_press",
               "mouth_suck_d", "mouth_suck_u", "mouth_chinRaise_u")]  # fmt: skip
    write_json(folder / NAMES_FILE, names)
    np.save(folder / f"speech{SUFFIX}", rng.random((20, len(names))).astype(np.float32))
    track = Track(landmarks=np.zeros((4, 478, 3), np.float32), arkit=np.zeros((4, 52), np.float32),
                  audio=np.zeros(_SECOND, np.float32), fps=FPS)  # fmt: skip
    (folder / "kept").mkdir()
    np.savez(folder / "kept" / f"{_KEPT}.npz", **vars(track))  # pyright: ignore[reportArgumentType]
    (folder / "video.mp4").write_bytes(b"never read")
    build_tracks(folder / "tracks", folder.parent / "run" / "prior.safetensors", values)


def _encode(source: Path, target: Path, codec: str) -> None:
    import av

    with av.open(str(source)) as sound, av.open(str(target), "w") as out:
        options = {"strict": "experimental"}
        stream = out.add_stream(codec, rate=48_000 if codec == "vorbis" else 16_000, options=options)
        stream.layout = "stereo"
        for frame in sound.decode(audio=0):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


# -- readers ---------------------------------------------------------------------------------------------------------


def finite(values: Any, what: str) -> None:
    """Assert that all numbers are finite."""
    array = values.detach().float().numpy() if isinstance(values, torch.Tensor) else np.asarray(values, np.float64)
    assert np.isfinite(array).all(), f"{what} is not finite"


def finite_motion(motion: Motion, what: str = "the motion") -> Motion:
    """Assert that a motion is one that can be shown."""
    assert 1 <= motion.fps <= 1000, f"{what} has {motion.fps} frames per second"
    for name, value in vars(motion).items():
        if isinstance(value, torch.Tensor):
            finite(value, f"{name} of {what}")
    return motion


def _target(kind: str, path: Path, read: Callable[[Path], Any]) -> Target:
    return Target(kind, path.suffix.removeprefix("."), path, path.read_bytes(), read)


def _tables(folder: Path) -> list[Target]:
    from avatar.infer.camera_path import CameraPath
    from avatar.motion import arkit_files, timeline

    tables = folder / "tables"
    stats = MotionStats.of(Motion.load(folder / "run" / "motion.safetensors"))

    def motion(path: Path) -> None:
        track = finite_motion(Motion.load(path))
        finite_motion(track.resample(25.0))
        MotionStats.of(track)

    def arkit(path: Path) -> None:
        finite_motion(arkit_files.load(path, stats).resample(25.0))
        arkit_files.coefficients(path)

    def spans(path: Path) -> None:
        for span in timeline.load(path):
            timeline.READERS[span.control](span.value)
            finite(span.weight(torch.arange(5.0)), "a weight")

    def words(path: Path) -> None:
        times = [time for word in timeline.load_words(path) for time in word[:2]]
        finite(times, "a time")

    def camera(path: Path) -> None:
        for time in (-1.0, 0.5, 100.0):
            finite(CameraPath.parse(str(path)).at(time), "the camera")

    return [
        _target("motion", tables / "motion.safetensors", motion),
        _target("arkit csv", tables / "arkit.csv", arkit),
        _target("arkit csv", tables / "take.csv", arkit),
        _target("arkit json", tables / "arkit.json", arkit),
        _target("timeline", tables / "timeline.json", spans),
        _target("words", tables / "words.json", words),
        _target("camera path", tables / "camera.json", camera),
    ]


def _models(folder: Path) -> list[Target]:
    from avatar.audio2motion.base import motion_of
    from avatar.audio2motion.load import PERSONAL, SHARED
    from avatar.audio2motion.personal import PersonalSpeech
    from avatar.audio2motion.shared import SharedPrior, SharedSpeech
    from avatar.data import PersonDataset
    from avatar.data.run import RunInfo, open_person
    from avatar.headmotion.generator import MotionGenerator
    from avatar.infer.avatar import Avatar, checked_motion
    from avatar.train.trainer import Trainer
    from tests.person import small_config

    run = folder / "run"
    motion = Motion.load(run / "motion.safetensors")
    voice = (0.3 * np.sin(np.arange(_SECOND) / 5)).astype(np.float32)
    trainer: list[Trainer] = []

    def avatar(_: Path, baked: bool = False) -> None:
        shows = Avatar.load(run, baked, device="cpu")
        view = shows.camera.resized(32, 32)
        for block in checked_motion(shows, [motion[:2]]):
            plain = (shows.model.background_at(view) * 255 + 0.5).to(torch.uint8)
            assert not torch.equal(shows.render(view, block, 0), plain), "the picture is an empty room"

    def all_of(blocks: Iterable[Motion]) -> None:
        for block in blocks:
            finite_motion(block)

    def checkpoint(_: Path) -> None:
        if not trainer:
            trainer.append(Trainer(PersonDataset(folder / "person"), small_config(folder / "person", run, steps=2)))
        trainer[0].resume(run)

    def generator(path: Path) -> None:
        stream = MotionGenerator.load(path).open(25.0)
        finite_motion(stream.push(voice))
        finite_motion(stream.finish(50))

    def shared(path: Path) -> None:
        prior = SharedPrior.load(path)
        all_of([motion_of(prior.person(Motion.cat([motion] * 4), 25.0), voice)])

    def person_of(_: Path) -> None:
        open_person(run, None)

    return [
        _target("model", run / "model.safetensors", avatar),
        _target("baked", run / "baked.safetensors", lambda path: avatar(path, True)),
        _target("run person", run / "person.json", avatar),
        _target("run motion", run / "motion.safetensors", lambda path: MotionStats.of(Motion.load(path)) and None),
        _target("speech", run / PERSONAL, lambda path: all_of([motion_of(PersonalSpeech.load(path), voice)])),
        _target("prior", run / SHARED, lambda path: all_of([motion_of(SharedSpeech.load(path), voice)])),
        _target("shared prior", run / "prior.safetensors", shared),
        _target("generator", run / "headmotion.safetensors", generator),
        _target("checkpoint", run / "checkpoints" / "last" / "state.safetensors", checkpoint),
        _target("config", run / "config.toml", person_of),
        _target("training", run / "training.json", lambda path: finite(
            [v for v in RunInfo.read(run).training().values() if isinstance(v, float)], "the record")),
    ]  # fmt: skip


def _people(folder: Path) -> list[Target]:
    from avatar.data import PersonDataset
    from avatar.data.person import PersonFolder
    from avatar.data.results import RESULTS
    from avatar.preprocess.report_findings import frame_loudness
    from avatar.preprocess.stage import finished_key

    person = folder / "person"

    def dataset(_: Path) -> None:
        data = PersonDataset(person)
        assert 0 < data.num_frames <= 10_000_000 and data.width * data.height <= 2**26
        finite([data.camera.focal, data.camera.cx, data.camera.cy, data.fps], "the camera")
        finite(data.landmarks, "landmarks")
        finite(data.shape, "the shape")
        assert data.image(0).shape == (data.height, data.width, 3)
        data.masks(0)
        data.background(0)
        assert data.background_image.shape[2] == 3
        finite(data.torso_pivot, "the pivot")

    def stage(path: Path) -> None:
        finished_key(PersonFolder(person), path.parent.name)
        result = PersonFolder(person).result(RESULTS[path.parent.name]).to_json()
        finite([v for v in result.values() if isinstance(v, float)], "the result")

    return [
        _target("person", person / "person.json", dataset),
        _target("person motion", person / "motion.safetensors", dataset),
        _target("landmarks", person / "track" / "landmarks.npy", dataset),
        _target("shape", person / "refine" / "shape.npy", dataset),
        _target("stage", person / "track" / "stage.json", stage),
        _target("stage parse", person / "parse" / "stage.json", dataset),
        _target("person mask", person / "parse" / "masks" / "000000.png", dataset),
        _target("person background", person / "background" / "background.png", dataset),
        _target("person frame", person / "ingest" / "frames" / "000000.jpg", dataset),
        _target("person sound", person / "ingest" / "audio.wav", lambda path: finite(
            frame_loudness(path, FRAMES, FPS)[0], "loudness")),
    ]  # fmt: skip


def _media(folder: Path) -> list[Target]:
    from avatar.data import ernerf
    from avatar.data.masks import read_mask
    from avatar.infer.sources import AudioFile
    from avatar.io import video
    from avatar.io.audio import load_audio, stream_audio
    from avatar.io.images import read_grey, read_rgb
    from avatar.io.video_writer import VideoWriter

    media = folder / "media"
    dataset = media / "dataset"
    black = np.zeros((32, 32, 3), np.uint8)

    def sound(path: Path) -> None:
        frames = AudioFile(path).frames(25.0)
        assert frames < 10_000_000, f"{frames} frames of sound"
        next(stream_audio(path))
        finite(load_audio(path), "the sound")
        with VideoWriter(folder / "out.mp4", 32, 32, 25.0, path) as writer:
            for _ in range(8):
                writer.write(black)

    def moving(path: Path) -> None:
        info = video.read_info(path)
        assert info.num_frames < 100_000, f"{info.num_frames} frames"
        for picture in video.read_frames(info):
            assert picture.shape == (info.height, info.width, 3)
        list(video.sample_frames(info, 3))
        for chunk in video.read_audio(path, info.start, info.duration):
            assert len(chunk) <= info.duration * _SECOND + 1

    def pictures(_: Path) -> None:
        info = ernerf.read_info(dataset)
        for picture in ernerf.read_frames(info):
            assert picture.shape == (info.height, info.width, 3)
        for name in (ernerf.TRAIN, ernerf.VAL):
            found = ernerf.read_transforms(dataset / name)
            finite([found.focal, found.cx, found.cy, found.fps], name)
            finite(found.poses, "poses")

    sounds = [_target(f"sound {kind}", media / f"sound.{kind}", sound) for kind in ("wav", "flac", "mp3", "ogg", "m4a")]
    return [
        *sounds,
        _target("video", media / "video.mp4", moving),
        _target("jpeg", media / "frame.jpg", lambda path: (read_rgb(path), read_grey(path))),
        _target("png", media / "mask.png", lambda path: (read_mask(path), read_rgb(path))),
        _target("dataset poses", dataset / ernerf.TRAIN, pictures),
        _target("dataset split", dataset / ernerf.VAL, pictures),
        _target("dataset picture", dataset / "ori_imgs" / "0.jpg", pictures),
        _target("dataset sound", dataset / ernerf.AUDIO, pictures),
    ]


def _recordings(folder: Path) -> list[Target]:
    from avatar.corpus.cache import MARKER, Cache
    from avatar.motion import facegood
    from avatar.preprocess.face_tracker import track_video

    recordings = folder / "recordings"
    cache = recordings / "cache"

    def mouth(_: Path) -> None:
        opened = Cache.open(cache, {"name": "mel"})
        found = opened.mouth(_KEY)
        found.in_step(-0.1)
        finite([found.fps, found.rows, found.seconds], "a mouth")
        finite(opened.features(_KEY), "features")

    def refusal(_: Path) -> None:
        opened = Cache.open(cache, {"name": "mel"})
        opened.done(_OTHER_KEY)
        opened.reason(_OTHER_KEY)

    def kept(path: Path) -> None:
        track = track_video(recordings / "video.mp4", None, path.parent)  # pyright: ignore[reportArgumentType]
        finite(track.fps, "a rate")

    weights = recordings / f"speech{facegood.SUFFIX}"
    return [
        _target("corpus mouth", cache / _KEY[:2] / f"{_KEY}.safetensors", mouth),
        _target("corpus refusal", cache / _OTHER_KEY[:2] / f"{_OTHER_KEY}.json", refusal),
        _target("corpus cache", cache / MARKER, refusal),
        _target("facegood", weights, lambda path: finite(facegood.load(path), "coefficients")),
        _target("facegood names", recordings / facegood.NAMES_FILE, lambda _: finite(facegood.load(weights), "them")),
        *(_target(*given) for given in given_tracks(recordings / "tracks", folder / "run" / "prior.safetensors")),
        _target("kept track", recordings / "kept" / f"{_KEPT}.npz", kept),
    ]
