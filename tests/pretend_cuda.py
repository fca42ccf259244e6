"""A GPU for tests on machines without one: tensors that say they are on ``cuda:0`` while the CPU computes them.

What it is strict about is where things are. An operator that gets a tensor of the CPU beside one of the GPU fails, as
on a GPU; a CPU tensor as an index fails too, which a GPU would forgive by waiting for its copy. Whatever makes the
processor wait for a GPU is written down in ``waits``. Numbers are the CPU's, bit for bit. Nothing is learnt about the
CUDA kernels themselves, which tests/kernels/test_cuda.py is for.

CUDA graphs record each operation with the tensors that it read and wrote; a replay does the same to the same tensors.
What waits or copies from the CPU is refused in capture, and what was captured has no values before the first replay.
Each thread has its current stream, and a stream belongs to the GPU that was the current one when it was made: a capture
sees nothing of what happens on another stream or GPU. There is one capture at a time, as torch's manual has it. After a
capture that fails its stream stays the current one, as with torch.

To torch's C++ parts the tensors are on "meta", the one device beside the CPU that autograd knows in every build.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

from avatar.native import cuda, pair_capacity

GPU = torch.device("cuda", 0)
_aten = torch.ops.aten
# How many numbers come out depends on the numbers that go in, or they are asked for on the host.
_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_unique2"}


class GpuTensor(torch.Tensor):
    """A tensor on the pretended GPU; ``inner`` has its numbers."""

    inner: Tensor
    device = property(lambda self: GPU)  # pyright: ignore[reportAssignmentType]
    is_cuda = property(lambda self: True)  # pyright: ignore[reportAssignmentType]
    is_meta = property(lambda self: False)  # pyright: ignore[reportAssignmentType]
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> GpuTensor:
        self = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device="meta",
        )  # fmt: skip
        self.inner = inner
        return self

    def tolist(self) -> Any:
        """As of any tensor; torch has none for subclasses."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the pretended GPU outside of `pretended()`")


class _Stream:
    """``torch.cuda.Stream``."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.graph: _Graph | None = None  # that is captured on it

    def wait_stream(self, other: _Stream) -> None:
        """Nothing: the CPU does one thing after the other."""


class _Gpu(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.current: list[torch.device] = []  # devices that `torch.cuda.device` makes the current one, outermost first
        self.default = _Stream(GPU)
        self.shared: _Stream | None = None  # on which captures are that name no stream
        self.capturing = threading.Lock()
        self._here = threading.local()

    @property
    def stream(self) -> _Stream:
        """The current one of this thread."""
        return getattr(self._here, "stream", self.default)

    @stream.setter
    def stream(self, stream: _Stream) -> None:
        self._here.stream = stream

    @property
    def device(self) -> torch.device:
        """The current one."""
        return self.current[-1] if self.current else GPU

    @property
    def graph(self) -> _Graph | None:
        """That is captured where this thread works."""
        return self.stream.graph if self.stream.device == self.device else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = list(_tensors((args, kwargs)))
        gpu = [t for t in tensors if isinstance(t, GpuTensor)]
        place = kwargs.get("device")
        name = func.__name__.partition(".")[0]
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            target = args[0].device if name == "copy_" else place or source.device
            leaves, arrives = isinstance(source, GpuTensor), torch.device(target).type != "cpu"
            waits = leaves != arrives and (leaves or not _non_blocking(name, args, kwargs))
        else:
            strangers = [t for t in tensors if not isinstance(t, GpuTensor) and t.dim() > 0]
            if gpu and strangers:
                raise RuntimeError(f"{func} got tensors on cuda:0 and on the CPU: {[list(t.shape) for t in tensors]}")
            arrives = bool(gpu) if place is None else torch.device(place).type != "cpu"
            mask = name.startswith("index") and any(t.dtype == torch.bool for t in gpu[1:])
            waits = bool(gpu) and (name in _WAITING or mask)
        if waits:
            self.waits.append(name)
        from_cpu = name in ("_to_copy", "copy_") and arrives and not isinstance(source, GpuTensor)
        if self.graph is not None and (waits or from_cpu):
            raise RuntimeError(f"{func} is not permitted when a stream is capturing")
        if place is not None:
            kwargs["device"] = torch.device("cpu")
        wrappers = {id(t.inner): t for t in gpu}
        capacity = pair_capacity.current()
        run = func
        if name == "bin_gaussians" and capacity is not None:
            with self:
                run = _bin_into(func, capacity.count, capacity._flag(GPU))
        inner = tree_map(_inner, args), tree_map(_inner, kwargs)
        before = inner if self.graph is None else tree_map(_alias, inner)
        out = run(*inner[0], **inner[1])
        if self.graph is not None and arrives:
            self.graph.record(name, run, before, out)

        def wrap(x: Any) -> Any:
            if not isinstance(x, Tensor) or not arrives:
                return x
            if id(x) not in wrappers:
                return GpuTensor(x)
            known = wrappers[id(x)]  # an operation in place returns what it was given
            if known.shape != x.shape:  # and may have changed its shape: to torch too
                with torch._C._DisableTorchDispatch():  # pyright: ignore[reportAttributeAccessIssue]
                    func(*args, **kwargs)
            return known

        if name == "copy_":
            return args[0]
        return tree_map(wrap, out)


class _Graph:
    """``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []
        self.names: list[str] = []
        self._written: list[Tensor] = []
        self.replays = 0

    def record(self, name: str, func: Any, inputs: Any, out: Any) -> None:
        read = {t.untyped_storage().data_ptr() for t in _tensors(inputs)}
        fresh = [_alias(t) for t in _tensors(out) if t.untyped_storage().data_ptr() not in read]

        def step() -> None:
            args, kwargs = tree_map(_alias, inputs)
            new = [t for t in _tensors(func(*args, **kwargs)) if t.untyped_storage().data_ptr() not in read]
            for old, now in zip(fresh, new, strict=True):
                old.copy_(now)

        self._steps.append(step)
        self.names.append(name)
        self._written += fresh

    def captured(self) -> None:
        for tensor in self._written:
            tensor.zero_()

    def replay(self) -> None:
        self.replays += 1
        with _disable_current_modes():
            for step in self._steps:
                step()


