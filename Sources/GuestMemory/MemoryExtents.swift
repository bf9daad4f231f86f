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

    /// Gives every page back: RAM reads as zeros, as at power-on. For everyone who maps it; no guest may run.
    package func empty() throws(Errno) {
        let remove: CInt = 9  // MADV_REMOVE
        try mapping.advise(remove, at: 0, count: mapping.length)
    }

    /// Allocates and maps every page, so that a guest never waits for one.
    package func prefault() throws(Errno) {
        try advise(CInt(CL_MADV_POPULATE_WRITE), 0..<mapping.length) { false }
    }

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
            populated += try advise(CInt(CL_MADV_POPULATE_READ), extent.clamped(to: 0..<mapping.length), isCancelled)
            if isCancelled() { break }
        }
        return populated
    }

    /// Advises a range stride by stride; how much of it was done when it ended or was cancelled.
    @discardableResult
    private func advise(_ advice: CInt, _ range: Range<Int>, _ isCancelled: () -> Bool) throws(Errno) -> Int {
        var start = range.lowerBound
        while start < range.upperBound && !isCancelled() {
            let count = min(Self.stride, range.upperBound - start)
            do { try mapping.advise(advice, at: start, count: count) } catch Errno.interrupted { continue }
            start += count
        }
        return start - range.lowerBound
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
