"""Examples per second of the input pipeline, compared with the highest rate that the 8B needs on one H200.

The peer is the roofline of `launch.plan` for configs/sft.py and configs/grpo.py, with the same batch shapes
and completions as long as the traces. A real step is slower and needs fewer examples. MovieLens-1M and the
Llama-3 tokenizer are read from $R2REC_SHARED/data (default ../shared/data). If they are missing, the
quickstart's generated data and tokenizer are used.
"""

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs import grpo as grpo_config
from configs import sft as sft_config
from r2rec_jax.bench.result import Row, row
from r2rec_jax.data import prepared
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.model.flops import Shapes
from r2rec_jax.performance import plan, programs
from r2rec_jax.pipeline.batches import Batches, batches, collate, lengths_of
from r2rec_jax.pipeline.prompt_source import RankingPrompts, pad_prompts
from r2rec_jax.pipeline.traces import Traces
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.wording import wording_of
from r2rec_jax.runtime.devices import DEVICES
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.teachers.annotator import TRACES, annotate
from r2rec_jax.teachers.journal import Journal
from r2rec_jax.teachers.question import questions
from r2rec_jax.teachers.template import TemplateTeacher
from r2rec_jax.teachers.validator import Validator

ROOT = Path(__file__).parents[2]
DEVICE = "H200-141G"
WORKERS = (0, 1, 2)
SECONDS, REPEATS, WARMUP = 2.0, 5, 16  # seconds per measurement; measurements; batches before the first


@dataclasses.dataclass(frozen=True)
class Setting:
    """A data set called `name`, its tokenizer, and the configs of both stages for it."""

    name: str
    dataset: Dataset
    chat: Chat
    sft: ConfigDict
    grpo: ConfigDict


@dataclasses.dataclass(frozen=True)
class Feed:
    """A stage's examples, with the batching settings of launch.train."""

    source: object
    config: ConfigDict
    to_batch: Callable[[list], object]
    lengths: np.ndarray

    def read(self, workers: int) -> Batches:
        c = self.config
        order = {"batch_size": c.train.batch_size, "seed": c.seed, "shuffle": True, "lengths": self.lengths}
        return batches(self.source, to_batch=self.to_batch, workers=workers, **order)

    def epoch(self) -> list:
        """The batches of the first epoch."""
        with contextlib.closing(self.read(0)) as reader:
            return [next(reader) for _ in range(len(self.lengths) // self.config.train.batch_size)]


def run(peers: str | None, quick: bool) -> list[Row]:
    del peers  # the peer is computed from the roofline
    with tempfile.TemporaryDirectory() as folder:
        setting = make_setting(Path(folder), quick)
        traces, prompts = sft_feed(setting, Path(folder)), grpo_feed(setting)
        config = sft_config.get_config()
        supervised = [
            Shapes(len(batch.prompt), 1, batch.prompt.shape[1], batch.response.shape[1])
            for batch in traces.epoch()
        ]
        rows = measure(f"SFT batches of {setting.name}", traces, needed(config, supervised), quick)
        config, buckets = grpo_config.get_config(), setting.grpo.prompt.buckets
        length = round(np.mean([step.R for step in supervised]))
        rollouts = [
            Shapes(len(batch), config.grpo.group, pad_prompts(batch, buckets)[0].shape[1], length)
            for batch in prompts.epoch()
        ]
        name = f"ranking prompts of {setting.name}"
        return rows + measure(name, prompts, needed(config, rollouts), quick)


def make_setting(folder: Path, quick: bool) -> Setting:
    """Prepares data in `folder` and loads them as training does."""
    shared = Path(os.environ.get("R2REC_SHARED", "../shared")) / "data"
    real = not quick and (shared / "ml-1m").is_dir() and (shared / "tokenizer").is_dir()
    sft, grpo = (module.get_config(None if real else "quickstart") for module in (sft_config, grpo_config))
    if real:
        sft.data.raw = str(shared / "ml-1m")
    if quick:
        sft.data.sizes.update({"sft": 64, "grpo": 64, "validation": 0, "evaluation": 0})
        sft.data.generated_users = 200
    prepared.save(make_dataset(sft.data), folder / "data")
    chat = Chat(shared / "tokenizer" if real else ROOT / sft.model.folder)
    name = "MovieLens-1M" if real else "generated data"
    return Setting(name, prepared.load(folder / "data"), chat, sft, grpo)


def sft_feed(setting: Setting, folder: Path) -> Feed:
    """Traces of the template teacher, written to `folder`."""
    dataset, chat, config = setting.dataset, setting.chat, setting.sft
    words, c = wording_of(config.prompt.wording, dataset), config.annotate
    teacher = TemplateTeacher(dataset.catalog, words, config.prompt)
    validator = Validator(dataset.catalog, words, chat, config.prompt, c.max_tokens)
    questions_of_users = questions(
        dataset,
        chat,
        config.prompt,
        c.tasks,
        seed=config.seed,
        before_target_time=config.data.before_target_time,
    )
    annotate(
        questions_of_users,
        teacher,
        lambda question, _: question.prompt,
        validator,
        Journal(folder),
        c.attempts,
    )
    traces = Traces(folder / TRACES, chat)
    widths = tuple(config.prompt.buckets), tuple(config.train.response_buckets)
    return Feed(traces, config, lambda rows: collate(rows, *widths), lengths_of(traces.examples))


def grpo_feed(setting: Setting) -> Feed:
    dataset, config = setting.dataset, setting.grpo
    prompts = RankingPrompts(dataset, dataset.split.users["grpo"], setting.chat, config.prompt, config.seed)
    return Feed(prompts, config, list, prompts.widths())


def needed(config: ConfigDict, steps: list[Shapes]) -> float:
    """Upper bound of the prompts per second that these steps of a config consume on one `DEVICE`."""
    mesh = make_mesh(data=1)  # no communication
    policy = programs.abstract_policy(config, mesh)

    def seconds(shapes: Shapes) -> float:
        memory = plan.memory_of(config, policy, mesh, shapes)
        times = [plan.update_roofline(config, policy, mesh, shapes, memory, 0.0, DEVICES[DEVICE])]
        if config.stage == "grpo":
            times.append(plan.prefill_roofline(policy, mesh, shapes, memory, 0.0, DEVICES[DEVICE]))
            times.append(plan.decode_roofline(config, policy, mesh, shapes, memory, 0.0, DEVICES[DEVICE]))
        return sum(time.seconds for time in times)

    took = {shapes: seconds(shapes) for shapes in set(steps)}
    return sum(shapes.B for shapes in steps) / sum(took[shapes] for shapes in steps)


def measure(name: str, feed: Feed, need: float, quick: bool) -> list[Row]:
    """One row per number of workers. The warm-up consumes prefetched batches, which would raise the rate."""
    rows = []
    for workers in WORKERS:
        with contextlib.closing(feed.read(workers)) as reader:
            for _ in range(WARMUP):
                next(reader)
            rates = [_rate(reader, feed, 0.05 if quick else SECONDS) for _ in range(2 if quick else REPEATS)]
        readers = f"{workers} workers" if workers > 1 else "1 worker" if workers else "threads"
        title = f"{name} by {readers}, and what the 8B needs on one {DEVICE}"
        rows.append(row(title, rates, [need], "examples/s", target=1))
    return rows


def _rate(reader: Batches, feed: Feed, at_least: float) -> float:
    start, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < at_least or not count:
        next(reader)
        count += feed.config.train.batch_size
    return count / taken