def _bin_into(func: Any, count: int, flag: Any) -> Any:
    """The operator with lists of a fixed length, as the CUDA library fills them."""

    def run(*args: Any) -> Any:
        limits, tile_offsets, ids, slots, slot_offsets = func(*args)
        flag.inner.logical_or_(torch.tensor(len(ids) > count))
        padding = (0, count - len(ids))
        ids, slots = (torch.nn.functional.pad(x, padding) for x in (ids, slots))
        return limits, tile_offsets.clamp_max(count), ids, slots, slot_offsets

    return run


def _tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, dict):
        yield from _tensors(list(x.values()))
    elif isinstance(x, list | tuple):
        for y in x:
            yield from _tensors(y)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, GpuTensor) else x


def _alias(x: Any) -> Any:
    """The same numbers by another tensor: an operation in place may change the shape of the one it was given."""
    return x.detach() if isinstance(x, Tensor) else x


def _non_blocking(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Gpu]:
    """A machine with a GPU and the CUDA library, in this thread."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "pretended")
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    library = SimpleNamespace(path="pretended", problem=lambda index: "")
    monkeypatch.setattr(cuda, "_load", lambda: (library, ""))
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    # Views of a subclass need what inference tensors lack.
    monkeypatch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else nullcontext())
    with _Gpu() as gpu:
        _streams_and_graphs(monkeypatch, gpu)
        yield gpu


def _streams_and_graphs(monkeypatch: pytest.MonkeyPatch, gpu: _Gpu) -> None:
    @contextmanager
    def capture(graph: _Graph, stream: _Stream | None = None, **_: Any) -> Iterator[None]:
        if stream is None:
            stream = gpu.shared = gpu.shared or _Stream(gpu.device)
        before, gpu.stream = gpu.stream, stream
        if not gpu.capturing.acquire(blocking=False):
            raise RuntimeError("another capture is under way")
        stream.graph = graph
        try:
            yield
        finally:
            stream.graph = None
            gpu.capturing.release()
        gpu.stream = before
        graph.captured()

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        gpu.current.append(device)
        try:
            yield
        finally:
            gpu.current.pop()

    @contextmanager
    def on(stream: _Stream) -> Iterator[None]:
        before, gpu.stream = gpu.stream, stream
        try:
            yield
        finally:
            gpu.stream = before

    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: _Stream(gpu.device))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: gpu.stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
