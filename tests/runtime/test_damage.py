"""A checkpoint that is damaged, of another model, of another version, or that the disk refuses."""

import errno
import json
import resource
import shutil
import subprocess
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from r2rec_jax.runtime import checkpoint, checksum
from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.errors import UserError

# After a failure orbax drops what it had begun besides, and tensorstore finds nobody to tell.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
OPTIMIZER = optax.adamw(1e-3)
STEPS = (3, 7)


def make_state(seed):
    a, b = jax.random.normal(jax.random.key(seed), (2, 40))
    params = {"a": a, "b": b.reshape(8, 5).astype(jnp.bfloat16)}
    return {"step": jnp.int32(seed), "trainable": params, "optimizer": OPTIMIZER.init(params)}


def make_data(step):
    return {"batches": {"next_index": step}, "config": {"model": {"folder": "m"}, "lora": {"rank": 2}}}


def assert_saved(step, state, data):
    """They are what was saved as `step`, bit for bit."""
    expected = make_state(step)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == other.dtype
        np.testing.assert_array_equal(leaf, other)
    assert data == make_data(step)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpointer(folder) as checkpoints:
        for step in STEPS:
            checkpoints.save(step, make_state(step), make_data(step))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def resume(folder):
    with Checkpointer(folder) as checkpoints:
        return checkpoints.resume(make_state(0))


def flips(content):
    """Copies of it with one byte changed, in several places and ways."""
    for k, place in enumerate(sorted({int(len(content) * part) for part in np.linspace(0, 0.999, 6)})):
        harmed = bytearray(content)
        harmed[place] ^= (1, 0x80, 0xFF, 0x10)[k % 4]
        yield bytes(harmed)


