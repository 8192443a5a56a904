"""What runs write as they go, and read when they come back."""

import json
import math
from pathlib import Path
from random import Random

import numpy as np

from r2rec_jax.bench.result import row
from r2rec_jax.bench.table import drift, read_rows
from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.metrics.system_metrics import measure
from r2rec_jax.pipeline.traces import Traces
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rank.results import METRICS, USERS, UserLines, read_metrics, write_metrics
from r2rec_jax.rank.server_ranker import FIELDS as CACHED
from r2rec_jax.runtime import metric_writer
from r2rec_jax.teachers.journal import FIELDS, FILE, Journal
from tests.fuzz.case import Target
from tests.fuzz.mutate import mutate, mutate_json, mutate_lines
from tests.fuzz.text import MODEL


class Lines(Target):
    """JSON lines in `folder`/NAME, made from valid `rows`."""

    name: str
    rows: tuple[dict, ...]

    def make(self, rng: Random) -> bytes:
        return mutate_lines(rng, self.rows)

    def write(self, data: bytes) -> Path:
        path = self.folder / self.name
        path.write_bytes(data)
        return path


class Replies(Lines):
    """A teacher's replies."""

    name, fields = FILE, FIELDS
    rows = (
        {"user": 3, "task": "rating", "refused": None, "text": "One.\nRating: 4"},
        {"user": 3, "task": "ranking", "refused": "empty", "text": ""},
    )
    rows = tuple(one | {"prompt_tokens": 5, "completion_tokens": 2, "cost": 0.5} for one in rows)

    def read(self, data: bytes) -> None:
        path = self.write(data)
        journal = Journal(self.folder, self.fields)
        assert 0 <= journal.cost < math.inf
        for one in journal.rows:
            assert all(isinstance(one[name], kind) for name, kind in self.fields.items())
        # What is added to it can be read again.
        journal.append(self.rows[0])
        assert len(Journal(self.folder, self.fields).rows) == len(journal.rows)
        path.unlink()


class Cache(Replies):
    """The replies of a model behind a server, kept for every evaluation."""

    fields = CACHED
    rows = (
        {"key": "ab", "run": 0, "model": "m", "fault": None, "text": "Order: 1"},
        {"key": "cd", "run": 1, "model": "m", "fault": "truncated", "text": "Or"},
    )
    rows = tuple(one | {"prompt_tokens": 5, "completion_tokens": 2, "cost": 0} for one in rows)


class TraceFile(Lines):
    name = "traces.jsonl"
    rows = (
        {"user": 3, "task": "ranking", "prompt": "Rank.", "reasoning": "One.\nTwo.", "answer": "Order: 1"},
        {"user": 4, "task": "ranking", "prompt": "Rank.", "reasoning": "", "answer": "Order: 2"},
    )

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._chat = Chat(MODEL)

    def read(self, data: bytes) -> None:
        traces = Traces(self.write(data), self._chat)
        assert len(traces) > 0
        for k in range(len(traces)):
            one = traces[k]
            assert len(one["response"]) == len(one["mask"]) > 0 and len(one["prompt"]) > 0


class Users(Lines):
    """What systems did for users."""

    name = USERS

    def __init__(self, folder: Path):
        super().__init__(folder)
        log, catalog = generate(seed=3, users=30, items=64, ratings_per_user=15)
        self._dataset = Dataset("small", log, catalog, split(log, seed=1, sizes={"evaluation": 3}))
        self._users = self._dataset.split.users["evaluation"]
        lines = UserLines(folder, self._dataset)
        for k, user in enumerate(self._users):
            lines.append("r2rec", 0, int(user), k, reasoning="One.", ranking=["A", None], statements=1)
        self.rows = [json.loads(line) for line in (folder / USERS).read_text().splitlines()]

    def read(self, data: bytes) -> None:
        self.write(data)
        lines = UserLines(self.folder, self._dataset)
        ranks = lines.ranks("r2rec", self._users)
        assert ranks.dtype == np.int32 and ranks.shape[1] == len(self._users) and (ranks >= 0).all()
        lines.sort(["r2rec"], self._users)


class Metrics(Lines):
    """The curves of a run."""

    name = metric_writer.FILE
    rows = tuple({"step": k, "train/loss": 1.5 / (k + 1), "train/reward": None} for k in range(4))

    def read(self, data: bytes) -> None:
        self.write(data)
        for one in metric_writer.read(self.folder):
            assert type(one["step"]) is int and all(isinstance(x, int | float) for x in one.values())
        writer = metric_writer.MetricWriter(self.folder)
        writer.truncate_after(1)
        writer.write(2, {"train/loss": 0.5})
        assert [one for one in metric_writer.read(self.folder) if one["step"] == 2] == [
            {"step": 2, "train/loss": 0.5}
        ]


class Results(Target):
    """metrics.json of an evaluation."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        log, catalog = generate(seed=3, users=30, items=64, ratings_per_user=15)
        dataset = Dataset("small", log, catalog, split(log, seed=1, sizes={"evaluation": 4}))
        users = dataset.split.users["evaluation"]
        system = measure(dataset, users, np.array([[1, 0, 2, 3]]), 0) | {"wall_s": 1.5}
        write_metrics(folder, dataset, len(users), 0, {"r2rec": system, "ease": system}, {})
        self._seed = json.loads((folder / METRICS).read_text())

    def make(self, rng: Random) -> bytes:
        return (
            mutate_json(rng, self._seed) if rng.randrange(4) else mutate(rng, json.dumps(self._seed).encode())
        )

    def read(self, data: bytes) -> None:
        (self.folder / METRICS).write_bytes(data)
        found = read_metrics(self.folder)
        assert type(found["seed"]) is int
        assert all(isinstance(system, dict) for system in found["systems"].values())


class Bench(Target):
    """An earlier result of a suite, to be compared with."""

    rows = (row("SFT step", [1.0, 1.1], [2.0, 2.2], "s", target=1.5), row("load", [3.0], None, "MB"))

    def make(self, rng: Random) -> bytes:
        seed = [vars(one) for one in self.rows]
        return mutate_json(rng, seed) if rng.randrange(4) else mutate(rng, json.dumps(seed).encode())

    def read(self, data: bytes) -> None:
        path = self.folder / "sft.json"
        path.write_bytes(data)
        assert drift(self.rows, read_rows(path)).startswith(" ")
