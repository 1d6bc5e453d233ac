// Two heaps meld by hanging the larger root below the smaller one; a removed entry's children are
// melded in pairs from the left, then together from the right, without recursion.
// Invariant: no entry ranks below its parent.
#include "engine/heap.h"

#include <assert.h>

static uint32_t meld(struct heap_link *links, uint32_t a, uint32_t b)
{
    if (a == HEAP_NONE) return b;
    if (b == HEAP_NONE) return a;
    if (links[b].rank < links[a].rank) {
        const uint32_t t = a;
        a = b;
        b = t;
    }
    links[b].next = links[a].child;
    links[b].prev = a;
    if (links[a].child != HEAP_NONE) links[links[a].child].prev = b;
    links[a].child = b;
    return a;
}

static uint32_t detach(struct heap_link *links, uint32_t i)
{
    const uint32_t next = links[i].next;
    links[i].next = links[i].prev = HEAP_NONE;
    return next;
}

// One heap of a list of siblings.
static uint32_t meld_children(struct heap_link *links, uint32_t first)
{
    uint32_t pairs = HEAP_NONE, root = HEAP_NONE;
    while (first != HEAP_NONE) {
        const uint32_t a = first, b = detach(links, a);
        first = b == HEAP_NONE ? HEAP_NONE : detach(links, b);
        const uint32_t pair = meld(links, a, b);
        links[pair].next = pairs; // a stack of pairs through next
        pairs = pair;
    }
    while (pairs != HEAP_NONE) {
        const uint32_t pair = pairs;
        pairs = detach(links, pair);
        root = meld(links, root, pair);
    }
    return root;
}

void heap_push(struct heap_link *links, uint32_t *root, uint32_t i)
{
    links[i].child = links[i].next = links[i].prev = HEAP_NONE;
    *root = meld(links, *root, i);
}

void heap_remove(struct heap_link *links, uint32_t *root, uint32_t i)
{
    struct heap_link *n = &links[i];
    const uint32_t rest = meld_children(links, n->child);
    if (*root == i) {
        *root = rest;
    } else {
        assert(n->prev != HEAP_NONE);
        if (links[n->prev].child == i)
            links[n->prev].child = n->next;
        else
            links[n->prev].next = n->next;
        if (n->next != HEAP_NONE) links[n->next].prev = n->prev;
        *root = meld(links, *root, rest);
    }
    n->child = n->next = n->prev = HEAP_NONE;
}
