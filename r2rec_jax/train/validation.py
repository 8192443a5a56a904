"""Evaluation during GRPO: the validation users ranked and rewarded, one completion each."""

import numpy as np

from r2rec_jax.metrics.ranking_metrics import summarise
from r2rec_jax.model.policy import Policy
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.rollout.completions import complete_and_parse, completion_rates
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.train.reward_runner import RewardRunner, reward_means
from r2rec_jax.train.state import TrainState


class Validation:
    """`validation(state)` returns {"validation/NAME": value}: ranking metrics, completion rates, rewards."""

    def __init__(
        self, policy: Policy, engine: Engine, prompts: RankingPrompts, rewards: RewardRunner, seed: int
    ):
        self._policy, self._engine, self._prompts = policy, engine, prompts
        self._rewards, self._seed = rewards, seed

    def __call__(self, state: TrainState) -> dict[str, float]:
        variables = {**self._policy.frozen, **state.trainable}
        source = self._prompts
        prompts = [source[k] for k in range(len(source))]
        ended = complete_and_parse(
            self._engine, variables, prompts, source.chat, source.config, seed=self._seed
        )
        completions = [one for _, (one,) in ended]
        ranks = np.array([one.truth_rank for one in completions], np.int32)
        rewards = reward_means(self._rewards.score(completions))
        values = completion_rates(completions) | summarise(ranks) | rewards
        return {f"validation/{name}": value for name, value in values.items()}
