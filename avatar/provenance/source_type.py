"""The IPTC digital source type in the metadata (XMP) of mp4, mov, png and webp files.

Sources: XMP specification part 3 (2020), sections 1.1.3 (png), 1.1.5 (mp4, mov) and the WebP container specification;
IPTC NewsCodes, "Digital Source Type".
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED = _CODES + "trainedAlgorithmicMedia"  # made by a trained model
COMPOSITE = _CODES + "compositeWithTrainedAlgorithmicMedia"  # of such and of what a camera saw
CAPTURED = _CODES + "compositeCapture"  # put together from what a camera saw
SUFFIXES = (".mp4", ".mov", ".png", ".webp")  # that `write_source_type` knows

_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # extended type of the box of an mp4
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEY = b"XML:com.adobe.xmp\0\0\0\0\0"  # key, no compression, no language
_LONGEST = 1 << 20  # bytes of metadata that are read
_MOST_PARTS = 100_000  # boxes or chunks of a file that are looked at; a megabyte may hold as many
_FOUND = re.compile(rb"DigitalSourceType(?:=\"|>)([^\"<]{1,200})")
PAGES = (".html", ".json")  # that can say it in words: JSON-LD of schema.org, or a key of the same name
_SCHEMA, _SCHEMA_END = "https://schema.org/", "DigitalSource"
_SAID = re.compile(rb'"digitalSourceType"\s*:\s*"([^"<]{1,200})"')
_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10  # of a webp's VP8X chunk


def write_source_type(path: Path, source_type: str) -> None:
    """Write the digital source type into a file that has no XMP yet.

    Args:
        path: The file; what it is is told by its ending, one of `SUFFIXES`. Others stay as they are.
        source_type: `TRAINED` or `COMPOSITE`.

    Raises:
        OSError: The disk is full.
        ValueError: The file is not what its ending says.
    """
    suffix = path.suffix.lower()
    if suffix in (".mp4", ".mov"):
        with open(path, "ab") as file:  # boxes that come last move no other
            content = _XMP_BOX + _packet(source_type)
            file.write(struct.pack(">I", 8 + len(content)) + b"uuid" + content)
    elif suffix == ".png":
        path.write_bytes(_png_with(path.read_bytes(), _packet(source_type)))
    elif suffix == ".webp":
        path.write_bytes(_webp_with(path.read_bytes(), _packet(source_type)))


def read_source_type(path: Path) -> str | None:
    """The digital source type that a file's metadata say; None where they say none.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        for content in _metadata(file):
            if (found := _FOUND.search(content)) is not None:
                return found.group(1).decode("utf-8", "replace")
    return None


def json_ld(name: str, source_type: str) -> str:
    """What a page says about itself: JSON-LD of schema.org, to stand in a <script>.

    Args:
        name: Of what is shown.
        source_type: Digital source type (IPTC), as schema.org has them as well.
    """
    code = source_type.removeprefix(_CODES)
    said = {
        "@context": _SCHEMA.rstrip("/"), "@type": "CreativeWork", "name": name,
        "digitalSourceType": f"{_SCHEMA}{code[:1].upper()}{code[1:]}{_SCHEMA_END}",
    }  # fmt: skip
    return json.dumps(said).replace("<", "\\u003c")  # no name may end the script


def read_said(path: Path) -> str | None:
    """The digital source type (IPTC) that a page or a JSON file says; None where it says none.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        found = _SAID.search(file.read(_LONGEST))
    if found is None:
        return None
    code = found.group(1).decode("utf-8", "replace")
    if not code.startswith(_SCHEMA):
        return code
    code = code.removeprefix(_SCHEMA).removesuffix(_SCHEMA_END)
    return f"{_CODES}{code[:1].lower()}{code[1:]}"


def _packet(source_type: str) -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{source_type}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def _metadata(file: BinaryIO) -> Iterator[bytes]:
    """XMP packets of a file of any kind that is known."""
    start = file.read(12)
    if start[:8] == _PNG:
        for name, content in _png_chunks(file, 8):
            if name == b"iTXt":
                yield content
    elif start[:4] == b"RIFF" and start[8:] == b"WEBP":
        for name, content in _webp_chunks(file):
            if name == b"XMP ":
                yield content
    elif start[4:8] in (b"ftyp", b"moov", b"free", b"mdat", b"wide"):
        yield from _boxes(file)


def _boxes(file: BinaryIO) -> Iterator[bytes]:
    """Contents of the XMP boxes at the top of an mp4."""
    at, end = 0, file.seek(0, 2)
    for _ in range(_MOST_PARTS):
        if at + 8 > end:
            return
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            size, header = struct.unpack(">Q", (file.read(8) + bytes(8))[:8])[0], 16
        size = size or end - at
        if size < header:
            return
        if kind == b"uuid" and file.read(16) == _XMP_BOX:
            yield file.read(max(0, min(size - header - 16, _LONGEST)))
        at += size


def _png_chunks(file: BinaryIO, at: int) -> Iterator[tuple[bytes, bytes]]:
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        size, name = struct.unpack(">I4s", head)
        yield name, file.read(min(size, _LONGEST)) if name == b"iTXt" else b""
        at += 12 + size


def _png_with(data: bytes, packet: bytes) -> bytes:
    if data[:8] != _PNG or data[12:16] != b"IHDR":
        raise ValueError("not a png")
    after = 8 + 12 + struct.unpack(">I", data[8:12])[0]
    content = b"iTXt" + _PNG_KEY + packet
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return data[:after] + chunk + data[after:]


def _webp_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        yield name, file.read(min(size, _LONGEST)) if name == b"XMP " else b""
        at += 8 + size + size % 2


def _webp_with(data: bytes, packet: bytes) -> bytes:
    """A webp with an XMP chunk at its end, and with the VP8X chunk that such a file needs."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("not a webp")
    body = bytearray(data[12:])
    if body[:4] == b"VP8X":
        body[8] |= _XMP_FLAG
    else:
        width, height, alpha = _webp_size(bytes(body[:32]))
        flags = _XMP_FLAG | (_ALPHA_FLAG if alpha else 0)
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body[:0] = b"VP8X" + struct.pack("<II", 10, flags) + size
    body += b"XMP " + struct.pack("<I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + bytes(body)


def _webp_size(body: bytes) -> tuple[int, int, bool]:
    """Width, height and whether there is transparency, from the one image chunk of a plain webp."""
    if body[:4] == b"VP8L":
        bits = struct.unpack("<I", body[9:13])[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    if body[:4] == b"VP8 ":
        width, height = struct.unpack("<HH", body[14:18])
        return width & 0x3FFF, height & 0x3FFF, False
    raise ValueError("not a webp")
