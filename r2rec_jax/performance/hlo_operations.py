"""The operations of a compiled program: where each comes from in the source, its arithmetic, its traffic.

Read from the text of the optimised HLO. FLOPs are those of matrix products, a multiply-add counted as two.
Bytes are those of operands and results once: what a fusion slices counts as the slice, what is updated in
place as the update. A cache may keep some of that from memory.
"""

import collections
import dataclasses
import math
import re

from r2rec_jax.performance.hlo import HloProgram, Instruction
from r2rec_jax.performance.hlo_collectives import total_wire_bytes
from r2rec_jax.performance.scopes import NO_SCOPE, scope_of

# They hold others, which are counted by themselves.
CONTAINERS = ("while", "conditional", "call")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id")
_SLICES = ("dynamic-slice", "slice", "gather")
# In place, with the operand that holds what is written.
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}

_CALLS = re.compile(r"calls=%?([\w.\-]+)")
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]"?([\d,"]*)')


@dataclasses.dataclass(frozen=True)
class Operation:
    """What one execution does. flops, bytes: see above. scope, direction: see `scope_of`. known: False for a
    call of a library that this file cannot count, such as cuDNN's attention."""

    kind: str
    scope: tuple[str, ...]
    direction: str
    flops: float
    bytes: float
    known: bool = True


def operations(text: str) -> dict[str, Operation]:
    """The operations of `compiled.as_text()` that a device runs one by one, by name."""
    program = HloProgram(text)
    fused = {match for line in text.splitlines() if " fusion(" in line for match in _CALLS.findall(line)}
    found = {}
    for name, instructions in program.computations.items():
        if name in fused:
            continue
        for one in instructions:
            if one.kind in _FREE:
                continue
            scope, direction = scope_of(_op_name(program, one))
            if scope == (NO_SCOPE,):
                scope = (f"{NO_SCOPE} {one.kind}",)
            if one.kind in CONTAINERS:
                found[one.name] = Operation(one.kind, scope, direction, 0.0, 0.0)
                continue
            flops = _flops(program, one)
            known = flops is not None
            found[one.name] = Operation(one.kind, scope, direction, flops or 0.0, _bytes(program, one), known)
    return found


def summary(text: str) -> dict[str, float]:
    """What a change of the compiler's mind shows in: numbers of operations, fusions, copies and library
    calls, bytes of copies, and bytes sent by each kind of collective ("sent: all-reduce").

    A loop's body counts once, but for what is sent, which counts as often as it runs.
    """
    found = operations(text).values()
    counts = collections.Counter(one.kind for one in found)
    copies = [one for one in found if one.kind.startswith("copy")]
    return {
        "operations": len(found),
        "fusions": counts["fusion"],
        "library calls": counts["custom-call"],
        "copies": len(copies),
        "bytes of copies": sum(one.bytes for one in copies) / 2,
    } | {f"sent: {kind}": size for kind, size in total_wire_bytes(text).items()}


def _called(program: HloProgram, one: Instruction) -> list[Instruction]:
    match = _CALLS.search(one.line)
    return program.computations[match[1]] if match else []


def _op_name(program: HloProgram, one: Instruction) -> str:
    """That of the instruction, or of the last thing that a fusion without one computes."""
    return next((each.op_name for each in (one, *reversed(_called(program, one))) if each.op_name), "")


def _flops(program: HloProgram, one: Instruction) -> float | None:
    """None where they cannot be known."""
    if one.kind == "dot" or "gemm_backend_config" in one.line:
        of_lhs = program.operand(one, 0).arrays[0][1]
        dims = [int(dim) for dim in re.findall(r"\d+", _CONTRACTED.search(one.line)[1])]
        return 2.0 * math.prod(one.arrays[0][1]) * math.prod(of_lhs[dim] for dim in dims)
    if one.kind == "custom-call":
        return None
    return (
        sum(_flops(program, each) or 0.0 for each in _called(program, one)) if one.kind == "fusion" else 0.0
    )


def _bytes(program: HloProgram, one: Instruction) -> float:
    if one.kind == "fusion":
        inner = _called(program, one)
        users = collections.defaultdict(list)
        for each in inner:
            for name in each.operands:
                users[name].append(each)
        read = sum(_read(program, each, users) for each in inner if each.kind == "parameter")
        return read + sum(_written(program, each) for each in inner if each.root)
    if one.kind in _SLICES:
        return 2.0 * one.bytes
    if one.kind in _UPDATES:
        return 2.0 * _written(program, one)
    return one.bytes + sum(program.by_name[name].bytes for name in one.operands)


def _read(program: HloProgram, one: Instruction, users: dict) -> float:
    """Bytes of a fusion's parameter that its instructions look at."""
    total = 0.0
    for user in users[one.name]:
        if user.kind in ("bitcast", "get-tuple-element"):
            total += _read(program, user, users)
        elif user.kind in _SLICES and user.operands[0] == one.name:
            total += user.bytes
        elif not (user.kind in _UPDATES and user.operands[0] == one.name):
            return one.bytes
    return min(total, one.bytes)


def _written(program: HloProgram, one: Instruction) -> float:
    if one.kind == "tuple":
        return sum(_written(program, program.by_name[name]) for name in one.operands)
    if one.kind == "bitcast":
        return _written(program, program.operand(one, 0))
    if one.kind in _UPDATES:
        return program.operand(one, _UPDATES[one.kind]).bytes
    return one.bytes
