"""As much of pipecat 1.14 as its plug-in needs, for machines without it: frames, and a service without a pipeline."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Coroutine
from enum import Enum
from typing import Any

import pytest


class Frame:
    """A frame; the attributes that all have."""

    interruptible = True
    pts = transport_source = transport_destination = None


class SystemFrame(Frame):
    pass


class AudioRawFrame(Frame):
    def __init__(self, audio: bytes, sample_rate: int, num_channels: int, context_id: str | None = None) -> None:
        self.audio, self.sample_rate, self.num_channels, self.context_id = audio, sample_rate, num_channels, context_id
        self.num_frames = len(audio) // (2 * num_channels)


class TTSAudioRawFrame(AudioRawFrame):
    pass


class InputAudioRawFrame(AudioRawFrame, SystemFrame):
    pass


class OutputImageRawFrame(Frame):
    def __init__(self, image: bytes, size: tuple[int, int], format: str) -> None:
        self.image, self.size, self.format, self.sync_with_audio = image, size, format, False


class EndFrame(Frame):
    interruptible = False


NAMES = {
    SystemFrame: ("StartFrame", "CancelFrame", "InterruptionFrame", "UserStartedSpeakingFrame",
                  "UserStoppedSpeakingFrame"),
    Frame: ("TTSStoppedFrame",),
}  # fmt: skip


class FrameDirection(Enum):
    DOWNSTREAM, UPSTREAM = 1, 2


class AIService:
    """A service that keeps what it pushes in ``pushed``, and errors in ``errors``."""

    def __init__(self, **_: Any) -> None:
        self.pushed: list[Any] = []
        self.errors: list[str] = []

    async def setup(self, setup: Any) -> None: ...
    async def stop(self, frame: Any) -> None: ...
    async def cancel(self, frame: Any) -> None: ...
    async def cleanup(self) -> None: ...
    async def process_frame(self, frame: Any, direction: Any) -> None: ...

    async def push_frame(self, frame: Any, direction: Any = FrameDirection.DOWNSTREAM) -> None:
        self.pushed.append(frame)
        await asyncio.sleep(0)

    async def push_error(self, error: str, **_: Any) -> None:
        self.errors.append(error)

    def create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(work)

    async def cancel_task(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.wait([task])


def install(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Let ``import pipecat`` find this; return its frames by their names."""
    kinds = [Frame, SystemFrame, TTSAudioRawFrame, InputAudioRawFrame, OutputImageRawFrame, EndFrame]
    kinds += [type(name, (base,), {}) for base, names in NAMES.items() for name in names]
    frames = {kind.__name__: kind for kind in kinds}
    for name, contents in {
        "frames.frames": frames,
        "processors.frame_processor": {"FrameDirection": FrameDirection, "FrameProcessorSetup": object},
        "services.ai_service": {"AIService": AIService},
        "services.settings": {"ServiceSettings": lambda **_: None},
    }.items():
        for part in ("pipecat", f"pipecat.{name.partition('.')[0]}"):
            monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        module = types.ModuleType(f"pipecat.{name}")
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return types.SimpleNamespace(**frames)
