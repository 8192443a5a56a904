"""The whole road, from ratings to a report, and the paper's tables.

    python -m launch.reproduce --config=configs/reproduce.py:quickstart --workdir=runs/quickstart

prepare -> annotate -> SFT -> GRPO -> baselines -> evaluation -> report, each in its own folder of the
workdir; with `config.tables` this for every seed (launch/tables.py). A stage that is done is skipped, one
that was interrupted goes on where it stood.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs.base import system
from launch import baselines, report, stages, tables
from r2rec_jax.cli import command
from r2rec_jax.cli.required_inputs import require
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.report.result_text import text
from r2rec_jax.report.system_names import POLICY
from r2rec_jax.runtime.workdir import claim

SMALL = ("generated", "ml-100k", "ml-1m")  # read in seconds


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    if config.tables:
        for table in config.tables:
            tables.rows_of(table, config)  # an unknown one should not cost a workdir
        claim(workdir, config, overwrite)
        tables.run(config, workdir)
    else:
        require(config, "model")  # the one input that no stage makes: ask for it before the work
        if config.data.source in SMALL and not (workdir / "data").exists():
            make_dataset(config.data)  # raw files that cannot be read should not cost a workdir
        claim(workdir, config, overwrite)
        run(stages.settle(config, workdir), workdir)
    for page, table in report.write(config, workdir).items():
        print(f"\n{text(table)}\n\nreport: {page}")


def run(config: ConfigDict, workdir: Path) -> None:
    """One seed of one model."""
    stages.prepare_data(config, workdir)
    stages.train_policy(config, workdir)
    systems = {"prompt only": system(), "r2rec without rl": system(str(workdir / "sft"))}
    if config.grpo_alone:
        stages.train_without_sft(config, workdir)
        systems["r2rec without sft"] = system(str(workdir / "grpo_alone"))
    systems[POLICY] = system(str(workdir / "grpo"))
    stages.stage(workdir, "baselines", baselines.rank, config.baselines)
    stages.evaluate(config, workdir, "eval", systems)


if __name__ == "__main__":
    command.run(main, reads=("sft", "tables"))
