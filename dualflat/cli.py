"""The street door: reads the words and the environment, builds the parts, starts one, exits.

Words are read with the standard library, before anything heavy is imported: `--help` answers at
once. Only this file and `console` print, read the environment, or choose an exit status.
"""

import argparse
import io
import math
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

OK, FAILED, USAGE = 0, 1, 2
COMMANDS = ("train", "launch", "predict", "verify")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status.

    0 done; 1 it failed while running; 2 the words, the environment or the input want mending;
    128 + n ended by signal n with everything saved (143 for SIGTERM, 130 for Ctrl-C; 141 where
    whoever read the output of `predict` or `verify` has closed it).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    args = parser.parse_args(hyphenated(words))
    warnings.showwarning = _show_warning
    try:
        return args.run(args)
    except KeyboardInterrupt:  # before training began, or a second time: there is nothing to save
        return 130
    except BrokenPipeError:  # as by `| head`
        if args.run not in (_predict, _verify):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush
        return 128 + signal.SIGPIPE


def hyphenated(words: Sequence[str]) -> list[str]:
    """Accept `--batch_size` for `--batch-size`, up to a `--` that ends our own words."""
    end = words.index("--") if "--" in words else len(words)
    ours = []
    for word in words[:end]:
        name, equals, value = word.partition("=")
        ours.append(name.replace("_", "-") + equals + value if name.startswith("--") else word)
    return [*ours, *words[end:]]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    from dualflat._version import __version__

    parser = argparse.ArgumentParser(
        prog="dualflat",
        description="Dually flat geometry from a convex potential, and training that uses it.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dualflat {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_launch(commands)
    _add_predict(commands)
    _add_verify(commands)
    return parser


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = commands.add_parser(
        "train",
        help="train a task, alone or as one process of a TF_CONFIG cluster",
        description="Train a task, resume it where it stands, and export the model. With TF_CONFIG in the"
        " environment this process plays the role named there; the same command serves every role.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = train.add_argument_group("what to train")
    what.add_argument(
        "--task",
        default="mnist",
        metavar="NAME",
        help="mnist, or module:attribute of your own (default mnist)",
    )
    what.add_argument(
        "--data",
        metavar="DIR",
        help="folder of MNIST-format IDX files (default: the digits that come with dualflat)",
    )
    what.add_argument(
        "--optimizer", metavar="NAME", help="adam, adamw, sgd, … (default: the task's, adam)"
    )
    what.add_argument(
        "--learning-rate", type=_positive_float, metavar="X", help="default: the task's"
    )
    what.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the computation; parameters stay float32",
    )
    how = train.add_argument_group("how long, how often")
    how.add_argument(
        "--batch-size",
        type=_positive_int,
        metavar="N",
        help="examples a step, over all workers (default 100)",
    )
    how.add_argument(
        "--max-steps",
        type=_positive_int,
        metavar="N",
        help="steps to train (default 10000; on the built-in digits fewer)",
    )
    how.add_argument(
        "--checkpoint",
        type=_positive_int,
        default=100,
        metavar="N",
        help="steps between checkpoints, evaluations and records (default 100)",
    )
    how.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of parameters, noise and the order of the examples (default 0)",
    )
    where = train.add_argument_group("where")
    where.add_argument(
        "--log-dir", default="logs", metavar="DIR", help="checkpoints and summaries (default logs)"
    )
    where.add_argument(
        "--model-dir", default="model", metavar="DIR", help="the exported model (default model)"
    )
    where.add_argument(
        "--keep",
        type=_positive_int,
        default=5,
        metavar="N",
        help="newest checkpoints that stay (default 5)",
    )
    where.add_argument(
        "--keep-best",
        type=_count,
        default=1,
        metavar="N",
        help="and of the others the N with the least test loss (default 1)",
    )
    where.add_argument(
        "--mesh",
        metavar="worker=W,ps=P",
        help="split the batch W ways, the parameters P ways (default: as many workers as divide the"
        " batch size, a shard for each ps task)",
    )
    where.add_argument(
        "--cpu-devices", type=_positive_int, metavar="N", help="simulate N devices on the CPU"
    )
    where.add_argument(
        "--wait",
        type=_positive_float,
        default=300.0,
        metavar="S",
        help="seconds to wait for the other processes at the start (default 300)",
    )
    again = train.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        dest="resume",
        action="store_true",
        default=None,
        help="go on from the newest checkpoint; an error if there is none",
    )
    again.add_argument(
        "--fresh",
        dest="resume",
        action="store_false",
        default=None,
        help="set an earlier run in --log-dir aside and start anew (default: resume if there is a checkpoint)",
    )
    train.set_defaults(run=_train)


