"""Ranks with a model behind a server; every reply is stored on disk, so no request is paid for twice."""

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

# Fields of a stored reply; `key` is a hash of the server, the model, the sampling settings and the prompt.
FIELDS = {"key": str, "run": int, "model": str, "fault": str | None, "text": str}
FIELDS |= {"prompt_tokens": int, "completion_tokens": int, "cost": float | int}
NO_REPLY = "bad_reply"  # the response had no completion; the request is sent again
ROUNDS = 4  # requests per concurrent connection in one batch; results are yielded after each batch


@dataclasses.dataclass(frozen=True)
class _Request:
    k: int
    run: int
    text: str


class ServerRanker:
    """Ranks users with a server's replies to the text of their prompts.

    A reply that is refused, empty or cut off is final and is parsed as it is. A bad answer is never retried.
    """

    def __init__(self, server: Server, folder: str | Path, runs: int):
        """Replies are stored in `folder` and serve every evaluation that sends the same requests."""
        self.server, self.runs = server, runs
        self.journal = Journal(folder, FIELDS)
        self.rows = {(row["key"], row["run"]): row for row in self.journal.rows if self._is_final(row)}

    def __call__(
        self, prompts: list[Prompt], config: PromptConfig, wanted: Set[int]
    ) -> Iterator[tuple[int, int, ParsedCompletion]]:
        """Yields (k, run, completion) for the prompts k in `wanted`; `config` is the `prompt` section.

        Raises UserError as Server does, and if requests were lost.
        """
        keys = {k: self._key(prompts[k].text) for k in sorted(wanted)}
        needed = [_Request(k, run, prompts[k].text) for k in keys for run in range(self.runs)]
        places = {(keys[request.k], request.run) for request in needed}
        earlier = [row for row in self.journal.rows if (row["key"], row["run"]) in places]
        self.server.spent += sum(row["cost"] for row in earlier)
        lost, step = [], ROUNDS * self.server.c.concurrency
        for start in range(0, len(needed), step):
            batch = needed[start : start + step]
            rows = {request: self.rows.get((keys[request.k], request.run)) for request in batch}

            def receive(request, reply, rows=rows):
                if reply is None:
                    lost.append("no answer")
                    return
                row = {"key": keys[request.k], "run": request.run, "model": self.server.c.model}
                row |= dataclasses.asdict(reply)
                # A reply that cost something is stored, whatever it contains; a free one
                # may be requested again.
                if reply.text or reply.prompt_tokens or reply.fault not in ("refused", NO_REPLY):
                    self.journal.append(row)
                if not self._is_final(row):
                    lost.append("wrong_model" if reply.other_model else reply.fault)
                    return
                rows[request] = self.rows[keys[request.k], request.run] = row

            missing = [request for request in batch if rows[request] is None]
            if missing:
                self.server(missing, receive)
            for request, row in rows.items():
                if row is not None:
                    cut = row["fault"] == "truncated"
                    yield request.k, request.run, parse_reply(prompts[request.k], row["text"], cut, config)
        if lost:
            raise UserError(
                f"{len(lost)} of {len(needed)} requests to {self.server.c.base_url} got no reply "
                f"({', '.join(sorted(set(lost)))}): run the same command again to send only these"
            )

    def _is_final(self, row: dict) -> bool:
        """Whether the reply is a completion of the evaluated model; other replies are requested again."""
        return row["fault"] != NO_REPLY and self.server.is_model(row.get("other_model", ""))

    def _key(self, text: str) -> str:
        parts = [self.server.c.base_url, self.server.c.model, self.server.settings, text]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
