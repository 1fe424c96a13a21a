"""The trainer means the same on every mesh, and a run that was cut short ends as one that was not."""

import signal

import jax
import numpy as np
import pytest

from dualflat.runtime import sync
from dualflat.runtime.checkpoint import Checkpoints
from dualflat.runtime.duties import Evaluator, Silent
from dualflat.runtime.summary import Summary, read_metrics
from tests.runtime.tiny import Tiny


def run(task, mesh, folder, **options):
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return sync.train(task, mesh, checkpoints, **options)


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


class Listener(Silent):
    def __init__(self):
        self.notes, self.reports = [], []

    def note(self, text, /):
        self.notes.append(text)

    def report(self, report, /):
        self.reports.append(report)


def stop_at(step, number=signal.SIGTERM):
    """A stop that answers at its `step`-th question."""
    asked = iter(range(10**9))
    return lambda: number if next(asked) >= step else 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_mesh_trains_the_same_parameters(mesh_of, tmp_path, optimizer):
    """Bit for bit along ps, where nothing is reduced; to rounding along worker, where sums are."""
    task = Tiny(optimizer=optimizer, max_steps=10)
    found = {}
    for worker, ps in [(1, 1), (1, 8), (8, 1), (4, 1), (4, 2)]:
        outcome = run(task, mesh_of(worker, ps), tmp_path / f"{worker}x{ps}", every=10)
        found[worker, ps] = outcome.params
    assert_same_bits(found[1, 8], found[1, 1])
    assert_same_bits(found[4, 2], found[4, 1])
    # One rounding a sum, ten steps: 1e-6 for SGD. Adam divides by the root of a mean square, so a
    # gradient that is rounding alone moves by up to the learning rate 1e-2; here it stays below 1e-4.
    tolerance = {"sgd": 1e-6, "adam": 1e-4}[optimizer]
    for mesh in [(8, 1), (4, 1)]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance),
            found[mesh],
            found[1, 1],
        )
    moved = np.abs(found[1, 1]["out"]["w"] - task.init(jax.random.key(0)).params["out"]["w"]).max()
    assert moved > 100 * tolerance, "a negative control: the parameters must have gone somewhere"


def test_noise_and_order_come_from_the_seed(mesh_of, tmp_path):
    task, mesh = Tiny(max_steps=5), mesh_of(1, 1)
    a, b, c = (
        run(task, mesh, tmp_path / name, seed=seed).params
        for name, seed in [("a", 3), ("b", 3), ("c", 4)]
    )
    assert_same_bits(a, b)
    assert not np.array_equal(a["out"]["w"], c["out"]["w"])


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 19])
def test_a_resumed_run_ends_with_the_same_bits(mesh_of, tmp_path, cut):
    task, mesh = Tiny(max_steps=20), mesh_of(4, 2)
    straight = run(task, mesh, tmp_path / "straight", every=5)
    # every report asks once more (between evaluation batches), so the cut falls near `cut`
    first = run(task, mesh, tmp_path / "cut", every=5, stop=stop_at(cut))
    assert first.stopped_by == signal.SIGTERM
    assert 0 < first.step < 20
    second = run(task, mesh, tmp_path / "cut", every=5)
    assert second.resumed_from == first.step, "a signal saves the step it came at"
    assert second.step == 20
    assert_same_bits(second.params, straight.params)


def test_a_run_goes_on_another_mesh(mesh_of, tmp_path):
    task = Tiny(max_steps=12)
    straight = run(task, mesh_of(1, 8), tmp_path / "straight", every=6)
    first = run(task, mesh_of(1, 8), tmp_path / "moved", every=6, stop=stop_at(8))
    second = run(task, mesh_of(1, 2), tmp_path / "moved", every=6)
    assert second.resumed_from == first.step > 0
    assert_same_bits(second.params, straight.params)
    third = run(Tiny(max_steps=14), mesh_of(8, 1), tmp_path / "moved", every=6)
    assert third.resumed_from == 12


def test_a_finished_run_does_nothing(mesh_of, tmp_path):
    task, mesh = Tiny(max_steps=4), mesh_of(1, 1)
    done = run(task, mesh, tmp_path)
    listener = Listener()
    again = run(task, mesh, tmp_path, watch=listener)
    assert again.resumed_from == again.step == 4
    assert again.report is None
    assert any("nothing to do" in note for note in listener.notes)
    assert_same_bits(again.params, done.params)


