package import Checkpoint
package import Wire

/// The stored state of ``VirtioConsole``. Bytes that are in a stream or in a buffer of the guest's are not in it: they stay there.
package struct VirtioConsoleState: Sendable, Equatable {
    /// One port.
    package struct Port: Sendable, Equatable {
        /// The guest has opened it.
        package var isOpen = false
        /// How much of the first buffer in the transmit queue has been written to the stream already.
        package var offset: UInt64 = 0
        /// Bytes taken from the guest that the stream has not taken yet, at most ``VirtioConsole/outputLimit``.
        package var unsent: [UInt8] = []
        /// Bytes that were dropped because nobody took them.
        package var dropped: UInt64 = 0

        package init() {}
    }

    /// A message of the device to its driver (virtio 1.2 §5.3.6.2).
    package struct Message: Sendable, Equatable {
        package var port: UInt32
        package var event: UInt16
        package var value: UInt16

        package init(port: UInt32, event: UInt16, value: UInt16) {
            self.port = port
            self.event = event
            self.value = value
        }
    }

    package var ports: [Port]
    /// Messages for which the driver had no buffer yet, in order.
    package var messages: [Message] = []

    package init(ports: [Port]) { self.ports = ports }
}

extension VirtioConsoleState: DeviceState {
    package static let section = SectionRange("virtio-console", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        writer.list(ports) { writer, port in
            writer.bool(port.isOpen)
            writer.u64(port.offset)
            writer.blob(port.unsent)
            writer.u64(port.dropped)
        }
        writer.list(messages) { writer, message in
            writer.u32(message.port)
            writer.u16(message.event)
            writer.u16(message.value)
        }
    }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        ports = try reader.list(limit: VirtioConsole.maximumPorts) { reader throws(WireError) in
            var port = Port()
            port.isOpen = try reader.bool()
            let start = reader.offset
            port.offset = try reader.u64()
            if port.offset > UInt64(Int.max) { throw .invalid(offset: start, field: "an offset in a buffer", value: port.offset) }
            port.unsent = try reader.blob(limit: VirtioConsole.outputLimit)
            port.dropped = try reader.u64()
            return port
        }
        messages = try reader.list(limit: VirtioConsole.messageLimit) { reader throws(WireError) in
            Message(port: try reader.u32(), event: try reader.u16(), value: try reader.u16())
        }
    }
}
