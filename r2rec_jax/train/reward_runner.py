"""Rewards of completions, computed in worker processes while the device decodes others."""

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

from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rollout.parsed_completion import ParsedCompletion, parse_completion
from r2rec_jax.runtime.distributed import gather
from r2rec_jax.runtime.errors import shown
from r2rec_jax.train.config import RewardConfig
from r2rec_jax.train.rewards import reward, reward_functions

ELSEWHERE = "scored by another process"
START_S = 120.0  # a worker imports what it needs in about a second
LONGEST = 200  # characters kept of what an exception says
PROGRAM = "from r2rec_jax.train.reward_runner import serve; serve({})"


@dataclasses.dataclass(frozen=True)
class RewardedCompletion:
    """`parts` by name and `reward`, their weighted sum; of a function that failed {} and nan, and `fault`."""

    completion: ParsedCompletion
    parts: dict[str, float]
    reward: float
    fault: str = ""


class RewardRunner:
    """Rewards completions in `reward.workers` processes while the device decodes, or in this one for 0.

        with RewardRunner(chat, prompt_config, reward_config, data_folder) as rewards:
            pending = [rewards.submit(prompt, tokens, truncated) for ...]
            rewarded = rewards.collect(pending)

    A function that raises, or whose parts are not finite or not named, costs its completion only. In a
    worker so does one that takes longer than `reward.timeout_s`, or that ends its process, however: the
    worker is killed and replaced.

    The processes of a distributed run submit and collect the same completions in the same order. Each
    computes its share of the rewards, and all gather them.
    """

    def __init__(self, chat: Chat, prompt: PromptConfig, reward: RewardConfig, data_folder: str):
        """Raises UserError as `reward_functions` does."""
        self._scorer = CompletionScorer(chat, prompt, reward, data_folder)
        self._workers, self._timeout_s = reward.workers, reward.timeout_s
        self._setup = chat.folder, prompt, reward, data_folder
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._submitted = 0

    def __enter__(self) -> "RewardRunner":
        for _ in range(self._workers):
            # A thread a worker: all it does is wait for the process.
            thread = threading.Thread(target=self._work, args=(_Worker(self._setup),), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, prompt: Prompt, tokens: np.ndarray, truncated: bool) -> Callable[[], RewardedCompletion]:
        """Starts on a completion, `tokens` as for `parse_completion`; returns what waits for its reward.

        Without workers the work is done then.
        """
        return self._submit((prompt, tokens, truncated))

    def score(self, completions: Iterable[ParsedCompletion]) -> list[RewardedCompletion]:
        """The rewards of parsed completions."""
        return self.collect([self._submit(one) for one in completions])

    def collect(self, pending: list[Callable[[], RewardedCompletion]]) -> list[RewardedCompletion]:
        """Waits for all; logs a line when functions have failed."""
        rewarded = [wait() for wait in pending]
        if jax.process_count() > 1:
            outcomes = [(one.parts, one.reward, one.fault) for one in rewarded]
            mine = [(k, *one) for k, one in enumerate(outcomes) if one[-1] != ELSEWHERE]
            for k, *one in itertools.chain(*gather(mine)):
                rewarded[k] = self._rewarded(rewarded[k].completion, None, *one)
        if faults := [one.fault for one in rewarded if one.fault]:
            logging.warning("%d of %d rewards failed, e.g. %s", len(faults), len(rewarded), faults[0])
        return rewarded

    def _submit(self, item) -> Callable[[], RewardedCompletion]:
        self._submitted += 1
        if self._submitted % jax.process_count() != jax.process_index():
            return lambda: self._rewarded(item, None, {}, math.nan, ELSEWHERE)
        if not self._threads:
            return lambda: self._rewarded(item, *self._scorer(item))
        future = Future()
        self._tasks.put((item, future))
        return lambda: self._rewarded(item, *future.result())

    def _rewarded(
        self, item, parsed: ParsedCompletion | None, parts: dict, reward: float, fault: str
    ) -> RewardedCompletion:
        if isinstance(item, ParsedCompletion):
            parsed = item
        elif parsed is None:  # lost with its worker, or scored by another process
            parsed = self._scorer.parse(item)
        else:
            parsed = dataclasses.replace(parsed, prompt=item[0])
        return RewardedCompletion(parsed, parts, reward, fault)

    def _work(self, worker: "_Worker") -> None:
        limit_s = self._timeout_s
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
                    worker = _Worker(self._setup)
                future.set_result(result)
            except Exception as error:  # for who waits for the result
                future.set_exception(error)
        worker.close()


def reward_means(rewarded: list[RewardedCompletion]) -> dict[str, float]:
    """Means of "reward" and of every part over the completions with a reward; "failed_count": the others."""
    valid = [one for one in rewarded if not one.fault]
    parts = sorted({name for one in valid for name in one.parts})
    means = {name: float(np.mean([one.parts.get(name, 0.0) for one in valid])) for name in parts}
    reward = float(np.mean([one.reward for one in valid])) if valid else math.nan
    return {"reward": reward, **means, "failed_count": float(len(rewarded) - len(valid))}


class CompletionScorer:
    """Parses and scores one completion at a time, in this process or in a worker."""

    def __init__(self, chat: Chat, prompt: PromptConfig, reward: RewardConfig, data_folder: str):
        self._chat, self._prompt, self._reward = chat, prompt, reward
        self._functions = reward_functions(reward, prompt.wording, data_folder)

    def parse(self, item: tuple[Prompt, np.ndarray, bool]) -> ParsedCompletion:
        return parse_completion(*item, self._chat, self._prompt)

    def __call__(self, item) -> tuple[ParsedCompletion, dict[str, float], float, str]:
        """(completion, parts, reward, fault) of a ParsedCompletion or of what `parse` takes."""
        parsed = item if isinstance(item, ParsedCompletion) else self.parse(item)
        try:
            return parsed, *reward(self._functions, parsed, self._reward), ""
        except (Exception, SystemExit) as error:
            # Not str(error): an exception of the user's own may fail at that too.
            return parsed, {}, math.nan, shown(traceback.format_exception_only(error)[-1].strip(), LONGEST)


class _Worker:
    """A process of its own, not a fork: it never sees this one's devices, locks or signals."""

    def __init__(self, setup: tuple):
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
            folder, prompt, reward, data_folder = connection.recv()
            score = CompletionScorer(Chat(folder), prompt, reward, data_folder)
            connection.send(True)
            # By default the signal ends the process: one that hangs must not outlive a run that was killed.
            limit_s = 2 * reward.timeout_s + 1
            while True:
                item = connection.recv()
                signal.setitimer(signal.ITIMER_REAL, limit_s)
                parsed, *outcome = score(item)
                signal.setitimer(signal.ITIMER_REAL, 0)
                # The other side has the prompt.
                sent = None if parsed is item else dataclasses.replace(parsed, prompt=None)
                connection.send((sent, *outcome))
        except (EOFError, ConnectionError):
            pass
