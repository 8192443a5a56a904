"""What a command reads and must find: everything missing is named at once, with what makes it."""

from pathlib import Path

from ml_collections import ConfigDict

from configs.base import MODEL_MINI, MODEL_TINY
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.model.config import load_config
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
    if "model" in kinds:
        check_lengths(config)


def check_lengths(config: ConfigDict) -> None:
    """Raises UserError when the longest prompt and completion have more tokens than `model.folder` has
    positions: past them a model's answers are noise, without an error."""
    systems = config.get("systems", {})
    if systems and all(system.kind == "server" for system in systems.values()):
        return  # the folder is there for its tokenizer
    prompts = {"prompt.buckets": max(config.prompt.buckets)}
    for name, system in systems.items():
        if "buckets" in system.prompt:
            prompts[f"systems.{name}.prompt.buckets"] = max(system.prompt.buckets)
    completions = {}
    for prefix in ("", "sft", "grpo", "eval"):  # of one stage, or of all that launch.reproduce runs
        section = config.get(prefix, {}) if prefix else config
        dot = prefix and f"{prefix}."
        if widths := section.get("train", {}).get("response_buckets"):
            completions[f"{dot}train.response_buckets"] = max(widths)
        if rollout := section.get("rollout"):
            completions[f"{dot}rollout.max_tokens"] = rollout.max_tokens
    if not completions:
        return
    positions = load_config(config.model.folder).max_position_embeddings
    prompt, completion = max(prompts, key=prompts.get), max(completions, key=completions.get)
    if prompts[prompt] + completions[completion] > positions:
        raise UserError(
            f"{prompt} up to {prompts[prompt]} and {completion} up to {completions[completion]} tokens are "
            f"more than the {positions} positions of {config.model.folder} (max_position_embeddings in its "
            "config.json): lower one of them"
        )


def check_items(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError when `model.item_table` is that of another data set."""
    items, rows = dataset.interactions.n_items, len(read_items(config.model.item_table))
    if rows != items:
        raise UserError(
            f"model.item_table {config.model.item_table} has {rows} items and the data {items}: train a "
            f"SASRec on {config.data.folder}"
        )
