"""Ranking by a model behind a server: every reply is kept on disk, so that nothing is paid for twice."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Set
from pathlib import Path

from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rollout.parsed_completion import ParsedCompletion, parse_reply
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers.journal import Journal
from r2rec_jax.teachers.server import Server

# What a reply on disk has; `key` is a hash of the model, of how it was asked and of the prompt.
FIELDS = {"key": str, "run": int, "model": str, "fault": str | None, "text": str}
FIELDS |= {"prompt_tokens": int, "completion_tokens": int, "cost": float | int}
NO_REPLY = "bad_reply"  # nothing that the model said: to be asked again
ROUNDS = 4  # requests a place in the queue, between two looks at what came back


@dataclasses.dataclass(frozen=True)
class _Ask:
    k: int
    run: int
    text: str


class ServerRanker:
    """Ranks users by what a server says to the text of their prompts.

    A reply that is refused, empty or cut off stands, and is read as it is: nobody is asked again because of
    an answer.
    """

    def __init__(self, server: Server, folder: str | Path, runs: int):
        """Replies are kept in `folder`, for every evaluation that asks the same."""
        self.server, self.runs = server, runs
        self.journal = Journal(folder, FIELDS)
        self.rows = {(row["key"], row["run"]): row for row in self.journal.rows if self._stands(row)}

    def __call__(
        self, prompts: list[Prompt], config: PromptConfig, wanted: Set[int]
    ) -> Iterator[tuple[int, int, ParsedCompletion]]:
        """(k, run, what was read) of the prompts k in `wanted`; `config` is the `prompt` section.

        Raises UserError as Server does, and where requests were lost.
        """
        keys = {k: self._key(prompts[k].text) for k in sorted(wanted)}
        needed = [_Ask(k, run, prompts[k].text) for k in keys for run in range(self.runs)]
        places = {(keys[ask.k], ask.run) for ask in needed}
        paid = [row for row in self.journal.rows if (row["key"], row["run"]) in places]
        self.server.spent += sum(row["cost"] for row in paid)
        lost, step = [], ROUNDS * self.server.c.concurrency
        for start in range(0, len(needed), step):
            some = needed[start : start + step]
            found = {ask: self.rows.get((keys[ask.k], ask.run)) for ask in some}

            def receive(ask, reply, found=found):
                if reply is None:
                    lost.append("no answer")
                    return
                row = {"key": keys[ask.k], "run": ask.run, "model": self.server.c.model}
                row |= dataclasses.asdict(reply)
                # What cost nothing may be asked again; what cost something is kept, whatever it is.
                if reply.text or reply.prompt_tokens or reply.fault not in ("refused", NO_REPLY):
                    self.journal.append(row)
                if not self._stands(row):
                    lost.append("wrong_model" if reply.other_model else reply.fault)
                    return
                found[ask] = self.rows[keys[ask.k], ask.run] = row

            missing = [ask for ask in some if found[ask] is None]
            if missing:
                self.server(missing, receive)
            for ask, row in found.items():
                if row is not None:
                    cut = row["fault"] == "truncated"
                    yield ask.k, ask.run, parse_reply(prompts[ask.k], row["text"], cut, config)
        if lost:
            raise UserError(
                f"{len(lost)} of {len(needed)} requests to {self.server.c.base_url} brought nothing "
                f"({', '.join(sorted(set(lost)))}): run the same command again to ask only these"
            )

    def _stands(self, row: dict) -> bool:
        """Whether it is an answer of the model that is evaluated."""
        return row["fault"] != NO_REPLY and self.server.is_model(row.get("other_model", ""))

    def _key(self, text: str) -> str:
        asked = [self.server.c.base_url, self.server.c.model, self.server.settings, text]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
