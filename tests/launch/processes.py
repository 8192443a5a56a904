"""Training commands as a user starts them on several machines: processes that meet at an address."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from ml_collections import ConfigDict

from tests.launch.road import CACHE, ROOT

DEVICES = 4  # of a run, however many processes share them
LIMIT_S = 150.0


class Run:
    """A training run on processes of this machine; what is left of it at the block's end is killed."""

    def __init__(self, config: ConfigDict, workdir: Path, processes: int):
        workdir.parent.mkdir(parents=True, exist_ok=True)
        file = workdir.with_suffix(".py")
        values = repr(config.to_dict())
        file.write_text(
            f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({values})\n"
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "launch.train", f"--config={file}", f"--workdir={workdir}"]
        if processes > 1:
            command += ["--distributed", f"--coordinator_address={address}", f"--num_processes={processes}"]
        count = f"--xla_force_host_platform_device_count={DEVICES // processes}"
        environment = {"XLA_FLAGS": count, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
        self.logs = [workdir.with_suffix(f".{index}.log") for index in range(processes)]
        self.processes = []
        for index, log in enumerate(self.logs):
            own = [f"--process_id={index}"] if processes > 1 else []
            with open(log, "w") as out:
                self.processes.append(
                    subprocess.Popen(
                        command + own,
                        cwd=ROOT,
                        env=os.environ | environment | CACHE,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self) -> list[str]:
        """What each process has said so far."""
        return [log.read_text(errors="replace") for log in self.logs]

    def ends(self) -> str:
        """The last of it, for a message."""
        return "\n---\n".join(said[-3000:] for said in self.said())

    def wait(self, limit_s: float = LIMIT_S) -> list[int]:
        """The exit codes once all have ended."""
        end = time.monotonic() + limit_s
        try:
            return [process.wait(max(end - time.monotonic(), 0.1)) for process in self.processes]
        except subprocess.TimeoutExpired:
            raise AssertionError("not over in time:\n" + self.ends()) from None

    def wait_for(self, holds, limit_s: float = LIMIT_S) -> None:
        """Waits until `holds()`; no process may end before."""
        end = time.monotonic() + limit_s
        while not holds():
            ended = any(process.poll() is not None for process in self.processes)
            assert not ended and time.monotonic() < end, self.ends()
            time.sleep(0.05)


def run(config: ConfigDict, workdir: Path, processes: int) -> Path:
    """Trains to the end, which must be a good one; returns `workdir`."""
    with Run(config, workdir, processes) as one:
        codes = one.wait()
        assert codes == [0] * processes, (codes, one.ends())
    return workdir
