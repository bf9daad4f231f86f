internal import CLinux
package import SystemPackage

/// Turns the result of a kernel shim, a value or `-errno`, into a value or a thrown `Errno`.
@discardableResult
package func check<Value: SignedInteger>(_ result: Value) throws(Errno) -> Value {
    if result < 0 { throw Errno(rawValue: CInt(-result)) }
    return result
}
