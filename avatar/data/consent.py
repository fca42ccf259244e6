"""The record of consent: who agreed to what with their face and voice. It goes from PERSON to RUN and into exports.

The record is a statement of whoever uses the toolkit; it is not checked against anything. What leaves this machine
needs one that covers it (`require`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from avatar import log
from avatar.checks import Record
from avatar.errors import AvatarError
from avatar.paths import file_sha256, read_json, write_json

FILE = "consent.json"  # in a PERSON folder and in a RUN folder
BESIDE = ".consent.json"  # in place of a video's ending: the record that belongs to it
FORMAT = "avatar-consent-1"
SCOPES = ("likeness", "voice", "dubbing", "live", "publish")
RELATIONS = ("self", "authorised", "synthetic", "not stated")
_HASH = re.compile("[0-9a-f]{64}")
_SELF = "This avatar shows me, and I agree to these uses of it."
_PHOTO_NEEDS_IT = "Without consent no avatar is made of a photo."


@dataclass(frozen=True, kw_only=True)
class Consent:
    """What a record says.

    Attributes:
        relation: Of who uses the toolkit to the person: "self", "authorised" by them, "synthetic" where there is no
            such person, or "not stated".
        name: Of the person, or a pseudonym; may be empty.
        given: Date of the consent, ISO 8601; may be empty.
        scope: What was agreed to, out of `SCOPES`.
        expires: Last day on which it holds, ISO 8601; empty: it does not expire.
        contact: Where it can be withdrawn; may be empty.
        evidence: SHA-256 of a recording or a document that proves it; may be empty.
        statement: Words of the consent; may be empty.
    """

    relation: str = "not stated"
    name: str = ""
    given: str = ""
    scope: tuple[str, ...] = ()
    expires: str = ""
    contact: str = ""
    evidence: str = ""
    statement: str = ""

    @property
    def stated(self) -> bool:
        """Whether anybody said anything."""
        return self.relation != "not stated"

    @property
    def expired(self) -> bool:
        """Whether its last day is over."""
        return bool(self.expires) and date.fromisoformat(self.expires) < date.today()

    def covers(self, scope: str) -> bool:
        """Whether a use out of `SCOPES` is agreed to today."""
        return self.relation == "synthetic" or (self.stated and scope in self.scope and not self.expired)

    @property
    def text(self) -> str:
        """The record in one line."""
        if self.relation == "synthetic":
            return "synthetic: there is no such person"
        if not self.stated:
            return "not stated"
        who = "of the person who uses it" if self.relation == "self" else "of another person, who agreed"
        until = f", until {self.expires}" if self.expires else ""
        name = f" ({log.one_line(self.name)})" if self.name else ""
        return f"{who}{name}, for {', '.join(self.scope) or 'nothing'}{until}"

    def write(self, folder: Path) -> None:
        """Write it into a PERSON or a RUN folder."""
        write_json(folder / FILE, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The record as it stands in a file."""
        return {
            "format": FORMAT, "subject": {"name": self.name, "relation": self.relation}, "given": self.given,
            "scope": list(self.scope), "expires": self.expires, "contact": self.contact,
            "evidence": {"sha256": self.evidence}, "statement": self.statement,
        }  # fmt: skip


SYNTHETIC = Consent(relation="synthetic", scope=SCOPES, statement="Drawn by a program: there is no such person.")


def own() -> Consent:
    """The consent of somebody to an avatar of their own, to all uses, from today on."""
    return Consent(relation="self", given=date.today().isoformat(), scope=SCOPES, statement=_SELF)


def chosen(value: str) -> Consent:
    """The record that an option names: ``self``, or a file.

    Raises:
        AvatarError: There is no such file, or it is no record of consent.
    """
    if value == "self":
        return own()
    if not Path(value).is_file():
        raise AvatarError(
            f"There is no record of consent {value}.",
            fix="Give self if it is you, or the file that docs/provenance.md describes for somebody who agreed.",
        )
    return read(Path(value))


def of_folder(folder: Path) -> Consent:
    """The record in a PERSON or a RUN folder; without one, nothing is stated.

    Raises:
        AvatarError: It is damaged.
    """
    path = folder / FILE
    return read(path) if path.is_file() else Consent()


def consent_hash(folder: Path) -> str | None:
    """SHA-256 of the record in a PERSON or a RUN folder; None where nothing is stated.

    Raises:
        AvatarError: It is damaged.
    """
    return file_sha256(folder / FILE) if of_folder(folder).stated else None


