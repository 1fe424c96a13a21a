"""The chief binds its own address or says why it cannot, and a start in vain ends with words."""

import socket
import time

import pytest

from dualflat.runtime import launch
from dualflat.runtime.cluster import Cluster


def cluster(chief, *workers):
    config = {
        "cluster": {"chief": [chief], "worker": list(workers)},
        "task": {"type": "chief", "index": 0},
    }
    import json

    return Cluster.from_tf_config(json.dumps(config))


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("chief", "worker", "bound"),
    [
        ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1"),
        ("localhost:1", "127.0.0.1:2", "127.0.0.1"),
        pytest.param(
            "[::1]:1",
            "[::1]:2",
            "[::1]",
            marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"),
        ),
    ],
)
def test_the_chief_binds_its_own_address(chief, worker, bound):
    host = chief.rsplit(":", 1)[0].strip("[]")
    found = launch._own_ip(cluster(chief, worker), host, time.monotonic() + 5)
    assert found in {bound, "[::1]"}  # localhost may be either


def test_an_address_of_another_machine_is_refused():
    """192.0.2.1 is set aside for documentation: nobody has it."""
    with pytest.raises(ValueError, match=r"own address '192\.0\.2\.1' cannot be bound"):
        launch._own_ip(cluster("192.0.2.1:1", "192.0.2.2:2"), "192.0.2.1", time.monotonic())


def test_a_loopback_chief_of_workers_elsewhere_is_refused():
    with pytest.raises(ValueError, match=r"cannot reach"):
        launch._own_ip(cluster("127.0.0.1:1", "192.0.2.2:2"), "127.0.0.1", time.monotonic())


def test_patience_ends_with_words_and_only_where_it_must():
    said = []
    with launch._patience(time.monotonic() + 60, "nobody came", said.append):
        pass
    assert said == []
    with launch._patience(time.monotonic(), "nobody came", said.append):
        time.sleep(1.5)
    assert said == ["nobody came. --wait gives them longer."]
