// What routers were told of the disk (engine.h has the rest): the engine's half of it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"

struct tier;

// A page's hash as events have it, by its key in the tree. Routers read hashes as signed too, and 0 as "none".
static inline uint64_t cache_event_hash(uint64_t key)
{
    const uint64_t hash = key & INT64_MAX;
    return hash == 0 ? 1 : hash;
}

// Borrows the tier; NULL, or one without a disk, makes *out NULL.
bool cache_told_open(struct cache_told **out, struct tier *t, struct err *e);
