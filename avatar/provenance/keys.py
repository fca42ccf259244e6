"""The key that signs content credentials: one of this installation, made on first use, or the user's own.

The certificates of an installation are made by itself: a root, and below it the one that signs, as the C2PA
specification 2.1, section 14.5.1, asks for. Who reads the signature learns that the file is unchanged, not who made it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar import log
from avatar.errors import AvatarError
from avatar.paths import config_dir

if TYPE_CHECKING:
    from cryptography import x509

FILE = Path("credentials", "installation.pem")  # below `config_dir`: the key, then the certificates
ORGANIZATION = "avatar-toolkit"
_VALID = timedelta(days=3650)  # a file holds for as long: after that, readers of others call its signature invalid
_LEFT = _VALID - timedelta(days=365)  # of its validity, below which an installation's key is made anew
_BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class SigningKey:
    """A private key and the certificates that belong to it.

    Attributes:
        key: The key, PEM (PKCS 8), without a password.
        certificates: The chain, PEM, the one that signs first.
        algorithm: Name of the signature algorithm, as C2PA has it.
    """

    key: bytes
    certificates: bytes
    algorithm: str

    def __repr__(self) -> str:  # it may end in a log
        return f"SigningKey({self.algorithm})"


def own_key(certificate: Path, key: Path) -> SigningKey:
    """Read a user's certificates and key.

    Raises:
        AvatarError: A file cannot be read, is of another kind, or the two do not belong together.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    read, secret = _read(certificate), _read(key)
    try:
        chain = x509.load_pem_x509_certificates(read)
        leaf = chain[0]
        public = leaf.public_key()
    except (ValueError, IndexError) as error:
        raise AvatarError(
            f"{certificate} holds no certificate.", fix="Give the chain as PEM, the signer first."
        ) from error
    except UnsupportedAlgorithm as error:
        raise _unusable(certificate) from error
    try:
        private: Any = serialization.load_pem_private_key(secret, None)
    except TypeError as error:
        raise AvatarError(f"The key {key} has a password.", fix="Give one without.") from error
    except ValueError as error:
        raise AvatarError(f"{key} holds no private key.", fix="Give it as PEM.") from error
    except UnsupportedAlgorithm as error:
        raise _unusable(key) from error
    if private.public_key() != public:
        raise AvatarError(f"The key {key} does not belong to the certificate {certificate}.")
    if leaf.not_valid_after_utc < datetime.now(timezone.utc):
        raise AvatarError(f"The certificate {certificate} has expired on {leaf.not_valid_after_utc:%Y-%m-%d}.")
    algorithm = _algorithm(private, key)
    # Made anew: whatever else the file holds, such as the key, would be published in every file that is signed.
    return SigningKey(_pem(private), _chain(chain), algorithm)


def installation_key() -> SigningKey:
    """The key of this installation, made on first use and anew once a year.

    Raises:
        AvatarError: Its file is damaged.
    """
    try:
        path = config_dir() / FILE
    except AvatarError as error:  # there is no home
        log.warn(f"{error} Until then the content credentials get a key of their own.")
        return _make()
    found = _stored(path)
    if found is not None:
        return found
    made = _make()
    try:
        _store(path, made)
    except OSError as error:
        log.warn(f"{path} cannot be written ({error.strerror}): the content credentials get a key of their own.")
        return made
    return _stored(path) or made  # what another process may have stored first


def _stored(path: Path) -> SigningKey | None:
    """The key in the file; None where there is none, it is old, or it was made while the clock was ahead."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warn(f"{path} cannot be read ({error.strerror}): the content credentials get a key of their own.")
        return None
    key, begin, rest = content.partition(_BEGIN_CERTIFICATE)
    try:
        leaf = x509.load_pem_x509_certificates(begin + rest)[0]
        if load_pem_private_key(key, None).public_key() != leaf.public_key():
            raise ValueError
    except (ValueError, IndexError, TypeError) as error:
        raise AvatarError(f"{path} is damaged.", fix="Delete it; a new one is made.") from error
    if not leaf.not_valid_before_utc <= datetime.now(timezone.utc) <= leaf.not_valid_after_utc - _LEFT:
        return None
    return SigningKey(key, begin + rest, "es256")


def _store(path: Path, made: SigningKey) -> None:
    """Write the key so that only the user reads it; one that another process stored and that is valid stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(made.key + made.certificates)
        if _stored(path) is None:
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _make() -> SigningKey:
    """A root and a signing certificate on P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("Root of this installation", root_key, root_key)
    leaf = _certificate("This installation", key, root_key)
    return SigningKey(_pem(key), _chain((leaf, root)), "es256")


def _chain(certificates: Iterable[x509.Certificate]) -> bytes:
    """Certificates as PEM, and nothing else."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _pem(key: Any) -> bytes:
    """A key as PKCS 8, the only form that the signer takes: OpenSSL also writes others."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certificate(common_name: str, key: Any, root_key: Any) -> x509.Certificate:
    """A certificate of ``key``, signed by ``root_key``; the root where both are the same."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(text: str) -> x509.Name:
        organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION)
        return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, text)])

    root, now = key is root_key, datetime.now(timezone.utc)
    usage = x509.KeyUsage(
        digital_signature=not root, key_cert_sign=root, crl_sign=root, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common_name))
        .issuer_name(name("Root of this installation"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of other machines differ
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=root, path_length=0 if root else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not root:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(root_key, hashes.SHA256())


def _algorithm(key: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey):
        if (name := {256: "es256", 384: "es384", 521: "es512"}.get(key.curve.key_size)) is not None:
            return name
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    elif isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    raise _unusable(path)


def _unusable(path: Path) -> AvatarError:
    return AvatarError(f"The key of {path} is of a kind that signs no content credentials.",
                       fix="Give one on P-256, P-384 or P-521, Ed25519, or RSA with 2048 bits or more.")  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AvatarError(f"{path} cannot be read.", why=f"{error.strerror}.") from error