def _add_launch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    launch = commands.add_parser(
        "launch",
        help="start a local cluster of real processes, each with its TF_CONFIG",
        description="Start the same command in every process of a cluster on this machine.\n\n"
        "  dualflat launch --workers 3 --ps 1 -- train --max-steps 200\n"
        "  dualflat launch --workers 2 -- python my_program.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    launch.add_argument(
        "--workers",
        type=_positive_int,
        default=2,
        metavar="N",
        help="training processes, the first of them the chief (default 2)",
    )
    launch.add_argument(
        "--ps", type=_count, default=0, metavar="N", help="parameter-server processes (default 0)"
    )
    launch.add_argument(
        "--evaluator",
        action="store_true",
        help="one more process, which evaluates every checkpoint",
    )
    launch.add_argument(
        "--grace",
        type=_positive_float,
        default=10.0,
        metavar="S",
        help="seconds a process gets to end after SIGTERM (default 10)",
    )
    launch.add_argument(
        "command",
        nargs="+",
        metavar="-- COMMAND",
        help="a command of dualflat's, such as train, or any program",
    )
    launch.set_defaults(run=_launch)


def _add_predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    predict = commands.add_parser(
        "predict",
        help="run an exported model on images",
        description="Print key, prediction and label of each image, tab-separated, then the accuracy.",
        allow_abbrev=False,
    )
    predict.add_argument(
        "--model",
        default="model",
        metavar="DIR",
        help="what train wrote as --model-dir (default model)",
    )
    predict.add_argument(
        "--images",
        metavar="FILE",
        help="IDX images, plain or gzip (default: the held-out digits that come with dualflat)",
    )
    predict.add_argument(
        "--labels",
        metavar="FILE",
        help="IDX labels (default: the file beside the images whose name fits, if there is one)",
    )
    predict.add_argument("--first", type=_positive_int, metavar="N", help="only the first N images")
    predict.set_defaults(run=_predict)


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    verify = commands.add_parser(
        "verify",
        help="hold a convex function against the theorems of dually flat geometry",
        description="Evaluate every theorem that follows from a convex function ψ, at random points of its"
        " domain, and print by how much each fails: nothing but rounding, if ψ is convex and smooth.\n\n"
        "  dualflat verify                          the laws on four outcomes\n"
        "  dualflat verify gaussian:2               normal laws on the plane\n"
        "  dualflat verify my_module:psi --dim 3    a function of your own",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verify.add_argument(
        "what",
        nargs="?",
        default="categorical",
        metavar="WHAT",
        help="a potential by name, with its size or without (categorical, gaussian:2, burg, …; --list"
        " has them all), or module:attribute of your own: ψ(θ), or a function of no arguments that"
        " returns it (default categorical)",
    )
    verify.add_argument(
        "--dim", type=_positive_int, metavar="N", help="coordinates of θ, where ψ does not say"
    )
    verify.add_argument(
        "--start",
        type=_numbers,
        metavar="X,Y,…",
        help="a point of the domain to begin at, where ψ does not say (--start=-1,2 if negative)",
    )
    verify.add_argument(
        "--law",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="only these, by name or by the lecture's number: pythagoras, 10, 'theorem 1'",
    )
    verify.add_argument(
        "--points",
        type=_positive_int,
        default=16,
        metavar="N",
        help="random points, with two more near each (default 16)",
    )
    verify.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of the points (default 0)"
    )
    verify.add_argument(
        "--precision",
        choices=("float32", "float64"),
        default="float64",
        help="of everything (default float64)",
    )
    verify.add_argument(
        "--list", action="store_true", help="show the potentials and the laws, evaluate nothing"
    )
    verify.set_defaults(run=_verify)


