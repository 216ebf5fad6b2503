"""What every test gets: no network but loopback, no state outside its own folder, one thread."""

import itertools
import os
import socket

import pytest

pytest_plugins = ["tests.asking", "tests.browser", "tests.loops", "tests.staged"]

LONGEST = (
    "end_to_end", "recipes", "methods_hard_cases", "methods_contract", "browser_page", "nightly",
    "browser_views", "triton", "faults_everywhere", "solve",
    "composition", "device", "faults_store", "caches_contract", "security_page", "space",
    "browser_hostile", "models", "reach", "jobs_attempts", "held_operation", "data_training",
    "hub", "jobs_limits", "jobs_faults", "jobs_cluster", "ui_page", "compress", "trees", "lean",
)  # fmt: skip
"""Files of tests that take longest, about from the longest on."""

TESTS = itertools.count()

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, so that nothing long is left for one process at the end."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small matrices lose more by waiting for a second thread than they gain."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse connections that leave this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            assert host.startswith("127.") or host in ("::1", "localhost"), f"network: {host}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def same_draws():
    """What a test draws without a generator of its own is the same each time."""
    pytest.importorskip("torch").default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path_factory):
    """Keep state in a folder of the test's own, which is there once something is kept in it."""
    home = tmp_path_factory.getbasetemp() / f"home-of-test-{next(TESTS)}"
    monkeypatch.setenv("PARETOSCOPE_HOME", str(home))