def truncations(content):
    return [content[:length] for length in sorted({0, len(content) // 2, len(content) - 1})]


HARMS = {"flip": flips, "truncate": truncations, "delete": lambda _: [None]}


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_each_file_harmed_in_turn_is_noticed_or_harmless(saved, tmp_path, harm, caplog):
    files = [path.relative_to(saved) for path in (saved / "7").rglob("*") if path.is_file()]
    assert len(files) > 5
    noticed = set()
    for file in files:
        for k, content in enumerate(HARMS[harm]((saved / file).read_bytes())):
            copy = shutil.copytree(saved, tmp_path / f"{file.name}{k}")
            (copy / file).unlink() if content is None else (copy / file).write_bytes(content)
            caplog.clear()
            step, state, data = resume(copy)
            assert_saved(step, state, data)
            warnings = [
                record.getMessage() for record in caplog.records if "and renamed" in record.getMessage()
            ]
            names = sorted(path.name for path in copy.iterdir())
            if step == 7:
                assert not warnings and names == ["3", "7"]
            else:
                assert len(warnings) == 1 and f"{copy}/7 is damaged" in warnings[0], (file, warnings)
                assert "resuming from step 3" in warnings[0] and "\n" not in warnings[0]
                assert names == ["3", "damaged-7"]
                noticed.add(file.parts[1])
            shutil.rmtree(copy)
    assert {"state", "data", "checksum"} <= noticed


def test_what_is_set_aside_can_be_written_again(folder, caplog):
    for again in range(3):
        (folder / "7" / "data" / "metadata").write_text("{")
        with Checkpointer(folder) as checkpoints:
            assert_saved(*checkpoints.resume(make_state(0)))
            assert checkpoints.latest_step() == 3
            checkpoints.save(7, make_state(7), make_data(7))
        assert_saved(*resume(folder))
        aside = ["damaged-7", "damaged-7-1", "damaged-7-2"][: again + 1]
        assert sorted(path.name for path in folder.iterdir()) == ["3", "7", *aside]
    del caplog


def test_all_of_them_damaged(folder):
    for step in STEPS:
        (folder / str(step) / "data" / "metadata").unlink()
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError) as error:
        resume(folder)
    said = str(error.value)
    assert all(f"{folder}/{step} is damaged" in said for step in STEPS)
    assert "--overwrite" in said and "\n" not in said
    assert sorted(folder.rglob("*")) == before


def test_a_disk_that_cannot_be_read_is_no_damage(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EIO, "Input/output error", "some/file")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.ocp.Checkpointer, "restore", refuse)
        with pytest.raises(UserError, match=r"7 cannot be read .some/file: Input/output error"):
            resume(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7"]
    assert resume(folder)[0] == 7


# Of another model or version: that is no damage, and the one before is no better.


def test_another_config_is_told_field_by_field(folder):
    wanted = make_state(0) | {"trainable": {"a": jnp.zeros(40), "b": jnp.zeros((8, 5))}}
    with Checkpointer(folder) as checkpoints:
        with pytest.raises(UserError) as error:
            checkpoints.restore(7, wanted, {"lora": {"rank": 4}, "model": {"folder": "m"}})
        assert f"checkpoint {folder}/7 is of another config: lora.rank (2 there, 4 here); use" in str(
            error.value
        )
        # The same config, and yet the model has changed.
        with pytest.raises(UserError) as error:
            checkpoints.resume(wanted)
    assert 'trainable.b ("bfloat16[8, 5]" there, "float32[8, 5]" here)' in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7"]


@pytest.mark.parametrize("version", [0, checksum.FORMAT + 1])
def test_another_version_is_refused_with_its_number(tmp_path, monkeypatch, version):
    def describe(state, data):
        if version == 0:  # as it was before there was a number
            crc32 = zlib.crc32(json.dumps(data).encode())
            for leaf in jax.tree.leaves(state):
                crc32 = zlib.crc32(np.asarray(leaf).reshape(-1).view(np.uint8), crc32)
            return {"crc32": crc32}
        return real(state, data)

    real = checksum.describe
    with monkeypatch.context() as patch:
        patch.setattr(checksum, "FORMAT", version)
        patch.setattr(checksum, "describe", describe)
        with Checkpointer(tmp_path) as checkpoints:
            checkpoints.save(7, make_state(7), make_data(7))
    for read in (resume, lambda folder: Checkpointer(folder).data(7)):
        with pytest.raises(UserError) as error:
            read(tmp_path)
        expected = f"7 has format {version}, and this program reads format {checksum.FORMAT}"
        assert expected in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["7"]


def test_reading_leaves_a_run_at_work_alone(folder):
    unfinished = folder / "9.orbax-checkpoint-tmp"
    (unfinished / "state").mkdir(parents=True)
    with Checkpointer(folder, read_only=True) as checkpoints:
        assert_saved(7, *checkpoints.restore(7, make_state(0)))
    assert unfinished.exists()
    assert resume(folder)[0] == 7
    assert not unfinished.exists()


# The disk refuses.


def fails(checkpoints, fault, good="that of step 3 is good"):
    with pytest.raises(UserError) as error:
        checkpoints.save(7, make_state(7) | {"more": jax.random.normal(jax.random.key(0), (300_000,))}, {})
        checkpoints.wait()
    assert fault in str(error.value) and good in str(error.value) and "\n" not in str(error.value)


def goes_on(folder):
    with Checkpointer(folder) as checkpoints:
        assert_saved(*checkpoints.resume(make_state(0)))
        checkpoints.save(7, make_state(7), make_data(7))
    assert_saved(*resume(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7"]


def begin(folder):
    with Checkpointer(folder) as checkpoints:
        checkpoints.save(3, make_state(3), make_data(3))
    return folder


def test_a_full_disk(mount):
    folder = begin(mount("size=1m") / "checkpoints")
    with Checkpointer(folder) as checkpoints:
        fails(checkpoints, "No space left on device")
    goes_on(folder)


def test_a_disk_too_full_for_a_folder(mount):
    disk = mount("size=1m,nr_inodes=120")
    folder = begin(disk / "checkpoints")
    with pytest.raises(OSError):
        for k in range(120):
            (disk / f"file{k}").touch()
    with Checkpointer(folder) as checkpoints:
        fails(checkpoints, "No space left on device")
    for file in disk.glob("file*"):
        file.unlink()
    goes_on(folder)


def test_a_read_only_disk(mount):
    disk = mount("size=1m")
    folder = begin(disk / "checkpoints")
    with Checkpointer(folder) as checkpoints:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        fails(checkpoints, "Read-only file system")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    goes_on(folder)


def test_a_file_too_large(tmp_path):
    folder = begin(tmp_path / "checkpoints")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with Checkpointer(folder) as checkpoints:
            fails(checkpoints, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    goes_on(folder)
