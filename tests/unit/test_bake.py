"""Baking: the linear basis plays what the trained field plays, and says when it cannot."""

from __future__ import annotations

import pytest
import torch

from avatar.cli.main import main
from avatar.data.run import BAKED
from avatar.errors import AvatarError
from avatar.fields.baked_basis import BakedField
from avatar.fields.deformation import DeformationField
from avatar.fields.triplane import TriplaneHash
from avatar.infer.avatar import Avatar
from avatar.motion import Motion
from tests.person import make_person, small_config, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bake")
    trainer = train(small_config(make_person(folder / "person"), folder / "run", steps=60))
    with torch.no_grad():  # sixty steps hardly deform anything: so that there is something to bake
        trainer.model.field.head.weight.mul_(100)
    trainer.save_model(folder / "run" / "model.safetensors")
    return folder / "run"


def test_modes_reproduce_the_field():
    torch.manual_seed(0)
    encoding = TriplaneHash(
        torch.tensor([[-1.0] * 3, [1.0] * 3]), levels=3, features=2, coarsest=4, finest=16, log2_table=8
    )
    torch.nn.init.normal_(encoding.table)
    field = DeformationField(encoding, 5, hidden=16)
    torch.nn.init.normal_(field.head.weight, std=0.1)
    conditions = torch.randn(400, 5)
    with torch.no_grad():
        code = field.spatial_code(torch.rand(400, 3) * 2 - 1, torch.zeros(400, 0))
        errors = []
        for modes in (2, 8, 24):
            baked = BakedField.fit(field, code, conditions, torch.ones(400), modes)
            new = torch.randn(5)  # a condition it was not fitted to
            exact, shown = torch.cat(field.from_code(code, new), -1), torch.cat(baked(field, code, new), -1)
            errors.append(float((shown - exact).norm() / (exact - baked.mean).norm()))
            assert len(baked.probes) < 400
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.2


@pytest.mark.parametrize("frames", [1, 6])
def test_a_field_that_is_always_the_same_cannot_be_baked(frames: int):
    """That of a photo, or of a single frame."""
    encoding = TriplaneHash(
        torch.tensor([[-1.0] * 3, [1.0] * 3]), levels=2, features=2, coarsest=4, finest=8, log2_table=6
    )
    field = DeformationField(encoding, 5, hidden=16, deforms=())
    with torch.no_grad():
        code = field.spatial_code(torch.rand(40, 3) * 2 - 1, torch.zeros(40, 0))
    with pytest.raises(AvatarError, match="nothing to bake"):
        BakedField.fit(field, code, torch.randn(frames, 5), torch.ones(40), 4)


def test_bake_and_play(run, capsys):
    assert main(["export", "--format", "baked", str(run), "--modes", "8"]) == 0
    assert "PSNR" in capsys.readouterr().err
    motion = Motion.load(run / "motion.safetensors")
    plain = Avatar.load(run, device="cpu", precision="float32")
    baked = Avatar.load(run, baked=True, device="cpu")
    for frame in (1, 4):
        exact = plain.render(plain.camera, motion, frame).float()
        shown = baked.render(baked.camera, motion, frame).float()
        assert (exact - shown).square().mean() < 0.1  # 58 dB; with one mode in the place of eight it is 1 to 3
    assert baked.model.baked is not None and baked.model.spatial_code().dtype == torch.float32
    baked.model.baked.mean[:, 0] += 1.0  # it is the basis that is played
    assert not torch.equal(baked.render(baked.camera, motion, 4).float(), shown)
    assert main(["render", str(run), "--baked", "--motion", str(run / "motion.safetensors"), "--frames", "2"]) == 0


def test_not_baked_or_baked_from_another_model(run, tmp_path, capsys):
    other = tmp_path / "run"
    other.mkdir()
    for name in ("model.safetensors", "person.json", "motion.safetensors"):
        (other / name).write_bytes((run / name).read_bytes())
    with pytest.raises(AvatarError, match="is not baked"):
        Avatar.load(other, baked=True)
    (other / BAKED).write_bytes(_bake(run))
    Avatar.load(other, baked=True)
    train(small_config(make_person(tmp_path / "person"), tmp_path / "again", steps=2))
    (other / "model.safetensors").write_bytes((tmp_path / "again" / "model.safetensors").read_bytes())
    assert main(["render", str(other), "--baked", "--motion", str(run / "motion.safetensors")]) == 2
    assert "baked from another model" in capsys.readouterr().err


def _bake(run):
    assert main(["export", "--format", "baked", str(run)]) == 0
    return (run / BAKED).read_bytes()


@pytest.mark.parametrize("modes", ["0", "1000"])
def test_modes_out_of_range(run, modes, capsys):
    assert main(["export", "--format", "baked", str(run), "--modes", modes]) == 2
    assert "--modes" in capsys.readouterr().err
