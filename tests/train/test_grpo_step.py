"""A GRPO step on the host, with an engine whose completions, and so rewards, are known."""

import sys
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import grpo
from r2rec_jax.model.policy import Policy
from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train.grpo import GRPOStep
from r2rec_jax.train.reward_runner import RewardRunner
from r2rec_jax.train.state import TrainState

TITLES = ["Amber", "Birch", "Cedar", "Dune"]
STEPS = "One plain short step.\nAnother plain short step.\nThe last short step."
R = 150
FORCED = 2  # a token of the first completion


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([STEPS, *TITLES], 300).save(str(folder / "tokenizer.json"))
    return Chat(folder)


def make_config(**changes) -> ConfigDict:
    config = grpo.get_config()
    config.prompt.update({"answer": "titles", "places": 2, "buckets": (8, 16)})
    config.grpo.update({"group": 3, **changes})
    return config


def make_prompt(user: int, truth: int, length: int) -> Prompt:
    record = RankingRecord(user, {}, [], [], np.arange(10, 14, dtype=np.int32), np.ones(4, int), 10 + truth)
    return Prompt(record, "", np.arange(1, length + 1, dtype=np.int32), TITLES)


PROMPTS = [make_prompt(5, 0, 4), make_prompt(9, 2, 11)]
# By prompt: hit at 1, hit at 2, miss; then three equal misses with all the statements asked for.
ANSWERS = [
    (STEPS, "Order: Amber > Birch"),
    (STEPS, "Order: Birch > Amber"),
    ("Nothing.", "Order: Birch > Cedar"),
    *[(STEPS, "Order: Amber > Birch")] * 3,
]
REWARDS = np.array([3.0, 1 + 2 / np.log2(3), 0.0, 1.0, 1.0, 1.0])


def engine_of(chat, truncated=(0,) * 6):
    def engine(_, prompts, *, samples, seed):
        assert prompts.allowed is None
        assert (samples, seed, prompts.id.tolist()) == (3, 17, [5, 9])
        assert prompts.tokens.shape == (2, 16) and prompts.length.tolist() == [4, 11]
        rows = [chat.completion(*answer) for answer in ANSWERS]
        rollout = Rollout.empty(6, R)
        for row, ids in enumerate(rows):
            rollout.tokens[row, : len(ids)] = ids
            rollout.logprobs[row, : len(ids)] = -1 - row
            rollout.length[row] = len(ids)
        rollout.truncated[:] = truncated
        rollout.forced[0, FORCED] = True
        for b in (1, 0):  # in the order in which they end
            yield b, rollout[3 * b : 3 * b + 3]

    engine.sampling, engine.utilisation = RolloutConfig(max_tokens=R, temperature=1.0), 0.75
    return engine


def run(chat, truncated=(0,) * 6, extra=(), **changes):
    phases, config = Phases(), make_config(**changes)
    config.reward.update({"workers": 0, "extra": extra})
    groups, updates = [], iter((0.25, 0.5))
    with RewardRunner(chat, config.prompt, config.reward, "") as rewards:
        step = GRPOStep(
            policy=Policy(None, {}, {}),
            update_frozen={},
            engine=engine_of(chat, truncated),
            rewards=rewards,
            update=lambda state, _, __: (state, {"train/skipped_count": next(updates)}),
            old_logprobs=lambda _, completions: 2 * completions.response_mask,
            chat=chat,
            prompt=config.prompt,
            grpo=config.grpo,
            mesh=make_mesh(data=1),
            mfu=types.SimpleNamespace(seconds_at_peak=lambda _: 3.0),
            phases=phases,
            record=lambda number, group: groups.append((number, group)),
            seed=0,
        )
        _, metrics, batch = step(TrainState(0, {}, ()), PROMPTS, 17)
    ((number, group),) = groups
    assert number == 17
    return types.SimpleNamespace(group=group, metrics=metrics, batch=jax.device_get(batch)), phases.drain()


def test_rewards_and_advantages_of_known_completions(chat):
    got, _ = run(chat)
    np.testing.assert_allclose([one.reward for one in got.group], REWARDS[:3], rtol=1e-6)
    group = REWARDS[:3]
    np.testing.assert_allclose(got.batch.advantage[:3], (group - group.mean()) / group.std(), rtol=1e-5)
    assert not got.batch.advantage[3:].any()
    centred, _ = run(chat, scale_by_std=False)
    np.testing.assert_allclose(centred.batch.advantage[:3], group - group.mean(), rtol=1e-5)


