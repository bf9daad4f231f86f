internal import Control
internal import LinuxSystem

/// The configuration file: one JSON object whose keys are the long options, in camel case.
struct SettingsFile {
    var socket: String?
    var runDirectory: String?
    var imageDirectories: [String] = []
    var fileDirectories: [String] = []
    var diskDirectories: [String] = []
    var defaultImage: String?
    var workerUserBase: UInt32?

    static let keys = ["defaultImage", "diskDirectories", "fileDirectories", "imageDirectories", "runDirectory", "socket", "workerUserBase"]

    struct Fault: Error, CustomStringConvertible {
        let description: String
    }

    /// Reads the file at `path`, at most 1 MiB of it.
    init(path: String) throws(Fault) {
        func fault(_ reason: String) -> Fault { Fault(description: "\(path): \(reason)") }
        let bytes: [UInt8]
        do { bytes = try OwnedDescriptor.open(path, followingLinks: true).readAll(limit: 1 << 20) } catch { throw fault("\(error)") }
        let value: JSONValue
        do { value = try JSONParser.parse(bytes) } catch { throw fault("\(error)") }
        guard case .object(let members) = value else { throw fault("it holds \(value.kind), not an object") }
        for (key, value) in members.sorted(by: { $0.key < $1.key }) {
            func text() throws(Fault) -> String {
                guard let text = value.text else { throw fault("\(key) is \(value.kind), not a string") }
                return text
            }
            func texts() throws(Fault) -> [String] {
                guard case .array(let values) = value else { throw fault("\(key) is \(value.kind), not a list") }
                let texts = values.compactMap(\.text)
                if texts.count != values.count { throw fault("\(key) holds something that is not a string") }
                return texts
            }
            switch key {
            case "socket": socket = try text()
            case "runDirectory": runDirectory = try text()
            case "imageDirectories": imageDirectories = try texts()
            case "fileDirectories": fileDirectories = try texts()
            case "diskDirectories": diskDirectories = try texts()
            case "defaultImage": defaultImage = try text()
            case "workerUserBase":
                guard case .integer(let number) = value, let base = UInt32(exactly: number), base > 0 else {
                    throw fault("workerUserBase is not a user id")
                }
                workerUserBase = base
            default: throw fault("unknown key \"\(key)\"; known are \(Self.keys.joined(separator: ", "))")
            }
        }
    }
}
