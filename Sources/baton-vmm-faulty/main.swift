import LinuxSystem
import VMM

var image = WorkerImage(version: "1.1.0+" + Stamp.words.joined(separator: "."))
var failpoints = Failpoints()
for word in Stamp.words where !Fault.add(word, to: &failpoints, &image) {
    writeToStandardError("baton-vmm-faulty: \(word) is not a fault")
    CurrentProcess.exitNow(64)
}
CurrentProcess.exitNow(WorkerMain.run(identity: image, failpoints: failpoints))
