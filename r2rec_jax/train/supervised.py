"""The supervised step of SFT and of pretraining: cross-entropy of completions.

`SupervisedStep` is the step as the training loop calls it; `supervised_update` is its program on the device.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.flops import Mfu
from r2rec_jax.model.llama import Llama
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train.compile import jit_step
from r2rec_jax.train.micro_batches import summed
from r2rec_jax.train.state import TrainState


@dataclasses.dataclass(kw_only=True)
class SupervisedStep:
    """One step of the training loop: `state, metrics, batch = step(state, batch, number)`.

    `update` comes from `compile_update`, `frozen` are the variables that do not train.
    """

    frozen: dict
    update: Callable
    mfu: Mfu
    phases: Phases

    def __call__(self, state: TrainState, batch: CompletionBatch, _: int):
        with self.phases("update"):
            state, metrics = self.update(state, self.frozen, batch)
        # The loop waits a step later, and divides these seconds by those that the step took.
        return state, metrics | {"train/seconds_at_peak": self.mfu.seconds_at_peak(batch)}, batch


def cross_entropy(model: Llama, variables: dict, batch: CompletionBatch, dropout_key=None):
    """(sum of token losses, number of tokens): a pair, divided once after all reduction."""
    logprobs_NR, _ = completion_logprobs(model, variables, batch, dropout_key=dropout_key)
    return -jnp.sum(logprobs_NR * batch.response_mask), jnp.sum(batch.response_mask)


def supervised_update(
    model: Llama,
    optimizer,
    state: TrainState,
    frozen: dict,
    batch: CompletionBatch,
    seed: int = 0,
    parts: int = 1,
):
    """One update; pure, on the device.

    The batch is taken in `parts` micro-batches, whose sum is exactly the gradient of the whole. What an
    adapter's dropout leaves out is a function of `seed`, the state's step and the part. An update that is
    not finite is skipped.

    Returns (state, metrics of float32 scalars: train/loss in nats a token, train/token_count,
    train/grad_norm, train/skipped_count).
    """
    drops = model.lora is not None and model.lora.dropout

    def loss_and_gradient(part, index):
        key = None
        if drops:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), index)

        def loss_sum(trainable):
            return cross_entropy(model, {**frozen, **trainable}, part, key)

        with jax.named_scope("loss_and_gradient"):
            return jax.value_and_grad(loss_sum, has_aux=True)(state.trainable)

    (total, tokens), grads = summed(loss_and_gradient, batch, parts)
    tokens = jnp.maximum(tokens, 1.0)
    grads = jax.tree.map(lambda g: g / tokens, grads)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(total) & jnp.isfinite(norm)
    metrics = {
        "train/loss": total / tokens,
        "train/token_count": tokens,
        "train/grad_norm": norm,
        "train/skipped_count": 1.0 - finite,
    }
    with jax.named_scope("optimizer"):
        return state.apply_gradients(grads, optimizer, finite), metrics


def compile_update(
    model: Llama, optimizer, state: TrainState, frozen: dict, mesh: Mesh, *, seed: int = 0, parts: int = 1
) -> Callable:
    """`supervised_update` as `update(state, frozen, batch)`, compiled as `jit_step` says."""

    def update(state, frozen, batch):
        return supervised_update(model, optimizer, state, frozen, batch, seed, parts)

    return jit_step(update, state, frozen, mesh)
