from __future__ import annotations
from typing import Any
from pipelines.live_steps import Bench
async def faults(bench: Bench) -> dict[str, Any]: return {}
async def conversation(bench: Bench) -> dict[str, Any]: return {}
async def sessions(bench: Bench) -> dict[str, Any]: return {}
