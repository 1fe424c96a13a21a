"""The classical trainer in TensorFlow 2.21 (`tf.compat.v1`, oneDNN) beside ours, interleaved.

    python -m benchmarks.peers.tensorflow_seed --data DIR [--venv DIR] [--steps 500] [--rounds 2]

Makes a virtual environment with TensorFlow (once; it is kept), then runs A B A B: TensorFlow, ours.
Each run is a process of its own that trains the same network from its own random start with Adam
at 1e-4 on the same batches of 100 from the same IDX folder, and prints JSON lines: steps per second
(median and quartiles over windows of 10 steps, the first window left out), accuracy on the
10,000 test images, seconds to evaluate them (the first time, and after it), and seconds to export.
TensorFlow evaluates in batches of 100, as its trainer did; ours as our trainer does, 1,000 at a time.
The last line is the ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
BATCH, WINDOW = 100, 10


def figures(name, windows, **more):
    rates = [WINDOW / seconds for seconds in windows[1:] or windows]
    q1, middle, q3 = (
        statistics.quantiles(rates, n=4, method="inclusive") if len(rates) > 1 else rates * 3
    )
    speed = {"steps_per_s": round(middle, 2), "q1": round(q1, 2), "q3": round(q3, 2)}
    print(json.dumps({"name": name, **speed, **more}), flush=True)


def evaluation(seconds):
    """The first one compiles, or optimises its graph; the median of the others is what stays."""
    first, *others = seconds
    return {
        "first_evaluation_s": round(first, 2),
        "evaluation_s": round(statistics.median(others), 2),
    }


def shuffled(size, steps):
    """The rows of every batch, one after another: the same for both."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.permutation(size) for _ in range(-(-steps * BATCH // size))])


def load(folder):
    sys.path.insert(0, str(ROOT / "dualflat" / "learn"))  # the reader alone: it needs only numpy
    from idx import read_folder

    def flat(images):
        return images.reshape(len(images), -1).astype(np.float32) / 255

    train, test = read_folder(folder)
    one_hot = np.eye(10, dtype=np.float32)
    return flat(train.images), one_hot[train.labels], flat(test.images), one_hot[test.labels]


