"""Self-consistency: one ranking out of several samples of the same prompt."""

import dataclasses

import numpy as np

from r2rec_jax.prompts.answer_parser import Ranking, rank_of
from r2rec_jax.rollout.parsed_completion import ParsedCompletion

K = 60  # the constant of the method's source


def fuse(rankings: list[Ranking], candidates: int, places: int) -> Ranking:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009) of readings of several answers.

    A candidate earns 1 / (60 + its place) of every answer that names it. Equal sums keep the order of the
    candidates, which is random. An answer that names no candidate earns nobody anything; what no answer
    names is not ranked. The result is valid where it fills the places asked for.
    """
    earned = np.zeros(candidates)
    for ranking in rankings:
        for place, k in enumerate(ranking.places, start=1):
            if k is not None:
                earned[k] += 1 / (K + place)
    order = [int(k) for k in np.argsort(-earned, kind="stable") if earned[k] > 0][:places]
    return Ranking(order, len(order) == places)


def self_consistent(samples: list[ParsedCompletion], places: int) -> ParsedCompletion:
    """The fused ranking of one user's valid answers, with the reasoning of the sample that agrees best with
    it: whose places of what is ranked lie nearest in sum, an absent candidate being beyond the last.

    `lenient_rank` is that of all answers, fused.
    """
    record = samples[0].prompt.record
    C = len(record.candidates)
    fused = fuse([one.ranking for one in samples if one.ranking.valid], C, places)
    lenient = fuse([one.ranking for one in samples], C, places)

    def distance(one: ParsedCompletion) -> int:
        return sum(
            abs((rank_of(one.ranking, k) or C + 1) - place) for place, k in enumerate(fused.places, start=1)
        )

    truth = int(np.flatnonzero(record.candidates == record.truth)[0])
    nearest = min(samples, key=distance)
    return dataclasses.replace(
        nearest,
        ranking=fused,
        truth_rank=rank_of(fused, truth) if fused.valid else 0,
        lenient_rank=rank_of(lenient, truth),
    )
