"""Ranks candidates with a policy: by its answer, by a constrained answer, or by likelihood."""

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

FILLS = 8  # prompts per slot in a block
WIDTH = 64  # padded lengths are multiples of this, for efficient matrix products


@dataclasses.dataclass(frozen=True)
class Reasoning:
    """The tokens of one reasoning without its end token, and whether it was cut off."""

    tokens: list[int]
    truncated: bool


class PolicyRanker:
    """Ranks users by one model in one mode. Calls may use different adapters; each shape compiles once.

    mode: "generate" parses the answer. "constrained" restricts decoding to valid rankings. "likelihood"
      decodes the reasoning, then ranks all candidates by the probability that the answer names them first.
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
        at once. The completions of one prompt, over all runs, share the prompt's KV cache.

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
        # Scoring by likelihood decodes the reasoning only.
        end = chat.end_think if mode == "likelihood" else chat.end
        self.engine = Engine(model, end, sampling, mesh, chat.text, slots=self.slots)

    def __call__(
        self, variables: dict, prompts: list[Prompt], config: PromptConfig, *, seed: int, wanted: Set[int]
    ) -> Iterator[tuple[int, int, ParsedCompletion]]:
        """Yields (k, run, completion) for at least the prompts k in `wanted`; `config`: the `prompt` section.

        Blocks depend on `prompts` alone, and a block is ranked as a whole. A resumed evaluation therefore
        decodes the same prompts together as an uninterrupted one, and gets bit-identical numbers.

        Raises UserError if the model's outputs are not finite.
        """
        for block in blocks(prompts, config.buckets, FILLS * self.slots):
            if wanted.isdisjoint(block):
                continue
            in_block = [prompts[k] for k in block]
            rank = self._by_likelihood if self.mode == "likelihood" else self._by_answer
            for place, completions in rank(variables, in_block, config, seed):
                places = len(completions[0].ranking.places) if self.mode == "likelihood" else config.places
                for run in range(self.runs):
                    samples = completions[run * self.samples : (run + 1) * self.samples]
                    fused = samples[0] if len(samples) == 1 else self_consistent(samples, places)
                    yield block[place], run, fused

    def _by_answer(self, variables, prompts, config, seed) -> Iterator[tuple[int, list[ParsedCompletion]]]:
        samples = self.runs * self.samples
        return complete_and_parse(
            self.engine, variables, prompts, self.chat, config, seed=seed, samples=samples
        )

    def _by_likelihood(
        self, variables, prompts, config, seed
    ) -> Iterator[tuple[int, list[ParsedCompletion]]]:
        reasonings = self.reason(variables, prompts, config, seed)
        samples = len(reasonings) // len(prompts)
        repeated = [prompt for prompt in prompts for _ in range(samples)]
        score_BC = self.score(variables, repeated, [reasoning.tokens for reasoning in reasonings], config)
        for k, prompt in enumerate(prompts):
            rows = range(k * samples, (k + 1) * samples)
            completions = []
            for row in rows:
                text, cut = self.chat.decode(reasonings[row].tokens), reasonings[row].truncated
                completions.append(
                    completion_from_scores(prompt, score_BC[row], config, reasoning=text, truncated=cut)
                )
            yield k, completions

    def reason(
        self, variables: dict, prompts: list[Prompt], config: PromptConfig, seed: int
    ) -> list[Reasoning]:
        """Decodes runs x samples reasonings per prompt, in the order of the prompts; for mode "likelihood".

        Without `config.reasoning` they are empty.
        """
        samples = self.runs * self.samples
        if not config.reasoning:
            return [Reasoning([], False)] * len(prompts) * samples
        rollouts = complete(self.engine, variables, prompts, config.buckets, samples=samples, seed=seed)
        reasonings = []
        for k, rollout in sorted(rollouts, key=lambda pair: pair[0]):
            check_numbers(rollout.logprobs, prompts[k])
            for row, n, cut in zip(rollout.tokens, rollout.length, rollout.truncated, strict=True):
                tokens = row[:n].tolist()
                if self.chat.end in tokens:  # the model ended its turn inside the reasoning
                    tokens, cut = tokens[: tokens.index(self.chat.end)], False
                elif not cut:
                    tokens.pop()
                reasonings.append(Reasoning(tokens, bool(cut)))
        return reasonings

    def score(
        self, variables: dict, prompts: list[Prompt], reasonings: list[list[int]], config: PromptConfig
    ) -> np.ndarray:
        """Log-probabilities that the answer names each candidate first, given prompt and reasoning.

        Args:
          reasonings: tokens of one reasoning per prompt, each at most `sampling.max_tokens` long.

        Returns:
          float64 [B, C], in nats.

        Raises:
          UserError: the model's outputs are not finite.
        """
        chat = self.chat
        opening = [*([chat.end_think] if config.reasoning else []), *chat.encode(OPENING)]
        close = [chat.end] if config.places == 1 else chat.encode(JOINER)
        # The token after a name counts too; otherwise "1" would include "10" to "19".
        answers = [
            [[*name, *close] for name in spelt(chat, prompt.titles, config.answer)] for prompt in prompts
        ]
        longer = len(opening) + (self.max_tokens if config.reasoning else 0)
        widest = {-(-(width + longer) // WIDTH) * WIDTH for width in config.buckets}
        pairs = zip(prompts, reasonings, strict=True)
        score_BC = continuation_logprobs(
            self.model,
            variables,
            [np.array([*prompt.tokens, *tokens, *opening], np.int32) for prompt, tokens in pairs],
            [[np.array(tokens, np.int32) for tokens in names] for names in answers],
            buckets=tuple(sorted({*config.buckets, *widest})),
            batch_size=self.rows,
            mesh=self.mesh,
        )
        for prompt, score_C in zip(prompts, score_BC, strict=True):
            check_numbers(score_C, prompt)
        return score_BC


def blocks(prompts: list[Prompt], buckets: tuple[int, ...], size: int) -> list[list[int]]:
    """Indices of the prompts in blocks of up to `size`; all prompts of a block are in one length bucket."""
    bucket_of = np.searchsorted(sorted(buckets), [len(prompt.tokens) for prompt in prompts])
    result = []
    for bucket in np.unique(bucket_of):
        of_bucket = np.flatnonzero(bucket_of == bucket).tolist()
        result += [of_bucket[start : start + size] for start in range(0, len(of_bucket), size)]
    return result
