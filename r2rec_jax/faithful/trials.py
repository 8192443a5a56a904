"""What a policy makes of edited prompts, and of its own prompt after reasoning that is not its own."""

import dataclasses
from collections.abc import Iterator, Set

import numpy as np

from r2rec_jax.faithful.edits import Edited
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rank.policy_ranker import PolicyRanker, blocks

OWN = "own"  # the prompt as it is, after the reasoning that the model wrote for it
# The prompt as it is, after: no reasoning, the block for it closed at once; the first half of its lines;
# the reasoning for the next user of the block.
REASONINGS = ("none", "half", "another user's")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One user in one run. score_C: by OWN, edit and REASONINGS, log p that the answer names each candidate
    first, float64 [C]; an edited prompt's is after the reasoning that the model wrote for it."""

    reasoning: str
    truncated: bool
    score_C: dict[str, np.ndarray]


class Trials:
    """Runs them for a ranker by likelihood; draws of all prompts of a user are the same."""

    def __init__(self, ranker: PolicyRanker, section: PromptConfig):
        """`section` is the `prompt` section that made the prompts."""
        if ranker.mode != "likelihood" or ranker.samples != 1:
            raise ValueError("trials are of a ranker by likelihood with one sample a run")
        self.ranker, self.section = ranker, section

    def __call__(
        self, variables: dict, edited: list[Edited], *, seed: int, wanted: Set[int]
    ) -> Iterator[tuple[int, int, Trial]]:
        """(k, run, trial) of at least the users k in `wanted`, in blocks that depend on `edited` alone, one
        whole or not at all, as in PolicyRanker.

        Raises UserError where the model gives no numbers.
        """
        prompts, buckets = [one.prompt for one in edited], self.section.buckets
        # A user's dozen prompts keep the slots busy. Alone in a block, nobody would have another's reasoning.
        for block in blocks(prompts, buckets, max(2, self.ranker.slots // 2)):
            if not wanted.isdisjoint(block):
                for place, run, trial in self._block(variables, [edited[k] for k in block], seed):
                    yield block[place], run, trial

    def _block(self, variables: dict, users: list[Edited], seed: int) -> Iterator[tuple[int, int, Trial]]:
        runs, section, chat = self.ranker.runs, self.section, self.ranker.chat
        asked = [(k, OWN, one.prompt) for k, one in enumerate(users)]
        asked += [(k, name, prompt) for k, one in enumerate(users) for name, prompt in one.prompts.items()]
        thoughts = self.ranker.reason(variables, [prompt for *_, prompt in asked], section, seed)
        rows = [(k, run, name, prompt) for k, name, prompt in asked for run in range(runs)]
        said = [thought.tokens for thought in thoughts]
        own = {(k, run): thoughts[k * runs + run] for k in range(len(users)) for run in range(runs)}
        if section.reasoning:
            for k, run in own:
                others = self._others(own, k, run, len(users), chat)
                rows += [(k, run, name, users[k].prompt) for name in others]
                said += others.values()
        score_BC = self.ranker.score(variables, [prompt for *_, prompt in rows], said, section)
        found: dict[tuple[int, int], dict[str, np.ndarray]] = {key: {} for key in own}
        for (k, run, name, _), score_C in zip(rows, score_BC, strict=True):
            found[k, run][name] = score_C
        for (k, run), score_C in found.items():
            thought = own[k, run]
            yield k, run, Trial(chat.decode(thought.tokens), thought.truncated, score_C)

    def _others(self, own: dict, k: int, run: int, count: int, chat: Chat) -> dict[str, list[int]]:
        tokens = own[k, run].tokens
        others = {"none": [], "half": half(chat, tokens)}
        if count > 1:
            others["another user's"] = own[(k + 1) % count, run].tokens
        return others


def half(chat: Chat, tokens: list[int]) -> list[int]:
    """The first half of a reasoning's lines, the larger half left out; line breaks at its end stay out."""
    lines = chat.text(tokens).rstrip().count("\n") + 1
    kept = lines // 2
    ends = (n for n in range(len(tokens) + 1) if chat.text(tokens[:n]).count("\n") >= kept)
    return tokens[: next(ends)]
