"""Each workaround against the fault that it is for, so that a library without the fault is noticed."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from r2rec_jax.runtime.library_workarounds import drop_torn_programs, pack, probe_folder, unpack
from tests.chaos.process import Orphans, Running, segments

RUN = """
import multiprocessing, sys, time
from multiprocessing.shared_memory import SharedMemory
from r2rec_jax.runtime.library_workarounds import start_resource_tracker
if __name__ == "__main__":
    if sys.argv[1] == "cleaned":
        start_resource_tracker()
        start_resource_tracker()  # there is one
    kept = multiprocessing.get_context("spawn").Lock(), SharedMemory(create=True, size=100)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(("how", "left"), [("cleaned", 0), ("as Python does it", 2)])
def test_what_is_left_when_the_whole_group_is_killed(tmp_path, how, left):
    with Running([sys.executable, "-c", RUN, how], tmp_path, tmp_path / "log", {}) as running:
        while "ready" not in running.said():
            assert running.code is None, running.said()
            time.sleep(0.01)
        assert len(segments(running.mark)) == 2
        running.kill(alone=False)
    orphans = Orphans(limit_s=5.0)
    orphans.expect(running.mark)
    orphans.settle()
    assert (orphans.count, orphans.segments, running.said()) == (0, left, "ready\n")
    assert not segments(running.mark)


COMPILE = """
import sys, jax, jax.numpy as jnp
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.arange(4.0)))
"""


def test_programs_as_jax_keeps_them_are_whole_and_a_torn_one_is_compiled_again(tmp_path):
    settings = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def compile_it() -> tuple[str, str]:
        command = [sys.executable, "-c", COMPILE]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    said, _ = compile_it()
    written = {path: path.read_bytes() for path in tmp_path.glob("*-cache")}
    drop_torn_programs(tmp_path)
    assert written and written.keys() == {*tmp_path.glob("*-cache")}
    for path, data in written.items():
        path.write_bytes(data[: len(data) // 2])
    again, warned = compile_it()
    assert again == said and "Error reading persistent compilation cache" in warned
    drop_torn_programs(tmp_path)
    assert not [*tmp_path.glob("*-cache")]
    assert compile_it() == (said, "")
    drop_torn_programs(tmp_path)
    assert written.keys() == {*tmp_path.glob("*-cache")}


def test_a_packed_batch_is_one_array_and_reads_back():
    batch = {"tokens": np.arange(6, dtype=np.int32).reshape(2, 3), "titles": ["七人の侍", ""]}
    packed = pack(batch)
    assert packed.dtype == np.uint8 and packed.ndim == 1
    found = unpack(packed)
    assert found["titles"] == batch["titles"] and found["tokens"].dtype == np.int32
    np.testing.assert_array_equal(found["tokens"], batch["tokens"])


def test_a_folder_that_the_disk_refuses_is_told_at_once(tmp_path):
    probe_folder(tmp_path, "0")
    assert not [*tmp_path.iterdir()]
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        probe_folder(tmp_path / "file", "0")


def test_the_module_imports_neither_jax_nor_numpy():
    """It runs before JAX's settings are in place, also where a command only prints its help."""
    program = "import sys, r2rec_jax.runtime.library_workarounds; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"jax", "numpy", "absl"} & {*done.stdout.split()}
