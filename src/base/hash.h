// XXH3 (xxHash). 64 bits for tables, 128 bits where equality is decided by the hash alone.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint64_t lo, hi;
};

static inline bool hash128_equal(struct hash128 a, struct hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

// For sorting: negative, 0 or positive.
static inline int hash128_compare(struct hash128 a, struct hash128 b)
{
    if (a.hi != b.hi) return a.hi < b.hi ? -1 : 1;
    return (a.lo > b.lo) - (a.lo < b.lo);
}

uint64_t hash64(const void *p, size_t n, uint64_t seed);
struct hash128 hash128(const void *p, size_t n, uint64_t seed);
// The same, seed 0, over bytes that come piece by piece.
struct hash_stream {
    _Alignas(64) unsigned char state[640];
};
void hash_stream_begin(struct hash_stream *h);
void hash_stream_add(struct hash_stream *h, const void *p, size_t n);
struct hash128 hash_stream_end(const struct hash_stream *h);