def test_a_checkpoint_of_another_run_is_refused(mesh_of, tmp_path):
    mesh = mesh_of(1, 1)
    run(Tiny(max_steps=2), mesh, tmp_path)
    with pytest.raises(ValueError, match="optimizer was 'adam' and is now 'sgd'"):
        run(Tiny(max_steps=4, optimizer="sgd"), mesh, tmp_path)
    with pytest.raises(ValueError, match="seed was 0 and is now 1"):
        run(Tiny(max_steps=4), mesh, tmp_path, seed=1)
    assert run(Tiny(max_steps=4), mesh, tmp_path).resumed_from == 2, "and the refusals lost nothing"


@pytest.mark.parametrize(
    ("poison", "said"), [(7, "loss is nan at step 9, in the window of steps 6 to 10")]
)
def test_a_loss_that_is_not_finite_ends_the_run(mesh_of, tmp_path, poison, said):
    """The update of step 8 spoils the parameters; the loss of step 9 is the first to show it."""
    with pytest.raises(FloatingPointError, match=said):
        run(Tiny(max_steps=20, poison=poison), mesh_of(1, 1), tmp_path, every=5)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [5]


def test_parameters_spoilt_by_the_last_update_of_a_window_are_not_saved(mesh_of, tmp_path):
    with pytest.raises(FloatingPointError, match="test loss is nan after step 10"):
        run(Tiny(max_steps=20, poison=9), mesh_of(1, 1), tmp_path, every=5)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [5]


@pytest.mark.parametrize("worker", [1, 8])
def test_evaluation_counts_every_example_once(mesh_of, worker):
    """61 examples on 8 devices: three padded rows, none of which counts."""
    task = Tiny()
    layout = sync.state_layout(task, mesh_of(worker, 1))
    state, _ = sync.make_init(task, layout)(0)
    found = Evaluator(task, layout.part("params"))(state.params)
    examples = task.test[np.arange(61)]
    params = jax.tree.map(np.asarray, layout.to_saved(state).params)
    hidden = np.tanh(examples["image"] @ params["hidden"]["w"] + params["hidden"]["b"])
    logits = (hidden @ params["out"]["w"] + params["out"]["b"]).astype(np.float64)
    right = logits.argmax(-1) == examples["label"]
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(61), examples["label"]]
    assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-7)
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-6)


def test_what_is_recorded_is_what_is_reported(mesh_of, tmp_path):
    listener = Listener()
    task = Tiny(max_steps=13)
    run(
        task, mesh_of(1, 1), tmp_path, every=5, watch=listener,
        summary=lambda start: Summary(tmp_path, start=start),
    )  # fmt: skip
    assert [report.step for report in listener.reports] == [5, 10, 13]
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [5, 10, 13]
    for line, report in zip(lines, listener.reports, strict=True):
        assert line["Test_loss"] == report.test["loss"]
        assert line["Test_accuracy"] == report.test["accuracy"]
        assert line["Train_loss"] == report.loss
        assert line["Learning_rate"] == pytest.approx(1e-2)
        assert line["Examples_per_second"] == pytest.approx(16 * line["Steps_per_second"])
    assert lines[-1]["Test_loss"] < lines[0]["Test_loss"]


