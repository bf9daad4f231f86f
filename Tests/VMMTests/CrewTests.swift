import LinuxSystem
import Testing

@testable import VMM

@Suite struct CrewTests {
    @Test(arguments: [
        (4, [[UInt64]](), 2, [0, 1]),  // anywhere: as many as there are CPUs
        (2, [], 8, [0, 1]),
        (1, [], 1, [0]),
        (4, [], 1, [0]),
        (4, [[0b10], [0b01], [0b10], [0b01]], 2, [0, 1]),  // pinned by turns
        (4, [[0b10], [0b10], [0b10], [0b01]], 2, [0, 3]),  // the second and third would wait for the first one's CPU
        (3, [[0b10], [0b10], [0b10]], 4, [0]),
        (3, [[0b11], [0b11], [0b11]], 4, [0, 1]),
        (3, [[0, 0b1], [0, 0b1], [0b1, 0]], 4, [0, 2]),  // CPU 64 and CPU 0
        (3, [[0b1]], 8, [0, 1, 2]),  // the others are bound to nothing
    ])
    func thoseHelpThatCanRunAtTheSameTime(threads: Int, affinities: [[UInt64]], processors: Int, crew: [Int]) {
        #expect(Machine.crew(of: threads, boundTo: affinities, processors: processors) == crew)
    }

    @Test func whoeverWatchesSeesTheLastArrivalWithoutSleeping() throws {
        let latch = Latch()
        latch.close(for: 2)
        #expect(!latch.isOpen(watching: .microseconds(100)))
        let other = try SystemThread(name: "arrives") {
            latch.arrive()
            latch.arrive(quietly: true)  // wakes nobody: who sleeps misses it
        }
        #expect(latch.isOpen(watching: .seconds(10)))
        #expect(latch.wait(timeout: .zero, watching: .zero))
        other.join()
    }
}
