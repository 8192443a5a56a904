"""Rewards: plain functions of a prompt's record and a completion; named parts, summed with weights."""

import functools
import importlib
import math
from collections.abc import Callable

import numpy as np

from r2rec_jax.data import prepared
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.prompts.wording import wording_of
from r2rec_jax.rollout.parsed_completion import ParsedCompletion
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers.facts import FactChecker
from r2rec_jax.teachers.question import Question
from r2rec_jax.train.config import RewardConfig

LARGEST = float(np.finfo(np.float32).max)

# (record, completion, the config's `reward` section) -> parts by name, before weighting.
Reward = Callable[[RankingRecord, ParsedCompletion, RewardConfig], dict[str, float]]


def step_reward(statements: int, fewest: int, most: int) -> float:
    """A trapezoid: n / fewest below `fewest`, 1 up to `most`, then falling linearly to 0 at 2 * most."""
    if statements < fewest:
        return statements / fewest
    return min(1.0, max(0.0, 2.0 - statements / most))


def rank_reward(truth_rank: int) -> float:
    """1 / log2(1 + rank) of the truth; 0 when the answer misses it or cannot be read."""
    return 1.0 / math.log2(1 + truth_rank) if truth_rank else 0.0


def paper(_: RankingRecord, completion: ParsedCompletion, config: RewardConfig) -> dict[str, float]:
    """The paper's two parts; the rank is `ParsedCompletion.lenient_rank`, that of whatever could be read.

    With `step_needs_valid_answer`, statements that lead to no valid answer earn nothing: otherwise
    reasoning alone, without end or answer, is a way to be paid.
    """
    return {
        "step": step_reward(completion.statements, *config.statements)
        if _earns_steps(completion, config)
        else 0.0,
        "rank": rank_reward(completion.lenient_rank),
    }


def supported(checker: FactChecker) -> Reward:
    """Ours: a part "facts", the share of statements that the prompt supports, of those that can be checked.

    0 where none can be, or, with `step_needs_valid_answer`, where they lead to no valid answer.
    """

    question_of = functools.lru_cache(maxsize=1)(Question.of)  # a prompt's group comes one after the other

    def facts(_: RankingRecord, completion: ParsedCompletion, config: RewardConfig) -> dict[str, float]:
        checked = (
            checker.check(question_of(completion.prompt), completion.reasoning)
            if _earns_steps(completion, config)
            else []
        )
        verdicts = [one.verdict == "supported" for one in checked if one.facts]
        return {"facts": sum(verdicts) / len(verdicts) if verdicts else 0.0}

    return facts


def reward_functions(config: RewardConfig, wording: str, data_folder: str) -> list[tuple[Reward, float]]:
    """Those of a `reward` section with their weights: the paper's, `supported` if `config.facts_weight`, and
    `config.extra`, each named "module:function", weighted by `config.extra_weights`, or 1 where these are ().

    `wording` (prompt.wording) and the prepared data are read for `supported` only.

    Raises:
      UserError: a name that cannot be imported, or `data_folder` holds no data.
    """
    ours = [paper]
    if config.facts_weight:
        dataset = prepared.load(data_folder)
        ours.append(supported(FactChecker(dataset.catalog, wording_of(wording, dataset))))
    extra = config.extra
    weights = config.extra_weights or (1.0,) * len(extra)
    return [
        *((function, 1.0) for function in ours),
        *zip(map(_imported, extra), weights, strict=True),
    ]


def reward(
    functions: list[tuple[Reward, float]], completion: ParsedCompletion, config: RewardConfig
) -> tuple[dict[str, float], float]:
    """(the parts of every function by name, their weighted sum).

    A part X weighs what its function does, times `config.X_weight` where there is such a field.

    Raises:
      ValueError: a part or their weighted sum is no finite float32, or two functions give one part.
      TypeError: a part's name is no text.
    """
    parts, total = {}, 0.0
    for function, weight in functions:
        for name, value in function(completion.prompt.record, completion, config).items():
            if not isinstance(name, str):
                raise TypeError(f"part {name!r} is not named by a text")
            if name in parts:
                raise ValueError(f"two functions give a part {name!r}")
            parts[name] = float(value)
            if not math.isfinite(parts[name]):
                raise ValueError(f"part {name!r} is {parts[name]}")
            total += weight * getattr(config, f"{name}_weight", 1.0) * parts[name]
    # Infinite in the update's float32, one reward would take its whole group's advantages with it.
    if not abs(total) <= LARGEST:
        raise ValueError(f"the weighted parts add up to {total}")
    return parts, total


def _earns_steps(completion: ParsedCompletion, config: RewardConfig) -> bool:
    return completion.ranking.valid or not config.step_needs_valid_answer


def _imported(name: str) -> Reward:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"reward.extra {name!r}: {error}; name a function as module:function, of a module that Python "
            "finds from here"
        ) from error
    if not callable(found):
        raise UserError(f"reward.extra {name!r} is no function")
    return found
