#ifndef CCHECKSUM_H
#define CCHECKSUM_H
#include <stdint.h>

// One step of CRC-32C by the processor's own instruction (SSE 4.2, which every processor with VMX or SVM has): the state before and
// after it, without the inversions at the beginning and the end. Eight bytes count from the lowest.
uint32_t cc_crc32c_u64(uint32_t state, uint64_t bytes);
// Four of them.
uint32_t cc_crc32c_u256(uint32_t state, uint64_t first, uint64_t second, uint64_t third, uint64_t fourth);
uint32_t cc_crc32c_u8(uint32_t state, uint8_t byte);
#endif