def _train(args: argparse.Namespace) -> int:
    from dualflat.runtime.cluster import Cluster

    try:
        cluster = Cluster.from_tf_config(os.environ.get("TF_CONFIG"))
    except ValueError as error:
        return _refuse("train", error)
    if args.cpu_devices:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["JAX_NUM_CPU_DEVICES"] = str(args.cpu_devices)
    # Read when the CPU client starts: with fewer threads than simulated devices, collectives of
    # jax ≤ 0.11 wait for each other for ever.
    simulated = int(os.environ.get("JAX_NUM_CPU_DEVICES") or 1)
    if simulated > 1:
        os.environ.setdefault("PJRT_NPROC", str(2 * simulated))
    if ":" in args.task:
        sys.path.insert(0, os.getcwd())  # so that my_module:task finds the user's own file
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError:
        return _refuse(
            "train",
            ModuleNotFoundError(
                "tensorboardX is not installed. Install the extra: pip install 'dualflat[train]'"
            ),
        )

    from dualflat.console import PlainConsole, console
    from dualflat.contracts import Options
    from dualflat.learn import tasks
    from dualflat.runtime import launch, placement

    options = Options(
        data=args.data,
        batch_size=args.batch_size,
        max_steps=args.max_steps,
        optimizer=args.optimizer,
        learning_rate=args.learning_rate,
        precision=args.precision,
    )
    try:
        plan = launch.Plan(
            log_dir=launch.absolute(args.log_dir),
            model_dir=launch.absolute(args.model_dir),
            mesh=placement.parse_mesh(args.mesh) if args.mesh else None,
            seed=args.seed,
            every=args.checkpoint,
            resume=args.resume,
            keep=args.keep,
            keep_best=args.keep_best,
            wait_s=args.wait,
        )
        with console() if cluster.num_processes == 1 else PlainConsole() as watch:
            signal_number = launch.run(
                cluster, lambda: tasks.resolve(args.task)(options), plan, watch, give_up=_give_up
            )
    except Exception as error:
        status = _said(error)
        if cluster.num_processes > 1:
            print("this job ends; started again, it resumes from its checkpoint", file=sys.stderr)
        return _leave(cluster.num_processes, status)
    return 128 + signal_number if signal_number else OK


def _launch(args: argparse.Namespace) -> int:
    from dualflat.runtime.local_cluster import run_local

    command = args.command
    if command[0] in COMMANDS:
        command = [sys.executable, "-m", "dualflat", *command]
    try:
        return run_local(
            command,
            workers=args.workers,
            ps=args.ps,
            evaluator=args.evaluator,
            output=lambda line: print(line, flush=True),
            grace_s=args.grace,
        )
    except (ValueError, OSError) as error:
        return _refuse("launch", error)


