"""Content credentials: the signed C2PA manifest of a file.

The manifest says that a trained model made the file, with what program, and when. It is bound to what the file shows
and says: a change of that makes it invalid, and encoding the file again loses it. Of a video, C2PA leaves out padding
and the box that names the file type. C2PA specification 2.1; CAWG training and data mining assertion 1.1. Nothing is
fetched: neither manifests from elsewhere nor the state of certificates.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from avatar import __version__
from avatar.errors import AvatarError
from avatar.log import one_line
from avatar.provenance.source_type import read_source_type

if TYPE_CHECKING:
    import c2pa

    from avatar.provenance.keys import SigningKey

KINDS = {  # media types of what is signed; Python's own table differs between systems
    ".mp4": "video/mp4", ".mov": "video/quicktime", ".png": "image/png", ".webp": "image/webp", ".gif": "image/gif",
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
}  # fmt: skip
SUFFIXES = tuple(KINDS)
CONSENT = "org.avatar.consent"  # label of the assertion with the hash of the consent record
PHOTO = "org.avatar.photo"  # label of the assertion that says that the avatar was made from one photo
_ACTIONS = ("c2pa.actions.v2", "c2pa.actions")
_SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
# Codes that say that somebody is unknown, or that a certificate's time is over: no fault of the file.
_UNTRUSTED = "signingCredential.untrusted"
_EXPIRED = "signingCredential.expired"
_HARMLESS = {_UNTRUSTED, _EXPIRED, "cawg.x509.credential.untrusted", "cawg.ica.untrusted_issuer", "timeStamp.untrusted"}
_ELSEWHERE = "its manifest lies elsewhere, and nothing is fetched"
_USES = ("ai_generative_training", "ai_training", "ai_inference", "data_mining")
PROGRAM = "avatar-toolkit"
_HASH = re.compile("[0-9a-f]{64}")
_PHOTO_SAYS = "Made from one photo: teeth and what the photo does not show are invented."


class Source(NamedTuple):
    """Where an avatar comes from.

    Attributes:
        consent: SHA-256 of the record of consent, or None.
        photo: SHA-256 of the one photo that it was made from, or None.
    """

    consent: str | None = None
    photo: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a file says about itself. Each text is one line that a terminal can show, whatever the file holds.

    Attributes:
        state: "valid": it is as it was signed; "invalid": it was changed, the signature is wrong, or it cannot be
            read; "none": it has no content credentials.
        program: That made it, with its version.
        signer: Name and organization in the certificate.
        known_signer: Whether the certificate is one that the reader trusts, and is still valid.
        expired: Whether the certificate's time is over.
        made: When, as the program says: ISO 8601.
        source_type: Digital source type (IPTC) in the manifest.
        metadata_source_type: The same in the file's metadata, which nobody signs.
        consent: SHA-256 of the record of consent.
        photo: SHA-256 of the one photo that the avatar was made from.
        more_consents, more_photos: The same of further avatars that the file shows.
        faults: What is wrong with it, one code of C2PA each, or why it cannot be read, or has none.
    """

    state: Literal["valid", "invalid", "none"]
    program: str = ""
    signer: str = ""
    known_signer: bool = False
    expired: bool = False
    made: str = ""
    source_type: str | None = None
    metadata_source_type: str | None = None
    consent: str | None = None
    photo: str | None = None
    more_consents: list[str] = field(default_factory=list)
    more_photos: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def sign(path: Path, key: SigningKey, source_type: str, sources: Sequence[Source] = ()) -> None:
    """Add content credentials to a file, in place.

    Args:
        path: The file, with an ending out of `SUFFIXES`.
        key: Signs them.
        source_type: Digital source type (IPTC).
        sources: Of each avatar that it shows; a photo is named as an ingredient.

    Raises:
        AvatarError: They cannot be made; the file is as before.
        OSError: The disk is full.
    """
    import c2pa

    temporary = path.with_name(f"{path.stem}.signed{path.suffix}")
    target: _Target | None = None
    try:
        with (
            _context() as context,
            c2pa.Signer.from_info(c2pa.C2paSignerInfo(key.algorithm, key.certificates, key.key, None)) as signer,
            c2pa.Builder(json.dumps(_manifest(source_type, sources)), context) as builder,
        ):
            with open(path, "rb") as source, open(temporary, "w+b") as file:
                target = _Target(file)
                builder.sign(signer, _kind(path), source, target)
        os.replace(temporary, path)
    except c2pa.C2paError as error:
        if target is not None and target.failed is not None:
            raise target.failed from error
        raise AvatarError(f"{path.name} cannot be signed.", why=f"{error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


class _Target:
    """A file that remembers why it could not be written: of that, c2pa says nothing but that it could not."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failed: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            written = self._file.write(data)
            self._file.flush()
        except OSError as error:
            self.failed = error
            raise
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def read(path: Path) -> Claims:
    """Read and check what a file says about itself.

    Raises:
        AvatarError: It is missing, or no file of a kind that can hold content credentials.
    """
    import c2pa

    if not path.is_file():
        raise AvatarError(f"There is no file {path}.")
    said: str | None = None
    try:
        said = _text(read_source_type(path)) or None
        with _context() as context, open(path, "rb") as file, c2pa.Reader(_kind(path), file, context=context) as reader:
            return _claims(json.loads(reader.json()), said)
    except c2pa.C2paError as error:
        kind = str(error).partition(":")[0]
        if kind == "ManifestNotFound":
            return Claims(state="none", metadata_source_type=said)
        if kind == "Remote":
            return Claims(state="none", metadata_source_type=said, faults=[_ELSEWHERE])
        if kind == "NotSupported":
            raise AvatarError(f"{path} is of a kind that holds no content credentials.") from error
        return Claims(state="invalid", metadata_source_type=said, faults=[one_line(str(error)[:200])])
    except (ValueError, RecursionError):  # a manifest that no program writes
        return Claims(state="invalid", metadata_source_type=said, faults=["its manifest cannot be read"])
    except OSError as error:
        raise AvatarError(f"{path} cannot be read.", why=f"{error.strerror}.") from error


def _manifest(source_type: str, sources: Sequence[Source]) -> dict[str, Any]:
    agent = {"name": PROGRAM, "version": __version__}
    created = {
        "action": "c2pa.created", "digitalSourceType": source_type, "softwareAgent": agent,
        "when": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    assertions: list[dict[str, Any]] = [
        {"label": _ACTIONS[0], "data": {"actions": [created]}},
        {
            "label": "cawg.training-mining",
            "data": {"entries": {f"cawg.{use}": {"use": "notAllowed"} for use in _USES}},
        },
    ]
    consents, photos = (_different(column) for column in zip(*sources, strict=True)) if sources else ([], [])
    assertions += [{"label": CONSENT, "data": {"sha256": consent}} for consent in consents]
    assertions += [{"label": PHOTO, "data": {"sha256": photo, "description": _PHOTO_SAYS}} for photo in photos]
    manifest: dict[str, Any] = {"claim_generator_info": [agent], "assertions": assertions}
    if photos:
        manifest["ingredients"] = [{
            "title": "the photo that the avatar was made from", "format": "image/jpeg", "relationship": "inputTo",
            "instance_id": f"sha256:{photo}", "description": _PHOTO_SAYS,
        } for photo in photos]  # fmt: skip
    return manifest


def _different(hashes: Iterable[str | None]) -> list[str]:
    """Those that are there, each once, in their order."""
    return list(dict.fromkeys(found for found in hashes if found is not None))


def _claims(store: dict[str, Any], said: str | None) -> Claims:
    """What a manifest says. Any program may have written it: what is of another kind than C2PA has it is left out."""
    active = _object(_object(store.get("manifests")).get(str(store.get("active_manifest"))))
    assertions = [(_text(each.get("label")), _object(each.get("data"))) for each in _objects(active.get("assertions"))]
    actions = [action for label, data in assertions if label in _ACTIONS for action in _objects(data.get("actions"))]
    consents, photos = (
        # A reader numbers those of one kind: "org.avatar.consent__2".
        [found for name, data in assertions if name.partition("__")[0] == label and (found := _hash(data))]
        for label in (CONSENT, PHOTO)
    )
    generator = next(iter(_objects(active.get("claim_generator_info"))), {})
    signature = _object(active.get("signature_info"))
    found = [
        (_text(status.get("code")), _text(status.get("url"))) for status in _objects(store.get("validation_status"))
    ]
    codes = [code for code, _ in found]
    faults = [code for code in codes if code not in _HARMLESS]
    refused = store.get("validation_state") == "Invalid" and _EXPIRED not in codes  # reason enough for the library
    own = str(store.get("active_manifest"))  # an ingredient may have an expired certificate as well
    expired = any(code == _EXPIRED and own in url for code, url in found)
    program = f"{_text(generator.get('name'))} {_text(generator.get('version'))}".strip()
    return Claims(
        state="invalid" if refused or faults else "valid",
        program=program or _text(active.get("claim_generator")),  # as earlier versions of C2PA say it
        signer=", ".join(filter(None, (_text(signature.get(name)) for name in ("common_name", "issuer")))),
        known_signer=_UNTRUSTED not in codes and not expired, expired=expired,
        made=_text(signature.get("time")) or _first(actions, "when"),
        source_type=_first(actions, "digitalSourceType") or None,
        metadata_source_type=said, consent=next(iter(consents), None), photo=next(iter(photos), None),
        more_consents=consents[1:], more_photos=photos[1:], faults=faults,
    )  # fmt: skip


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return one_line(value) if isinstance(value, str) else ""


def _hash(data: dict[str, Any]) -> str:
    found = _text(data.get("sha256"))
    return found if _HASH.fullmatch(found) else ""


def _first(actions: list[dict[str, Any]], name: str) -> str:
    """The first text of that name."""
    return next(filter(None, (_text(action.get(name)) for action in actions)), "")


def _context() -> c2pa.Context:
    import c2pa

    return c2pa.Context.from_dict(_SETTINGS)


def _kind(path: Path) -> str:
    """Media type of a file, by its ending."""
    return KINDS.get(path.suffix.lower(), "application/octet-stream")
