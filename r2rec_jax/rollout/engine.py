"""Batched generation: a prompt is prefilled once, and its G completions decode over its keys and values.

Each prompt occupies a slot. When the last of its completions has ended, the next prompt in the queue is
prefilled into the slot.
"""

import functools
from collections.abc import Callable, Iterator

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.model import cache
from r2rec_jax.model.attention import Prefix
from r2rec_jax.model.completion import prefill
from r2rec_jax.model.llama import Llama, head
from r2rec_jax.rollout import constrain
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.constrain import Progress, Rankings
from r2rec_jax.rollout.decoder_weights import decoder, decoder_shardings, decoder_variables
from r2rec_jax.rollout.sampling import logprob, sample
from r2rec_jax.rollout.slots import Rollout, Slots
from r2rec_jax.runtime.distributed import fetch
from r2rec_jax.runtime.mesh import to_devices, working_on


@flax.struct.dataclass
class Prompts:
    """The prompts of a call.

    tokens: int32 [B, P], right-padded. length: int32 [B], at least 1. id: int32 [B]; a completion is a
    function of the seed, its prompt's id and its index within the group, whatever else decodes with it.
    allowed: the rankings that answers may give; None leaves them free.
    """

    tokens: jax.Array
    length: jax.Array
    id: jax.Array
    allowed: Rankings | None = None


@flax.struct.dataclass
class State:
    """The carry of decoding: S slots of G rows each, N = S * G.

    prompt: keys and values of the slots' prompts. own: those of the rows' completions; its length, int32 [N],
    is also the number of tokens sampled. token: int32 [N], the newest, not yet in the cache. keys: PRNG key
    of each row. alive: bool [N], rows that have not ended. allowed, progress: see constrain.py.
    """

    prompt: Prefix
    own: Prefix
    token: jax.Array
    keys: jax.Array
    alive: jax.Array
    allowed: Rankings | None
    progress: Progress | None


