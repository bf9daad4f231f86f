internal import CLinux
internal import LinuxSystem
package import SystemPackage

/// kvmclock as KVM_GET_CLOCK tells it (`struct kvm_clock_data`).
package struct ClockData: Sendable, Equatable {
    /// Nanoseconds of guest time.
    package var clock: UInt64
    /// Which of the other fields hold something.
    package var flags: Flags
    /// CLOCK_REALTIME at the same instant, nanoseconds.
    package var realtime: UInt64
    /// The host's TSC at the same instant.
    package var hostTSC: UInt64

    package init(clock: UInt64, flags: Flags = [], realtime: UInt64 = 0, hostTSC: UInt64 = 0) {
        self.clock = clock
        self.flags = flags
        self.realtime = realtime
        self.hostTSC = hostTSC
    }

    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }
        package static let tscStable = Flags(rawValue: 2)
        package static let realtime = Flags(rawValue: 4)
        package static let hostTSC = Flags(rawValue: 8)
    }
}

extension VirtualMachine {
    /// KVM_GET_CLOCK. Look at the flags: `realtime` and `hostTSC` are 0 without theirs.
    package func clock() throws(Errno) -> ClockData {
        var data = kvm_clock_data()
        // SAFETY: the kernel fills one structure.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_GET_CLOCK, &data))
        return ClockData(clock: data.clock, flags: ClockData.Flags(rawValue: data.flags), realtime: data.realtime, hostTSC: data.host_tsc)
    }

    /// KVM_SET_CLOCK. Only ``ClockData/Flags/realtime`` makes the kernel do more than store `clock`: it adds the wall-clock time since.
    package func setClock(_ clock: ClockData) throws(Errno) {
        var data = kvm_clock_data()
        data.clock = clock.clock
        data.flags = clock.flags.rawValue
        data.realtime = clock.realtime
        data.host_tsc = clock.hostTSC
        // SAFETY: the kernel reads one structure.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_SET_CLOCK, &data))
    }
}
