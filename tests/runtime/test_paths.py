import errno
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from r2rec_jax.runtime.errors import UserError, disk_fault
from r2rec_jax.runtime.paths import append_line, new_folder, unfinished, write_atomic

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("content", ["é\n", b"\x00\xff"])
def test_write_atomic_makes_parents_and_leaves_one_file(tmp_path, content):
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "old")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    write_atomic(path, "old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_folder_appears_whole(tmp_path):
    path = tmp_path / "deep" / "out"
    with new_folder(path, overwrite=False) as fresh:
        (fresh / "x").write_text("1")
        assert not path.exists()
    assert (path / "x").read_text() == "1"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), new_folder(tmp_path / "out", overwrite=False):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_needs_overwrite(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("1")
    with pytest.raises(UserError, match="--overwrite"), new_folder(path, overwrite=False):
        pytest.fail("the block must not run")
    with pytest.raises(KeyError), new_folder(path, overwrite=True):
        raise KeyError
    assert (path / "old").exists()
    with new_folder(path, overwrite=True) as fresh:
        (fresh / "new").write_text("2")
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import sys
from r2rec_jax.runtime.paths import new_folder

with new_folder(sys.argv[1], overwrite=True) as fresh:
    (fresh / "half").write_text("1")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing tmp_path/out."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def test_the_next_writer_clears_what_a_killed_one_left(tmp_path, writer):
    writer.kill()
    writer.wait()
    assert sorted(path.name[:5] for path in tmp_path.iterdir()) == [".out.", ".out."]  # scratch and lock
    with new_folder(tmp_path / "out", overwrite=False) as fresh:
        (fresh / "x").write_text("1")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_living_writer_is_left_alone(tmp_path, writer):
    for overwrite in (False, True):
        with (
            pytest.raises(UserError, match="out is in use by another run"),
            new_folder(tmp_path / "out", overwrite),
        ):
            pytest.fail("the block must not run")
    writer.communicate("")
    assert writer.returncode == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["half"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_replacement_killed_between_its_renames_keeps_the_old_folder(tmp_path):
    old = tmp_path / ".out.abcd1234.tmp" / "old"
    old.mkdir(parents=True)
    (old / "x").write_text("1")
    with pytest.raises(UserError, match="--overwrite"), new_folder(tmp_path / "out", overwrite=False):
        pytest.fail("the block must not run")
    assert (tmp_path / "out" / "x").read_text() == "1"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_hidden_folders_of_others_are_not_cleared(tmp_path):
    others = [".out.backup", ".out.v2.abcd1234.tmp", ".other.abcd1234.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    with new_folder(tmp_path / "out", overwrite=False):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"out", *others}


def test_a_file_is_never_replaced_by_a_folder(tmp_path):
    path = tmp_path / "out"
    path.write_text("mine")
    with pytest.raises(UserError, match="file"), new_folder(path, overwrite=True):
        pytest.fail("the block must not run")
    assert path.read_text() == "mine"


@pytest.fixture
def limited():
    """No file of this process may grow beyond 1,000 bytes, as on a disk that is full by then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("limited")
def test_a_line_without_room_is_taken_back_whole(tmp_path):
    path, line = tmp_path / "log" / "a.jsonl", b"x" * 300 + b"\n"
    for _ in range(3):
        append_line(path, line)
    with pytest.raises(OSError) as error:
        append_line(path, line)
    assert disk_fault(error.value) == f"{path}: File too large"
    assert path.read_bytes() == 3 * line
    append_line(path, b"short\n")
    assert path.read_bytes() == 3 * line + b"short\n"


@pytest.mark.usefixtures("limited")
def test_a_file_without_room_is_named_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(OSError) as error:
        write_atomic(path, "x" * 2000)
    assert disk_fault(error.value) == f"{path}: File too large"
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_real_full_disk(mount):
    folder = mount("size=64k")
    append_line(folder / "a.jsonl", b"{}\n")
    (folder / "filler").write_bytes(bytes(56 * 1024))
    with pytest.raises(OSError) as error:
        append_line(folder / "a.jsonl", b"x" * 10_000 + b"\n")
    assert error.value.errno == errno.ENOSPC
    assert disk_fault(error.value) == f"{folder / 'a.jsonl'}: No space left on device"
    assert (folder / "a.jsonl").read_bytes() == b"{}\n"


def test_what_a_disk_refuses_is_known_however_it_is_told():
    inner = OSError(errno.EDQUOT, "Disk quota exceeded", "runs/a")
    told = RuntimeError("background thread failed")
    told.__cause__ = inner
    assert disk_fault(told) == "runs/a: Disk quota exceeded"
    told = ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [os_error_code='28']")
    assert disk_fault(told) == "No space left on device"
    assert disk_fault(Exception("I/O error: Read-only file system (os error 30)")) == "Read-only file system"
    assert disk_fault(OSError("1000 requested and 12 written")) != ""
    for other in (None, ValueError("os error 2"), FileNotFoundError(errno.ENOENT, "absent"), KeyError("x")):
        assert disk_fault(other) == ""


def test_what_a_killed_writer_of_a_file_left_is_written_over(tmp_path):
    path = tmp_path / "b.txt"
    unfinished(path).write_text("half of something long")
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_one_file_wait_for_each_other(tmp_path):
    path, texts = tmp_path / "b.txt", [letter * 100_000 for letter in "abcdefgh"]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda text: write_atomic(path, text), texts))
            assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]
