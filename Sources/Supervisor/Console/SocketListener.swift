internal import Control
internal import LinuxSystem
internal import SystemPackage

/// A socket of a machine that clients connect to: listening, with its name in the file system. In custody, so that a client that connects
/// while no supervisor runs waits instead of being refused.
final class SocketListener: Sendable {
    let path: String
    let file: SharedDescriptor

    /// Takes back a socket that listens already.
    init(path: String, file: SharedDescriptor) {
        self.path = path
        self.file = file
    }

    /// Listens at `path` with mode 0660.
    convenience init(path: String, key: String) throws(ControlError) {
        do throws(Errno) {
            self.init(path: path, file: SharedDescriptor(try UnixListener(path: path, permissions: 0o660).takeDescriptor()))
        } catch {
            switch error {
            case .addressInUse: throw .invalidSpec(key: key, reason: "somebody listens at \(path) already, or there is a file of that name")
            case .noSuchFileOrDirectory: throw .invalidSpec(key: key, reason: "the directory of \(path) is not there")
            default: throw .invalidSpec(key: key, reason: "cannot listen at \(path): \(error)")
            }
        }
    }

    /// The next client; `nil` when none waits. Its end of the connection waits for nothing.
    func accept() -> SharedDescriptor? {
        do { return SharedDescriptor(try UnixListener.accept(file.descriptor).takeDescriptor()) } catch { return nil }
    }

    /// Nobody connects any more.
    func remove() { FileSystem.removeSocket(path) }
}
