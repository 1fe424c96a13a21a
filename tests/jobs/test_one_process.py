"""A user trains, is interrupted in every way, resumes, exports and predicts."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.jobs.harness import (
    REPOSITORY,
    Job,
    assert_same_bits,
    environment,
    run,
    train,
    wait_for,
    weights,
    where,
)


def test_help_needs_no_jax_and_no_extra():
    """What makes `--help` answer at once: nothing heavy is imported."""
    code = (
        "import sys, contextlib\n"
        "from dualflat.cli import main\n"
        "for words in (['--help'], ['train', '--help'], ['launch', '--help'], ['predict', '--help']):\n"
        "    with contextlib.suppress(SystemExit): main(words)\n"
        "heavy = {'jax', 'numpy', 'optax', 'flax', 'orbax', 'rich', 'tensorboardX'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in ("--batch-size", "--max-steps", "--mesh", "--fresh", "--workers", "--images"):
        assert word in done.stdout


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The parameters of a run of 60 steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    log = train(folder, "--max_steps=60", "--checkpoint", 10, "--mesh", "worker=1,ps=8", devices=8)
    assert "exported to" in log
    return weights(folder)


def test_killed_at_any_moment_and_resumed_ends_with_the_same_bits(straight, tmp_path):
    """Three kills -9 at moments drawn by seed 7, the last of them on the way to a save."""
    draw = random.Random(7)
    words = ["train", *where(tmp_path), "--max-steps", 60, "--checkpoint", 10, "--data", "slow"]
    words += ["--mesh", "worker=1,ps=8"]
    for k in range(3):
        with Job(*words, devices=8) as job:
            job.until(f"step {10 * (2 * k + 1)}/60")
            time.sleep(draw.uniform(0, 0.25))
            job.process.kill()
    log = run(*words, "--resume", devices=8)
    assert "resumed from step" in log
    assert_same_bits(weights(tmp_path), straight)


def test_sigterm_saves_and_ends_within_five_seconds(straight, tmp_path):
    words = ["train", *where(tmp_path), "--max-steps", 60, "--checkpoint", 10, "--data", "slow"]
    with Job(*words, "--mesh", "worker=1,ps=8", devices=8) as job:
        job.until("step 20/60")
        time.sleep(0.1)  # so that it comes between two saves
        asked = time.monotonic()
        job.process.send_signal(signal.SIGTERM)
        log = job.end(expect=143)
        took = time.monotonic() - asked
    assert took < 5, f"{took:.1f} s"
    assert "is saved" in log
    log = run(*words, devices=1)  # and on another mesh: one device instead of eight shards
    resumed = int(log.split("resumed from step ")[1].split()[0])
    assert resumed > 20, "the signal saved more than the last checkpoint had"
    assert resumed % 10, "a negative control: it came between two saves"
    assert_same_bits(weights(tmp_path), straight)


def test_fresh_sets_the_earlier_run_aside(tmp_path):
    train(tmp_path, "--max-steps", 4)
    assert "nothing to do" in train(tmp_path, "--max-steps", 4)
    log = train(tmp_path, "--max-steps", 4, "--seed", 1, expect=2)
    assert "seed was 0 and is now 1" in log
    log = train(tmp_path, "--max-steps", 4, "--seed", 1, "--fresh")
    assert "resumed" not in log
    (aside,) = (tmp_path / "logs").glob("before-*")
    assert (aside / "checkpoints" / "4").is_dir()
    assert (tmp_path / "logs" / "checkpoints" / "4").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--mesh", "4x2"], "wanted worker=N or ps=N"),
        (["train", "--mesh", "worker=4"], "--cpu-devices 4"),
        (["train", "--max-steps", "0"], "wanted at least 1"),
        (["train", "--batch-size", "-3"], "wanted a whole number"),
        (["train", "--learning-rate", "nan"], "wanted a number above 0"),
        (["train", "--task", "nothing"], "'nothing' is not known"),
        (["train", "--resume"], "holds no checkpoint"),
        (["train", "--data", "/nonexistent"], "/nonexistent"),
        (["train", "--optimizer", "adamn"], "adam"),
        (["predict", "--model", "/nonexistent"], "/nonexistent"),
        (["predict", "--images", "/nonexistent"], "/nonexistent"),
        (["launch", "--workers", "0", "--", "true"], "wanted at least 1"),
    ],
)
def test_words_that_cannot_be_followed_get_one_line(words, said, tmp_path, capfd, monkeypatch):
    """In this process: what is tested is the words, and a process each would cost a minute."""
    from dualflat import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    if words[-1] == "worker=4":
        monkeypatch.setattr("jax.devices", lambda: [__import__("jax").local_devices()[0]])
    try:
        status = cli.main(words)
    except SystemExit as left:
        status = left.code
    assert status == 2
    out, err = capfd.readouterr()
    assert said in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.rglob("*.partial"))


def test_a_terminal_gets_a_bar_and_a_log_gets_lines(tmp_path):
    """A pseudo-terminal and a pipe, the same job."""
    import pty

    plain = train(tmp_path / "a", "--max-steps", 10, "--checkpoint", 5)
    assert "step  5/10  train loss" in plain
    assert "\x1b" not in plain
    main, other = pty.openpty()
    words = [
        sys.executable,
        "-m",
        "dualflat",
        "train",
        *where(tmp_path / "b"),
        "--max-steps",
        "60",
        "--checkpoint",
        "30",
    ]
    process = subprocess.Popen(
        [*map(str, words), "--data", "slow"], cwd=REPOSITORY, env=environment() | {"TERM": "xterm"},
        stdin=other, stdout=other, stderr=other, start_new_session=True,
    )  # fmt: skip
    os.close(other)
    seen = b""
    try:
        while chunk := _read(main):
            seen += chunk
    finally:
        process.kill() if process.poll() is None and process.wait(60) is None else None
        os.close(main)
    assert process.wait(60) == 0, seen
    text = seen.decode(errors="replace")
    assert "\x1b[" in text
    assert "/60" in text
    assert "step 30/60  train loss" in text


def _read(handle):
    try:
        return os.read(handle, 65536)
    except OSError:  # the other end has closed
        return b""


def test_predict_needs_neither_the_model_nor_flax(tmp_path):
    """Train two steps of the main job, then predict in a process where importing them fails."""
    run(
        "train",
        "--log-dir",
        tmp_path / "logs",
        "--model-dir",
        tmp_path / "model",
        "--max-steps",
        2,
        "--batch-size",
        20,
    )
    assert weights(tmp_path)
    code = (
        "import sys\n"
        "for name in ('flax', 'optax', 'orbax', 'tensorboardX', 'dualflat.learn.models', 'dualflat.learn.supervised',\n"
        "             'dualflat.geometry'):\n"
        "    sys.modules[name] = None  # importing it is an error now\n"
        "from dualflat.cli import main\n"
        f"raise SystemExit(main(['predict', '--model', {str(tmp_path / 'model')!r}, '--first', '7']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=100
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "key\tprediction\tlabel"
    assert [line.split("\t")[0] for line in lines[1:-1]] == [str(k) for k in range(7)]
    assert lines[-1].startswith("accuracy 0.")


def test_a_run_that_a_checkpoint_cannot_be_written_for_fails_with_words(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "checkpoints").write_text("a file where a folder is wanted")
    log = train(tmp_path, "--max-steps", 4, expect=1)
    assert "checkpoints" in log
    assert "Traceback" not in log


def test_evaluator_follows_the_checkpoints(tmp_path):
    import json

    config = {"cluster": {"chief": ["127.0.0.1:1"]}, "task": {"type": "evaluator", "index": 0}}
    words = ["train", *where(tmp_path), "--max-steps", 8, "--checkpoint", 4]
    with Job(*words, env={"TF_CONFIG": json.dumps(config)}) as evaluator:
        train(tmp_path, "--max-steps", 8, "--checkpoint", 4)
        log = evaluator.end()
    assert "step 8: test accuracy" in log
    wait_for((tmp_path / "logs" / "eval" / "metrics.jsonl").exists)