def test_tensorboard_reads_what_was_written(mesh_of, tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    task, mesh = Tiny(max_steps=10), mesh_of(1, 1)
    options = {"every": 5, "summary": lambda start: Summary(tmp_path, start=start)}
    run(Tiny(max_steps=7), mesh, tmp_path, **options)
    run(task, mesh, tmp_path, **options)
    seen = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    names = {"Test_loss", "Test_accuracy", "Train_loss", "Learning_rate", "Examples_per_second"}
    assert names <= set(seen.Tags()["scalars"])
    assert [event.step for event in seen.Scalars("Test_loss")] == [5, 7, 10]
    assert seen.Tags()["histograms"] == ["hidden"]
    assert seen.Histograms("hidden")[0].histogram_value.num == 12 * 7


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(mesh_of, tmp_path):
    """One flipped bit in the newest step's arrays: a warning, step 5 instead of 10, the same end."""
    from dualflat.runtime.checkpoint import DamagedCheckpointWarning

    mesh = mesh_of(1, 1)
    straight = run(Tiny(max_steps=15), mesh, tmp_path / "straight", every=5)
    run(Tiny(max_steps=10), mesh, tmp_path / "bent", every=5)
    newest = tmp_path / "bent" / "checkpoints" / "10" / "state"
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    with pytest.warns(DamagedCheckpointWarning, match=r"step 10 is damaged.*Step 5 is used"):
        resumed = run(Tiny(max_steps=15), mesh, tmp_path / "bent", every=5)
    assert resumed.resumed_from == 5
    assert_same_bits(resumed.params, straight.params)


def test_a_signal_in_the_last_evaluation_is_heard_and_the_evaluation_made_up(mesh_of, tmp_path):
    task, mesh = Tiny(max_steps=4), mesh_of(1, 1)
    options = {"every": 4, "summary": lambda start: Summary(tmp_path, start=start)}
    first = run(task, mesh, tmp_path, stop=stop_at(4), **options)  # the question after four steps
    assert first.stopped_by == signal.SIGTERM
    assert first.step == 4
    assert read_metrics(tmp_path) == []
    second = run(task, mesh, tmp_path, **options)
    assert second.stopped_by == 0
    (record,) = read_metrics(tmp_path)
    assert record["step"] == 4
    assert 0 < record["Test_accuracy"] <= 1


def test_a_signal_does_not_save_a_spoilt_state(mesh_of, tmp_path):
    """The update of step 7 spoils the parameters; the signal comes before any loss has shown it."""
    with pytest.raises(FloatingPointError, match="not finite after step 8"):
        run(Tiny(max_steps=20, poison=7), mesh_of(1, 1), tmp_path, every=5, stop=stop_at(9))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [5]


def test_a_rotten_old_checkpoint_does_not_stop_a_run(mesh_of, tmp_path):
    run(Tiny(max_steps=4), mesh_of(1, 1), tmp_path, every=2)
    record = tmp_path / "checkpoints" / "2" / "record.json"
    record.write_bytes(record.read_bytes().replace(b"tiny", b"tinz", 1))
    assert run(Tiny(max_steps=10), mesh_of(1, 1), tmp_path, every=2).step == 10


def test_records_are_on_the_disk_when_flushed(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    with Summary(tmp_path) as summary:
        summary.scalars(5, {"Test_loss": 0.25})
        summary.histograms(5, {"filters": np.arange(10.0), "constant": np.ones(3)})
        summary.flush()
        seen = event_accumulator.EventAccumulator(str(tmp_path)).Reload()  # before it is closed
        assert [(e.step, e.value) for e in seen.Scalars("Test_loss")] == [(5, 0.25)]
        assert seen.Histograms("filters")[0].histogram_value.num == 10
        assert seen.Histograms("constant")[0].histogram_value.max == 1


def test_an_evaluator_evaluates_each_checkpoint_once_and_goes_on_where_it_was(mesh_of, tmp_path):
    from dualflat.runtime import evaluator

    folder = tmp_path / "checkpoints"

    def follow(task, **options):
        listener = Listener()
        words = {"seed": 0, "since": 0.0, "stop": lambda: 0, "watch": listener, "poll_s": 0.01}
        evaluator.follow(task, folder, tmp_path, **(words | options))
        return [note.split(":")[0] for note in listener.notes]

    run(Tiny(max_steps=6), mesh_of(1, 1), tmp_path, every=2)
    assert follow(Tiny(max_steps=6)) == ["step 2", "step 4", "step 6"]
    run(Tiny(max_steps=8), mesh_of(1, 1), tmp_path, every=2)
    assert follow(Tiny(max_steps=8)) == ["step 8"]
    assert [line["step"] for line in read_metrics(tmp_path / "eval")] == [2, 4, 6, 8]
    # Of another run, or of an earlier one: passed over, until somebody stops it.
    assert follow(Tiny(max_steps=9, optimizer="sgd"), stop=stop_at(3)) == []
    assert follow(Tiny(max_steps=9), since=2e10, stop=stop_at(3)) == []
