import LinuxSystem
import VMM

CurrentProcess.exit(WorkerMain.run(identity: WorkerImage(version: "1.0.0"), failpoints: .none))