def _predict(args: argparse.Namespace) -> int:
    import numpy as np

    from dualflat.runtime.export import ExportError, load_export

    try:
        images, labels = _images(args.images, args.labels)
        if args.first:
            images, labels = images[: args.first], None if labels is None else labels[: args.first]
        model = load_export(args.model)
        shape = model.signature["inputs"].get("image", {}).get("shape", [])[1:]
        if math.prod(shape) != math.prod(images.shape[1:]):
            raise ValueError(
                f"the model takes images of {math.prod(shape)} numbers, these have"
                f" {' × '.join(map(str, images.shape[1:]))} pixels. Name the images it is for: --images FILE."
            )
        pixels = np.asarray(images, np.float32).reshape(len(images), *shape) / 255.0
        inputs = {"key": np.arange(len(images), dtype=np.int64), "image": pixels}
        answer = model.predict_in_batches(inputs, 1000)
    except (ValueError, ExportError, OSError) as error:
        return _refuse("predict", error)
    guesses = np.argmax(answer["scores"], axis=-1)
    lines = ["key\tprediction" + ("\tlabel" if labels is not None else "")]
    for row, (key, guess) in enumerate(zip(answer["key"], guesses, strict=True)):
        lines.append(f"{key}\t{guess}" + (f"\t{labels[row]}" if labels is not None else ""))
    if labels is not None:
        right = int((guesses == labels).sum())
        lines.append(f"accuracy {right / max(len(labels), 1):.4f} ({right} of {len(labels)})")
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def _verify(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the matrices are small
    # LAPACK on a batch waits for threads of the pool that it runs on: two such calls at once on a
    # pool of two threads wait for ever (JAX 0.10). Threads are cheap.
    os.environ.setdefault("PJRT_NPROC", "64")
    import jax

    jax.config.update("jax_enable_x64", args.precision == "float64")
    from dualflat import verify
    from dualflat.console import LawTable

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without Greek gets question marks
    try:
        wanted = verify.chosen(args.law)
        table = LawTable(wanted)
        if args.list:
            return _list_laws(table, verify.NAMED, wanted)
        dtype = jax.numpy.dtype(args.precision)
        subject = verify.find(args.what, dim=args.dim, start=args.start, dtype=dtype)
    except ValueError as error:
        return _refuse("verify", error)
    points = verify.draw(subject, args.points, args.seed)
    eps = float(jax.numpy.finfo(dtype).eps)
    n = subject.start.shape[0]
    facts = [
        ("ψ", f"{subject.about}; {n} coordinate{'s' * (n > 1)}"),
        (
            "points",
            f"{args.points} triples about θ = {verify.shown(subject.start)}, seed {args.seed}",
        ),
        ("precision", f"{args.precision}, ε = {eps:.1e}"),
    ]
    if points.convex:
        facts.append(
            ("condition", f"κ(G) ≤ {points.condition.max():.1f}, which multiplies rounding")
        )
    table.heading(f"The laws of dually flat geometry for {args.what}", facts)
    if not points.convex:
        table.last(False, verify.concave_words(subject, points))
        return FAILED
    findings = []
    for part, look in verify.examine(subject, points, wanted):
        table.part(part)
        began = time.perf_counter()
        found = look()
        rows = [(f.law, f.residual, f.tolerance, f.holds) for f in found]
        table.rows(rows, time.perf_counter() - began)
        findings += found
    failed = sum(not finding.holds for finding in findings)
    took = f"{time.perf_counter() - started:.0f} s, most of it compiling"
    if failed:
        count = f"{failed} of {len(findings)} laws fail ({took}),"
        first, *rest = verify.failure_words(subject, findings, args.seed)
        table.last(False, [f"{count} {first}", *rest])
        return FAILED
    most = max(finding.residual / finding.tolerance for finding in findings)
    table.last(
        True,
        [
            f"{len(findings)} of {len(findings)} laws hold at {args.points} triples of points ({took}).",
            f"The worst residual is {most:.0%} of what rounding alone may leave.",
        ],
    )
    return OK


def _list_laws(table: Any, named: Any, wanted: Sequence[Any]) -> int:
    table.heading(
        "Potentials that come with dualflat, to be followed by :SIZE or not",
        [(name, f"{kind.about} (:{kind.size})") for name, kind in named.items()],
    )
    for part in dict.fromkeys(law.part for law in wanted):
        table.names(part, [law for law in wanted if law.part == part])
    return OK


def _images(images: str | None, labels: str | None) -> tuple[Any, Any]:
    """The images to predict, and their labels where there are any."""
    from dualflat.learn import idx, tasks

    if images is None:
        if labels is not None:
            raise ValueError("--labels without --images: name the images they belong to.")
        _, test = idx.read_folder(tasks.DIGITS)
        return test.images, test.labels
    file = Path(images)
    beside = file.with_name(file.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels is None and beside != file and beside.exists():
        labels = str(beside)
    pixels = idx.read_idx(file, ndim=3)
    if labels is None:
        return pixels, None
    named = idx.read_idx(labels, ndim=1)
    if len(named) != len(pixels):
        raise ValueError(
            f"{labels} holds {len(named)} labels, {file} holds {len(pixels)} images: they do not belong together."
        )
    return pixels, named


def _positive_int(word: str) -> int:
    number = _count(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {word}, wanted at least 1")
    return number


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit() or len(word) > 9:
        raise argparse.ArgumentTypeError(
            f"found {word!r}, wanted a whole number from 0 to 999999999"
        )
    return int(word)


def _seed(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word[:11]) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"found {word!r}, wanted a whole number from 0 to 4294967295"
        )
    return int(word)


def _numbers(word: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in word.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"found {word!r}, wanted numbers with commas, as 0.5,-1,2")
    return numbers


def _positive_float(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"found {word!r}, wanted a number above 0")
    return number


def _said(error: Exception) -> int:
    """Tell an error of `train` as it deserves; return the exit status.

    One line for what this package raises, since its words say what to do. Anything else, such as a
    mistake in a user's own model, keeps its traceback.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = place.tb_frame.f_globals.get("__name__", "") if place is not None else ""
    ours = module.startswith("dualflat.") or type(error).__module__.startswith("dualflat.")
    if ours and isinstance(error, ValueError | TimeoutError):
        return _refuse("train", error)
    if isinstance(error, OSError) or (
        ours and isinstance(error, RuntimeError | FloatingPointError)
    ):
        return _fail("train", error)
    traceback.print_exception(error)
    return FAILED


def _give_up(text: str) -> NoReturn:
    """End the process from a thread: the main one waits where no exception reaches it."""
    print(f"dualflat train: error: {text}", file=sys.stderr, flush=True)
    os._exit(USAGE)


def _refuse(command: str, error: Exception) -> int:
    print(f"dualflat {command}: error: {error}", file=sys.stderr, flush=True)
    return USAGE


def _fail(command: str, error: Exception) -> int:
    kind = "" if isinstance(error, FloatingPointError) else f"{type(error).__name__}: "
    print(f"dualflat {command}: failed: {kind}{error}", file=sys.stderr, flush=True)
    return FAILED


def _leave(processes: int, status: int) -> int:
    """After an error in one of several processes, end at once.

    An ordinary exit would first wait at a barrier for the others, who wait for this one in a
    collective; ended at once, they notice and end too.
    """
    if processes > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
