"""What a run writes down as it goes: TensorBoard records, and the same numbers as JSON lines."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

METRICS_FILE = "metrics.jsonl"
BINS = 64


class Summary:
    """Scalars and histograms of one run, for TensorBoard (`events.out.tfevents…`) and for programs.

    Both outlive a restart: records of steps after `start`, written by a process that died before
    it saved them, are dropped from the JSON lines and marked as purged for TensorBoard.

    Written without a thread between: after `flush` the bytes are with the file system, and a disk
    that refuses them is an error here and now.

    Args:
      directory: made when missing. One process writes to it.
      start: the step at which this process begins.

    Raises:
      ModuleNotFoundError: without tensorboardX, which the extra `train` brings.
    """

    def __init__(self, directory: str | os.PathLike[str], *, start: int = 0) -> None:
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2 as generated

        event_pb2: Any = generated  # its names are made at run time
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / METRICS_FILE
        _drop_after(self._lines, start)
        self._event, self._kinds = event_pb2.Event, summary
        # A file is named by the second; of two begun in one second the later would win.
        suffix = f".{time.time_ns() % 10**9:09d}"
        self._events = event_file_writer.EventsWriter(str(folder / "events"), suffix)
        session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=start + 1, session_log=session)  # forget what is recorded from here on
        self._events.flush()

    def __enter__(self) -> "Summary":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record named numbers at a step."""
        for name, value in values.items():
            self._write(step=step, summary=self._kinds.scalar(name, value))
        with self._lines.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, **values}) + "\n")

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record the distribution of named arrays at a step, in 64 bins of equal width."""
        for name, value in values.items():
            flat = np.asarray(value, np.float32).ravel()
            low, high = float(flat.min()), float(flat.max())
            edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
            self._write(step=step, summary=self._kinds.histogram(name, flat, edges))

    def flush(self) -> None:
        """Hand everything to the file system, so that a viewer sees it."""
        self._events.flush()

    def close(self) -> None:
        """Flush and let go of the files."""
        self._events.close()

    def _write(self, **what: object) -> None:
        self._events.write_event(self._event(wall_time=time.time(), **what))


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
