"""Casts weights to another dtype. Rounding is allowed, overflow and non-finite values are errors."""

import ml_dtypes
import numpy as np

from r2rec_jax.runtime.errors import UserError

# Exponent bits of 16-bit floats. All of them are set only in infinities and NaNs.
_EXPONENT = {np.dtype(np.float16): 0x7C00, np.dtype(ml_dtypes.bfloat16): 0x7F80}


def cast(weights: np.ndarray, dtype, where: str) -> np.ndarray:
    """Casts floating-point `weights` to `dtype`. Returns the same array if it already has this dtype.

    Raises:
      UserError: a number is not finite, or out of the range of `dtype`. The message contains `where` (file
        and tensor) and the first such number.
    """
    with np.errstate(over="ignore"):
        out = weights.astype(dtype, copy=False)
    if out.size and not is_finite(out):
        value = float(weights[~np.isfinite(out.astype(np.float32))].flat[0])
        if np.isfinite(value):
            most = float(ml_dtypes.finfo(out.dtype).max)
            raise UserError(
                f"{where} has {value:g}, above {most:g}, the largest {out.dtype}: use bfloat16 or float32"
            )
        raise UserError(f"{where} has {value}, which is not a weight: fetch or make that file again")
    return out


def is_finite(weights: np.ndarray) -> bool:
    """Whether all weights are finite. 16-bit weights are tested by their bits, ten times as fast as NumPy."""
    if (exponent := _EXPONENT.get(weights.dtype)) is None:
        return bool(np.isfinite(weights).all())
    return bool((weights.view(np.uint16) & np.uint16(exponent)).max(initial=0) < exponent)
