"""Pretraining text for the bundled tiny base model, rendered from generated logs.

There are six kinds of document, each in several wordings: catalogue facts, histories, repeated lists,
filters by genre, choices among options, and chat turns that read chains, reason and rank. They share words
with the compact wording (prompts/wording.py), because an adapter cannot teach new words to a model this
small. They do not contain the prompts of that wording, which only SFT teaches.

A ranking sorts its options by the number of favourites *shown in the document* with the same genre, then by
popularity. The model can infer the rule from the document, so attending to the context reduces the loss from
the first steps.
"""

import dataclasses
import itertools

import numpy as np

from r2rec_jax.chains.chain import Chain
from r2rec_jax.chains.graph import Graph
from r2rec_jax.chains.sampler import sample_chains
from r2rec_jax.data.interactions import Catalog, Interactions

NAMES = (
    "Ann",
    "Ben",
    "Cleo",
    "Dan",
    "Eve",
    "Finn",
    "Gus",
    "Hal",
    "Iris",
    "Jo",
    "Kai",
    "Lea",
    "Max",
    "Nia",
)
LIKES = 5  # favourites shown when a document asks for a choice
BEST = 3  # places that a ranking fills


@dataclasses.dataclass(frozen=True)
class Document:
    """Text with loss, after a `context` without loss (random lists cannot be predicted).

    With `reasoning` the document is a chat turn: `context` is the question and `text` the answer.
    """

    context: str
    text: str
    reasoning: str | None = None


