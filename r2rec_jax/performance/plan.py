"""Plans a run on given devices: parameters, FLOPs, memory, collectives, roofline times."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from r2rec_jax.model.attention import LARGEST_HEAD
from r2rec_jax.model.flops import (
    Roofline,
    Shapes,
    attention_flops,
    forward_flops,
    layer_parameters,
    roofline,
    tokens,
    update_flops,
)
from r2rec_jax.model.policy import Policy
from r2rec_jax.performance import programs
from r2rec_jax.performance.hlo_collectives import total_wire_bytes
from r2rec_jax.performance.memory import Memory, estimate, kv_cache_bytes
from r2rec_jax.runtime.devices import DEVICES, Device
from r2rec_jax.train.micro_batches import check_parts

MOST_PROMPTS = 1 << 14  # upper bound of the search for the largest batch


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One program, compiled ahead of time for this mesh by XLA for CPU; all numbers are for one device.

    arguments, temporary: bytes of memory. wire: bytes sent, by kind of collective.
    """

    arguments: int
    temporary: int
    wire: dict[str, float]


def compiled(program: jax.stages.Compiled) -> Compiled:
    memory = program.memory_analysis()
    wire = total_wire_bytes(program.as_text())
    return Compiled(memory.argument_size_in_bytes, memory.temp_size_in_bytes, wire)


def memory_of(config: ConfigDict, policy: Policy, mesh: Mesh, shapes: Shapes) -> Memory:
    """The analytical memory estimate for one GPU."""
    flash = (
        config.model.attention in ("auto", "cudnn")
        and jnp.dtype(policy.model.dtype).itemsize == 2
        and policy.model.config.head_dim <= LARGEST_HEAD
    )
    if config.stage != "grpo":
        return estimate(policy, mesh, shapes, scores=not flash)
    decoder, int8 = programs.decoder_weights(config, policy, mesh), config.rollout.cache == "int8"
    return estimate(policy, mesh, shapes, scores=not flash, decoder=decoder, int8_cache=int8)


def largest_batch(config: ConfigDict, policy: Policy, mesh: Mesh, shapes: Shapes, device: str) -> int:
    """The largest batch, in prompts per step, whose estimate fits `device`; 0 if none fits.

    The batch is a multiple of the data-parallel devices times the micro-batches.
    """
    unit = mesh.shape["data"] * mesh.shape["fsdp"] * shapes.parts

    def fits(units: int) -> bool:
        bigger = dataclasses.replace(shapes, B=units * unit)
        return memory_of(config, policy, mesh, bigger).peak <= DEVICES[device].memory

    low, high = 0, MOST_PROMPTS // unit + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * unit


def update_roofline(
    config: ConfigDict,
    policy: Policy,
    mesh: Mesh,
    shapes: Shapes,
    memory: Memory,
    wire: float,
    device: Device,
) -> Roofline:
    """The roofline of one update.

    Memory traffic: the weights are read once per pass, and saved activations are written and read once.
    """
    frozen, grpo = "lora" in policy.trainable, config.stage == "grpo"
    reference = grpo and config.grpo.beta > 0
    flops = update_flops(policy.model.config, shapes, frozen=frozen, reference=reference)
    passes = (2 if policy.model.remat == "none" else 3) + reference
    weights = memory.base if frozen else memory.adapter
    split = mesh.shape["fsdp"]  # each device reads the gathered weights in full
    traffic = shapes.parts * (passes * weights * split + 2 * memory.activations)
    return roofline(device, flops=flops / mesh.size, traffic=traffic, wire=wire)


def prefill_roofline(
    policy: Policy, mesh: Mesh, shapes: Shapes, memory: Memory, wire: float, device: Device
) -> Roofline:
    """The roofline of prefilling the KV cache with all prompts."""
    prompts = dataclasses.replace(shapes, G=0)
    flops = forward_flops(policy.model.config, prompts) / mesh.size
    traffic = memory.decoder + memory.kv_cache
    return roofline(device, flops=flops, traffic=traffic, wire=wire)


