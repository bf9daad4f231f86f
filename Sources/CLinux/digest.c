#include "clinux_digest.h"
#include <nmmintrin.h>

static uint64_t mix(uint64_t x) { // the finaliser of splitmix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

__attribute__((target("sse4.2"))) static uint64_t with_instruction(const uint64_t *words, uint64_t *any) {
    uint64_t even = ~0u, odd = 0, seen = 0;
    for (size_t i = 0; i < 512; i += 2) { // two chains hide the instruction's latency
        uint64_t a = words[i], b = words[i + 1];
        seen |= a | b;
        even = _mm_crc32_u64(even, a);
        odd = _mm_crc32_u64(odd, b);
    }
    *any = seen;
    return even << 32 | odd;
}

uint64_t cl_page_digest(const void *start, size_t pages, uint64_t first) {
    uint64_t sum = 0;
    for (size_t page = 0; page < pages; page++) {
        uint64_t any, value = with_instruction((const uint64_t *)start + page * 512, &any);
        if (any) sum += mix(value ^ mix(first + page + 1));
    }
    return sum;
}
