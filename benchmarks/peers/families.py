"""Families of laws beside those of other libraries: θ→η, η→θ, KL and the Fisher metric.

    python -m benchmarks.peers.families [--peer efax ...] [--family gamma ...] [--cell kl ...]
        [--batch 100000] [--rounds 7] [--venvs DIR] [--table]

Makes a virtual environment for each peer (once; it is kept), installs the peer there from PyPI, and
runs both in one process of its JAX, in float64 and then in float32; a peer that pip cannot install is
skipped, and said to be: efax wants Python 3.13. A batch of ours is an array (batch, n), or (n, batch)
where the peer takes the coordinates apart. A row for each cell that both have:

- `ns`, `peer_ns`: nanoseconds a point, median and quartiles over rounds in which they take turns;
  `ratio` is the peer's time over ours, the same way. `compile_ms` and `peer_compile_ms` apart;
- `batch`: fewer points where the peer's would take more than a second a round;
- `error`, `peer_error`: the largest relative error of 50 rows (for vectors and matrices: of the
  largest entry), against mpmath with 60 digits, at the numbers that each was given; KL of pairs
  apart, and `near` of pairs at a relative distance of 1e-4. `nan` counts lost rows, `negative` KLs
  below 0.

With `--table` the rows are printed once more at the end, as a table.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers._environment import environment

ROOT = Path(__file__).resolve().parents[2]
PEERS = {
    "efax": ("efax", ("efax",)),
    "normix": ("normix", ("normix",)),
    "goal": ("goal.models", ("goal-jax",)),
    "tfp": ("tensorflow_probability.substrates.jax", ("tfp-nightly",)),
    "numpyro": ("numpyro", ("numpyro",)),
}
DTYPES = ("float64", "float32")
SAMPLE = 50
PROBE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer", nargs="+", choices=tuple(PEERS), default=tuple(PEERS))
    parser.add_argument("--family", nargs="+")
    parser.add_argument("--cell", nargs="+")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--batch", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--venvs", type=Path, default=ROOT)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        return compare(args)
    rows: list[dict] = []
    for peer in args.peer:
        modules, requirements = PEERS[peer]
        try:
            folder = args.venvs / f".venv-{peer}"
            python = environment(folder, f"{modules}, jax, mpmath", *requirements, "mpmath")
            subprocess.run([python, "-c", f"import {modules}"], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            say({"peer": peer, "skipped": f"{' '.join(map(str, error.cmd[1:]))} failed"})
            continue
        for dtype in args.dtype:
            if (peer, dtype) == ("normix", "float32"):
                say({"peer": peer, "dtype": dtype, "skipped": "it computes in float64 only"})
                continue
            rows += collect(python, peer, dtype, args)
    if args.table:
        print_table(rows)
    return None


def say(row: dict) -> None:
    print(json.dumps(row, ensure_ascii=False), flush=True)


def collect(python: Path, peer: str, dtype: str, args: argparse.Namespace) -> list[dict]:
    """The rows of one process."""
    command = [python, "-m", "benchmarks.peers.families", "--here", "--peer", peer]
    command += ["--dtype", dtype, "--batch", str(args.batch), "--rounds", str(args.rounds)]
    for word, wanted in (("--family", args.family), ("--cell", args.cell)):
        command += [word, *wanted] if wanted else []
    surroundings = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": str(dtype == "float64"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    rows = []
    with subprocess.Popen(
        command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                print(line, end="", flush=True)
                rows.append(json.loads(line))
    if process.returncode:
        sys.exit(process.returncode)
    return rows


def peer_families(peer: str) -> dict[str, Any]:
    if peer in ("tfp", "numpyro"):
        return importlib.import_module("benchmarks.peers._usual").families(peer)
    return importlib.import_module(f"benchmarks.peers._{peer}").FAMILIES


def compare(args: argparse.Namespace) -> None:
    import importlib.metadata

    from benchmarks.peers._cells import CELLS
    from benchmarks.peers._laws import LAWS

    (peer,), (dtype,) = args.peer, args.dtype
    version = importlib.metadata.version(PEERS[peer][1][0])
    known = peer_families(peer)
    for name, law in LAWS.items():
        if name not in known or (args.family and name not in args.family):
            continue
        theirs = known[name]()
        for cell in CELLS:
            if cell in theirs and (not args.cell or cell in args.cell):
                row = {"family": name, "cell": cell, "dtype": dtype, "peer": f"{peer} {version}"}
                try:
                    row |= measured(law, cell, theirs[cell], dtype, args.batch, args.rounds)
                except Exception as error:  # a peer's, which the others need not pay for
                    row |= {"failed": f"{type(error).__name__}: {error}"[:300]}
                say(row)


def ours_of(law: Any, cell: str, apart: bool) -> Any:
    """Our function of a batch of points, or of two; the batch is the last axis if they come apart."""
    import jax

    from dualflat.geometry.families.base import kl
    from dualflat.geometry.legendre import to_eta, to_theta
    from dualflat.geometry.metric import metric

    psi, fn = (
        law.ours(),
        {"to_eta": to_eta, "to_theta": to_theta, "kl": kl, "fisher": metric}[cell],
    )
    out = -1 if apart and cell in ("to_eta", "to_theta") else 0
    return jax.vmap(lambda *points: fn(psi, *points), in_axes=-1 if apart else 0, out_axes=out)


def measured(law: Any, cell: str, theirs: Any, dtype: str, batch: int, rounds: int) -> dict:
    import jax
    import numpy as np

    def points(count):
        rng = np.random.default_rng(20266)
        if cell == "kl":
            return [law.settled(x, dtype) for x in law.pairs(rng, count)]
        theta = law.settled(law.draw(rng, count), dtype)
        if cell != "to_theta":
            return [theta]
        with jax.enable_x64(True):
            eta = jax.jit(jax.vmap(law.ours().to_eta))(theta.astype(np.float64))
        return [np.asarray(eta).astype(dtype)]

    def prepared(count):
        given = points(count)
        packed = tuple(part for x in given for part in theirs.pack(x))
        apart = all(part.ndim == 1 for part in packed)
        laid = [np.ascontiguousarray(x.T) if apart else x for x in given]
        arguments = [tuple(map(jax.device_put, x)) for x in (laid, packed)]
        programs, costs = [], []
        for fn, x in zip((ours_of(law, cell, apart), theirs.call), arguments, strict=True):
            start = time.perf_counter()
            programs.append(jax.jit(fn).lower(*x).compile())
            costs.append(round(1e3 * (time.perf_counter() - start)))
        values = [
            jax.block_until_ready(run(*x)) for run, x in zip(programs, arguments, strict=True)
        ]
        if apart and cell in ("to_eta", "to_theta"):
            values[0] = values[0].T
        return given, packed, list(zip(programs, arguments, strict=True)), costs, values

    def seconds(run, x):
        start = time.perf_counter()
        jax.block_until_ready(run(*x))
        return time.perf_counter() - start

    if cell in ("to_theta", "fisher") and batch > PROBE:
        _, _, programs, *_ = prepared(PROBE)
        slowest = max(min(seconds(*program) for _ in range(2)) for program in programs)
        batch = min(batch, max(PROBE, int(PROBE / slowest) // PROBE * PROBE))
    given, packed, programs, costs, values = prepared(batch)
    times = np.array([[seconds(*p) for p in programs] for _ in range(rounds)]) / batch * 1e9

    def quartiles(x, digits):
        return [round(float(v), digits) for v in np.percentile(x, [25, 50, 75])]

    ours, peer = values[0], theirs.read(values[1])
    (low, ns, high), (peer_low, peer_ns, peer_high) = (quartiles(t, 1) for t in times.T)
    row = {
        "jax": jax.__version__,
        "batch": batch,
        "ns": ns,
        "quartiles": [low, high],
        "peer_ns": peer_ns,
        "peer_quartiles": [peer_low, peer_high],
        "ratio": quartiles(times[:, 1] / times[:, 0], 2),
        "compile_ms": costs[0],
        "peer_compile_ms": costs[1],
    }
    held = theirs.held if cell == "kl" else None
    for label, value, source in (("", ours, None), ("peer_", peer, held)):
        value = np.asarray(value, np.float64)
        row |= {label + k: v for k, v in errors(law, cell, value, given, packed, source).items()}
    return row


def errors(law: Any, cell: str, value: Any, given: list, packed: tuple, held: Any) -> dict:
    """What is wrong with the first rows, and how many of all are lost."""
    import mpmath as mp
    import numpy as np

    def exact(row):
        return [mp.mpf(float(x)) for x in row]

    lost = int((~np.isfinite(value.reshape(len(value), -1)).all(1)).sum())
    count = min(len(value), 2 * SAMPLE if cell == "kl" else SAMPLE)
    worst = [0.0, 0.0]
    rng = np.random.default_rng(20266)
    theta = law.draw(rng, len(value)) if cell == "to_theta" else None
    for k in range(count):
        if not np.isfinite(value[k]).all():
            continue
        if cell == "kl":
            points = [exact(x[k]) for x in given]
            if held is not None:
                half = len(packed) // 2
                points = [
                    held(tuple(x[k] for x in part)) for part in (packed[:half], packed[half:])
                ]
            truth = [law.kl(*points)]
        elif cell == "to_eta":
            truth = law.slope(exact(given[0][k]))
        elif cell == "fisher":
            truth = [x for line in law.hessian(exact(given[0][k])) for x in line]
        else:
            truth = law.inverse(exact(given[0][k]), exact(theta[k]))
        gaps = [abs(float(v) - t) for v, t in zip(np.ravel(value[k]), truth, strict=True)]
        wrong = float(max(gaps) / max(map(abs, truth)))
        part = k % 2 if cell == "kl" else 0
        worst[part] = max(worst[part], wrong)
    found: dict[str, Any] = {"error": float(f"{worst[0]:.1e}"), "nan": lost}
    if cell == "kl":
        found |= {"error_near": float(f"{worst[1]:.1e}"), "negative": int((value < 0).sum())}
    return found


def print_table(rows: list[dict]) -> None:
    print("\n| family | cell | dtype | peer | ns | peer's ns | ratio | error | peer's error |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        if "ns" not in row:
            continue
        wrong = []
        for label in ("", "peer_"):
            text = f"{row[label + 'error']:.0e}"
            if "error_near" in row:
                text += f", near {row[label + 'error_near']:.0e}"
            text += f", {row[label + 'nan']} NaN" if row[label + "nan"] else ""
            text += f", {row[label + 'negative']} negative" if row.get(label + "negative") else ""
            wrong.append(text)
        cells = [row["family"], row["cell"], row["dtype"], row["peer"]]
        cells += [f"{row['ns']:.0f}", f"{row['peer_ns']:.0f}", f"{row['ratio'][1]:.2f}", *wrong]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
