/// Why a machine cannot be started from the files it was given.
enum BootError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The file is neither an ELF file nor a bzImage.
    case unknownFormat
    /// The file could not be read.
    case unreadable(file: String, reason: String)
    /// `field` lies outside the file.
    case truncated(field: String, offset: UInt64, length: UInt64, fileSize: Int)
    /// `field` has a value that it may not have or that is not supported.
    case field(String, value: UInt64, reason: String)
    /// What must be there is not.
    case missing(String)
    /// Something would not lie in RAM, or on something else.
    case placement(of: String, address: UInt64, length: UInt64, reason: String)
    /// The command line is longer than the kernel or the machine takes.
    case commandLineTooLong(length: Int, limit: Int)
    /// The command line contains a NUL.
    case commandLineNotText

    var description: String {
        switch self {
        case .unknownFormat: "the kernel is neither an ELF file with a PVH entry point nor a bzImage"
        case .unreadable(let file, let reason): "\(file) cannot be read: \(reason)"
        case .truncated(let field, let offset, let length, let fileSize):
            "\(field), \(length) bytes at offset \(offset), lies outside the file of \(fileSize) bytes"
        case .field(let field, let value, let reason): "\(field) is 0x\(String(value, radix: 16)): \(reason)"
        case .missing(let what): "\(what) is missing"
        case .placement(let what, let address, let length, let reason):
            "\(what), \(length) bytes at guest address 0x\(String(address, radix: 16)), \(reason)"
        case .commandLineTooLong(let length, let limit): "the command line has \(length) bytes; this kernel takes at most \(limit)"
        case .commandLineNotText: "the command line contains a NUL byte"
        }
    }
}
