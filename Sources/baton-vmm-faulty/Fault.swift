import CImageStamp
import GuestMemory
import Handover
import KVM
import LinuxSystem
import VMM

/// What happens when a step is reached.
struct StepFault: Sendable {
    enum Action: Sendable {
        case error
        case delay(Int64)
        case hang
        case exit
        case crash
    }

    let step: Step
    let action: Action

    /// `hang@load`, `delay:150@save`, `error@build`, `exit@grant`, `crash@load`.
    init?(_ word: String) {
        let halves = word.split(separator: "@", maxSplits: 1)
        guard halves.count == 2, let step = Step(rawValue: String(halves[1])) else { return nil }
        self.step = step
        switch halves[0] {
        case "error": action = .error
        case "hang": action = .hang
        case "exit": action = .exit
        case "crash": action = .crash
        default:
            guard halves[0].hasPrefix("delay:"), let milliseconds = Int64(halves[0].dropFirst(6)) else { return nil }
            action = .delay(milliseconds)
        }
    }

    func happen() throws(VMMError) {
        switch action {
        case .error: throw VMMError("a failpoint at \(step.rawValue)")
        case .delay(let milliseconds): SystemClock.sleep(.milliseconds(milliseconds))
        case .hang: while true { SystemClock.sleep(.seconds(3600)) }
        case .exit: CurrentProcess.exitNow(3)
        case .crash: image_crash()
        }
    }
}

/// A way for an image to be bad.
enum Fault {
    /// Faults with names of their own that are a failure at a step.
    static let atSteps: [String: String] = [
        "exit-at-once": "exit@hello",
        "hang-in-prepare": "hang@build",
        "hang-in-load": "hang@load",
        "crash-in-load": "crash@load",
        "die-after-grant": "exit@grant",
        "crash-after-first-instruction": "crash@running",
    ]

    /// Adds the fault called `word`; `false` when there is none of that name.
    static func add(_ word: String, to failpoints: inout Failpoints, _ image: inout WorkerImage) -> Bool {
        if let fault = StepFault(atSteps[word] ?? word) {
            let before = failpoints.reached
            failpoints.reached = { step throws(VMMError) in
                try before(step)
                if step == fault.step { try fault.happen() }
            }
            return true
        }
        if word.hasPrefix("ill-after:"), let milliseconds = Int64(word.dropFirst(10)) {
            let began = SystemClock.monotonic()
            failpoints.health = { SystemClock.monotonic() - began > milliseconds * 1_000_000 ? "this image is not well any more" : nil }
            return true
        }
        if word.hasPrefix("without:") {
            let feature = word.dropFirst(8)
            image.features.removeAll { $0 == feature }
            return true
        }
        switch word {
        case "none": break
        case "write-ram-in-prepare": failpoints.memory = { memory in try? memory.write([0xBA, 0xD0], at: 0x90000) }
        case "unhealthy-in-soak": failpoints.health = { "this image is never well" }
        case "slow-in-soak":
            failpoints.health = {
                SystemClock.sleep(.milliseconds(1200))
                return nil
            }
        case "claims-version": image.protocolVersion += 1
        case "claims-generation": failpoints.generation = { $0 &+ 7 }
        case "different-machine":
            failpoints.cpuid = { table in
                table.update(0x8000_0002) { $0.eax = 0x4441_4544 }  // the processor's name
            }
        default: return false
        }
        return true
    }
}
