"""What a command reads and must find: everything missing is named at once, with the command that makes it."""

import importlib
import shlex
from pathlib import Path

from ml_collections import ConfigDict

from configs import data as data_config
from configs.base import MODEL_MINI, MODEL_TINY
from r2rec_jax.cli.overrides import flatten
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.model.architecture import load_config
from r2rec_jax.model.config import MODEL_8B
from r2rec_jax.model.item_tokens import read_items
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train.state import CHECKPOINTS

STAGE_PRESETS = (None, "quickstart", "mini")
_OTHER_DATA = {*data_config.MOVIELENS, *data_config.PAPER, *data_config.AMAZON, *data_config.OWN} - {"ml-1m"}
# Of the config files by which something missing is made.
PRESETS = {
    "data": ("ml-1m", "generated", "mini", *sorted(_OTHER_DATA)),
    "sft": STAGE_PRESETS,
    "grpo": STAGE_PRESETS,
    "baselines": STAGE_PRESETS,
    "tallrec": STAGE_PRESETS[:2],
    "llara": STAGE_PRESETS[:2],
}
STAGES = ("sft", "grpo", "tallrec", "llara")
# What a stage makes depends on these sections and fields of a config, `but` on how fast or where.
MADE_FROM = {
    "prepare": ("data",),
    "annotate": ("seed", "data", "prompt", "model", "annotate"),
    "train": ("seed", "data", "prompt", "model", "lora", "annotate"),
    "baselines": ("seed", "data"),
}
BUT = ("data.workers", "model.remat", "model.attention", "model.item_table")


def require(config: ConfigDict, *kinds: str, adapters: dict[str, str] | None = None) -> None:
    """Checks the config's inputs of `kinds` ("model", "data", "traces", "items"), and training runs.

    `adapters` maps the workdir of a training run to the stage that makes it, "sft" or "grpo".

    Raises:
      UserError: one line with every input that is not there and the command that provides it.
    """
    places = {
        "model": config.model.folder,
        "data": config.data.folder,
        "traces": config.annotate.folder,
        "items": config.model.item_table,
    }
    wanted = [(kind, places[kind], kind) for kind in kinds]
    wanted += [("adapter", f"{folder}/{CHECKPOINTS}", stage) for folder, stage in (adapters or {}).items()]
    missing = [
        f"no {kind} at {path or "''"} ({_what_makes(maker, path, config)})"
        for kind, path, maker in wanted
        if not (path and Path(path).exists())
    ]
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


def _what_makes(maker: str, path: str, config: ConfigDict) -> str:
    if maker == "model":
        return _model(path)
    if maker == "data":
        return f"`{command_for('prepare', 'data', config, path)}`"
    if maker == "traces":
        return f"`{command_for('annotate', 'data', config, path)}`"
    if maker == "items":
        workdir = str(Path(path).parent.parent)
        return f"`{command_for('baselines', 'baselines', config, workdir, systems=('sasrec',))}`"
    return f"`{command_for('train', maker, config, str(Path(path).parent))}`"


def stage_of(folder: str, system: str) -> str:
    """The config file that trains a system's adapter: its folder, or the system, is called after it."""
    return next((name for name in (Path(folder).name, system) if name in STAGES), "grpo")


def _model(folder: str) -> str:
    name = Path(MODEL_8B).name
    if folder == MODEL_TINY:
        return f"`git checkout -- {MODEL_TINY}`"
    if folder == MODEL_MINI:
        workdir = Path(MODEL_MINI).parent
        return f"`python -m launch.train --config=configs/pretrain_mini.py --workdir={workdir}`"
    if Path(folder).name == name:
        return f"`hf download deepseek-ai/{name} --local-dir {folder}`"
    return "model.folder: name the folder of a Hugging Face Llama"


def command_for(command: str, file: str, config: ConfigDict, workdir: str, **fields: object) -> str:
    """The command line by which `launch.COMMAND` makes what `config` reads: with the nearest preset of
    configs/FILE.py, and with every field in which that differs, besides `fields`."""
    wanted = _made_from(command, config)
    module, nearest = importlib.import_module(f"configs.{file}"), None
    for preset in PRESETS[file]:
        known = _made_from(command, module.get_config(preset))
        # What only one of them has is of a stage's own.
        differing = {name: wanted[name] for name in wanted if name in known and wanted[name] != known[name]}
        if nearest is None or len(differing) < len(nearest[1]):
            nearest = preset, differing
    preset, differing = nearest
    flags = [f"--config=configs/{file}.py" + (f":{preset}" if preset else "")]
    # Double quotes inside, which a shell's single ones leave alone.
    values = {name: str(value).replace("'", '"') for name, value in (differing | fields).items()}
    flags += [f"--config.{name}={value}" for name, value in values.items()]
    return shlex.join(["python", "-m", f"launch.{command}", *flags, f"--workdir={workdir}"])


def _made_from(command: str, config: ConfigDict) -> dict[str, object]:
    own = {"prepare": "data.folder", "annotate": "annotate.folder"}.get(command)
    return {
        name: value
        for name, value in flatten(config).items()
        if name.split(".")[0] in MADE_FROM[command] and name not in BUT and name != own
    }


def check_items(item_table: str, dataset: Dataset, folder: str) -> None:
    """Raises UserError when the table is that of another data set than the one in `folder`."""
    items, rows = dataset.interactions.n_items, len(read_items(item_table))
    if rows != items:
        raise UserError(
            f"model.item_table {item_table} has {rows} items and the data {items}: train a SASRec on {folder}"
        )
