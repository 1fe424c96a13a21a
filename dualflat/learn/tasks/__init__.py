"""Tasks by name. One file a task; importing this package imports none of them, and no JAX."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from dualflat.contracts import Options, Task, TaskFactory

NAMES = ("mnist",)
DIGITS = Path(__file__).parent / "digits"  # real images that come with the package; see its README


def resolve(name: str) -> "TaskFactory":
    """The function that builds a task from `contracts.Options`.

    Args:
      name: one of `NAMES`, or `package.module:attribute` for a task of your own, where the
        attribute is that function, or a task as it is (which then takes no options).

    Returns:
      Options → Task.

    Raises:
      ValueError: there is no such task, module or attribute, or the attribute is no task. An error
        inside the module itself is raised as it is.
    """
    if name in NAMES:
        return importlib.import_module(f"{__name__}.{name}").task
    module_name, colon, attribute = name.partition(":")
    parts = module_name.split(".")
    if not colon or not attribute.isidentifier() or not all(part.isidentifier() for part in parts):
        raise ValueError(
            f"task {name!r} is not known. Known: {', '.join(NAMES)};"
            " a task of your own is written package.module:attribute."
        )
    module = _import(module_name, name)
    if not hasattr(module, attribute):
        public = [word for word in vars(module) if not word.startswith("_")]
        raise ValueError(
            f"task {name!r}: module {module_name} ({getattr(module, '__file__', 'built in')}) has"
            f" no {attribute!r}; it has {', '.join(public[:12]) or 'nothing public'}."
        )
    found: Any = getattr(module, attribute)
    if all(hasattr(found, needed) for needed in ("gradient", "apply", "init", "train")):
        if isinstance(found, type):
            raise ValueError(
                f"task {name!r} is a class. Name a function Options → Task, or an instance."
            )
        return lambda options: _ready(cast("Task", found), options, name)
    if not callable(found):
        raise ValueError(
            f"task {name!r} is of type {type(found).__name__}. Wanted: a function Options → Task,"
            " or a Task (gradient, apply, init, train, …)."
        )
    return cast("TaskFactory", found)


def _import(module_name: str, name: str):
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # `import a.b` fails on `a` or on `a.b`; any other name is missing inside the module itself.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"task {name!r}: there is no module {error.name!r}. It must be importable from here:"
            " start in the folder that holds it, or install it."
        ) from error


def _ready(task: "Task", options: "Options", name: str) -> "Task":
    """A task as it is, after checking that nothing was asked of it that it would ignore."""
    asked = [
        word
        for word in ("data", "batch_size", "max_steps", "optimizer", "learning_rate")
        if getattr(options, word) is not None
    ]
    if options.precision != "float32":
        asked.append("precision")
    if asked:
        raise ValueError(
            f"task {name!r} is a finished Task and takes no options, but {', '.join(asked)} was"
            " given. Name a function Options → Task instead, or leave the options out."
        )
    return task
