"""Workarounds for library bugs. Delete a function once its bug is fixed.

Each function names the library, the affected version, and the public issue if one was found. The module does
not import JAX or numpy at the top, because `environment.py` uses it before they are imported.

Workarounds that live elsewhere in the code:

jax 0.11.2, with its XLA
- model/attention.py `_flash`: `jax.nn.dot_product_attention(return_residual=True)` rounds the log-sum-exp to
  bfloat16 and drops its gradient, so the code calls the underlying function.
  https://github.com/jax-ml/jax/issues/32484 requested the residual.
- model/lora.py `Linear`: on CPU the gradient of a 3-D LoRA product is slow, so rows are flattened.
- model/cache.py `write`: a KV cache that is read before it is written is copied for every token.
- runtime/mesh.py `by_rows`: a loop over chunks of sharded rows runs all devices' chunks on each device.
- train/compile.py `place_state`: with one device per process, `device_put` of a device array makes arrays
  that cannot be saved, so they are copied through the host.
- runtime/distributed.py `Vote`: JAX's preemption notice handles only SIGTERM, and hides it from
  other handlers.
- cli/signals.py `was_received`: a KeyboardInterrupt during tracing surfaces as another error.

CPython 3.12
- cli/signals.py `leave`: a native thread that takes the GIL at interpreter exit is unwound, and C++ aborts
  the process. Later versions hang the thread: https://github.com/python/cpython/pull/105805.

orbax-checkpoint 0.12.8, with its tensorstore
- runtime/checkpoint.py `Checkpointer.__init__`: one damaged folder makes listing all steps fail
  (`lightweight_initialize`), and the manager's reads wait for processes that stopped at a damaged file, so
  each process has its own reader.
- model/weights.py `save_orbax`, `_read`: a copy of each array stays alive in a reference cycle, so
  `gc.collect` is called.
- cli/command.py `_report`: after a failed write, "Event loop is closed" is raised where it cannot be caught.
- runtime/errors.py `disk_fault`: the errno is only in the text of another error (also safetensors 0.8.0;
  numpy 2.5.5 drops it).

safetensors 0.8.0
- model/shards.py `write_tensors`: files are readable only by their owner.
  https://github.com/safetensors/safetensors/issues/782
- model/shards.py `read_slice`: without a memory map, any slice reads the whole tensor.

duckdb 2.0.0
- data/columns.py `require_whole`: a last line longer than the buffer is dropped silently.
  https://github.com/duckdb/duckdb/issues/25825
- data/raw_files.py `Stage.execute`: an interrupted query raises RuntimeError, not KeyboardInterrupt.
  https://github.com/duckdb/duckdb/pull/5487 shows that this is intended.
- data/raw_files.py `_explain`: an error in JSON reports the number of the next line.

numba 0.68.1
- chains/counting_sort.py: numba's "workqueue" threading layer must not be used by two threads at once.
  https://github.com/numba/numba/issues/8563

ml_collections 1.1.0
- cli/overrides.py `quoted`: the flag `--config.systems.sft+grpo.mode` is parsed as a sum.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def drop_torn_programs(folder: Path) -> None:
    """Removes truncated programs from JAX's compilation cache, left by a killed process or a full disk.

    jax 0.11.2 writes its cache in place. It warns of a truncated program at every start, compiles it again
    and never overwrites it. The function checks only files written since the last check. No public issue
    found; https://github.com/jax-ml/jax/issues/39880 is another effect of such writes.
    """
    marker, now = folder / ".looked-at", time.time_ns()
    with contextlib.suppress(OSError):  # the folder is missing or read-only
        since = marker.stat().st_mtime_ns if marker.exists() else 0
        for path in folder.glob("*-cache"):
            if path.stat().st_mtime_ns >= since and _is_torn(path.read_bytes()):
                path.unlink(missing_ok=True)
        marker.touch()
        os.utime(marker, ns=(now, now))


def _is_torn(data: bytes) -> bool:
    """Whether `data` is empty or a truncated zlib stream, the format that JAX writes without zstandard."""
    if data[:1] not in (b"", b"\x78"):
        return False
    try:
        zlib.decompress(data)
    except zlib.error:
        return True
    return False


def start_resource_tracker() -> None:
    """Starts `multiprocessing`'s resource tracker in its own session, unless one is running; call it early.

    The tracker removes shared memory and semaphores once all processes of a run have ended. CPython 3.12
    starts it in the process group of the run. A signal that kills the group kills the tracker too, and shared
    memory stays in /dev/shm until a reboot. No CPython issue found; another project describes it:
    https://github.com/sgl-project/sglang/pull/28089.
    """
    from multiprocessing import resource_tracker

    tracker = resource_tracker._resource_tracker
    if tracker._fd is not None:
        return
    reader, writer = os.pipe()
    program = f"from multiprocessing.resource_tracker import main; main({reader})"
    process = subprocess.Popen(
        # Its warnings after a killed run need no action.
        [sys.executable, "-W", "ignore", "-c", program],
        stdin=subprocess.DEVNULL,
        pass_fds=[reader],
        start_new_session=True,
    )
    os.close(reader)
    # `multiprocessing` reads these two attributes and passes them to child processes.
    tracker._fd, tracker._pid = writer, process.pid


def end_with_parent() -> None:
    """Makes this `multiprocessing` worker exit when its parent ends for any reason.

    CPython 3.12 ends daemonic workers when their parent exits, but not when it is killed. grain 0.2.18's
    workers then wait forever. No public issue found.
    """
    import multiprocessing

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def let_grain_read_flags() -> None:
    """Marks absl's flags as parsed, for callers that are not commands.

    grain 0.2.18 reads one of its flags when it starts workers, and absl raises if no flags have been parsed.
    https://github.com/google/grain/pull/1361 fixes it.
    """
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def pack(batch: object) -> "np.ndarray":
    """A batch as one uint8[bytes] array, which grain sends through shared memory; `unpack` reads it.

    grain 0.2.18 sends everything but arrays through a pipe, and a worker cannot exit until the pipe has been
    read. Python documents this for its queues ("Joining processes that use queues"). No public grain issue
    found.
    """
    import numpy as np

    return np.frombuffer(pickle.dumps(batch), np.uint8)


def unpack(packed: "np.ndarray") -> Any:
    """Inverse of `pack`. The pickle comes from this run's own workers, never from a file or the network."""
    return pickle.loads(packed.data)


def probe_folder(folder: Path, name: str) -> None:
    """Creates and removes a folder in `folder`, to raise an OSError early if the disk is full or read-only.

    In orbax-checkpoint 0.12.8 the error occurs in a background thread, and the saving thread waits for
    minutes for the folder. No public issue found.
    """
    probe = folder / f".probe-{name}"
    probe.mkdir(exist_ok=True)
    probe.rmdir()


def own_buffers(state: Any) -> Any:
    """Copies a pytree of arrays to buffers that XLA owns, so that they can be donated.

    Arrays restored by orbax-checkpoint 0.12.8 may use memory of its reader, which a donation silently copies.
    No public issue found.
    """
    import jax

    # Leaf by leaf, because one program would need all leaves on the same devices.
    return jax.tree.map(lambda leaf: leaf.copy(), state)
