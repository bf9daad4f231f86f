internal import Control
internal import LinuxSystem
internal import SystemPackage

/// Attaches to the taps that operators have made. Errors say which command would have made the right one.
enum TapOpener {
    /// One descriptor for each queue pair.
    static func open(_ net: NetSpec, machine: String, key: String) throws(ControlError) -> [SharedDescriptor] {
        let queues = net.queues ?? 1
        guard TapInterface.exists(net.tap) else {
            throw .invalidSpec(key: key + ".tap", reason: "there is no interface \(net.tap); make it with: \(command(net, queues))")
        }
        var taken: [SharedDescriptor] = []
        do throws(Errno) {
            for _ in 0..<queues { taken.append(SharedDescriptor(try TapInterface.attach(net.tap, multiqueue: queues > 1))) }
        } catch {
            throw refusal(error, net, queues, machine, key + ".tap")
        }
        return taken
    }

    private static func command(_ net: NetSpec, _ queues: Int) -> String {
        let user = CurrentProcess.userID == 0 ? "" : " user \(CurrentProcess.userID)"
        return "ip tuntap add dev \(net.tap) mode tap vnet_hdr\(queues > 1 ? " multi_queue" : "")\(user) && ip link set \(net.tap) up"
    }

    private static func refusal(_ errno: Errno, _ net: NetSpec, _ queues: Int, _ machine: String, _ key: String) -> ControlError {
        let again = "ip tuntap del dev \(net.tap) mode tap; \(command(net, queues))"
        switch errno {
        case .noSuchFileOrDirectory, .noSuchAddressOrDevice, .operationNotSupportedByDevice:
            return .unavailable(feature: "/dev/net/tun", reason: "\(errno): load the kernel module tun (modprobe tun)")
        case .permissionDenied:
            return .unavailable(feature: "/dev/net/tun", reason: "\(errno): let user \(CurrentProcess.userID) open it for reading and writing")
        case .notPermitted:
            return .unavailable(feature: "tap \(net.tap)", reason: "it belongs to another user; make it anew: \(again)")
        case .resourceBusy:
            return .refused(
                machine: machine,
                reasons: ["somebody has the tap \(net.tap) already", "→ stop the machine or program that has it, or name another tap"])
        case .invalidArgument:
            return .invalidSpec(
                key: key,
                reason: "\(net.tap) is no tap that takes \(queues == 1 ? "a single queue" : "\(queues) queues"); make it anew: \(again)")
        default: return .unavailable(feature: "tap \(net.tap)", reason: "\(errno)")
        }
    }
}
