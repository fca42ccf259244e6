"""Videos and images say that a program made them, and `avatar verify` finds out whether what they say holds."""

from __future__ import annotations

import io
import json
import os
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import avatar
from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.io.video_writer import VideoWriter
from avatar.motion import Motion
from avatar.paths import config_dir
from avatar.provenance import keys
from avatar.provenance.credentials import PROGRAM, read
from avatar.provenance.disclosure import Disclosure, DisclosureOptions
from avatar.provenance.keys import FILE, SigningKey, installation_key
from avatar.provenance.label import labelled
from avatar.provenance.source_type import COMPOSITE, TRAINED, read_source_type, write_source_type
from tests.fake_avatar import FPS, FakeAvatar
from tests.person import person_info

CONSENT = "ab" * 32


@pytest.fixture
def disclosure() -> Disclosure:
    return DisclosureOptions().open(CONSENT)


def film(path: Path, disclosure: Disclosure | None, frames: int = 6) -> Path:
    with VideoWriter(path, 64, 48, 25.0, disclosure=disclosure) as writer:
        for shade in range(frames):
            writer.write(np.full((48, 64, 3), 20 * shade, np.uint8))
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def image(path: Path, alpha: bool = False, **options: object) -> Path:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (33, 57, 4 if alpha else 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


def test_a_video_holds_and_shows_what_it_showed_before(tmp_path, disclosure, capsys) -> None:
    video, plain = film(tmp_path / "a.mp4", disclosure), film(tmp_path / "b.mp4", None)
    claims = read(video)
    assert claims.state == "valid" and claims.source_type == claims.metadata_source_type == TRAINED
    assert claims.consent == CONSENT and claims.program.startswith(PROGRAM) and not claims.known_signer
    assert abs(datetime.fromisoformat(claims.made.replace("Z", "+00:00")) - datetime.now(timezone.utc)) < timedelta(
        minutes=1
    )
    assert all(np.array_equal(a, b) for a, b in zip(frames_of(video), frames_of(plain), strict=True))
    assert main(["verify", str(video), "--json", str(tmp_path / "found.json")]) == 0
    assert "made by a trained model (AI)" in (text := said(capsys)) and "does not prove who signed" in text
    assert json.loads((tmp_path / "found.json").read_text())["state"] == "valid"
    assert read(plain).state == "none" and read(plain).metadata_source_type is None


def test_one_changed_byte_is_found(tmp_path, disclosure, capsys) -> None:
    video = film(tmp_path / "a.mp4", disclosure)
    whole = video.read_bytes()
    for at in (whole.index(b"mdat") + 40, whole.rindex(b"trainedAlgorithmicMedia")):
        changed = bytearray(whole)
        changed[at] ^= 1
        video.write_bytes(changed)
        assert main(["verify", str(video)]) == 2
        assert "is not as it was signed" in said(capsys), at
    video.write_bytes(whole[:-30])
    assert read(video).state == "invalid"


def test_encoding_anew_loses_the_credentials_and_verify_says_so(tmp_path, disclosure, capsys) -> None:
    video, copy = film(tmp_path / "a.mp4", disclosure), tmp_path / "copy.mp4"
    with av.open(str(video)) as source, av.open(str(copy), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert main(["verify", str(copy)]) == 2
    assert "has no content credentials" in said(capsys)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}), ("alpha.png", {"alpha": True}), ("a.webp", {}), ("lossless.webp", {"lossless": True}),
        ("alpha.webp", {"alpha": True}), ("alpha_lossless.webp", {"alpha": True, "lossless": True}),
        ("a.gif", {}), ("a.jpg", {}),
    ],
)  # fmt: skip
def test_images(tmp_path, disclosure, name, options) -> None:
    path = image(tmp_path / name, **options)
    before = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    disclosure.finish(path)
    claims = read(path)
    assert claims.state == "valid" and claims.source_type == TRAINED
    assert claims.metadata_source_type == (TRAINED if path.suffix in (".png", ".webp") else None)
    after = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert (after is None and before is None) or np.array_equal(before, after)


def test_an_animation_keeps_its_frames(tmp_path, disclosure) -> None:
    from PIL import Image

    shades = [Image.fromarray(np.full((20, 30, 3), shade, np.uint8)) for shade in (0, 90, 200)]
    path = tmp_path / "a.webp"
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=40, lossless=True)
    disclosure.finish(path)
    assert read(path).state == "valid" and read(path).metadata_source_type == TRAINED
    with Image.open(path) as shown:
        assert shown.n_frames == 3


def test_without_credentials_the_reason_and_the_source_are_in_the_file(tmp_path, capsys) -> None:
    disclosure = DisclosureOptions(no_credentials=" test \n footage ").open()
    disclosure.announce()
    video = film(tmp_path / "a.mp4", disclosure)
    assert "has no content credentials: test footage" in said(capsys)
    with av.open(str(video)) as container:
        assert "No content credentials: test footage" in container.metadata["description"]
    assert read(video).state == "none" and read_source_type(video) == TRAINED
    assert main(["verify", str(video)]) == 2
    assert "nobody signed, say: made by a trained model" in said(capsys)


