"""An environment for a peer: made once, kept, never a dependency of ours."""

import subprocess
import venv
from pathlib import Path


def environment(folder: Path, modules: str, *requirements: str) -> Path:
    """The Python of a virtual environment that can import `modules`; what it lacks is installed."""
    python = folder.absolute() / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    have = subprocess.run([python, "-c", f"import {modules}"], capture_output=True, check=False)
    if have.returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=True)
    return python
