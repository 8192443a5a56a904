"""A model ready to train or to sample from: architecture, weights, adapter, and where each lives."""

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
    """`trainable` and `frozen` together are the model's variables.

    With an adapter: trainable {'lora'}, frozen {'params'}; with item tokens also trainable {'projector'} and
    frozen {'items'}. A full model: trainable {'params'}, frozen {}.
    """

    model: Llama
    trainable: dict
    frozen: dict

    @property
    def variables(self) -> dict:
        return {**self.frozen, **self.trainable}


def load_policy(c: ConfigDict, lora: ConfigDict, mesh: jax.sharding.Mesh, seed: int) -> Policy:
    """Builds the policy of a config's `model` section, `c`, and its `lora` section on a mesh.

    `model.folder` is a model folder whose base is frozen, its linear layers in int8 if `model.quantize`
    says so, under the PEFT adapter of `lora.folder` or a fresh one. Without a folder,
    `model.architecture` is initialised from the seed and trained in full.

    Raises:
      UserError: absent or unfitting weights, an unknown adapter target or quantisation, a policy of
        recomputation or an attention that this device does not have, or a PEFT adapter that computes
        something else than `lora` says.
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
        raise UserError("model.folder is empty: name the folder of a Hugging Face Llama")
    if c.quantize:
        raise UserError(f"model.quantize {c.quantize!r} is for a frozen base: name its model.folder")
    architecture = _architecture(c.architecture)
    attention = choose_attention(c.attention, architecture.head_dim, dtype)
    model = Llama(architecture, None, dtype, c.remat, attention=attention)
    placed = shardings(abstract_variables(model), mesh)
    params = jax.jit(lambda: init_variables(model, seed)["params"], out_shardings=placed["params"])()
    return Policy(model, {"params": params}, {})


def with_items(policy: Policy, path: str, mesh: jax.sharding.Mesh, seed: int) -> Policy:
    """The same base and adapter, with tokens for the items of the table at `path` and a fresh projector.

    Raises UserError for a file that is no table.
    """
    table = read_items(path)
    model = policy.model.clone(items=table.shape)
    placed = shardings(abstract_variables(model), mesh)
    fresh = jax.jit(lambda: init_variables(model, seed)["projector"], out_shardings=placed["projector"])()
    items = jax.device_put({"item_tokens": {"table": table}}, placed["items"])
    return Policy(model, {**policy.trainable, "projector": fresh}, {**policy.frozen, "items": items})


def lora_config(section: ConfigDict) -> LoRAConfig:
    """The adapter that a config's `lora` section describes."""
    return LoRAConfig(
        section.rank, section.alpha, tuple(section.targets), section.dropout, section.use_rslora
    )


def _adapter(section: ConfigDict, model: Llama, placed: dict, seed: int) -> dict:
    """The `lora` tree that training starts from: of the PEFT folder if one is named, else a fresh one."""
    if not section.folder:
        return jax.jit(lambda: init_variables(model, seed)["lora"], out_shardings=placed)()
    found, adapter = peft.load_adapter(section.folder, model.config, placed)
    # Dropout is how one trains, not what is computed: the section's holds.
    fields = {name: getattr(found, name) for name in ("rank", "alpha", "use_rslora")}
    differing = {name: value for name, value in fields.items() if value != getattr(model.lora, name)}
    if set(found.targets) != set(model.lora.targets):
        differing["targets"] = found.targets
    if differing:
        flags = " ".join(f'"--config.lora.{name}={value}"' for name, value in differing.items())
        raise UserError(f"the adapter in lora.folder {section.folder} is not as lora says: add {flags}")
    return adapter


def _base(folder: str, model: Llama, mesh: jax.sharding.Mesh) -> dict:
    """The frozen `params` of a model, read from a folder."""
    placed = shardings(abstract_variables(model.clone(int8=False)), mesh)["params"]
    if not model.int8:
        return load_weights(folder, model.dtype, placed)[1]
    _, leaves = read_weights(folder, model.dtype, placed)
    return quantize_params(leaves, shardings(abstract_variables(model), mesh)["params"])


def _architecture(section: ConfigDict) -> LlamaConfig:
    return parse_config(section.to_dict(), "config.model.architecture")
