"""Data-sheet numbers of accelerators for plans; dense rates, without sparsity."""

import dataclasses
import re

from r2rec_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Device:
    """Data-sheet numbers of one device.

    memory: bytes that a program may use. flops: bfloat16 FLOPs per second, a multiply-add counts as two.
    bandwidth: of device memory, bytes per second. link: bytes per second to the other devices of the machine,
    one direction.
    """

    memory: float
    flops: float
    bandwidth: float
    link: float


# Memory is the number in the name, in decimal GB. The cards have about 7% more (80 GiB for "80G"), which the
# CUDA context, NCCL and fragmentation use. Link is half of NVLink's advertised sum of both directions.
DEVICES = {
    # NVIDIA A100 Tensor Core GPU data sheet (SXM, 2021): 312 TFLOPS, 1,555 and 2,039 GB/s, NVLink 600 GB/s.
    "A100-40G": Device(40e9, 312e12, 1555e9, 300e9),
    "A100-80G": Device(80e9, 312e12, 2039e9, 300e9),
    # NVIDIA H100 data sheet (SXM): 1,979 TFLOPS with sparsity, 3.35 TB/s, NVLink 900 GB/s.
    "H100-80G": Device(80e9, 989.4e12, 3350e9, 450e9),
    # NVIDIA H200 data sheet (SXM): as H100, 141 GB at 4.8 TB/s.
    "H200-141G": Device(141e9, 989.4e12, 4800e9, 450e9),
}

# Names as in jax.Device.device_kind. PCIe cards are slower than these data sheets and are not listed.
_KINDS = {
    "NVIDIA A100-SXM4-40GB": "A100-40G",
    "NVIDIA A100-SXM4-80GB": "A100-80G",
    "NVIDIA H100 80GB HBM3": "H100-80G",
    "NVIDIA H200": "H200-141G",
}


def data_sheet(kind: str) -> Device | None:
    """The data sheet of a `jax.Device.device_kind`; None if unknown."""
    name = _KINDS.get(kind)
    return DEVICES[name] if name else None


def parse_devices(text: str) -> tuple[int, str]:
    """("2xA100-80G") -> (2, "A100-80G"); one device when there is no count.

    Raises UserError for anything else, naming the known devices.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(.+)", text.strip())
    count = int(match[1] or 1) if match else 0
    if count < 1 or match[2] not in DEVICES:
        raise UserError(
            f"--devices={text}: write COUNTxNAME, e.g. 2xA100-80G, with one of {', '.join(DEVICES)}"
        )
    return count, match[2]
