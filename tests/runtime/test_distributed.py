"""What processes of one run tell each other: two of them, on loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.runtime import distributed
from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.errors import UserError

ROOT = Path(__file__).parents[2]

# Each claim is asserted on both processes.
PROGRAM = """
import sys

import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.runtime import distributed, mesh
from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metric_writer import MetricWriter, read

index, address, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.join(address, 2, index)
assert (jax.process_count(), jax.device_count()) == (2, 4)
assert distributed.is_first() == (index == 0)

said = distributed.gather({"x": 0.1, "text": "é" * (2000 if index else 1)})
assert said == [{"x": 0.1, "text": "é"}, {"x": 0.1, "text": "é" * 2000}]

done = []
distributed.on_first(lambda: done.append(index))
assert done == ([0] if index == 0 else [])

def refuse():
    raise UserError("not here")

try:
    distributed.on_first(refuse)
    raise AssertionError
except UserError as error:
    assert str(error) == "not here"

vote = distributed.Vote()
assert [vote(yes) for yes in (False, index == 1, False, False)] == [False, False, True, False]

everyone = mesh.make_mesh(data=2, fsdp=2)
rows = np.arange(24.0, dtype=np.float32).reshape(8, 3)
placed = mesh.to_devices({"rows": rows}, everyone)["rows"]
mine = np.concatenate([shard.data for shard in placed.addressable_shards])
np.testing.assert_array_equal(mine, rows[4 * index : 4 * index + 4])
np.testing.assert_array_equal(distributed.fetch(placed), rows)
assert not placed.is_fully_replicated

# A checkpoint that both write, read back with its checksum, and a log that one writes.
with Checkpointer(folder + "/checkpoints") as checkpoints:
    step = jax.device_put(np.int32(1), mesh.replicated(everyone))
    checkpoints.save(1, {"w": placed, "step": step}, {"a": 1})
    checkpoints.wait()
    # As a reader does that wants only the one: where the other lies does not matter to it.
    restored, data = checkpoints.restore(1, {"w": placed, "step": jnp.int32(0)})
np.testing.assert_array_equal(distributed.fetch(restored["w"]), rows)
assert data == {"a": 1} and int(restored["step"]) == 1
MetricWriter(folder).write(1, {"from": index})
try:
    mesh.make_mesh(data=2)
    raise AssertionError
except UserError as error:
    assert "leaves devices out of the 4 that 2 processes have" in str(error)
print("all held")
"""


# Each process has a folder of its own: what one reads there, the other need not.
RESUMES = """
import json
import sys

import jax
import jax.numpy as jnp

from r2rec_jax.runtime import distributed, mesh
from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.errors import UserError

index, address, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.join(address, 2, index)
everyone = mesh.make_mesh(data=2, fsdp=2)
like = mesh.to_devices({"w": jnp.zeros((8, 3))}, everyone)
like["n"] = jax.device_put(0, mesh.replicated(everyone))
for case in json.loads(sys.argv[4]):
    try:
        with Checkpointer(f"{folder}/{index}/{case}") as checkpoints:
            step, state, data = checkpoints.resume(like)
        found = step, data["step"], int(state["n"]), float(distributed.fetch(state["w"])[7, 2])
    except UserError as error:
        found = str(error).replace(f"{folder}/{index}", "").replace(f"{folder}/{1 - index}", "")
    print("found", json.dumps([case, found]), flush=True)
"""


def pair(program: str, *arguments: str) -> list[str]:
    """What two processes of `program INDEX ADDRESS ...` have said; both have to end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(index), address, *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], "\n---\n".join(said)
    return said


@pytest.mark.slow
def test_two_processes(tmp_path):
    said = pair(PROGRAM, str(tmp_path))
    assert all("all held" in text for text in said)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "from": 0.0}\n'


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_arrays(step: Path) -> None:
    for path in (step / "state").glob("**/d/*"):
        cut(path)


# By case: who sees something wrong, what, and the step that both go on from (or what both say).
HARMS = {
    "none": (None, None, 2),
    "first, checksum": (0, lambda folder: cut(folder / "2" / "checksum" / "metadata"), 1),
    "second, data": (1, lambda folder: cut(folder / "2" / "data" / "metadata"), 1),
    "second, arrays": (1, lambda folder: cut_arrays(folder / "2"), 1),
    "second, absent": (1, lambda folder: shutil.rmtree(folder / "2"), "no checkpoint at /{}/2: train first"),
}


@pytest.mark.slow
def test_what_one_of_two_processes_cannot_read_neither_goes_on_from(tmp_path):
    for case, (victim, harm, _) in HARMS.items():
        for index in range(2):
            with Checkpointer(tmp_path / str(index) / case) as checkpoints:
                for step in (1, 2):
                    state = {"w": jnp.full((8, 3), float(step)), "n": jnp.int32(step)}
                    checkpoints.save(step, state, {"step": step})
        if harm:
            harm(tmp_path / str(victim) / case)
    for index, text in enumerate(pair(RESUMES, str(tmp_path), json.dumps([*HARMS]))):
        found = [json.loads(line.removeprefix("found ")) for line in text.splitlines() if "found [" in line]
        assert [case for case, _ in found] == [*HARMS], (index, text)
        for (case, outcome), (_, _, wanted) in zip(found, HARMS.values(), strict=True):
            if isinstance(wanted, int):
                assert outcome == [wanted] * 4, (index, case)
            else:
                assert outcome.startswith(wanted.format(case)), (index, case)
    # The first process sets aside what either found damaged.
    names = {case: {path.name for path in (tmp_path / "0" / case).iterdir()} for case in HARMS}
    damaged = {case for case, found in names.items() if "damaged-2" in found}
    assert damaged == {case for case, (_, _, wanted) in HARMS.items() if wanted == 1}


def test_one_process_is_told_what_it_says():
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    assert [distributed.Vote()(yes) for yes in (True, False)] == [True, False]
    np.testing.assert_array_equal(distributed.fetch([jnp.arange(3)])[0], [0, 1, 2])


def test_one_process_is_the_first():
    done = []
    distributed.on_first(lambda: done.append(1))
    assert done == [1] and distributed.is_first()

    def refuse():
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        distributed.on_first(refuse)
