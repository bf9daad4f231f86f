/// What a worker image says of itself without starting.
package struct ImageDescription: Codable, Sendable, Equatable {
    package var path: String
    package var version: String
    /// SHA-256 of the file, in hexadecimal.
    package var digest: String
    /// Guest-visible models it implements.
    package var models: [String]
    package var sections: [SectionRange]
    package var features: [String]
    /// What it needs of the kernel.
    package var needs: [String]

    /// Versions of one checkpoint section that it can write and read.
    package struct SectionRange: Codable, Sendable, Equatable {
        package var name: String
        package var writes: VersionRange
        package var reads: VersionRange

        package init(name: String, writes: VersionRange, reads: VersionRange) {
            self.name = name
            self.writes = writes
            self.reads = reads
        }
    }

    package struct VersionRange: Codable, Sendable, Equatable {
        package var lowest: Int
        package var highest: Int

        package init(lowest: Int, highest: Int) {
            self.lowest = lowest
            self.highest = highest
        }
    }

    package init(
        path: String, version: String, digest: String, models: [String], sections: [SectionRange], features: [String] = [],
        needs: [String] = []
    ) {
        self.path = path
        self.version = version
        self.digest = digest
        self.models = models
        self.sections = sections
        self.features = features
        self.needs = needs
    }
}

/// One thing `doctor` looked at.
package struct Check: Codable, Sendable, Equatable {
    package var name: String
    package var verdict: Verdict
    /// What was found, and what it means.
    package var detail: String

    package enum Verdict: String, Codable, Sendable, CaseIterable {
        case ok
        case missing
        case warning
    }

    package init(name: String, verdict: Verdict, detail: String) {
        self.name = name
        self.verdict = verdict
        self.detail = detail
    }
}

/// Who answers, as `org.varlink.service.GetInfo` says it.
package struct ServiceInfo: Codable, Sendable, Equatable {
    package var vendor: String
    package var product: String
    package var version: String
    package var url: String
    package var interfaces: [String]

    package init(
        vendor: String = "Baton", product: String = "batond", version: String, url: String = "",
        interfaces: [String] = [Interface.service.name, Interface.supervisor.name]
    ) {
        self.vendor = vendor
        self.product = product
        self.version = version
        self.url = url
        self.interfaces = interfaces
    }
}
