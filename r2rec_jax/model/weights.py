"""Loads a base model's weights from Hugging Face safetensors or from an orbax folder of `launch.convert`.

An orbax folder contains config.json, the tokenizer's files and `params`, an orbax checkpoint of the whole
tree in this project's layout.
"""

import functools
import gc
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
from flax import traverse_util
from orbax.checkpoint.experimental import v1 as ocp

from r2rec_jax.model.architecture import LlamaConfig, load_config
from r2rec_jax.model.huggingface import Leaf, abstract_params, misfits, read_params
from r2rec_jax.runtime.errors import UserError

PARAMS = "params"
# A device reads whole chunks for its slice. Small relative to a parameter, large enough for few requests.
COLLECT_BYTES = 32 << 20  # small next to a layer of a large model; a collection takes up to a second
CHUNK_BYTES = 64 << 20


def is_orbax(folder: str | Path) -> bool:
    return (Path(folder) / PARAMS).is_dir()


def load_weights(folder: str | Path, dtype, shardings=None) -> tuple[LlamaConfig, dict]:
    """Reads a folder of either format into a `params` tree. Arguments and errors as in `read_weights`."""
    config, leaves = read_weights(folder, dtype, shardings)
    return config, traverse_util.unflatten_dict(dict(leaves))


def read_weights(folder: str | Path, dtype, shardings=None) -> tuple[LlamaConfig, Iterator[Leaf]]:
    """Reads a folder of either format, one parameter at a time, to their shardings (see `read_params`).

    Raises:
      UserError: immediately, if the folder does not fit its config.json. During iteration, if orbax data are
        damaged, or a number is not finite or out of the range of `dtype`.
    """
    if not is_orbax(folder):
        return read_params(folder, dtype, shardings)
    config = load_config(folder)
    where = (Path(folder) / PARAMS).absolute()
    abstract = abstract_params(config)
    _check(where, abstract)
    placed = traverse_util.flatten_dict(shardings) if shardings is not None else {}
    return config, (
        (path, _read(where, path, leaf.shape, dtype, placed.get(path))) for path, leaf in abstract.items()
    )


def save_orbax(folder: Path, leaves: Iterable[Leaf]) -> None:
    """Writes `folder/params` with one parameter in memory at a time, which exists twice while it is written.

    No reader may open `folder` before this function returns.
    """
    where = (folder / PARAMS).absolute()
    options = ocp.Context()
    options.array.saving.storage_options.chunk_byte_size = CHUNK_BYTES
    options.array.saving.use_compression = False  # slow, and weights shrink only by a few percent
    options.memory.deepcopy_host_arrays = False  # the arrays do not change while orbax writes them
    with options:
        kept = 0
        for path, leaf in leaves:
            ocp.partial.save(where, traverse_util.unflatten_dict({path: leaf}))
            kept += leaf.nbytes
            del leaf  # frees its memory before the next one is made
            if kept >= COLLECT_BYTES:  # orbax keeps copies in reference cycles
                gc.collect()
                kept = 0
        ocp.partial.finalize(where)


def _check(where: Path, abstract: dict) -> None:
    try:
        stored = traverse_util.flatten_dict(ocp.metadata(where).metadata)
    except Exception as error:  # orbax passes on any exception of its layers
        raise _damaged(where, error) from error
    faults = misfits(
        {"/".join(path): tuple(array.shape) for path, array in stored.items()},
        {"/".join(path): leaf.shape for path, leaf in abstract.items()},
        {
            "wrong dtype": [
                f"{'/'.join(path)} {array.dtype} instead of a floating one"
                for path, array in stored.items()
                if not jax.numpy.issubdtype(array.dtype, jax.numpy.floating)
            ]
        },
    )
    if faults:
        raise UserError(f"{where} does not fit its config.json: {faults}; convert it again")


def _read(where: Path, path: tuple[str, ...], shape: tuple[int, ...], dtype, sharding) -> jax.Array:
    target = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = traverse_util.unflatten_dict({path: jax.ShapeDtypeStruct(shape, dtype, sharding=target)})
    options = ocp.Context()
    options.pytree.loading.partial_load = True
    try:
        with options:
            array = functools.reduce(dict.__getitem__, path, ocp.load(where, wanted))
    except Exception as error:  # orbax passes on any exception of its layers
        raise _damaged(where, error) from error
    if array.nbytes >= COLLECT_BYTES:  # orbax keeps a copy in a reference cycle
        gc.collect()
    if not _all_finite(array):
        raise UserError(
            f"{where}: {'/'.join(path)} contains numbers that are not finite in {array.dtype}: load it in "
            "another dtype, or convert it again"
        )
    return array.block_until_ready()


@jax.jit
def _all_finite(array: jax.Array) -> jax.Array:
    return jax.numpy.isfinite(array).all()


def _damaged(where: Path, error: Exception) -> UserError:
    cause = str(error.__cause__ or error).splitlines() or [type(error).__name__]
    return UserError(f"{where} is damaged ({cause[0][:200]}): convert it again")
