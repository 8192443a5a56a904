"""What works around faults of libraries, in one place: delete a function when its fault is gone.

Each function names the library, the version that shows the fault, and the public thread, where one was found.
Nothing here imports JAX or numpy with the module: `environment.py` uses it before they are imported.

Workarounds that are inseparable from their place (a public thread is named where one was found):

jax 0.11.2, with its XLA
- model/attention.py `_flash`: `jax.nn.dot_product_attention(return_residual=True)` rounds the log-sum-exp to
  bfloat16 and drops its gradient, so the function beneath it is called.
  https://github.com/jax-ml/jax/issues/32484 asked for the residual.
- model/lora.py `Linear`: on CPU the gradient of a 3-D LoRA product takes a slow path, so rows are flat.
- model/cache.py `write`: a KV cache that is read before it is written is copied whole, every token.
- runtime/mesh.py `by_rows`: a loop over chunks of split rows runs over all devices' chunks on each device.
- train/compile.py `place_state`: from a device's array, with one device a process, `device_put` makes arrays
  that cannot be saved, so they go by the host.
- runtime/distributed.py `Vote`: JAX's notice of preemption takes SIGTERM alone, and keeps it from others.
- cli/signals.py `was_asked`: a KeyboardInterrupt within tracing comes out as another error.

CPython 3.12
- cli/signals.py `leave`: a native thread that takes the GIL at the interpreter's end is unwound, and C++ ends
  the process. Later versions hang the thread: https://github.com/python/cpython/pull/105805.

orbax-checkpoint 0.12.8, with its tensorstore
- runtime/checkpoint.py `Checkpointer.__init__`: one damaged folder keeps all steps from being listed
  (`lightweight_initialize`), and the manager's reading waits for processes that met damage (a reader each).
- model/weights.py `save_orbax`, `_read`: a copy of each array stays in a reference cycle (`gc.collect`).
- cli/command.py `_report`: after one refused write, "Event loop is closed" is raised where none can catch it.
- runtime/errors.py `disk_fault`: the errno is in the text of another error alone (so with safetensors 0.8.0;
  numpy 2.5.5 loses it).

safetensors 0.8.0
- model/shards.py `write_tensors`: files are readable by their owner alone.
  https://github.com/safetensors/safetensors/issues/782
- model/shards.py `read_slice`: without a map, any slice reads the whole tensor.

duckdb 2.0.0
- data/columns.py `require_whole`: a last line longer than the buffer is dropped in silence.
  https://github.com/duckdb/duckdb/issues/25825
- data/raw_files.py `Stage.execute`: an interrupted query raises RuntimeError, not KeyboardInterrupt.
  https://github.com/duckdb/duckdb/pull/5487 shows that this is meant.
- data/raw_files.py `_explain`: an error in JSON names the line after its own.

numba 0.68.1
- chains/counting_sort.py: numba's own threads ("workqueue") may not be entered by two threads at once.
  https://github.com/numba/numba/issues/8563

ml_collections 1.1.0
- cli/overrides.py `quoted`: the flag `--config.systems.sft+grpo.mode` is read as a sum.
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
    """Removes compiled programs of which a process that was killed, or a full disk, has left a part.

    jax 0.11.2 writes its compilation cache in place. It warns of a torn program at every start, compiles it
    again and never writes over it. Looked at is what has been written since the last look. No public issue
    found; https://github.com/jax-ml/jax/issues/39880 is another effect of such writes.
    """
    looked, now = folder / ".looked-at", time.time_ns()
    with contextlib.suppress(OSError):  # no folder yet, or one that is read only
        since = looked.stat().st_mtime_ns if looked.exists() else 0
        for path in folder.glob("*-cache"):
            if path.stat().st_mtime_ns >= since and _is_torn(path.read_bytes()):
                path.unlink(missing_ok=True)
        looked.touch()
        os.utime(looked, ns=(now, now))


def _is_torn(data: bytes) -> bool:
    """Of a zlib stream, as JAX writes without another package, or of nothing at all."""
    if data[:1] not in (b"", b"\x78"):
        return False
    try:
        zlib.decompress(data)
    except zlib.error:
        return True
    return False


def start_resource_tracker() -> None:
    """Starts `multiprocessing`'s resource tracker in a session of its own, unless one runs already: so call
    this early. It removes shared memory and semaphores once all processes of a run have ended.

    CPython 3.12 starts it in the process group of the run. Who kills the group kills it too, and what was on
    its way between processes stays in /dev/shm until a reboot. No CPython issue found; an account of it in
    another project: https://github.com/sgl-project/sglang/pull/28089.
    """
    from multiprocessing import resource_tracker

    tracker = resource_tracker._resource_tracker
    if tracker._fd is not None:
        return
    reader, writer = os.pipe()
    program = f"from multiprocessing.resource_tracker import main; main({reader})"
    process = subprocess.Popen(
        # Its warnings would be the last words of a run that was killed, and call for nothing.
        [sys.executable, "-W", "ignore", "-c", program],
        stdin=subprocess.DEVNULL,
        pass_fds=[reader],
        start_new_session=True,
    )
    os.close(reader)
    # Where `multiprocessing` keeps one that it has started, and puts it in its children.
    tracker._fd, tracker._pid = writer, process.pid


def end_with_parent() -> None:
    """Has this worker process of `multiprocessing` end when its parent does, however that ends.

    CPython 3.12 ends daemonic workers when their parent exits, not when it is killed, and grain 0.2.18's
    workers then wait for ever. No public issue found.
    """
    import multiprocessing

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def let_grain_read_flags() -> None:
    """For callers that are no command: grain 0.2.18 reads a flag of its own as it starts workers, and absl
    raises where no flags have been parsed. https://github.com/google/grain/pull/1361 fixes it.
    """
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def pack(batch: object) -> "np.ndarray":
    """uint8[bytes]: a batch as one array, which grain sends through shared memory; `unpack` reads it.

    What grain 0.2.18 sends through a pipe, all that is no array, keeps a worker from ending until somebody
    has read it. Python documents that of its queues ("Joining processes that use queues"); no public issue of
    grain's found.
    """
    import numpy as np

    return np.frombuffer(pickle.dumps(batch), np.uint8)


def unpack(packed: "np.ndarray") -> Any:
    """The batch of `pack`: from this run's own workers, no file and no network."""
    return pickle.loads(packed.data)


def probe_folder(folder: Path, name: str) -> None:
    """Raises the OSError with which the disk refuses a new folder in `folder`.

    orbax-checkpoint 0.12.8 meets it in a background thread, and the saving one waits for minutes for a folder
    that never comes. No public issue found.
    """
    probe = folder / f".probe-{name}"
    probe.mkdir(exist_ok=True)
    probe.rmdir()


def own_buffers(state: Any) -> Any:
    """A pytree of arrays as copies on buffers that XLA owns, which can be donated.

    What orbax-checkpoint 0.12.8 restores may lie in memory that belongs to its reader, which a donation
    silently copies. No public issue found.
    """
    import jax

    # Leaf by leaf: they need not be on the same devices, which is what a program asks for.
    return jax.tree.map(lambda leaf: leaf.copy(), state)
