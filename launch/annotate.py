"""Teacher traces for the SFT users.

python -m launch.annotate --config=configs/data.py:ml-1m --workdir=runs/ml1m/annotate
"""

import json
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from tqdm import tqdm

from launch import command
from launch.inputs import require
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data import prepared
from r2rec_jax.prompts.ranking import make_record, ranking_prompt
from r2rec_jax.prompts.rating import rating_prompt
from r2rec_jax.prompts.teacher import ranking_trace, rating_trace
from r2rec_jax.prompts.wording import wording
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.workdir import claim

TASKS = ("rating", "ranking")


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    tasks, c = config.annotate.tasks, config.prompt
    if not tasks or not set(tasks) <= set(TASKS):
        raise UserError(f"annotate.tasks {tasks!r}: name some of {', '.join(TASKS)}")
    require(config, "data")
    dataset = prepared.load(config.data.folder)
    claim(workdir, config, overwrite)
    words, catalog, graph = wording(c.wording), dataset.catalog, build_graph(dataset)
    lines = []
    for user in tqdm(dataset.split.users["sft"], desc="annotate", unit="user", mininterval=1.0):
        record = make_record(dataset, graph, int(user), chains=c.chains, likes=c.likes, seed=config.seed)
        if "ranking" in tasks:
            prompt = ranking_prompt(record, catalog, words, answer=c.answer, places=c.places)
            trace = ranking_trace(record, catalog, words, c.places, c.answer)
            lines.append((int(user), "ranking", prompt, *trace))
        if "rating" in tasks and record.chains:
            chain = record.chains[
                np.random.default_rng([config.seed, int(user), 1]).integers(len(record.chains))
            ]
            prompt = rating_prompt(chain, catalog, record.demographics, words)
            lines.append((int(user), "rating", prompt, *rating_trace(chain, catalog, words)))
    names = ("user", "task", "prompt", "reasoning", "answer")
    text = "".join(
        json.dumps(dict(zip(names, line, strict=True)), ensure_ascii=False) + "\n" for line in lines
    )
    write_atomic(workdir / "traces.jsonl", text)
    logging.info("%d traces in %s", len(lines), workdir / "traces.jsonl")


if __name__ == "__main__":
    command.run(main)
