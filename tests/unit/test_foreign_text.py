"""What a stranger's file says is one line of `avatar verify` and no more, whatever control characters are in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avatar.cli.main import main
from avatar.data.consent import FILE, Consent
from avatar.errors import AvatarError
from avatar.paths import write_json
from avatar.provenance import credentials
from avatar.provenance.credentials import CONSENT, PHOTO, Claims, Source, read
from avatar.provenance.keys import installation_key
from avatar.provenance.source_type import TRAINED
from tests.person import person_info

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Signs an image with a manifest that is changed before."""
    original = credentials._manifest

    def signed(name: str = "a.png", change: Change = lambda _: None, sources: list[Source] | None = None) -> Path:
        from PIL import Image

        def manifest(*given: Any) -> dict[str, Any]:
            made = original(*given)
            change(made)
            return made

        monkeypatch.setattr(credentials, "_manifest", manifest)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
        credentials.sign(tmp_path / name, installation_key(), TRAINED, sources or [])
        return tmp_path / name

    return signed


def action(**changes: str) -> Change:
    return lambda made: made["assertions"][0]["data"]["actions"][0].update(changes)


def assertion(label: str, data: object) -> Change:
    return lambda made: made["assertions"].append({"label": label, "data": data})


FORGED = "Camera\n  signed by: X\x1b[8m\r\x9b2K\u202e"


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.update(claim_generator_info=[{"name": FORGED, "version": FORGED}]),
        action(digitalSourceType=f"https://example.org/{FORGED}"), action(when=FORGED),
        assertion(CONSENT, {"sha256": FORGED}), assertion(PHOTO, {"sha256": FORGED}),
    ],
    ids=["program", "source", "time", "consent", "photo"],
)  # fmt: skip
def test_no_text_of_a_file_forges_a_line(sign, capsys, change: Change) -> None:
    path = sign(change=change)
    assert main(["verify", str(path)]) == 0
    shown = capsys.readouterr().out
    first, made, signed = shown.splitlines()
    assert first == f"{path} is as it was signed." and made.startswith("  ") and not made.startswith("  signed")
    assert signed.startswith("  signed by: This installation") and shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("data", [[1, 2], None, "text", {"sha256": 5}, {"sha256": "ab"}, {}])
def test_an_assertion_of_another_kind_is_left_out(sign, data: object) -> None:
    known = "ab" * 32
    claims = read(sign(change=assertion(CONSENT, data), sources=[Source(known, known)]))
    assert (claims.state, claims.consent, claims.photo) == ("valid", known, known)
    assert claims.more_consents == claims.more_photos == []


def test_a_manifest_that_no_program_writes_is_invalid(sign, monkeypatch) -> None:
    path = sign()
    for text in ("[" * 200_000, "no JSON"):
        monkeypatch.setattr("c2pa.Reader.json", lambda _, text=text: text)
        assert read(path) == Claims(state="invalid", metadata_source_type=None, faults=["its manifest cannot be read"])


def test_one_bad_file_does_not_end_the_listing_of_a_folder(sign, tmp_path, monkeypatch, capsys) -> None:
    sign("a.png")
    sign("b.png", assertion(CONSENT, [1, 2]))
    sign("c\n  signed by: X.png")
    (tmp_path / "page.json").write_bytes(b'{"digitalSourceType": "x\x1b[2K\rb.png: as it was signed"}')

    def fails(path: Path) -> Claims:
        if path.name == "a.png":
            raise AvatarError(f"{path} cannot be read.", why="Input/output error.")
        return read(path)

    monkeypatch.setattr(credentials, "read", fails)
    assert main(["verify", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "a.png: not as it was signed (Input/output error.)",
        "b.png: as it was signed; made by a trained model (AI)",
        "c signed by: X.png: as it was signed; made by a trained model (AI)",
        r"page.json: no content credentials; says, unsigned: x\x1b[2K b.png: as it was signed",
    ]
    assert "a.png was changed or cannot be read" in " ".join(err.split())


def test_a_record_of_consent_is_one_line(tmp_path, capsys) -> None:
    person_info().write(tmp_path / "person.json")
    record = Consent(relation="self", name="Ann\n\udcff\x1b[8m", scope=("live",)).as_json()
    write_json(tmp_path / FILE, record)
    assert main(["consent", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Consent: of the person who uses it (Ann \\udcff\\x1b[8m), for live.\n"
