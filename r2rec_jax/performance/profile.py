"""Computes a profile from a capture; launch.profile writes it to profile.json, launch.compare reads it."""

import dataclasses
import statistics
from collections import Counter, defaultdict

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from r2rec_jax.model.flops import Shapes, tokens, update_flops
from r2rec_jax.performance import plan, programs
from r2rec_jax.performance.capture import WINDOW, Capture, Step
from r2rec_jax.performance.hlo_operations import CONTAINERS, summary
from r2rec_jax.performance.scopes import NO_SCOPE
from r2rec_jax.performance.trace import gaps, overlap, union
from r2rec_jax.runtime.devices import Device, data_sheet

MOST_OPERATIONS = 30  # the slowest ones are listed


def make_profile(config: ConfigDict, mesh: Mesh, capture: Capture, ceilings: dict, compile_s: float) -> dict:
    """All measurements, per step and device, as a JSON-able dict in seconds, bytes and FLOPs.

    `ceilings`: "flops" and "bandwidth" of one device, per second. `compile_s`: seconds of all compilation
    since the start.
    """
    count, devices = len(capture.traced), max(1, len(capture.trace.devices))
    largest = max((step.shapes for step in capture.timed), key=lambda s: s.N * s.R + s.B * s.P)
    scopes, operations, of_programs = _shares(capture, count * devices, ceilings)
    before, during = capture.compiled
    return {
        "stage": config.stage,
        "model": config.model.folder or "config.model.architecture",
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "jax": jax.__version__,
        "shapes": dataclasses.asdict(largest) | {"N": largest.N},
        "padding": statistics.mean(step.padding for step in capture.timed),
        "steps": {
            "warmup_s": capture.warmup,
            "timed_s": [step.seconds for step in capture.timed],
            "traced_s": [step.seconds for step in capture.traced],
            "median_s": statistics.median(step.seconds for step in capture.timed),
        },
        "phases": _phases(capture),
        "ceilings": ceilings,
        "utilisation": _utilisation(config, mesh, capture.timed, ceilings),
        "memory": _memory(config, mesh, capture, largest),
        "compile": {"programs": before + during, "seconds": compile_s, "while_measured": during},
        "idle": _idle(capture),
        "programs": of_programs,
        "scopes": scopes,
        "operations": operations,
    }


def bound(flops: float, size: float, ceilings: dict) -> tuple[str, float]:
    """("compute" or "memory", seconds): the resource that limits this work, and its least time."""
    compute, memory = flops / ceilings["flops"], size / ceilings["bandwidth"]
    return ("compute", compute) if compute > memory else ("memory", memory)


def _shares(capture: Capture, per: int, ceilings: dict) -> tuple[list[dict], list[dict], list[dict]]:
    """(scopes, operations, programs) with time, FLOPs and bytes, the slowest first.

    FLOPs and bytes of an operation count once per run. An operation may launch several kernels; its number of
    runs is that of its most frequent kernel.
    """
    seconds, kernels = Counter(), Counter()
    for event in capture.trace.events:
        matched = capture.programs.get(event.program)
        operation = matched and matched.operations.get(event.op)
        if not (operation and operation.kind in CONTAINERS):
            seconds[event.program, event.op] += event.end - event.start
            kernels[event.program, event.op, event.kernel] += 1
    runs = Counter()
    for (program, op, _), times in kernels.items():
        runs[program, op] = max(runs[program, op], times)

    total = sum(seconds.values()) or 1.0
    by_scope, by_program, slowest = defaultdict(Counter), defaultdict(Counter), []
    for (program, op), taken in seconds.items():
        matched = capture.programs.get(program)
        operation = matched and matched.operations.get(op)
        scope, direction = (operation.scope, operation.direction) if operation else ((NO_SCOPE,), "forward")
        times = runs[program, op]
        costs = Counter(
            seconds=taken / per,
            flops=operation.flops * times / per if operation else 0.0,
            bytes=operation.bytes * times / per if operation else 0.0,
            uncounted_s=0.0 if operation and operation.known else taken / per,
        )
        name = _short(program[0])
        by_scope[name, scope, direction].update(costs)
        by_program[program].update(costs)
        slowest.append(
            {"program": name, "operation": op, "scope": "/".join(scope), "runs": times / per} | costs
        )

    def with_bound(costs: Counter) -> dict:
        by, best = bound(costs["flops"], costs["bytes"], ceilings)
        share = costs["seconds"] * per / total
        return dict(costs) | {"share": share, "bound": by, "at_best_s": best}

    scopes = [
        {"program": name, "scope": "/".join(scope), "direction": direction} | with_bound(costs)
        for (name, scope, direction), costs in by_scope.items()
    ]
    of_programs = [
        {"name": _short(program[0]), "bytes_held": capture.programs[program].bytes}
        | with_bound(costs)
        | {"hlo": summary(capture.programs[program].text)}
        for program, costs in by_program.items()
        if program in capture.programs
    ]

    def order(rows: list[dict]) -> list[dict]:
        return sorted(rows, key=lambda row: -row["seconds"])

    return order(scopes), order(slowest)[:MOST_OPERATIONS], order(of_programs)


