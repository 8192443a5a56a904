"""A stage killed at many moments, and compared with itself left alone."""

import dataclasses
import math
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from r2rec_jax.runtime.errors import UserError
from tests.chaos.moments import PHASES, Moment, Watch, draw, snapshot
from tests.chaos.outputs import Outputs, difference, read
from tests.chaos.process import Orphans, Running

NEVER = Moment(time_s=math.inf)
POLL_S = 0.005  # between two looks at a run
ORPHANS_S = 0.5  # between two looks at what killed runs have left running
LIVES = 12  # kills in one folder at most; then it comes to its end and is compared
HANGS = 10  # times what a run takes when nobody kills it, and
HANGS_S = 120.0  # so much more: whoever neither says nor writes anything for so long is called hanging


@dataclasses.dataclass(frozen=True)
class Stage:
    """`command(folder)` is what writes into `folder`; `needs` names the stages whose outputs it reads."""

    name: str
    command: Callable[[Path], list[str]]
    needs: tuple[str, ...] = ()


@dataclasses.dataclass
class Trial:
    """What came of a stage.

    kills: by what it was at; alone: those of them that spared the rest of its process group. runs: starts of
    the command; ends: folders in which it came to its end and was compared. whole_s: a run left alone, with
    warm caches. orphans: processes that outlived their run too long; orphan_s: the longest that any did.
    segments: shared memory and semaphores that did. difference: the first one, or what failed; '' for none.
    left_out: fields that were not compared.
    """

    stage: str
    kills: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    alone: int = 0
    runs: int = 0
    ends: int = 0
    whole_s: float = 0.0
    seconds: float = 0.0
    orphans: int = 0
    orphan_s: float = 0.0
    segments: int = 0
    difference: str = ""
    left_out: list[str] = dataclasses.field(default_factory=list)

    @property
    def killed(self) -> int:
        return sum(self.kills.values())

    @property
    def passed(self) -> bool:
        return self.ends > 0 and not (self.difference or self.orphans or self.segments)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended: `phase` if it was killed, else ''; `fault`: what is wrong; `note`: from inside."""

    phase: str = ""
    fault: str = ""
    note: str = ""


class Harness:
    """Runs stages, undisturbed in WORKDIR/whole/STAGE and killed in WORKDIR/killed/STAGE."""

    def __init__(self, workdir: Path, environment: dict[str, str], seed: int, orphan_s: float = 10.0):
        """`environment`: besides this process's; processes and memory may outlive their run by `orphan_s`."""
        self._workdir, self._environment, self._seed, self._orphan_s = workdir, environment, seed, orphan_s

    def whole(self, stage: Stage) -> Path:
        """The folder that `stage` has written when left alone; it does so now if it has not yet.

        Raises UserError when it fails.
        """
        folder = self._workdir / "whole" / stage.name
        if not folder.exists():
            folder.mkdir(parents=True)
            orphans = Orphans(self._orphan_s)
            ended = self._run(stage, folder, NEVER, orphans, math.inf)
            orphans.settle()
            if ended.fault:
                raise UserError(f"{stage.name} failed, though nobody killed it: {ended.fault}")
        return folder

    def kill(self, stage: Stage, kills: int) -> Trial:
        """Kills `stage` so many times; gives up at the first difference, whose folder it keeps."""
        trial, began = Trial(stage.name), time.monotonic()
        whole, orphans = read(self.whole(stage)), Orphans(self._orphan_s)
        shutil.rmtree(self._workdir / "killed" / stage.name, ignore_errors=True)
        changes = self._twin(stage, whole, trial, orphans)
        # Not of what happens to the runs, so that a seed says how the stage is killed.
        rng = np.random.default_rng([self._seed, *stage.name.encode()])
        with tqdm(total=kills, desc=stage.name, unit="kill", mininterval=1.0) as bar:
            while trial.killed < kills and not trial.difference:
                lives = min(int(rng.integers(1, LIVES + 1)), kills - trial.killed)
                moments = [draw(rng, trial.whole_s, changes) for _ in range(lives)]
                self._to_its_end(stage, whole, trial, orphans, moments, bar)
        orphans.settle()
        trial.orphans, trial.orphan_s = orphans.count, round(orphans.longest_s, 1)
        trial.segments = orphans.segments
        trial.seconds = round(time.monotonic() - began, 1)
        return trial

    def _twin(self, stage: Stage, whole: Outputs, trial: Trial, orphans: Orphans) -> int:
        """Another run that nobody kills: that they are equal at all, and how long one takes with warm caches.

        Returns how many changes of files it made.
        """
        folder = self._folder(stage, 0)
        start = time.monotonic()
        ended = self._run(stage, folder, NEVER, orphans, math.inf)
        trial.whole_s = round(time.monotonic() - start, 1)
        found = ended.fault or self._compare(whole, folder, trial)
        trial.difference = found and f"two runs that nobody killed: {found}"
        return int(ended.note or 0)

    def _to_its_end(
        self,
        stage: Stage,
        whole: Outputs,
        trial: Trial,
        orphans: Orphans,
        moments: list[Moment],
        bar: tqdm,
    ) -> None:
        """Starts the stage again and again in a new folder, until it ends before it is killed."""
        folder = self._folder(stage, trial.ends + 1)
        limit_s = HANGS * trial.whole_s + HANGS_S
        for moment in (*moments, NEVER):
            ended = self._run(stage, folder, moment, orphans, limit_s)
            trial.runs += 1
            if not ended.phase:
                break
            trial.kills[ended.phase] += 1
            trial.alone += moment.alone
            bar.update()
        trial.ends += 1
        found = ended.fault or self._compare(whole, folder, trial)
        trial.difference = found and f"{found} (in {folder})"

    def _compare(self, whole: Outputs, folder: Path, trial: Trial) -> str:
        """The first difference; a folder without one is removed."""
        other = read(folder)
        trial.left_out = sorted({*trial.left_out, *other.left_out})
        found = difference(whole, other)
        if not found:
            shutil.rmtree(folder)
        return found

    def _folder(self, stage: Stage, number: int) -> Path:
        folder = self._workdir / "killed" / stage.name / str(number)
        folder.mkdir(parents=True)
        return folder

    def _run(self, stage: Stage, folder: Path, moment: Moment, orphans: Orphans, limit_s: float) -> Ended:
        watch, log = Watch(folder, moment), self._workdir / "logs" / f"{stage.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command, looked, hangs = stage.command(folder), 0.0, False
        heard, before = time.monotonic(), None
        with Running(command, folder, log, self._environment, moment.change, moment.alone) as running:
            while running.code is None:
                now = time.monotonic()
                if watch.now(running.began):
                    running.kill(moment.alone)
                elif now - heard > limit_s or now - running.began > HANGS * limit_s:
                    running.kill(alone=False)
                    hangs = True
                elif now - looked > ORPHANS_S:
                    orphans.look()
                    looked = now
                    # By signs of life: beside other work a run may get a twentieth of the machine.
                    if (signs := (running.said(), snapshot(folder))) != before:
                        heard, before = now, signs
                time.sleep(POLL_S)
        orphans.expect(running.mark)
        said = running.said()
        if hangs:
            ran, silent = now - running.began, now - heard
            return Ended(fault=f"still running after {ran:.0f} s, without a sign of life for {silent:.0f} s")
        if running.code == -signal.SIGKILL and moment is not NEVER:
            return Ended(phase=watch.phase(said))
        fault = "" if running.code == 0 else f"exit code {running.code}: {_last_line(said)}"
        return Ended(fault=fault, note=running.note())


def _last_line(said: str) -> str:
    return (said.strip() or "it said nothing").splitlines()[-1][-300:]
