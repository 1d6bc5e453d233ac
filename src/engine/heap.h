// A pairing heap over an array of links: smallest rank first, any entry can be taken out. Nothing is
// allocated: an entry is its index, its link lies in the owner's array. Push is O(1), taking out
// O(log n) amortised. (Fredman, Sedgewick, Sleator, Tarjan 1986.)
#pragma once

#include <stdint.h>

#define HEAP_NONE UINT32_MAX

struct heap_link {
    double rank;
    uint32_t child; // the first of the entries below
    uint32_t next;  // the following entry with the same parent
    uint32_t prev;  // the one before it, or the parent when it is the first; HEAP_NONE at the root
};

// *root is HEAP_NONE for an empty heap. links[i].rank is set by the caller and stays while i is inside.
void heap_push(struct heap_link *links, uint32_t *root, uint32_t i);
void heap_remove(struct heap_link *links, uint32_t *root, uint32_t i); // i must be inside
