package import KVM
internal import SystemPackage
internal import Wire

/// Which MSRs belong to a machine: found out once when it is powered on, pinned in its blueprint, the same for every vCPU.
package struct MSRPlan: Sendable, Equatable {
    /// Saved and restored with a vCPU, ascending.
    package var saved: [UInt32]
    /// Fixed before a vCPU first runs, the same for all.
    package var features: [Feature]

    package struct Feature: Sendable, Equatable {
        package let index: UInt32
        package let value: UInt64
    }

    package static let timeStampCounter: UInt32 = 0x10
    package static let tscDeadline: UInt32 = 0x6E0
    /// Writing one of these makes KVM rewrite a page of guest memory at once, which nobody may do before the commit.
    private static let wallClocks: Set<UInt32> = [0x11, 0x4B56_4D00]
    /// kvmclock's two names for one address. Only the newer one is carried.
    private static let oldSystemTime: UInt32 = 0x12
    /// MSRs that hold the address of a structure KVM keeps up to date in guest memory, and may write to as soon as it knows it: restored
    /// by the vCPU's thread after the commit, just before it enters the guest.
    package static func isGuestStructure(_ index: UInt32) -> Bool { (0x4B56_4D01...0x4B56_4D04).contains(index) || index == 0x4B56_4D06 }
    /// Never anticipated, and always restored: the deadline starts a timer, and KVM drops of XSAVE what XFD disables.
    static func dependsOnMoment(_ index: UInt32) -> Bool { index == tscDeadline || index == extendedFeatureDisable }
    private static let extendedFeatureDisable: UInt32 = 0x1C4
    /// Guest state that the kernel's list does not name: MTRRs and the machine-check banks of ``machineCheckBanks``.
    private static let unlisted: [UInt32] =
        Array(0x200...0x20F) + [0x250, 0x258, 0x259] + Array(0x268...0x26F) + [0x2FF, 0x17A]
        + (0..<UInt32(machineCheckBanks) * 4).map { 0x400 + $0 }
    package static let machineCheckBanks = 10

    package init(saved: [UInt32], features: [Feature]) {
        self.saved = saved
        self.features = features
    }

    /// Asks a vCPU that has not run yet which MSRs it can read and take back.
    package init(probing vcpu: VCPU, listed: [UInt32], features: [UInt32]) {
        let candidates = Set(listed + Self.unlisted).subtracting(features).subtracting(Self.wallClocks).subtracting([
            Self.timeStampCounter, Self.oldSystemTime,
        ])
        saved = candidates.filter { !(0x4000_0000...0x4000_FFFF).contains($0) }.sorted().filter { index in
            guard let value = vcpu.value(ofMSR: index) else { return false }
            return vcpu.set(msr: index, to: value)
        }
        self.features = features.sorted().compactMap { index in
            guard let value = vcpu.value(ofMSR: index), vcpu.set(msr: index, to: value) else { return nil }
            return Feature(index: index, value: value)
        }
    }

    /// What firmware leaves behind on every processor when it starts an operating system: RAM is cached (MTRRs on, write-back by default;
    /// off would mean no caching at all) and string instructions are fast.
    package static func setAsFirmwareWould(_ vcpu: VCPU) {
        _ = vcpu.set(msr: 0x2FF, to: 0x806)
        if let miscellaneous = vcpu.value(ofMSR: 0x1A0) { _ = vcpu.set(msr: 0x1A0, to: miscellaneous | 1) }
    }

    /// Gives a new vCPU the machine's features and makes sure that every MSR of the plan can be restored on it.
    package func apply(to vcpu: VCPU) throws(VMMError) {
        for feature in features where vcpu.value(ofMSR: feature.index) != feature.value {
            if !vcpu.set(msr: feature.index, to: feature.value) {
                throw VMMError("feature MSR \(hexadecimal(feature.index)) cannot have the machine's value \(hexadecimal(feature.value)) here")
            }
        }
        // Many at a time: what an ioctl of a vCPU costs is mostly its beginning and its end.
        for msrs in MSRBuffer.all(saved) {
            let count = try doing("trying the machine's MSRs") { () throws(Errno) in
                let read = try vcpu.read(msrs)
                return read < msrs.count ? read : try vcpu.write(msrs)
            }
            if count < msrs.count { throw VMMError("MSR \(hexadecimal(msrs.index(at: count))) of the machine cannot be restored here") }
        }
    }
}

extension MSRPlan {
    func encode(to writer: inout WireWriter) {
        writer.list(saved) { $0.u32($1) }
        writer.list(features) {
            $0.u32($1.index)
            $0.u64($1.value)
        }
    }

    init(from reader: inout WireReader) throws(WireError) {
        saved = try reader.list(limit: 1024) { reader throws(WireError) in try reader.u32() }
        features = try reader.list(limit: 1024) { reader throws(WireError) in Feature(index: try reader.u32(), value: try reader.u64()) }
    }
}

/// `0x` and lower-case digits.
func hexadecimal(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }
