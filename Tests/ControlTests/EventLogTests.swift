import Control
import LinuxSystem
import Supervisor
import Testing

@Suite("Event log")
struct EventLogTests {
    @Test("keeps the newest events and numbers them without gaps")
    func bounded() {
        let log = EventLog(capacity: 3, now: { 0 })
        for index in 0..<10 { log.append(.warning, machine: index.isMultiple(of: 2) ? "a" : "b") }
        #expect(log.events(after: nil, machine: nil, waiting: .zero).events.map(\.sequence) == [8, 9, 10])
        #expect(log.events(after: 8, machine: nil, waiting: .zero).events.map(\.sequence) == [9, 10])
        let batch = log.events(after: nil, machine: "a", waiting: .zero)
        #expect(batch.events.map(\.sequence) == [9] && batch.last == 10)
    }

    @Test("starts over for a client that comes from an earlier process")
    func restart() {
        let log = EventLog(capacity: 3, now: { 0 })
        log.append(.started)
        #expect(log.events(after: 500, machine: nil, waiting: .zero).events.map(\.sequence) == [1])
    }

    @Test("wakes a waiter for its machine's event, not before and not never")
    func waiting() throws {
        let log = EventLog(now: { 0 })
        #expect(log.events(after: nil, machine: nil, waiting: .milliseconds(20)) == EventBatch(events: [], last: 0))
        let thread = try SystemThread(name: "appender") {
            SystemClock.sleep(.milliseconds(20))
            log.append(.started, machine: "other")
            SystemClock.sleep(.milliseconds(20))
            log.append(.started, machine: "web1")
        }
        #expect(log.events(after: nil, machine: "web1", waiting: .seconds(10)).events.map(\.sequence) == [2])
        thread.join()
    }
}
