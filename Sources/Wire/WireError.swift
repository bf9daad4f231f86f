/// Why bytes could not be read as the value that belongs there.
package enum WireError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The value at `offset` needs more bytes than there are.
    case truncated(offset: Int, needed: Int, available: Int)
    /// A length or count at `offset` is over the bound for its field.
    case tooLong(offset: Int, length: UInt64, limit: Int)
    /// The value at `offset` is not one the field may have.
    case invalid(offset: Int, field: String, value: UInt64)
    /// A string at `offset` is not UTF-8.
    case notUTF8(offset: Int)
    /// Bytes are left over after the last field.
    case trailing(offset: Int, count: Int)

    package var description: String {
        switch self {
        case .truncated(let offset, let needed, let available):
            "truncated at offset \(offset): \(needed) bytes needed, \(available) there"
        case .tooLong(let offset, let length, let limit): "length \(length) at offset \(offset) is over the limit of \(limit)"
        case .invalid(let offset, let field, let value): "\(field) at offset \(offset) may not be \(value)"
        case .notUTF8(let offset): "the text at offset \(offset) is not UTF-8"
        case .trailing(let offset, let count): "\(count) bytes too many at offset \(offset)"
        }
    }
}
