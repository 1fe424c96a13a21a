"""The README says what is so: its sessions print what it shows, its commands are understood."""

import doctest
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from dualflat import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
OTHERS = {"--logdir"}  # a word of tensorboard's


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text):
    """Every `dualflat …` line of the shell blocks, as words."""
    found = []
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;", line):
                words = (
                    shlex.split(part, comments=True, posix=True) if part.count("'") % 2 == 0 else []
                )
                if words and Path(words[0]).name == "dualflat":
                    found.append(words[1:])
    return found


def flags(parser):
    """Every word that a parser and its commands know."""
    known = set()
    for action in parser._actions:
        known.update(action.option_strings)
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                known |= flags(command)
    return known


def unknown_flags(text):
    said = cli.hyphenated(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", text))
    return set(said) - flags(cli.build_parser()) - OTHERS


def test_every_session_prints_what_it_shows():
    session = "".join(block for block in blocks(README, "python") if ">>>" in block)
    test = doctest.DocTestParser().get_doctest(session, {}, "README.md", "README.md", 0)
    assert len(test.examples) > 10
    said = []
    with np.printoptions():  # the session sets them; they come back
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


def test_every_command_is_understood():
    words = [*commands(README), *commands(TRAINING)]
    assert {command[0] for command in words} == {"train", "launch", "predict", "verify"}
    for command in words:
        cli.build_parser().parse_args(cli.hyphenated(command))
        if command[0] == "launch":
            inner = command[command.index("--") + 1 :]
            if inner[0] in cli.COMMANDS:
                cli.build_parser().parse_args(cli.hyphenated(inner))


@pytest.mark.parametrize("text", [README, TRAINING], ids=["README", "training"])
def test_every_flag_is_known(text):
    assert not unknown_flags(text)


def test_a_flag_that_is_not_known_is_found():
    """The control."""
    assert unknown_flags("use `--max-stepps 3` or --mesh") == {"--max-stepps"}


def test_the_documents_explain_every_flag():
    lecture = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")  # verify's
    explained = set(re.findall(r"`(--[a-z-]+)", TRAINING + lecture))
    assert flags(cli.build_parser()) - {"-h", "--help", "--version"} <= explained


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_every_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        here = target != "CONTRIBUTING.md" or (ROOT / ".ci").exists()  # or a part of a clone
        if "://" not in target and here:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_set_up_commands_are_the_ones_that_are_promised():
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    assert (
        'python3 -m venv .venv && .venv/bin/pip install ".[train]" && .venv/bin/dualflat train'
        in lines
    )
    assert (
        'python3 -m venv .venv && .venv/bin/pip install ".[test]" && .venv/bin/python -m pytest'
        in lines
    )
