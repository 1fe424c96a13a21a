"""The page about the lecture: its session prints what it shows, and nothing of the lecture is missing."""

import doctest
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from dualflat.geometry.laws import LAWS

PAGE = (Path(__file__).parents[2] / "docs" / "lecture.md").read_text(encoding="utf-8")
NUMBERS = [f"({n})" for n in range(1, 14)] + ["theorem 1", "lemma 1", "lemma 2", "lemma 3"]
SECTIONS = [line for line in PAGE.splitlines() if line.startswith("#")]


@pytest.mark.slow
def test_the_session_prints_what_it_shows():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    session = "".join(block for block in blocks if ">>>" in block)
    test = doctest.DocTestParser().get_doctest(session, {}, "lecture.md", "lecture.md", 0)
    assert len(test.examples) > 40
    said, wide = [], jax.config.jax_enable_x64
    try:
        with np.printoptions():
            doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    finally:  # the session sets it
        jax.config.update("jax_enable_x64", wide)
    assert not said, "".join(said)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_of_the_lecture_has_a_section(number):
    assert any(number in section for section in SECTIONS)


@pytest.mark.parametrize("law", [law for law in LAWS if law.number], ids=lambda law: law.name)
def test_every_numbered_law_is_named(law):
    assert f"`{law.name}`" in PAGE


def test_every_law_that_is_called_is_there():
    called = set(re.findall(r"\blaws\.([a-z_0-9]+)\(", PAGE)) - {"condition"}
    assert called <= {law.name for law in LAWS}
