import LinuxSystem
import Testing

@testable import Supervisor

@Suite struct AdmissionTests {
    @Test func thereAreAsManyPlacesAsTheLimitSays() {
        let places = Admission(limit: 2)
        #expect(places.enter(within: .zero))
        #expect(places.enter(within: .zero))
        #expect(!places.enter(within: .milliseconds(1)))
        places.leave()
        #expect(places.enter(within: .zero))
        #expect(!places.enter(within: .zero))
    }

    @Test func whoWaitsGetsThePlaceThatIsLeft() throws {
        let places = Admission(limit: 1)
        #expect(places.enter(within: .zero))
        let entered = Futex()
        let threads = try (0..<4).map { _ in
            try SystemThread(name: "waits") {
                guard places.enter(within: .seconds(60)) else { return }
                entered.set(entered.value + 1)  // one at a time: there is one place
                places.leave()
            }
        }
        places.leave()
        for thread in threads { thread.join() }
        #expect(entered.value == 4)
        #expect(places.enter(within: .zero))
    }
}
