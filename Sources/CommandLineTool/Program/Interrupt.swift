internal import LinuxSystem

/// The wish of whoever is at the keyboard to stop waiting.
package protocol Interrupt: AnyObject {
    /// Readable once it came.
    var number: CInt { get }
    /// Takes note of it: readable again when it comes again.
    func take()
}

/// Ctrl-C. While this lives the signal does not end the process.
final class InterruptKey: Interrupt {
    private let signals: SignalDescriptor

    init?() {
        guard let signals = try? SignalDescriptor([.interrupt]) else { return nil }
        self.signals = signals
    }

    var number: CInt { signals.descriptor.number }
    func take() { while signals.take() != nil {} }
}
