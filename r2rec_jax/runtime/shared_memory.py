"""What removes a run's shared memory and semaphores once all of its processes have ended, even by SIGKILL.

`multiprocessing` has a process for that, its resource tracker, but starts it in the process group of the run:
who kills the group kills it too, and what was on its way between processes stays in /dev/shm until a reboot.
"""

import os
import subprocess
import sys
from multiprocessing import resource_tracker


def start() -> None:
    """Starts the resource tracker in a session of its own, unless one runs already: so call this early."""
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