class Corpus:
    """Draws documents about one log with `document(rng, options)`."""

    def __init__(self, interactions: Interactions, catalog: Catalog, graph: Graph):
        self.title = catalog.title
        self.year = catalog.year
        self.genre = [genres[0] for genres in catalog.genres]
        self.genres = sorted(set(self.genre))
        self.demographics = catalog.demographics
        self.graph = graph
        self.popularity = np.bincount(interactions.item, minlength=interactions.n_items)
        liked = interactions.rating > 3
        bounds = interactions.offsets
        self.likes = [
            interactions.item[start:stop][liked[start:stop]] for start, stop in itertools.pairwise(bounds)
        ]
        self.readers = np.flatnonzero([len(likes) > LIKES for likes in self.likes])

    def document(self, rng: np.random.Generator, options: int) -> Document:
        """Draws a document whose lists of options have 2 to `options` items."""
        kind = rng.choice(6, p=(0.08, 0.07, 0.15, 0.15, 0.3, 0.25))
        if kind == 0:
            facts = [self._fact(int(item), rng) for item in rng.integers(len(self.title), size=3)]
            return Document("", " ".join(facts))
        user = int(rng.choice(self.readers))
        if kind == 1:
            return Document("", self._history(user, rng))
        count = int(rng.integers(2, options + 1))
        if kind == 2:
            return self._repeat(count, rng)
        if kind == 3:
            return self._filter(count, rng)
        if kind == 4:
            return self._choice(user, count, rng)
        return self._conversation(user, count, rng)

    def _fact(self, item: int, rng) -> str:
        title, genre, year = self.title[item], self.genre[item], self.year[item]
        wordings = (
            f"The {genre} {title} came out in {year}.",
            f"From {year}: {title}, genre {genre}.",
            f"What is {title}? A {genre}.",
            f"Genre of {title}: {genre}.",
        )
        return wordings[rng.integers(len(wordings))]

    def _history(self, user: int, rng) -> str:
        name = NAMES[rng.integers(len(NAMES))]
        likes = [self.title[item] for item in self.likes[user][-10:]]
        wordings = (
            f"{name} enjoyed {', '.join(likes)}.",
            f"Favourites of {name}: {', '.join(likes)}.",
            f"{name} says: more like {' and '.join(likes[:4])}. What about {likes[-1]}?",
        )
        return wordings[rng.integers(len(wordings))]

    def _repeat(self, count: int, rng) -> Document:
        shown = self._join(rng.choice(len(self.title), count, replace=False))
        wordings = (f"List: {shown}. Again:", f"Options: {shown}. Repeat:")
        return Document(wordings[rng.integers(len(wordings))], f" {shown}.")

    def _filter(self, count: int, rng) -> Document:
        options = rng.choice(len(self.title), count, replace=False)
        genre = self.genre[options[rng.integers(count)]]
        shown = ", ".join(self.title[item] for item in options)
        fitting = [item for item in options if self.genre[item] == genre]
        fitting.sort(key=lambda item: -self.popularity[item])
        matching = " > ".join(self.title[item] for item in fitting[:BEST])
        wordings = (
            f"Shelf: {shown}. Each {genre} here:",
            f"Among {shown}, the genre {genre} has",
            f"Options: {shown}. Wanted: {genre}. Order:",
        )
        return Document(wordings[rng.integers(len(wordings))], f" {matching}.")

    def _options(self, user: int, count: int, rng) -> tuple[np.ndarray, np.ndarray]:
        """Five favourites to show, and `count` other items that include at least one later favourite."""
        likes = self.likes[user]
        cut = int(rng.integers(LIKES, len(likes)))
        others = np.setdiff1d(np.arange(len(self.title)), likes)
        options = np.append(rng.choice(others, count - 1, replace=False), likes[cut])
        return likes[cut - LIKES : cut], rng.permutation(options)

    def _rank(self, shown: np.ndarray, options: np.ndarray) -> tuple[str, list[int]]:
        """The most frequent genre of the shown favourites, and the BEST options by this module's rule."""
        counts = {genre: sum(self.genre[item] == genre for item in shown) for genre in self.genres}
        order = sorted(options, key=lambda item: (-counts[self.genre[item]], -self.popularity[item]))
        return max(counts, key=counts.get), [int(item) for item in order[:BEST]]

    def _choice(self, user: int, count: int, rng) -> Document:
        shown, options = self._options(user, count, rng)
        taste, ranked = self._rank(shown, options)
        name = NAMES[rng.integers(len(NAMES))]
        likes, among = self._join(shown), self._join(options)
        order = " > ".join(self.title[item] for item in ranked)
        wordings = (
            (f"{name} enjoyed {likes}. Options: {among}. Order:", f" {order}."),
            (f"Favourites: {likes}. Choose from {among}. That is", f" {taste}. Order: {order}."),
            (f"For {name}, fond of {likes}, out of {among} take", f" {order}."),
            (f"Shelf: {among}. {name} enjoyed {likes}, so", f" {taste}: {order}."),
        )
        return Document(*wordings[rng.integers(len(wordings))])

    def _conversation(self, user: int, count: int, rng) -> Document:
        shown, options = self._options(user, count, rng)
        taste, ranked = self._rank(shown, options)
        chains = sample_chains(self.graph, user, int(rng.integers(1, 5)), rng)
        name, friend = (NAMES[k] for k in rng.choice(len(NAMES), 2, replace=False))
        about = "; ".join(self.demographics[user].values())
        ties = [self._tie(chain, name, friend, rng) for chain in chains]
        question = (
            f"{name} is {about}.\nFavourites: {self._join(shown)}.\n"
            + "".join(f"{tie}\n" for tie in ties)
            + f"Options: {self._join(options)}.\nOrder the best {min(BEST, count)}."
        )
        steps = []
        if chains:
            chain = chains[rng.integers(len(chains))]
            steps = [
                f"{name} gave {self.title[chain.i0]} a {chain.r00:.0f}.",
                f"{friend} gave it a {chain.r10:.0f}.",
                f"{friend} gave {self.title[chain.i1]} a {chain.r11:.0f}, a {self.genre[chain.i1]}.",
            ][: rng.integers(1, 4)]
        favourite = self.title[shown[rng.integers(len(shown))]]
        steps.append(f"{favourite} is a favourite, and the favourites are mostly {taste}.")
        answer = "Order: " + " > ".join(self.title[item] for item in ranked)
        return Document(question, answer, "\n".join(steps))

    def _tie(self, chain: Chain, name: str, friend: str, rng) -> str:
        first, second = self.title[chain.i0], self.title[chain.i1]
        r00, r10, r11, r01 = (f"{rating:.0f}" for rating in (chain.r00, chain.r10, chain.r11, chain.r01))
        wordings = (
            f"{name} {r00} {first} {r10} {friend} {r11} {second} {r01} {name}",
            f"{name} and {friend}: {first} {r00} {r10}, {second} {r01} {r11}",
        )
        return wordings[rng.integers(len(wordings))]

    def _join(self, items) -> str:
        return ", ".join(self.title[item] for item in items)
