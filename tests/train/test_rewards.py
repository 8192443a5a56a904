"""The reward (arXiv 2506.05069, in our form) by tables of values; the part for facts by known errors."""

import math
import sys
from types import ModuleType

import numpy as np
import pytest

from configs import grpo
from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.answer_parser import Ranking
from r2rec_jax.rollout.parsed_completion import ParsedCompletion
from r2rec_jax.teachers.facts import FactChecker
from r2rec_jax.train.rewards import paper, rank_reward, reward, reward_functions, step_reward, supported
from tests.configs.test_configs import FOLDER
from tests.configs.test_declared import parsed
from tests.teachers.test_validator import FILMS, MOVIES, RECORD

REWARD = grpo.get_config().reward


def judged(statements: int, truth_rank: int) -> ParsedCompletion:
    return ParsedCompletion(None, "", None, Ranking([], False), 0, truth_rank, statements, False)


def total(parts: dict[str, float], config, weight: float = 1.0) -> float:
    said = ParsedCompletion(
        Prompt(RECORD, "", np.zeros(0, np.int32), []), "", None, Ranking([], False), 0, 0, 0, False
    )
    found, paid = reward([(lambda *_: parts, weight)], said, config)
    assert found == parts
    return paid


@pytest.mark.parametrize(
    ("statements", "paid"),
    [
        (0, 0),
        (1, 1 / 3),
        (2, 2 / 3),
        (3, 1),
        (5, 1),
        (8, 1),
        (9, 7 / 8),
        (12, 1 / 2),
        (15, 1 / 8),
        (16, 0),
        (99, 0),
    ],
)
def test_step_reward_is_a_trapezoid(statements, paid):
    assert step_reward(statements, 3, 8) == pytest.approx(paid)


def test_step_reward_follows_its_bounds():
    assert [step_reward(n, 1, 2) for n in range(5)] == [0, 1, 1, 0.5, 0]
    assert step_reward(4, 4, 4) == 1 and step_reward(3, 4, 4) == 0.75 and step_reward(5, 4, 4) == 0.75


@pytest.mark.parametrize(
    ("rank", "paid"), [(0, 0), (1, 1), (2, 1 / math.log2(3)), (3, 0.5), (7, 1 / 3), (20, 1 / math.log2(21))]
)
def test_rank_reward_discounts_as_dcg_does(rank, paid):
    assert rank_reward(rank) == pytest.approx(paid)


def test_the_truth_higher_is_never_paid_less():
    paid = [rank_reward(rank) for rank in (*range(1, 21), 0)]
    assert paid == sorted(paid, reverse=True) and len(set(paid)) == 21


@pytest.mark.parametrize(
    ("statements", "rank", "paid"),
    [(5, 1, 3.0), (5, 0, 1.0), (0, 1, 2.0), (0, 0, 0.0), (12, 3, 1.5), (1, 7, 1.0)],
)
def test_the_papers_sum(statements, rank, paid):
    parts = paper(None, judged(statements, rank), REWARD)
    assert set(parts) == {"step", "rank"}
    assert total(parts, REWARD) == pytest.approx(paid)


def test_weights_scale_their_own_part():
    parts = paper(None, judged(12, 3), REWARD)
    config = REWARD.copy_and_resolve_references()
    config.step_weight, config.rank_weight = 10.0, 0.0
    assert total(parts, config) == pytest.approx(5.0)
    config.step_weight, config.rank_weight = 0.0, 10.0
    assert total(parts, config) == pytest.approx(5.0)


def test_a_function_of_ones_own_has_its_weight_by_flags(monkeypatch):
    own = ModuleType("my_rewards")
    own.brevity, own.calm = (lambda *_: {"brevity": 1.0, "length": 2.0}), (lambda *_: {"calm": 4.0})
    monkeypatch.setitem(sys.modules, "my_rewards", own)
    extra = "--config.reward.extra=('my_rewards:brevity', 'my_rewards:calm')"
    file = f"--config={FOLDER}/grpo.py:quickstart"
    for flag, weights in (("()", (1.0, 1.0)), ("(0.5, -2)", (0.5, -2))):
        config = parsed(file, extra, f"--config.reward.extra_weights={flag}")
        functions = reward_functions(config.reward, config.prompt.wording, config.data.folder)
        assert [weight for _, weight in functions] == [1.0, *weights]
        prompt = Prompt(RECORD, "", np.zeros(0, np.int32), [])
        said = ParsedCompletion(prompt, "", None, Ranking([], True), 1, 1, 5, False)
        parts, paid = reward(functions, said, config.reward)
        assert parts == {"step": 1.0, "rank": 1.0, "brevity": 1.0, "length": 2.0, "calm": 4.0}
        assert paid == pytest.approx(3.0 + 3.0 * weights[0] + 4.0 * weights[1])


TRUE = ("The viewer gave Heat (1995) [Action] a 4.", "Person A gave the same film a 5.")
FALSE = ("The viewer gave Heat (1995) [Action] a 1.", "The viewer gave Ran (1985) [Drama] a 4.")


@pytest.mark.parametrize(
    ("lines", "paid"),
    [
        (TRUE, 1),
        ((TRUE[0], FALSE[0]), 1 / 2),
        ((*TRUE, FALSE[1]), 2 / 3),
        (FALSE, 0),
        ((TRUE[0], "So what Person A likes is a fair guide.", FALSE[0]), 1 / 2),  # a conclusion is no fact
        (("Hm.",), 0),
        ((), 0),
    ],
)
def test_facts_are_paid_by_the_share_that_the_prompt_supports(lines, paid):
    facts, prompt = supported(FactChecker(FILMS, MOVIES)), Prompt(RECORD, "", np.zeros(0, np.int32), [])

    def said(valid: bool) -> ParsedCompletion:
        return ParsedCompletion(prompt, "\n".join(lines), None, Ranking([], valid), 0, 0, len(lines), False)

    config = REWARD.copy_and_resolve_references()
    for config.step_needs_valid_answer, valid in ((False, False), (False, True), (True, True)):
        assert facts(RECORD, said(valid), config) == {"facts": pytest.approx(paid)}
    assert facts(RECORD, said(False), config) == {"facts": 0.0}
