"""Parses optimised HLO text into computations and their instructions.

hlo_operations.py counts FLOPs and bytes of the instructions, hlo_collectives.py the bytes sent between
devices.
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
    """One instruction. kind: opcode. result: type as written. operands: names. line: the whole text line.
    root: whether its result is that of the computation."""

    name: str
    kind: str
    result: str
    operands: list[str]
    line: str
    root: bool

    @property
    def arrays(self) -> list[tuple[int, tuple[int, ...]]]:
        """(bits of an element, shape) of each array of the result."""
        arrays = []
        for dtype, sizes in _ARRAY.findall(self.result):
            digits = re.search(r"\d+", dtype)
            # s32, u8 and f8e4m3fn carry their width in the name; a token has none.
            bits = _BITS.get(dtype) or (int(digits[0]) if digits else 0)
            arrays.append((bits, tuple(map(int, filter(None, sizes.split(","))))))
        return arrays

    @property
    def bytes(self) -> float:
        """Bytes of the result."""
        return sum(bits * math.prod(shape) for bits, shape in self.arrays) / 8

    @property
    def op_name(self) -> str:
        """JAX's name of the operation that the instruction was made for; "" if the line has none."""
        match = _OP_NAME.search(self.line)
        return match[1] if match else ""


class HloProgram:
    """The parsed text of `compiled.as_text()`.

    computations: name -> instructions. by_name: all instructions. entry: name of the entry computation.
    """

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
                instruction = Instruction(name, kind, result, operands, line, bool(root))
                self.computations[inside].append(instruction)
                self.by_name[name] = instruction

    def operand(self, instruction: Instruction, k: int) -> Instruction:
        return self.by_name[instruction.operands[k]]
