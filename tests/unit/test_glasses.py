"""Glasses stand off the face mesh; a fringe, or a face without anything on it, changes nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from avatar.data import PersonDataset
from avatar.fields.gaussians import REGIONS
from avatar.fields.skinning import Skinning
from avatar.methods.gaussian.glasses import find_glasses, glasses_seeds, without_glasses
from avatar.methods.gaussian.reference import Reference, reference_frame
from tests.person import make_person

BLUE = (0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Reference:
    data = PersonDataset(make_person(tmp_path_factory.mktemp("person")))
    frame, motion = reference_frame(data), data.motion
    skinning = Skinning(
        motion.head_rotation[frame], motion.head_translation[frame], torch.from_numpy(data.torso_pivot),
        torch.from_numpy(data.warp_box),
    )  # fmt: skip
    return Reference.of(data, skinning, frame)


def worn(plain: Reference, *, bridge: bool) -> Reference:
    """The same with two rings, or a bar over the brows, that the segmenter takes for hair."""
    points = np.asarray(plain.data.landmarks[plain.frame])[:, :2]
    drawn = np.zeros(plain.image.shape[:2], np.uint8)
    eyes = [points[list(pair)].mean(0) for pair in ((33, 133), (263, 362))]
    across = float(np.linalg.norm(eyes[0] - eyes[1]))
    if bridge:
        for eye in eyes:
            cv2.circle(drawn, tuple(int(v) for v in eye), round(0.36 * across), 1, 1)
        middle = (eyes[0] + eyes[1]) / 2
        left, right = (middle + (side * 0.2 * across, 0) for side in (-1, 1))
        cv2.line(drawn, tuple(int(v) for v in left), tuple(int(v) for v in right), 1, 1)
    else:
        y = round(float(points[9, 1])) - 2
        cv2.rectangle(drawn, (0, 0), (drawn.shape[1], y), 1, -1)
    shares = {name: mask * (1 - drawn) for name, mask in plain.masks.items()}
    shares["hair"] = np.maximum(shares["hair"], drawn).astype(np.float32)
    image = np.where(drawn[..., None] > 0, np.float32(BLUE), plain.image)
    return Reference(plain.data, plain.skinning, plain.frame, image, shares)


def test_glasses_are_found_by_their_bridge(plain):
    assert find_glasses(worn(plain, bridge=True)).sum() > 20
    assert not find_glasses(worn(plain, bridge=False)).any()  # a fringe
    assert not find_glasses(plain).any()


def test_glasses_stand_before_the_nose_and_their_color_leaves_the_skin(plain):
    reference = worn(plain, bridge=True)
    glasses = find_glasses(reference)
    seeds = glasses_seeds(reference, glasses, 200, np.random.default_rng(0))
    at = plain.skinning.to_head(seeds.means).numpy()
    shape = plain.data.shape
    middle = np.abs(at[:, 0]) < 4
    assert len(at) > 10 and (seeds.region == REGIONS.index("hair")).all()
    assert at[middle, 2].max() < shape[[159, 386], 2].min() - 0.3  # before the lids
    assert at[:, 2].min() > shape[:468, 2].min() - 1.0  # and not before the tip of the nose
    pixels = plain.pixels(seeds.means.numpy())
    column, row = np.floor(pixels).astype(int).T
    assert glasses[row, column].all()  # from the front they are where they were filmed
    assert (seeds.colors - torch.tensor(BLUE)).abs().mean() < 0.25
    skin = without_glasses(reference, glasses, pixels, reference.sample(pixels))
    assert np.abs(skin - BLUE).mean() > 0.3
    assert (without_glasses(reference, np.zeros_like(glasses), pixels, skin) == skin).all()


def test_without_glasses_there_are_no_such_seeds(plain):
    none = np.zeros(plain.image.shape[:2], bool)
    assert len(glasses_seeds(plain, none, 200, np.random.default_rng(0)).means) == 0
