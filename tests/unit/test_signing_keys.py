"""What signs stays secret and lasts, and `avatar verify` calls nothing changed that is as it was signed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.provenance import credentials, keys
from avatar.provenance.credentials import read
from avatar.provenance.disclosure import DisclosureOptions
from avatar.provenance.folder import read_folder
from avatar.provenance.keys import FILE, installation_key, own_key
from avatar.provenance.source_type import TRAINED
from tests.closed import close_folder


def image(path: Path) -> Path:
    from PIL import Image

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation that has no key yet."""
    monkeypatch.setenv("AVATAR_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def test_a_key_in_the_file_of_the_certificates_is_not_published(tmp_path: Path) -> None:
    """Servers keep both in one file; all that stands in the chain goes into what is signed."""
    made = keys._make()
    private = load_pem_private_key(made.key, None)
    secret = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    number = private.private_numbers().private_value.to_bytes(32, "big")
    for content in (made.certificates + made.key, b"Bag Attributes\n" + made.key + made.certificates):
        both = tmp_path / "both.pem"
        both.write_bytes(content)
        path = image(tmp_path / "a.png")
        DisclosureOptions(certificate=both, key=both).open().finish(path)
        assert read(path).state == "valid"
        assert number not in path.read_bytes() and secret not in path.read_bytes()


def test_kinds_of_keys_that_nobody_knows_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = keys._make()
    certificate, key = tmp_path / "a.crt", tmp_path / "a.key"
    certificate.write_bytes(made.certificates)
    key.write_bytes(made.key)

    def unknown(*_: object) -> None:
        raise UnsupportedAlgorithm("Curve 1.3.132.0.32 is not supported")

    with monkeypatch.context() as patch:
        patch.setattr("cryptography.hazmat.primitives.serialization.load_pem_private_key", unknown)
        with pytest.raises(AvatarError, match=r"a\.key is of a kind that signs no content credentials"):
            own_key(certificate, key)
    monkeypatch.setattr(x509, "load_pem_x509_certificates", unknown)
    with pytest.raises(AvatarError, match=r"a\.crt is of a kind"):
        own_key(certificate, key)


def test_a_file_outlives_the_year_of_its_key(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(keys, "_VALID", timedelta(days=365))  # as they were made before
        old = installation_key()
    new = installation_key()
    leaf = x509.load_pem_x509_certificates(new.certificates)[0]
    assert new != old and leaf.not_valid_after_utc > datetime.now(timezone.utc) + timedelta(days=9 * 365)
    assert installation_key() == new


def test_a_key_made_while_the_clock_was_ahead_is_made_anew(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could be signed with it until the day on which it was made has come."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=400)

    with monkeypatch.context() as patch:
        patch.setattr(keys, "datetime", Ahead)
        ahead = installation_key()
    assert installation_key() != ahead


def test_a_damaged_key_is_named_before_anything_is_rendered(config: Path) -> None:
    installation_key()
    whole = (config / FILE).read_bytes()
    begin = whole.index(b"-----BEGIN CERTIFICATE")
    for content in (whole[begin:], whole[40:], keys._make().key + whole[begin:]):
        (config / FILE).write_bytes(content)
        with pytest.raises(AvatarError, match=r"installation\.pem is damaged"):
            DisclosureOptions().open()


def test_without_a_home_what_is_made_is_signed(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "AVATAR_CONFIG", "XDG_CONFIG_HOME", "AVATAR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert installation_key().algorithm == "es256"
    from avatar.doctor.checks import examine
    from avatar.paths import cache_dir

    with pytest.raises(AvatarError, match=r"no home folder.*AVATAR_CACHE"):
        cache_dir()
    for check in ("packages", "gpu", "native", "backends", "video", "assets"):
        monkeypatch.setattr(f"avatar.doctor.checks.check_{check}", list)
    (broken,) = [found for found in examine() if found.state == "broken"]
    assert (broken.detail, broken.fix) == ("This user has no home folder.", "Set AVATAR_CACHE to a folder.")


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Signs an image, and changes what the library says about it."""
    import c2pa

    original = c2pa.Reader.json

    def changed(*codes: str, state: str = "Valid", whose: str = "", **active: Any) -> Path:
        def text(reader: c2pa.Reader) -> str:
            said = json.loads(original(reader))
            said["validation_state"] = state
            url = f"self#jumbf=/c2pa/{whose or said['active_manifest']}/c2pa.signature"
            said["validation_status"] += [{"code": code, "url": url} for code in codes]
            said["manifests"][said["active_manifest"]] |= active
            return json.dumps(said)

        path = image(tmp_path / "a.png")
        credentials.sign(path, installation_key(), TRAINED)
        monkeypatch.setattr(c2pa.Reader, "json", text)
        return path

    return changed


def test_an_expired_certificate_does_not_make_a_file_changed(manifest, capsys) -> None:
    """What the library says of a file without a time stamp once its certificate is over, whole and changed."""
    path = manifest("signingCredential.expired", state="Invalid")
    claims = read(path)
    assert (claims.state, claims.expired, claims.known_signer, claims.faults) == ("valid", True, False, [])
    assert main(["verify", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "is as it was signed" in shown and "the certificate has expired" in shown
    ingredient = read(manifest("signingCredential.expired", state="Invalid", whose="urn:c2pa:another"))
    assert ingredient.state == "valid" and not ingredient.expired
    changed = manifest("signingCredential.expired", "claimSignature.mismatch", state="Invalid")
    assert read(changed).state == "invalid" and main(["verify", str(changed)]) == 2


def test_an_unknown_author_is_no_fault_of_the_file(manifest) -> None:
    assert read(manifest("cawg.x509.credential.untrusted", "timeStamp.untrusted")).state == "valid"
    assert read(manifest("cawg.x509.credential.invalid")).state == "invalid"
    assert read(manifest(state="Invalid")).state == "invalid"


def test_a_program_of_an_earlier_version_of_c2pa_is_named(manifest, capsys) -> None:
    path = manifest(claim_generator_info=None, claim_generator="painter/1.0")
    assert main(["verify", str(path)]) == 0 and ", by painter/1.0, " in capsys.readouterr().out
    path = manifest(claim_generator_info=None, claim_generator=None)
    assert main(["verify", str(path)]) == 0 and ", by " not in capsys.readouterr().out


def test_a_manifest_elsewhere_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import c2pa

    def elsewhere(*_: object, **__: object) -> None:
        raise c2pa.C2paError("Remote: must fetch remote manifests from url https://example.org/a.c2pa")

    monkeypatch.setattr(c2pa, "Reader", elsewhere)
    path = image(tmp_path / "a.png")
    assert read(path).state == "none" and main(["verify", str(path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "has no content credentials" in said and "lies elsewhere, and nothing is fetched" in said


def test_a_folder_that_may_not_be_looked_into_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "closed").mkdir()
    path = image(tmp_path / "a.png")
    credentials.sign(path, installation_key(), TRAINED)
    assert main(["verify", str(tmp_path)]) == 0
    close_folder(monkeypatch, "closed")
    capsys.readouterr()
    assert main(["verify", str(tmp_path)]) == 2
    assert "closed: not as it was signed (Permission denied.)" in capsys.readouterr().out


def test_files_whose_names_alone_may_be_read_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder with the permissions r--: they are there, and nobody knows whether they were changed."""
    image(tmp_path / "a.png")
    original = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("a.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "lstat", lambda path, **_: stat(path, follow_symlinks=False))
    (claims,) = read_folder(tmp_path).values()
    assert (claims.state, claims.faults) == ("invalid", ["Permission denied."])


def test_a_video_of_many_boxes_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.provenance import source_type

    path = tmp_path / "a.mp4"
    path.write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\x08free" * 50)
    source_type.write_source_type(path, TRAINED)
    assert source_type.read_source_type(path) == TRAINED
    monkeypatch.setattr(source_type, "_MOST_PARTS", 40)
    assert source_type.read_source_type(path) is None
    short = b"\0\0\0\x17uuid" + bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # a byte less than it takes
    path.write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0" + short + b'DigitalSourceType="x"')
    assert source_type.read_source_type(path) is None
