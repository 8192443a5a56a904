"""The supervised step: cross-entropy of completions, for SFT of an adapter and for pretraining."""

import jax
import jax.numpy as jnp
import optax

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.llama import Llama
from r2rec_jax.train.accumulate import summed
from r2rec_jax.train.state import TrainState


def cross_entropy(model: Llama, variables: dict, batch: CompletionBatch, dropout_key=None):
    """(sum of token losses, number of tokens): a pair, divided once after all reduction."""
    logprobs_NR, _ = completion_logprobs(model, variables, batch, dropout_key=dropout_key)
    return -jnp.sum(logprobs_NR * batch.response_mask), jnp.sum(batch.response_mask)


def sft_step(
    model: Llama,
    optimizer,
    state: TrainState,
    frozen: dict,
    batch: CompletionBatch,
    seed: int = 0,
    parts: int = 1,
):
    """One update; pure, to be jitted with `model`, `optimizer`, `seed` and `parts` bound.

    The batch is taken in `parts` micro-batches, whose sum is exactly the gradient of the whole. What an
    adapter's dropout leaves out is a function of `seed`, the state's step and the part. An update that is
    not finite is skipped.

    Returns (state, metrics of float32 scalars: train/loss in nats a token, train/tokens, train/grad_norm,
    train/skipped).
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
        "train/tokens": tokens,
        "train/grad_norm": norm,
        "train/skipped": 1.0 - finite,
    }
    with jax.named_scope("optimizer"):
        return state.apply_gradients(grads, optimizer, finite), metrics
