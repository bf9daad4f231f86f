import LinuxSystem
import VMM

CurrentProcess.exitNow(WorkerMain.run(identity: WorkerImage(version: "1.1.0"), failpoints: .none))
