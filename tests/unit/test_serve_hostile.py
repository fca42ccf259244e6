"""Requests and messages that are no such thing: each is refused in words, and none is an error of the program."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiohttp import WSMsgType

from avatar.errors import AvatarError
from avatar.serve.messages import Message
from avatar.serve.start import Place
from tests.serving import TOKEN, until
from tests.unit.test_serve_doors import serve
from tests.unit.test_serve_front import serve as serve_front


async def status(port: int, *headers: bytes, path: bytes = b"/metrics") -> int:
    """What a request is answered with; clients would not send such headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [b"GET " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close", *headers, b"", b""]
    writer.write(b"\r\n".join(lines))
    answer = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    return int(answer.split()[1])


def test_headers_that_are_none_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async def test(client: Any) -> None:
        port = client.server.port
        for origin in (b"http://[", b"http://a]b", b"\xff"):
            assert await status(port, b"Origin: " + origin) == 403
        for header in (b"Authorization: Bearer \xff\xfe", b"api-key: \xff", b"Sec-WebSocket-Protocol: \xff"):
            assert await status(port, header) == 401
        assert await status(port, b"api-key: " + TOKEN.encode()) == 200

    serve(tmp_path, test, token=TOKEN)
    assert "Traceback" not in caplog.text


def test_only_pages_come_without_the_token(tmp_path: Path):
    """The front has the token of the replicas, and must not lend it to paths that it does not know."""

    async def test(client: Any, _: Any) -> None:
        port = client.server.port
        assert await status(port, path=b"/page/main.js") == 200
        for path in (b"/page/x/y", b"/page/../metrics", b"/page/%2e%2e/metrics", b"/page/..%2fmetrics"):
            assert await status(port, path=path) == 401

    serve_front(tmp_path, test, least=1, most=1, token=TOKEN)


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), float("inf"), float("nan"), True, "1"], ids=lambda one: str(one)[:4]
)
def test_a_number_that_is_none_or_too_large_is_refused(value: object):
    with pytest.raises(AvatarError, match="azimuth"):
        Message.of({"type": "view", "azimuth": value})


def test_the_printed_address_is_one_that_is_listened_on():
    """With all addresses of IPv6, those of IPv4 are not."""
    place = Place(host="::", port=0)
    try:
        listening = place.listen()
    except AvatarError:
        pytest.skip("there is no IPv6")
    listening.close()
    assert place.url(8080, "") == "http://[::1]:8080/"
    assert Place(host="0.0.0.0").url(8080, "") == "http://127.0.0.1:8080/"


def test_the_reason_of_a_close_is_cut_between_characters(tmp_path: Path):
    """Clients give up a connection whose reason is no UTF-8, and do not show it."""

    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            await until(lambda: client.hub.guests)
            (guest,) = client.hub.guests.values()
            guest.end("x" + 100 * "é")
            while (message := await socket.receive(timeout=15)).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pass
            assert (message.type, message.extra) == (WSMsgType.CLOSE, "x" + 59 * "é")

    serve(tmp_path, test)
