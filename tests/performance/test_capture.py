"""A made-up stage whose phases sleep for known times, captured; and the profile of what was found."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import sft as sft_config
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.model.flops import Shapes
from r2rec_jax.performance.capture import Capture, compilations
from r2rec_jax.performance.profile import bound, make_profile
from r2rec_jax.performance.profile_text import render
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.profiler import Phases

SIDE, PRODUCTS, NAP_S = 256, 6, 0.05
CEILINGS = {"dtype": "float32", "flops": 1e12, "bandwidth": 1e10}


class Batches:
    """Batches of 2 prompts of 8 tokens, 5 used, and completions of 4, 3 used; the input takes a nap."""

    closed = False

    def start_prefetch(self):
        pass

    def close(self):
        self.closed = True

    def __next__(self):
        time.sleep(NAP_S)
        mask = np.tile(np.array([1, 1, 1, 0], np.float32), (2, 1))
        prompt, length = np.zeros((2, 8), np.int32), np.full(2, 5, np.int32)
        return CompletionBatch(prompt, length, np.zeros((2, 4), np.int32), mask)


@jax.jit
def chain_of_products(x):
    def product(x, _):
        with jax.named_scope("product"):
            return x @ x / SIDE, None

    with jax.named_scope("chain"):
        return jax.lax.scan(product, x, length=PRODUCTS)[0]


def captured(tmp_path, steps=3):
    phases, batches = Phases(), Batches()

    def advance(state, batch, step):
        with phases("update"):
            state = chain_of_products(state)
            if step == 1:
                jax.jit(lambda x: x + step)(state)  # as a new shape would, on the way to being warm
            jax.block_until_ready(state)
        return state, {"train/loss": state[0, 0]}, batch

    with compilations() as compiled:
        capture = Capture(steps, tmp_path / "trace", compiled)
        capture.drive(None, tmp_path, jnp.ones((SIDE, SIDE)), batches, advance, phases)
    assert batches.closed
    return capture


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return captured(tmp_path_factory.mktemp("capture"))


def test_steps_and_their_shapes(capture):
    assert len(capture.timed) == len(capture.traced) == 3
    assert len(capture.warmup) == 2 and capture.compiled[0] >= 2 and capture.compiled[1] == 0
    for step in capture.timed:
        assert step.seconds >= step.phases["input"] + step.phases["update"] > NAP_S
        assert step.phases["input"] >= NAP_S
        assert step.shapes == Shapes(2, 1, 8, 4)
        assert step.padding == pytest.approx(1 - (2 * 5 + 2 * 3) / (2 * 8 + 2 * 4))
        assert step.metrics == {"train/loss": pytest.approx(1.0)}


def test_the_profile_counts_what_ran(capture):
    config = sft_config.get_config("quickstart")
    profile = make_profile(config, make_mesh(data=1), capture, CEILINGS, 1.0)
    (program,) = (one for one in profile["programs"] if one["name"] == "chain_of_products")
    assert program["flops"] == PRODUCTS * 2 * SIDE**3
    (scope,) = (one for one in profile["scopes"] if one["scope"] == "chain/product" and one["flops"])
    assert scope["flops"] == program["flops"] and scope["direction"] == "forward"
    (product,) = (one for one in profile["operations"] if one["flops"])
    assert product["runs"] == PRODUCTS
    assert sum(one["share"] for one in profile["scopes"]) == pytest.approx(1)
    assert sum(one["seconds"] for one in profile["phases"]) == pytest.approx(
        np.mean(profile["steps"]["timed_s"])
    )
    # The device rests while the input sleeps, and hardly while it is waited for.
    idle = profile["idle"]
    assert idle["by_phase"]["input"] >= NAP_S * 0.99
    assert idle["seconds"] == pytest.approx(sum(idle["by_phase"].values()))
    assert idle["longest_s"] >= NAP_S * 0.99
    assert 0 < scope["seconds"] < np.mean([step.seconds for step in capture.traced]) - NAP_S
    # Three arrays of the product, and the quotient.
    assert profile["memory"]["measured"] >= 2 * SIDE * SIDE * 4
    text = render(profile)
    assert "chain/product" in text and "MFU" in text and "OF THEM" not in text


def test_mfu_by_hand(capture):
    config = sft_config.get_config("quickstart")
    update = make_profile(config, make_mesh(data=1), capture, CEILINGS, 1.0)["utilisation"]["update"]
    L, D, F, H, K, A, V = 4, 96, 256, 4, 2, 24, 1024
    layers = L * (D * A * (2 * H + 2 * K) + 3 * D * F)
    tokens, head = 2 * 8 + 2 * 4, 2 * 4 * D * V
    attention = 2 * L * H * A * (2 * 8 * 8 + 2 * 4 * 4) + 4 * L * H * A * 2 * 4 * 8
    assert update["flops_4n"] == 4 * (layers * tokens + head) + 3 * attention
    assert update["flops_6n"] == 6 * (layers * tokens + head) + 3 * attention
    seconds = np.mean([step.seconds for step in capture.timed])
    assert update["mfu_4n"] == pytest.approx(update["flops_4n"] / seconds / 1e12)
    assert update["tokens_per_s"] == pytest.approx(16 / seconds)


def test_the_bound_of_a_scope():
    assert bound(2e12, 1e10, CEILINGS) == ("compute", 2.0)
    assert bound(2e12, 3e10, CEILINGS) == ("memory", 3.0)
