import Testing

@testable import KVM

@Suite struct KernelBufferTests {
    @Test(arguments: [8, 13, 64, 71]) func howMuchThereIsAndWhatItHoldsDoNotDependOnTheZerosAfterIt(room: Int) {
        for last in -1..<room {
            let buffer = KernelBuffer(count: room)
            if last >= 0 { buffer.store(UInt8(7), at: last) }
            let whole = buffer.bytes(room)
            let length = buffer.contentLength(within: room)
            #expect(length > last && length <= room && whole[length...].allSatisfy { $0 == 0 })
            #expect(length - last <= 8 || room % 8 != 0)
            var copy: [UInt8] = [1, 2]
            buffer.append(length, to: &copy)
            #expect(copy == [1, 2] + whole[..<length])
            for shorter in 0...room {
                #expect(buffer.holds(Array(whole[..<shorter])) == (shorter > last), "\(shorter) of \(last)")
            }
            var other = whole
            other[room / 2] ^= 1
            #expect(!buffer.holds(other))
            buffer.assign(Array(whole[..<length]))
            #expect(buffer.bytes(room) == whole)
        }
    }
}
