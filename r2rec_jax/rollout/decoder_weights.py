"""The sampler's own copy of a policy's weights, laid out for decoding and made anew each rollout.

A decoding step reads every weight to make one token, so its weights are worth a copy: each layer's
apart (a scan over stacked layers copies a slice before using it), whole along `fsdp` (else they are
gathered every token), and, on request, with the adapter added in and in int8.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax.sharding import Mesh, PartitionSpec

from r2rec_jax.model.llama import Llama, abstract_variables, layer_name
from r2rec_jax.model.quantize import quantize
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import RULES

WEIGHTS = ("adapter", "merged", "int8")


def decoder(model: Llama, weights: str) -> Llama:
    """The model that `decoder_variables` are of.

    `weights`: 'adapter' keeps base and adapter side by side: the trainer's own numbers, at the price of
    two small products a layer. 'merged' adds the adapter to the base, rounded to its dtype. 'int8' is that
    in int8, as model/quantize.py. What the last two change shows as the sampler's log-probabilities'
    distance from the trainer's.

    Raises UserError for an unknown name, or an int8 base, to which nothing can be added.
    """
    if weights not in WEIGHTS:
        raise UserError(f"rollout.weights={weights!r} is unknown: use one of {', '.join(WEIGHTS)}")
    if weights != "adapter" and model.int8:
        raise UserError(
            f"rollout.weights={weights} needs a base in floating point: use rollout.weights=adapter"
        )
    apart = model.clone(unrolled=True, remat="none")
    if weights == "adapter":
        return apart
    return apart.clone(lora=None, int8=weights == "int8")


def decoder_variables(model: Llama, weights: str, variables: dict) -> dict:
    """`variables` of `model` as those of `decoder(model, weights)`; pure, to be jitted."""
    base, lora = variables["params"], variables.get("lora")
    own = {name: tree for name, tree in variables.items() if name not in ("params", "lora")}
    own["params"] = _each_layer(base, model.config.num_hidden_layers)
    if lora is not None:
        own["lora"] = _each_layer(lora, model.config.num_hidden_layers)
    if weights != "adapter":
        own["params"] = _merged(own, model, weights)
        own.pop("lora", None)
    return own


def decoder_shardings(model: Llama, weights: str, mesh: Mesh) -> dict:
    """Where `decoder_variables` live: split over `tensor` alone."""
    specs = nn.get_partition_spec(abstract_variables(decoder(model, weights)))

    def whole(spec: PartitionSpec) -> PartitionSpec:
        return PartitionSpec(*("hidden" if name == "embed" else name for name in spec))

    specs = jax.tree.map(whole, specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
    return nn.logical_to_mesh_sharding(specs, mesh, RULES)


def _each_layer(tree: dict, layers: int) -> dict:
    rest = {name: leaf for name, leaf in tree.items() if name != "layers"}
    for number in range(layers):
        rest[layer_name(number)] = jax.tree.map(lambda leaf, at=number: leaf[at], tree["layers"])
    return rest


def _merged(variables: dict, model: Llama, weights: str) -> dict:
    adapters = traverse_util.flatten_dict(variables.get("lora", {}))
    params = {}
    for path, leaf in traverse_util.flatten_dict(variables["params"]).items():
        if (*path[:-1], "a") in adapters:
            a, b = (adapters[*path[:-1], side] for side in "ab")
            leaf = (leaf.astype(jnp.float32) + model.lora.scale * a @ b).astype(leaf.dtype)
        if weights == "int8" and path[-1] == "kernel":
            params[path], params[*path[:-1], "scale"] = quantize(leaf)
        else:
            params[path] = leaf
    return traverse_util.unflatten_dict(params)
