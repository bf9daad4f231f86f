/// What takes a device's interrupts: the in-kernel controllers, or a recorder in tests.
package protocol InterruptController: AnyObject, Sendable {
    /// Sets the level of a pin (KVM_IRQ_LINE). May be called on any thread, with a device's lock held; never blocks.
    func setLevel(_ high: Bool, gsi: UInt32)
}

/// One pin of the interrupt controllers.
///
/// Restoring a device does not touch its line: the controllers are restored with the level and the edges they had, and raising a
/// line again could make an edge out of nothing.
package struct InterruptLine: Sendable {
    /// The Global System Interrupt: on a PC, ISA interrupt n is GSI n.
    package let gsi: UInt32
    private let controller: any InterruptController

    package init(_ gsi: UInt32, of controller: any InterruptController) {
        self.gsi = gsi
        self.controller = controller
    }

    package func raise() { controller.setLevel(true, gsi: gsi) }
    package func lower() { controller.setLevel(false, gsi: gsi) }

    /// One edge, as a timer makes it.
    package func pulse() {
        raise()
        lower()
    }
}
