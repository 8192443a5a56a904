"""samples.jsonl of a GRPO run: the best and the worst completion of each step's first group."""

from collections.abc import Sequence
from pathlib import Path

from r2rec_jax.runtime.metric_writer import StepLog
from r2rec_jax.train.reward_runner import RewardedCompletion

SAMPLES = "samples.jsonl"


class SampleLog(StepLog):
    """Two lines a step, which show what the policy learns."""

    def __init__(self, workdir: Path, user_ids: Sequence[str]):
        """`user_ids`: the raw files' id of each user."""
        super().__init__(workdir / SAMPLES)
        self._user_ids = user_ids

    def record(self, step: int, group: list[RewardedCompletion]) -> None:
        """Adds the completions of the highest and of the lowest reward; one without a reward is left out."""
        ordered = sorted((one for one in group if not one.fault), key=lambda one: -one.reward)
        for one in ordered[:1] + ordered[-1:]:
            completion = one.completion
            user = completion.prompt.record.user
            line = {
                "user": user,
                "user_id": self._user_ids[user],
                "reward": round(one.reward, 4),
                "parts": {name: round(value, 4) for name, value in one.parts.items()},
                "truth_rank": completion.truth_rank,
                "reasoning": completion.reasoning,
                "answer": completion.answer,
            }
            self.append(step, line)