def test_the_label_is_where_it_belongs() -> None:
    for size, channels in ((512, 3), (96, 4), (10, 3)):
        plain = np.full((size, size, channels), 130, np.uint8)
        plain[..., 3:] = 0
        shown = labelled(plain)
        rows, columns = np.nonzero((shown != plain).any(-1))
        assert (plain[..., :3] == 130).all() and len(rows)
        if size > 50:
            assert rows.min() > 0.7 * size and columns.min() > 0.7 * size and shown[..., :3].max() > 240
            assert channels == 3 or (shown[rows, columns, 3] > 150).all()
    with pytest.raises(AvatarError, match="needs a reason"):
        DisclosureOptions(no_credentials="  ").open()


def test_the_key_of_the_installation_is_made_once_and_private() -> None:
    first, again = installation_key(), installation_key()
    path = config_dir() / FILE
    assert first == again and first.key in path.read_bytes()
    assert os.name == "nt" or path.stat().st_mode & 0o077 == 0
    assert "PRIVATE" not in repr(first)


def test_a_key_that_has_expired_is_made_anew_and_a_damaged_one_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AVATAR_CONFIG", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(keys, "_VALID", timedelta(days=2))
        old = installation_key()
    assert installation_key() != old
    (tmp_path / FILE).write_text("nothing")
    with pytest.raises(AvatarError, match="is damaged"):
        installation_key()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_home_that_cannot_be_written_does_not_stop_it(tmp_path, monkeypatch, capsys) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("AVATAR_CONFIG", str(tmp_path))
    assert installation_key().algorithm == "es256" and "cannot be written" in said(capsys)


def own(folder: Path, key: SigningKey, name: str) -> tuple[Path, Path]:
    certificate, secret = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(key.certificates)
    secret.write_bytes(key.key)
    return certificate, secret


def test_a_key_of_ones_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(keys, "ORGANIZATION", "A studio")
    certificate, secret = own(tmp_path, keys._make(), "studio")
    options = DisclosureOptions(certificate=certificate, key=secret)
    assert read(film(tmp_path / "a.mp4", options.open())).signer == "This installation, A studio"
    other, other_key = own(tmp_path, keys._make(), "other")
    (tmp_path / "empty").write_text("")
    for bad, words in (
        (DisclosureOptions(certificate=certificate), "--certificate needs --key"),
        (DisclosureOptions(key=secret), "--key needs --certificate"),
        (DisclosureOptions(certificate=certificate, key=other_key), "does not belong to"),
        (DisclosureOptions(certificate=tmp_path / "none", key=secret), "cannot be read"),
        (DisclosureOptions(certificate=tmp_path / "empty", key=secret), "holds no certificate"),
        (DisclosureOptions(certificate=other, key=tmp_path / "empty"), "holds no private key"),
        (DisclosureOptions(certificate=other, key=other_key, no_credentials="x"), "exclude each other"),
    ):
        with pytest.raises(AvatarError, match=words):
            bad.open()


