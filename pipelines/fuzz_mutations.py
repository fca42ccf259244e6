"""Mutations of files: what damage, other programs and attackers make of them, by what is in them."""

from __future__ import annotations

import copy
import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

_RAW = "raw:"  # begins text that is written into JSON as it stands
HOSTILE: tuple[Any, ...] = (
    math.nan, math.inf, -math.inf, 0, -1, 1, 0.5, -25, 1e12, 1e30, -1e308, 10**30, 2**63, 999_999_999, "", "text", "²³",
    "1e400", "\ud800", "a\u0000b", "../../../etc/passwd", "[/red]", "x" * 5000, None, True, [], {}, [[]], [1, "2"],
    {"a": 1}, f"{_RAW}1e400", f"{_RAW}-1e400", f"{_RAW}{'9' * 400}", f"{_RAW}{'9' * 5000}",
    f"{_RAW}{'[' * 100}{']' * 100}", f"{_RAW}{'[' * 100_000}{']' * 100_000}", f"{_RAW}NaN", f"{_RAW}{{}}{{}}",
)  # fmt: skip
_INTS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 65500, 10**9)
_FLOATS = (math.nan, math.inf, -math.inf, 1e30, -1e30, 3e38, 1e9, -1.0, 0.0)

_CELLS = (
    "nan", "inf", "1e400", "-1e308", "1e12", "", '"', '"x\n', "9" * 5000, "jawOpen", "Time", "[/red]", "\x00", "²",
)  # fmt: skip
_FORMS = {"F64": (8, "d"), "F32": (4, "f"), "F16": (2, "e"), "I64": (8, "q"), "I32": (4, "i"), "I16": (2, "h")}

Mutation = Callable[[bytes, random.Random], bytes]


def mutate(data: bytes, kind: str, chance: random.Random, others: list[bytes]) -> bytes:
    """One mutation of a file.

    Args:
        data: The file.
        kind: What is in it, of `KINDS`; mutations of bytes are made of all.
        chance: Where all choices come from.
        others: Other files, to splice in.
    """
    special = KINDS.get(kind, ())
    if special and chance.random() < 0.75:
        return chance.choice(special)(data, chance)
    if others and chance.random() < 0.1:
        return _splice(data, chance.choice(others), chance)
    return chance.choice(BYTES)(data, chance)


# -- bytes -----------------------------------------------------------------------------------------------------------


def _place(data: bytes, chance: random.Random) -> int:
    """A place in a file, half of the time in its header."""
    end = len(data) if chance.random() < 0.5 else min(len(data), 512)
    return chance.randrange(end) if end else 0


