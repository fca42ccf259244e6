"""`prepare`: run the stages that turn a video into a PERSON folder, and put their results together."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from avatar import log
from avatar.checks import Record
from avatar.data import ernerf
from avatar.data.consent import FILE as CONSENT
from avatar.data.consent import Consent, keep, require_stated
from avatar.data.person import FILE, FORMAT, MARKER, MOTION, PersonFolder, PersonInfo, TrackingQuality
from avatar.data.photo import PhotoInfo
from avatar.data.results import IngestResult, ParseResult, RefineResult, SyncResult, TrackResult
from avatar.errors import AvatarError
from avatar.paths import read_json, write_json
from avatar.preprocess.config import PrepareConfig, check
from avatar.preprocess.held_out import check_length, held_out_text
from avatar.preprocess.photo import check_photo, is_photo
from avatar.preprocess.stage import Stage, StageContext, finished_key, is_current, run_stage
from avatar.writing import contents, one_writer

STAGES = ("ingest", "track", "refine", "parse", "pose", "background", "torso", "sync", "report")
# Of a photo: it has no motion to align, no torso to follow and no audio. These have modules of their own.
PHOTO_STAGES = ("ingest", "track", "refine", "parse", "background", "report")
OF_A_PHOTO = {"ingest": "photo_ingest", "refine": "photo_refine", "report": "photo_report"}


def prepare(
    video: Path,
    out: Path,
    config: PrepareConfig = PrepareConfig(),  # noqa: B008  # frozen
    *,
    stages: Sequence[str] = STAGES,
    force: bool = False,
    consent: Consent | None = None,
) -> None:
    """Run the stages that are not done yet; of a photo those that it has.

    Args:
        video: The video, a dataset folder, or a photo (JPEG or PNG).
        out: The PERSON folder; finished stages in it are kept.
        config: Options.
        stages: Names of the stages to run.
        force: Run every stage anew, and replace what another video left in the folder.
        consent: Record of consent to keep; None: that beside the video, or the one that is there.

    Raises:
        AvatarError: The video, an option or the folder is unsuitable, or another process writes to it; or nobody has
            stated the consent to an avatar of a photo.
    """
    check(config)
    out, photo = Path(out), is_photo(video)
    modules = [load_stage(name, photo=photo) for name in stages if not photo or name in PHOTO_STAGES]
    if photo:
        require_stated(out if holds(out, video) else None, consent, Path(video))
    with one_writer(out):
        claim_folder(video, out, config, force=force)
        ctx = StageContext(person=PersonFolder(out), video=Path(video), config=config)
        try:
            for stage in modules:
                run_stage(stage, ctx, force=force)
            if is_finished("refine", ctx):
                assemble(ctx)
        except AvatarError:
            if [entry.name for entry in contents(out)] == [MARKER]:  # refused at once: leave nothing behind
                (out / MARKER).unlink()  # a folder that was made for it goes with the lock
            raise
        keep(out, consent, Path(video))
        if "report" in stages:
            from avatar.preprocess import report

            report.tell(ctx, "photo" if photo else "video")
            fps = ctx.person.result(IngestResult).fps
            if config.held_out_s == "auto" and (text := held_out_text(ctx.frames, ctx.test_start, fps)):
                log.info(text)


def load_stage(name: str, *, photo: bool = False) -> Stage:
    """Import the module of a stage, of a video or of a photo.

    Raises:
        AvatarError: There is no such stage.
    """
    if name not in STAGES:
        raise AvatarError(f"There is no stage '{name}'.", fix=f"The stages are {', '.join(STAGES)}.")
    module = OF_A_PHOTO.get(name, name) if photo else name
    return cast(Stage, importlib.import_module(f"avatar.preprocess.{module}"))


def holds(out: Path, video: Path) -> bool:
    """Whether a folder holds the preparation of this video, begun or finished.

    Raises:
        AvatarError: The video does not exist or may not be read, or what is in the folder is damaged.
    """
    from avatar.preprocess import ingest

    marker = Path(out) / MARKER
    return marker.exists() and Record(read_json(marker), marker).value("source_sha256", None) == ingest.fingerprint(
        video
    )


def claim_folder(video: Path, out: Path, config: PrepareConfig, *, force: bool = False) -> None:
    """Make the PERSON folder, or check that it belongs to this video.

    Raises:
        AvatarError: The video is unsuitable, or the folder holds something else or another video's person.
    """
    from avatar.preprocess import ingest

    source = ingest.fingerprint(video)
    if is_photo(video):
        check_photo(Path(video), config)
    else:
        info = ingest.check_source(video, config)  # so that a bad video leaves no folder behind
        check_length(config.held_out_s, info.duration, ernerf.test_start(info.path) if info.path.is_dir() else None)
    marker = out / MARKER
    if marker.exists():
        kept = Record(read_json(marker), marker)
        other = kept.value("source_sha256", None) != source
        if other and not force:
            raise AvatarError(
                f"{out} holds the preparation of another video ({kept.text('source', 'unknown')}).",
                fix=f"Choose another --out, or replace it: `avatar prepare VIDEO --out {log.word(out)} --force`.",
                see="the-folder-holds-something-else",
            )
        if other:
            (out / CONSENT).unlink(missing_ok=True)  # of somebody else, it may be
        if not force:
            refuse_other_version(out)
    elif contents(out):
        raise AvatarError(
            f"{out} exists and is not a PERSON folder.",
            why="Nothing was changed.",
            fix="Choose another --out.",
            see="the-folder-holds-something-else",
        )
    write_json(marker, {"format": "avatar-prepare-1", "source": str(video), "source_sha256": source})


def refuse_other_version(out: Path) -> None:
    """Refuse to go on in a folder that another version finished: avatars were trained from what is in it.

    Raises:
        AvatarError: Its person.json has another format.
    """
    try:
        found = Record(read_json(out / FILE), out / FILE).value("format", None)
    except AvatarError:
        return  # missing or damaged: it is written anew
    if found != FORMAT:
        raise AvatarError(
            f"{out} was prepared by another version.", why="Avatars may have been trained from what is in it.",
            fix=f"Choose another folder, or run `avatar prepare VIDEO --out {log.word(out)} --force` to make it anew.",
        )  # fmt: skip


def is_finished(name: str, ctx: StageContext) -> bool:
    """Whether a stage has run, with these options and on what its inputs are now."""
    photo = is_photo(ctx.video)
    return finished_key(ctx.person, name) is not None and is_current(load_stage(name, photo=photo), ctx)


def would_change(video: Path, out: Path, config: PrepareConfig) -> bool:
    """Whether :func:`prepare` would make anew what a finished preparation of this video holds.

    Raises:
        AvatarError: The video does not exist or may not be read.
    """
    ctx = StageContext(person=PersonFolder(Path(out)), video=Path(video), config=config)
    names = PHOTO_STAGES if is_photo(video) else STAGES
    if not ctx.person.info_path.is_file() or not holds(out, video):
        return False
    finished = [name for name in names if name != "report" and finished_key(ctx.person, name) is not None]
    held_out_anew = PersonInfo.read(ctx.person.info_path).test_start != ctx.test_start
    return held_out_anew or not all(is_finished(name, ctx) for name in finished)


def assemble(ctx: StageContext) -> None:
    """Write person.json and motion.safetensors from what the stages found so far."""
    import torch

    from avatar.preprocess.unusable import teaching, within

    person = ctx.person
    ingest, track, refine = person.result(IngestResult), person.result(TrackResult), person.result(RefineResult)
    delay = person.result(SyncResult).audio_delay_s if is_finished(SyncResult.STAGE, ctx) else 0.0
    motion = person.face_motion() if is_finished("pose", ctx) else person.tracked_motion()
    if is_finished(ParseResult.STAGE, ctx):
        covered = within(person.result(ParseResult).covered, ctx.frames)
        motion = motion.map(valid=torch.from_numpy(teaching(motion.valid.numpy(), covered)))
    if is_finished("torso", ctx):
        torso = torch.from_numpy(person.torso(ctx.frames)).float()
        motion = motion.map(torso_rotation=torso[:, :3], torso_translation=torso[:, 3:6], torso_warp=torso[:, 6:])
    motion.save(person.path / MOTION)
    quality = TrackingQuality(
        valid_share=track.valid_share, reprojection_px=refine.reprojection_px,
        jitter_before_deg=refine.jitter_before_deg, jitter_after_deg=refine.jitter_after_deg,
        distance_cm=refine.distance_cm, rotation_range_deg=refine.rotation_range_deg,
    )  # fmt: skip
    PersonInfo(
        width=ingest.width, height=ingest.height, fps=ingest.fps, num_frames=ingest.num_frames,
        test_start=ctx.test_start, segments=tuple(track.segments), camera=refine.camera, has_audio=ingest.has_audio,
        audio_delay_s=delay, source=ingest.source, crop=ingest.crop,
        view=ingest.view(), quality=quality,
        recording=tuple(ingest.recording), photo=None if ingest.photo is None else PhotoInfo(sha256=ingest.photo),
    ).write(person.info_path)  # fmt: skip