def test_a_key_may_have_the_form_that_openssl_writes(tmp_path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

    made = keys._make()
    certificate, secret = own(tmp_path, made, "studio")
    key = load_pem_private_key(made.key, None)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    assert b"BEGIN EC PRIVATE KEY" in secret.read_bytes()
    options = DisclosureOptions(certificate=certificate, key=secret)
    assert read(film(tmp_path / "a.mp4", options.open())).state == "valid"


def test_a_certificate_that_may_not_sign_is_refused_at_once(tmp_path) -> None:
    made = keys._make()
    root = made.certificates[made.certificates.rindex(b"-----BEGIN") :]
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    alone = keys._certificate("Root of this installation", secret, secret)  # a root signs certificates, not files
    pem = secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    wrong = SigningKey(pem, alone.public_bytes(serialization.Encoding.PEM) + root, "es256")
    certificate, key = own(tmp_path, wrong, "root")
    with pytest.raises(AvatarError, match="does not sign content credentials"):
        DisclosureOptions(certificate=certificate, key=key).open()


def test_a_file_that_cannot_be_signed_is_kept(tmp_path, monkeypatch, disclosure, capsys) -> None:
    from avatar.provenance import credentials

    def fail(*_: object) -> None:
        raise AvatarError("x.mp4 cannot be signed.")

    monkeypatch.setattr(credentials, "sign", fail)
    assert read_source_type(film(tmp_path / "x.mp4", disclosure)) == TRAINED
    assert "written without content credentials" in said(capsys)


def test_a_disk_that_fills_up_while_a_file_is_signed_is_said(tmp_path, monkeypatch, disclosure) -> None:
    """It is no file without credentials: what writes many files would count it as done."""
    from avatar.provenance import credentials

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    def opened(path: Path, mode: str) -> object:
        return Full() if mode == "w+b" else open(path, mode)

    picture = tmp_path / "a.png"
    cv2.imwrite(str(picture), np.zeros((16, 16, 3), np.uint8))
    before = picture.read_bytes()
    monkeypatch.setattr(credentials, "open", opened, raising=False)
    with pytest.raises(OSError, match="No space left"):
        credentials.sign(picture, disclosure.key, TRAINED)
    assert picture.read_bytes() == before and [path.name for path in tmp_path.glob("*.png")] == ["a.png"]


def test_render_signs_with_the_consent_of_the_run(tmp_path, monkeypatch, capsys) -> None:
    import avatar.infer.avatar as module
    from avatar.data.consent import SYNTHETIC, consent_hash

    run = tmp_path / "run"
    run.mkdir()
    Motion.zeros(60, FPS).save(run / "motion.safetensors")
    SYNTHETIC.write(run)
    monkeypatch.setattr(module.Avatar, "load", staticmethod(lambda *_, **__: FakeAvatar(run)))
    out = tmp_path / "out.mp4"
    assert main(["render", str(run), "--idle", "1", "--out", str(out), "--label", "corner"]) == 0
    claims = read(out)
    assert claims.state == "valid" and claims.consent == consent_hash(run)
    (first, *_), corner = frames_of(out), slice(-20, None)
    assert main(["render", str(run), "--idle", "1", "--out", str(out), "--no-credentials", "a test"]) == 0
    assert read(out).state == "none" and "a test" in said(capsys)
    assert np.abs(frames_of(out)[0][corner, corner].astype(int) - first[corner, corner]).max() > 50
    assert main(["render", str(run), "--idle", "1", "--out", str(out), "--no-credentials", ""]) == 2


def test_videos_of_an_evaluation_say_which_part_is_made(tmp_path) -> None:
    from avatar.data.consent import SYNTHETIC, consent_hash
    from avatar.eval.recorder import Recorder

    run = tmp_path / "run"
    run.mkdir()
    SYNTHETIC.write(run)
    files = {
        tmp_path / "pred.mp4": ["audio"],
        tmp_path / "both.mp4": ["real", "audio"],
        tmp_path / "real.mp4": ["real"],
    }
    with Recorder(files, (64, 64), 25.0, None, 0.0, run) as recorder:
        for _ in range(3):
            recorder.write({name: np.zeros((64, 64, 3), np.uint8) for name in ("real", "audio")})
    found = [read(path) for path in files]
    assert [claims.source_type for claims in found] == [TRAINED, COMPOSITE, None]
    assert [claims.consent for claims in found] == [*[consent_hash(run)] * 2, None]


def test_consent_and_photo_of_a_run_go_into_every_file_together(tmp_path, capsys) -> None:
    from avatar.data.consent import SYNTHETIC, consent_hash, own
    from avatar.data.disclosed import disclosed
    from avatar.data.photo import PhotoInfo

    SYNTHETIC.write(tmp_path)
    person_info(photo=PhotoInfo(sha256=CONSENT)).write(tmp_path / "person.json")
    found = disclosed(tmp_path, DisclosureOptions(label="corner"), COMPOSITE)
    assert (found.consent, found.photo) == (consent_hash(tmp_path), CONSENT)
    assert (found.label, found.source_type) == ("corner", COMPOSITE)
    # A file that shows several avatars holds the records of all; one that two of them share is there once.
    other, third = tmp_path / "other", tmp_path / "third"
    for folder, record in ((other, SYNTHETIC), (third, own())):
        folder.mkdir()
        record.write(folder)
    both = disclosed(third, others=[other, tmp_path])
    path = image(tmp_path / "a.png")
    both.finish(path)
    claims = read(path)
    assert claims.state == "valid" and (claims.consent, claims.photo) == (consent_hash(third), CONSENT)
    assert (claims.more_consents, claims.more_photos) == ([consent_hash(other)], [])
    assert "in part from one photo" in both.comment and main(["verify", str(path)]) == 0
    assert (text := said(capsys)).count("record of consent") == 2 and consent_hash(other) in text
    # Nobody asks for one without the other. `render --batch` tries the key before it knows a run.
    package = Path(avatar.__file__).parent
    openers = {
        path.name
        for path in package.rglob("*.py")
        if re.search(r"(isclosure|Options\(\)\)?)\.open\(", path.read_text())
    }
    assert openers == {"disclosed.py", "render.py"}


def test_what_is_no_such_file_is_refused(tmp_path, capsys) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "a.mp4").write_bytes(bytes(100))
    for name, words in (("none.mp4", "There is no file"), ("a.txt", "kind that holds no"), ("a.mp4", "a.mp4")):
        assert main(["verify", str(tmp_path / name)]) == 2
        assert words in said(capsys)


def test_source_types_in_odd_files(tmp_path) -> None:
    for suffix, content in ((".png", b"\x89PNG\r\n\x1a\n" + bytes(20)), (".webp", b"RIFF" + bytes(30))):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError):
            write_source_type(path, TRAINED)
        assert path.read_bytes() == content
    lying = io.BytesIO()
    lying.write((1000).to_bytes(4, "big") + b"ftyp" + (1).to_bytes(4, "big") + b"uuid" + bytes(8))
    (tmp_path / "a.mp4").write_bytes(lying.getvalue())
    assert read_source_type(tmp_path / "a.mp4") is None