def test_the_batch_holds_what_was_sampled(chat):
    got, _ = run(chat)
    completions = got.batch.completions
    assert completions.prompt.shape == (2, 16) and completions.prompt_length.tolist() == [4, 11]
    lengths = [len(chat.completion(*answer)) for answer in ANSWERS]
    for row, (n, answer) in enumerate(zip(lengths, ANSWERS, strict=True)):
        assert completions.response[row, :n].tolist() == chat.completion(*answer)
        # The end token is learnt, what is beyond it is not, nor what left no choice.
        learnt = [1.0] * n + [0.0] * (R - n)
        if row == 0:
            learnt[FORCED] = 0.0
        assert completions.response_mask[row].tolist() == learnt
        assert set(got.batch.sampler_logprobs[row, :n]) == {-1.0 - row}
    assert got.batch.old_logprobs is None
    assert completions.response_mask.dtype == got.batch.advantage.dtype == np.float32


def test_a_completion_without_end_teaches_nothing_if_asked(chat):
    for mask_truncated in (False, True):
        got, _ = run(chat, truncated=(0, 1, 0, 0, 0, 0), mask_truncated=mask_truncated)
        learnt = got.batch.completions.response_mask.any(axis=1)
        assert learnt.tolist() == [True, not mask_truncated, True, True, True, True]


def fails_on_birch_first(_, said, __):
    if said.answer == "Order: Birch > Amber":
        raise ValueError("birch")
    return {}


def test_a_reward_that_fails_costs_its_completion_only(chat, monkeypatch):
    monkeypatch.setitem(sys.modules, "own", types.SimpleNamespace(fails=fails_on_birch_first))
    got, _ = run(chat, extra=("own:fails",))
    assert got.batch.completions.response_mask.any(axis=1).tolist() == [True, False, True, True, True, True]
    # The other two of its group are compared with each other.
    np.testing.assert_allclose(got.batch.advantage, [1, 0, -1, 0, 0, 0], atol=1e-6)
    assert got.metrics["reward/failed_count"] == 1
    assert got.metrics["train/reward"] == pytest.approx(REWARDS[[0, 2, 3, 4, 5]].mean())


def test_a_step_whose_rewards_all_fail_ends_the_run(chat, monkeypatch):
    monkeypatch.setitem(sys.modules, "own", types.SimpleNamespace(fails=lambda *_: 1 / 0))
    with pytest.raises(UserError, match=r"every reward of step 17 failed, .*ZeroDivisionError"):
        run(chat, extra=("own:fails",))


def test_metrics(chat):
    got, seconds = run(chat)
    lengths = [len(chat.completion(*answer)) for answer in ANSWERS]
    expected = {
        "train/reward": REWARDS.mean(),
        "reward/step": 5 / 6,
        "reward/rank": (1 + 1 / np.log2(3)) / 6,
        "reward/zero_variance_fraction": 0.5,
        "reward/failed_count": 0,
        "rollout/valid_rate": 1.0,
        "rollout/truncation_rate": 0.0,
        "rollout/statements": 15 / 6,
        "rollout/dropped_chains": 0.0,
        "rollout/dropped_likes": 0.0,
        "rollout/length_mean": np.mean(lengths),
        "rollout/length_p10": np.percentile(lengths, 10),
        "rollout/length_p50": np.median(lengths),
        "rollout/length_p90": np.percentile(lengths, 90),
        "rollout/length_max": max(lengths),
        "rollout/token_count": sum(lengths),
        "rollout/slot_utilisation": 0.75,
        "train/skipped_count": 0.25,
    }
    rate = got.metrics.pop("rollout/tokens_per_s")
    assert rate == pytest.approx(sum(lengths) / seconds["time/rollout_s"])
    rate = got.metrics.pop("update/tokens_per_s")
    assert rate == pytest.approx(sum(lengths) / seconds["time/update_s"], rel=0.2)
    assert got.metrics.pop("update/mfu") == pytest.approx(3 * rate / sum(lengths), rel=1e-6)
    assert got.metrics == pytest.approx(expected)
    assert set(seconds) == {"time/rollout_s", "time/reward_s", "time/update_s"}


def test_several_updates_of_a_rollout_share_its_old_logprobs(chat):
    got, _ = run(chat, updates_per_rollout=2)
    np.testing.assert_array_equal(got.batch.old_logprobs, 2 * got.batch.completions.response_mask)
    assert got.metrics["train/skipped_count"] == 0.75
