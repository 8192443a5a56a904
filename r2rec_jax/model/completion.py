"""Log-probabilities of completions, each prompt computed once for the group sampled from it.

SFT (one completion a prompt), GRPO (G of them) and pretraining (the prompt is the begin token)
all train through this one function.
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
    response_mask: float32 [N, R], 1 on tokens that are trained on.
    """

    prompt: jax.Array
    prompt_length: jax.Array
    response: jax.Array
    response_mask: jax.Array


def prefill(model: Llama, variables: dict, prompt_BP, prompt_length_B, rngs=None) -> tuple[Prefix, jax.Array]:
    """Keys and values of every prompt token but the last, and that last token, int32 [B].

    The last prompt token is the first input of each completion's row, where it predicts the first token.
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
    """Log-probability and entropy, float32 [N, R] each, of every response token given what precedes it.

    Exact, gradients included: those of the prompt's tokens flow back through its keys and values. Where
    the response's mask is 0 both are 0, and the output head is not computed.
    `dropout_key` turns on the adapters' dropout; a group shares the dropout mask of its prompt.
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
