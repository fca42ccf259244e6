"""Measure avatars of one photo against the rest of the clip that the photo is a frame of.

    python -m pipelines.photo_check VIDEO... --out FOLDER [--json FILE]

For each video: the photo is its first frame with closed lips, open eyes and a frontal head. `avatar create` makes an
avatar of it in a process of its own, whose processor time counts; it is kept in FOLDER, with the commit that made it.
FRAMES frames of the rest, evenly over 8 s, are cut like the photo and tracked one by one, with the photo's face and
camera. Their head poses are then aligned through the finished avatar, as `avatar eval` does it with held-out frames
("tracked"; "tracker_poses" are those before, of the same frames). The torso stays at rest. Sheets of real above
rendered frames, of mouths and of turned heads lie in FOLDER.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from avatar.data import PersonDataset
from avatar.data.consent import Consent
from avatar.data.masks import SIZE, MaskReader
from avatar.data.photo import NOD, TURN
from avatar.data.run import TRAINING
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.eval import bootstrap
from avatar.eval.bootstrap import Bootstrap
from avatar.eval.image_metrics import ImageMeter, RealFrame, mouth_box
from avatar.geometry.mesh import FACE_OVAL
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.infer.avatar import Avatar
from avatar.io.images import resize, write_jpeg, write_png
from avatar.io.video import read_frames, read_info
from avatar.losses.lpips import LPIPS
from avatar.methods.options import PHOTO
from avatar.motion import Motion
from avatar.motion.face_channels import relative_opening
from avatar.preprocess import bundle
from avatar.preprocess.face_motion import make_motion
from avatar.preprocess.face_tracker import FaceTracker
from avatar.preprocess.head_fit import rigid_points
from avatar.preprocess.landmarker import Landmarker
from avatar.preprocess.parse import open_parser, save_mask, square
from avatar.preprocess.photo import LEAST_FACE, direction
from avatar.train.config import from_preset
from avatar.train.trainer import Trainer
from pipelines import kept
from pipelines.kept import command

FRAMES = 40  # compared
MOST_SECONDS = 8.0  # of a clip
PASSES = 3  # over the frames, that align their head poses
CLOSED, OPEN_EYES, FRONTAL = 0.035, 0.35, 6.0  # lips over eye distance; eyeBlink; degrees
METRICS = ("psnr", "psnr_face", "ssim", "ssim_face", "lpips")
HOLE = 0.5  # coverage below which a pixel of the face is a hole
VIEWS = ((0, 0), (-TURN, 0), (TURN, 0), (0, -NOD), (0, NOD))  # degrees of head yaw and pitch
CONSENT = Consent(relation="authorised", statement="A measurement on this machine; nothing of it leaves.")


@dataclass
class Chosen:
    """The photo of a clip: its number, and why."""

    index: int
    image: np.ndarray
    why: str


def choose_photo(video: Path) -> Chosen:
    """The first frame with closed lips, open eyes and a frontal head; the nearest to that where there is none."""
    best, cost_of_best = None, np.inf
    with Landmarker(num_faces=1) as landmarker:
        for index, image in enumerate(read_frames(read_info(video))):
            faces = landmarker.detect(image)
            if not faces or faces[0].height < LEAST_FACE:
                continue
            face = faces[0]
            opening = float(relative_opening(face.landmarks[None])[0])
            blink, turned = float(face.arkit[[0, 7]].mean()), abs(direction(face)[0])
            if opening < CLOSED and blink < OPEN_EYES and turned < FRONTAL:
                return Chosen(index, image.copy(), "first with closed lips, open eyes and a frontal head")
            cost = opening / CLOSED + blink / OPEN_EYES + turned / FRONTAL
            if cost < cost_of_best:
                best, cost_of_best = Chosen(index, image.copy(), "nearest to closed lips, open eyes, frontal"), cost
    if best is None:
        raise SystemExit(f"{video}: no face of {LEAST_FACE} pixels")
    return best


def create(photo: Path, run: Path) -> dict[str, float]:
    """Make the avatar as a user does, or keep it; returns its seconds of processor and clock, where they are known."""
    cost = photo.with_name("create.cost.json")
    if not ((run / TRAINING).is_file() and kept.is_done(cost)):
        CONSENT.write(photo.parent)
        consent, person = photo.parent / "consent.json", run.with_name("run.person")
        command("create", photo, "--out", run, "--consent", consent, cost=cost, resumes=person.is_dir())
    used = kept.spent(cost)
    return {} if used is None else {
        "processor_s": round(used["cpu_seconds"], 1), "clock_s": round(used["seconds"], 1)
    }  # fmt: skip


class Clip:
    """Some frames of the clip as a person of the photo's crop, face and camera: what alignment and metrics read."""

    def __init__(self, video: Path, avatar: Avatar, person: PersonDataset, folder: Path, photo: int) -> None:
        self.folder, self.camera, self.shape = folder, avatar.camera, person.shape
        self.width, self.height = avatar.camera.width, avatar.camera.height
        self.person, self.info, info = person, person.info, read_info(video)
        crop = avatar.person.crop or (0, 0, 0, 0)
        last = min(info.num_frames, round(MOST_SECONDS * float(info.fps)))
        wanted = {photo, *np.linspace(0, last - 1, FRAMES).astype(int).tolist()}
        self.images, landmarks, arkit, self.numbers = [], [], [], []
        with Landmarker(num_faces=1) as landmarker:
            for index, frame in enumerate(read_frames(info)):
                if index > max(wanted):
                    break
                image = self._cut(frame, crop) if index in wanted else None
                if image is None or not (faces := landmarker.detect(image)):
                    continue
                face = landmarker.look_again(image, faces[0])
                self.numbers.append(index)
                self.images.append(image)
                landmarks.append(face.landmarks)
                arkit.append(face.arkit)
        if photo not in self.numbers:
            raise AvatarError(f"No face was found in the photo, frame {photo} of {video}, cut as the avatar is.")
        if len(self.numbers) < 2:
            raise AvatarError(f"{video} shows a face in no frame but the photo: there is nothing to compare.")
        self.landmarks, self.num_frames = np.stack(landmarks), len(landmarks)
        self.segments = [(k, k + 1) for k in range(self.num_frames)]  # they are far apart: nothing is smoothed
        self.photo = self.numbers.index(photo)
        self.motion = self._measured(np.stack(arkit), float(info.fps))
        self._masks = self._parsed()
        self.train_frames = np.array([self.photo])
        self.test_frames = np.array([k for k in range(self.num_frames) if k != self.photo])
        self.left_out = np.zeros(0, np.int64)

    def _cut(self, frame: np.ndarray, crop: tuple[int, int, int, int]) -> np.ndarray:
        x, y, width, height = crop
        part = np.ascontiguousarray(frame[y : y + height, x : x + width])
        return part if width == self.width else resize(part, (self.width, self.height))

    def _measured(self, arkit: np.ndarray, fps: float) -> Motion:
        """The clip's motion, measured with the photo's face and camera."""
        shape, camera = self.shape.astype(np.float64), self.camera
        points, centre = rigid_points(shape), np.array([camera.cx, camera.cy])
        pixels, valid = self.landmarks[:, points].astype(np.float64), np.ones(self.num_frames, bool)
        start = bundle.initial(pixels, shape[points], np.ones(len(points)), camera.focal, centre)
        sigma = np.full(len(points), 0.003 * float(np.ptp(self.landmarks[..., 1], axis=1).mean()))
        poses = bundle.solve_poses(pixels[..., :2], start, centre, sigma, valid, self.segments, None)
        motion = make_motion(self.landmarks, arkit, valid, self.segments, poses, shape, centre, fps)
        # Where eyes look straight is known from the photo alone.
        return motion.map(gaze=motion.gaze + self.person.motion.gaze[0] - motion.gaze[self.photo])

    def _parsed(self) -> MaskReader:
        masks = self.folder / "masks"
        masks.mkdir(parents=True, exist_ok=True)
        with open_parser() as (parser, _):
            for index, image in enumerate(self.images):
                part, restore = square(image)
                shares = parser(part, self.landmarks[index, :, :2] * (SIZE / max(image.shape[:2])))[0]
                save_mask(masks / f"{index:06d}.png", restore(shares))
        return MaskReader(
            masks, list(range(self.num_frames)), self.segments, (self.width, self.height), self.landmarks
        )  # fmt: skip

    def image(self, index: int) -> np.ndarray:
        """Frame, uint8 RGB [H, W, 3]."""
        return self.images[index]

    def masks(self, index: int) -> dict[str, np.ndarray]:
        """Soft masks of a frame; see `PersonDataset.masks`."""
        return self._masks.masks(index, (self.width, self.height))

    def background(self, index: int) -> np.ndarray:
        """The photo's background, uint8 RGB [H, W, 3]."""
        return self.person.background_image


