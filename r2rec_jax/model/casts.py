"""Weights from one dtype into another: digits may be lost on the way, a number never."""

import ml_dtypes
import numpy as np

from r2rec_jax.runtime.errors import UserError

# Of each dtype that weights may have: the unsigned integer as wide, and its exponent's bits, all of which are
# set in an infinity and in a NaN alone.
_BITS = {
    np.dtype(np.float16): (np.uint16, 0x7C00),
    np.dtype(ml_dtypes.bfloat16): (np.uint16, 0x7F80),
    np.dtype(np.float32): (np.uint32, 0x7F800000),
    np.dtype(np.float64): (np.uint64, 0x7FF0000000000000),
}


def cast(weights: np.ndarray, dtype, where: str) -> np.ndarray:
    """Floating-point `weights` as `dtype`, the same array where they are that already.

    Raises UserError naming `where` (file and tensor) and the first number that is not finite, or is not in
    `dtype`.
    """
    with np.errstate(over="ignore"):
        out = weights.astype(dtype, copy=False)
    if out.size and not is_finite(out):
        value = float(weights[~np.isfinite(out.astype(np.float32))].flat[0])
        if np.isfinite(value):
            most = float(ml_dtypes.finfo(out.dtype).max)
            raise UserError(
                f"{where} holds {value:g}, and {out.dtype} ends at {most:g}: use bfloat16 or float32"
            )
        raise UserError(f"{where} holds {value}, which is no weight: fetch or make that file again")
    return out


def is_finite(weights: np.ndarray) -> bool:
    """Whether all are; by their bits, several times as fast as NumPy's own on bfloat16."""
    integer, exponent = _BITS[weights.dtype]
    return bool((weights.view(integer) & integer(exponent)).max(initial=0) < exponent)
