"""Whole jobs, as a user starts them: processes on this machine, bounded in time, ended by pid."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[2]
BOUND = 150  # seconds any job may take before the test fails


def environment(devices: int = 1) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k not in ("TF_CONFIG", "XLA_FLAGS", "COLUMNS")}
    return env | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PJRT_NPROC": "16"}


class Job:
    """One `dualflat …` process in its own session; leaving the context ends whatever is left of it."""

    def __init__(self, *words, devices=1, env=None):
        self.words = [str(word) for word in words]
        self._env = environment(devices) | (env or {})
        self.log = ""

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dualflat", *self.words],
            cwd=REPOSITORY, env=self._env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self.process.stdout.close()

    def until(self, text):
        """Read its lines until one holds `text`."""
        for line in self.process.stdout:
            self.log += line
            if text in line:
                return line
        raise AssertionError(f"ended {self.process.wait(30)} before saying {text!r}:\n{self.log}")

    def end(self, expect=0):
        """Wait for it to end, and hold it to its exit status."""
        rest, _ = self.process.communicate(timeout=BOUND)
        self.log += rest
        assert self.process.returncode == expect, (
            f"{self.words}: {self.process.returncode}\n{self.log}"
        )
        return self.log


def run(*words, expect=0, devices=1, env=None):
    with Job(*words, devices=devices, env=env) as job:
        return job.end(expect)


def train(folder, *words, **options):
    return run("train", *where(folder), *words, **options)


def where(folder):
    return [
        "--task",
        "tests.jobs.tiny_task:task",
        "--log-dir",
        folder / "logs",
        "--model-dir",
        folder / "model",
    ]


def weights(folder):
    """The exported parameters, by name."""
    with np.load(folder / "model" / "export" / "weights.npz", allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
