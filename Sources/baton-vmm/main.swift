import LinuxSystem
import VMM

CurrentProcess.exitNow(WorkerMain.run(identity: WorkerImage(version: "1.0.0"), failpoints: .none))
