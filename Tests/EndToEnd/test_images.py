"""Files that are no worker images, and images that mean harm: each is one clear error, and the guest runs on."""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import time

import pytest

from support import processes
from support.machine import Machine
from support.processes import wait_until
from support.supervisor import Supervisor

pytestmark = pytest.mark.kvm


@pytest.fixture(scope="module")
def resident(images):
    """One machine for all the files and images below. When they are through, nothing of any of them has stayed."""
    with Supervisor(images, ("--answer-seconds", "3", "--prepare-seconds", "3")) as supervisor:
        machine = Machine(supervisor).run()
        for image in (images.next, images.honest):
            assert machine.upgrade(image).code == 0
        before, batond = machine.descriptors(), supervisor.batond
        memory = processes.resident_anonymous(batond)
        yield machine
        assert supervisor.batond == batond, "batond lived on"
        for image in (images.next, images.honest):
            assert machine.upgrade(image).code == 0
        after = machine.descriptors()
        for who in before:
            grown = {name: count - before[who][name] for name, count in after[who].items() if count > before[who][name]}
            assert not grown, f"{who}: {grown}"
        assert processes.resident_anonymous(batond) - memory < 8 << 20
        assert len(supervisor.family()) == 2, f"nothing but batond and the worker: {supervisor.family()}"
        machine.assert_runs()
        machine.evidence.close()


def assert_not_allowed(machine, path, words):
    generation = machine.generation
    done = machine.upgrade(path)
    assert (done.code, done.error) == (3, "ImageNotAllowed"), done
    assert done.parameters["path"] == str(path)
    assert words in done.reason, done
    assert len(done.err.splitlines()) == 1, done
    assert machine.generation == generation
    machine.assert_runs()


