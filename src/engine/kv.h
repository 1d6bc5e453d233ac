// The pool of KV pages: which page number is free, and how many owners each of the others has.
// The pages' bytes belong to the backend; here are numbers only. Engine thread only.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define KV_NONE UINT32_MAX // no page

struct kv_pool {
    uint32_t n_pages, page_tokens;
    uint32_t n_free;
    uint32_t *free; // [n_free] a stack of page numbers
    uint32_t *refs; // [n_pages] owners: sequences, and the prefix tree as one
};

bool kv_init(struct kv_pool *p, uint32_t n_pages, uint32_t page_tokens, struct err *e);
void kv_deinit(struct kv_pool *p);
// A free page, now with one owner; KV_NONE when there is none.
uint32_t kv_page_take(struct kv_pool *p);
// One more owner of a page that has one.
void kv_page_pin(struct kv_pool *p, uint32_t page);
// One owner less; the page is free when that was the last one.
void kv_page_give(struct kv_pool *p, uint32_t page);
// Pages that hold n tokens.
static inline uint32_t kv_pages_for(const struct kv_pool *p, uint32_t n_tokens)
{
    return (uint32_t)(((uint64_t)n_tokens + p->page_tokens - 1) / p->page_tokens);
}
