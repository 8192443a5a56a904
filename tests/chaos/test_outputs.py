import json
import shutil

import jax.numpy as jnp
import pytest

from r2rec_jax.runtime.checkpoint import Checkpointer
from tests.chaos.outputs import STAMPS, difference, read

ROWS = [{"step": k, "train/loss": 0.5 * k, "time/step_s": 1.0, "train/mfu": 0.1} for k in (1, 2, 3)]


@pytest.fixture
def whole(tmp_path):
    folder = tmp_path / "whole"
    (folder / "deep").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "metrics.json").write_text(json.dumps({"systems": {"a": {"hr@1": 0.5, "wall_s": 3.0}}, "n": 1}))
    (folder / "deep" / "column.npy").write_bytes(b"12")
    with Checkpointer(folder / "checkpoints") as checkpoints:
        checkpoints.save(4, {"a": {"w": jnp.arange(3.0)}, "b": jnp.ones(2, jnp.bfloat16)}, {"next": 7})
    return folder


@pytest.fixture
def other(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "other")


def test_equal_but_for_what_is_measured(whole, other):
    rows = [row | {"time/step_s": 2.0, "train/mfu": 0.2} for row in ROWS]
    (other / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (other / "metrics.json").write_text(json.dumps({"systems": {"a": {"hr@1": 0.5, "wall_s": 4.0}}, "n": 1}))
    outputs = read(other)
    assert difference(read(whole), outputs) == ""
    assert outputs.left_out - {*STAMPS} == {"time/step_s", "train/mfu", "wall_s"}
    assert "_CHECKPOINT_METADATA" in outputs.left_out
    state = outputs.of["checkpoints/4/state"]
    assert len(state) == 2 and any("float32[3]" in text for text in state.values())


def repeat(folder):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps(ROWS[2]) + "\n")


def skip(folder):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[1:]))


def tear(folder):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 4')


def save_again(state, data):
    def save(folder):
        shutil.rmtree(folder / "checkpoints")
        with Checkpointer(folder / "checkpoints") as checkpoints:
            checkpoints.save(4, state, data)

    return save


CHANGED = {"a": {"w": jnp.array([0.0, 1.0, jnp.nextafter(2.0, 3.0)])}, "b": jnp.ones(2, jnp.bfloat16)}
WIDER = {"a": {"w": jnp.arange(3.0)}, "b": jnp.ones(2)}
SAME = {"a": {"w": jnp.arange(3.0)}, "b": jnp.ones(2, jnp.bfloat16)}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (repeat, "metrics.jsonl: 4 entries instead of 3"),
        (skip, "metrics.jsonl [1] step: 2 instead of 1"),
        (tear, 'metrics.jsonl: "no JSON: its last line is cut off"'),
        (lambda folder: (folder / "metrics.json").write_text('{"n": 1}'), "metrics.json systems: missing"),
        (lambda folder: (folder / "metrics.json").write_text("{"), "metrics.json: "),
        (lambda folder: (folder / "deep" / "column.npy").write_bytes(b"13"), "deep/column.npy: "),
        (lambda folder: (folder / "deep" / "column.npy").unlink(), "deep/column.npy is missing"),
        (lambda folder: (folder / ".a.tmp").touch(), ".a.tmp should not be there"),
        (lambda folder: (folder / "checkpoints" / "2").mkdir(), "checkpoints/2 should not be there"),
        (save_again(SAME, {"next": 8}), "checkpoints/4/checksum/metadata"),
    ],
)
def test_a_difference_is_told(whole, other, harm, said):
    harm(other)
    assert difference(read(whole), read(other)).startswith(said)


@pytest.mark.parametrize("state", [CHANGED, WIDER])
def test_arrays_that_differ_in_a_bit_or_a_dtype_are_told_without_the_checksum_of_their_writer(
    whole, other, state
):
    save_again(state, {"next": 7})(other)
    for folder in (whole, other):
        shutil.rmtree(folder / "checkpoints" / "4" / "checksum")
    assert difference(read(whole), read(other)).startswith("checkpoints/4/state [")
