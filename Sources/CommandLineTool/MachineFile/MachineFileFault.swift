/// What is wrong with a machine file, and where. Printed the way compilers do, so that editors jump there.
struct MachineFileFault: Error, Equatable, CustomStringConvertible {
    let file: String
    /// From 1; `nil` when the whole file is meant.
    let line: Int?
    let column: Int?
    /// Dotted path, `nil` outside any key.
    let key: String?
    let message: String

    var description: String {
        let place = [file, line.map(String.init), column.map(String.init)].compactMap(\.self).joined(separator: ":")
        return "\(place): " + (key.map { "\($0): " } ?? "") + message
    }
}