def decode_roofline(
    config: ConfigDict,
    policy: Policy,
    mesh: Mesh,
    shapes: Shapes,
    memory: Memory,
    wire: float,
    device: Device,
) -> Roofline:
    """The roofline of decoding all R tokens of every completion.

    Each decoded token reads the weights, the prompt's keys and values once per group, and on average half of
    its own row's. `wire`: bytes sent in one chunk.
    """
    c = policy.model.config
    forward = 2 * (layer_parameters(c) + c.hidden_size * c.vocab_size) * shapes.N * shapes.R
    attention = attention_flops(c, shapes) - attention_flops(c, dataclasses.replace(shapes, G=0))
    prompts = dataclasses.replace(shapes, G=0)
    prompts_only = kv_cache_bytes(policy.model, mesh, prompts, int8=config.rollout.cache == "int8")
    read = memory.decoder + (memory.kv_cache + prompts_only) / 2
    chunks = -(-shapes.R // config.rollout.chunk)
    return roofline(
        device,
        flops=(forward + attention) / mesh.size,
        traffic=shapes.R * read,
        wire=wire * chunks,
    )


def make_plan(config: ConfigDict, mesh: Mesh, device: str, progress=lambda _: None) -> dict:
    """The whole plan as a tree of plain numbers and strings.

    Compiles the update, the update of the largest batch if it differs, and GRPO's prefill and decode.
    `progress` is called with the program's name before each compilation.

    Raises UserError for a config that cannot be planned.
    """
    shapes = programs.shapes_of(config)
    policy = programs.abstract_policy(config, mesh)
    check_parts(shapes.B, shapes.parts, mesh)
    memory, most = (
        memory_of(config, policy, mesh, shapes),
        largest_batch(config, policy, mesh, shapes, device),
    )
    c = policy.model.config
    frozen = "lora" in policy.trainable
    grpo = config.stage == "grpo"
    flops = update_flops(c, shapes, frozen=frozen, reference=grpo and config.grpo.beta > 0)

    progress("update")
    results = {"update": compiled(programs.update(config, policy, mesh, shapes).compile())}
    times = {
        "update": update_roofline(
            config, policy, mesh, shapes, memory, sum(results["update"].wire.values()), DEVICES[device]
        )
    }
    if grpo:
        progress("prefill")
        prefilled = programs.prefill(config, policy, mesh, shapes).compile()
        results["prefill"] = compiled(prefilled)
        progress("decode")
        results["decode"] = compiled(programs.decode(config, policy, mesh, prefilled).compile())
        wires = {name: sum(results[name].wire.values()) for name in ("prefill", "decode")}
        times["prefill"] = prefill_roofline(policy, mesh, shapes, memory, wires["prefill"], DEVICES[device])
        times["decode"] = decode_roofline(
            config, policy, mesh, shapes, memory, wires["decode"], DEVICES[device]
        )
    if most and most != shapes.B:
        progress(f"update, batch_size {most}")
        larger = dataclasses.replace(shapes, B=most)
        results["update_largest_batch"] = compiled(programs.update(config, policy, mesh, larger).compile())

    def size(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    return {
        "stage": config.stage,
        "model": config.model.folder or "config.model.architecture",
        "device": device,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "shapes": dataclasses.asdict(shapes) | {"N": shapes.N},
        "parameters": {"model": size(policy.variables.get("params")), "trainable": size(policy.trainable)},
        "flops": {
            "update": flops,
            "update_a_token": flops / tokens(shapes),
            "forward_a_token": forward_flops(c, shapes) / tokens(shapes),
        },
        "bytes_a_device": dataclasses.asdict(memory)
        | {"update_peak": memory.update, "rollout_peak": memory.rollout if grpo else 0, "peak": memory.peak},
        "device_memory": DEVICES[device].memory,
        "fits": memory.peak <= DEVICES[device].memory,
        "largest_batch_size": most,
        "compiled": {name: dataclasses.asdict(program) for name, program in results.items()},
        "roofline": {
            name: dataclasses.asdict(time) | {"seconds": time.seconds, "bound": time.bound}
            for name, time in times.items()
        },
    }
