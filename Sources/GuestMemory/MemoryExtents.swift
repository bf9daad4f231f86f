internal import CLinux
package import LinuxSystem
package import SystemPackage

extension OwnedDescriptor {
    /// The stretches of a memory object that have pages (lseek(2), `SEEK_DATA`); what lies between are holes and reads as zeros.
    /// On hugetlb memory the kernel reports one stretch: everything.
    package borrowing func dataExtents() throws(Errno) -> [Range<Int>] {
        let seekData: CInt = 3
        let seekHole: CInt = 4
        var extents: [Range<Int>] = []
        var position: Int64 = 0
        while true {
            let start = cl_seek(number, position, seekData)
            if start == -Int64(Errno.noSuchAddressOrDevice.rawValue) { return extents }  // no data after `position`
            let end = try check(cl_seek(number, try check(start), seekHole))
            extents.append(Int(start)..<Int(end))
            position = end
        }
    }
}

extension GuestMemory {
    /// Bytes handled between two looks at whether to go on.
    private static let stride = 16 << 20

    /// Maps the pages that exist into this process, so that later accesses, writes included, do not fault. Holes stay holes.
    ///
    /// - Parameters:
    ///   - extents: from `dataExtents()`; split them to populate with several threads.
    ///   - isCancelled: asked every 16 MiB; true ends the call.
    /// - Returns: bytes populated.
    @discardableResult
    package func populate(_ extents: [Range<Int>], isCancelled: () -> Bool = { false }) throws(Errno) -> Int {
        var populated = 0
        for extent in extents {
            let extent = extent.clamped(to: 0..<mapping.length)
            var start = extent.lowerBound
            while start < extent.upperBound {
                if isCancelled() { return populated }
                let count = min(Self.stride, extent.upperBound - start)
                do {
                    try mapping.advise(CInt(CL_MADV_POPULATE_READ), at: start, count: count)
                } catch Errno.interrupted {
                    continue
                }
                populated += count
                start += count
            }
        }
        return populated
    }

    /// A digest of all RAM, for comparing two moments at which the guest does not run. A hole counts as the zeros it reads as.
    ///
    /// - Parameter extents: from `dataExtents()`.
    package func digest(_ extents: [Range<Int>]) -> UInt64 {
        var sum: UInt64 = 0
        for extent in extents {
            let first = extent.clamped(to: 0..<mapping.length).lowerBound / 4096
            let end = (extent.clamped(to: 0..<mapping.length).upperBound + 4095) / 4096
            // SAFETY: the pages lie within the mapping, whose length is a multiple of the page size.
            sum &+= unsafe cl_page_digest(mapping.pointer + first * 4096, end - first, UInt64(first))
        }
        return sum
    }
}
