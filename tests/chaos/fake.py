"""A training run in half a second, exact or with a fault planted in it: `python fake.py FOLDER FAULT`."""

import json
import os
import subprocess
import sys
import time
from multiprocessing import shared_memory

STEPS, EVERY = 30, 3

folder, fault = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
log, state = os.path.join(folder, "log.jsonl"), os.path.join(folder, "state.json")


def replace(path: str, text: str) -> None:
    # A name of its own for each process is one that nobody clears.
    temporary = f"{path}.{os.getpid() if fault == 'leaves' else ''}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        time.sleep(0.02)
    os.replace(temporary, path)


done, lines = 0, []
if os.path.exists(state):
    with open(state, encoding="utf-8") as file:
        done = json.load(file)["step"]
if os.path.exists(log):
    with open(log, encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n")]
if fault != "repeats":
    replace(log, "".join(lines[:done]))
if fault == "leaves a process":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
if fault == "hangs" and done:
    time.sleep(600)
if fault == "leaves shared memory":
    shared_memory.SharedMemory(create=True, size=100)  # its tracker dies with the group
for step in range(done + 1, STEPS + 1):
    time.sleep(0.01)
    row = {"step": step, "square": step**2, "time/step_s": time.time()}
    if fault == "chance":
        row["square"] = time.time_ns()
    if fault == "ends early" and done and step == STEPS:
        sys.exit("error: it does not know how to go on")
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    if step % EVERY == 0:
        replace(state, json.dumps({"step": step}))
