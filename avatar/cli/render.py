"""Let an avatar speak an audio file or a text, replay its video, or follow a motion, from any viewpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from avatar import log
from avatar.backends import RendererName, require
from avatar.data.run import require_run
from avatar.device import DeviceName, Precision, choose_device
from avatar.errors import AvatarError
from avatar.infer.controls import Controls, files_of
from avatar.infer.speaking import Speaking
from avatar.paths import write_json
from avatar.provenance.disclosure import DisclosureOptions
from avatar.provenance.source_type import COMPOSITE, TRAINED

GROUPS = {
    "render many": ("batch", "ray", "workers"),
    "say it differently": ("audio_track", "tts", "voice", "language", "speech", "words"),
    "move": ("motion", "retarget", "pose", "pose_guidance", "pose_noise", "pose_scale", "idle", "style", "beyond"),
    "expression": ("emotion", "emotion_limit", "lip_scale", "blink", "gaze"),
    "timeline": ("timeline", "print_timeline", "seed"),
    "made by a program": ("label", "certificate", "key", "no_credentials"),
    "replay the person's video": ("split", "drive", "dub", "person"),
    "hardware": ("baked", "precision", "renderer", "device", "json"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Render an avatar to a video."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """RUN folder of `avatar create` or `avatar train`, or a bundle. With --batch: of the jobs that name none."""
    speaking: tyro.conf.OmitArgPrefixes[Speaking] = field(default_factory=Speaking)
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The mp4 to write; default: named after the input, in the RUN folder. With --batch: the folder of all videos."""
    camera: str | None = None
    """orbit, "azimuth,elevation[,zoom]" in degrees around the head, or a .json of keyframes; default: as filmed. A view
    that this avatar is not good for stops at its limit, and a line says so; see --beyond."""
    size: int | None = None
    """Longer side of the video in pixels; default: as prepared (see `avatar prepare --frame`)."""
    frames: int | None = None
    """Stop after this many frames."""
    split: Literal["test", "train"] | None = None
    """Instead of --audio: the held-out or the training frames of the person's own video, with their real poses."""
    drive: Literal["tracked", "audio"] = "tracked"
    """With --split: whether the lips follow the tracked motion or the audio."""
    dub: bool = False
    """With --audio or --text: say it in the person's own video. Head, torso, gaze and brows are as filmed, and only
    the lips are new. The person has to have agreed to dubbing."""
    person: Path | None = None
    """With --split or --dub: the PERSON folder, where it is not the one the avatar was trained from."""
    baked: bool = False
    """Play what `avatar export --format baked` wrote instead of the trained field: faster."""
    precision: Precision = "auto"
    """Of networks: auto is bfloat16 where the processor is faster with it."""
    renderer: RendererName = "native"
    """Backend that draws: gsplat draws the same image, on a CUDA GPU."""
    device: DeviceName = "auto"
    """Where to render: auto takes a GPU where there is one and the CUDA library is built."""
    batch: Annotated[Path | None, tyro.conf.arg(metavar="CSV")] = None
    """Render the jobs of a CSV with the columns out, run, and audio or text. Columns such as camera, size, emotion,
    pose, gaze and seed are optional. Options are the defaults of its lines. After an interruption, run it again."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """With --batch: address of a Ray cluster to render on. Give auto for the one on this machine, or local for
    --workers processes here. --device cuda gives each worker a GPU."""
    workers: int | None = None
    """With --ray: how many jobs are rendered at once; default: one per processor."""
    json: Path | None = None
    """Write frames, seconds and speed, with the hardware and the commit, to this file."""
    controls: tyro.conf.OmitArgPrefixes[Controls] = field(default_factory=Controls)
    disclosure: tyro.conf.OmitArgPrefixes[DisclosureOptions] = field(default_factory=DisclosureOptions)


def main(config: Config) -> None:
    """Render to an mp4."""
    from avatar.data.bundle import run_folder
    from avatar.data.disclosed import disclosed
    from avatar.data.outputs import refuse_to_overwrite
    from avatar.infer import jobs
    from avatar.infer.avatar import Avatar
    from avatar.infer.camera_path import CameraPath
    from avatar.infer.replay import dubbing_job, replay_job
    from avatar.infer.video import render_file, resize

    if config.batch is not None:
        _batch(config, config.batch)
        return
    if config.run is None:
        raise AvatarError("There is no RUN to render.", fix="Give one: avatar render runs/me --audio speech.wav")
    if config.ray is not None or config.workers is not None:
        raise AvatarError("--ray and --workers belong to --batch.")
    run, speaking, controls = run_folder(config.run), config.speaking, config.controls
    require_run(run)
    jobs.check_source(speaking, controls, config.split, config.drive, config.dub)
    jobs.check_extent(config.size, config.frames)
    require(config.renderer)
    home = run if config.run.is_dir() else config.run.parent  # a bundle has no room for videos
    out = jobs.video_path(home, config.out, speaking, controls, config.split)
    keyframes = Path(config.camera) if config.camera else None
    for written in filter(None, (config.json, controls.print_timeline)):
        refuse_to_overwrite(written, speaking.audio, *files_of(controls), keyframes)
    disclosure = disclosed(run, config.disclosure, COMPOSITE if config.dub else TRAINED)
    disclosure.announce()
    choose_device(config.device)
    path = CameraPath.parse(config.camera)
    controls.write_timeline()
    audio = speaking.open(out)
    avatar = Avatar.load(run, config.baked, config.renderer, config.device, config.precision)
    path = jobs.limited_path(avatar, path, controls.beyond, config.camera)
    camera = resize(avatar.view_camera, config.size)
    if config.split is not None:
        job = replay_job(avatar, config.split, config.drive, controls.speech, config.person, out)
    elif config.dub:
        assert audio is not None  # `check_source`
        job = dubbing_job(avatar, audio, controls.speech, config.person, out)
    else:
        job = jobs.speech_job(avatar, controls, audio, path)
    timing = render_file(avatar, job.limited(config.frames), camera, path, out, disclosure)
    if config.json is not None:
        write_json(config.json, jobs.record(avatar, camera, timing, config.baked))
    log.next_command(f"avatar view {log.word(config.run)}")


def _batch(config: Config, table: Path) -> None:
    """Render the jobs of a table."""
    from avatar.batch.run import render_batch
    from avatar.batch.table import Defaults
    from avatar.batch.task import Loading

    alone = {
        "dub": config.dub or None, "split": config.split, "person": config.person, "json": config.json,
        "print-timeline": config.controls.print_timeline, "drive": config.drive if config.drive != "tracked" else None,
    }  # fmt: skip
    if named := [name for name, value in alone.items() if value is not None]:
        raise AvatarError(f"--{named[0]} does not go with --batch.")
    if config.out is None:
        raise AvatarError("--batch needs a folder for the videos.", fix="Name it with --out.")
    if config.workers is not None and config.ray is None:
        raise AvatarError("--workers belongs to --ray.", fix="For processes of this machine, add --ray local.")
    if config.workers is not None and config.workers < 1:
        raise AvatarError(f"--workers {config.workers} is too few.", fix="Give 1 or more.")
    config.disclosure.open().announce()  # a key that cannot be used is refused before anything is rendered
    if config.ray is None:  # else it is for the machines of the cluster to have
        require(config.renderer)
        choose_device(config.device)
    defaults = Defaults(
        run=config.run, speaking=config.speaking, controls=config.controls, camera=config.camera, size=config.size,
        frames=config.frames,
    )  # fmt: skip
    loading = Loading(
        baked=config.baked, renderer=config.renderer, device=config.device, precision=config.precision,
        disclosure=config.disclosure,
    )  # fmt: skip
    render_batch(table, config.out, defaults, loading, ray=config.ray, workers=config.workers)
