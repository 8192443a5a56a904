"""A model ready to train or to sample from: architecture, weights, adapter, and where each lives."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from r2rec_jax.model.config import LlamaConfig, load_config, parse_config
from r2rec_jax.model.hf import load_params
from r2rec_jax.model.llama import Llama, abstract_variables, init_variables
from r2rec_jax.model.lora import LoRAConfig
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import shardings


@dataclasses.dataclass(frozen=True)
class Policy:
    """`trainable` and `frozen` together are the model's variables.

    With an adapter: trainable {'lora'}, frozen {'params'}; a full model: trainable {'params'}, frozen {}.
    """

    model: Llama
    trainable: dict
    frozen: dict

    @property
    def variables(self) -> dict:
        return {**self.frozen, **self.trainable}


def load_policy(config: ConfigDict, mesh: jax.sharding.Mesh, seed: int) -> Policy:
    """Builds the policy of a config's `model` and `lora` sections on a mesh.

    `model.folder` is a Hugging Face folder whose base is frozen under a fresh adapter. Without a
    folder, `model.architecture` is initialised from the seed and trained in full.

    Raises:
      UserError: absent or unfitting weights, or an unknown adapter target.
    """
    c = config.model
    dtype = jnp.dtype(c.dtype)
    if c.folder:
        lora = LoRAConfig(config.lora.rank, config.lora.alpha, tuple(config.lora.targets))
        model = Llama(load_config(c.folder), lora, dtype, c.remat)
        placed = shardings(abstract_variables(model), mesh)
        _, params = load_params(c.folder, dtype, placed["params"])
        adapter = jax.jit(lambda: init_variables(model, seed)["lora"], out_shardings=placed["lora"])()
        return Policy(model, {"lora": adapter}, {"params": params})
    if not c.get("architecture"):
        raise UserError("model.folder is empty: name the folder of a Hugging Face Llama")
    model = Llama(_architecture(c.architecture), None, dtype, c.remat)
    placed = shardings(abstract_variables(model), mesh)
    params = jax.jit(lambda: init_variables(model, seed)["params"], out_shardings=placed["params"])()
    return Policy(model, {"params": params}, {})


def _architecture(section: ConfigDict) -> LlamaConfig:
    return parse_config(section.to_dict(), "config.model.architecture")
