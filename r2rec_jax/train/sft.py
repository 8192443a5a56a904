"""The supervised step: cross-entropy of completions, for SFT of an adapter and for pretraining."""

import jax
import jax.numpy as jnp
import optax

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.llama import Llama
from r2rec_jax.train.state import TrainState


def cross_entropy(model: Llama, variables: dict, batch: CompletionBatch):
    """(sum of token losses, number of tokens): a pair, divided once after all reduction."""
    logprobs_NR, _ = completion_logprobs(model, variables, batch)
    return -jnp.sum(logprobs_NR * batch.response_mask), jnp.sum(batch.response_mask)


def sft_step(model: Llama, optimizer, state: TrainState, frozen: dict, batch: CompletionBatch):
    """One update; pure, to be jitted with `model` and `optimizer` bound.

    Returns (state, metrics of float32 scalars: train/loss in nats a token, train/tokens, train/grad_norm).
    """

    def loss_sum(trainable):
        return cross_entropy(model, {**frozen, **trainable}, batch)

    with jax.named_scope("loss_and_gradient"):
        (total, tokens), grads = jax.value_and_grad(loss_sum, has_aux=True)(state.trainable)
    tokens = jnp.maximum(tokens, 1.0)
    grads = jax.tree.map(lambda g: g / tokens, grads)
    metrics = {
        "train/loss": total / tokens,
        "train/tokens": tokens,
        "train/grad_norm": optax.tree.norm(grads),
    }
    with jax.named_scope("optimizer"):
        return state.apply_gradients(grads, optimizer), metrics
