#include "CChecksum.h"
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) uint32_t cc_crc32c_u64(uint32_t state, uint64_t bytes) { return (uint32_t)_mm_crc32_u64(state, bytes); }

__attribute__((target("sse4.2"))) uint32_t cc_crc32c_u256(uint32_t state, uint64_t first, uint64_t second, uint64_t third, uint64_t fourth) {
    return (uint32_t)_mm_crc32_u64(_mm_crc32_u64(_mm_crc32_u64(_mm_crc32_u64(state, first), second), third), fourth);
}

__attribute__((target("sse4.2"))) uint32_t cc_crc32c_u8(uint32_t state, uint8_t byte) { return _mm_crc32_u8(state, byte); }
