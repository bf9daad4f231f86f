internal import Handover

extension WorkerImage {
    /// What this image is and needs, as one JSON object. Written by hand: the worker links no Foundation.
    package func describe() -> String {
        let sections = sections.map { section in
            "{\"name\":\(json(section.name)),\"writes\":\(json(section.writes)),\"reads\":\(json(section.reads))}"
        }
        let fields = [
            "\"program\":\"baton-vmm\"",
            "\"version\":\(json(version))",
            "\"protocol\":\(protocolVersion)",
            "\"models\":[\(models.map(json).joined(separator: ","))]",
            "\"sections\":[\(sections.joined(separator: ","))]",
            "\"features\":[\(features.map(json).joined(separator: ","))]",
            "\"needs\":[\(Self.needs.map(json).joined(separator: ","))]",
        ]
        return "{\(fields.joined(separator: ","))}"
    }

    private static let needs = [
        "linux-5.14", "KVM_CAP_IRQCHIP", "KVM_CAP_USER_MEMORY", "KVM_CAP_IMMEDIATE_EXIT", "KVM_CAP_XSAVE", "KVM_CAP_ADJUST_CLOCK",
    ]

    private func json(_ range: ClosedRange<UInt16>) -> String { "[\(range.lowerBound),\(range.upperBound)]" }

    private func json(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": result += "\\\(scalar)"
            case _ where scalar.value < 0x20: result += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
