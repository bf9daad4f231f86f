/// The release this is built from.
package enum ProductVersion {
    package static let current = "0.1.0"
}
