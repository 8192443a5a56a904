"""Runs the stages of a run, each in its own folder. Finished stages are skipped, interrupted ones resume."""

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
    """The config with all folders inside `run` and the shared fields copied into each stage's section."""
    c = config.copy_and_resolve_references()
    with c.unlocked():
        c.data.folder, c.annotate.folder = str(run / "data"), str(run / "annotate")
        c.grpo.train.init = str(run / "sft")
        for section in (c.sft, c.grpo, c.eval, c.baselines, c.tallrec, c.llara):
            section.update({name: c[name] for name in SHARED})
        for name in ("tallrec", "llara"):  # their own prompt fields, in the shared wording
            c[name].prompt = c.prompt.copy_and_resolve_references()
            c[name].prompt.update(c.compared[name].prompt)
        c.llara.model.item_table = str(item_table(run))
        c.eval.evaluate.replies = str(run / "replies")
    return c


def item_table(run: Path) -> Path:
    """The file of SASRec's item vectors, which LLaRA's item tokens use."""
    return run / "baselines" / "sasrec" / ITEMS


def stage(run: Path, name: str, work: Callable, config: ConfigDict) -> None:
    """Calls `work(config, RUN/NAME, False)` unless RUN/stages.json marks the stage as done.

    The seconds of all attempts are recorded in that file.
    """
    folder, record = run / name, read_stages(run)
    before = record.get(name, {"seconds": 0.0, "done": False})
    if before["done"] and folder.exists():
        logging.info("%s: already done, in %s", name, folder)
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
    if not (run / "data" / MANIFEST).exists():  # preparation rejects a folder made by another command
        stage(run, "data", preparation.main, c)


def with_own_model(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config of runs in `workdir` that share the model trained there by `pretrain`."""
    c = config.copy_and_resolve_references()
    c.model.folder = str(workdir / "pretrain" / "model")
    return c


def pretrain(c: ConfigDict, workdir: Path) -> None:
    """Trains the model that all seeds in `workdir` share, on the data of the smallest seed.

    Raises UserError if another seed has other held-out items, which the model may have seen in training.
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
    """Runs annotate, SFT and GRPO."""
    stage(run, "annotate", annotation.main, c)
    stage(run, "sft", training.main, c.sft)
    stage(run, "grpo", training.main, c.grpo)


def train_without_sft(c: ConfigDict, run: Path) -> None:
    bare = c.grpo.copy_and_resolve_references()
    bare.train.init = ""
    stage(run, "grpo_alone", training.main, bare)


def train_study(c: ConfigDict, run: Path, name: str, prompt: ConfigDict) -> Path:
    """Runs annotate and SFT with changed fields of the prompt section; returns the SFT workdir."""
    study = c.copy_and_resolve_references()
    for section in (study, study.sft):
        section.prompt.update(prompt)
        section.annotate.folder = str(run / f"annotate_{name}")
    stage(run, f"annotate_{name}", annotation.main, study)
    stage(run, f"sft_{name}", training.main, study.sft)
    return run / f"sft_{name}"


def train_compared(c: ConfigDict, run: Path, name: str) -> None:
    """Trains TALLRec or LLaRA."""
    stage(run, name, training.main, c[name])


def evaluate(c: ConfigDict, run: Path, name: str, systems: dict[str, ConfigDict], items: str = "") -> None:
    """Evaluates `systems` into RUN/NAME; `items` is their `model.item_table`."""
    section = c.eval.copy_and_resolve_references()
    with section.unlocked():
        section.systems, section.model.item_table = ConfigDict(systems), items
    stage(run, name, evaluation.evaluate, section)
