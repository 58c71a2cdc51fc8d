"""Files and folders written aside: the old or the new, and what killed processes left is swept away."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from handful import files
from handful.data.writing import new_folder
from handful.errors import OutputError
from handful.files import replacing, sweep

LEFT = ".0123456789abcdef.part"  # as a process that was killed leaves one

HOLD = """
import sys, time
from pathlib import Path
from handful.files import aside
with aside(Path(sys.argv[1]), folder=sys.argv[2] == "folder") as temporary:
    print(temporary, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["file", "folder"])
def held(request, tmp_path):
    """Another process that writes a temporary file or folder: the process, and the path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "target"), request.param]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    (tmp_path / LEFT).write_bytes(b"half")
    (tmp_path / ".fedcba9876543210.part").mkdir()
    (tmp_path / ".fedcba9876543210.part" / "0.png").write_bytes(b"half")
    with replacing(tmp_path / "whole") as file:
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_the_next_new_folder_removes_what_a_killed_one_left(tmp_path):
    (tmp_path / LEFT).mkdir()
    (tmp_path / LEFT / "0.png").write_bytes(b"half")
    with new_folder(tmp_path / "whole") as folder:
        (folder / "0.png").write_bytes(b"whole")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.png", "whole"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks: a day must pass")
def test_what_another_process_writes_stays_until_it_is_killed(held, tmp_path):
    process, temporary = held
    sweep(tmp_path)
    assert temporary.exists()
    process.kill()
    process.wait()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_this_process_writes_stays(tmp_path):
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "b") as second, new_folder(tmp_path / "c") as third:
        sweep(tmp_path)
        first.write(b"a")
        second.write(b"b")
        (third / "c").write_bytes(b"c")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c", "c"]
    assert (tmp_path / "a").read_bytes() == b"a"


@pytest.mark.skipif(os.name == "nt", reason="Windows renames no file onto one that is open")
def test_writers_and_sweepers_side_by_side_lose_nothing(tmp_path):
    failures = []

    def write(name):
        for number in range(60):
            try:
                with replacing(tmp_path / name) as file:
                    file.write(f"{name} {number}".encode())
            except OutputError as error:
                failures.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == [f"{name} 59" for name in "abcd"]


def test_other_names_and_other_folders_are_left_alone(tmp_path):
    others = ["a.part", ".part", ".0123.part", ".0123456789ABCDEF.part", "0123456789abcdef.part", f"{LEFT}.txt"]
    for name in others:
        (tmp_path / name).write_bytes(b"a person's")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / LEFT).write_bytes(b"half")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([*others, "below", LEFT])
    sweep(tmp_path, below=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([*others, "below"])


def test_without_locks_only_what_is_a_day_old_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    (tmp_path / LEFT).write_bytes(b"half")
    old = tmp_path / ".fedcba9876543210.part"
    old.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LEFT]
    with replacing(tmp_path / "whole") as file:
        file.write(b"whole")
    assert (tmp_path / "whole").read_bytes() == b"whole"


def test_a_folder_that_cannot_be_swept_is_passed_over(tmp_path):
    sweep(tmp_path / "absent")
    (tmp_path / "file").write_bytes(b"")
    sweep(tmp_path / "file")
    (tmp_path / LEFT).symlink_to(tmp_path / "file")
    sweep(tmp_path)
    assert (tmp_path / "file").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process in Linux's way")
@pytest.mark.parametrize("make", ["replacing", "new_folder"])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path, make):
    """A limit on the length of files stands for the disk's end; Python meets both as an OSError in writing."""
    (tmp_path / "old").write_bytes(b"old")
    script = f"""
import resource, signal, sys
from pathlib import Path
from handful.data.writing import new_folder
from handful.errors import OutputError
from handful.files import replacing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    if {make!r} == "replacing":
        with replacing(Path("old")) as file:
            file.write(bytes(300_000))
    else:
        with new_folder(Path("new")) as folder:
            (folder / "a").write_bytes(bytes(300_000))
except OutputError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert "must be writable, got: File too large; choose another place." in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"
