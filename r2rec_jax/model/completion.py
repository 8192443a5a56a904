"""Log-probabilities of completions. Each prompt is computed once for its group of completions.

SFT (one completion per prompt), GRPO (G completions per prompt) and pretraining (the prompt is the begin
token) all train with `completion_logprobs`.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from r2rec_jax.model.attention import Prefix
from r2rec_jax.model.llama import Llama, head
from r2rec_jax.model.logprobs import token_logprobs
from r2rec_jax.runtime.mesh import by_rows


@flax.struct.dataclass
class CompletionBatch:
    """Prompts and their completions, right-padded.

    prompt: int32 [B, P]; prompt_length: int32 [B], at least 1.
    response: int32 [N, R], N = B * G, the completions of prompt b in rows b * G .. b * G + G - 1.
    response_mask: float32 [N, R], 1 on tokens with loss.
    """

    prompt: jax.Array
    prompt_length: jax.Array
    response: jax.Array
    response_mask: jax.Array


def prefill(model: Llama, variables: dict, prompt_BP, prompt_length_B, rngs=None) -> tuple[Prefix, jax.Array]:
    """Keys and values of all prompt tokens except the last, and the last token itself, int32 [B].

    The last prompt token is the first input of each completion's row. Its output predicts the first response
    token.
    """
    last_B = jnp.take_along_axis(prompt_BP, prompt_length_B[:, None] - 1, axis=1)[:, 0]
    with jax.named_scope("prefill"):
        _, (k, v) = model.apply(variables, prompt_BP, rngs=rngs)
    length = prompt_length_B - 1
    if not model.unrolled:
        length = jnp.broadcast_to(length, (len(k), *length.shape))
    return Prefix(k, v, length), last_B


def completion_logprobs(
    model: Llama, variables: dict, batch: CompletionBatch, *, temperature: float = 1.0, dropout_key=None
):
    """Log-probability and entropy of every response token given the preceding tokens, float32 [N, R] each.

    Values and gradients are exact: gradients flow to the prompt tokens through their keys and values. Both
    outputs are 0 where the response mask is 0, and the output head is skipped there.
    `dropout_key` enables the adapters' dropout. The rows of a group share the dropout mask of their prompt.
    """
    N, R = batch.response.shape
    G = N // batch.prompt.shape[0]
    prompt_rngs = response_rngs = None
    if dropout_key is not None:
        prompt_rngs, response_rngs = ({"dropout": key} for key in jax.random.split(dropout_key))
    if batch.prompt.shape[1] > 1:
        prefix, last_B = prefill(model, variables, batch.prompt, batch.prompt_length, prompt_rngs)
        pasts = (prefix,)
    else:
        pasts, last_B = (), batch.prompt[:, 0]
    inputs_NR = jnp.concatenate([jnp.repeat(last_B, G)[:, None], batch.response[:, :-1]], axis=1)
    with jax.named_scope("completions"):
        start_N = jnp.repeat(batch.prompt_length - 1, G)
        hidden_NRD, _ = model.apply(variables, inputs_NR, start_N, *pasts, rngs=response_rngs)
    with jax.named_scope("loss_head"):
        score = by_rows(functools.partial(token_logprobs, temperature=temperature), (True, False, True, True))
        logprobs, entropy = score(
            hidden_NRD.reshape(N * R, -1),
            head(variables["params"]),
            batch.response.reshape(-1),
            batch.response_mask.reshape(-1),
        )
    return logprobs.reshape(N, R), entropy.reshape(N, R)
