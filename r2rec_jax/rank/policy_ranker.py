"""How an evaluation has a policy rank: what it reads, in which batches, and how often it asks."""

import dataclasses
from collections.abc import Iterator, Set

import jax
import numpy as np

from r2rec_jax.model.llama import Llama
from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rank.config import MODES
from r2rec_jax.rank.self_consistency import self_consistent
from r2rec_jax.rollout.completions import check_numbers, complete, complete_and_parse
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.constrain import JOINER, OPENING, spelt
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.rollout.likelihood import continuation_logprobs
from r2rec_jax.rollout.parsed_completion import ParsedCompletion, completion_from_scores
from r2rec_jax.runtime.errors import UserError

FILLS = 8  # prompts of a block for each slot
WIDTH = 64  # accelerators like lengths that are a multiple of it


@dataclasses.dataclass(frozen=True)
class Thought:
    """A reasoning's tokens without its end, and whether it was cut off."""

    tokens: list[int]
    truncated: bool


class PolicyRanker:
    """Ranks users by one model in one mode. Adapters come and go; each shape compiles once.

    mode: "generate" reads the answer; "constrained" lets a policy say valid rankings only; "likelihood" lets
      it reason, then ranks all candidates by the probability that the answer names them first.
    """

    def __init__(
        self,
        model: Llama,
        chat: Chat,
        sampling: RolloutConfig,
        mesh: jax.sharding.Mesh,
        *,
        mode: str,
        runs: int,
        samples: int,
        rows: int,
    ):
        """Each run fuses the rankings of `samples` completions (`self_consistent`). `rows` completions decode
        at once; those of a prompt, of all runs, share its keys.

        Raises UserError for an unknown mode, or fewer than one run, sample or slot.
        """
        if mode not in MODES:
            raise UserError(f"mode {mode!r} of a system is unknown: use one of {', '.join(MODES)}")
        if min(runs, samples, rows) < 1:
            raise UserError(
                f"evaluate.runs={runs}, samples={samples} of a system, evaluate.batch_size={rows}: "
                "use 1 or more"
            )
        self.model, self.chat, self.mesh, self.mode = model, chat, mesh, mode
        self.runs, self.samples, self.rows = runs, samples, rows
        self.max_tokens, self.slots = sampling.max_tokens, max(1, self.rows // (runs * samples))
        sampling = dataclasses.replace(sampling, constrained=mode == "constrained")
        # Who scores candidates needs the reasoning alone.
        end = chat.end_think if mode == "likelihood" else chat.end
        self.engine = Engine(model, end, sampling, mesh, chat.text, slots=self.slots)

    def __call__(
        self, variables: dict, prompts: list[Prompt], config: PromptConfig, *, seed: int, wanted: Set[int]
    ) -> Iterator[tuple[int, int, ParsedCompletion]]:
        """(k, run, what was read) of at least the prompts k in `wanted`; `config` is the `prompt` section.

        Prompts are ranked in blocks that depend on `prompts` alone, and a block whole or not at all. So
        whoever ranks the rest later has the same prompts decoded together as who ranks all at once, and
        gets the same numbers even where their last bits depend on it.

        Raises UserError where the model gives no numbers.
        """
        for block in blocks(prompts, config.buckets, FILLS * self.slots):
            if wanted.isdisjoint(block):
                continue
            asked = [prompts[k] for k in block]
            rank = self._by_likelihood if self.mode == "likelihood" else self._by_answer
            for place, judged in rank(variables, asked, config, seed):
                places = len(judged[0].ranking.places) if self.mode == "likelihood" else config.places
                for run in range(self.runs):
                    said = judged[run * self.samples : (run + 1) * self.samples]
                    yield block[place], run, said[0] if len(said) == 1 else self_consistent(said, places)

    def _by_answer(self, variables, asked, config, seed) -> Iterator[tuple[int, list[ParsedCompletion]]]:
        samples = self.runs * self.samples
        return complete_and_parse(
            self.engine, variables, asked, self.chat, config, seed=seed, samples=samples
        )

    def _by_likelihood(self, variables, asked, config, seed) -> Iterator[tuple[int, list[ParsedCompletion]]]:
        thoughts = self.reason(variables, asked, config, seed)
        samples = len(thoughts) // len(asked)
        prompts = [prompt for prompt in asked for _ in range(samples)]
        score_BC = self.score(variables, prompts, [thought.tokens for thought in thoughts], config)
        for k, prompt in enumerate(asked):
            rows = range(k * samples, (k + 1) * samples)
            read = []
            for row in rows:
                reasoning, cut = self.chat.decode(thoughts[row].tokens), thoughts[row].truncated
                read.append(
                    completion_from_scores(prompt, score_BC[row], config, reasoning=reasoning, truncated=cut)
                )
            yield k, read

    def reason(self, variables: dict, asked: list[Prompt], config: PromptConfig, seed: int) -> list[Thought]:
        """The reasonings that the model writes, of a ranker by likelihood: runs x samples a prompt, those of
        a prompt together; empty ones without `config.reasoning`."""
        samples = self.runs * self.samples
        if not config.reasoning:
            return [Thought([], False)] * len(asked) * samples
        ended = complete(self.engine, variables, asked, config.buckets, samples=samples, seed=seed)
        found = []
        for k, rollout in sorted(ended, key=lambda pair: pair[0]):
            check_numbers(rollout.logprobs, asked[k])
            for row, n, cut in zip(rollout.tokens, rollout.length, rollout.truncated, strict=True):
                said = row[:n].tolist()
                if self.chat.end in said:  # an answer that never was: to the engine no end
                    said, cut = said[: said.index(self.chat.end)], False
                elif not cut:
                    said.pop()
                found.append(Thought(said, bool(cut)))
        return found

    def score(
        self, variables: dict, prompts: list[Prompt], reasonings: list[list[int]], config: PromptConfig
    ) -> np.ndarray:
        """log p that the answer names each candidate first, after each prompt and its reasoning, any of up to
        `sampling.max_tokens` tokens: float64 [B, C], in nats.

        Raises UserError where the model gives no numbers.
        """
        chat = self.chat
        opening = [*([chat.end_think] if config.reasoning else []), *chat.encode(OPENING)]
        close = [chat.end] if config.places == 1 else chat.encode(JOINER)
        # What ends a name counts too: else 1 would be as likely as it and all numbers that begin with it.
        named = [[[*name, *close] for name in spelt(chat, one.titles, config.answer)] for one in prompts]
        longer = len(opening) + (self.max_tokens if config.reasoning else 0)
        widest = {-(-(width + longer) // WIDTH) * WIDTH for width in config.buckets}
        pairs = zip(prompts, reasonings, strict=True)
        score_BC = continuation_logprobs(
            self.model,
            variables,
            [np.array([*prompt.tokens, *said, *opening], np.int32) for prompt, said in pairs],
            [[np.array(tokens, np.int32) for tokens in names] for names in named],
            buckets=tuple(sorted({*config.buckets, *widest})),
            batch_size=self.rows,
            mesh=self.mesh,
        )
        for prompt, score_C in zip(prompts, score_BC, strict=True):
            check_numbers(score_C, prompt)
        return score_BC


def blocks(prompts: list[Prompt], buckets: tuple[int, ...], size: int) -> list[list[int]]:
    """The prompts' numbers, up to `size` of one bucket together: a block never waits for two queues."""
    bucket_of = np.searchsorted(sorted(buckets), [len(prompt.tokens) for prompt in prompts])
    found = []
    for bucket in np.unique(bucket_of):
        of_bucket = np.flatnonzero(bucket_of == bucket).tolist()
        found += [of_bucket[start : start + size] for start in range(0, len(of_bucket), size)]
    return found
