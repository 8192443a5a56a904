"""The supervised step on a tiny model: its loss, what it changes, and what it divides by."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, head, init_variables
from r2rec_jax.train.state import TrainState
from r2rec_jax.train.supervised import cross_entropy, supervised_update

CONFIG = LlamaConfig(31, 16, 24, 2, 4, 2, 4, 1e-5, 1000.0, None, 64, False)
MODEL = Llama(CONFIG, LoRAConfig(rank=2, alpha=4.0))


@pytest.fixture(autouse=True, scope="module")
def full_precision():
    with jax.default_matmul_precision("float32"):
        yield


def make_batch() -> CompletionBatch:
    rng = np.random.default_rng(0)
    B, P, R = 4, 5, 6
    lengths = np.array([6, 1, 3, 5])
    return CompletionBatch(
        prompt=rng.integers(0, 31, (B, P)).astype(np.int32),
        prompt_length=rng.integers(1, P + 1, B).astype(np.int32),
        response=rng.integers(0, 31, (B, R)).astype(np.int32),
        response_mask=(np.arange(R) < lengths[:, None]).astype(np.float32),
    )


def dense_loss(variables, batch) -> float:
    """Mean cross-entropy a token, from the full logits of whole rows."""
    N, P = batch.prompt.shape
    rows = np.zeros((N, P + batch.response.shape[1]), np.int32)
    for n, length in enumerate(batch.prompt_length):
        rows[n, :length] = batch.prompt[n, :length]
        rows[n, length : length + batch.response.shape[1]] = batch.response[n]
    hidden, _ = jax.jit(MODEL.apply)(variables, rows)
    logprobs = np.asarray(jax.nn.log_softmax(hidden @ head(variables["params"])))
    losses = []
    for n, length in enumerate(batch.prompt_length):
        for t in range(length, length + int(batch.response_mask[n].sum())):
            losses.append(-logprobs[n, t - 1, rows[n, t]])
    return np.mean(losses)


@pytest.fixture(scope="module")
def adapter_run():
    """Six steps on one batch: (step, frozen before, frozen after, states, metrics)."""
    variables = init_variables(MODEL, seed=0)
    optimizer = optax.adam(0.02)
    frozen = {"params": variables["params"]}
    before = jax.tree.map(np.array, frozen)
    states, metrics = [TrainState.create({"lora": variables["lora"]}, optimizer)], []
    step = jax.jit(functools.partial(supervised_update, MODEL, optimizer))
    for _ in range(6):
        state, measured = step(states[-1], frozen, make_batch())
        states.append(state)
        metrics.append(measured)
    return step, before, frozen, states, metrics


def test_loss_is_the_dense_cross_entropy(adapter_run):
    _, _, frozen, states, metrics = adapter_run
    for index in (0, 3):
        expected = dense_loss({**frozen, **states[index].trainable}, make_batch())
        np.testing.assert_allclose(metrics[index]["train/loss"], expected, rtol=1e-5)


def test_steps_on_one_batch_lower_its_loss(adapter_run):
    losses = [float(m["train/loss"]) for m in adapter_run[-1]]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


def test_only_the_adapter_changes(adapter_run):
    _, before, frozen, states, _ = adapter_run
    jax.tree.map(np.testing.assert_array_equal, before, frozen)
    assert set(states[-1].trainable) == {"lora"}
    moments = [leaf.shape for leaf in jax.tree.leaves(states[-1].opt_state) if leaf.ndim]
    assert sorted(moments) == sorted(2 * [x.shape for x in jax.tree.leaves(states[0].trainable)])
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), states[0].trainable, states[-1].trainable)
    assert all(jax.tree.leaves(changed))


def test_metrics(adapter_run):
    *_, states, metrics = adapter_run
    assert [int(state.step) for state in states] == list(range(7))
    assert set(metrics[0]) == {"train/loss", "train/token_count", "train/grad_norm", "train/skipped_count"}
    assert all(value.dtype == jnp.float32 and value.shape == () for value in metrics[0].values())
    assert metrics[0]["train/token_count"] == make_batch().response_mask.sum()


def test_parts_of_unequal_token_counts_add_up_to_the_whole(adapter_run):
    """Micro-batches' (sum, tokens) pairs, divided once, give the step's loss and gradient."""
    _, _, frozen, states, metrics = adapter_run
    whole = make_batch()
    parts = [jax.tree.map(lambda x, rows=rows: x[rows], whole) for rows in ([0, 3], [1, 2])]
    assert [part.response_mask.sum() for part in parts] == [11, 4]

    def pair(trainable, batch):
        return cross_entropy(MODEL, {**frozen, **trainable}, batch)

    grad = jax.jit(jax.value_and_grad(pair, has_aux=True))
    pieces = jax.device_get([grad(states[0].trainable, part) for part in parts])
    (total, tokens), gradient = jax.tree.map(lambda *leaves: sum(leaves), *pieces)
    assert tokens == metrics[0]["train/token_count"]
    np.testing.assert_allclose(total / tokens, metrics[0]["train/loss"], rtol=1e-5)
    gradient = jax.tree.map(lambda leaf: leaf / tokens, gradient)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(norm, metrics[0]["train/grad_norm"], rtol=1e-4)
    # Adam's first moment after one step is a tenth of the gradient.
    jax.tree.map(
        lambda g, mu: np.testing.assert_allclose(g, mu / 0.1, rtol=0, atol=1e-5 * np.abs(g).max()),
        gradient,
        jax.device_get(states[1].opt_state[0].mu),
    )


def test_a_batch_without_trained_tokens_changes_nothing(adapter_run):
    step, _, frozen, states, _ = adapter_run
    empty = make_batch().replace(response_mask=np.zeros((4, 6), np.float32))
    after, metrics = step(states[0], frozen, empty)
    assert metrics["train/loss"] == 0 and metrics["train/grad_norm"] == 0
    jax.tree.map(np.testing.assert_array_equal, after.trainable, states[0].trainable)


def test_dropout_is_a_function_of_seed_and_step():
    model = Llama(CONFIG, LoRAConfig(rank=2, alpha=4.0, dropout=0.3))
    variables = init_variables(model, seed=0)
    rng = np.random.default_rng(0)
    lora = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), variables["lora"])
    optimizer = optax.sgd(1.0)
    step = jax.jit(functools.partial(supervised_update, model, optimizer))

    def run(seed, done):
        state = TrainState.create({"lora": lora}, optimizer).replace(step=jnp.int32(done))
        after, metrics = step(state, {"params": variables["params"]}, make_batch(), seed)
        return jax.device_get((metrics["train/loss"], after.trainable))

    runs = {(seed, done): run(seed, done) for seed in (0, 1) for done in (0, 1)}
    assert len({float(loss) for loss, _ in runs.values()}) == 4
    jax.tree.map(np.testing.assert_array_equal, run(1, 1), runs[1, 1])