@pytest.fixture(scope="module")
def compiled(images, tmp_path_factory):
    """Builds an image whose main function is the given C text. Images are executed from memory, so a script cannot be one."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("there is no C compiler to build bad images with")
    directory = tmp_path_factory.mktemp("compiled")

    def build(name, body, *options):
        target = images.directory / name
        if not target.exists():
            source = directory / f"{name}.c"
            source.write_text(f"#include <stdio.h>\n#include <unistd.h>\nint main(void) {{ {body} return 0; }}\n")
            subprocess.run([compiler, "-static", "-O1", *options, "-o", target, source], check=True)
            target.chmod(0o755)
        return target

    return build


def describes(description):
    return f"puts({json.dumps(json.dumps(description))});"


@pytest.fixture(scope="module")
def files(images, compiled):
    """Every kind of file that is no image: {name: (path, words of the reason)}."""
    directory = images.directory
    truncated = images.script("truncated", images.honest.read_bytes()[:100_000])
    (directory / "directory").mkdir()
    os.mkfifo(directory / "fifo")
    (directory / "link").symlink_to(images.next)
    (directory / "linked").symlink_to(directory, target_is_directory=True)
    huge = directory / "huge"
    with open(huge, "wb") as file:
        file.truncate(300 << 20)
    huge.chmod(0o755)
    outside = directory.parent / "outside"
    shutil.copy(images.next, outside)
    return {
        "missing": (directory / "missing", "No such file"),
        "empty": (images.script("empty", ""), "empty"),
        "text": (images.script("text", "this is not a program\n"), "could not be executed"),
        "script": (images.script("script", "#!/bin/sh\necho '{}'\n"), "could not be executed"),
        "truncated": (truncated, "asked to describe itself"),
        "huge": (huge, "cannot be copied"),
        "directory": (directory / "directory", "not a file"),
        "fifo": (directory / "fifo", "not a file"),
        "device": (pathlib.Path("/dev/null"), "not below an allowed image directory"),
        "link": (directory / "link", "symbolic link"),
        "through-a-link": (directory / "linked" / "baton-vmm-next", "symbolic link"),
        "outside": (outside, "not below an allowed image directory"),
        "garbage": (compiled("garbage", "puts(\"{\\\"version\\\": 1\");"), "not a description"),
        "wrong-types": (compiled("wrong-types", describes({"version": 1, "models": [], "sections": []})), "not a description"),
        "says-nothing": (compiled("says-nothing", ""), "not a description"),
        "fails": (compiled("fails", "return 9;"), "exited with status 9"),
        "crashes": (compiled("crashes", "__builtin_trap();"), "SIGILL"),
        "talks-too-much": (compiled("talks-too-much", "for (int i = 0; i < 200000; i++) puts(\"{}{}{}{}\");"), "longer than 64 KiB"),
        "talks-for-ever": (compiled("talks-for-ever", "for (;;) puts(\"{}{}{}{}\");"), "longer than 64 KiB"),
        "hangs": (compiled("hangs", "sleep(1000);"), "did not end in time"),
    }


KINDS = ["missing", "empty", "text", "script", "truncated", "huge", "directory", "fifo", "device", "link", "through-a-link", "outside", "garbage",
         "wrong-types", "says-nothing", "fails", "crashes", "talks-too-much", "talks-for-ever", "hangs"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_no_image_is_refused(resident, files, kind):
    path, words = files[kind]
    supervisor = resident.supervisor
    assert_not_allowed(resident, path, words)
    if kind != "hangs":  # which takes twenty seconds each time
        described = supervisor.baton("image", "describe", path)
        assert (described.code, described.error) == (3, "ImageNotAllowed"), described


def test_a_machine_is_not_started_with_a_file_that_is_no_image(supervisor, images, files):
    for kind in ("missing", "text", "outside"):
        done = supervisor.baton("run", Machine(supervisor, image=files[kind][0]).write())
        assert (done.code, done.error) == (3, "ImageNotAllowed"), done
    assert supervisor.baton("list").json == []


def test_an_image_may_be_rewritten_or_removed_while_it_runs(machine, supervisor, images):
    """What runs is a sealed copy, and so is what a rollback goes to."""
    own = images.copy(images.next, "own")
    assert machine.upgrade(own).code == 0
    own.write_bytes(b"no program any more")
    own.unlink()
    machine.assert_runs()
    assert machine.upgrade(images.honest).code == 0
    assert machine.rollback().code == 0
    machine.assert_runs()
    assert machine.version == "1.1.0"


def test_describing_an_image_says_what_it_speaks(supervisor, images):
    found = supervisor.baton("image", "describe", images.next).json
    assert found["version"] == "1.1.0" and "baton-1" in found["models"]
    names = [section["name"] for section in found["sections"]]
    assert "cpu" in names and len(names) == len(set(names))


def test_images_without_a_common_section_version_are_refused_before_anything_is_touched(machine, supervisor, images, compiled):
    description = json.loads(subprocess.run([images.next, "--describe"], capture_output=True, check=True).stdout)
    for section in description["sections"]:
        if section["name"] == "cpu":
            section["reads"] = section["writes"] = [70, 80]
    done = machine.upgrade(compiled("stranger", describes(description)))
    assert (done.code, done.error) == (3, "Refused"), done
    assert "section cpu" in done.reason and "70–80" in done.reason, done
    assert machine.workers.keys() == {1}
    description["models"] = ["other-9"]
    done = machine.upgrade(compiled("other", describes(description)))
    assert (done.code, done.error) == (3, "Refused") and "baton-1" in done.reason, done
    machine.assert_runs()


def test_a_path_that_climbs_out_of_an_image_directory_is_refused(machine, supervisor, images, files):
    """Asked for by a client that does not tidy up paths as `baton` does."""
    from support.varlink import Client

    path = f"{images.directory}/../outside"
    with Client(supervisor.socket) as client:
        error, parameters = client.error("Upgrade", machine="web1", image=path)
        assert error == "io.baton.Supervisor.ImageNotAllowed" and parameters["path"] == path
    machine.assert_runs()


# Images that mean harm


def text(value):
    raw = value.encode()
    return struct.pack("<I", len(raw)) + raw


def hello(description):
    """An honest hello message of this description (Sources/Handover/Report.swift), generation to be filled in."""
    payload = text(description["version"]) + struct.pack("<HI", description["protocol"], 0)
    payload += struct.pack("<I", len(description["models"])) + b"".join(text(model) for model in description["models"])
    payload += struct.pack("<I", len(description["sections"]))
    for section in description["sections"]:
        payload += text(section["name"]) + struct.pack("<HHHH", *section["writes"], *section["reads"])
    return struct.pack("<IHHIIHH", 0x4E544142, 1, 101, 0, 0, 0, 0) + payload


@pytest.fixture(scope="module")
def hostile(images, tmp_path_factory):
    """Builds the hostile worker in a mode."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("there is no C compiler to build the hostile worker with")
    description = json.loads(subprocess.run([images.next, "--describe"], capture_output=True, check=True).stdout)
    description["version"] = "6.6.6"
    directory = tmp_path_factory.mktemp("hostile")
    quoted = json.dumps(json.dumps(description))
    values = ",".join(str(byte) for byte in hello(description))
    (directory / "hello.h").write_text(f"#define DESCRIPTION {quoted}\nstatic const unsigned char HELLO[] = {{{values}}};\n")
    source = pathlib.Path(__file__).parent / "hostile/worker.c"

    def build(mode):
        target = images.directory / f"hostile-{mode}"
        if not target.exists():
            subprocess.run([compiler, "-static", "-O1", f"-I{directory}", f'-DMODE="{mode}"', "-o", target, source], check=True)
            target.chmod(0o755)
        return target

    return build


