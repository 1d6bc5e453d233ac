// Memory with the lifetime of one request or one model: allocate many, free once.
#pragma once

#include <stddef.h>

#include "base/str.h"

struct arena_block;

// Starts as {0} with no limit. limit_bytes bounds what all blocks together may take, so that a
// request cannot eat the machine. Not for several threads at once.
struct arena {
    struct arena_block *head;
    size_t used_bytes, limit_bytes;
};

// n zeroed bytes aligned for any type; NULL when memory or the limit is exhausted.
void *arena_alloc(struct arena *a, size_t n);
// count * size, checked for overflow.
void *arena_array(struct arena *a, size_t count, size_t size);
// A NUL-terminated copy; p is NULL when there is no memory.
struct str arena_str(struct arena *a, struct str s);
void arena_free(struct arena *a); // frees all blocks, keeps the limit
