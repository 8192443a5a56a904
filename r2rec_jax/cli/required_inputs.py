"""Checks the inputs of a command: one error names all missing inputs and the commands that make them."""

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
# Presets of the config files that make missing inputs.
PRESETS = {
    "data": ("ml-1m", "generated", "mini", *sorted(_OTHER_DATA)),
    "sft": STAGE_PRESETS,
    "grpo": STAGE_PRESETS,
    "baselines": STAGE_PRESETS,
    "tallrec": STAGE_PRESETS[:2],
    "llara": STAGE_PRESETS[:2],
}
STAGES = ("sft", "grpo", "tallrec", "llara")
# Command -> config sections and fields that determine its output; the fields in BUT change only speed or
# place.
MADE_FROM = {
    "prepare": ("data",),
    "annotate": ("seed", "data", "prompt", "model", "annotate"),
    "train": ("seed", "data", "prompt", "model", "lora", "annotate"),
    "baselines": ("seed", "data"),
}
BUT = ("data.workers", "model.remat", "model.attention", "model.item_table")


def require(config: ConfigDict, *kinds: str, adapters: dict[str, str] | None = None) -> None:
    """Checks that the config's inputs of `kinds` ("model", "data", "traces", "items") and adapters exist.

    `adapters` maps the workdir of a training run to the stage that makes it, "sft" or "grpo".

    Raises:
      UserError: one line with every missing input and the command that makes it.
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
    """Raises UserError if the longest prompt and completion exceed the positions of `model.folder`.

    Beyond its positions, a model silently writes noise.
    """
    systems = config.get("systems", {})
    if systems and all(system.kind == "server" for system in systems.values()):
        return  # only the tokenizer of the folder is used
    prompts = {"prompt.buckets": max(config.prompt.buckets)}
    for name, system in systems.items():
        if "buckets" in system.prompt:
            prompts[f"systems.{name}.prompt.buckets"] = max(system.prompt.buckets)
    completions = {}
    for prefix in ("", "sft", "grpo", "eval"):  # of one stage, or of all stages of launch.reproduce
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
    """The config file that trains a system's adapter, found from the name of its folder or of the system."""
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
    return "model.folder: set it to the folder of a Hugging Face Llama"


def command_for(command: str, file: str, config: ConfigDict, workdir: str, **fields: object) -> str:
    """The command line with which `launch.COMMAND` makes an input of `config`.

    It uses the nearest preset of configs/FILE.py, and sets every differing field and `fields`.
    """
    wanted = _made_from(command, config)
    module, nearest = importlib.import_module(f"configs.{file}"), None
    for preset in PRESETS[file]:
        preset_fields = _made_from(command, module.get_config(preset))
        # Fields that only one of them has belong to a single stage.
        differing = {
            name: wanted[name]
            for name in wanted
            if name in preset_fields and wanted[name] != preset_fields[name]
        }
        if nearest is None or len(differing) < len(nearest[1]):
            nearest = preset, differing
    preset, differing = nearest
    flags = [f"--config=configs/{file}.py" + (f":{preset}" if preset else "")]
    # Double quotes, because shlex puts values in single quotes.
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
    """Raises UserError if the item table belongs to other data than those in `folder`."""
    items, rows = dataset.interactions.n_items, len(read_items(item_table))
    if rows != items:
        raise UserError(
            f"model.item_table {item_table} has {rows} items but the data have {items}: "
            f"train a SASRec on {folder}"
        )
