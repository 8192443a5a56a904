"""How long an update's arithmetic would take at the device's peak: what a run's MFU is measured against."""

import jax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.model.policy import Policy
from r2rec_jax.plan import cost
from r2rec_jax.plan.ceilings import matmul_flops
from r2rec_jax.plan.devices import data_sheet
from r2rec_jax.plan.programs import Shapes

QUICK_S = 0.005  # a product that long is near enough to the peak, and the start of a run does not notice it


def peak_flops(dtype: str) -> float:
    """FLOPs a second of one device: the data sheet's where it is known and `dtype` is bfloat16, else those of
    a matrix product measured now."""
    kind = jax.local_devices()[0].device_kind
    sheet = data_sheet(kind) if dtype == "bfloat16" else None
    peak = sheet.flops if sheet else matmul_flops(dtype, QUICK_S)
    source = "its data sheet" if sheet else f"a product of {dtype} measured here"
    logging.info("MFU is of %.4g TFLOP/s, by %s (%s)", peak / 1e12, source, kind)
    return peak


class AtBest:
    """Seconds that the update of a batch needs at the peak of all devices: MFU is these over those it took.

    The closed form of plan/cost.py: 4N FLOPs a token over frozen weights, else 6N, and attention; padding is
    counted, recomputation is not.
    """

    def __init__(self, config: ConfigDict, policy: Policy, mesh: Mesh):
        self._model = policy.model.config
        self._frozen = "lora" in policy.trainable
        self._reference = config.stage == "grpo" and config.grpo.beta > 0
        self._flops = peak_flops(config.model.dtype) * mesh.size

    def __call__(self, batch: CompletionBatch) -> float:
        (B, P), (N, R) = batch.prompt.shape, batch.response.shape
        shapes = Shapes(B, N // B, P, R)
        flops = cost.update_flops(self._model, shapes, frozen=self._frozen, reference=self._reference)
        return flops / self._flops
