import CImageStamp

/// What was stamped into this image: words separated by spaces, `none` before stamping.
enum Stamp {
    static let words: [String] = {
        var bytes: [UInt8] = []
        for index in 0..<IMAGE_STAMP_SIZE {
            let byte = image_stamp_byte(index)
            if byte == 0 { break }
            bytes.append(UInt8(truncatingIfNeeded: byte))
        }
        return String(decoding: bytes, as: UTF8.self).split { $0 == " " || $0 == "\n" }.map(String.init)
    }()
}
