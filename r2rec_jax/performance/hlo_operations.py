"""The operations of a compiled program, with named scope, FLOPs and memory traffic.

The source is the text of the optimised HLO. FLOPs count matrix products only, with a multiply-add as two.
Bytes count each operand and result once. A sliced operand counts as its slice, an in-place update as the
updated part. Real memory traffic may be lower where a cache serves a read.
"""

import collections
import dataclasses
import math
import re

from r2rec_jax.performance.hlo import HloProgram, Instruction
from r2rec_jax.performance.hlo_collectives import total_wire_bytes
from r2rec_jax.performance.scopes import NO_SCOPE, scope_of

# Operations that contain other operations; only the inner ones are counted.
CONTAINERS = ("while", "conditional", "call")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id")
_SLICES = ("dynamic-slice", "slice", "gather")
# In-place updates -> index of the operand with the new values.
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}

_CALLS = re.compile(r"calls=%?([\w.\-]+)")
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]"?([\d,"]*)')


@dataclasses.dataclass(frozen=True)
class Operation:
    """The costs of one execution.

    flops, bytes: see the module. scope, direction: see `scope_of`. known: False for a library call whose
    FLOPs the HLO text does not give, such as cuDNN's attention.
    """

    kind: str
    scope: tuple[str, ...]
    direction: str
    flops: float
    bytes: float
    known: bool = True


def operations(text: str) -> dict[str, Operation]:
    """The operations that a device runs separately, by name; a fusion is one. `text` is the HLO text."""
    program = HloProgram(text)
    fused = {match for line in text.splitlines() if " fusion(" in line for match in _CALLS.findall(line)}
    result = {}
    for name, instructions in program.computations.items():
        if name in fused:
            continue
        for instruction in instructions:
            if instruction.kind in _FREE:
                continue
            scope, direction = scope_of(_op_name(program, instruction))
            if scope == (NO_SCOPE,):
                scope = (f"{NO_SCOPE} {instruction.kind}",)
            if instruction.kind in CONTAINERS:
                result[instruction.name] = Operation(instruction.kind, scope, direction, 0.0, 0.0)
                continue
            flops = _flops(program, instruction)
            result[instruction.name] = Operation(
                instruction.kind,
                scope,
                direction,
                flops or 0.0,
                _bytes(program, instruction),
                known=flops is not None,
            )
    return result


def summary(text: str) -> dict[str, float]:
    """Counts that show how the compiler changed a program.

    They are the numbers of operations, fusions, copies and library calls, the bytes of copies, and the bytes
    sent by each kind of collective ("sent: all-reduce"). A loop's body counts once, except in the bytes sent,
    which count every iteration.
    """
    every = operations(text).values()
    counts = collections.Counter(operation.kind for operation in every)
    copies = [operation for operation in every if operation.kind.startswith("copy")]
    return {
        "operations": len(every),
        "fusions": counts["fusion"],
        "library calls": counts["custom-call"],
        "copies": len(copies),
        "bytes of copies": sum(copy.bytes for copy in copies) / 2,
    } | {f"sent: {kind}": size for kind, size in total_wire_bytes(text).items()}


def _called(program: HloProgram, instruction: Instruction) -> list[Instruction]:
    match = _CALLS.search(instruction.line)
    return program.computations[match[1]] if match else []


def _op_name(program: HloProgram, instruction: Instruction) -> str:
    """The instruction's op_name; if it is a fusion without one, the last op_name inside the fusion."""
    return next(
        (each.op_name for each in (instruction, *reversed(_called(program, instruction))) if each.op_name), ""
    )


def _flops(program: HloProgram, instruction: Instruction) -> float | None:
    """FLOPs of one execution; None for a library call, whose FLOPs are unknown."""
    if instruction.kind == "dot" or "gemm_backend_config" in instruction.line:
        of_lhs = program.operand(instruction, 0).arrays[0][1]
        dims = [int(dim) for dim in re.findall(r"\d+", _CONTRACTED.search(instruction.line)[1])]
        return 2.0 * math.prod(instruction.arrays[0][1]) * math.prod(of_lhs[dim] for dim in dims)
    if instruction.kind == "custom-call":
        return None
    return (
        sum(_flops(program, each) or 0.0 for each in _called(program, instruction))
        if instruction.kind == "fusion"
        else 0.0
    )


def _bytes(program: HloProgram, instruction: Instruction) -> float:
    if instruction.kind == "fusion":
        inner = _called(program, instruction)
        users = collections.defaultdict(list)
        for each in inner:
            for name in each.operands:
                users[name].append(each)
        read = sum(_read(program, each, users) for each in inner if each.kind == "parameter")
        return read + sum(_written(program, each) for each in inner if each.root)
    if instruction.kind in _SLICES:
        return 2.0 * instruction.bytes
    if instruction.kind in _UPDATES:
        return 2.0 * _written(program, instruction)
    return instruction.bytes + sum(program.by_name[name].bytes for name in instruction.operands)


def _read(program: HloProgram, instruction: Instruction, users: dict) -> float:
    """Bytes of a fusion's parameter that its instructions read."""
    total = 0.0
    for user in users[instruction.name]:
        if user.kind in ("bitcast", "get-tuple-element"):
            total += _read(program, user, users)
        elif user.kind in _SLICES and user.operands[0] == instruction.name:
            total += user.bytes
        elif not (user.kind in _UPDATES and user.operands[0] == instruction.name):
            return instruction.bytes
    return min(total, instruction.bytes)


def _written(program: HloProgram, instruction: Instruction) -> float:
    if instruction.kind == "tuple":
        return sum(_written(program, program.by_name[name]) for name in instruction.operands)
    if instruction.kind == "bitcast":
        return _written(program, program.operand(instruction, 0))
    if instruction.kind in _UPDATES:
        return program.operand(instruction, _UPDATES[instruction.kind]).bytes
    return instruction.bytes
