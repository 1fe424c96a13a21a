"""The examples print what stands beside them, and the ones that train do train."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dualflat import cli
from tests.style.test_readme import blocks

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PRINTED = sorted(EXAMPLES.glob("*.txt"))


def environment():
    env = {
        name: value for name, value in os.environ.items() if name not in ("TF_CONFIG", "XLA_FLAGS")
    }
    path = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")]))
    return env | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": path}


def start(words):
    return subprocess.Popen(
        [str(word) for word in words], cwd=ROOT, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def said(process):
    """What it printed, once it has ended well."""
    with process:
        try:
            out, err = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, out + err
    return out


@pytest.fixture(scope="module")
def printing():
    """Every script, all started together: a process each is what costs, and there are several cores."""
    running = {file.stem: start([sys.executable, file.with_suffix(".py")]) for file in PRINTED}
    yield running
    for process in running.values():  # also of tests that were not asked for
        with process:
            process.kill()


def test_every_numbered_script_has_its_output():
    scripts = {file.stem for file in EXAMPLES.glob("[0-9]*.py")}
    assert scripts == {file.stem for file in PRINTED}
    assert len(scripts) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("expected", PRINTED, ids=lambda file: file.stem)
def test_a_script_prints_what_stands_beside_it(printing, expected):
    assert said(printing[expected.stem]) == expected.read_text(encoding="utf-8")


def test_a_model_of_ones_own_is_trained_exported_and_asked(tmp_path, capsys, monkeypatch):
    """As its docstring says; more steps than 300 are not needed to tell digits from noise."""
    where = ["--log-dir", tmp_path / "logs", "--model-dir", tmp_path / "model"]
    words = ["train", "--task", "examples.own_task:task", "--max-steps", 300, *where]
    assert "step 300/300" in said(start([sys.executable, "-m", "dualflat", *words]))
    assert cli.main(["predict", "--model", str(tmp_path / "model")]) == 0
    answer = capsys.readouterr().out
    assert float(answer.rsplit("accuracy ", 1)[1].split()[0]) > 0.85
    monkeypatch.chdir(tmp_path)
    for page in ("README.md", "docs/export.md"):  # their lines of Python, with this model
        programs = [
            p for p in blocks((ROOT / page).read_text(encoding="utf-8"), "python") if ">>>" not in p
        ]
        assert programs
        for program in programs:
            names = {}
            exec(compile(program, page, "exec"), names)
            assert names["answer"]["scores"].shape == (5, 10)


def test_a_model_of_ones_own_takes_about_forty_lines():
    source = (EXAMPLES / "own_task.py").read_text(encoding="utf-8").split('"""', 2)[2]
    assert len([line for line in source.splitlines() if line.strip()]) <= 45


def test_the_cluster_by_hand_is_a_cluster():
    """Every process of the script is another member of the same four."""
    asked = (
        "import os\nfrom dualflat.runtime.cluster import Cluster\n"
        "me = Cluster.from_tf_config(os.environ['TF_CONFIG'])\n"
        "os.write(1, f'{me.name} {me.num_processes} {me.process_id}\\n'.encode())"
    )
    lines = said(
        start(["bash", EXAMPLES / "04_cluster.sh", sys.executable, "-c", asked])
    ).splitlines()
    assert sorted(lines) == ["chief 0 4 0", "ps 0 4 3", "worker 0 4 1", "worker 1 4 2"]


def test_the_cluster_by_hand_passes_a_failure_on():
    failing = "import os, sys; sys.exit('\"type\": \"ps\"' in os.environ['TF_CONFIG'])"
    words = ["bash", str(EXAMPLES / "04_cluster.sh"), sys.executable, "-c", failing]
    done = subprocess.run(words, env=environment(), timeout=60, check=False)
    assert done.returncode == 1
