import jax
import pytest


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def _programs_end_with_their_module():
    """A thousand compiled programs take more memory than a machine for tests has."""
    yield
    jax.clear_caches()
