"""Nothing is lost: files and folders are whole or absent whenever a process is killed, and a folder has one writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from avatar import writing
from avatar.errors import AvatarError
from avatar.paths import write_json
from avatar.writing import LOCK, WHOLE, WORKING, atomic_dir, atomic_file, contents, one_writer, settle

ROOT = Path(__file__).resolve().parents[2]


def left(folder: Path) -> list[str]:
    """What is hidden anywhere in a folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


@contextmanager
def child(code: str, *arguments: str | Path) -> Iterator[subprocess.Popen]:
    """A process that has printed "ready"; killed (SIGKILL) at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


# --- killed at every change of a folder -------------------------------------------------------------------------------

KILLED_EVERYWHERE = """
    import itertools, os, shutil, signal, sys
    from pathlib import Path
    from avatar import writing
    from avatar.writing import atomic_dir, atomic_file

    place, what, system, before = Path(sys.argv[1]), *sys.argv[2:]
    target = place / "last"

    def state():
        if target.is_file():
            return target.read_text()
        return "".join(sorted(p.read_text() for p in target.rglob("*") if p.is_file())) if target.is_dir() else "absent"

    def write(letter):
        if what == "file":
            with atomic_file(target) as new:
                new.write_text(4 * letter)
        else:
            with atomic_dir(target) as new:
                (new / "inner").mkdir()
                for name in ("a", "b", "inner/c", "inner/d"):
                    (new / name).write_text(letter)

    def killed_before(n):
        if (pid := os.fork()) == 0:
            changes = itertools.count(1)
            def change():
                if next(changes) == n:
                    os.kill(os.getpid(), signal.SIGKILL)
            events = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "open"}
            sys.addaudithook(lambda event, _: change() if event in events else None)
            sync, swap = os.fsync, writing.exchange
            os.fsync = lambda file: (change(), sync(file))
            writing.exchange = lambda a, b: (change(), system == "exchange" and swap(a, b))[1]
            write("n")
            os._exit(0)
        return os.waitpid(pid, 0)[1] != 0

    for n in itertools.count(1):
        shutil.rmtree(place)
        place.mkdir()
        if before == "old":
            write("o")
        if not killed_before(n):
            break
        seen = state()
        writing.settle(place)
        print(n, seen, state(), ",".join(sorted(p.name for p in place.iterdir())))
