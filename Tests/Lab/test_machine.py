"""What a machine is beside its devices: ACPI that pleases each kernel, processors started late, the power button."""
import time

import pytest

pytestmark = pytest.mark.handover

# What a kernel says of firmware that is wrong, or of hardware that does not do what it was told.
COMPLAINTS = r"ACPI (BIOS )?(Error|Warning|Exception)|Firmware (Bug|Warn)|nobody cared|MTRRs disabled|No config space access|not responding|couldn.t be reserved"


def processors(guest, command=""):
    """Does something and returns which processors are online then."""
    status, said = guest.run(f"{command} cat /sys/devices/system/cpu/online")
    assert status == 0, said
    return said[-1]


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.2"])
def test_firmware_processors_and_power_button_are_as_a_kernel_expects(start, figures, kernel):
    guest = start(kernel=kernel, vcpus=4, words="maxcpus=1")
    assert guest.wait_ready()["cpus"] == "1"
    status, said = guest.run(f"dmesg | grep -E '{COMPLAINTS}'")
    assert status == 1, said
    images = guest.machine.supervisor.images

    # Three wait for their first start-up message when they are handed over, one is switched off and on again.
    guest.hand_over(images.next)
    assert processors(guest, "for n in 1 2 3; do echo 1 >/sys/devices/system/cpu/cpu$n/online; done;") == "0-3"
    assert processors(guest, "echo 0 >/sys/devices/system/cpu/cpu2/online;") == "0-1,3"
    guest.hand_over(images.honest)
    assert processors(guest, "echo 1 >/sys/devices/system/cpu/cpu2/online;") == "0-3"
    status, said = guest.run("taskset 4 echo here")
    assert (status, said) == (0, ["here"])

    began = time.monotonic()
    done = guest.machine.supervisor.baton("stop", guest.machine.name)
    assert done.code == 0, done
    figures(f"{kernel}: boot {guest.boot_seconds:.1f} s, stopped by the power button in {time.monotonic() - began:.1f} s")
