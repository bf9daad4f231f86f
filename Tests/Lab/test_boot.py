"""Each kernel boots to user space with disk, network, consoles and all processors, and powers off."""
import pytest

KERNELS = [("6.1", False), ("6.12", False), ("7.2", False), ("lab", False), ("lab", True)]


@pytest.mark.parametrize("kernel, pvh", KERNELS, ids=[name + ("-pvh" if pvh else "") for name, pvh in KERNELS])
def test_a_kernel_boots_with_all_its_devices_and_powers_off(start, tap, figures, kernel, pvh):
    guest = start(tap=tap, kernel=kernel, pvh=pvh, vcpus=2)
    found = guest.wait_ready()
    assert found["cpus"] == "2", found
    assert found["disks"] == "vda,vdb", found
    assert "eth0" in found["net"].split(","), found
    assert "stream" in found["ports"].split(","), found
    assert found["rng"].startswith("virtio_rng"), found

    # Each device does something: a disk keeps what is written, the host is reached, a port and the second console carry text.
    status, said = guest.run("dd if=/bin/busybox of=/dev/vda bs=64k count=8 oflag=direct 2>/dev/null && "
                             "dd if=/dev/vda bs=64k count=8 iflag=direct 2>/dev/null | cmp -n 524288 - /bin/busybox")
    assert status == 0, said
    with open(guest.spec.disk, "rb") as disk, open("/usr/bin/busybox", "rb") as written:
        assert disk.read(1 << 19) == written.read(1 << 19), "what the guest wrote is not in the file"
    status, said = guest.run(f"ping -c 3 -i 0.2 {tap.host}")
    assert status == 0, said
    guest.run("echo over hvc >/dev/hvc0; echo over stream >$(port stream)")
    guest.streams["hvc"].wait("over hvc", 10)
    guest.streams["stream"].wait("over stream", 10)
    status, said = guest.run("dd if=/dev/hwrng bs=32 count=1 2>/dev/null | wc -c")
    assert said == ["32"], said
    messages = guest.messages()
    off = guest.power_off()
    figures(f"{found['kernel']}: user space after {guest.boot_seconds:.1f} s (its own count: {found['uptime']} s), clock source "
            f"{found['clocksource']}, power-off {off:.1f} s" + "".join(f"\n      {line}" for line in messages))
