import LinuxSystem
import SystemPackage
import Testing

@testable import KVM

/// What an exit leaves half done, by a guest of three instructions in real mode.
@Suite(.enabled(if: Host.hasKVM, "there is no /dev/kvm here"))
struct PendingExitTests {
    private let vcpu: VCPU
    private let vm: VirtualMachine
    private let mapping: SharedMapping

    init() throws {
        let system = try KVMSystem(try OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true))
        vm = try system.createVirtualMachine()
        mapping = try SharedMapping(of: try MemoryDescriptor(name: "ram", size: 64 << 10).descriptor, length: 64 << 10)
        let code: [UInt8] = [
            0xE4, 0x10,  // in al, 0x10
            0xE4, 0x11,  // in al, 0x11
            0xEB, 0xFE,  // jmp .
        ]
        mapping.copyIn(code.span, at: 0x1000)
        try vm.setMemorySlot(MemorySlot(number: 0, guestAddress: 0, size: 64 << 10, address: mapping.address))
        vcpu = try vm.createVCPU(0)
        let segments = KernelBuffer(count: 312), registers = KernelBuffer(count: 144)
        try vcpu.read(.systemRegisters, into: segments)
        segments.store(UInt64(0), at: 0)  // CS: base and selector
        segments.store(UInt16(0), at: 12)
        try vcpu.write(.systemRegisters, from: segments)
        registers.store(UInt64(0x1000), at: Self.instructionPointer)
        registers.store(UInt64(2), at: Self.instructionPointer + 8)
        try vcpu.write(.registers, from: registers)
    }

    /// Where RIP is in `struct kvm_regs`; RAX comes first.
    private static let instructionPointer = 128

    private func registers() throws -> (rax: UInt64, rip: UInt64) {
        let buffer = KernelBuffer(count: 144)
        try vcpu.read(.registers, into: buffer)
        return (buffer.load64(at: 0), buffer.load64(at: Self.instructionPointer))
    }

    private func run() throws -> VCPUExit {
        vcpu.clearExitRequest()
        return try vcpu.runUntilExit()
    }

    private func answer(_ exit: VCPUExit, port: UInt16, with value: UInt32) throws {
        guard case .io(let access) = exit else { throw Errno.invalidArgument }
        #expect(access.port == port && !access.isWrite)
        vcpu.complete(access, at: 0, with: value)
    }

    @Test func isCompletedWithoutRunningTheGuestAndOnlyOnce() throws {
        try answer(try run(), port: 0x10, with: 0x5A)
        for _ in 0..<2 {
            #expect(try vcpu.completePendingExit() == .interrupted)
            #expect(try registers() == (0x5A, 0x1002))
        }
    }

    @Test func isCompletedAgainAfterARunThatWasInterrupted() throws {
        #expect(try vcpu.completePendingExit() == .interrupted)
        try answer(try run(), port: 0x10, with: 1)
        #expect(try vcpu.completePendingExit() == .interrupted)
        try answer(try run(), port: 0x11, with: 0xA5)
        #expect(try vcpu.completePendingExit() == .interrupted)
        #expect(try registers() == (0xA5, 0x1004))
    }
}
