"""Fixtures of the lab's tests of Linux guests. They use what the end-to-end tests are made of (Tests/EndToEnd/support).

`--vmm qemu` runs those that hand nothing over with QEMU in place of baton-vmm.
"""
import pathlib
import shutil
import sys
import tempfile
import time

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "EndToEnd"))
sys.path.insert(0, str(HERE))
# Last: it has modules of common names.
sys.path.append(str(HERE.parent.parent / "Benchmarks"))

from guests import baton, programs, qemu  # noqa: E402
from guests.network import Tap  # noqa: E402
from guests.spec import Spec  # noqa: E402
from support import processes  # noqa: E402
from support import programs as built  # noqa: E402
from support.images import Images  # noqa: E402
from support.supervisor import Supervisor  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--vmm", choices=("baton", "qemu"), default="baton", help="who runs the guests")
    parser.addoption("--accelerator", choices=("kvm", "tcg"), default="kvm", help="of QEMU")


def pytest_configure(config):
    config.addinivalue_line("markers", "handover: hands guests over, which QEMU does not")
    processes.adopt_orphans()


def pytest_runtest_setup(item):
    if item.config.getoption("--vmm") == "qemu" and item.get_closest_marker("handover"):
        pytest.skip("QEMU hands nothing over")


@pytest.fixture(autouse=True)
def duration(request):
    """Each test says how long it took: the lab is to stay pleasant."""
    began = time.monotonic()
    yield
    print(f"\n{request.node.name}: {time.monotonic() - began:.1f} s")


@pytest.fixture
def figures(capsys):
    """Prints a line past pytest's capture: figures are wanted of tests that pass, too."""

    def say(text):
        with capsys.disabled():
            print(f"\n    {text}", end="", flush=True)

    return say


@pytest.fixture(scope="session")
def images():
    missing = [path for path in (built.BATON, built.KEEPER, built.BATOND, *(built.IMAGES / name for name in ("baton-vmm", "baton-vmm-next", "baton-vmm-faulty")))
               if not path.exists()]
    if missing:
        pytest.fail(f"not built: {', '.join(map(str, missing))}; run `make images`", pytrace=False)
    above = pathlib.Path(tempfile.mkdtemp(prefix="baton-lab-"))
    above.chmod(0o755)
    yield Images(above / "images")
    shutil.rmtree(above)


@pytest.fixture
def directory():
    made = pathlib.Path(tempfile.mkdtemp(prefix="baton-guest-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def tap():
    made = Tap()
    yield made
    made.close()


@pytest.fixture
def supervisors(images, directory):
    """Starts supervisors of its own options for a test."""
    started = []

    def start(*options, **keywords):
        supervisor = Supervisor(images, ("--disk-directory", directory, *options), **keywords)
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
    # What builds a machine shares two emulated processors with up to 32 busy vCPUs.
    return supervisors("--answer-seconds", "20", "--prepare-seconds", "120")


@pytest.fixture
def start(request, directory):
    """Runs a guest: `start(profile="mixed", vcpus=8, tap=tap)`; options of the machine in `options`."""
    running = []
    vmm, accelerator = request.config.getoption("--vmm"), request.config.getoption("--accelerator")

    def run(tap=None, options=None, supervisor=None, **words):
        spec = Spec(directory, **words)
        if tap:
            spec.with_devices(tap)
        if vmm == "qemu":
            guest = qemu.QemuGuest(spec, accelerator)
        else:
            guest = baton.BatonGuest(supervisor or request.getfixturevalue("supervisor"), spec, **(options or {}))
        running.append(guest)
        return guest

    yield run
    for guest in running:
        guest.close()


def pytest_runtest_logreport(report):
    """What failed is said at once: the rest of a suite may take long, or not come to its end."""
    if report.failed:
        print(f"\n{report.nodeid} ({report.when}): {report.longreprtext}", flush=True)