HOSTILE = {
    "noise": "hello", "short-hello": "hello", "header-only": "hello", "long-hello": "hello", "huge-count": "hello", "over-long": "hello",
    "empty": "hello", "surplus-descriptors": "hello", "missing-descriptors": "hello", "closes": "hello", "wrong-magic": "hello",
    "flood-first": "hello", "wrong-report": "lend", "holds-too-few": "lend", "surplus-payload": "lend", "unknown-report": "lend",
    "powered-off": "lend", "flood": "lend", "descriptors-in-answer": "lend",
}


@pytest.mark.parametrize("mode", HOSTILE)
def test_a_worker_that_does_not_speak_the_protocol_is_given_up(resident, images, hostile, mode):
    machine = resident
    generation = machine.generation
    done = machine.upgrade(hostile(mode))
    assert (done.code, done.error) == (4, "Aborted"), done
    assert done.parameters["step"] == HOSTILE[mode], done
    assert "incoming worker" in done.reason and len(done.err.splitlines()) == 1, done
    machine.assert_runs()
    assert machine.generation == generation
    assert machine.upgrade(images.next if machine.version == "1.0.0" else images.honest).code == 0


def test_a_machine_is_not_started_by_an_image_that_means_harm(supervisor, images, hostile):
    for mode in ("noise", "wrong-report", "holds-too-few", "flood", "closes"):
        done = supervisor.baton("run", Machine(supervisor, image=hostile(mode)).write())
        assert done.code == 1 and "does not start" in done.reason, done
        wait_until(lambda: len(supervisor.family()) == 1, lambda: f"only batond is left: {supervisor.family()}")
    assert supervisor.baton("list").json == []


def test_a_file_that_has_not_changed_is_not_read_again_and_one_that_has_is(supervisor, images, machine):
    path = images.directory / "changing"
    shutil.copy(images.honest, path)
    path.chmod(0o755)
    time.sleep(3.2)  # one that has only just changed is read each time

    def describe():
        done = supervisor.baton("image", "describe", path)
        assert done.code == 0, done
        return done.json["digest"]

    first = describe()
    assert describe() == first
    looked = path.stat()
    # The same file, size and time of modification; other bytes.
    content = images.next.read_bytes()[: looked.st_size].ljust(looked.st_size, b"\0")
    with open(path, "r+b") as file:
        file.write(content)
    os.utime(path, ns=(looked.st_atime_ns, looked.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (looked.st_ino, looked.st_size, looked.st_mtime_ns)
    assert describe() != first
    assert machine.upgrade(path).code == 0 and machine.version == "1.1.0"
