"""What a command reads and must find: everything missing is named at once, with what makes it."""

from pathlib import Path

from ml_collections import ConfigDict

from configs.base import MODEL_MINI, MODEL_TINY
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.model.items import read_items
from r2rec_jax.runtime import mirror
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train.state import CHECKPOINTS


def require(config: ConfigDict, *kinds: str, adapters: dict[str, str] | None = None) -> None:
    """Checks the config's inputs of `kinds` ("model", "data", "traces", "items"), and training runs.

    What is on an object store is fetched.
    `adapters` maps the workdir of a training run to the stage that makes it, "sft" or "grpo".

    Raises:
      UserError: one line with every input that is not there and the command that provides it.
    """
    mini = config.prompt.wording == "mini"
    preset = "mini" if mini else config.data.source
    category = f" --config.data.category={config.data.category}" if preset.startswith("amazon") else ""
    data_config = f"--config=configs/data.py:{preset}{category}"
    stage_preset = ":quickstart" if preset == "generated" else ":mini" if mini else ""
    fetch = f"hf download deepseek-ai/{Path(config.model.folder).name} --local-dir {config.model.folder}"
    if config.model.folder == MODEL_TINY:
        fetch = f"git checkout -- {MODEL_TINY}"
    if config.model.folder == MODEL_MINI:
        own = Path(MODEL_MINI).parent
        fetch = f"python -m launch.train --config=configs/pretrain_mini.py --workdir={own}"
    wanted = {
        "model": (config.model.folder, fetch),
        "data": (
            config.data.folder,
            f"python -m launch.prepare {data_config} --workdir={config.data.folder}",
        ),
        "traces": (
            config.annotate.folder,
            f"python -m launch.annotate {data_config} --workdir={config.annotate.folder}",
        ),
        "items": (
            config.model.item_table,
            f"python -m launch.baselines --config=configs/baselines.py{stage_preset} "
            f"--config.systems=\"('sasrec',)\" --workdir={Path(config.model.item_table).parent.parent}",
        ),
    }
    found = [(kind, *wanted[kind]) for kind in kinds]
    found += [
        (
            "adapter",
            f"{folder}/{CHECKPOINTS}",
            f"python -m launch.train --config=configs/{stage}.py{stage_preset} --workdir={folder}",
        )
        for folder, stage in (adapters or {}).items()
    ]
    for kind in kinds:
        mirror.fetch(wanted[kind][0])
    for folder in adapters or {}:
        mirror.fetch(folder, f"{CHECKPOINTS}/")
    missing = [f"no {kind} at {path} (`{fix}`)" for kind, path, fix in found if not Path(path).exists()]
    if missing:
        raise UserError("; ".join(missing))


def check_items(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError when `model.item_table` is that of another data set."""
    items, rows = dataset.interactions.n_items, len(read_items(config.model.item_table))
    if rows != items:
        raise UserError(
            f"model.item_table {config.model.item_table} has {rows} items and the data {items}: train a "
            f"SASRec on {config.data.folder}"
        )
