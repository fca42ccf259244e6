"""What a page may send over its websocket: where it looks from, values of its fields, and a file that it announced."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, structs
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event
from websockets.typing import Data

MESSAGE_BYTES = 1 << 20  # viser's page sends files in parts of half of this
MOST_PARTS = 4096
UPLOAD_MEGABYTES = 128  # ten minutes of stereo as 16-bit wav; viser holds a file in memory until it is whole
UPLOADS_MEGABYTES = 256  # of all pages at the same time
UPLOAD_IDLE_SECONDS = 20.0  # without a part, after which a file no longer takes room from other pages
MOST_FRAGMENTS = 1024  # frames of a message; empty ones take memory and no bytes of the limit
FARTHEST = 1e4  # metres from the origin
FIELD_OF_VIEW = 0.01, 3.1  # radians
WINDOW = 1, 32768  # pixels
VIOLATION = 1008  # websocket status of a message that breaks the rules

Text = Annotated[str, Meta(max_length=256)]
Vector = tuple[float, float, float]


class _FromPage(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    """One of viser's own messages, with the types that its page sends; it looks at few of them itself."""


class View(_FromPage, tag="ViewerCameraMessage"):
    """Where the page looks from."""

    wxyz: tuple[float, float, float, float]
    position: Vector
    fov: float
    near: float
    far: float
    image_height: float
    image_width: float
    look_at: Vector
    up_direction: Vector

    def makes_sense(self) -> bool:
        """Whether an image can be drawn of it: finite numbers in range, and a window that has a size."""
        places = (*self.position, *self.look_at, *self.up_direction)
        return (
            all(map(math.isfinite, (*self.wxyz, *places)))
            and 0.5 < math.hypot(*self.wxyz) < 2.0
            and max(map(abs, places)) <= FARTHEST
            and FIELD_OF_VIEW[0] <= self.fov <= FIELD_OF_VIEW[1]
            and all(WINDOW[0] <= size <= WINDOW[1] for size in (self.image_width, self.image_height))
        )


class _Value(msgspec.Struct, forbid_unknown_fields=True):
    value: bool | float | Text


class Field(_FromPage, tag="GuiUpdateMessage"):
    """A new value of a field or a button; viser itself would let the page set any attribute."""

    uuid: Text
    updates: _Value


class Announcement(_FromPage, tag="FileTransferStartUpload"):
    """A file that is about to be sent in parts."""

    source_component_uuid: Text
    transfer_uuid: Text
    filename: Annotated[str, Meta(max_length=4096)]
    mime_type: Text
    part_count: int
    size_bytes: int


class Part(_FromPage, tag="FileTransferPart"):
    """A part of that file."""

    source_component_uuid: Text
    transfer_uuid: Text
    part_index: int
    content: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(View | Field | Announcement | Part)


class Uploads:
    """Files that are being sent, of all pages: bytes that were announced, and when something last came."""

    def __init__(self) -> None:
        self._files: dict[int, tuple[int, float]] = {}

    @property
    def announced(self) -> int:
        """Bytes of the files that are really being sent."""
        now = time.monotonic()
        return sum(size for size, last in self._files.values() if now - last < UPLOAD_IDLE_SECONDS)

    def note(self, page: object, size: int) -> None:
        """Something of a page's file of ``size`` bytes has come."""
        self._files[id(page)] = size, time.monotonic()

    def forget(self, page: object) -> None:
        """The page sends no file any more."""
        self._files.pop(id(page), None)


class CheckedConnection(ServerConnection):
    """A websocket that hands on what makes sense; all else stays here, before viser acts on it.

    Attributes:
        complain: Shows a sentence on the page.
        upload_field: Name of the field that takes files; viser would give one to any field, and keep it there.
        uploads: Shared by all connections of a server.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.complain: Callable[[str], None] = lambda _: None
        self.upload_field: str | None = None
        self.uploads = Uploads()
        self._file: Announcement | None = None
        self._parts: set[int] = set()
        self._received = 0
        self._fragments = 0

    def process_event(self, event: Event) -> None:
        """Take in a frame; a message of endlessly many empty ones ends the connection."""
        if isinstance(event, Frame):
            self._fragments = self._fragments + 1 if event.opcode is Opcode.CONT else 0
            if self._fragments > MOST_FRAGMENTS:
                self.transport.abort()
                return
        super().process_event(event)

    async def recv(self, decode: bool | None = None) -> Data:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The next message that the page may send."""
        while True:
            data = await super().recv(decode)
            try:
                message = _decoder.decode(data) if isinstance(data, bytes) else None
                if isinstance(message, Announcement | Part) and message.source_component_uuid != self.upload_field:
                    continue
                if isinstance(message, Announcement) and (reason := self._refusal(message)):
                    self.complain(f"{message.filename[:80]} is not taken: {reason}")
                    # For the page the transfer of a file without content is over at once.
                    return _encoder.encode(structs.replace(message, part_count=0, size_bytes=0))
                if message is not None and self._admits(message):
                    return data
            except (msgspec.DecodeError, RecursionError):  # of a kind that is not heeded, or of other types
                continue
            except _Violation as error:
                await self.close(VIOLATION, str(error))

    def forget_upload(self) -> None:
        """Free the room that the file in transfer takes in the limit of all pages."""
        self.uploads.forget(self)
        self._file, self._parts, self._received = None, set(), 0

    def _admits(self, message: View | Field | Announcement | Part) -> bool:
        match message:
            case View():
                return message.makes_sense()
            case Field():
                return True  # whoever reads the field puts its value into range
            case Announcement():
                self._file = message
                self.uploads.note(self, message.size_bytes)
                return True
            case Part():
                return self._admits_part(message)

    def _refusal(self, file: Announcement) -> str:
        """Why a file is not taken; empty where it is."""
        if file.size_bytes <= 0 or file.part_count <= 0:
            return "it is empty."
        if file.size_bytes > UPLOAD_MEGABYTES << 20 or file.part_count > MOST_PARTS:
            return f"it is larger than {UPLOAD_MEGABYTES} MB. Send it as mp3, m4a, opus or flac."
        if self._file is not None:
            return "another file is still being sent. Wait for it, or load the page again."
        if self.uploads.announced + file.size_bytes > UPLOADS_MEGABYTES << 20:
            return "other windows are sending files. Try again in a moment."
        return ""

    def _admits_part(self, part: Part) -> bool:
        file = self._file
        if file is None or part.transfer_uuid != file.transfer_uuid:
            return False  # of a file that was not taken
        if part.part_index in self._parts:
            raise _Violation("a part was sent twice")
        self.uploads.note(self, file.size_bytes)
        self._parts.add(part.part_index)
        self._received += len(part.content)
        whole = len(self._parts) == file.part_count
        if not 0 <= part.part_index < file.part_count or self._received > file.size_bytes:
            raise _Violation("more was sent than was announced")
        if whole and self._received < file.size_bytes:
            raise _Violation("less was sent than was announced")
        if whole:
            self.forget_upload()
        return True


class _Violation(Exception):
    """Why a connection is closed."""