def tensorflow(folder, steps):
    import tensorflow

    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
    images, labels, test_images, test_labels = load(folder)
    side = int(images.shape[1] ** 0.5)

    def network(x, keep_prob):
        h, channels = tf.reshape(x, [-1, side, side, 1]), 1
        for filters in (32, 64):
            w = tf.Variable(tf.truncated_normal([5, 5, channels, filters], stddev=0.1))
            b = tf.Variable(tf.constant(0.1, shape=[filters]))
            h = tf.nn.relu(tf.nn.conv2d(h, w, strides=[1, 1, 1, 1], padding="SAME") + b)
            h = tf.nn.max_pool(h, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME")
            channels = filters
        units = (side // 4) ** 2 * 64
        w = tf.Variable(tf.truncated_normal([units, 1024]))
        b = tf.Variable(tf.constant(0.1, shape=[1024]))
        h = tf.nn.relu(tf.matmul(tf.reshape(h, [-1, units]), w) + b)
        if keep_prob is not None:
            h = tf.nn.dropout(h, keep_prob)
        return tf.nn.softmax(
            tf.matmul(h, tf.Variable(tf.zeros([1024, 10]))) + tf.Variable(tf.zeros([10]))
        )

    x = tf.placeholder(tf.float32, [None, images.shape[1]])
    t = tf.placeholder(tf.float32, [None, 10])
    keep = tf.placeholder(tf.float32, [])
    p = network(x, keep)
    loss = -tf.reduce_sum(t * tf.log(p))
    update = tf.train.AdamOptimizer(0.0001).minimize(loss)
    right = tf.reduce_sum(tf.cast(tf.equal(tf.argmax(p, 1), tf.argmax(t, 1)), tf.float32))
    order = shuffled(len(images), steps)
    with tf.Session() as session, tempfile.TemporaryDirectory() as scratch:
        session.run(tf.global_variables_initializer())
        windows = []
        for first in range(0, steps, WINDOW):
            began = time.perf_counter()
            for k in range(first, min(first + WINDOW, steps)):
                rows = order[k * BATCH : (k + 1) * BATCH]
                session.run([update, loss], {x: images[rows], t: labels[rows], keep: 0.5})
            windows.append(time.perf_counter() - began)
        evaluations = []
        for _ in range(3):
            began, found = time.perf_counter(), 0.0
            for k in range(0, len(test_images), BATCH):
                found += session.run(
                    right, {x: test_images[k : k + BATCH], t: test_labels[k : k + BATCH], keep: 1.0}
                )
            evaluations.append(time.perf_counter() - began)
        began = time.perf_counter()
        saver = tf.train.Saver()
        saver.save(session, scratch + "/state", write_meta_graph=False)
        with tf.Graph().as_default(), tf.Session() as fresh:  # a graph for prediction only
            q = network(tf.placeholder(tf.float32, [None, images.shape[1]]), None)
            del q
            fresh.run(tf.global_variables_initializer())
            served = tf.train.Saver()
            served.restore(fresh, scratch + "/state")
            served.export_meta_graph(filename=scratch + "/export.meta")
            served.save(fresh, scratch + "/export", write_meta_graph=False)
        export = time.perf_counter() - began
    figures(
        "tensorflow " + tensorflow.__version__,
        windows,
        steps=steps,
        accuracy=round(float(found) / len(test_images), 4),
        **evaluation(evaluations),
        export_s=round(export, 2),
    )


def ours(folder, steps):
    sys.path.insert(0, str(ROOT))
    import jax

    from dualflat.contracts import Options
    from dualflat.learn.tasks import resolve
    from dualflat.runtime import sync
    from dualflat.runtime.duties import Evaluator
    from dualflat.runtime.export import write_export
    from dualflat.runtime.placement import Rows, make_mesh

    task = resolve("mnist")(Options(data=folder))
    mesh = make_mesh({"worker": 1, "ps": 1}, jax.devices())
    layout = sync.state_layout(task, mesh)
    rows, step = Rows(layout.batch, BATCH), sync.make_step(task, layout)
    (state, key), windows = sync.make_init(task, layout)(0), []
    order = shuffled(len(task.train), steps)
    for first in range(0, steps, WINDOW):
        began = time.perf_counter()
        for k in range(first, min(first + WINDOW, steps)):
            batch = task.train[order[k * BATCH : (k + 1) * BATCH]]
            state, _ = step(state, key, rows.place(batch))
        jax.block_until_ready(state)
        windows.append(time.perf_counter() - began)
    evaluator, evaluations = Evaluator(task, layout.part("params")), []
    for _ in range(3):
        began = time.perf_counter()
        found = evaluator(state.params)["accuracy"]
        evaluations.append(time.perf_counter() - began)
    more = {"steps": steps, "accuracy": round(found, 4), **evaluation(evaluations)}
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        write_export(
            scratch,
            task.predict,
            state.params,
            task.inputs,
            name=task.name,
            record=dict(task.settings),
        )
        more["export_s"] = round(time.perf_counter() - began, 2)
    figures("dualflat on jax " + jax.__version__, windows, **more)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, help="an IDX folder (MNIST, Fashion-MNIST)")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-tensorflow")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=("tensorflow", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        return {"tensorflow": tensorflow, "ours": ours}[args.only](args.data, args.steps)
    from benchmarks.peers._environment import environment

    python = environment(args.venv, "tensorflow", "tensorflow==2.21.*")
    pythons = {"tensorflow": python, "ours": sys.executable}
    rates = {name: [] for name in pythons}
    for _ in range(args.rounds):
        for name, python in pythons.items():
            command = [
                python,
                HERE,
                "--only",
                name,
                "--data",
                args.data,
                "--steps",
                str(args.steps),
            ]
            quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=quiet, check=True)
            line = done.stdout.strip().splitlines()[-1]
            print(line, flush=True)
            rates[name].append(json.loads(line)["steps_per_s"])
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["tensorflow"])
    print(
        json.dumps({"name": "dualflat over tensorflow, steps per second", "ratio": round(ratio, 3)})
    )
    return None


if __name__ == "__main__":
    main()
