"""Prompts with one thing changed, to see whether the ranking follows it.

One chain of a prompt is meddled with, its target: one whose last item both the user and the last companion
rated high, so that it speaks for the candidates like that item. Each edit that takes this away has a twin
that does as much to the text and takes nothing away from them:

- cut: the chain is left out. cut_elsewhere: another chain is, none of whose items shares a genre with it.
- swapped: its last item gives way to one of other genres. swapped_alike: to one of the same genres. Either
  is in nothing else of the prompt, and about as often rated.
- flipped: the companion's rating of the last item is turned over, 5 to 1. flipped_elsewhere: that of the
  other chain is.
- own_flipped, own_flipped_elsewhere: the user's own rating of the last item, likewise.

Two edits say nothing to anybody: reordered, the chains in another order; renamed, the target's companion
under another name. And one is a reference for what moves a ranking at all: like_cut, a like, any of them, is
left out.
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

TWINS = {  # each edit that takes something away, and the one that it is compared with
    "cut": "cut_elsewhere",
    "swapped": "swapped_alike",
    "flipped": "flipped_elsewhere",
    "own_flipped": "own_flipped_elsewhere",
}
NEUTRAL = ("reordered", "renamed")
EDITS = (*(name for pair in TWINS.items() for name in pair), *NEUTRAL, "like_cut")

LIKENESSES = ("genre", "co-rated")
_NEAR = 10  # items of most similar popularity among which a new one is drawn


@dataclasses.dataclass(frozen=True, eq=False)
class Edited:
    """A prompt and what became of it.

    prompts: by EDITS, without those that cannot be made or do not fit the buckets, and {} where no chain can
    be the target. alike: of each of LIKENESSES, bool [C], the candidates like the target's last item; {}
    without a target.
    """

    prompt: Prompt
    prompts: dict[str, Prompt]
    alike: dict[str, np.ndarray]


class Editor:
    """Makes the edits of prompts of one data set; `config` is the `prompt` section that made them."""

    def __init__(self, catalog: Catalog, graph: Graph, wording: Wording, chat: Chat, config: PromptConfig):
        self.catalog, self.graph, self.wording = catalog, graph, wording
        self.chat, self.config = chat, config

    def __call__(self, prompt: Prompt, seed: int) -> Edited:
        """What is drawn (target, new items, the like, the order) depends on (seed, user) alone."""
        record, rng = prompt.record, np.random.default_rng([seed, prompt.record.user, 2])
        found = self._target(record, rng)
        if found is None:
            return Edited(prompt, {}, {})
        target, other = found
        last = record.chains[target].items[-1]
        alike = {"genre": self._of_genre(record, last), "co-rated": co_rated(self.graph, record, last)}
        names = peer_names(record.chains, self.wording)
        edits = {name: (one, names) for name, one in self._records(record, target, other, rng).items()}
        free = self.wording.peers[len(names) :]
        if free:
            peer = record.chains[target].peers[-1]
            edits["renamed"] = record, names | {peer: free[rng.integers(len(free))]}
        prompts = {name: self._fit(*edit) for name, edit in edits.items()}
        return Edited(prompt, {name: one for name, one in prompts.items() if one is not None}, alike)

    def _target(self, record: RankingRecord, rng) -> tuple[int, int | None] | None:
        """(the target, another chain that says nothing of the candidates alike); targets that have such
        another one come first."""
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
        """The edited records, names as yet aside."""
        chains, found = record.chains, {}

        def put(name: str, k: int, chain: Chain | None) -> None:
            kept = [*chains[:k], *([chain] if chain else []), *chains[k + 1 :]]
            found[name] = dataclasses.replace(record, chains=kept)

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
            found["reordered"] = dataclasses.replace(record, chains=chains[start:] + chains[:start])
        if record.likes:
            k = int(rng.integers(len(record.likes)))
            found["like_cut"] = dataclasses.replace(record, likes=record.likes[:k] + record.likes[k + 1 :])
        return found

    def _new_items(self, record: RankingRecord, target: int, rng) -> tuple[int | None, int | None]:
        """(an item of other genres, one of the same) that the prompt does not show; None for none."""
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

    def _shares(self, one: int, other: int) -> bool:
        return not set(self.catalog.genres[one]).isdisjoint(self.catalog.genres[other])

    def _of_genre(self, record: RankingRecord, item: int) -> np.ndarray:
        return np.array([self._shares(one, item) for one in record.candidates.tolist()])

    def _fit(self, record: RankingRecord, names: dict[int, str]) -> Prompt | None:
        """The record's prompt with its companions called so, whatever the order in which they appear."""
        present = dict.fromkeys(names[peer] for chain in record.chains for peer in chain.peers)
        peers = (*present, *(name for name in self.wording.peers if name not in present))
        wording = dataclasses.replace(self.wording, peers=peers)
        made = fit(record, self.catalog, wording, self.chat, self.config)
        return None if made.dropped_chains or made.dropped_likes else made


def co_rated(graph: Graph, record: RankingRecord, item: int) -> np.ndarray:
    """bool [C]: the quarter of the candidates whose raters are most like the item's, by the cosine of the two
    sets, in what may be seen; none that shares no rater."""
    users, candidates = graph.users_of(item), record.candidates.tolist()
    raters = [graph.users_of(one) for one in candidates]
    both = np.array([len(np.intersect1d(users, one, assume_unique=True)) for one in raters])
    cosine = both / np.sqrt(np.maximum(1, [len(users) * len(one) for one in raters]))
    nearest = np.argsort(-cosine, kind="stable")[: len(candidates) // 4]
    return np.isin(np.arange(len(candidates)), nearest) & (both > 0)


def _last_ratings(chain: Chain) -> tuple[float, float]:
    """(the last companion's, the user's) of the last item."""
    return chain.more[-1].next_rating if chain.more else chain.r11, chain.r01


def _with_last(
    chain: Chain, *, item: int | None = None, theirs: float | None = None, own: float | None = None
) -> Chain:
    """The chain with another last item, or another rating of it by the last companion or the user."""
    their_rating, own_rating = _last_ratings(chain)
    item = chain.items[-1] if item is None else item
    theirs = their_rating if theirs is None else theirs
    chain = dataclasses.replace(chain, r01=own_rating if own is None else own)
    if chain.more:
        last = dataclasses.replace(chain.more[-1], item=item, next_rating=theirs)
        return dataclasses.replace(chain, more=(*chain.more[:-1], last))
    return dataclasses.replace(chain, i1=item, r11=theirs)
