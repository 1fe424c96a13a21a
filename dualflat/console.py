"""How a run looks to a person: a progress bar on a terminal, plain lines everywhere else."""

import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from dualflat.runtime.duties import Report


def report_line(report: "Report") -> str:
    """One report as one line: what a person reads and a program can split."""
    test = "".join(f"  test {name} {value:.4f}" for name, value in report.test.items())
    return (
        f"step {report.step:>{len(str(report.max_steps))}}/{report.max_steps}  train loss {report.loss:.4f}{test}"
        f"  {report.steps_per_s:.1f} steps/s  {report.elapsed_s:.0f} s"
    )


class PlainConsole:
    """One line an event, flushed at once, so that a log shows where a run is."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout

    def __enter__(self) -> "PlainConsole":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def note(self, text: str) -> None:
        """Print it."""
        print(text, file=self._stream, flush=True)

    def progress(self, step: int, max_steps: int) -> None:
        """Print nothing: reports say enough."""

    def report(self, report: "Report") -> None:
        """Print it as a line."""
        self.note(report_line(report))


class BarConsole:
    """A bar that moves with the steps, the same lines above it."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            transient=True,
        )
        self._bar: Any = None
        self._drawn = 0.0

    def __enter__(self) -> "BarConsole":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Print it above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, step: int, max_steps: int) -> None:
        """Move the bar, ten times a second at most."""
        now = time.monotonic()
        if now - self._drawn < 0.1 and step < max_steps:
            return
        self._drawn = now
        if self._bar is None:
            self._bar = self._progress.add_task("training", total=max_steps, completed=step)
            self._progress.start()
        self._progress.update(self._bar, completed=step)
        if step >= max_steps:
            self._progress.stop()

    def report(self, report: "Report") -> None:
        """Print it as a line above the bar."""
        self.note(report_line(report))


def console() -> PlainConsole | BarConsole:
    """Return the bar where standard output is a terminal and rich is installed, plain lines elsewhere."""
    if sys.stdout.isatty():
        try:
            return BarConsole()
        except ModuleNotFoundError:
            pass
    return PlainConsole()