def read(path: Path) -> Consent:
    """Read a record. Evidence that is named as a file beside it is replaced by its hash.

    Raises:
        AvatarError: It is damaged, or a field has a value that it cannot have.
    """
    data = Record(read_json(path, "Write it as docs/provenance.md describes."), path)
    if data.value("format", None) != FORMAT:
        raise AvatarError(f"{path} is no record of consent.", why=f"Its format is not {FORMAT}.")
    subject, evidence = data.record("subject", {}), data.record("evidence", {})
    return Consent(
        relation=_one_of(subject.text("relation"), RELATIONS, f"{path}: relation"), name=subject.text("name", ""),
        given=_day(data, "given"), expires=_day(data, "expires"),
        scope=tuple(_one_of(scope, SCOPES, f"{path}: scope") for scope in data.names("scope", [])),
        contact=data.text("contact", ""), statement=data.text("statement", ""), evidence=_evidence(evidence, path),
    )  # fmt: skip


def keep(folder: Path, given: Consent | None, video: Path | None = None) -> None:
    """Write the record of a PERSON folder: the one given, that beside the video, or that nothing is stated.

    One that is there already is replaced only by one that was given.

    Raises:
        AvatarError: The one beside the video is damaged.
    """
    if given is None and of_folder(folder).stated:
        return
    beside = None if video is None or video.is_dir() else video.with_suffix(BESIDE)
    if given is None and beside is not None and beside.is_file():
        given = read(beside)
    known = (folder / FILE).is_file()
    (given or Consent()).write(folder)
    if given is None and not known:
        log.info(
            f"Consent of the person: not stated. What leaves this machine needs it: avatar consent {log.word(folder)}"
        )


def hand_on(person: Path, run: Path) -> None:
    """Copy the record of PERSON to a RUN folder, unless RUN's own was stated later.

    Raises:
        AvatarError: One of them is damaged.
    """
    record = of_folder(person)
    if of_folder(run).stated and not (record.stated and _later(person / FILE, run / FILE)):
        return
    record.write(run)


def _later(path: Path, other: Path) -> bool:
    return path.stat().st_mtime_ns > other.stat().st_mtime_ns


def require_stated(folder: Path | None, given: Consent | None, photo: Path) -> None:
    """Refuse an avatar of a photo whose person is not said to agree: anybody's photo is soon found.

    Args:
        folder: PERSON folder of this photo; None: there is none yet.
        given: The record that was given.
        photo: The photo; a record may lie beside it.

    Raises:
        AvatarError: Nothing is stated, it has expired, or the record beside the photo is damaged.
    """
    record = given  # in the order of `keep`
    if record is None and folder is not None and (known := of_folder(folder)).stated:
        record = known
    if record is None and (beside := photo.with_suffix(BESIDE)).is_file():
        record = read(beside)
    if record is not None and record.expired:
        raise AvatarError(
            f"The consent of the person in {photo} has expired on {record.expires}.", why=_PHOTO_NEEDS_IT,
            fix="Ask the person anew, and pass --consent FILE with what they say.",
        )  # fmt: skip
    if record is not None and record.stated:
        return
    raise AvatarError(
        f"Nobody has stated that the person in {photo} agreed to an avatar.", why=_PHOTO_NEEDS_IT,
        fix="Pass --consent self if it is you, or --consent FILE for somebody who agreed (docs/provenance.md).",
    )  # fmt: skip


def require(folder: Path, scope: str, use: str) -> Consent:
    """Refuse a use that nobody agreed to.

    Args:
        folder: RUN folder.
        scope: What has to be agreed to, out of `SCOPES`.
        use: What is about to happen, for people: "to serve beyond this machine".

    Raises:
        AvatarError: The record does not cover it.
    """
    consent = of_folder(folder)
    if consent.covers(scope):
        return consent
    if not consent.stated:
        why = "Nobody has stated that the person agreed."
    elif consent.expired:
        why = f"The consent has expired on {consent.expires}."
    else:
        why = f"The person agreed to {', '.join(consent.scope) or 'nothing'}."
    raise AvatarError(
        f"{folder} needs a consent to '{scope}' {use}.", why=why,
        fix=f"State it: avatar consent {log.word(folder)} --state self, or --state FILE for somebody who agreed.",
        see="consent-is-missing",
    )  # fmt: skip


def _one_of(value: str, values: tuple[str, ...], where: str) -> str:
    if value not in values:
        raise AvatarError(f"{where} is {value!r}.", fix=f"It is one of {', '.join(values)}.")
    return value


def _day(data: Record, name: str) -> str:
    text = data.text(name, "")
    try:
        return text and date.fromisoformat(text).isoformat()
    except ValueError:
        raise AvatarError(f"{data.place(name)} is {text!r}.", fix="Write a day as 2027-01-31.") from None


def _evidence(data: Record, path: Path) -> str:
    if (name := data.text("file", "")) and not data.text("sha256", ""):
        file = path.parent / name
        # The hash is published: a stranger's record must not have it taken of any file of this machine.
        if not file.is_file() or not file.resolve().is_relative_to(path.parent.resolve()):
            raise AvatarError(f"{path} names the evidence {name}, which is not beside it.")
        return file_sha256(file)
    digest = data.text("sha256", "")
    if digest and _HASH.fullmatch(digest) is None:
        raise AvatarError(f"{data.place('sha256')} is no SHA-256.")
    return digest
