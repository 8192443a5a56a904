"""The collectives of a compiled program, read from its HLO text; loops multiply by their trip counts."""

import collections
import dataclasses
import math
import re

from r2rec_jax.performance.hlo import HloProgram, Instruction

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations)=\{?((?:%?[\w.\-]+(?:, )?)+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    kind: one of KINDS. shapes: of the arrays it returns on one device, scalars as (). bytes: of those arrays.
    devices: size of a group. loop: trip counts of the enclosing loops, outermost first. times: executions
    per run of the program. computation: the one that contains it, such as a loop's body. source: JAX's
    op_name of the operation it was made for.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    devices: int
    loop: tuple[int, ...]
    computation: str
    source: str

    @property
    def times(self) -> int:
        return math.prod(self.loop)

    @property
    def wire_bytes(self) -> float:
        """Bytes a device sends over its links in one run of the program, by the ring algorithms."""
        n = self.devices
        factor = {
            "all-reduce": 2 * (n - 1) / n,
            "all-gather": (n - 1) / n,
            "reduce-scatter": n - 1,  # `bytes` is the scattered result
            "all-to-all": (n - 1) / n,
            "collective-permute": 1,
        }[self.kind]
        return factor * self.bytes * self.times


def collectives(text: str) -> list[Collective]:
    """The collectives of `compiled.as_text()`, in the text's order.

    Raises ValueError for a collective in a loop whose trip count the HLO does not give.
    """
    program, result = HloProgram(text), []

    def visit(computation: str, loop: tuple):
        for instruction in program.computations[computation]:
            if instruction.kind.removesuffix("-start") in KINDS:
                if None in loop:
                    raise ValueError(
                        f"a collective in a loop of unknown trip count: {instruction.line.strip()[:200]}"
                    )
                result.append(_collective(instruction, loop, computation))
            inside = loop
            if instruction.kind == "while":
                trips = _TRIPS.search(instruction.line)
                inside = (*loop, int(trips[1]) if trips else None)
            for group in _CALLED.findall(instruction.line):
                for called in group.split(", "):
                    visit(called.strip("%"), inside)

    visit(program.entry, ())
    return result


def _collective(instruction: Instruction, loop: tuple[int, ...], computation: str) -> Collective:
    return Collective(
        kind=instruction.kind.removesuffix("-start"),
        shapes=tuple(shape for _, shape in instruction.arrays),
        bytes=int(instruction.bytes),
        devices=_devices(instruction.line),
        loop=loop,
        computation=computation,
        source=instruction.op_name,
    )


def _devices(line: str) -> int:
    """The group size, from any of the four forms of `replica_groups`:

    [4,2]<=[8]; {{0,1},{2,3}}; mesh['data'=4,'fsdp'=2] {'fsdp'}; mesh['data'=8] for the whole mesh.
    """
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\](?: \{([^}]*)\})?", line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        axes = re.findall(r"'(\w+)'", match[2]) if match[2] else sizes
        return math.prod(sizes[axis] for axis in axes)
    if "source_target_pairs" in line:
        return 2
    raise ValueError(f"no group size in: {line.strip()[:200]}")


def total_wire_bytes(text: str) -> dict[str, float]:
    """Bytes a device sends in one run of the program, by kind of collective."""
    totals = collections.Counter()
    for collective in collectives(text):
        totals[collective.kind] += collective.wire_bytes
    return dict(totals)
