import Control
import ControlTestSupport
import Testing

@Suite("Interface")
struct InterfaceTests {
    private let interface = Interface.supervisor

    private func mismatch(_ method: SupervisorMethod, _ text: String) throws -> String? {
        let declared = try #require(interface.method(named: method.rawValue))
        return interface.firstMismatch(of: try JSONParser.parse(Array(text.utf8)), with: declared.parameters)
    }

    @Test("declares exactly the methods that are served")
    func methods() {
        #expect(Set(interface.methods.map(\.name)) == Set(SupervisorMethod.allCases.map(\.rawValue)))
    }

    @Test("declares exactly the errors there are")
    func errors() {
        #expect(Set(interface.errors.map(\.name)) == Set(ErrorSamples.control.map(\.shortName)))
        for error in ErrorSamples.control {
            let declared = interface.errors.first { $0.name == error.shortName }
            #expect(interface.firstMismatch(of: .object(error.parameters), with: declared?.parameters ?? []) == nil)
        }
    }

    @Test("every named type it uses is declared, once")
    func types() {
        let names = interface.types.map(\.name)
        #expect(Set(names).count == names.count)
        for name in ["Machine", "MachineDetails", "Handover", "Step", "Event", "ImageDescription", "Check"] { #expect(names.contains(name)) }
    }

    @Test(
        "names the first parameter that is missing, unknown or of the wrong type",
        arguments: [
            (SupervisorMethod.show, "{}", "machine"), (.show, #"{"machine":1}"#, "machine"), (.show, #"{"machine":"a","x":1}"#, "x"),
            (.stop, #"{"machine":"a","force":"yes"}"#, "force"), (.history, #"{"machine":"a","limit":1.0}"#, "limit"),
            (.run, #"{"spec":{"name":"a"}}"#, "spec.vcpus"), (.run, #"{"spec":[]}"#, "spec"),
        ])
    func mismatches(method: SupervisorMethod, text: String, path: String) throws {
        #expect(try mismatch(method, text) == path)
    }

    @Test("takes optional parameters as absent or null")
    func optional() throws {
        #expect(try mismatch(.stop, #"{"machine":"a"}"#) == nil)
        #expect(try mismatch(.stop, #"{"machine":"a","force":null}"#) == nil)
    }

    @Test("names a nested unknown key and a wrong choice")
    func nested() throws {
        var spec = jsonText(Parameters.Run(spec: Samples.spec), indented: false)
        #expect(try mismatch(.run, spec) == nil)
        #expect(try mismatch(.run, spec.replacing(#""prefault""#, with: #""prefualt""#)) == "spec.memory.prefualt")
        spec.replace(#""onCrash":"stop""#, with: #""onCrash":"explode""#)
        #expect(try mismatch(.run, spec) == "spec.onCrash")
    }

    @Test("every result the service gives is what the interface declares")
    func results() throws {
        let machine = try #require(StubData.machines.last)
        let samples: [(SupervisorMethod, any Encodable)] = [
            (.run, Results.OneMachine(machine: machine)), (.list, Results.List(machines: StubData.machines)),
            (.show, Results.Show(details: StubData.details(machine))), (.upgrade, Results.Progress(step: StubData.steps("web1")[1])),
            (.upgrade, Results.Progress(handover: StubData.record("web1", kind: .upgrade))),
            (.history, Results.History(handovers: StubData.history("web1"))),
            (.events, Results.Events(event: Samples.event)), (.events, Results.Events()),
            (.describeImage, Results.DescribeImage(image: StubData.image("/i"))), (.doctor, Results.Doctor(checks: StubData.checks)),
            (.pause, Results.None()),
        ]
        for (method, sample) in samples {
            let declared = try #require(interface.method(named: method.rawValue))
            let value = try JSONParser.parse(Array(jsonText(sample, indented: false).utf8))
            #expect(interface.firstMismatch(of: value, with: declared.result) == nil, "\(method)")
        }
    }
}

enum Samples {
    static let spec = MachineSpec(
        name: "web1", vcpus: 4, memory: MemorySpec(sizeBytes: 1 << 30), boot: BootSpec(kernel: "/k", initrd: "/i", cmdline: "c"),
        console: ConsoleSpec(socket: "/c"), image: "/w")
    static let event = Event(
        sequence: 1, atNanoseconds: 2, machine: "web1", generation: 3, kind: .step, detail: "d", step: StubData.steps("web1")[0],
        handover: StubData.record("web1", kind: .rollback))
}
