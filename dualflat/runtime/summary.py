"""What a run writes down as it goes: TensorBoard records, and the same numbers as JSON lines."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

METRICS_FILE = "metrics.jsonl"


class Summary:
    """Scalars and histograms of one run, for TensorBoard (`events.out.tfevents…`) and for programs.

    Both outlive a restart: records of steps after `start`, written by a process that died before
    it saved them, are dropped from the JSON lines and marked as purged for TensorBoard.

    Args:
      directory: made when missing. One process writes to it.
      start: the step at which this process begins.

    Raises:
      ModuleNotFoundError: without tensorboardX, which the extra `train` brings.
    """

    def __init__(self, directory: str | os.PathLike[str], *, start: int = 0) -> None:
        from tensorboardX import SummaryWriter

        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / METRICS_FILE
        _drop_after(self._lines, start)
        self._writer = SummaryWriter(
            str(folder),
            purge_step=start + 1 if start else None,
            # A file is named by the second; of two begun in one second the later would win.
            filename_suffix=f".{time.time_ns() % 10**9:09d}",
        )

    def __enter__(self) -> "Summary":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record named numbers at a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        with self._lines.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, **values}) + "\n")

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record the distribution of named arrays at a step."""
        for name, value in values.items():
            self._writer.add_histogram(name, np.asarray(value, np.float32).ravel(), step)

    def flush(self) -> None:
        """Hand everything to the file system, so that a viewer sees it."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and let go of the files."""
        self._writer.close()


def read_metrics(directory: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Return the recorded scalars, one mapping a report, oldest first."""
    return list(_whole_lines(Path(directory) / METRICS_FILE))


def _whole_lines(file: Path) -> list[dict[str, float]]:
    """The records of a file; a last line that a crash cut short is not one."""
    records = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def _drop_after(file: Path, step: int) -> None:
    if not file.exists():
        return
    kept = [record for record in _whole_lines(file) if record["step"] <= step]
    partial = file.with_suffix(".partial")
    partial.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    partial.replace(file)
