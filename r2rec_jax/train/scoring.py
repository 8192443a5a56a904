"""Completions judged and paid in worker processes, while the device decodes others."""

import dataclasses
import itertools
import math
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from multiprocessing.connection import Connection

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rollout.parsed_completion import Judged, judge
from r2rec_jax.runtime.distributed import gather
from r2rec_jax.runtime.errors import shown
from r2rec_jax.train.rewards import functions, reward

ELSEWHERE = "paid by another process"
START_S = 120.0  # a worker imports what it needs in about a second
LONGEST = 200  # characters kept of what an exception says
PROGRAM = "from r2rec_jax.train.scoring import serve; serve({})"


@dataclasses.dataclass(frozen=True)
class Scored:
    """`parts` by name and `reward`, their weighted sum; of a function that failed {} and nan, and `fault`."""

    judged: Judged
    parts: dict[str, float]
    reward: float
    fault: str = ""


class Scorer:
    """Pays completions by the functions of a config, in `reward.workers` processes, or in this one for 0.

        with Scorer(config, chat) as scorer:
            pending = [scorer.begin(prompt, tokens, truncated) for ...]
            scored = scorer.collect(pending)

    A function that raises, or whose parts are not finite or not named, costs its completion only. In a
    worker so does one that takes longer than `reward.timeout_s`, or that ends its process, however: the
    worker is killed and replaced.

    The processes of a run, which begin and collect the same completions in the same order, deal them out and
    tell each other what they have paid.
    """

    def __init__(self, config: ConfigDict, chat: Chat):
        """`config` is a whole one. Raises UserError for a function that cannot be imported."""
        self._payer = Payer(chat, config)
        self._config = config
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._begun = 0

    def __enter__(self) -> "Scorer":
        c = self._config
        setup = {name: c[name].to_dict() for name in ("model", "data", "prompt", "reward")}
        for _ in range(c.reward.workers):
            # A thread a worker: all it does is wait for the process.
            thread = threading.Thread(target=self._work, args=(_Worker(setup), setup), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def begin(self, prompt: Prompt, tokens: np.ndarray, truncated: bool) -> Callable[[], Scored]:
        """Starts on a completion, `tokens` as for `judge`; what is returned waits for the outcome.

        Without workers the work is done then.
        """
        return self._begin((prompt, tokens, truncated))

    def pay(self, judged: Iterable[Judged]) -> list[Scored]:
        """Pays what has been judged."""
        return self.collect([self._begin(one) for one in judged])

    def collect(self, pending: list[Callable[[], Scored]]) -> list[Scored]:
        """Waits for all; logs a line when functions have failed."""
        scored = [wait() for wait in pending]
        if jax.process_count() > 1:
            paid = [(one.parts, one.reward, one.fault) for one in scored]
            mine = [(k, *one) for k, one in enumerate(paid) if one[-1] != ELSEWHERE]
            for k, *one in itertools.chain(*gather(mine)):
                scored[k] = self._scored(scored[k].judged, None, *one)
        if faults := [one.fault for one in scored if one.fault]:
            logging.warning("%d of %d rewards failed, e.g. %s", len(faults), len(scored), faults[0])
        return scored

    def _begin(self, item) -> Callable[[], Scored]:
        self._begun += 1
        if self._begun % jax.process_count() != jax.process_index():
            return lambda: self._scored(item, None, {}, math.nan, ELSEWHERE)
        if not self._threads:
            return lambda: self._scored(item, *self._payer(item))
        future = Future()
        self._tasks.put((item, future))
        return lambda: self._scored(item, *future.result())

    def _scored(self, item, judged: Judged | None, parts: dict, reward: float, fault: str) -> Scored:
        if isinstance(item, Judged):
            judged = item
        elif judged is None:  # lost with its worker, or paid by another process
            judged = self._payer.read(item)
        else:
            judged = dataclasses.replace(judged, prompt=item[0])
        return Scored(judged, parts, reward, fault)

    def _work(self, worker: "_Worker", setup: dict) -> None:
        limit_s = self._config.reward.timeout_s
        while (task := self._tasks.get()) and not self._closed:
            item, future = task
            try:
                try:
                    result = worker.ask(item, limit_s)
                except (EOFError, OSError) as error:
                    late = isinstance(error, TimeoutError)
                    result = (
                        None,
                        {},
                        math.nan,
                        f"no result within {limit_s:g} s" if late else "its process ended",
                    )
                    worker.close()
                    worker = _Worker(setup)
                future.set_result(result)
            except Exception as error:  # for who waits for the result
                future.set_exception(error)
        worker.close()


def means(scored: list[Scored]) -> dict[str, float]:
    """Of "reward" and of every part, over the completions that were paid; "failed" counts the others."""
    paid = [one for one in scored if not one.fault]
    parts = sorted({name for one in paid for name in one.parts})
    found = {name: float(np.mean([one.parts.get(name, 0.0) for one in paid])) for name in parts}
    reward = float(np.mean([one.reward for one in paid])) if paid else math.nan
    return {"reward": reward, **found, "failed": float(len(scored) - len(paid))}


class Payer:
    """Reads and pays one completion at a time: what this process and the workers have in common."""

    def __init__(self, chat: Chat, config: ConfigDict):
        self._chat, self._prompt, self._reward = chat, config.prompt, config.reward
        self._functions = functions(config)

    def read(self, item: tuple[Prompt, np.ndarray, bool]) -> Judged:
        return judge(*item, self._chat, self._prompt)

    def __call__(self, item) -> tuple[Judged, dict[str, float], float, str]:
        """(judged, parts, reward, fault) of a Judged or of what `read` takes."""
        judged = item if isinstance(item, Judged) else self.read(item)
        try:
            return judged, *reward(self._functions, judged, self._reward), ""
        except (Exception, SystemExit) as error:
            # Not str(error): an exception of the user's own may fail at that too.
            return judged, {}, math.nan, shown(traceback.format_exception_only(error)[-1].strip(), LONGEST)


class _Worker:
    """A process of its own, not a fork: it never sees this one's devices, locks or signals."""

    def __init__(self, setup: dict):
        self._connection, theirs = multiprocessing.Pipe()
        self._ready = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ
                | {
                    "JAX_PLATFORMS": "cpu",
                    "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                },
                start_new_session=True,  # Ctrl-C is for the run, which finishes its step
            )
        self._connection.send(setup)

    def ask(self, item, timeout_s: float):
        """Raises TimeoutError, or another OSError or EOFError when the process has ended."""
        if not self._ready:
            self._start()
        self._connection.send(item)
        if not self._connection.poll(timeout_s):
            raise TimeoutError
        return self._connection.recv()

    def _start(self) -> None:
        try:
            if self._connection.poll(START_S):
                self._ready = self._connection.recv()
        except (EOFError, OSError):
            pass
        if not self._ready:
            raise RuntimeError("a reward worker did not start; what it said is on stderr")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()


def serve(descriptor: int) -> None:
    """What a worker runs, until the other end of its connection is closed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a scheduler sends it to all; the run decides
    with Connection(descriptor) as connection:
        try:
            config = ConfigDict(connection.recv())
            pay = Payer(Chat(config.model.folder), config)
            connection.send(True)
            # By default the signal ends the process: one that hangs must not outlive a run that was killed.
            limit_s = 2 * config.reward.timeout_s + 1
            while True:
                item = connection.recv()
                signal.setitimer(signal.ITIMER_REAL, limit_s)
                judged, *paid = pay(item)
                signal.setitimer(signal.ITIMER_REAL, 0)
                # The other side has the prompt.
                said = None if judged is item else dataclasses.replace(judged, prompt=None)
                connection.send((said, *paid))
        except (EOFError, ConnectionError):
            pass
