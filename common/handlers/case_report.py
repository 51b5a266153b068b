"""What became of every case: `cases.csv`, and what a run that is started again need not do."""

from __future__ import annotations

import csv
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..engines.case_isolation import Adaptation
from ..engines.failures import MachineError, describe_failure, machine_fault
from ..files import remove_temporaries
from ..transforms.whole_images import SAVED
from .case_journal import DONE, FAILED, CaseEntry, CaseJournal
from .fingerprints import case_fingerprint, run_fingerprint
from .run_record import parser_of_this_run
from .stream_state import StreamState

COLUMNS = ("case", "seconds", "outcome", "reason")
MAX_LISTED = 8

_logger = logging.getLogger(__name__)


class FailedCasesError(RuntimeError):
    """Cases have failed; the others are done."""


class CaseReport:
    """Write `cases.csv` while an evaluator runs: every case, its seconds, its outcome; skip what is finished.

    A row is written as soon as its case is done, so a killed run leaves what it did. Cases fail one by one (see
    `CaseIsolation`); when all handlers are done, failed cases make the run fail unless they are allowed. What ends the
    run at once is written down with its case, and the cases behind it are listed as `not run`.

    `cases.jsonl` keeps for the next run which case is finished: its outputs are on the disk as they were written, and a
    fingerprint of settings, weights, code and files of the case is the same as now. Such a case is not run again, its
    rows are those of the former run, and the outputs come out as if the run had never been interrupted. Failed cases
    are tried again.

    In an adaptation to a stream every image depends on those before. The state behind the last finished image is kept
    in `stream_state.pt`; where the images up to there are the same, in the same order, the stream goes on behind them,
    else it begins anew. Images that failed are not tried again, as they would come at another place of the stream.

    Args:
        output_dir: Folder of `cases.csv`, and of all outputs.
        datalist: Cases in the order in which the evaluator meets them, each with its name under `case`.
        weights: Files whose content the results depend on.
        inputs: Files, beside those of the case, that its result depends on; {case} stands for its name.
        adaptation: The inferer, if what it does to an image depends on the images before.
        skip_finished: Whether to skip finished cases.
        allow_failures: Whether a run with failed cases ends well.

    Attributes:
        finished: Names of the cases that are not run; filled when the run starts.

    Raises:
        ValueError: If a name occurs twice, since outputs of the two cases would overwrite each other.
        FailedCasesError: At the end of a run in which cases have failed.
        OSError: At once where outputs cannot be written.

    Note:
        Transforms list the files that they write under the key `saved`. Only one run at a time may use a folder.
    """

    def __init__(
        self,
        output_dir: str | Path,
        datalist: Sequence[Mapping[str, Any]],
        weights: Sequence[Any] = (),
        inputs: Sequence[str] = (),
        adaptation: Adaptation | None = None,
        skip_finished: bool = True,
        allow_failures: bool = False,
    ) -> None:
        doubles = sorted(case for case, count in Counter(case["case"] for case in datalist).items() if count > 1)
        if doubles:
            raise ValueError(f"Case names must be unique, these occur twice: {doubles}; rename the files.")
        self.output_dir = Path(output_dir)
        self.path = self.output_dir / "cases.csv"
        self.cases = {case["case"]: dict(case) for case in datalist}
        self.weights = list(weights)
        self.inputs = list(inputs)
        self.adaptation = adaptation
        self.skip_finished = skip_finished
        self.allow_failures = allow_failures
        self.finished: set[str] = set()
        self.failed: dict[str, str] = {}
        self.journal = CaseJournal(output_dir)
        self.stream = StreamState(output_dir)
        self.parser = parser_of_this_run()
        self.fingerprints: dict[str, str] = {}
        self.run_fingerprint = ""
        self.current: CaseEntry | None = None
        self.num_done = 0
        self.is_open = False
        self.started_s = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose `iteration_update` is a `CaseIsolation` with this report."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._stop)

    def begin(self, case: str) -> None:
        """Note which case is run now.

        Args:
            case: Name.
        """
        self.current = CaseEntry(case, self.run_fingerprint, self.fingerprints.get(case, ""))

    def skip(self, case: str) -> None:
        """Take a finished case from the former run; behind the last image of a stream, its state, too.

        Args:
            case: Name.
        """
        self.current = self.journal.entries[case]
        is_last = self.num_done + 1 == self.stream.num_seen
        if is_last and self.adaptation is not None and self.stream.adaptation is not None:
            self.adaptation.load_state_dict(self.stream.adaptation)

    def fail(self, reason: str) -> None:
        """Note that the case that is run now has failed, and delete what a former run has left of it.

        Args:
            reason: Why, in one line.
        """
        if self.current is None:
            raise RuntimeError("fail() was called outside of a case; begin(case) comes first.")
        self.current.outcome, self.current.reason = FAILED, reason
        self.current.notes = {}
        stale = self.journal.remove_outputs(self.current.case)
        _logger.error("Case %s failed: %s", self.current.case, reason)
        if stale:
            _logger.warning("Outputs of a former run of %s are deleted: %s", self.current.case, _names(stale))

    def note(self, name: str, value: Any) -> None:
        """Keep a plain value with the case that is run now, for a run that skips it.

        Args:
            name: Whose value it is.
            value: What JSON can hold.
        """
        if self.current is not None:
            self.current.notes[name] = value

    def kept(self, name: str) -> Any:
        """Return what `note` has kept of the case that the engine is at, or None.

        Args:
            name: Whose value it is.
        """
        return None if self.current is None else self.current.notes.get(name)

    def is_finished(self) -> bool:
        """Tell whether the case that the engine is at is skipped."""
        return self.current is not None and self.current.case in self.finished

    def _start(self, engine: Engine) -> None:
        # added now, behind all handlers of the engine: a case is done when they are done with it
        if not engine.has_event_handler(self._finish, Events.ITERATION_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._finish)
            engine.add_event_handler(Events.COMPLETED, self._conclude)
        self.failed, self.current, self.num_done, self.is_open = {}, None, 0, False
        self.output_dir.mkdir(parents=True, exist_ok=True)
        remove_temporaries(self.output_dir)
        self.run_fingerprint = run_fingerprint(self.parser, self.weights)
        self.fingerprints = {
            name: case_fingerprint(self.run_fingerprint, case, self.inputs) for name, case in self.cases.items()
        }
        self.journal.read()
        # in place, as the dataset looks at this very set
        self.finished.clear()
        self.finished.update(self._find_finished())
        self.journal.rewrite()
        with self.path.open("w", newline="") as stream:
            csv.writer(stream).writerow(COLUMNS)
        self.is_open = True
        self.started_s = time.perf_counter()

    def _find_finished(self) -> list[str]:
        """Return the cases that need not be run, and say so."""
        entries = self.journal.entries
        known = [case for case in self.cases if case in entries]
        if not self.skip_finished or not known:
            self.stream.restart()
            return []
        if self.adaptation is None:
            found = [case for case in known if entries[case].outcome == DONE and self._is_valid(case)]
        else:
            order = list(self.cases)
            going_on = self.stream.read([self.fingerprints[case] for case in order])
            found = order[: self.stream.num_seen] if going_on else []
            if not all(case in entries and self._is_valid(case) for case in found):
                self.stream.restart()
                found = []
        if found:
            _logger.info(
                "%d of %d cases are finished and not run again; --skip_finished False runs all.",
                len(found),
                len(self.cases),
            )
        changed = [case for case in known if case not in found and entries[case].run != self.run_fingerprint]
        if changed:
            _logger.info(
                "%d cases are run again: settings, weights or code are others than those of the results in %s.",
                len(changed),
                self.output_dir,
            )
        return found

    def _is_valid(self, case: str) -> bool:
        entry = self.journal.entries[case]
        return entry.fingerprint == self.fingerprints[case] and self.journal.is_whole(entry)

    def _finish(self, engine: Engine) -> None:
        entry = self.current
        if entry is None:
            raise RuntimeError("CaseReport needs CaseIsolation as iteration_update of its evaluator.")
        now_s = time.perf_counter()
        if entry.case not in self.finished:
            entry.seconds = round(now_s - self.started_s, 3)
            if entry.outcome == DONE:
                entry.files = self.journal.describe(_saved(engine.state.output))
            self.journal.append(entry)
            if self.adaptation is not None:
                self.stream.write(entry.fingerprint, self.adaptation.state_dict())
        if entry.outcome == FAILED:
            self.failed[entry.case] = entry.reason
        self._write([(entry.case, f"{entry.seconds:.3f}", entry.outcome, entry.reason)])
        self.num_done += 1
        self.current = None
        self.started_s = now_s

    def _conclude(self, _engine: Engine) -> None:
        if not self.failed:
            return
        text = f"{len(self.failed)} of {len(self.cases)} cases failed, listed in {self.path}:{_by_reason(self.failed)}"
        if self.allow_failures:
            _logger.warning(text)
            return
        again = "--skip_finished False" if self.adaptation is not None else "the same command"
        raise FailedCasesError(
            f"{text}\nThe other cases are done. {again[0].upper()}{again[1:]} tries the failed ones again; "
            f"--allow_failures True ends such a run with exit status 0."
        )

    def _stop(self, _engine: Engine, error: BaseException) -> None:
        """Write down what ended the run. Ignite raises this event once per nested loop."""
        rest = list(self.cases)[self.num_done :]
        if not rest:
            raise error
        self.num_done = len(self.cases)
        fault = machine_fault(error, is_writing=True)
        reason = fault or describe_failure(error)
        seconds = f"{time.perf_counter() - self.started_s:.3f}"
        if self.is_open:
            try:
                self._write([(rest[0], seconds, FAILED, reason), *((case, "", "not run", "") for case in rest[1:])])
            except OSError as second:
                _logger.error("%s cannot be completed: %s", self.path, second)
        _logger.error(
            "Case %s ended the run, %d of %d cases were not run: %s", rest[0], len(rest) - 1, len(self.cases), reason
        )
        if fault is None:
            raise error
        num_done = len(self.cases) - len(rest)
        raise MachineError(
            f"The run ended at case {rest[0]}, as no other would fare better: {fault}. Outputs go to "
            f"{self.output_dir}; {num_done} of {len(self.cases)} cases are done and kept. Make room, or give another "
            f"output_dir, and start again: what is finished is skipped."
        ) from error

    def _write(self, rows: Sequence[tuple[str, str, str, str]]) -> None:
        with self.path.open("a", newline="") as stream:
            csv.writer(stream).writerows(rows)


def _saved(output: Any) -> list[str]:
    """Return the files that the transforms of the items of an output have written."""
    items = output if isinstance(output, list) else [output]
    return [path for item in items if isinstance(item, Mapping) for path in item.get(SAVED, ())]


def _by_reason(failed: Mapping[str, str]) -> str:
    """List failed cases, those of one reason on one line."""
    groups: dict[str, list[str]] = {}
    for case, reason in failed.items():
        groups.setdefault(reason, []).append(case)
    lines = []
    for reason, cases in list(groups.items())[:MAX_LISTED]:
        more = f" and {len(cases) - 3} more" if len(cases) > 3 else ""
        lines.append(f"\n  {', '.join(cases[:3])}{more}: {reason}")
    if len(groups) > MAX_LISTED:
        lines.append(f"\n  and {len(groups) - MAX_LISTED} more reasons")
    return "".join(lines)


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
