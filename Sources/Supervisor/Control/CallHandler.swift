internal import Control
internal import LinuxSystem
internal import SystemPackage

/// Answers the calls of one connection, one after the other.
struct CallHandler {
    let service: any SupervisorService

    /// Serves until the client leaves, is given up, or speaks something else.
    func serve(_ connection: inout Connection) {
        do throws(ControlError) {
            while let frame = try connection.nextFrame() {
                try answer(Call(frame: frame), on: &connection)
            }
        } catch {
            // Only a message that is not varlink comes here: after it nothing can be read with certainty.
            connection.send(Reply.frame(error: error))
        }
    }

    private func answer(_ call: Call, on connection: inout Connection) throws(ControlError) {
        do {
            switch call.interface {
            case Interface.service.name: try answerService(call, on: &connection)
            case Interface.supervisor.name: try answerSupervisor(call, on: &connection)
            default: throw ServiceError.interfaceNotFound(interface: call.interface)
            }
        } catch let error as any VarlinkError {
            if !call.oneway { connection.send(Reply.frame(error: error)) }
        } catch {
            if !call.oneway { connection.send(Reply.frame(error: ControlError.failed(reason: "\(error)"))) }
        }
    }

    private func answerService(_ call: Call, on connection: inout Connection) throws {
        switch call.method {
        case "GetInfo":
            try check(call, against: Interface.service)
            reply(service.info, to: call, on: &connection)
        case "GetInterfaceDescription":
            try check(call, against: Interface.service)
            let name = try call.decode(Parameters.InterfaceName.self).interface
            guard let interface = [Interface.service, .supervisor].first(where: { $0.name == name }) else {
                throw ServiceError.interfaceNotFound(interface: name)
            }
            reply(Results.Description(description: interface.text), to: call, on: &connection)
        default: throw ServiceError.methodNotFound(method: call.method)
        }
    }

    private func answerSupervisor(_ call: Call, on connection: inout Connection) throws {
        guard let method = SupervisorMethod(rawValue: call.method) else { throw ServiceError.methodNotFound(method: call.method) }
        try check(call, against: Interface.supervisor)
        switch method {
        case .upgrade:
            let wanted = try call.decode(Parameters.Upgrade.self)
            try stream(call, on: &connection) { [service] progress throws(ControlError) in
                try service.upgrade(machine: wanted.machine, image: wanted.image, progress: progress)
            }
        case .rollback:
            let machine = try machine(of: call)
            try stream(call, on: &connection) { [service] progress throws(ControlError) in
                try service.rollback(machine: machine, progress: progress)
            }
        case .events: try sendEvents(call, on: &connection)
        case .console: try handOver(call, on: &connection)
        case .run, .list, .show, .abort, .history, .pause, .resume, .stop, .describeImage, .doctor:
            let frame = try simpleResult(of: method, call)
            if !call.oneway { connection.send(frame) }
        }
    }

    private func check(_ call: Call, against interface: Interface) throws {
        guard let method = interface.method(named: call.method) else { throw ServiceError.methodNotFound(method: call.method) }
        if let path = interface.firstMismatch(of: call.parameters, with: method.parameters) {
            throw ServiceError.invalidParameter(parameter: path)
        }
    }

    private func machine(of call: Call) throws -> String {
        try call.decode(Parameters.OneMachine.self).machine
    }

    private func reply(_ result: some Encodable, to call: Call, on connection: inout Connection) {
        if !call.oneway { connection.send(Reply.frame(result)) }
    }

    /// Calls with one reply, computed on this thread.
    private func simpleResult(of method: SupervisorMethod, _ call: Call) throws -> [UInt8] {
        switch method {
        case .run:
            let spec = try call.decode(Parameters.Run.self).spec
            try spec.validate()
            return Reply.frame(Results.OneMachine(machine: try service.run(spec)))
        case .list: return Reply.frame(Results.List(machines: try service.list()))
        case .show: return Reply.frame(Results.Show(details: try service.show(machine: try machine(of: call))))
        case .abort: try service.abort(machine: try machine(of: call))
        case .history:
            let wanted = try call.decode(Parameters.History.self)
            let limit = min(max(wanted.limit ?? 100, 1), 1000)
            return Reply.frame(Results.History(handovers: try service.history(machine: wanted.machine, limit: limit)))
        case .pause: try service.pause(machine: try machine(of: call))
        case .resume: try service.resume(machine: try machine(of: call))
        case .stop:
            let wanted = try call.decode(Parameters.Stop.self)
            try service.stop(machine: wanted.machine, force: wanted.force ?? false)
        case .describeImage:
            let path = try call.decode(Parameters.DescribeImage.self).path
            return Reply.frame(Results.DescribeImage(image: try service.describeImage(path: path)))
        case .doctor: return Reply.frame(Results.Doctor(checks: try service.doctor()))
        case .upgrade, .rollback, .events, .console: throw ServiceError.methodNotImplemented(method: method.rawValue)
        }
        return Reply.frame(Results.None())
    }

    private func handOver(_ call: Call, on connection: inout Connection) throws {
        guard call.upgrade, !call.oneway else {
            throw ControlError.unavailable(feature: "console", reason: "it is a raw stream; call the method with the varlink flag upgrade")
        }
        let session = try service.openConsole(machine: try machine(of: call))
        connection.send(Reply.frame(Results.None()))
        if connection.isBroken { return }
        let stream = try connection.giveAway()
        let pending = stream.pending
        session(stream.connection, pending)
    }
}
