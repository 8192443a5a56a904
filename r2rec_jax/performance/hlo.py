"""The reader of optimised HLO text: computations and their instructions.

hlo_operations.py counts FLOPs and bytes in what it reads, hlo_collectives.py what devices send each other.
"""

import collections
import dataclasses
import math
import re

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}
_COMPUTATION = re.compile(r"^(ENTRY )?%?(\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?(\S+) = (.*?) ([a-z][a-z\d\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')


@dataclasses.dataclass
class Instruction:
    """One line. kind: its opcode. result: its type as written. operands: names. root: of its computation."""

    name: str
    kind: str
    result: str
    operands: list[str]
    line: str
    root: bool

    @property
    def arrays(self) -> list[tuple[int, tuple[int, ...]]]:
        """(bits of an element, shape) of each array of the result."""
        found = []
        for dtype, sizes in _ARRAY.findall(self.result):
            digits = re.search(r"\d+", dtype)
            bits = _BITS.get(dtype) or (
                int(digits[0]) if digits else 0
            )  # s32, u8, f8e4m3fn; a token has none
            found.append((bits, tuple(map(int, filter(None, sizes.split(","))))))
        return found

    @property
    def bytes(self) -> float:
        """Of the result."""
        return sum(bits * math.prod(shape) for bits, shape in self.arrays) / 8

    @property
    def op_name(self) -> str:
        """What JAX calls the operation that the instruction was made for, "" where it does not say."""
        match = _OP_NAME.search(self.line)
        return match[1] if match else ""


class HloProgram:
    """`compiled.as_text()`, read. computations: their instructions by name. by_name: all instructions.
    entry: the name of the computation that runs."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = collections.defaultdict(list)
        self.by_name: dict[str, Instruction] = {}
        self.entry = inside = ""
        for line in text.splitlines():
            if match := _COMPUTATION.match(line):
                inside = match[2]
                self.entry = inside if match[1] else self.entry
            elif match := _INSTRUCTION.match(line):
                root, name, result, kind, rest = match.groups()
                operands = re.findall(r"%([\w.\-]+)", rest.split(")")[0])
                one = Instruction(name, kind, result, operands, line, bool(root))
                self.computations[inside].append(one)
                self.by_name[name] = one

    def operand(self, one: Instruction, k: int) -> Instruction:
        return self.by_name[one.operands[k]]
