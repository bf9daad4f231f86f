"""Fixtures of the end-to-end tests: real programs in private directories, real workers on /dev/kvm.

Markers say what a test needs of the place it runs in: `kvm`, `root`, `held` (the test program batond-held). Where it is missing the
test is skipped, and its reason says what was missing.
"""
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from support import processes, programs  # noqa: E402
from support.images import Images  # noqa: E402
from support.machine import Machine  # noqa: E402
from support.supervisor import Supervisor  # noqa: E402

NEEDS = {
    "kvm": (lambda: os.access("/dev/kvm", os.R_OK | os.W_OK), "/dev/kvm cannot be opened here"),
    "root": (lambda: os.geteuid() == 0, "this needs root"),
    "held": (programs.BATOND_HELD.exists, f"the test program {programs.BATOND_HELD} was not built"),
    "varlink": (lambda: has_module("varlink"), "the Python package varlink is not installed"),
}


def has_module(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None


def pytest_configure(config):
    for name, (_, reason) in NEEDS.items():
        config.addinivalue_line("markers", f"{name}: skipped where {reason}")
    config.addinivalue_line("markers", "soak: many handovers in a row")
    processes.adopt_orphans()


def pytest_runtest_setup(item):
    for name, (there, reason) in NEEDS.items():
        if item.get_closest_marker(name) and not there():
            pytest.skip(reason)


@pytest.fixture(scope="session")
def images():
    """Honest images, and faulty ones as tests ask for them."""
    missing = [path for path in (programs.BATON, programs.KEEPER, programs.BATOND, programs.HEARTBEAT, programs.IMAGES / "baton-vmm",
                                 programs.IMAGES / "baton-vmm-next", programs.IMAGES / "baton-vmm-faulty") if not path.exists()]
    if missing:
        pytest.fail(f"not built: {', '.join(map(str, missing))}; run `make images guest`", pytrace=False)
    above = pathlib.Path(tempfile.mkdtemp(prefix="baton-e2e-"))
    above.chmod(0o755)
    yield Images(above / "images")
    shutil.rmtree(above)


@pytest.fixture
def supervisors(images):
    """Starts supervisors of its own options for a test: `supervisors("--answer-seconds", "1")`."""
    started = []

    def start(*options, **keywords):
        supervisor = Supervisor(images, options, **keywords)
        started.append(supervisor)
        return supervisor.start()

    yield start
    failure = None
    for supervisor in started:
        try:
            print(f"\nlog of the supervisor:\n{supervisor.log}")
            for log in sorted(supervisor.run_directory.glob("machines/*/worker.log")):
                print(f"{log}:\n{log.read_text(errors='replace')}")
            supervisor.close()
        except AssertionError as error:
            failure = failure or error
    if failure:
        raise failure


@pytest.fixture
def supervisor(supervisors):
    """A supervisor whose deadlines are short, so that hung workers cost little."""
    return supervisors("--answer-seconds", "3", "--prepare-seconds", "3")


@pytest.fixture
def machines(supervisor):
    """Runs machines of the test's supervisor: `machines(soak="1s")`."""
    made = []

    def run(**options):
        machine = Machine(supervisor, **options)
        made.append(machine)
        return machine.run()

    yield run
    for machine in made:
        if machine.evidence:
            machine.evidence.close()


@pytest.fixture
def machine(machines):
    """A machine without soak that runs the first honest image."""
    return machines()
