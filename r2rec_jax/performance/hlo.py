"""The operations of a compiled program: where each comes from in the source, its arithmetic, its traffic.

Read from the text of the optimised HLO. FLOPs are those of matrix products, a multiply-add counted as two.
Bytes are those of operands and results once: what a fusion slices counts as the slice, what is updated in
place as the update. A cache may keep some of that from memory.
"""

import collections
import dataclasses
import math
import re

from r2rec_jax.performance.hlo_collectives import total_wire_bytes
from r2rec_jax.performance.scopes import NO_SCOPE, scope_of

# They hold others, which are counted by themselves.
CONTAINERS = ("while", "conditional", "call")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id")
_SLICES = ("dynamic-slice", "slice", "gather")
# In place, with the operand that holds what is written.
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?(\S+) = (.*?) ([a-z][a-z\d\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
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


@dataclasses.dataclass
class _Instruction:
    name: str
    kind: str
    result: str
    operands: list[str]
    line: str
    root: bool

    @property
    def arrays(self) -> list[tuple[int, tuple[int, ...]]]:
        return _arrays(self.result)


class _Program:
    def __init__(self, text: str):
        self.computations = collections.defaultdict(list)
        self.by_name = {}
        inside = ""
        for line in text.splitlines():
            if match := _COMPUTATION.match(line):
                inside = match[1]
            elif match := _INSTRUCTION.match(line):
                root, name, result, kind, rest = match.groups()
                operands = re.findall(r"%([\w.\-]+)", rest.split(")")[0])
                one = _Instruction(name, kind, result, operands, line, bool(root))
                self.computations[inside].append(one)
                self.by_name[name] = one

    def operand(self, one: _Instruction, k: int) -> _Instruction:
        return self.by_name[one.operands[k]]

    def called(self, one: _Instruction) -> list[_Instruction]:
        match = _CALLS.search(one.line)
        return self.computations[match[1]] if match else []


def operations(text: str) -> dict[str, Operation]:
    """The operations of `compiled.as_text()` that a device runs one by one, by name."""
    program = _Program(text)
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


def _op_name(program: _Program, one: _Instruction) -> str:
    """That of the instruction, or of the last thing that a fusion without one computes."""
    for each in (one, *reversed(program.called(one))):
        if match := _OP_NAME.search(each.line):
            return match[1]
    return ""


def _flops(program: _Program, one: _Instruction) -> float | None:
    """None where they cannot be known."""
    if one.kind == "dot" or "gemm_backend_config" in one.line:
        of_lhs = program.operand(one, 0).arrays[0][1]
        dims = [int(dim) for dim in re.findall(r"\d+", _CONTRACTED.search(one.line)[1])]
        return 2.0 * math.prod(one.arrays[0][1]) * math.prod(of_lhs[dim] for dim in dims)
    if one.kind == "custom-call":
        return None
    return sum(_flops(program, each) or 0.0 for each in program.called(one)) if one.kind == "fusion" else 0.0


def _bytes(program: _Program, one: _Instruction) -> float:
    if one.kind == "fusion":
        inner = program.called(one)
        users = collections.defaultdict(list)
        for each in inner:
            for name in each.operands:
                users[name].append(each)
        read = sum(_read(program, each, users) for each in inner if each.kind == "parameter")
        return read + sum(_written(program, each) for each in inner if each.root)
    if one.kind in _SLICES:
        return 2.0 * _size(one)
    if one.kind in _UPDATES:
        return 2.0 * _written(program, one)
    return _size(one) + sum(_size(program.by_name[name]) for name in one.operands)


def _read(program: _Program, one: _Instruction, users: dict) -> float:
    """Bytes of a fusion's parameter that its instructions look at."""
    total = 0.0
    for user in users[one.name]:
        if user.kind in ("bitcast", "get-tuple-element"):
            total += _read(program, user, users)
        elif user.kind in _SLICES and user.operands[0] == one.name:
            total += _size(user)
        elif not (user.kind in _UPDATES and user.operands[0] == one.name):
            return _size(one)
    return min(total, _size(one))


def _written(program: _Program, one: _Instruction) -> float:
    if one.kind == "tuple":
        return sum(_written(program, program.by_name[name]) for name in one.operands)
    if one.kind == "bitcast":
        return _written(program, program.operand(one, 0))
    if one.kind in _UPDATES:
        return _size(program.operand(one, _UPDATES[one.kind]))
    return _size(one)


def _size(one: _Instruction) -> float:
    return sum(bits * math.prod(shape) for bits, shape in one.arrays) / 8


def _arrays(text: str) -> list[tuple[int, tuple[int, ...]]]:
    """(bits, shape) of each array of a result's type."""
    found = []
    for dtype, sizes in _ARRAY.findall(text):
        digits = re.search(r"\d+", dtype)
        bits = _BITS.get(dtype) or (int(digits[0]) if digits else 0)  # s32, u8, f8e4m3fn; a token has none
        found.append((bits, tuple(map(int, filter(None, sizes.split(","))))))
    return found
