"""Scores candidates for edited prompts, and for the original prompt with replaced reasoning."""

import dataclasses
from collections.abc import Iterator, Set

import numpy as np

from r2rec_jax.faithful.edits import Edited
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rank.policy_ranker import PolicyRanker, blocks

OWN = "own"  # the original prompt, with the reasoning that the model wrote for it
# The original prompt with no reasoning (an empty think block), with the first half of its lines, or with the
# reasoning for the next user of the block.
REASONINGS = ("none", "half", "another user's")


@dataclasses.dataclass(frozen=True)
class Trial:
    """The result of one user in one run.

    score_C: OWN, edit or one of REASONINGS -> log p that the answer names each candidate first, float64 [C].
    For an edited prompt, the model writes new reasoning.
    """

    reasoning: str
    truncated: bool
    score_C: dict[str, np.ndarray]


class Trials:
    """Runs trials with a ranker in mode "likelihood"; all prompts of a user share the sampling seed."""

    def __init__(self, ranker: PolicyRanker, section: PromptConfig):
        """`section` is the `prompt` section that made the prompts."""
        if ranker.mode != "likelihood" or ranker.samples != 1:
            raise ValueError("trials need a ranker in mode likelihood with one sample per run")
        self.ranker, self.section = ranker, section

    def __call__(
        self, variables: dict, edited: list[Edited], *, seed: int, wanted: Set[int]
    ) -> Iterator[tuple[int, int, Trial]]:
        """Yields (k, run, trial) for at least the users k in `wanted`, in whole blocks as in PolicyRanker.

        Raises UserError if the model's outputs are not finite.
        """
        prompts, buckets = [each.prompt for each in edited], self.section.buckets
        # Half the slots suffice, because a user has a dozen prompts. A block needs two users to
        # swap reasonings.
        for block in blocks(prompts, buckets, max(2, self.ranker.slots // 2)):
            if not wanted.isdisjoint(block):
                for place, run, trial in self._block(variables, [edited[k] for k in block], seed):
                    yield block[place], run, trial

    def _block(self, variables: dict, users: list[Edited], seed: int) -> Iterator[tuple[int, int, Trial]]:
        runs, section, chat = self.ranker.runs, self.section, self.ranker.chat
        prompts = [(k, OWN, user.prompt) for k, user in enumerate(users)]
        prompts += [
            (k, name, prompt) for k, user in enumerate(users) for name, prompt in user.prompts.items()
        ]
        reasonings = self.ranker.reason(variables, [prompt for *_, prompt in prompts], section, seed)
        rows = [(k, run, name, prompt) for k, name, prompt in prompts for run in range(runs)]
        tokens = [reasoning.tokens for reasoning in reasonings]
        own = {(k, run): reasonings[k * runs + run] for k in range(len(users)) for run in range(runs)}
        if section.reasoning:
            for k, run in own:
                others = self._others(own, k, run, len(users), chat)
                rows += [(k, run, name, users[k].prompt) for name in others]
                tokens += others.values()
        score_BC = self.ranker.score(variables, [prompt for *_, prompt in rows], tokens, section)
        scores: dict[tuple[int, int], dict[str, np.ndarray]] = {key: {} for key in own}
        for (k, run, name, _), score_C in zip(rows, score_BC, strict=True):
            scores[k, run][name] = score_C
        for (k, run), score_C in scores.items():
            reasoning = own[k, run]
            yield k, run, Trial(chat.decode(reasoning.tokens), reasoning.truncated, score_C)

    def _others(self, own: dict, k: int, run: int, count: int, chat: Chat) -> dict[str, list[int]]:
        tokens = own[k, run].tokens
        others = {"none": [], "half": half(chat, tokens)}
        if count > 1:
            others["another user's"] = own[(k + 1) % count, run].tokens
        return others


def half(chat: Chat, tokens: list[int]) -> list[int]:
    """The tokens of the first half of a reasoning's lines, rounded down, ignoring trailing line breaks."""
    lines = chat.text(tokens).rstrip().count("\n") + 1
    kept = lines // 2
    ends = (n for n in range(len(tokens) + 1) if chat.text(tokens[:n]).count("\n") >= kept)
    return tokens[: next(ends)]
