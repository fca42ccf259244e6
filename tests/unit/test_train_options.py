"""Options of a training: the preset is the default, a file goes on top, and what the command line says always wins."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from avatar.cli.main import main
from avatar.cli.train import parse
from avatar.errors import AvatarError
from avatar.methods.registry import preset
from avatar.train.config import TrainConfig, check, differences, from_file, from_preset, table
from avatar.train.run import command, printed

ROOT = Path(__file__).resolve().parents[2]


def read(*words: str) -> TrainConfig:
    return parse(["PERSON", "--out", "RUN", *words], "avatar train", "Train.")


@pytest.mark.parametrize("quality", ["draft", "standard", "high"])
def test_without_options_the_preset_is_trained(quality):
    config, wanted = read("--quality", quality), preset("gaussian", quality)
    assert all(getattr(config, part.name) == getattr(wanted, part.name) for part in fields(wanted))
    assert config.quality == quality and config.person == Path("PERSON")


def test_presets_differ_in_cost():
    draft, standard, high = (read(f"--quality={quality}") for quality in ("draft", "standard", "high"))
    assert draft.schedule.steps < standard.schedule.steps < high.schedule.steps
    assert draft.model.max_gaussians < standard.model.max_gaussians < high.model.max_gaussians


@pytest.mark.parametrize(
    ("words", "part", "name", "value"),
    [
        (["--loss.lpips", "0.05"], "loss", "lpips", 0.05),  # the default of the class, not of the preset
        (["--loss.lpips", "0.07"], "loss", "lpips", 0.07),
        (["--steps", "77"], "schedule", "steps", 77),
        (["--schedule.steps", "10000"], "schedule", "steps", 10_000),
        (["--model.max-gaussians", "30000"], "model", "max_gaussians", 30_000),
        (["--model.deforms", "means", "opacities"], "model", "deforms", ("means", "opacities")),
    ],
)
def test_an_option_that_is_given_wins_over_the_preset(words, part, name, value):
    for order in (["--quality", "draft", *words], [*words, "--quality=draft"]):
        config = read(*order)
        assert getattr(getattr(config, part), name) == value
        changed = differences(table(config), table(read("--quality", "draft")))
        assert list(changed) in ([f"{part}.{name}".replace("_", "-")], [])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model.coarsest", "161"], "--model.coarsest 161 is larger than --model.finest 160"),
        (["--method", "nerf", "--model.finest", "15"], "--model.coarsest 16 is larger than --model.finest 15"),
        (["--model.max-gaussians", "15999"], "--model.max-gaussians 15999 is below --model.initial-gaussians"),
    ],
)
def test_options_that_contradict_each_other_are_refused_before_training(words, says):
    with pytest.raises(AvatarError, match=says):
        check(read(*words))


@pytest.mark.parametrize("method", ["gaussian", "nerf"])
@pytest.mark.parametrize("quality", ["draft", "standard", "high"])
def test_presets_contradict_nothing(method, quality):
    check(read("--method", method, "--quality", quality))
    check(read("--method", method, "--quality", quality, "--model.coarsest", "64", "--model.finest", "64"))


def test_help_shows_the_defaults_of_the_quality(capsys):
    shown = {}
    for quality in ("draft", "standard"):
        assert main(["train", "--quality", quality, "--help"]) == 0
        shown[quality] = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "LPIPS asset. 0 turns it off. (default: 0.0)" in shown["draft"] and "(default: 3000)" in shown["draft"]
    assert "LPIPS asset. 0 turns it off. (default: 0.05)" in shown["standard"]


@pytest.mark.parametrize("quality", ["draft", "standard", "high"])
def test_configs_of_the_repository_are_the_presets(quality):
    path = ROOT / "configs" / f"{quality}.toml"
    config = from_preset("gaussian", quality, person=Path("PERSON"), out=Path("RUN"))
    assert path.read_text() == printed(config)
    assert from_file(path, person=Path("PERSON"), out=Path("RUN")) == config


def test_what_is_printed_can_be_kept_and_read(tmp_path, capsys):
    words = ["train", "PERSON", "--out", "RUN", "--quality", "draft", "--loss.lpips", "0.05", "--seed", "3"]
    assert main([*words, "--print-config"]) == 0
    path = tmp_path / "mine.toml"
    path.write_text(capsys.readouterr().out)
    config = read("--config", str(path))
    assert (config.loss.lpips, config.seed, config.quality) == (0.05, 3, "draft")
    config = read(f"--config={path}", "--loss.lpips", "0", "--model.deforms", "means")
    assert (config.loss.lpips, config.seed, config.model.deforms) == (0.0, 3, ("means",))
    path.write_text("[model.densify]\nrefine_every = 50\n")
    config = read("--config", str(path), "--quality", "draft")
    assert config.model.densify.refine_every == 50 and config.schedule.steps == 3000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stepps = 3", "mine.toml: there is no option stepps. Known are person, out, quality"),
        ("[loss]\nssimm = 1.0", "mine.toml: loss: there is no option ssimm. Known are ssim"),
        ("[model.densify]\nstart = 1.0", "mine.toml: model: densify: there is no option start. Known are refine_start"),
        ('seed = "one"', "mine.toml: seed is 'one'"),
        ("loss = 3", "mine.toml: loss is not a table"),
        ("[model]\ndeforms = ['eyes']", "mine.toml: model: deforms is .'eyes'."),
        ("[[[", "mine.toml cannot be read as TOML"),
        ('format = "avatar-run-1"', "mine.toml was written by another version"),
        ('quality = "best"', "--quality best is not known"),
        ('method = "voxels"', "no method 'voxels'"),
        ("quality = 3", "mine.toml: quality is not text"),
        ('quality = "high"', "--quality draft contradicts"),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_sentence(tmp_path, text, says):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(AvatarError, match=says):
        read("--config", str(path), *(["--quality", "draft"] if "high" in text else []))
    with pytest.raises(AvatarError, match="does not exist"):
        read("--config", str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    "words",
    [
        [], ["--quality", "draft"], ["--loss.lpips", "0.05", "--quality", "draft"],
        ["--model.deform-torso", "--model.deforms", "means", "--steps", "9", "--seed", "2"],
        ["--prior", "my prior.safetensors", "--device", "cpu", "--model.densify.refine-every", "7"],
    ],
)  # fmt: skip
def test_the_command_that_is_advised_trains_the_same(words):
    config = read(*words)
    advised = shlex.split(command(config))
    assert advised[:2] == ["avatar", "train"] and parse(advised[2:], "avatar train", "") == config


@pytest.mark.parametrize(
    "words",
    [["--steps", "0"], ["--threads", "0"], ["--model.hidden", "0"], ["--model.densify.refine-every", "0"],
     ["--quality", "best"], ["--method", "voxels"], ["--model.renderer", "opengl"]],
)  # fmt: skip
def test_options_out_of_range_exit_with_2(words, tmp_path, capsys):
    assert main(["train", str(tmp_path / "person"), "--out", str(tmp_path / "run"), *words]) == 2
    said = capsys.readouterr().err
    assert words[0].lstrip("-") in said or words[1] in said
    assert not (tmp_path / "run").exists()
