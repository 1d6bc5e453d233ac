// The only file that includes xxhash.h.
#include "base/hash.h"

#define XXH_STATIC_LINKING_ONLY // for a state on the stack
#include <xxhash.h>

uint64_t hash64(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(p, n, seed);
}

struct hash128 hash128(const void *p, size_t n, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(p, n, seed);
    return (struct hash128){h.low64, h.high64};
}

struct hash128 hash128_pieces(const struct hash_piece *pieces, size_t n_pieces)
{
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    for (size_t i = 0; i < n_pieces; i++) XXH3_128bits_update(&state, pieces[i].p, pieces[i].n);
    const XXH128_hash_t h = XXH3_128bits_digest(&state);
    return (struct hash128){h.low64, h.high64};
}
