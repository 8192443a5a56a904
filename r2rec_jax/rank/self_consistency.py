"""Self-consistency: fuses the rankings of several completions of one prompt."""

import dataclasses

import numpy as np

from r2rec_jax.prompts.answer_parser import Ranking, rank_of
from r2rec_jax.rollout.parsed_completion import ParsedCompletion

K = 60  # the constant of the cited paper


def fuse(rankings: list[Ranking], candidates: int, places: int) -> Ranking:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009) of several parsed answers.

    A candidate's score is the sum of 1 / (60 + place) over the answers that name it. Ties keep the order of
    the candidates, which is random. Candidates that no answer names are not ranked. The result is valid if it
    fills `places`.
    """
    score = np.zeros(candidates)
    for ranking in rankings:
        for place, k in enumerate(ranking.places, start=1):
            if k is not None:
                score[k] += 1 / (K + place)
    order = [int(k) for k in np.argsort(-score, kind="stable") if score[k] > 0][:places]
    return Ranking(order, len(order) == places)


def self_consistent(samples: list[ParsedCompletion], places: int) -> ParsedCompletion:
    """The fused ranking of one user's valid answers, with the reasoning of the sample nearest to it.

    The nearest sample has the smallest sum of distances between its places and the fused places; a candidate
    that it does not name counts as one place after the last. `lenient_rank` comes from fusing all answers,
    valid or not.
    """
    record = samples[0].prompt.record
    C = len(record.candidates)
    fused = fuse([sample.ranking for sample in samples if sample.ranking.valid], C, places)
    lenient = fuse([sample.ranking for sample in samples], C, places)

    def distance(sample: ParsedCompletion) -> int:
        return sum(
            abs((rank_of(sample.ranking, k) or C + 1) - place)
            for place, k in enumerate(fused.places, start=1)
        )

    truth = int(np.flatnonzero(record.candidates == record.truth)[0])
    nearest = min(samples, key=distance)
    return dataclasses.replace(
        nearest,
        ranking=fused,
        truth_rank=rank_of(fused, truth) if fused.valid else 0,
        lenient_rank=rank_of(lenient, truth),
    )
