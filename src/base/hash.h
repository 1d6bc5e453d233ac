// XXH3 (xxHash). 64 bits for tables, 128 bits where equality is decided by the hash alone.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint64_t lo, hi;
};

uint64_t hash64(const void *p, size_t n, uint64_t seed);
struct hash128 hash128(const void *p, size_t n, uint64_t seed);
// The same over pieces in a row, with seed 0.
struct hash_piece {
    const void *p;
    size_t n;
};
struct hash128 hash128_pieces(const struct hash_piece *pieces, size_t n_pieces);
