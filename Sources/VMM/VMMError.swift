/// Why a worker cannot do what it was asked, in words for people: the thing, the reason, and the remedy where there is one.
package struct VMMError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// Runs `body` and says what it was doing if it throws.
func doing<Result: ~Copyable, Failure: Error>(_ what: @autoclosure () -> String, _ body: () throws(Failure) -> Result) throws(VMMError) -> Result {
    do { return try body() } catch { throw VMMError("\(what()): \(error)") }
}
