"""The paper's rewards: plain functions of a judged completion, summed with weights."""

import math

from ml_collections import ConfigDict

from r2rec_jax.evaluate.judge import Judged


def step_reward(statements: int, fewest: int, most: int) -> float:
    """A trapezoid: n / fewest below `fewest`, 1 up to `most`, then falling linearly to 0 at 2 * most."""
    if statements < fewest:
        return statements / fewest
    return min(1.0, max(0.0, 2.0 - statements / most))


def rank_reward(truth_rank: int) -> float:
    """1 / log2(1 + rank) of the truth; 0 when the answer misses it or cannot be read."""
    return 1.0 / math.log2(1 + truth_rank) if truth_rank else 0.0


def reward(judged: Judged, config: ConfigDict) -> dict[str, float]:
    """The parts by name, before weighting; `config` is the `reward` section.

    With `step_needs_valid_answer`, statements that lead to no valid answer earn nothing: otherwise
    reasoning alone, without end or answer, is a way to be paid.
    """
    pays = judged.ranking.valid or not config.step_needs_valid_answer
    return {
        "step": step_reward(judged.statements, *config.statements) if pays else 0.0,
        "rank": rank_reward(judged.truth_rank),
    }


def total(parts: dict[str, float], config: ConfigDict) -> float:
    """R = step_weight * R_step + rank_weight * R_rank."""
    return sum(config[f"{name}_weight"] * value for name, value in parts.items())
