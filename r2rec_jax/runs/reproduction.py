"""The full pipeline, from ratings to a report, and the paper's tables."""

from pathlib import Path

from ml_collections import ConfigDict

from configs.base import system
from r2rec_jax.cli.required_inputs import require
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.report.result_text import text
from r2rec_jax.report.system_names import POLICY
from r2rec_jax.runs import baseline_ranking, paper_tables, report_pages, stages
from r2rec_jax.runtime.workdir import claim

SMALL = ("generated", "ml-100k", "ml-1m")  # sources that are read in seconds


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    if config.tables:
        for table in config.tables:
            paper_tables.rows_of(table, config)  # raises for an unknown table before the workdir is claimed
        claim(workdir, config, overwrite)
        paper_tables.run(config, workdir)
    else:
        require(config, "model")  # the only input that no stage makes, checked first
        if config.data.source in SMALL and not (workdir / "data").exists():
            make_dataset(config.data)  # raises for unreadable raw files before the workdir is claimed
        claim(workdir, config, overwrite)
        run(stages.settle(config, workdir), workdir)
    for page, table in report_pages.write(config, workdir).items():
        print(f"\n{text(table)}\n\nreport: {page}")


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs all stages for one seed."""
    stages.prepare_data(config, workdir)
    stages.train_policy(config, workdir)
    systems = {"prompt only": system(), "r2rec without rl": system(str(workdir / "sft"))}
    if config.grpo_alone:
        stages.train_without_sft(config, workdir)
        systems["r2rec without sft"] = system(str(workdir / "grpo_alone"))
    systems[POLICY] = system(str(workdir / "grpo"))
    stages.stage(workdir, "baselines", baseline_ranking.rank, config.baselines)
    stages.evaluate(config, workdir, "eval", systems)
