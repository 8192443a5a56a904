"""Lowers the programs that a training run compiles, from its config and shapes alone, without allocation."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from r2rec_jax.model.architecture import LlamaConfig, load_config, parse_config
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.model.flops import Shapes
from r2rec_jax.model.item_tokens import read_items
from r2rec_jax.model.llama import Llama, abstract_variables
from r2rec_jax.model.policy import Policy, lora_config
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.decoder_weights import decoder_shardings, decoder_variables
from r2rec_jax.rollout.engine import Engine, Prompts
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import batch_sharding, replicated, shardings
from r2rec_jax.train import grpo, supervised
from r2rec_jax.train.config import GRPOConfig
from r2rec_jax.train.grpo import GRPOBatch
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import TrainState

# The published `config.json` of models, for plans where the model folder is absent.
PUBLISHED = {
    "DeepSeek-R1-Distill-Llama-8B": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    }
}


def shapes_of(config: ConfigDict) -> Shapes:
    """The shapes of the largest step of a training config."""
    B, parts = config.train.batch_size, config.train.micro_batches
    if config.stage == "grpo":
        return Shapes(B, config.grpo.group, max(config.prompt.buckets), config.rollout.max_tokens, parts)
    if config.stage in ("sft", "tallrec", "llara"):
        return Shapes(B, 1, max(config.prompt.buckets), max(config.train.response_buckets), parts)
    if config.stage == "pretrain":
        return Shapes(B, 1, 1, max(width for _, width, _ in config.corpus.curriculum), parts)
    raise UserError(f"stage {config.stage!r} is unknown: use one of pretrain, sft, grpo, tallrec, llara")


def architecture(config: ConfigDict) -> LlamaConfig:
    """The architecture from the model's folder if present, else as published.

    A config without a folder gives it in `model.architecture`.
    """
    folder = config.model.folder
    if not folder:
        return parse_config(config.model.architecture.to_dict(), "config.model.architecture")
    published = PUBLISHED.get(Path(folder).name)
    if published and not (Path(folder) / "config.json").exists():
        return parse_config(published, folder)
    return load_config(folder)


def abstract_policy(config: ConfigDict, mesh: Mesh) -> Policy:
    """Like model.policy.load_policy, with jax.ShapeDtypeStructs (including shardings) in place of arrays."""
    c, dtype = config.model, jnp.dtype(config.model.dtype)
    lora = lora_config(config.lora) if c.folder else None
    # CPUs cannot compile offloading; it changes only where the saved block inputs are stored.
    remat = "block" if c.remat == "offload" else c.remat
    items = read_items(c.item_table).shape if c.item_table else None
    model = Llama(architecture(config), lora, dtype, remat, bool(c.quantize), attention="xla", items=items)
    abstract = abstract_variables(model)
    placed = shardings(abstract, mesh)

    def leaf(path, x, sharding):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        # Loaded weights have the activations' dtype. Trainable leaves and int8 weights with scales
        # keep theirs.
        quantized = model.int8 and "_proj" in names[-2]
        loaded = lora and names[0] == "params" and not quantized
        return jax.ShapeDtypeStruct(x.shape, dtype if loaded else x.dtype, sharding=sharding)

    variables = jax.tree_util.tree_map_with_path(leaf, nn.meta.unbox(abstract), placed)
    trainable = ("lora", "projector") if lora else ("params",)
    return Policy(
        model,
        {name: tree for name, tree in variables.items() if name in trainable},
        {name: tree for name, tree in variables.items() if name not in trainable},
    )


def update(config: ConfigDict, policy: Policy, mesh: Mesh, shapes: Shapes) -> jax.stages.Lowered:
    """The SFT, pretraining or GRPO step, lowered for this mesh as launch.train jits it."""
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    state = _abstract_state(policy.trainable, optimizer, mesh)
    if config.stage != "grpo":
        step = supervised.compile_update(
            policy.model, optimizer, state, policy.frozen, mesh, seed=config.seed, parts=shapes.parts
        )
        return step.lower(state, policy.frozen, completions(shapes, mesh))
    frozen = {"base": policy.frozen, "reference": policy.trainable}
    rows = _rows_on(mesh)
    batch = GRPOBatch(
        completions(shapes, mesh),
        advantage=rows((shapes.N,), jnp.float32),
        sampler_logprobs=rows((shapes.N, shapes.R), jnp.float32),
    )
    step = grpo.compile_update(
        policy.model,
        optimizer,
        GRPOConfig.read(config.grpo),
        config.rollout.temperature,
        state,
        frozen,
        mesh,
        shapes.parts,
    )
    return step.lower(state, frozen, batch)


def completions(shapes: Shapes, mesh: Mesh) -> CompletionBatch:
    """An abstract batch of these shapes, its rows sharded over the mesh."""
    rows = _rows_on(mesh)
    return CompletionBatch(
        prompt=rows((shapes.B, shapes.P), jnp.int32),
        prompt_length=rows((shapes.B,), jnp.int32),
        response=rows((shapes.N, shapes.R), jnp.int32),
        response_mask=rows((shapes.N, shapes.R), jnp.float32),
    )


def decoder_weights(config: ConfigDict, policy: Policy, mesh: Mesh) -> dict:
    """The abstract weights that the rollout decodes with."""
    weights = config.rollout.weights
    copy = functools.partial(decoder_variables, policy.model, weights)
    return _placed(jax.eval_shape(copy, policy.variables), decoder_shardings(policy.model, weights, mesh))


def prefill(config: ConfigDict, policy: Policy, mesh: Mesh, shapes: Shapes) -> jax.stages.Lowered:
    """The rollout's prefill: prompts -> decoding state with the prompts' keys and values."""
    rows = _rows_on(mesh)
    of_prompt = rows((shapes.B,), jnp.int32)
    return _engine(config, policy, mesh)._fill.lower(
        decoder_weights(config, policy, mesh),
        Prompts(rows((shapes.B, shapes.P), jnp.int32), of_prompt, of_prompt),
        of_prompt,
        jax.eval_shape(lambda: jax.random.key(0)),
        samples=shapes.G,
    )


def decode(
    config: ConfigDict, policy: Policy, mesh: Mesh, prefilled: jax.stages.Compiled
) -> jax.stages.Lowered:
    """The rollout's decode of one chunk of tokens; its input has the shapes and shardings that `prefill`
    returns."""
    state = _placed(prefilled.out_info, prefilled.output_shardings)
    return _engine(config, policy, mesh)._decode.lower(decoder_weights(config, policy, mesh), state)


def _placed(shapes, shardings):
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def _engine(config: ConfigDict, policy: Policy, mesh: Mesh) -> Engine:
    return Engine(policy.model, 0, RolloutConfig.read(config.rollout), mesh)


def _abstract_state(trainable: dict, optimizer, mesh: Mesh) -> TrainState:
    state = jax.eval_shape(lambda tree: TrainState.create(tree, optimizer), trainable)
    whole = replicated(mesh)

    def scalar(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)

    moments = optax.tree_utils.tree_map_params(
        optimizer, lambda _, like: like, state.opt_state, trainable, transform_non_params=scalar
    )
    return TrainState(scalar(state.step), trainable, moments)


def _rows_on(mesh: Mesh):
    split = batch_sharding(mesh)
    return lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=split)