def _short(module: str) -> str:
    return module.removeprefix("jit_").strip("_")


def _phases(capture: Capture) -> list[dict]:
    """Host seconds per step in each phase; "rest" is the remainder of the step."""
    step = statistics.mean(step.seconds for step in capture.timed)
    names = dict.fromkeys(name for step in capture.timed for name in step.phases)
    rows = {name: statistics.mean(step.phases.get(name, 0.0) for step in capture.timed) for name in names}
    rows["rest"] = step - sum(rows.values())
    return [{"name": name, "seconds": taken, "share": taken / step} for name, taken in rows.items()]


def _utilisation(config: ConfigDict, mesh: Mesh, steps: list[Step], ceilings: dict) -> dict:
    """MFU of the update, and for GRPO the rollout's share of its best possible speed; means over the steps.

    The update's MFU is closed-form model FLOPs (model/flops.py), padding included, over time and ceiling.
    GRPO times the update as its own phase; the other stages use the whole step. The rollout's best time is
    what its closed-form FLOPs and bytes need at the ceilings.
    """
    grpo = config.stage == "grpo"
    policy = programs.abstract_policy(config, mesh)
    c, peak = policy.model.config, ceilings["flops"] * mesh.size
    updates = config.grpo.updates_per_rollout if grpo else 1
    seconds = sum(step.phases["update"] if grpo else step.seconds for step in steps)

    def flops(frozen: bool) -> float:
        reference = grpo and config.grpo.beta > 0
        flops_of_steps = (update_flops(c, s.shapes, frozen=frozen, reference=reference) for s in steps)
        return updates * sum(flops_of_steps)

    count = sum((1 - step.padding) * tokens(step.shapes) for step in steps)
    of_update = {
        "seconds": seconds / len(steps),
        "tokens_per_s": updates * count / seconds,
        "lora": "lora" in policy.trainable,
    }
    for name, frozen in (("4n", True), ("6n", False)):
        of_update[f"flops_{name}"] = flops(frozen) / len(steps)
        of_update[f"mfu_{name}"] = flops(frozen) / seconds / peak
    if config.model.dtype == "bfloat16" and (sheet := data_sheet(jax.devices()[0].device_kind)):
        of_update["mfu_4n_of_data_sheet"] = flops(True) / seconds / (sheet.flops * mesh.size)
    result = {"update": of_update}
    if grpo:
        result["rollout"] = _rollout(config, policy, mesh, steps, ceilings)
    return result


def _rollout(config: ConfigDict, policy, mesh: Mesh, steps: list[Step], ceilings: dict) -> dict:
    device = Device(memory=0.0, flops=ceilings["flops"], bandwidth=ceilings["bandwidth"], link=float("inf"))
    prefill = decode = 0.0
    for step in steps:
        ran = dataclasses.replace(step.shapes, R=round(step.metrics["rollout/length_max"]))
        memory = plan.memory_of(config, policy, mesh, ran)
        prefill += plan.prefill_roofline(policy, mesh, ran, memory, 0.0, device).seconds
        decode += plan.decode_roofline(config, policy, mesh, ran, memory, 0.0, device).seconds
    seconds = sum(step.phases["rollout"] for step in steps)
    return {
        "seconds": seconds / len(steps),
        "tokens_per_s": sum(step.metrics["rollout/token_count"] for step in steps) / seconds,
        "at_best_s": (prefill + decode) / len(steps),
        "of_best": (prefill + decode) / seconds,
    }


def _memory(config: ConfigDict, mesh: Mesh, capture: Capture, shapes: Shapes) -> dict:
    """Peak memory of one device in bytes, and launch.plan's estimate for these shapes."""
    policy = programs.abstract_policy(config, mesh)
    shapes = dataclasses.replace(shapes, parts=config.train.micro_batches)
    result = {"predicted": plan.memory_of(config, policy, mesh, shapes).peak}
    if capture.memory and "peak_bytes_in_use" in capture.memory:
        return result | {"measured": capture.memory["peak_bytes_in_use"], "source": "the device's own count"}
    held = [program.bytes for program in capture.programs.values()]
    source = "XLA's plan of the largest program, with its arguments"
    return result | {"measured": max(held, default=0), "source": source}


def _idle(capture: Capture) -> dict:
    """Seconds per step in which the first device is idle, in total and by the host's phase."""
    trace, count = capture.trace, len(capture.traced)
    (window,) = trace.annotations[WINDOW]
    containers = {
        (program, op)
        for program, executable in capture.programs.items()
        for op, operation in executable.operations.items()
        if operation.kind in CONTAINERS
    }
    first = trace.devices[:1]
    busy = [
        (event.start, event.end)
        for event in trace.events
        if event.device in first and (event.program, event.op) not in containers
    ]
    free = gaps(busy, window)
    total = sum(end - start for start, end in free)
    by_phase = {
        name: overlap(free, union(at)) / count
        for name, at in trace.annotations.items()
        if name not in (WINDOW, "step")
    }
    by_phase["rest"] = total / count - sum(by_phase.values())
    return {
        "seconds": total / count,
        "share": total / (window[1] - window[0]),
        "longest_s": max((end - start for start, end in free), default=0.0),
        "by_phase": by_phase,
    }
