"""How a run looks to a person: a progress bar on a terminal, plain lines everywhere else."""

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from dualflat.geometry.laws import Law
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


class LawTable:
    """The table of `dualflat verify`: parts with a row for each law, as wide as the terminal allows.

    In colours on a terminal, unless NO_COLOR is set; the same words without them everywhere else.

    Args:
      laws: what the rows will be about; decides how wide the columns are.
      stream: where to; standard output without it.
      width: columns of the terminal, found out without it.
    """

    def __init__(
        self, laws: Sequence["Law"], stream: TextIO | None = None, width: int | None = None
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        colours = self._stream.isatty() and "NO_COLOR" not in os.environ
        self._colours = colours and os.environ.get("TERM") != "dumb"
        self._number = max(len(law.number) for law in laws)
        self._words = max(_columns(law.statement) for law in laws)
        room = shutil.get_terminal_size((100, 24)).columns if width is None else width
        fixed = self._number + 18  # the margin, gaps, a residual, a mark
        self._with_tolerance = room >= fixed + self._words + 11
        self._words = max(min(self._words, room - fixed), 8)
        self._width = fixed + self._words + 11 * self._with_tolerance

    def heading(self, title: str, facts: Sequence[tuple[str, str]]) -> None:
        """Who is asked, and where."""
        self._line(self._ink("1", title), "")
        width = max(len(name) for name, _ in facts)
        for name, text in facts:
            self._line(f"  {self._ink('2', name.ljust(width))}  {text}")

    def part(self, title: str) -> None:
        """Begin a part; the line is open until its rows are there."""
        self._line("")
        print("  " + self._ink("1", title), end="", file=self._stream, flush=True)
        self._open = 2 + _columns(title)

    def rows(self, rows: Sequence[tuple["Law", float, float, bool]], seconds: float) -> None:
        """The rows of a part: law, residual, tolerance, whether it holds; and how long it took."""
        took = f"{seconds:.1f} s"
        gap = max(self._width - self._open - len(took), 2)
        self._line(" " * gap + self._ink("2", took))
        for law, residual, tolerance, holds in rows:
            found = "NaN" if residual != residual else f"{residual:.1e}"
            of = self._ink("2", f"  ≤ {tolerance:.0e} ") if self._with_tolerance else "  "
            mark = self._ink("32", "✓") if holds else self._ink("1;31", "✗")
            words = _padded(law.statement, self._words)
            number = self._ink("36", law.number.ljust(self._number))
            found = f"{found:>7}" if holds else self._ink("31", f"{found:>7}")
            self._line(f"  {number}  {words}  {found}{of}{mark}")

    def names(self, part: str, laws: Sequence["Law"]) -> None:
        """The laws of a part without any verdict, by the names that `--law` takes."""
        self._line("", "  " + self._ink("1", part))
        for law in laws:
            number = self._ink("36", law.number.ljust(self._number))
            self._line(f"  {number}  {_padded(law.statement, self._words)}  {law.name}")

    def last(self, holds: bool, words: Sequence[str]) -> None:
        """The verdict, in a sentence or a few."""
        self._line("")
        mark = self._ink("32", "✓") if holds else self._ink("1;31", "✗")
        for k, sentence in enumerate(words):
            self._line(f"{'    ' if k else f'  {mark} '}{sentence}")

    def _ink(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours and text.strip() else text

    def _line(self, *lines: str) -> None:
        for line in lines:
            print(line.rstrip(), file=self._stream, flush=True)


def _columns(text: str) -> int:
    """How many columns a terminal takes for it: a dot above a letter takes none."""
    return sum(not unicodedata.combining(character) for character in text)


def _padded(text: str, width: int) -> str:
    """The text in exactly so many columns."""
    while _columns(text) > width:
        text = text.removesuffix("…")[:-1] + "…"
    return text + " " * (width - _columns(text))
