#ifndef CLINUX_DIGEST_H
#define CLINUX_DIGEST_H
#include <stddef.h>
#include <stdint.h>

// Digest of `pages` pages of 4096 bytes, the first one being page `first` of the whole. A sum over the pages that are not all
// zero, so parts may be added up in any order and a hole counts as the zeros it reads as. Finds accidents, not intent.
uint64_t cl_page_digest(const void *start, size_t pages, uint64_t first);
#endif