"""


@pytest.mark.parametrize(("what", "system"), [("file", "exchange"), ("folder", "exchange"), ("folder", "none")])
@pytest.mark.parametrize("before", ["old", "nothing"])
def test_killed_anywhere_the_old_or_the_new_is_there(tmp_path: Path, what: str, system: str, before: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED_EVERYWHERE), str(place), what, system, before],
        capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split(" ") for line in done.stdout.splitlines()]
    assert len(rows) > 8  # moments that it was killed at
    old = {"old": "oooo", "nothing": "absent"}[before]
    for _, seen, settled, names in rows:
        # Without exchange the name is absent for a moment, and only until the next start.
        assert seen in ({old, "nnnn", "absent"} if system == "none" else {old, "nnnn"}), rows
        assert settled in {old, "nnnn"} and names == ("" if settled == "absent" else "last"), rows
    assert {settled for _, _, settled, _ in rows} == {old, "nnnn"}


def test_all_of_it_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    sync, replace, rename = os.fsync, os.replace, os.rename

    def synced(file: int) -> None:
        happened.append("sync " + Path(os.readlink(f"/proc/self/fd/{file}")).name)
        sync(file)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append(f"name {Path(b).name}"), replace(a, b)))
    monkeypatch.setattr(os, "rename", lambda a, b: (happened.append(f"name {Path(b).name}"), rename(a, b)))
    write_json(tmp_path / "file.json", {})
    assert happened[:2] == ["sync file.json", "name file.json"] and happened[2] == f"sync {tmp_path.name}"
    happened.clear()
    with atomic_dir(tmp_path / "folder") as new:
        (new / "inner").mkdir()
        (new / "inner" / "a").write_text("a")
        (new / "b").write_text("b")
    named = next(i for i, event in enumerate(happened) if event.startswith("name"))
    assert set(happened[:named]) == {"sync a", "sync b", "sync inner", "sync folder"}
    given = happened.index("name folder")
    assert happened[named].endswith(WHOLE) and happened[given - 1] == happened[given + 1] == f"sync {tmp_path.name}"


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_permissions_are_the_users(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    import torch

    from avatar.io.checkpoint import save_tensors

    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(1)}, {})
        with atomic_dir(tmp_path / "last") as new:
            save_tensors(new / "state.safetensors", {"a": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    for path in (tmp_path / "model.safetensors", tmp_path / "last" / "state.safetensors"):
        assert path.stat().st_mode & 0o777 == file
    assert (tmp_path / "last").stat().st_mode & 0o777 == folder


def test_errors_leave_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    (tmp_path / "b").touch()
    with pytest.raises(RuntimeError), atomic_dir(tmp_path / "a"):
        raise RuntimeError("power cut")
    with pytest.raises(AvatarError, match="disk is full"), atomic_file(tmp_path / "b") as new:
        new.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(AvatarError, match="Not a directory"), atomic_dir(tmp_path / "b"):
        pass
    with pytest.raises(AvatarError, match="Is a directory"), atomic_file(tmp_path / "a") as new:
        new.touch()
    assert (tmp_path / "a" / "old").exists() and (tmp_path / "b").read_text() == "" and left(tmp_path) == []


def test_a_disk_that_fills_up_is_said_for_arrays_and_tensors_too(tmp_path: Path) -> None:
    """Writers of these formats have errors of their own, which do not say why."""
    program = """if True:
        import resource, sys
        from pathlib import Path
        import numpy as np, torch
        from avatar.errors import AvatarError
        from avatar.io.arrays import save_array
        from avatar.io.checkpoint import save_tensors
        from avatar.writing import atomic_file
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        def array(path):
            with atomic_file(path) as temporary:
                save_array(temporary, np.zeros(10000))
        for write in (array, lambda path: save_tensors(path, {"a": torch.zeros(10000)}, {})):
            try:
                write(Path(sys.argv[1]))
            except AvatarError as error:
                print(error.why or error)
    """
    told = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.bin"], capture_output=True, text=True, check=True
    )
    assert told.stdout.count("File too large") == 2
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "old").touch()
    (tmp_path / "last").symlink_to("elsewhere")
    with atomic_dir(tmp_path / "last") as new:
        (new / "new").touch()
    assert [p.name for p in (tmp_path / "last").iterdir()] == ["new"] and not (tmp_path / "last").is_symlink()
    assert (tmp_path / "elsewhere" / "old").exists() and left(tmp_path) == []


def test_what_is_no_file_is_written_into(tmp_path: Path) -> None:
    """A named pipe stands in for /dev/stdout, which a rename would replace for the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_json(pipe, [1])
    if not pipe.is_fifo():  # do not wait for ever where it fails
        os.mkfifo(tmp_path / "again")
    else:
        reader.join(10)
    assert pipe.is_fifo() and read == ["[\n  1\n]\n"]


SAY = """
    import sys
    from pathlib import Path
    from avatar.paths import write_json
    print("before", flush=True)
    write_json(Path(sys.argv[1]), [1])
    print("after")
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system names open files in another way")
@pytest.mark.parametrize("name", ["/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1", "link", "link of a link"])
def test_a_name_of_the_output_is_written_into_where_that_is_a_file(tmp_path: Path, name: str) -> None:
    """As `--json /dev/stdout > out` is; the test leaves that name alone, for what fails would destroy it for all."""
    (tmp_path / "link").symlink_to("/dev/fd/1")
    (tmp_path / "link of a link").symlink_to("link")
    with open(tmp_path / "out", "w") as out:
        command = [sys.executable, "-c", textwrap.dedent(SAY), str(tmp_path / name)]
        subprocess.run(command, stdout=out, cwd=ROOT, check=True, timeout=60)
    assert (tmp_path / "out").read_text() == "before\n[\n  1\n]\nafter\n"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "link of a link").is_symlink() and left(tmp_path) == []
    (tmp_path / "link of a file").symlink_to("out")
    stands_for = {path: writing._is_stream(path) for path in (Path("/dev/stdout"), tmp_path / "link of a file")}
    assert list(stands_for.values()) == [True, False]


# --- what is left behind ----------------------------------------------------------------------------------------------

HALF = """
    import sys, time
    from pathlib import Path
    from avatar.writing import atomic_dir, atomic_file
    with atomic_file(Path(sys.argv[1]) / "x.json") as file, atomic_dir(Path(sys.argv[1]) / "track") as folder:
        file.write_text("half")
        (folder / "a").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
