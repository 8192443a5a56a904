"""Constrained decoding: an answer is a valid ranking of distinct candidates with the required places.

After the end of the reasoning, a row may only continue a ranking that is still allowed. The rows' automata
run on the device. An answer is a sequence of segments, each ` name >` of one candidate (the first after
`Order:`, the last before the end token), whose tokens are computed beforehand.
"""

import itertools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.prompts.answer_parser import ORDER
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.runtime.errors import UserError

NONE = -1  # pads segments; no token
OPENING, JOINER = f"\n\n{ORDER}", " >"


@flax.struct.dataclass
class Rankings:
    """The rankings that the answers of B prompts may give, all with the same number of places.

    segment: int32 [B, 3, C, M], the tokens of each candidate as first, middle and last place.
    length: int32 [B, 3, C]. budget: int32 [B], the most tokens that an answer can have, `end_think` included.
    places, end_think: int32 [B]. reasons: bool [B], false where the prompt has closed the reasoning.
    """

    segment: jax.Array
    length: jax.Array
    budget: jax.Array
    places: jax.Array
    end_think: jax.Array
    reasons: jax.Array


@flax.struct.dataclass
class Progress:
    """The automata of N rows. place: int32 [N], -1 while reasoning. offset: int32 [N], tokens so far of the
    place's segment. matching: bool [N, C], candidates whose segment begins with them. used: bool [N, C]."""

    place: jax.Array
    offset: jax.Array
    matching: jax.Array
    used: jax.Array


def rankings(
    chat: Chat, titles: list[list[str]], *, answer: str, places: int, reasoning: bool = True
) -> Rankings:
    """The rankings of prompts whose candidates have these `titles`; `answer` is "numbers" or "titles"."""
    joiner, opening = chat.encode(JOINER), chat.encode(OPENING)
    segments, lengths, budgets = [], [], []
    for shown in titles:
        named = spelt(chat, shown, answer)
        close = [chat.end] if places == 1 else joiner
        kinds = [
            [[*opening, *name, *close] for name in named],
            [[*name, *joiner] for name in named],
            [[*name, chat.end] for name in named],
        ]
        segments.append(kinds)
        lengths.append([[len(tokens) for tokens in kind] for kind in kinds])
        widest = sorted(map(len, named))[-places:]
        budgets.append(1 + len(opening) + sum(widest) + (places - 1) * len(joiner) + 1)
    B, C, M = len(titles), len(titles[0]), max(itertools.chain(*itertools.chain(*lengths)))
    segment = np.full((B, 3, C, M), NONE, np.int32)
    for b, k, c in np.ndindex(B, 3, C):
        segment[b, k, c, : lengths[b][k][c]] = segments[b][k][c]
    return Rankings(
        segment,
        np.array(lengths, np.int32),
        np.array(budgets, np.int32),
        np.full(B, places, np.int32),
        np.full(B, chat.end_think, np.int32),
        np.full(B, reasoning),
    )


def spelt(chat: Chat, titles: list[str], answer: str) -> list[list[int]]:
    """The tokens of each candidate's name within an answer; `answer` as for `rankings`."""
    names = [str(k) for k in range(1, len(titles) + 1)] if answer == "numbers" else titles
    return [chat.encode(f" {name}") for name in names]


def check_budget(allowed: Rankings, max_tokens: int) -> None:
    """Raises UserError when an answer may need more tokens than a completion has."""
    if (longest := int(np.max(allowed.budget))) > max_tokens:
        raise UserError(
            f"an answer may need {longest} tokens and rollout.max_tokens is {max_tokens}: raise it, or ask "
            "for fewer prompt.places"
        )


def begin(allowed: Rankings, rows: int) -> Progress:
    """N = `rows` rows before their first token."""
    B, _, C, _ = allowed.segment.shape
    return Progress(
        place=jnp.where(jnp.repeat(allowed.reasons, rows // B), -1, 0),
        offset=jnp.zeros(rows, jnp.int32),
        matching=jnp.ones((rows, C), bool),
        used=jnp.zeros((rows, C), bool),
    )


def choices(allowed: Rankings, progress: Progress, drawn_N, max_tokens: int):
    """(token int32 [N, C], open bool [N, C], constrained bool [N]): the tokens that may come next.

    Where `constrained`, a row's next token is one of those `open`, each listed once. `drawn_N`: tokens
    sampled so far, at most `max_tokens`. A row closes its reasoning when only the room for an answer is left.
    """
    tokens_NCM, _ = _segments(allowed, progress)
    token_NC = jnp.take_along_axis(tokens_NCM, progress.offset[:, None, None], axis=2)[:, :, 0]
    open_NC = progress.matching & ~progress.used
    # Of candidates that continue with the same token, the first stands for all.
    alike_NCC = (token_NC[:, :, None] == token_NC[:, None, :]) & open_NC[:, None, :]
    open_NC &= jnp.argmax(alike_NCC, axis=2) == jnp.arange(open_NC.shape[1])
    samples = len(drawn_N) // len(allowed.budget)
    of_rows = jnp.repeat(allowed.budget, samples), jnp.repeat(allowed.end_think, samples)
    reasoning_N = progress.place < 0
    must_close_N = reasoning_N & (max_tokens - drawn_N <= of_rows[0])
    first_C = jnp.arange(open_NC.shape[1]) == 0
    token_NC = jnp.where(must_close_N[:, None], of_rows[1][:, None], token_NC)
    open_NC = jnp.where(must_close_N[:, None], first_C, open_NC)
    return token_NC, open_NC, (~reasoning_N | must_close_N) & open_NC.any(axis=1)


def advance(allowed: Rankings, progress: Progress, token_N) -> Progress:
    """The rows after these tokens."""
    tokens_NCM, length_NC = _segments(allowed, progress)
    token_NC = jnp.take_along_axis(tokens_NCM, progress.offset[:, None, None], axis=2)[:, :, 0]
    matching_NC = progress.matching & ~progress.used & (token_NC == token_N[:, None])
    complete_NC = matching_NC & (progress.offset[:, None] + 1 == length_NC)
    done_N, reasoning_N = complete_NC.any(axis=1), progress.place < 0
    samples = len(token_N) // len(allowed.end_think)
    opens_N = reasoning_N & (token_N == jnp.repeat(allowed.end_think, samples))
    return Progress(
        place=jnp.where(opens_N, 0, progress.place + (done_N & ~reasoning_N)),
        offset=jnp.where(done_N | reasoning_N, 0, progress.offset + 1),
        matching=jnp.where((done_N | reasoning_N)[:, None], True, matching_NC),
        used=progress.used | (complete_NC & ~reasoning_N[:, None]),
    )


def _segments(allowed: Rankings, progress: Progress):
    """(tokens [N, C, M], length [N, C]) of the segments of each row's place."""
    samples = len(progress.place) // len(allowed.places)
    last_N = jnp.repeat(allowed.places, samples) - 1
    middle_N = jnp.where(progress.place >= last_N, 2, 1)
    kind_N = jnp.where(progress.place <= 0, 0, middle_N)
    prompt_N = jnp.arange(len(kind_N)) // samples
    return allowed.segment[prompt_N, kind_N], allowed.length[prompt_N, kind_N]
