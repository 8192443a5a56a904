"""What a process needs set before it imports JAX, in one place. What is set in the environment already stays.

BUILD.md has the measurement behind each setting. XLA's other flags are left as they come: none has been
measured to help.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from r2rec_jax.runtime.errors import shown
from r2rec_jax.runtime.library_workarounds import drop_torn_programs

HUGE_PAGES = "glibc.malloc.hugetlb=1"
LOG_LEVEL = "1"  # XLA's own log: warnings and errors
OFF, ON = ("0", "false", "off", "no", "n", "f"), ("1", "true", "on", "yes", "y", "t")
# Settings of JAX that change what is drawn or how it is rounded, and the values of each that do not. Those
# that only watch (JAX_DEBUG_NANS, JAX_TRANSFER_GUARD, ...) and those of devices and caches are the user's.
NUMBERS = {
    "JAX_ENABLE_X64": OFF,
    "JAX_EXPLICIT_X64_DTYPES": ("warn", "error"),
    "JAX_NUMPY_DTYPE_PROMOTION": ("standard",),
    "JAX_DEFAULT_MATMUL_PRECISION": ("default",),
    "JAX_DEFAULT_PRNG_IMPL": ("threefry2x32",),
    "JAX_THREEFRY_PARTITIONABLE": ON,
    "JAX_RANDOM_SEED_OFFSET": ("0",),
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL": OFF,
    "JAX_DISABLE_JIT": OFF,
}
XLA_NUMBERS = ("xla_cpu_enable_fast_math", "xla_gpu_enable_fast_min_max")


def settle(command: list[str]) -> None:
    """Sets the environment of this process, and starts it anew as `command` where that alone takes effect.

    Ends it where the environment would change numbers, and from here on at a signal.

    Args:
      command: `sys.orig_argv`, the interpreter first.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    refuse_other_numbers()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", LOG_LEVEL)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled_folder()))
    # XLA takes a step's buffers from malloc and gives them back, and each page of 4 KB is faulted in anew.
    # The allocator reads its setting at the start of a process, and only glibc's knows it.
    if sys.platform == "linux" and _is_glibc() and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = HUGE_PAGES
        os.execv(sys.executable, [sys.executable, *command[1:]])
    drop_torn_programs(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))


def _interrupted(*_) -> NoReturn:
    """Until the command listens (r2rec_jax/cli/signals.py) it imports: there is nothing to save."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def refuse_other_numbers() -> None:
    """Ends the process in one line where its environment has JAX draw or compute other numbers than it does
    by itself: a run would be another one without a word."""
    found = {name: os.environ[name] for name in NUMBERS if os.environ.get(name)}
    found = {name: value for name, value in found.items() if value.lower() not in NUMBERS[name]}
    for flag in os.environ.get("XLA_FLAGS", "").split():
        name, _, value = flag.lstrip("-").partition("=")
        if name in XLA_NUMBERS and value.lower() not in OFF:
            found["XLA_FLAGS"] = flag
    if found:
        told = ", ".join(f"{name}={shown(value, 80)}" for name, value in found.items())
        print(f"error: the environment has {told}, which changes numbers: unset it", file=sys.stderr)
        sys.exit(2)


def compiled_folder() -> Path:
    """Where compiled programs are kept from one run to the next."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "r2rec_jax" / "compiled"


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):
        return False
