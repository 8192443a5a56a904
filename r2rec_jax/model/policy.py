"""Loads a policy for training or sampling: architecture, weights, adapter and their shardings."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from r2rec_jax.model import peft
from r2rec_jax.model.architecture import LlamaConfig, load_config, parse_config
from r2rec_jax.model.attention import choose_attention
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.item_tokens import read_items
from r2rec_jax.model.llama import Llama, abstract_variables, init_variables
from r2rec_jax.model.quantize import quantize_params
from r2rec_jax.model.weights import load_weights, read_weights
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import shardings


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model and its variables, split into `trainable` and `frozen`.

    With an adapter: trainable {'lora'} and frozen {'params'}. Item tokens add trainable {'projector'} and
    frozen {'items'}. Without an adapter: trainable {'params'} and frozen {}.
    """

    model: Llama
    trainable: dict
    frozen: dict

    @property
    def variables(self) -> dict:
        return {**self.frozen, **self.trainable}


def load_policy(c: ConfigDict, lora: ConfigDict, mesh: jax.sharding.Mesh, seed: int) -> Policy:
    """Builds the policy of a config's `model` section, `c`, and its `lora` section on a mesh.

    If `model.folder` is set, its weights are frozen, with int8 linear layers if `model.quantize` is set. The
    adapter is loaded from `lora.folder`, or fresh without it. If `model.folder` is empty,
    `model.architecture` is initialized from the seed, and all its parameters are trainable.

    Raises:
      UserError: weights are missing or do not fit, an adapter target or quantization is unknown, this device
        does not support the remat policy or the attention, or the PEFT adapter differs from `lora`.
    """
    dtype = jnp.dtype(c.dtype)
    if c.quantize not in ("", "int8"):
        raise UserError(f"model.quantize {c.quantize!r}: use 'int8', or '' for none")
    if c.folder:
        architecture = load_config(c.folder)
        attention = choose_attention(c.attention, architecture.head_dim, dtype)
        model = Llama(architecture, lora_config(lora), dtype, c.remat, bool(c.quantize), attention)
        placed = shardings(abstract_variables(model), mesh)
        adapter = _adapter(lora, model, placed["lora"], seed)
        return Policy(model, {"lora": adapter}, {"params": _base(c.folder, model, mesh)})
    if not c.get("architecture"):
        raise UserError("model.folder is empty: set it to the folder of a Hugging Face Llama")
    if c.quantize:
        raise UserError(f"model.quantize {c.quantize!r} needs a frozen base: set model.folder")
    architecture = _architecture(c.architecture)
    attention = choose_attention(c.attention, architecture.head_dim, dtype)
    model = Llama(architecture, None, dtype, c.remat, attention=attention)
    placed = shardings(abstract_variables(model), mesh)
    params = jax.jit(lambda: init_variables(model, seed)["params"], out_shardings=placed["params"])()
    return Policy(model, {"params": params}, {})


def with_items(policy: Policy, path: str, mesh: jax.sharding.Mesh, seed: int) -> Policy:
    """Adds item tokens for the table at `path` to a policy, with a fresh projector.

    Raises:
      UserError: the file is missing or not a table.
    """
    table = read_items(path)
    model = policy.model.clone(items=table.shape)
    placed = shardings(abstract_variables(model), mesh)
    fresh = jax.jit(lambda: init_variables(model, seed)["projector"], out_shardings=placed["projector"])()
    items = jax.device_put({"item_tokens": {"table": table}}, placed["items"])
    return Policy(model, {**policy.trainable, "projector": fresh}, {**policy.frozen, "items": items})


def lora_config(section: ConfigDict) -> LoRAConfig:
    """The LoRAConfig of a config's `lora` section."""
    return LoRAConfig(
        section.rank, section.alpha, tuple(section.targets), section.dropout, section.use_rslora
    )


def _adapter(section: ConfigDict, model: Llama, placed: dict, seed: int) -> dict:
    """The initial `lora` tree: the PEFT adapter in `section.folder` if it is set, else a fresh one."""
    if not section.folder:
        return jax.jit(lambda: init_variables(model, seed)["lora"], out_shardings=placed)()
    stored, adapter = peft.load_adapter(section.folder, model.config, placed)
    # Dropout may differ, because it affects training only. The value of the section is used.
    fields = {name: getattr(stored, name) for name in ("rank", "alpha", "use_rslora")}
    differing = {name: value for name, value in fields.items() if value != getattr(model.lora, name)}
    if set(stored.targets) != set(model.lora.targets):
        differing["targets"] = stored.targets
    if differing:
        flags = " ".join(f'"--config.lora.{name}={value}"' for name, value in differing.items())
        raise UserError(f"the adapter in lora.folder {section.folder} differs from lora: add {flags}")
    return adapter


def _base(folder: str, model: Llama, mesh: jax.sharding.Mesh) -> dict:
    """Loads the frozen `params` of a model from a folder."""
    placed = shardings(abstract_variables(model.clone(int8=False)), mesh)["params"]
    if not model.int8:
        return load_weights(folder, model.dtype, placed)[1]
    _, leaves = read_weights(folder, model.dtype, placed)
    return quantize_params(leaves, shardings(abstract_variables(model), mesh)["params"])


def _architecture(section: ConfigDict) -> LlamaConfig:
    return parse_config(section.to_dict(), "config.model.architecture")
