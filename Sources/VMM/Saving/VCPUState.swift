package import KVM
package import Wire

/// The whole state of a vCPU as the kernel's own structures, apart from what its blueprint pins (CPUID, feature MSRs).
package struct VCPUState: Sendable, Equatable {
    package struct Part: Sendable, Equatable {
        package let part: VCPUStatePart
        package let bytes: [UInt8]
    }
    package struct MSR: Sendable, Equatable {
        package let index: UInt32
        package let value: UInt64
    }

    package var parts: [Part]
    package var msrs: [MSR]
    /// `nil` where the kernel has no such attribute.
    package var tscOffset: UInt64?
    package var tscKHz: UInt32
    /// CLOCK_MONOTONIC when the local APIC was read.
    package var time: Int64

    package subscript(part: VCPUStatePart) -> [UInt8]? {
        for index in parts.indices where parts[index].part == part { return parts[index].bytes }
        return nil
    }

    /// No part is longer: XSAVE with every component of today is 11 KiB.
    package static let maximumPartSize = 64 << 10

    /// Reads section `cpu`, version 1, which ``VCPUStateIO/save(_:collect:to:)`` writes. A part that is not known here, or twice, is refused.
    package init(from reader: inout WireReader) throws(WireError) {
        var seen: UInt32 = 0
        parts = try reader.list(limit: 32) { reader throws(WireError) in
            let start = reader.offset
            let raw = try reader.u16()
            guard let part = VCPUStatePart(rawValue: raw), seen & 1 &<< UInt32(raw) == 0 else {
                throw .invalid(offset: start, field: "a part of vCPU state", value: UInt64(raw))
            }
            seen |= 1 &<< UInt32(raw)
            let bytes = try reader.blob(limit: Self.maximumPartSize)
            if let size = part.fixedSize, size != bytes.count {
                throw .invalid(offset: start + 2, field: "the length of \(part.name)", value: UInt64(bytes.count))
            }
            return Part(part: part, bytes: bytes)
        }
        let count = try reader.count(limit: 1024)
        msrs = []
        msrs.reserveCapacity(count)
        for _ in 0..<count { msrs.append(MSR(index: try reader.u32(), value: try reader.u64())) }
        tscOffset = try reader.optional { reader throws(WireError) in try reader.u64() }
        tscKHz = try reader.u32()
        time = try reader.i64()
    }
}
