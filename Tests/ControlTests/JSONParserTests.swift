import Control
import RandomTestSupport
import Testing

@Suite("JSON parser")
struct JSONParserTests {
    private func parse(_ text: String) throws(JSONFault) -> JSONValue { try JSONParser.parse(Array(text.utf8)) }

    @Test("reads every kind of value")
    func kinds() throws {
        #expect(
            try parse(#" {"a": [null, true, false, -7, 1.5, "x\n\u00e9\ud83d\ude00"], "b": {}} "#)
                == .object([
                    "a": .array([.null, .bool(true), .bool(false), .integer(-7), .fraction(1.5), .string("x\né😀")]), "b": .object([:]),
                ]))
    }

    @Test("keeps integers exact up to 64 bits")
    func integers() throws {
        #expect(try parse("9223372036854775807") == .integer(.max))
        #expect(try parse("-9223372036854775808") == .integer(.min))
    }

    @Test(
        "refuses what is not JSON, with the place",
        arguments: [
            ("", 0), ("{", 1), ("[1,]", 3), ("{\"a\" 1}", 5), ("{\"a\":1,\"a\":2}", 7), ("01", 0), ("1.", 0), ("1e", 0), ("-", 0),
            ("tru", 0), ("NaN", 0), ("\"\u{1}\"", 1), ("\"abc", 0), ("\"\\q\"", 2), ("\"\\ud800\"", 3), ("\"\\ude00x\"", 3), ("{} x", 3),
            ("{1:2}", 1), ("\"\\u12\"", 5), ("9223372036854775808", 0), ("123456789012345678901234567890", 0), ("1e999", 0),
            ("[1 2]", 3),
        ])
    func refused(text: String, offset: Int) {
        let fault = #expect(throws: JSONFault.self) { try parse(text) }
        #expect(fault?.offset == offset, "\(text): \(fault?.description ?? "accepted")")
    }

    @Test("refuses bytes that are not UTF-8")
    func encoding() {
        #expect(throws: JSONFault.self) { try JSONParser.parse([0x22, 0xFF, 0xFE, 0x22]) }
        #expect(throws: JSONFault.self) { try JSONParser.parse([0x22, 0xC0, 0x80, 0x22]) }
    }

    @Test("refuses deep nesting instead of recursing into it")
    func depth() throws {
        let allowed = String(repeating: "[", count: 32) + String(repeating: "]", count: 32)
        #expect(try parse(allowed) != .null)
        #expect(throws: JSONFault(offset: 32, reason: "nested deeper than 32")) { try parse("[" + allowed + "]") }
        #expect(throws: JSONFault.self) { try parse(String(repeating: "[", count: 1_000_000)) }
        #expect(throws: JSONFault.self) { try parse(String(repeating: "{\"a\":", count: 100_000)) }
    }

    @Test("never traps on mutated messages")
    func mutations() {
        let message = Array(#"{"method":"io.baton.Supervisor.Show","parameters":{"machine":"wéb1","n":[-1.5e3,"\ud83d\ude00"]},"more":true}"#.utf8)
        var generator = SplitMix(7)
        for length in 0..<message.count { _ = try? JSONParser.parse(Array(message[..<length])) }
        for _ in 0..<20_000 {
            var mutated = message
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                mutated[Int.random(in: 0..<mutated.count, using: &generator)] = .random(in: 0 ... .max, using: &generator)
            }
            _ = try? Call(frame: mutated)
        }
    }
}