"""


def test_leftovers_are_swept_once_their_writer_is_dead(tmp_path: Path) -> None:
    with child(HALF, tmp_path):
        before = left(tmp_path)
        assert len(before) >= 2
        write_json(tmp_path / "x.json", "mine")
        with one_writer(tmp_path):
            pass
        assert left(tmp_path) == before
    write_json(tmp_path / "other.json", {})
    assert left(tmp_path) == [] and (tmp_path / "x.json").read_text() == '"mine"\n'


def test_settling_takes_what_is_whole_and_free_and_nothing_else(tmp_path: Path) -> None:
    for working, name in (("1" + WHOLE, "last"), ("2" + WHOLE, "here"), ("3", "half")):
        (tmp_path / "run" / "checkpoints" / f"{WORKING}{working}" / name).mkdir(parents=True)
        (tmp_path / "run" / "checkpoints" / f"{WORKING}{working}" / name / "new").touch()
    (tmp_path / "run" / "checkpoints" / "here" / "old").mkdir(parents=True)
    (tmp_path / "run" / ".hidden").touch()  # the user's
    settle(tmp_path / "run")
    found = sorted(str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*"))
    assert found == [".hidden", "checkpoints", "checkpoints/here", "checkpoints/here/old", "checkpoints/last",
                     "checkpoints/last/new"]  # fmt: skip
    settle(tmp_path / "nothing")


def test_without_locks_nothing_fresh_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(writing.fcntl, "flock", none)
    for name in ("old", "fresh"):
        (tmp_path / f"{WORKING}{name}").mkdir()
    (tmp_path / f"{WORKING}taken{WHOLE}" / "track").mkdir(parents=True)
    past = time.time() - 3 * 24 * 3600
    os.utime(tmp_path / f"{WORKING}old", (past, past))
    with one_writer(tmp_path):
        assert sorted(p.name for p in contents(tmp_path)) == ["track"]
    assert "no locks" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{WORKING}fresh", f"{WORKING}taken{WHOLE}", "track"]


# --- one writer -------------------------------------------------------------------------------------------------------

HOLD = """
    import sys, time
    from contextlib import ExitStack
    from pathlib import Path
    from avatar.writing import one_writer
    with ExitStack() as stack:
        for path in sys.argv[1:]:
            beside = path.endswith((".safetensors", ".dataset"))
            stack.enter_context(one_writer(Path(path), inside=not beside))
        print("ready", flush=True)
        time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    folder, file = tmp_path / "run", tmp_path / "prior.safetensors"
    (tmp_path / "link").symlink_to("run")
    with child(HOLD, folder, file) as process:
        for path, inside in ((folder, True), (file, False), (tmp_path / "link", True)):
            with pytest.raises(AvatarError, match=rf"number {process.pid} on .*{path.name}"):
                with one_writer(path, inside=inside):
                    pass
    assert (folder / LOCK).exists()
    with one_writer(folder), one_writer(folder), one_writer(file, inside=False):
        (folder / "x").touch()
        refused: list[object] = []

        def try_it() -> None:
            try:
                with one_writer(folder):
                    refused.append(False)
            except AvatarError:
                refused.append(True)

        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        assert refused == [True]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["link", "run", "x"]


def test_a_lock_that_is_a_link_leads_to_no_harm(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "run" / LOCK).symlink_to("../thesis.txt")
    (tmp_path / "run" / f"{WORKING}0").symlink_to("..")
    with pytest.raises(AvatarError, match="Cannot write"), one_writer(tmp_path / "run"):
        pass
    settle(tmp_path / "run")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), one_writer(tmp_path / "run"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(AvatarError, match="file is a file"), one_writer(tmp_path / "file"):
        pass


def test_every_command_that_fills_a_folder_refuses_a_second(tmp_path: Path, capsys) -> None:
    from avatar.cli.main import main
    from tests.media import write_video
    from tests.person import make_person

    person = make_person(tmp_path / "person", frames=12)
    video = str(write_video(tmp_path / "v.mp4", [np.zeros((64, 64, 3), np.uint8)] * 60, None))
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.mp4").touch()
    (tmp_path / "run").mkdir()
    run, prior, dataset, fresh = (str(tmp_path / name) for name in ("run", "p.safetensors", "d.dataset", "new"))
    commands = {
        run: [
            ["train", str(person), "--out", run],
            ["create", video, "--out", run],
            ["export", run, "--format", "baked"],
        ],
        str(person): [["prepare", video, "--no-audio", "--out", str(person)]],
        f"{fresh}.person": [["create", video, "--out", fresh]],
        prior: [["prior", "train", str(tmp_path / "corpus"), "--out", prior]],
        dataset: [["export", "--format", "dataset", str(person), "--out", dataset]],
        str(tmp_path / "demo"): [["demo", "--out", str(tmp_path / "demo")]],
        str(tmp_path / "synth"): [["synth", "--out", str(tmp_path / "synth")]],
    }
    with child(HOLD, *commands) as process:
        for path, all_of in commands.items():
            for command in all_of:
                assert main(command) == 2, command
                shown = " ".join(capsys.readouterr().err.split())
                assert f"number {process.pid}" in shown and f"writing to {path}. Wait" in shown, (command, shown)
                assert "Traceback" not in shown
    assert not Path(fresh).exists()