def aligned(avatar: Avatar, data: Any, run: Path) -> Motion:
    """The clip's motion, head poses aligned through the avatar."""
    config = from_preset("gaussian", PHOTO, person=data.folder, out=run)
    config = replace(
        config, optim=replace(config.optim, poses=4.0), schedule=replace(config.schedule, align_passes=PASSES)
    )
    trainer = Trainer(data, config, avatar.model)
    trainer.align_held_out()
    avatar.model.eval()
    return trainer.poses.corrected(data.motion)


def compare(avatar: Avatar, data: Clip, motion: Motion, frames: list[int], lpips: LPIPS) -> dict[str, Any]:
    """Metrics of rendered against real frames: means over ``frames``, and their 95 % intervals."""
    meter = ImageMeter()
    with FaceTracker() as tracker:
        for index in frames:
            real = data.image(index)
            landmarks = tracker.track(real)[0]
            seen = RealFrame(real, data.masks(index), landmarks, lpips)
            meter.compare(avatar.draw(avatar.camera, motion, index).numpy(), seen)
    series = {name: values for name, values in meter.series().items() if name in METRICS}
    resamples = Bootstrap.of_chosen([data.numbers[index] for index in frames], data.motion.fps)
    intervals = {name: resamples.interval(bootstrap.mean, values) for name, values in series.items()}
    return {name: round(float(np.nanmean(values)), 4) for name, values in series.items()} | {"intervals": intervals}


