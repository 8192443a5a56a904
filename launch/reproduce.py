"""The whole road, from ratings to a report.

    python -m launch.reproduce --config=configs/reproduce.py:quickstart --workdir=runs/quickstart

prepare -> annotate -> SFT -> GRPO -> baselines -> evaluation -> report, each in its own folder of the
workdir. A stage that is done is skipped, one that was interrupted goes on where it stood.
"""

import time
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from configs.base import system
from launch import annotate, baselines, command, prepare, report, train
from launch import eval as evaluation
from launch.inputs import require
from r2rec_jax.data.source import make_dataset
from r2rec_jax.evaluate.results import METRICS, read_metrics
from r2rec_jax.runtime.workdir import claim

SMALL = ("generated", "ml-100k", "ml-1m")  # read in seconds
SHARED = ("seed", "data", "prompt", "model", "lora", "mesh")


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    require(config, "model")  # the one input that no stage makes: ask for it before the work
    if config.data.source in SMALL and not (workdir / "data").exists():
        make_dataset(config.data)  # raw files that cannot be read should not cost a workdir
    claim(workdir, config, overwrite)
    data, traces, sft, grpo, results, others = (
        workdir / name for name in ("data", "annotate", "sft", "grpo", "eval", "baselines")
    )
    with config.unlocked():
        config.data.folder, config.annotate.folder = str(data), str(traces)
        config.grpo.train.init = str(sft)
        adapters = {"base": "", "sft": sft, "sft+grpo": grpo}
        if config.grpo_alone:
            alone = workdir / report.GRPO_ALONE
            adapters = {"base": "", "grpo": alone, "sft": sft, "sft+grpo": grpo}
        config.eval.systems = {name: system(str(folder)) for name, folder in adapters.items()}
        for stage in (config.sft, config.grpo, config.eval, config.baselines):
            stage.update({name: config[name] for name in (*SHARED, "annotate")})

    _stage("prepare", prepare.main, config, data, data / "manifest.json")
    _stage("annotate", annotate.main, config, traces, traces / "traces.jsonl")
    _stage("sft", train.main, config.sft, sft)
    _stage("grpo", train.main, config.grpo, grpo)
    if config.grpo_alone:
        bare = config.grpo.copy_and_resolve_references()
        bare.train.init = ""
        _stage("grpo without sft", train.main, bare, alone)
    _stage("baselines", baselines.rank, config.baselines, others, others / METRICS)
    _stage("eval", evaluation.evaluate, config.eval, results, results / METRICS)
    page = report.write(config, workdir)
    systems = read_metrics(others)["systems"] | read_metrics(results)["systems"]
    print(f"\n{evaluation.table(systems)}\n\nreport: {page}")


def _stage(name: str, run, config: ConfigDict, folder: Path, done: Path | None = None) -> None:
    """Runs a stage unless its result `done` is there; without one the stage itself knows what is left."""
    if done is not None and done.exists():
        logging.info("%s: done before, in %s", name, folder)
        return
    start = time.monotonic()
    run(config, folder, False)
    logging.info("%s: %.0f s, in %s", name, time.monotonic() - start, folder)


if __name__ == "__main__":
    command.run(main)
