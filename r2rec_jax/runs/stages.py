"""The stages of a run, each in a folder of its own: what is done is skipped, what was interrupted goes on."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from r2rec_jax.baselines.trainer import ITEMS
from r2rec_jax.data import prepared
from r2rec_jax.data.prepared import MANIFEST
from r2rec_jax.runs import annotation, evaluation, preparation, training
from r2rec_jax.runs.finished import STAGES, read_stages
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic

SHARED = ("seed", "data", "prompt", "model", "lora", "mesh", "annotate")


def settle(config: ConfigDict, run: Path) -> ConfigDict:
    """The config with every folder inside `run`, and in each stage's section the fields that all share."""
    c = config.copy_and_resolve_references()
    with c.unlocked():
        c.data.folder, c.annotate.folder = str(run / "data"), str(run / "annotate")
        c.grpo.train.init = str(run / "sft")
        for section in (c.sft, c.grpo, c.eval, c.baselines, c.tallrec, c.llara):
            section.update({name: c[name] for name in SHARED})
        for name in ("tallrec", "llara"):  # what they ask is their own, in the words of all
            c[name].prompt = c.prompt.copy_and_resolve_references()
            c[name].prompt.update(c.compared[name].prompt)
        c.llara.model.item_table = str(item_table(run))
        c.eval.evaluate.replies = str(run / "replies")
    return c


def item_table(run: Path) -> Path:
    """The vectors of SASRec's items, where LLaRA's tokens come from."""
    return run / "baselines" / "sasrec" / ITEMS


def stage(run: Path, name: str, work: Callable, config: ConfigDict) -> None:
    """Does `work(config, RUN/NAME, False)`, unless RUN/stages.json says that it has been done.

    The seconds of all attempts are recorded there.
    """
    folder, record = run / name, read_stages(run)
    before = record.get(name, {"seconds": 0.0, "done": False})
    if before["done"] and folder.exists():
        logging.info("%s: done before, in %s", name, folder)
        return
    start, done = time.monotonic(), False
    try:
        work(config, folder, False)
        done = True
    finally:
        seconds = time.monotonic() - start
        record[name] = {"seconds": round(before["seconds"] + seconds, 1), "done": done}
        write_atomic(run / STAGES, json.dumps(record, indent=2) + "\n")
    logging.info("%s: %.0f s, in %s", name, seconds, folder)


def prepare_data(c: ConfigDict, run: Path) -> None:
    if not (run / "data" / MANIFEST).exists():  # else it refuses one that it has not made
        stage(run, "data", preparation.main, c)


def with_own_model(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config of runs in `workdir` that share the model which `pretrain` makes there."""
    c = config.copy_and_resolve_references()
    c.model.folder = str(workdir / "pretrain" / "model")
    return c


def pretrain(c: ConfigDict, workdir: Path) -> None:
    """Trains the model that all seeds in `workdir` share, on the data of the first of them.

    Raises UserError where another seed holds out other truths, which that model may have seen.
    """
    folder = workdir / f"seed{min({*c.seeds, *c.policy_seeds})}" / "data"
    seen, held_out = prepared.load(folder), prepared.load(c.data.folder)
    same = np.array_equal(seen.interactions.item, held_out.interactions.item)
    if not (same and np.array_equal(seen.split.cutoff, held_out.split.cutoff)):
        raise UserError(
            f"{c.data.folder} holds out other ratings than {folder}, on which the model of all seeds is "
            "trained: use data.ties=file, or one seed"
        )
    section = c.pretrain.copy_and_resolve_references()
    section.update({name: c[name] for name in ("data", "prompt", "mesh")})
    section.data.folder = str(folder)
    stage(workdir, "pretrain", training.main, section)


def train_policy(c: ConfigDict, run: Path) -> None:
    """Traces, SFT and GRPO."""
    stage(run, "annotate", annotation.main, c)
    stage(run, "sft", training.main, c.sft)
    stage(run, "grpo", training.main, c.grpo)


def train_without_sft(c: ConfigDict, run: Path) -> None:
    bare = c.grpo.copy_and_resolve_references()
    bare.train.init = ""
    stage(run, "grpo_alone", training.main, bare)


def train_study(c: ConfigDict, run: Path, name: str, prompt: ConfigDict) -> Path:
    """Traces and SFT with fields of the prompt section changed; returns the workdir of that SFT."""
    study = c.copy_and_resolve_references()
    for section in (study, study.sft):
        section.prompt.update(prompt)
        section.annotate.folder = str(run / f"annotate_{name}")
    stage(run, f"annotate_{name}", annotation.main, study)
    stage(run, f"sft_{name}", training.main, study.sft)
    return run / f"sft_{name}"


def train_compared(c: ConfigDict, run: Path, name: str) -> None:
    """TALLRec or LLaRA."""
    stage(run, name, training.main, c[name])


def evaluate(c: ConfigDict, run: Path, name: str, systems: dict[str, ConfigDict], items: str = "") -> None:
    """Has `systems` rank, into RUN/NAME; `items`: their `model.item_table`."""
    section = c.eval.copy_and_resolve_references()
    with section.unlocked():
        section.systems, section.model.item_table = ConfigDict(systems), items
    stage(run, name, evaluation.evaluate, section)
