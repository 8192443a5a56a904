"""Edits prompts in one place, to test whether the ranking follows the change.

The edits change the target chain. Both the user and the last companion rated its last item high, so it
supports candidates similar to that item. Each edit that removes this support has a control edit (its twin),
which changes as much text but leaves the support:

- cut: the target chain is removed. cut_elsewhere: another chain is removed, whose items share no genre with
the
  target's last item.
- swapped: the last item is replaced by one of other genres. swapped_alike: by one of the same genres. The new
  item occurs nowhere else in the prompt and has about as many ratings.
- flipped: the companion's rating of the last item is mirrored on the scale, e.g. 5 to 1. flipped_elsewhere:
the
  same in the other chain.
- own_flipped, own_flipped_elsewhere: the same for the user's own rating of the last item.

Two edits carry no information: reordered changes the order of the chains, renamed the name of the target's
companion. like_cut, which removes a random like, is a reference for how much any change moves a ranking.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from r2rec_jax.chains.chain import Chain
from r2rec_jax.chains.graph import Graph
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.pipeline.prompt_source import Prompt, fit
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import RankingRecord, peer_names
from r2rec_jax.prompts.wording import Wording

TWINS = {  # edit that removes support -> its control edit
    "cut": "cut_elsewhere",
    "swapped": "swapped_alike",
    "flipped": "flipped_elsewhere",
    "own_flipped": "own_flipped_elsewhere",
}
NEUTRAL = ("reordered", "renamed")
EDITS = (*(name for pair in TWINS.items() for name in pair), *NEUTRAL, "like_cut")

LIKENESSES = ("genre", "co-rated")
_NEAR = 10  # a new item is sampled from this many items of similar popularity


@dataclasses.dataclass(frozen=True, eq=False)
class Edited:
    """A prompt and its edits.

    prompts: edit -> edited prompt, without edits that cannot be made or fit no bucket; {} if no chain can be
    the target. alike: likeness -> bool [C], the candidates similar to the target's last item; {} without a
    target.
    """

    prompt: Prompt
    prompts: dict[str, Prompt]
    alike: dict[str, np.ndarray]


class Editor:
    """Edits prompts of one data set; `config` is the `prompt` section that made them."""

    def __init__(self, catalog: Catalog, graph: Graph, wording: Wording, chat: Chat, config: PromptConfig):
        self.catalog, self.graph, self.wording = catalog, graph, wording
        self.chat, self.config = chat, config

    def __call__(self, prompt: Prompt, seed: int) -> Edited:
        """All sampled choices (target, new items, like, order) depend only on (seed, user)."""
        record, rng = prompt.record, np.random.default_rng([seed, prompt.record.user, 2])
        pair = self._target(record, rng)
        if pair is None:
            return Edited(prompt, {}, {})
        target, other = pair
        last = record.chains[target].items[-1]
        alike = {"genre": self._of_genre(record, last), "co-rated": co_rated(self.graph, record, last)}
        names = peer_names(record.chains, self.wording)
        edits = {name: (edited, names) for name, edited in self._records(record, target, other, rng).items()}
        free = self.wording.peers[len(names) :]
        if free:
            peer = record.chains[target].peers[-1]
            edits["renamed"] = record, names | {peer: free[rng.integers(len(free))]}
        prompts = {name: self._fit(*edit) for name, edit in edits.items()}
        return Edited(prompt, {name: edited for name, edited in prompts.items() if edited is not None}, alike)

    def _target(self, record: RankingRecord, rng) -> tuple[int, int | None] | None:
        """Indices of (the target, another chain that does not support the similar candidates).

        Targets for which such another chain exists take precedence.
        """
        pairs = []
        for k, chain in enumerate(record.chains):
            if not self.wording.is_like(min(_last_ratings(chain))):
                continue
            alike = self._of_genre(record, chain.items[-1])
            if 0 < alike.sum() < len(alike):
                pairs.append((k, self._elsewhere(record, chain)))
        pairs = [pair for pair in pairs if pair[1]] or pairs
        if not pairs:
            return None
        target, others = pairs[rng.integers(len(pairs))]
        return target, others[rng.integers(len(others))] if others else None

    def _elsewhere(self, record: RankingRecord, target: Chain) -> list[int]:
        last = target.items[-1]
        return [
            k
            for k, chain in enumerate(record.chains)
            if not any(item == last or self._shares(item, last) for item in chain.items)
        ]

    def _records(self, record: RankingRecord, target: int, other: int | None, rng) -> dict:
        """Edit -> edited record, before names are changed."""
        chains, edited = record.chains, {}

        def put(name: str, k: int, chain: Chain | None) -> None:
            kept = [*chains[:k], *([chain] if chain else []), *chains[k + 1 :]]
            edited[name] = dataclasses.replace(record, chains=kept)

        for k, suffix in ((target, ""), (other, "_elsewhere")):
            if k is None:
                continue
            put(f"cut{suffix}", k, None)
            theirs, own = _last_ratings(chains[k])
            turned = self.wording.scale.turned
            if turned(theirs) != theirs:
                put(f"flipped{suffix}", k, _with_last(chains[k], theirs=turned(theirs)))
            if turned(own) != own:
                put(f"own_flipped{suffix}", k, _with_last(chains[k], own=turned(own)))
        for name, item in zip(
            ("swapped", "swapped_alike"), self._new_items(record, target, rng), strict=True
        ):
            if item is not None:
                put(name, target, _with_last(chains[target], item=item))
        if len(chains) > 1:
            start = int(rng.integers(1, len(chains)))
            edited["reordered"] = dataclasses.replace(record, chains=chains[start:] + chains[:start])
        if record.likes:
            k = int(rng.integers(len(record.likes)))
            edited["like_cut"] = dataclasses.replace(record, likes=record.likes[:k] + record.likes[k + 1 :])
        return edited

    def _new_items(self, record: RankingRecord, target: int, rng) -> tuple[int | None, int | None]:
        """(an item of other genres, an item of the same genres) outside the prompt; None if there is none."""
        old, genres = record.chains[target].items[-1], self.catalog.genres
        rated = np.diff(self.graph.item_offsets)
        nearest = np.argsort(abs(rated - rated[old]), kind="stable")
        shown = {item for chain in record.chains for item in chain.items}
        shown |= {*record.likes, *record.candidates.tolist(), *(item for item, _ in record.history)}

        def draw(fits: Callable[[int], bool]) -> int | None:
            fitting = (item for item in map(int, nearest) if item not in shown and fits(item))
            near = list(itertools.islice(fitting, _NEAR))
            return near[rng.integers(len(near))] if near else None

        return (
            draw(lambda item: genres[item] and not self._shares(item, old)),
            draw(lambda item: set(genres[item]) == set(genres[old])),
        )

    def _shares(self, a: int, b: int) -> bool:
        return not set(self.catalog.genres[a]).isdisjoint(self.catalog.genres[b])

    def _of_genre(self, record: RankingRecord, item: int) -> np.ndarray:
        return np.array([self._shares(candidate, item) for candidate in record.candidates.tolist()])

    def _fit(self, record: RankingRecord, names: dict[int, str]) -> Prompt | None:
        """The record's prompt with the given companions' names; None if it does not fit a bucket in full."""
        present = dict.fromkeys(names[peer] for chain in record.chains for peer in chain.peers)
        peers = (*present, *(name for name in self.wording.peers if name not in present))
        wording = dataclasses.replace(self.wording, peers=peers)
        made = fit(record, self.catalog, wording, self.chat, self.config)
        return None if made.dropped_chains or made.dropped_likes else made


def co_rated(graph: Graph, record: RankingRecord, item: int) -> np.ndarray:
    """The quarter of the candidates whose raters are most similar to the item's: bool [C].

    The similarity is the cosine of the two sets of raters in the visible log; candidates that share no rater
    are excluded.
    """
    users, candidates = graph.users_of(item), record.candidates.tolist()
    raters = [graph.users_of(candidate) for candidate in candidates]
    both = np.array([len(np.intersect1d(users, others, assume_unique=True)) for others in raters])
    cosine = both / np.sqrt(np.maximum(1, [len(users) * len(others) for others in raters]))
    nearest = np.argsort(-cosine, kind="stable")[: len(candidates) // 4]
    return np.isin(np.arange(len(candidates)), nearest) & (both > 0)


def _last_ratings(chain: Chain) -> tuple[float, float]:
    """(the last companion's rating, the user's rating) of the last item."""
    return chain.more[-1].next_rating if chain.more else chain.r11, chain.r01


def _with_last(
    chain: Chain, *, item: int | None = None, theirs: float | None = None, own: float | None = None
) -> Chain:
    """The chain with a new last item, or a new rating of it by the last companion or the user."""
    their_rating, own_rating = _last_ratings(chain)
    item = chain.items[-1] if item is None else item
    theirs = their_rating if theirs is None else theirs
    chain = dataclasses.replace(chain, r01=own_rating if own is None else own)
    if chain.more:
        last = dataclasses.replace(chain.more[-1], item=item, next_rating=theirs)
        return dataclasses.replace(chain, more=(*chain.more[:-1], last))
    return dataclasses.replace(chain, i1=item, r11=theirs)
