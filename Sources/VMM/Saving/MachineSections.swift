internal import Checkpoint
internal import Handover

/// The sections a machine's checkpoint consists of.
enum MachineSections {
    static let machine = "machine"
    static let cpu = "cpu"
    static let interruptControllers = "irqchip"
    static let clock = "clock"

    /// What this code writes and reads. An image may offer less.
    static let ranges: [Handover.SectionRange] =
        [machine, cpu, interruptControllers, clock].map { Handover.SectionRange(name: $0, writes: 1...1, reads: 1...1) } + DeviceSet.sections
}