class Engine:
    """Samples completions with one model and one `rollout` section; each batch shape compiles once.

    utilisation: of the last call, sampled tokens over the token steps that all rows were decoded for.
    """

    def __init__(
        self,
        model: Llama,
        end_token: int,
        sampling: RolloutConfig,
        mesh: jax.sharding.Mesh | None = None,
        decode_text: Callable[[list[int]], str] | None = None,
        slots: int = 0,
    ):
        """`sampling` is the `rollout` section. `slots` prompts decode at once, 0: all of a call. On a `mesh`
        they are split over `data` and `fsdp`; every process of a distributed run makes the same calls and
        gets every completion. `decode_text` is needed for `sampling.stop`."""
        self.end_token, self.sampling, self.mesh, self.decode_text = end_token, sampling, mesh, decode_text
        self.slots = slots
        cache.check(sampling.cache)
        self.decoder = decoder(model, sampling.weights)
        self.utilisation = 1.0
        self._copy = jax.jit(
            functools.partial(decoder_variables, model, sampling.weights),
            out_shardings=None if mesh is None else decoder_shardings(model, sampling.weights, mesh),
        )
        self._fill = jax.jit(self._placed(self._fill_impl), static_argnames="samples")
        self._refill = jax.jit(
            self._placed(self._refill_impl), static_argnames="samples", donate_argnames="state"
        )
        self._decode = jax.jit(self._placed(self._decode_impl), donate_argnames="state")

    def _placed(self, program):
        @functools.wraps(program)
        def placed(*arguments, **options):
            with working_on(self.mesh):
                return program(*arguments, **options)

        return placed

    def __call__(
        self, variables: dict, prompts: Prompts, *, samples: int, seed: int
    ) -> Iterator[tuple[int, Rollout]]:
        """Samples G = `samples` completions of each prompt.

        Yields (index of a prompt, its G rows, on the host) as soon as the last of them has ended, while the
        device continues with the others.

        `variables` are the model's, adapters included when it has them.
        """
        c, B = self.sampling, len(prompts.tokens)
        if prompts.allowed is not None:
            constrain.check_budget(prompts.allowed, c.max_tokens)
        devices = 1 if self.mesh is None else self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        S = -(-(self.slots or B) // devices) * devices
        # Several at a time: one prompt makes a poor batch, many keep the other slots waiting.
        refill = -(-S // (8 * devices)) * devices
        slots = Slots(S, samples, B, c.max_tokens, self.end_token)
        weights, key = self._copy(variables), jax.random.key(seed)

        def take(count: int):
            """The next `count` prompts of the queue and their slots; past its end slot S, which is none."""
            pairs = slots.fill(count)
            pairs += [(S, 0)] * (count - len(pairs))
            chosen = np.array([prompt for _, prompt in pairs])
            batch = jax.tree.map(lambda x: np.asarray(x)[chosen], prompts)
            return self._on_devices((batch, np.array([slot for slot, _ in pairs], np.int32)))

        with jax.profiler.TraceAnnotation("prefill"):
            state = self._fill(weights, *take(S), key, samples=samples)
        chunk = self._decode(weights, state)
        while chunk is not None:
            with jax.profiler.TraceAnnotation("decode"):
                state, drawn = chunk
                slots.record(*fetch((*drawn, state.own.length)))
            if c.stop and (stopped_N := slots.stop(c.stop, self.decode_text)).any():
                state = state.replace(alive=state.alive & ~self._on_devices(stopped_N))
            ended = slots.harvest()
            if slots.waiting and (slots.free >= refill or not slots.busy):
                with jax.profiler.TraceAnnotation("prefill"):
                    state = self._refill(weights, *take(refill), key, state=state, samples=samples)
            chunk = self._decode(weights, state) if slots.busy else None
            yield from ended
        self.utilisation = slots.utilisation

    def _on_devices(self, tree):
        return tree if self.mesh is None else to_devices(tree, self.mesh)

    def _fill_impl(self, weights, prompts: Prompts, slot_W, key, samples: int) -> State:
        """Prefills the prompts of W slots; a slot whose entry in slot_W is W or more stays empty."""
        prefix, last_W = prefill(self.decoder, weights, prompts.tokens, prompts.length)
        prompt = cache.of_prompts(prefix, self.sampling.cache)
        W = len(slot_W)
        fold_in = jax.random.fold_in
        of_prompt_W = jax.vmap(fold_in, (None, 0))(key, prompts.id)
        keys_WG = jax.vmap(jax.vmap(fold_in, (None, 0)), (0, None))(of_prompt_W, jnp.arange(samples))
        allowed = prompts.allowed
        return State(
            prompt=prompt,
            own=cache.empty(prompt, W * samples, self.sampling.max_tokens),
            token=jnp.repeat(last_W, samples),
            keys=keys_WG.reshape(W * samples),
            alive=jnp.repeat(slot_W < W, samples),
            allowed=allowed,
            progress=None if allowed is None else constrain.begin(allowed, W * samples),
        )

    def _refill_impl(self, weights, prompts: Prompts, slot_W, key, state: State, samples: int) -> State:
        """Prefills prompts into the slots slot_W of `state`; one whose slot does not exist is dropped."""
        new = self._fill_impl(weights, prompts, jnp.zeros_like(slot_W), key, samples)

        def put(old, new):
            """Writes into the slots, of an array with one entry a slot or one a row."""
            W = len(slot_W)
            by_slot = old.reshape(-1, len(new) // W, *old.shape[1:])
            placed = by_slot.at[slot_W].set(new.reshape(W, -1, *new.shape[1:]), mode="drop")
            return placed.reshape(old.shape)

        # Earlier tokens stay in the caches: a length of 0 hides them.
        own = state.own.replace(length=put(state.own.length, new.own.length))
        return jax.tree.map(put, state.replace(own=None), new.replace(own=None)).replace(own=own)

    def _decode_impl(self, weights, state: State):
        """Decodes a chunk of C tokens: (state, (tokens, logprobs, forced), [C, N] each)."""
        projection = head(weights["params"]).astype(self.decoder.dtype)

        def one_token(changing, _):
            changing, drawn = self._next(weights, projection, state.replace(**changing))
            return changing, drawn

        names = ("own", "token", "alive", "progress")
        changing = {name: getattr(state, name) for name in names}
        changing, drawn = jax.lax.scan(one_token, changing, length=self.sampling.chunk)
        return state.replace(**changing), drawn

    def _next(self, weights, projection_DV, state: State):
        """Samples one token a row: (changed fields of the state, (token, logprob, forced), [N] each)."""
        c = self.sampling
        samples = len(state.token) // len(state.prompt.length)
        with jax.named_scope("decode"):
            start_N = jnp.repeat(state.prompt.length, samples) + state.own.length
            hidden_N1D, layers = self.decoder.apply(
                weights, state.token[:, None], start_N, state.prompt, cache=state.own
            )
            logits_NV = hidden_N1D[:, 0] @ projection_DV
        with jax.named_scope("sample"):
            keys = jax.vmap(jax.random.fold_in)(state.keys, state.own.length)
            draw = functools.partial(
                sample,
                keys_N=keys,
                temperature=c.temperature,
                top_k=c.top_k,
                top_p=c.top_p,
                min_p=c.min_p,
            )
            forced, progress = jnp.zeros(len(keys), bool), state.progress
            if state.allowed is None:
                token = draw(logits_NV)
            else:
                # Reasoning ends in an answer, not in the end token.
                is_end_V = jnp.arange(logits_NV.shape[1]) == self.end_token
                token = draw(jnp.where(is_end_V, -jnp.inf, logits_NV))
                choice_NC, open_NC, constrained = constrain.choices(
                    state.allowed, progress, state.own.length, c.max_tokens
                )
                # Only the logits of allowed tokens are read: the vocabulary needs no mask.
                among_NC = jnp.take_along_axis(logits_NV, jnp.maximum(choice_NC, 0), axis=1)
                picked = draw(jnp.where(open_NC, among_NC, -jnp.inf))[:, None]
                token = jnp.where(constrained, jnp.take_along_axis(choice_NC, picked, axis=1)[:, 0], token)
                forced = constrained & (open_NC.sum(axis=1) == 1)
                progress = constrain.advance(state.allowed, progress, token)
            token_logprob = jnp.where(state.alive, logprob(logits_NV, token, c.temperature), 0.0)
        own = cache.advance(state.own, layers, state.alive)
        changing = {
            "own": own,
            "token": jnp.where(state.alive, token, 0),
            "alive": state.alive & (token != self.end_token) & (own.length < c.max_tokens),
            "progress": progress,
        }
        return changing, (changing["token"], token_logprob, forced)
