// A chain of blocks, bumped from the newest. Blocks double up to 1 MiB so that small requests stay small.
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

struct arena_block {
    struct arena_block *next;
    size_t used, cap; // of the bytes behind this header
    alignas(max_align_t) unsigned char data[];
};

static struct arena_block *block_new(struct arena *a, size_t need)
{
    size_t cap = a->head == NULL ? 4096 : a->head->cap * 2;
    if (cap > (1u << 20)) cap = 1u << 20;
    if (cap < need) cap = need;
    size_t total;
    if (!size_add(&total, cap, sizeof(struct arena_block))) return NULL;
    if (a->limit_bytes != 0 && total > a->limit_bytes - a->used_bytes) return NULL;
    struct arena_block *b = malloc(total);
    if (b == NULL) return NULL;
    *b = (struct arena_block){.next = a->head, .cap = cap};
    a->head = b;
    a->used_bytes += total;
    return b;
}

void *arena_alloc(struct arena *a, size_t n)
{
    const size_t align = alignof(max_align_t);
    if (n > SIZE_MAX - align) return NULL;
    n = (n + align - 1) / align * align;
    struct arena_block *b = a->head;
    if (b == NULL || n > b->cap - b->used) b = block_new(a, n);
    if (b == NULL) return NULL;
    void *p = b->data + b->used;
    b->used += n;
    return memset(p, 0, n);
}

void *arena_array(struct arena *a, size_t count, size_t size)
{
    size_t n;
    return size_mul(&n, count, size) ? arena_alloc(a, n) : NULL;
}

struct str arena_str(struct arena *a, struct str s)
{
    char *p = s.n == SIZE_MAX ? NULL : arena_alloc(a, s.n + 1);
    if (p == NULL) return (struct str){NULL, 0};
    if (s.n > 0) memcpy(p, s.p, s.n);
    return (struct str){p, s.n};
}

void arena_free(struct arena *a)
{
    for (struct arena_block *b = a->head; b != NULL;) {
        struct arena_block *next = b->next;
        free(b);
        b = next;
    }
    a->head = NULL;
    a->used_bytes = 0;
}