def turned(photo: Motion, yaw: float, pitch: float) -> Motion:
    """The photo's pose with the head turned by degrees, about its own axes."""
    turn = axis_angle_to_matrix(torch.deg2rad(torch.tensor([pitch, yaw, 0.0])))
    rotation = axis_angle_to_matrix(photo.head_rotation[:1]) @ turn
    return photo[:1].map(head_rotation=matrix_to_axis_angle(rotation))


def holes(avatar: Avatar, person: PersonDataset) -> tuple[float, list[np.ndarray]]:
    """Largest share of the face that is not covered in turned views, and those views."""
    worst, images = 0.0, []
    for yaw, pitch in VIEWS:
        motion = turned(person.motion, yaw, pitch)
        points = person.shape[list(FACE_OVAL)] @ axis_angle_to_matrix(motion.head_rotation[0]).numpy().T
        pixels = avatar.camera.project(torch.from_numpy(points).float() + motion.head_translation[0]).numpy()
        face = np.zeros((avatar.camera.height, avatar.camera.width), np.uint8)
        cv2.fillPoly(face, [np.round(pixels).astype(np.int32)], 1)
        alpha = avatar.render_person(avatar.camera, motion, 0)[..., 3].numpy()
        worst = max(worst, float((alpha[face > 0] < HOLE).mean()))
        images.append(avatar.draw(avatar.camera, motion, 0).numpy())
    return worst, images


def sheets(avatar: Avatar, data: Clip, motion: Motion, frames: list[int], out: Path) -> None:
    """Real above rendered frames, and mouths three times as large, where the real mouth is widest open and shut."""
    opening = relative_opening(np.asarray(data.landmarks)[frames])
    order = np.array(frames)[np.argsort(opening)]
    picked = [*order[np.linspace(0, len(order) - 1, 8).astype(int)]]
    top, low, mouths = [], [], []
    for index in picked:
        real, drawn = data.image(int(index)), avatar.draw(avatar.camera, motion, int(index)).numpy()
        top.append(real)
        low.append(drawn)
        x0, y0, x1, y1 = mouth_box(np.asarray(data.landmarks[index])[:, :2], (data.width, data.height))
        mouths.append(np.vstack([cv2.resize(i[y0:y1, x0:x1], (240, 240), interpolation=cv2.INTER_CUBIC)
                                 for i in (real, drawn)]))  # fmt: skip
    write_jpeg(out / "frames.jpg", np.vstack([np.hstack(top), np.hstack(low)]), 85)
    write_jpeg(out / "mouths.jpg", np.hstack(mouths), 90)


def measure(video: Path, out: Path, lpips: LPIPS) -> dict[str, Any]:
    """All of one video."""
    photo, run = choose_photo(video), out / "run"
    same = hashlib.sha256(photo.image.tobytes()).hexdigest()
    kept.require(out, {"video": video.name, "photo_frame": photo.index, "photo": same})
    write_png(out / "photo.png", photo.image)
    seconds = create(out / "photo.png", run)
    avatar, person = Avatar.load(run, precision="float32"), PersonDataset(run.with_name("run.person"))
    clip = Clip(video, avatar, person, out / "clip", photo.index)
    frames = [int(k) for k in clip.test_frames]
    plain = compare(avatar, clip, clip.motion, frames, lpips)
    motion = aligned(avatar, clip, run)
    found = compare(avatar, clip, motion, frames, lpips)
    worst, views = holes(avatar, person)
    write_jpeg(out / "turned.jpg", np.hstack(views), 88)
    sheets(avatar, clip, motion, frames, out)
    yaw = np.degrees(motion.head_rotation[:, 1].numpy() - float(person.motion.head_rotation[0, 1]))
    return {
        "video": video.name, "photo_frame": photo.index, "photo_why": photo.why, "size": avatar.camera.width,
        "frames": len(frames), "yaw_deg": [round(float(np.percentile(yaw, q)), 1) for q in (2, 98)],
        "tracked": found, "tracker_poses": plain, "holes_share": round(worst, 5), **seconds,
        "training": kept.trained_at(run),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lpips, results = LPIPS.load(), []
    for video in options.videos:
        results.append(measure(video, options.out / video.stem, lpips))
        print(json.dumps(results[-1]), flush=True)
    if options.json is not None:
        made = {found["video"]: found.pop("training") for found in results}
        asked = {"psnr_face": 23, "lpips": 0.14, "holes_share": 0, "seconds": 30}
        record = {"asked": asked, "people": results, "training": made}
        options.json.write_text(json.dumps(environment() | record, indent=2) + "\n")


if __name__ == "__main__":
    main()
