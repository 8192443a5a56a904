"""The adapter that a training run ended with, out of its workdir."""

from pathlib import Path

import jax
from flax.linen import meta
from ml_collections import ConfigDict

from r2rec_jax.model.architecture import load_config
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, abstract_variables
from r2rec_jax.model.policy import lora_config
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.untrusted import parse_json
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import restore_trainable


def restore_adapter(workdir: str | Path, which: str = "latest") -> tuple[str, LoRAConfig, dict]:
    """(folder of the base model, adapter's config, its `lora` tree on one device) of a checkpoint.

    `which` as in `restore_trainable`.

    Raises UserError when `workdir` is not that of an adapter's training.
    """
    record = Path(workdir) / "config.json"
    try:
        config = ConfigDict(parse_json(record.read_bytes()))
        base, stage = config.model.folder, config.stage
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        raise UserError(
            f"{workdir} is no workdir of launch.train: its config.json is not there or not one"
        ) from None
    if stage == "pretrain":
        raise UserError(f"{workdir} trained a model, not an adapter: it is in {workdir}/model")
    if stage == "llara":
        raise UserError(
            f"{workdir} trained a projector of items too, for which an adapter's file has no place"
        )
    lora = lora_config(config.lora)
    abstract = meta.unbox(abstract_variables(Llama(load_config(base), lora)))["lora"]
    tree = restore_trainable(workdir, {"lora": abstract}, make_optimizer(config.optimizer, steps=1), which)
    return base, lora, jax.device_get(tree["lora"])
