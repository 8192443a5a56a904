"""Batched generation: a prompt is prefilled once, then its G samples decode from its keys."""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.model.attention import Prefix
from r2rec_jax.model.completion import prefill
from r2rec_jax.model.llama import CACHE, Cache, Llama, head
from r2rec_jax.rollout.sampling import sample
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import batch_sharding, constrain, working_on


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """`max_tokens` R of a response, `temperature` (0: greedy), `top_p` (1: off), and the tokens
    decoded on the device between two looks of the host at which rows have ended (`chunk`)."""

    max_tokens: int
    temperature: float
    top_p: float
    chunk: int = 16


@dataclasses.dataclass
class Rollout:
    """Sampled responses, N = B * G; sample g of prompt b is row b * G + g.

    tokens: int32 [N, R], zero after the end token. length: int32 [N], the end token included.
    truncated: bool [N], no end token within R. logprobs: float32 [N, R] under
    softmax(logits / temperature) before top-p, zero after the end.
    """

    tokens: np.ndarray
    length: np.ndarray
    truncated: np.ndarray
    logprobs: np.ndarray

    def group(self, b: int, samples: int) -> "Rollout":
        """The rows of prompt b."""
        rows = slice(b * samples, (b + 1) * samples)
        return Rollout(self.tokens[rows], self.length[rows], self.truncated[rows], self.logprobs[rows])


# (index of a prompt in the call, its G rows), as soon as the last of them has ended.
Receive = Callable[[int, Rollout], None]


@flax.struct.dataclass
class State:
    """What decoding carries from token to token.

    token: int32 [N], the newest, not yet in the cache. start: int32 [N], position of the row's
    first token. keys: PRNG key of each row. step: int32 [], response tokens drawn so far.
    alive: bool [N], rows that have not drawn the end token.
    """

    cache: Cache
    token: jax.Array
    start: jax.Array
    keys: jax.Array
    step: jax.Array
    alive: jax.Array


class Engine:
    """Generates with one model and one way of sampling; every batch shape compiles once."""

    def __init__(
        self, model: Llama, end_token: int, sampling: SamplingConfig, mesh: jax.sharding.Mesh | None = None
    ):
        """On a `mesh` the prompts of a call, with their samples, are split over `data` and `fsdp`."""
        self.model = model
        self.end_token = end_token
        self.sampling = sampling
        self.mesh = mesh
        self._begin = jax.jit(self._placed(self._begin_impl), static_argnames="samples")
        self._decode = jax.jit(self._placed(self._decode_impl), donate_argnames="state")

    def _placed(self, program):
        @functools.wraps(program)
        def placed(*arguments, **options):
            with working_on(self.mesh):
                return program(*arguments, **options)

        return placed

    def __call__(
        self,
        variables,
        prompt_BP,
        prompt_length_B,
        *,
        samples,
        seed,
        prompt_ids,
        receive: Receive | None = None,
    ) -> Rollout:
        """Samples `samples` responses to each prompt.

        Args:
          variables: of the model, adapters included when it has them.
          prompt_BP: int32, right-padded. prompt_length_B: int32, at least 1.
          samples: G.
          seed, prompt_ids (int32 [B]): a response is a function of seed, its prompt's id and its
            index within the group, whatever else is in the batch.
          receive: is called once a prompt.

        Returns:
          A Rollout of B * G rows, on the host.
        """
        if self.mesh is not None:
            devices = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
            if len(prompt_BP) % devices:
                raise UserError(
                    f"{len(prompt_BP)} prompts a batch do not divide over the {devices} devices of the data "
                    "and fsdp axes: choose a batch_size that does"
                )
            prompt_BP, prompt_length_B, prompt_ids = jax.device_put(
                (prompt_BP, prompt_length_B, prompt_ids), batch_sharding(self.mesh)
            )
        prefix, state = self._begin(
            variables, prompt_BP, prompt_length_B, jax.random.key(seed), prompt_ids, samples=samples
        )
        R = self.sampling.max_tokens
        tokens_NR = np.zeros((state.token.shape[0], R), np.int32)
        logprobs_NR = np.zeros(tokens_NR.shape, np.float32)
        for column in range(0, R, self.sampling.chunk):
            state, tokens_CN, logprobs_CN = self._decode(variables, prefix, state)
            width = min(self.sampling.chunk, R - column)
            tokens_NR[:, column : column + width] = np.asarray(tokens_CN)[:width].T
            logprobs_NR[:, column : column + width] = np.asarray(logprobs_CN)[:width].T
            if not np.any(state.alive):
                break
        ended_NR = tokens_NR == self.end_token
        truncated = ~ended_NR.any(axis=1)
        length = np.where(truncated, R, ended_NR.argmax(axis=1) + 1).astype(np.int32)
        rollout = Rollout(tokens_NR, length, truncated, logprobs_NR)
        if receive is not None:
            for b in range(len(tokens_NR) // samples):
                receive(b, rollout.group(b, samples))
        return rollout

    def _begin_impl(self, variables, prompt_BP, prompt_length_B, key, prompt_ids_B, samples):
        prefix, last_B = prefill(self.model, variables, prompt_BP, prompt_length_B)
        L, B, K, _, A = prefix.k.shape
        chunk = self.sampling.chunk
        # Whole chunks, so that one program serves all; what the last draws past R is dropped.
        slots = -(-self.sampling.max_tokens // chunk) * chunk
        empty = constrain(jnp.zeros((L, B * samples, K, slots, A), prefix.k.dtype), *CACHE)
        fold_in = jax.random.fold_in
        of_prompt_B = jax.vmap(fold_in, (None, 0))(key, prompt_ids_B)
        keys_BG = jax.vmap(jax.vmap(fold_in, (None, 0)), (0, None))(of_prompt_B, jnp.arange(samples))
        state = State(
            cache=Cache(empty, empty, jnp.zeros(L, jnp.int32)),
            token=jnp.repeat(last_B, samples),
            start=jnp.repeat(prompt_length_B - 1, samples).astype(jnp.int32),
            keys=keys_BG.reshape(B * samples),
            step=jnp.int32(0),
            alive=jnp.ones(B * samples, bool),
        )
        return prefix, state

    def _decode_impl(self, variables, prefix: Prefix, state: State):
        def one_token(state, _):
            state, token, logprob = self._next(variables, prefix, state)
            return state, (token, logprob)

        state, (tokens_CN, logprobs_CN) = jax.lax.scan(one_token, state, length=self.sampling.chunk)
        return state, tokens_CN, logprobs_CN

    def _next(self, variables, prefix: Prefix, state: State):
        with jax.named_scope("decode"):
            hidden_N1D, (k, v) = self.model.apply(
                variables, state.token[:, None], state.start + state.step, prefix, state.cache
            )
            projection = head(variables["params"]).astype(hidden_N1D.dtype)
            logits_NV = hidden_N1D[:, 0] @ projection
        with jax.named_scope("sample"):
            keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.step)
            token, logprob = sample(
                logits_NV, keys, temperature=self.sampling.temperature, top_p=self.sampling.top_p
            )
            token = jnp.where(state.alive, token, 0)
            logprob = jnp.where(state.alive, logprob, 0.0)
        state = state.replace(
            cache=state.cache.append(k, v),
            token=token,
            step=state.step + 1,
            alive=state.alive & (token != self.end_token),
        )
        return state, token, logprob
