"""An NVMe device of the lab, passed through to a Linux guest that writes to it and reads back what it wrote, by both back ends."""
import pathlib
import subprocess
import time

import pytest

from guests import judge, passed, programs
from guests.baton import Blackouts
from support import processes

pytestmark = pytest.mark.handover

NVME = "0000:00:05.0"
BACKENDS = ["iommufd", "container"]
HANDOVERS = 100 if programs.LONG else 20


@pytest.fixture
def nvme():
    passed.give_away(NVME)
    yield NVME
    passed.give_back(NVME)


def with_nvme(start, backend, profile="disk", **more):
    guest = start(kernel="lab", profile=profile, words="baton.device=/dev/nvme0n1", passed=({"address": NVME, "backend": backend},), **more)
    guest.wait_ready()
    guest.wait_page()
    status, said = guest.run("cat /sys/block/nvme0n1/size")
    assert status == 0 and int(said[-1]) > 0, said
    return guest


def conclude(guest, before, reference):
    """The loads are ended; what the guest reads on the device is what the host finds there. Returns what fio came to."""
    after, messages, results = guest.page.read(), guest.messages(), guest.finish()
    found = passed.judge_namespace(guest, NVME)
    judge.all_right(results["problems"], judge.disk(results), found, judge.clock(before, after), judge.messages(messages, reference))
    return results["disk"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_io_goes_on_through_handovers(start, nvme, figures, backend):
    guest = with_nvme(start, backend)
    machine, images, ram = guest.machine, guest.machine.supervisor.images, guest.spec.memory_mib << 20
    assert machine.show()["devices"][-1]["spec"]["vfio"] == {"address": NVME, "backend": backend}
    passed.wait_charged(guest.pid, backend, ram)
    time.sleep(5)
    reference, before = guest.messages(), guest.page.read()
    records = []
    for number in range(HANDOVERS):
        records.append(guest.hand_over(images.next if number % 2 == 0 else images.honest))
        passed.wait_charged(machine.wait_one_worker(), backend, ram)
    disk = conclude(guest, before, reference)
    figures(f"{backend}: {Blackouts(records)}; fio {disk}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_kills_leave_the_device_as_it_is(start, nvme, figures, supervisors, backend):
    """SIGKILL of the incoming worker, of the outgoing one and of batond, and a restart of batond: the device is never reset while its guest runs."""
    supervisor = supervisors("--answer-seconds", "5", "--prepare-seconds", "15")
    guest = with_nvme(start, backend, supervisor=supervisor, options={"budget": "3s"})
    machine, images, ram = guest.machine, supervisor.images, guest.spec.memory_mib << 20
    reference, before = guest.messages(), guest.page.read()
    for fault in ("crash@build", "hang@load", "error@loaded"):
        generation = machine.generation
        done = machine.upgrade(images.faulty(fault))
        assert (done.code, done.error) == (4, "Aborted"), done
        assert machine.generation == generation
        guest.page.wait_progress()
        passed.wait_charged(machine.wait_one_worker(), backend, ram)
    for fault in ("hang@build", "delay:1500@loaded"):
        command = machine.start_upgrade(images.faulty(fault))
        incoming = machine.wait_worker(machine.generation + 1)
        processes.wait_until(lambda: processes.is_held(incoming), f"the incoming worker hangs: {fault}")
        past = supervisor.batond
        processes.kill(past)
        machine.finish(command)
        supervisor.wait_other_batond(past)
        processes.wait_until(lambda: machine.state == "running", lambda: f"it runs: {machine.show()}", 30, 0.1)
        guest.page.wait_progress()
        passed.wait_charged(machine.wait_one_worker(), backend, ram)
    guest.hand_over(images.next)
    passed.wait_charged(machine.wait_one_worker(), backend, ram)
    disk = conclude(guest, before, reference)
    figures(f"{backend}: 3 aborts, 2 restarts of batond, 1 handover; fio {disk}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_machine_that_resets_or_crashes_finds_its_device_as_new(start, nvme, supervisors, backend):
    supervisor = supervisors("--answer-seconds", "20", "--prepare-seconds", "30")
    guest = with_nvme(start, backend, profile="idle", supervisor=supervisor, options={"on_crash": "reset"})
    ram = guest.spec.memory_mib << 20

    def works():
        guest.wait_ready()
        status, said = guest.run("dd if=/bin/busybox of=/dev/nvme0n1 bs=64k oflag=direct conv=fsync 2>/dev/null; "
                                 "dd if=/dev/nvme0n1 iflag=direct bs=64k count=1 2>/dev/null | cmp -n 65536 - /bin/busybox")
        assert status == 0, said
        passed.wait_charged(guest.machine.wait_one_worker(), backend, ram)

    guest.serial.send("reboot")
    works()
    processes.kill(guest.pid)
    works()
    guest.power_off()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_limit_that_is_lowered_is_a_warning_until_it_is_raised(start, nvme, supervisors, figures, backend):
    supervisor = supervisors("--answer-seconds", "20", "--prepare-seconds", "30", hold="take-addresses")
    guest = with_nvme(start, backend, profile="idle", supervisor=supervisor)
    machine, ram = guest.machine, guest.spec.memory_mib << 20
    command = machine.start_upgrade(supervisor.images.next)
    processes.wait_until(supervisor.marker.exists, "batond is held before addresses are taken", 60)
    incoming = machine.workers[max(machine.workers)]
    subprocess.run(["prlimit", "--pid", str(incoming), f"--memlock={1 << 20}:"], check=True)
    supervisor.marker.unlink()
    done = machine.finish(command)
    assert done.code == 0, done
    warning = processes.wait_until(
        lambda: next((event["detail"] for event in machine.events() if "take-addresses" in (event.get("detail") or "")), None), "a warning")
    assert str(ram) in warning and "RLIMIT_MEMLOCK" in warning, warning
    guest.page.wait_progress()
    subprocess.run(["prlimit", "--pid", str(incoming), f"--memlock={ram + (64 << 20)}"], check=True)
    passed.wait_charged(incoming, backend, ram, 30)
    figures(f"{backend}: {warning}")
    guest.power_off()


def test_the_host_asks_for_its_device_and_gets_it_at_the_end(start, nvme):
    guest = with_nvme(start, "auto", profile="idle")
    machine = guest.machine
    unbind = subprocess.Popen(["sh", "-c", f"echo {NVME} > /sys/bus/pci/devices/{NVME}/driver/unbind"])
    processes.wait_until(lambda: any("wants 0000:00:05.0 back" in blocker for blocker in machine.show()["blockers"]), "batond tells of it", 30, 0.2)
    assert any("baton stop linux" in (event.get("detail") or "") for event in machine.events())
    guest.page.wait_progress()
    assert unbind.poll() is None
    done = machine.supervisor.baton("stop", machine.name, "--force")
    assert done.code == 0, done
    assert unbind.wait(30) == 0


def test_a_device_of_the_hosts_is_refused_with_the_commands_that_give_it_away(supervisor, directory):
    passed.give_back(NVME)
    passed.namespace(NVME)
    file = directory / "nvme.yaml"
    file.write_text(f"{{name: nvme, vcpus: 1, memory: {{size: 64MiB}}, boot: {{kernel: {programs.GUESTS}/lab/kernel}}, image: {supervisor.images.honest},\n"
                    f" devices: [{{vfio: {{address: {NVME}}}}}]}}")
    done = supervisor.baton("run", file)
    assert (done.code, done.error) == (3, "Refused"), done
    assert "the driver nvme of the host has it" in done.reason, done.reason
    commands = [reason for reason in done.parameters["reasons"] if reason.startswith("→ ")]
    subprocess.run(["bash", "-c", commands[0].removeprefix("→ ").replace("modprobe vfio-pci;", "")], check=True)
    assert passed.driver(NVME) == "vfio-pci"
    checks = {check["name"]: check for check in supervisor.baton("doctor").json}
    assert checks[f"vfio {NVME}"]["verdict"] == "ok", checks
    assert checks["/dev/iommu"]["verdict"] == checks["/dev/vfio/vfio"]["verdict"] == checks["iommu"]["verdict"] == "ok", checks
    passed.give_back(NVME)
