"""The order of a conversation at the realtime door, as its clients put it together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from tests.unit.test_serve_realtime import Client, connect


def test_items_of_both_sides_say_which_one_they_come_after(tmp_path: Path):
    """Clients put their conversations together by that."""

    async def test(client: Client, server: Any) -> None:
        for count in (1, 2):
            await client.text("yes")
            await client.until("response.done", count)
        added = client.of("conversation.item.added")
        names = [event["item"]["id"] for event in added]
        assert [event["item"]["role"] for event in added] == ["user", "assistant"] * 2
        assert [event["previous_item_id"] for event in added] == [None, *names[:-1]]
        done = {event["item"]["id"]: event["previous_item_id"] for event in client.of("conversation.item.done")}
        assert done == {event["item"]["id"]: event["previous_item_id"] for event in added}
        content = [{"type": "input_text", "text": "no"}]
        for name in ("first", "second"):
            await client.send("conversation.item.create", item={"id": name, "content": content})
            await client.send("conversation.item.delete", item_id=name)
        await client.until("conversation.item.deleted", 2)
        assert [event["previous_item_id"] for event in client.of("conversation.item.added")[4:]] == [names[-1]] * 2

    connect(tmp_path, test)
