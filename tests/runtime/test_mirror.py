"""What is on the store at any moment, seen by another machine: a copy of its own."""

import contextlib
import itertools
import json
import shutil
from pathlib import Path

import pytest

from r2rec_jax.runtime import copies
from r2rec_jax.runtime.mirror import Mirror, fetch
from r2rec_jax.runtime.store import Store
from tests.stand_in import BUCKET


class Killed(BaseException):
    pass


class Held:
    """A lease that nobody wants."""

    def assure(self) -> None:
        pass


class Changes:
    """The changes asked of the store; after `limit` of them the process is as good as dead."""

    def __init__(self, monkeypatch):
        self.asked, self.limit = [], None
        for kind in ("put", "delete"):
            monkeypatch.setattr(Store, kind, self._counted(getattr(Store, kind), kind))

    def _counted(self, act, kind):
        def counted(store, name, *arguments, **options):
            if self.limit is not None and len(self.asked) >= self.limit:
                raise Killed
            self.asked.append((kind, name))
            return act(store, name, *arguments, **options)

        return counted


@pytest.fixture
def changes(monkeypatch) -> Changes:
    return Changes(monkeypatch)


def train(folder: Path, seed: int, upto: int, kept: int = 2) -> None:
    """What a run leaves after `upto` steps: each step's line and its checkpoint, the last ones kept."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.json"
    if not config.exists() or config.read_text() != json.dumps({"seed": seed}):
        config.write_text(json.dumps({"seed": seed}))
    lines = [json.dumps({"step": step, "seed": seed}) + "\n" for step in range(1, upto + 1)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for step in range(max(1, upto - kept + 1), upto + 1):
        where = folder / "checkpoints" / str(step)
        (where / "state").mkdir(parents=True)
        (where / "state" / "array").write_text(f"{seed} {step}")
        (where / "state" / "commit_success.txt").write_text("whole")
        (where / "commit_success.txt").write_text("whole")


def newest(folder: Path) -> tuple[int, int]:
    """(seed, step) that a run would go on from; checks that it would be as if never killed."""
    if not (folder / "config.json").exists():
        return -1, 0
    seed = json.loads((folder / "config.json").read_text())["seed"]
    steps = sorted(int(path.name) for path in (folder / "checkpoints").glob("*"))
    for step in steps:
        assert (folder / "checkpoints" / str(step) / "state" / "array").read_text() == f"{seed} {step}"
    last = steps[-1] if steps else 0
    logged = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] if last else []
    )
    assert [row["step"] for row in logged][:last] == list(range(1, last + 1))
    assert all(row["seed"] == seed for row in logged[:last])
    return seed, last


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_another_machine_gets_what_was_published(url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    train(here, 0, 3)
    (here / ".lock").write_text("")
    (here / ".config.json.tmp").write_text("half")
    (here / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    (here / "checkpoints" / "4.orbax-checkpoint-tmp" / "a").write_text("half")
    Mirror(url, here).publish(Held())
    Mirror(url, there).pull()
    expected = {name for name in files(here) if "tmp" not in name and name != ".lock"}
    assert set(files(there)) == expected
    assert newest(there) == (0, 3)


def test_what_is_there_already_is_not_fetched_again(server, url, tmp_path, monkeypatch):
    train(tmp_path / "here", 0, 3)
    Mirror(url, tmp_path / "here").publish(Held())
    Mirror(url, tmp_path / "there").pull()
    server.put(f"{url.removeprefix(f's3://{BUCKET}/')}/metrics.jsonl", b'{"step": 1}\n')
    (tmp_path / "there" / "config.json").write_text('{"seed": 99}')  # changed here: the store is right
    fetched, get = [], Store.get

    def noted(store, name, **options):
        found = get(store, name, **options)
        fetched.extend([name] if found.data is not None else [])
        return found

    monkeypatch.setattr(Store, "get", noted)
    Mirror(url, tmp_path / "there").pull()
    assert sorted(fetched) == ["config.json", "metrics.jsonl"]
    assert (tmp_path / "there" / "config.json").read_text() == '{"seed": 0}'
    assert (tmp_path / "there" / "metrics.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("before, after", [((0, 2), (0, 4)), ((0, 4), (7, 1)), ((0, 4), (0, 3))])
@pytest.mark.usefixtures("server")
def test_killed_at_any_moment_it_goes_on_as_if_never_killed(tmp_path, changes, before, after):
    """Trained on; begun anew with another config; gone back since the newest checkpoint was damaged."""
    for limit in itertools.count():
        url, here, there = f"s3://{BUCKET}/{tmp_path.name}{limit}", *(tmp_path / f"{k}{limit}" for k in "ab")
        changes.limit = None
        train(here, *before)
        mirror = Mirror(url, here)
        mirror.publish(Held())
        train(here, *after)
        changes.asked.clear()
        changes.limit = limit
        with contextlib.suppress(Killed):
            mirror.publish(Held())
        Mirror(url, there).pull()
        went_on = newest(there)
        if len(changes.asked) < limit:
            break  # it was not killed any more
    assert went_on == after and limit > 8


def test_a_checkpoint_half_there_is_not_taken_and_goes(server, url, tmp_path):
    below = url.removeprefix(f"s3://{BUCKET}/")
    train(tmp_path / "here", 0, 2)
    Mirror(url, tmp_path / "here").publish(Held())
    server.put(f"{below}/checkpoints/3/state/array", b"0 3")
    server.put(f"{below}/checkpoints/3/state/commit_success.txt", b"whole")
    mirror = Mirror(url, tmp_path / "there")
    mirror.pull()
    assert newest(tmp_path / "there") == (0, 2)
    mirror.publish(Held())
    assert not server.names(f"{below}/checkpoints/3/")


def test_a_prepared_folder_is_marked_last_and_unmarked_while_it_is_replaced(url, tmp_path, changes):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "manifest.json").write_text("1")
    (folder / "user.npy").write_text("1")
    mirror = Mirror(url, folder)
    mirror.publish(Held())
    assert changes.asked == [("put", "user.npy"), ("put", "manifest.json")]
    changes.asked.clear()
    (folder / "user.npy").write_text("22")
    mirror.publish(Held())
    assert changes.asked == [("delete", "manifest.json"), ("put", "user.npy"), ("put", "manifest.json")]
    changes.asked.clear()
    mirror.publish(Held())
    assert changes.asked == []


def test_what_is_read_is_fetched_to_where_its_copy_is(server, url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server.put(f"{url.removeprefix(f's3://{BUCKET}/')}/items.npy", b"items")
    folder, file = copies.copy_of(url, "inputs"), copies.copy_of(f"{url}/items.npy", "inputs")
    nothing = copies.copy_of(f"{url}/none", "inputs")
    for path in (folder, file, nothing):
        fetch(path)
    assert (folder / "items.npy").read_bytes() == file.read_bytes() == b"items"
    assert not nothing.exists()
    server.put(f"{url.removeprefix(f's3://{BUCKET}/')}/items.npy", b"others")
    fetch(file)
    assert file.read_bytes() == b"others"
    assert copies.named({"a": [str(folder / "x"), 1], "b": f"{file}: no"}) == {
        "a": [f"{url}/x", 1],
        "b": f"{url}/items.npy: no",
    }
    fetch(tmp_path / "no copy of anything")


def test_a_checkpoint_deleted_while_it_is_fetched_is_not_half_taken(url, tmp_path, monkeypatch):
    """By a run at work, which has written a newer one."""
    here = tmp_path / "here"
    train(here, 0, 2, kept=1)
    run = Mirror(url, here)
    run.publish(Held())
    get = Store.get

    def goes_on(store, name, **options):
        monkeypatch.setattr(Store, "get", get)
        train(here, 0, 3, kept=1)
        run.publish(Held())
        return get(store, name, **options)

    monkeypatch.setattr(Store, "get", goes_on)
    Mirror(url, tmp_path / "there").pull("checkpoints/")
    assert set(files(tmp_path / "there")) == {name for name in files(here) if name.startswith("checkpoints/")}
