internal import LinuxSystem

/// The wish of whoever is at the keyboard to stop waiting.
package protocol Interrupt: AnyObject {
    /// Readable once it came.
    var number: CInt { get }
}

/// Ctrl-C. While this lives the signal does not end the process.
final class InterruptKey: Interrupt {
    private let signals: SignalDescriptor

    init?() {
        guard let signals = try? SignalDescriptor([.interrupt]) else { return nil }
        self.signals = signals
    }

    var number: CInt { signals.descriptor.number }
}
