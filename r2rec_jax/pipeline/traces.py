"""Teacher traces (JSON lines of launch.annotate) as tokenized SFT examples."""

from pathlib import Path

import numpy as np

from r2rec_jax.pipeline.prompt_source import closed_answer, open_turn
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.untrusted import parse_json

FIELDS = ("prompt", "reasoning", "answer")


class Traces:
    """Example k is line k of a trace file: {'prompt', 'response', 'mask'}. All response tokens have loss.

    The prompt of a trace without reasoning has a closed think block (see `open_turn`).
    """

    def __init__(self, path: str | Path, chat: Chat):
        """Raises UserError if the file is missing or empty, or for the first line that is not a trace."""
        path = Path(path)
        if not path.exists():
            raise UserError(
                f"no traces at {path}: run `python -m launch.annotate` with this config's data first"
            )
        self.examples = []
        # bytes.splitlines splits at line breaks only. str.splitlines also splits at separators that JSON
        # strings may contain.
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            trace = _parse(line)
            if trace is None:
                raise UserError(f"{path}:{number} is not a trace with {', '.join(FIELDS)}; annotate again")
            try:
                self.examples.append(_example(trace, chat))
            except ValueError as fault:
                raise UserError(f"{path}:{number}: {fault}; annotate again") from None
        if not self.examples:
            raise UserError(f"{path} contains no trace; annotate again with --overwrite")

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.examples[k]


def _example(trace: dict[str, str], chat: Chat) -> dict[str, np.ndarray]:
    reasoned = bool(trace["reasoning"])
    answer = trace["answer"]
    response = chat.completion(trace["reasoning"], answer) if reasoned else closed_answer(chat, answer)
    return {
        "prompt": np.array(open_turn(chat, trace["prompt"], reasoned), np.int32),
        "response": np.array(response, np.int32),
        "mask": np.ones(len(response), np.float32),
    }


def _parse(line: bytes) -> dict[str, str] | None:
    try:
        trace = parse_json(line)
        texts = {name: trace[name] for name in FIELDS}
    except (ValueError, KeyError, TypeError):
        return None
    return texts if all(isinstance(text, str) for text in texts.values()) else None
