import Handover
import Testing

/// Every interleaving of the commit word's parties, deaths included: a breadth-first search over all reachable states.
@Suite struct CommitWordModelTests {
    private struct World: Hashable {
        var word = CommitWord(.running, 1)
        /// What each worker believes; it acts on the word only by compare-and-swap.
        var outgoing = Worker.running
        var incoming = Worker.waiting
        var supervisorAlive = true
        /// The supervisor has stopped the outgoing process (SIGSTOP) after commit.
        var fenced = false
        /// The supervisor has told the incoming worker to take over: it may commit.
        var told = false
        /// The supervisor has given the handover up: it orders the outgoing worker to run on.
        var givenUp = false
    }

    private enum Worker { case waiting, running, frozen, granted, dead }

    private func steps(from world: World) -> [World] {
        var next: [World] = []
        func step(_ change: (inout World) -> Void) {
            var changed = world
            change(&changed)
            next.append(changed)
        }
        /// A compare-and-swap by `party`, allowed only where the word has such a successor.
        func swap(_ party: CommitParty, to state: CommitWord.State, _ won: @escaping (inout World) -> Void) {
            guard let successor = world.word.successors(by: party).first(where: { $0.state == state }) else { return }
            step { world in
                world.word = successor
                won(&world)
            }
        }
        if world.outgoing == .running, world.word.generation == 1 { swap(.outgoing, to: .frozen) { $0.outgoing = .frozen } }
        // Its own deadline, or an order: the swap is what decides.
        if world.outgoing == .frozen, !world.fenced { swap(.outgoing, to: .running) { $0.outgoing = .running } }
        if world.supervisorAlive, world.word.state == .frozen, !world.givenUp { swap(.supervisor, to: .committed) { _ in } }
        if world.supervisorAlive, world.outgoing == .running, world.word.generation == 1, world.incoming == .waiting, !world.told {
            step { $0.told = true }
        }
        if world.supervisorAlive, world.word.generation == 1, !world.givenUp { step { $0.givenUp = true } }
        if world.told, world.incoming == .waiting, world.word.state == .frozen { swap(.incoming, to: .committed) { $0.incoming = .granted } }
        if world.supervisorAlive, world.word.state == .committed, !world.fenced { step { $0.fenced = true } }
        if world.supervisorAlive, world.fenced, world.incoming == .waiting { step { $0.incoming = .granted } }
        if world.incoming == .granted { swap(.incoming, to: .running) { $0.incoming = .running } }
        if world.outgoing != .dead { step { $0.outgoing = .dead } }
        if world.incoming != .dead { step { $0.incoming = .dead } }
        if world.supervisorAlive { step { $0.supervisorAlive = false } } else { step { $0.supervisorAlive = true } }
        return next
    }

    private var reachable: Set<World> {
        var seen: Set<World> = [World()]
        var open = [World()]
        while let world = open.popLast() {
            for next in steps(from: world) where seen.insert(next).inserted { open.append(next) }
        }
        return seen
    }

    @Test func atMostOneWorkerRunsTheGuest() {
        for world in reachable {
            #expect(!(world.outgoing == .running && world.incoming == .running), "\(world)")
        }
    }

    @Test func whoeverRunsIsWhoTheWordNames() {
        for world in reachable {
            if world.outgoing == .running { #expect(world.word == CommitWord(.running, 1), "\(world)") }
            if world.incoming == .running { #expect(world.word == CommitWord(.running, 2), "\(world)") }
        }
    }

    @Test func withoutDeathsSomeoneCanAlwaysComeToRun() {
        for world in reachable where world.outgoing != .dead && world.incoming != .dead {
            var seen: Set<World> = [world]
            var open = [world]
            var runs = false
            while let current = open.popLast(), !runs {
                runs = current.outgoing == .running || current.incoming == .running
                for next in steps(from: current) where next.outgoing != .dead && next.incoming != .dead {
                    if seen.insert(next).inserted { open.append(next) }
                }
            }
            #expect(runs, "nobody can come to run from \(world)")
        }
    }

    @Test func aDeadSupervisorLeavesNoFreezeForEver() {
        for world in reachable where world.outgoing == .frozen && world.word.state == .frozen && !world.supervisorAlive {
            #expect(steps(from: world).contains { $0.outgoing == .running }, "\(world)")
        }
    }

    @Test func theSearchReachesWhatItShould() {
        let worlds = reachable
        #expect(worlds.contains { $0.incoming == .running && $0.outgoing == .frozen })
        #expect(worlds.contains { $0.word.state == .committed && $0.outgoing == .dead })
        #expect(worlds.contains { $0.incoming == .running && !$0.fenced && $0.told && !$0.supervisorAlive })
        #expect(worlds.contains { $0.incoming == .running && $0.givenUp })
        #expect(worlds.contains { $0.outgoing == .running && $0.incoming == .waiting && $0.told && $0.givenUp })
        #expect(worlds.count > 40)
    }
}

@Suite struct CommitWordTests {
    @Test func aWordReadsBackAsItWasWritten() {
        for state in CommitWord.State.allCases {
            for generation in [0, 1, 7, UInt32.max] {
                let word = CommitWord(state, generation)
                #expect(CommitWord(rawValue: word.rawValue) == word)
            }
        }
    }

    @Test(arguments: [0, 4, 0x0100, 1 << 40 | 1, UInt64.max] as [UInt64]) func aDamagedWordIsNone(raw: UInt64) {
        #expect(CommitWord(rawValue: raw) == nil)
    }

    @Test func onlyTheOutgoingWorkerEndsAFreeze() {
        let frozen = CommitWord(.frozen, 5)
        #expect(frozen.successors(by: .outgoing) == [CommitWord(.running, 5)])
        #expect(frozen.successors(by: .incoming) == [CommitWord(.committed, 6)])
        #expect(frozen.successors(by: .supervisor) == [CommitWord(.committed, 6)])
        #expect(CommitWord(.committed, 6).successors(by: .outgoing).isEmpty)
    }
}
