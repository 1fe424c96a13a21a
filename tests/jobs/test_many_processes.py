"""One mesh over several real processes: the same parameters, the same end, whatever happens to one."""

import signal
import time

import numpy as np
import pytest

from tests.jobs.harness import Job, run, train, weights, where


def launch(*words, workers, ps=0):
    return ["launch", "--workers", workers, "--ps", ps, "--grace", 5, "--", *words]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train(folder, "--max-steps", 60, "--checkpoint", 10, "--optimizer", "sgd")
    return weights(folder)


@pytest.mark.parametrize(
    ("workers", "ps", "mesh"),
    [(2, 0, "worker=2,ps=1"), (3, 1, "worker=4,ps=1"), (2, 2, "worker=2,ps=2")],
)
def test_several_processes_train_what_one_trains(alone, tmp_path, workers, ps, mesh):
    words = ["train", *where(tmp_path), "--max-steps", 60, "--checkpoint", 10, "--optimizer", "sgd"]
    log = run(*launch(*words, workers=workers, ps=ps))
    assert f"mesh {mesh} of {workers + ps}" in log
    assert log.count("exported to") == 1, "by the chief alone"
    found = weights(tmp_path)
    assert found.keys() == alone.keys()
    for name in alone:  # sums over the batch come in another order: one rounding each, 60 steps
        np.testing.assert_allclose(found[name], alone[name], rtol=0, atol=2e-6, err_msg=name)


def test_sigterm_to_the_launcher_saves_in_all_and_one_process_resumes(alone, tmp_path):
    words = ["train", *where(tmp_path), "--max-steps", 60, "--checkpoint", 10, "--optimizer", "sgd"]
    with Job(*launch(*words, "--data", "slow", workers=2, ps=2)) as job:
        job.until("step 10/60")
        job.process.send_signal(signal.SIGTERM)
        log = job.end(expect=143)
    assert "is saved" in log
    log = run(*words)
    assert "resumed from step" in log
    for name, value in weights(tmp_path).items():
        np.testing.assert_allclose(value, alone[name], rtol=0, atol=2e-6, err_msg=name)


def test_the_coordinator_listens_on_its_own_address_only(tmp_path):
    """Nobody but the chief's own interface: an open port would let a stranger end the job."""
    words = ["train", *where(tmp_path), "--max-steps", 5000, "--checkpoint", 10, "--data", "slow"]
    with Job(*launch(*words, workers=2)) as job:
        port = int(
            job.until("coordinator at 127.0.0.1:")
            .split("coordinator at 127.0.0.1:")[1]
            .split(",")[0]
        )
        job.until("step   10/5000")
        listening = [address for address in _listeners() if address.endswith(f":{port:04X}")]
        job.process.send_signal(signal.SIGTERM)
        job.end(expect=143)
    # 127.0.0.1 as the kernel writes it, by itself or as an IPv6 socket's IPv4 address
    own = {f"0100007F:{port:04X}", f"0000000000000000FFFF00000100007F:{port:04X}"}
    assert listening, "a negative control: the chief does listen"
    assert set(listening) <= own


def _listeners():
    """Local addresses of every listening TCP socket of this machine, as the kernel lists them."""
    from pathlib import Path

    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found.append(fields[1])
    return found


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_and_the_checkpoint_goes_on(tmp_path):
    words = ["train", *where(tmp_path), "--max-steps", 2000, "--checkpoint", 10, "--data", "slow"]
    with Job(*launch(*words, workers=2)) as job:
        job.until("step   30/2000")
        killed = time.monotonic()
        _kill_a_worker(job.process.pid)
        rest, _ = job.process.communicate(timeout=60)
        took = time.monotonic() - killed
    assert job.process.returncode not in (0, None), rest
    assert took < 30, f"the others were ended after {took:.0f} s"
    log = train(tmp_path, "--max-steps", 60, "--checkpoint", 10)
    assert int(log.split("resumed from step ")[1].split()[0]) >= 20


def _kill_a_worker(launcher):
    """SIGKILL a process whose TF_CONFIG says worker."""
    from pathlib import Path

    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == launcher:
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            config = (entry / "environ").read_bytes()
        except OSError:
            continue
        if (
            b"dualflat" in words
            and b"train" in words
            and b'"type": "worker"' in config
            and b"launch" not in words
        ):
            import os

            os.kill(int(entry.name), signal.SIGKILL)
            return
    raise AssertionError("no worker found")


def test_a_worker_that_never_comes_is_named(tmp_path):
    import json

    from dualflat.runtime.local_cluster import free_ports

    chief, worker = free_ports(2)
    config = {
        "cluster": {"chief": [f"127.0.0.1:{chief}"], "worker": [f"127.0.0.1:{worker}"]},
        "task": {"type": "chief", "index": 0},
    }
    log = train(tmp_path, "--wait", 2, expect=2, env={"TF_CONFIG": json.dumps(config)})
    assert f"not every process of the job came within 2 s: worker 0 at 127.0.0.1:{worker}" in log


def test_processes_that_were_told_different_things_refuse_to_start(tmp_path):
    """Each of two is told its own --checkpoint: they would wait for each other at different steps."""
    script = tmp_path / "start.py"
    script.write_text(
        "import json, os, sys; sys.path.insert(0, os.getcwd())\n"
        "from dualflat.cli import main\n"
        "chief = json.loads(os.environ['TF_CONFIG'])['task']['type'] == 'chief'\n"
        f"words = {[str(w) for w in where(tmp_path)]!r}\n"
        "sys.exit(main(['train', *words, '--checkpoint', '5' if chief else '6']))\n"
    )
    import sys

    log = run("launch", "--workers", 2, "--", sys.executable, script, expect=2)
    assert "process 1 of 2 was told something else than the chief" in log
    assert not (tmp_path / "logs").exists()


def test_a_chief_that_never_comes_is_named(tmp_path):
    import json

    from dualflat.runtime.local_cluster import free_ports

    chief, worker = free_ports(2)
    config = {
        "cluster": {"chief": [f"127.0.0.1:{chief}"], "worker": [f"127.0.0.1:{worker}"]},
        "task": {"type": "worker", "index": 0},
    }
    log = train(tmp_path, "--wait", 1, expect=2, env={"TF_CONFIG": json.dumps(config)})
    assert f"the chief at 127.0.0.1:{chief} did not answer within 1 s" in log
