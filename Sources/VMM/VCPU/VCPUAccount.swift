internal import KVM
internal import SystemPackage

/// A vCPU as it was when it left the guest for good: a few lines for the worker's log. Only numbers, so that nothing in it is the guest's
/// to choose but their values, and no more than ``VCPUThread`` asks for: one for each vCPU and worker.
///
/// What cannot be read is left out. On AMD's processors KVM puts a vCPU that shut down (a triple fault) back to what it is after INIT
/// before anybody can look: there it tells no more than that.
struct VCPUAccount: CustomStringConvertible {
    let description: String

    /// - Parameter memory: bytes at a guest-physical address, `nil` where there are none.
    init(_ what: String, of vcpu: VCPU, memory: (_ address: UInt64, _ count: Int) -> [UInt8]?) {
        var lines = ["baton-vmm: vCPU \(vcpu.index) \(what)"]
        let general = Self.read(.registers, 144, of: vcpu)
        let system = Self.read(.systemRegisters, 312, of: vcpu)
        if let general { lines += Self.describe(general: general) }
        if let system { lines += Self.describe(system: system) }
        if let events = Self.read(.events, 64, of: vcpu) { lines.append(Self.describe(events: events)) }
        if let general, let system { lines.append(Self.code(at: system.load64(at: 0) &+ general.load64(at: 128), of: vcpu, memory)) }
        let data = vcpu.internalErrorData
        if !data.isEmpty { lines.append("KVM's data " + data.map(hexadecimal).joined(separator: " ")) }
        description = lines.joined(separator: "\n  ")
    }

    private static func read(_ part: VCPUStatePart, _ size: Int, of vcpu: VCPU) -> KernelBuffer? {
        let buffer = KernelBuffer(count: size)
        return (try? vcpu.read(part, into: buffer)) != nil ? buffer : nil
    }

    private static func named(_ names: [(String, Int)], in buffer: KernelBuffer) -> String {
        names.map { "\($0.0) \(hexadecimal(buffer.load64(at: $0.1)))" }.joined(separator: " ")
    }

    private static func describe(general: KernelBuffer) -> [String] {
        let names = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", nil, "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"]
        let others = names.enumerated().compactMap { number, name in name.map { ($0, 8 * number) } }
        return [named([("rip", 128), ("rsp", 48), ("rflags", 136)], in: general), named(others, in: general)]
    }

    /// Segments as selector:base+limit, tables as base+limit.
    private static func describe(system: KernelBuffer) -> [String] {
        func span(_ at: Int, _ limit: some BinaryInteger) -> String { "\(hexadecimal(system.load64(at: at)))+\(hexadecimal(limit))" }
        let segments = ["cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"].enumerated().map { number, name in
            let at = 24 * number
            return "\(name) \(hexadecimal(system.load16(at: at + 12))):\(span(at, system.load32(at: at + 8)))"
        }
        let tables = [("gdt", 192), ("idt", 208)].map { name, at in "\(name) \(span(at, system.load16(at: at + 8)))" }
        let control = [("cr0", 224), ("cr2", 232), ("cr3", 240), ("cr4", 248), ("cr8", 256), ("efer", 264), ("apic", 272)]
        return [named(control, in: system), (segments + tables).joined(separator: " ")]
    }

    /// struct kvm_vcpu_events, what is not zero of it.
    private static func describe(events: KernelBuffer) -> String {
        let bytes = [
            ("exception injected", 0), ("exception pending", 3), ("exception", 1), ("interrupt injected", 8), ("interrupt", 9), ("soft", 10),
            ("shadow", 11), ("NMI injected", 12), ("NMI pending", 13), ("NMI masked", 14), ("SMM", 24), ("SMI pending", 25),
            ("triple fault pending", 28),
        ]
        var found = bytes.filter { events.load8(at: $0.1) != 0 }.map { "\($0.0) \(hexadecimal(events.load8(at: $0.1)))" }
        if events.load8(at: 2) != 0 { found.append("error code \(hexadecimal(events.load32(at: 4)))") }
        return "events " + (found.isEmpty ? "none" : found.joined(separator: ", "))
    }

    private static let codeLength: UInt64 = 16

    private static func code(at linear: UInt64, of vcpu: VCPU, _ memory: (UInt64, Int) -> [UInt8]?) -> String {
        let length = Int(min(codeLength, 4096 - linear % 4096))
        guard let physical = try? vcpu.physicalAddress(of: linear), let bytes = memory(physical, length) else {
            return "code at \(hexadecimal(linear)): not in memory"
        }
        return "code at \(hexadecimal(linear)): " + bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
    }
}
