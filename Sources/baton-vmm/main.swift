import Handover
import LinuxSystem
import VMM

let image = WorkerImage(version: "1.0.0", changed: [SectionRange(name: "serial", writes: 1...1, reads: 1...1)])
CurrentProcess.exitNow(WorkerMain.run(identity: image, failpoints: .none))