def _flip(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 4, 32))):
        if out:
            out[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(out)


def _overwrite(data: bytes, chance: random.Random) -> bytes:
    at, size = _place(data, chance), chance.choice((1, 2, 4, 8))
    order = chance.choice((">", "<"))
    value = struct.pack(f"{order}Q" if order == "<" else ">Q", chance.choice(_INTS))
    return data[:at] + (value[:size] if order == "<" else value[-size:]) + data[at + size :]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def _delete(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + data[at + chance.choice((1, 2, 7, 64, 4096)) :]


def _double(data: bytes, chance: random.Random) -> bytes:
    at, size = _place(data, chance), chance.choice((1, 16, 512))
    return data[: at + size] + data[at:]


def _noise(data: bytes, chance: random.Random) -> bytes:
    at, size = _place(data, chance), chance.choice((1, 16, 512))
    return data[:at] + chance.randbytes(size) + data[at + size :]


def _tail(data: bytes, chance: random.Random) -> bytes:
    return data + chance.choice((b"\x00" * 64, chance.randbytes(64), data[:64]))


def _other(data: bytes, chance: random.Random) -> bytes:
    return chance.choice((b"", b"\x00", b"\xff" * 100, b"text", data[::-1], b"\x00" * len(data), b"\xff\xd8\xff"))


def _splice(data: bytes, other: bytes, chance: random.Random) -> bytes:
    at, there = _place(data, chance), _place(other, chance)
    return chance.choice((other, data[:at] + other[there:], other[:there] + data[at:]))


BYTES: tuple[Mutation, ...] = (_flip, _flip, _overwrite, _overwrite, _cut, _delete, _double, _noise, _tail, _other)


# -- JSON ------------------------------------------------------------------------------------------------------------


def dump(value: Any) -> str:
    """JSON text, with what `HOSTILE` wants to have written as it stands."""
    raws: list[str] = []

    def marked(item: Any) -> Any:
        if isinstance(item, str) and item.startswith(_RAW):
            raws.append(item[len(_RAW) :])
            return f"\u2603{len(raws) - 1}\u2603"
        if isinstance(item, dict):
            return {name: marked(part) for name, part in item.items()}
        return [marked(part) for part in item] if isinstance(item, list | tuple) else item

    text = json.dumps(marked(value))
    for i, raw in enumerate(raws):
        text = text.replace(f'"\\u2603{i}\\u2603"', raw)
    return text


def _boxes(value: Any) -> list[Any]:
    """All lists and objects in a value that hold something, itself first."""
    found, todo = [], [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict | list) and item:
            found.append(item)
            todo += item.values() if isinstance(item, dict) else item[:20]
    return found


def change_value(value: Any, chance: random.Random) -> Any:
    """A JSON value with something in it exchanged, dropped, added or wrapped."""
    value = copy.deepcopy(value)
    boxes = _boxes(value)
    if not boxes or chance.random() < 0.03:
        return chance.choice(HOSTILE)
    box = boxes[0] if chance.random() < 0.4 else chance.choice(boxes)
    key = chance.choice(list(box)) if isinstance(box, dict) else chance.randrange(len(box))
    how = chance.random()
    if how < 0.7:
        box[key] = chance.choice(HOSTILE)
    elif how < 0.85:
        del box[key]
    elif how < 0.9:
        box[key] = [box[key]]
    elif how < 0.95 and isinstance(box, dict):
        box[chance.choice(("extra", "", "\ud800", str(key).upper()))] = chance.choice(HOSTILE)
    elif isinstance(box, list):
        box.insert(key, copy.deepcopy(chance.choice((box[key], *HOSTILE))))
    return value


def _json(data: bytes, chance: random.Random) -> bytes:
    value = json.loads(data)
    for _ in range(chance.choice((1, 1, 1, 3))):
        value = change_value(value, chance)
    return dump(value).encode("utf-8", "surrogatepass")


def _encoding(data: bytes, chance: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    codec = chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"))
    return chance.choice((text.encode(codec), data.replace(b"0", b"\x00", 1), data.replace(b":", b"\xff:", 1)))


def _repeat(data: bytes, chance: random.Random) -> bytes:
    """The fields of an object twice, with other values the second time."""
    value = json.loads(data)
    if not isinstance(value, dict):
        return data + data
    second = dump(change_value(value, chance))
    return (dump(value)[:-1] + ", " + second[1:]).encode("utf-8", "surrogatepass") if second[:1] == "{" else data


# -- tables ----------------------------------------------------------------------------------------------------------


def _cell(data: bytes, chance: random.Random) -> bytes:
    rows = [line.split(",") for line in data.decode().split("\n")]
    row = rows[0] if chance.random() < 0.3 else chance.choice(rows)
    column = chance.randrange(len(row))
    row[column] = chance.choice(_CELLS)
    return "\n".join(map(",".join, rows)).encode()


def _column(data: bytes, chance: random.Random) -> bytes:
    rows = [line.split(",") for line in data.decode().split("\n") if line]
    column, how = chance.randrange(len(rows[0])), chance.random()
    scale = chance.choice((0.0, 1e-12, 1e12, -1.0, 1e300))
    for i, row in enumerate(rows):
        if how < 0.3:
            del row[column]
        elif how < 0.5:
            row.append(row[column])
        elif i:  # the times too
            for k in (column, len(row) - 1):
                try:
                    row[k] = repr(float(row[k]) * scale)
                except ValueError:
                    row[k] = "0"
    return "\n".join(map(",".join, rows)).encode()


# -- arrays ----------------------------------------------------------------------------------------------------------


def _tensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def _packed(header: Any, body: bytes) -> bytes:
    text = dump(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + body


def _header(data: bytes, chance: random.Random) -> bytes:
    header, body = _tensors(data)
    names = [name for name in header if name != "__metadata__"]
    about = header[chance.choice(names)]
    how = chance.random()
    if how < 0.3:
        return _packed(change_value(header, chance), body)
    if how < 0.55:
        about["dtype"] = chance.choice(("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "C64", "X"))
    elif how < 0.85:
        shape = about["shape"]
        choices = ([], [0], [2**40], [1, *shape], shape[::-1], [10**9] * 3, [-1], [*shape, 1], [math.prod(shape)])
        about["shape"] = chance.choice(choices)
    else:
        about["data_offsets"] = chance.choice(([0, 0], [0, 2**60], [len(body), len(body)], [8, 4], [-1, 4]))
    return _packed(header, body)


def _metadata(data: bytes, chance: random.Random) -> bytes:
    header, body = _tensors(data)
    about = header.get("__metadata__") or {"json": "{}"}
    name = chance.choice(list(about))
    try:
        value = json.loads(about[name])
        about[name] = dump(change_value(value, chance) if isinstance(value, dict | list) else chance.choice(HOSTILE))
    except ValueError:
        about[name] = chance.choice(("", "nan", "-25", "1e12", "text", "[" * 3000, "9" * 5000))
    if chance.random() < 0.1:
        del about[name]
    header["__metadata__"] = about
    return _packed(header, body)


def _reshaped(data: bytes, chance: random.Random) -> bytes:
    """One tensor with other rows, or of another type, or gone, and a file that is whole."""
    header, body = _tensors(data)
    names = [name for name in header if name != "__metadata__"]
    chosen, out, parts = chance.choice(names), {"__metadata__": header.get("__metadata__", {})}, b""
    how = chance.random()
    for name in names:
        about = dict(header[name])
        part = body[slice(*about["data_offsets"])]
        if name == chosen:
            shape, rows = list(about["shape"]), (about["shape"] or [1])[0]
            if how < 0.2:
                continue
            if how < 0.6 and shape and rows:
                keep = chance.choice((0, 1, rows - 1, 2 * rows))
                part = (part * 2)[: len(part) // rows * keep]
                shape[0] = keep
            elif how < 0.8:
                part, about["dtype"] = part * 2, {"F32": "F64", "F16": "F32", "I32": "I64"}.get(about["dtype"], "I16")
                shape = (
                    [len(part) // {"F64": 8, "I64": 8, "F32": 4}.get(about["dtype"], 2)]
                    if about["dtype"] == "I16"
                    else shape
                )
            else:
                part, shape = b"", [0, *shape[1:]]
            about["shape"] = shape
        about["data_offsets"] = [len(parts), len(parts) + len(part)]
        parts += part
        out[name] = about
    return _packed(out, parts)


def _values(data: bytes, chance: random.Random) -> bytes:
    """Some numbers of one tensor that are not finite, huge, negative or zero."""
    header, body = _tensors(data)
    about = header[chance.choice([name for name in header if name != "__metadata__"])]
    start, end = about["data_offsets"]
    size, form = _FORMS.get(about["dtype"], (1, "B"))
    out, count = bytearray(body), (end - start) // size
    for _ in range(chance.choice((1, 1, 8, 10_000)) if count else 0):
        at = start + size * chance.randrange(count)
        value: Any = chance.choice(_FLOATS)
        if form in "qihB":
            bits = 8 * size
            value = chance.choice((0, 1, 2 ** (bits - 1) - 1, 255 if form == "B" else -1, 100))
        elif form == "e" and math.isfinite(value):
            value = max(min(value, 65504.0), -65504.0)
        out[at : at + size] = struct.pack(f"<{form}", value)
    return _packed(header, bytes(out))


def _npy(data: bytes, chance: random.Random) -> bytes:
    size = int.from_bytes(data[8:10], "little")
    header, body = data[10 : 10 + size].decode("latin-1"), data[10 + size :]
    how = chance.random()
    if how < 0.4:
        shapes = ("()", "(0,)", "(1000000000, 1000000000)", "(-1, 2)", "(2, 2)", "('a',)", "(1e9,)", "(" * 300, "(4,)")
        begin, end = header.index("(") if "(" in header else 0, header.rindex(")") + 1 if ")" in header else 0
        header = header[:begin] + chance.choice(shapes) + header[end:]
    elif how < 0.7:
        kinds = (
            "'|O'",
            "'<f8'",
            "'>f4'",
            "'|b1'",
            "'<i8'",
            "'<U9'",
            "'<c8'",
            "'<f2'",
            "[('a', '<f4')]",
            "'<m8'",
            "'x'",
        )
        at = header.index("'", header.index("descr") + 6)
        header = header[:at] + chance.choice(kinds) + header[header.index("'", at + 1) + 1 :]
    else:
        out = bytearray(body)
        for _ in range(chance.choice((1, 100))):
            at = 4 * chance.randrange(max(1, len(body) // 4))
            out[at : at + 4] = struct.pack("<f", chance.choice(_FLOATS))
        body = bytes(out)
    text = header.encode("latin-1")
    return data[:8] + (len(text) & 0xFFFF).to_bytes(2, "little") + text + body


# -- media -----------------------------------------------------------------------------------------------------------


def _wav(data: bytes, chance: random.Random) -> bytes:
    """Other numbers in the first 44 bytes: kind, channels, rate, bytes per second, block, bits, size."""
    at, size = chance.choice(((4, 4), (16, 4), (20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2), (40, 4)))
    value = chance.choice((0, 1, 3, 8, 24, 32, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 44100, 0xF149F2CA, 6))
    return data[:at] + (value & (256**size - 1)).to_bytes(size, "little") + data[at + size :]


def _jpeg(data: bytes, chance: random.Random) -> bytes:
    """Another size in the frame header, or another length of a segment."""
    at = 2
    places = []
    while at + 9 < len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        places.append(at)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    at = chance.choice(places or [0])
    frame = next((p for p in places if data[p + 1] in (0xC0, 0xC1, 0xC2)), at)
    out = bytearray(data)
    if chance.random() < 0.7:
        for offset in chance.choice(((5,), (7,), (5, 7))):
            out[frame + offset : frame + offset + 2] = chance.choice((0, 1, 16, 65500, 65535, 30000)).to_bytes(2, "big")
    else:
        out[at + 2 : at + 4] = chance.choice((0, 1, 2, 65535)).to_bytes(2, "big")
    return bytes(out)


def _png(data: bytes, chance: random.Random) -> bytes:
    """Another size, depth or kind, with a right checksum."""
    import zlib

    out = bytearray(data)
    for at, size in chance.choice((((16, 4),), ((20, 4),), ((16, 4), (20, 4)), ((24, 1),), ((25, 1),))):
        value = (
            chance.choice((0, 1, 16, 65500, 0x7FFFFFFF, 0xFFFFFFFF)) if size == 4 else chance.choice((1, 2, 3, 8, 16))
        )
        out[at : at + size] = value.to_bytes(size, "big")
    out[29:33] = zlib.crc32(bytes(out[12:29])).to_bytes(4, "big")
    return bytes(out)


def _atoms(data: bytes, chance: random.Random) -> bytes:
    """Another number inside a box of an mp4 that says when and how large things are."""
    names = (b"mvhd", b"tkhd", b"mdhd", b"stts", b"ctts", b"stsz", b"stsc", b"stco", b"elst", b"avc1", b"mp4a", b"stss")
    places = [at for name in names if (at := data.find(name)) >= 0]
    if not places:
        return _overwrite(data, chance)
    at = chance.choice(places) + chance.choice((-4, 8, 12, 16, 20, 24, 28, 32, 36))
    return data[:at] + chance.choice(_INTS).to_bytes(4, "big") + data[at + 4 :]


KINDS: dict[str, tuple[Mutation, ...]] = {
    "json": (_json, _json, _json, _json, _encoding, _repeat),
    "csv": (_cell, _cell, _column, _encoding),
    "safetensors": (_header, _metadata, _metadata, _reshaped, _values, _values),
    "npy": (_npy,),
    "wav": (_wav,),
    "jpg": (_jpeg,),
    "png": (_png,),
    "mp4": (_atoms,),
    "toml": (_encoding, _flip, _cut),
}
