"""The host's record of a rollout: which prompt occupies which slot, and the tokens sampled so far."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np


@dataclasses.dataclass
class Rollout:
    """Sampled completions, N = B * G; completion g of prompt b is row b * G + g.

    tokens: int32 [N, R], zero after the end. length: int32 [N], the end token included.
    truncated: bool [N], R tokens without an end token. forced: bool [N, R], the only token allowed there.
    logprobs: float32 [N, R] under softmax(logits / temperature) before any truncation, zero after the end.
    """

    tokens: np.ndarray
    length: np.ndarray
    truncated: np.ndarray
    forced: np.ndarray
    logprobs: np.ndarray

    @classmethod
    def empty(cls, N: int, R: int) -> "Rollout":
        tokens, logprobs = np.zeros((N, R), np.int32), np.zeros((N, R), np.float32)
        return cls(tokens, np.zeros(N, np.int32), np.zeros(N, bool), np.zeros((N, R), bool), logprobs)

    @classmethod
    def of_groups(cls, groups: Iterable[tuple[int, "Rollout"]]) -> "Rollout":
        """The rows of all prompts, in the prompts' order, from (prompt, its rows) in any order."""
        found = [group for _, group in sorted(groups, key=lambda pair: pair[0])]
        arrays = ([getattr(group, field.name) for group in found] for field in dataclasses.fields(cls))
        return cls(*map(np.concatenate, arrays))

    def __getitem__(self, rows: slice) -> "Rollout":
        return Rollout(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def __setitem__(self, rows: slice, other: "Rollout") -> None:
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)


class Slots:
    """S slots of G rows, filled from a queue of B prompts in order."""

    def __init__(self, slots: int, samples: int, prompts: int, max_tokens: int, end_token: int):
        self.samples, self.max_tokens, self.end_token = samples, max_tokens, end_token
        self._prompt_of: list[int | None] = [None] * slots
        self._sampled = Rollout.empty(slots * samples, max_tokens)
        self._alive, self._advanced = np.zeros((2, slots * samples), bool)  # advanced: in the last chunk
        self._next, self._prompts = 0, prompts
        self._drawn = self._offered = 0

    @property
    def free(self) -> int:
        """Slots without a prompt."""
        return self._prompt_of.count(None)

    @property
    def busy(self) -> bool:
        return self.free < len(self._prompt_of)

    @property
    def waiting(self) -> int:
        """Prompts in the queue."""
        return self._prompts - self._next

    @property
    def utilisation(self) -> float:
        """Sampled tokens over the token steps that all rows were decoded for."""
        return self._drawn / self._offered if self._offered else 1.0

    def fill(self, most: int) -> list[tuple[int, int]]:
        """Gives up to `most` free slots the next prompts; (slot, prompt) of each."""
        free = [slot for slot, prompt in enumerate(self._prompt_of) if prompt is None]
        pairs = list(zip(free[:most], range(self._next, self._prompts), strict=False))
        self._next += len(pairs)
        for slot, prompt in pairs:
            rows = self._rows(slot)
            self._prompt_of[slot], self._alive[rows] = prompt, True
            self._sampled[rows] = Rollout.empty(self.samples, self.max_tokens)
        return pairs

    def record(self, tokens_CN, logprobs_CN, forced_CN, length_N) -> None:
        """Adds a chunk of C tokens a row, of which the first ones are the row's own; `length_N` is each row's
        length after it."""
        sampled, new_N = self._sampled, np.where(self._alive, length_N - self._sampled.length, 0)
        self._drawn, self._offered = self._drawn + int(new_N.sum()), self._offered + tokens_CN.size
        self._advanced = new_N > 0
        for row in np.flatnonzero(new_N):
            drawn, place = slice(0, new_N[row]), slice(sampled.length[row], length_N[row])
            sampled.tokens[row, place] = tokens_CN[drawn, row]
            sampled.logprobs[row, place] = logprobs_CN[drawn, row]
            sampled.forced[row, place] = forced_CN[drawn, row]
            sampled.length[row] = length_N[row]
            ended = sampled.tokens[row, length_N[row] - 1] == self.end_token
            sampled.truncated[row] = length_N[row] == self.max_tokens and not ended
            self._alive[row] = length_N[row] < self.max_tokens and not ended

    def stop(self, texts: tuple[str, ...], decode: Callable[[list[int]], str]) -> np.ndarray:
        """Ends rows at the first token that completes one of `texts`; bool [N], those that it ended."""
        stopped_N = np.zeros(len(self._alive), bool)
        for row in np.flatnonzero(self._advanced):
            sampled = self._sampled[row : row + 1]
            tokens, end = sampled.tokens[0].tolist(), int(sampled.length[0])
            if not any(text in decode(tokens[:end]) for text in texts):
                continue
            while end > 1 and any(text in decode(tokens[: end - 1]) for text in texts):
                end -= 1
            sampled.length[:], sampled.truncated[:] = end, False
            for field in (sampled.tokens, sampled.logprobs, sampled.forced):
                field[:, end:] = 0
            stopped_N[row], self._alive[row] = True, False
        return stopped_N

    def harvest(self) -> list[tuple[int, Rollout]]:
        """Frees the slots whose last row has ended; returns (prompt, its rows) of each."""
        ended = []
        for slot, prompt in enumerate(self._prompt_of):
            rows = self._rows(slot)
            if prompt is None or self._alive[rows].any():
                continue
            group = Rollout.empty(self.samples, self.max_tokens)
            group[:] = self._sampled[rows]
            ended.append((prompt, group))
            self._prompt_of[slot] = None
        return ended

    def _rows(self, slot: int) -> slice:
        return slice(slot * self.samples, (slot + 1) * self.samples)
