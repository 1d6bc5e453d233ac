// A stack of free page numbers and a count of owners each.
// Invariant: a page is on the stack exactly when its count is 0.
#include "engine/kv.h"

#include <assert.h>
#include <stdlib.h>

bool kv_init(struct kv_pool *p, uint32_t n_pages, uint32_t page_tokens, struct err *e)
{
    assert(n_pages > 0 && page_tokens > 0);
    uint32_t *free_pages = calloc(n_pages, sizeof *free_pages);
    uint32_t *refs = calloc(n_pages, sizeof *refs);
    if (free_pages == NULL || refs == NULL) {
        free(free_pages);
        free(refs);
        return err_set(e, ERR_MEMORY, "no memory for a table of %u KV pages", n_pages);
    }
    // The lowest number is on top, so that a small load touches little memory.
    for (uint32_t i = 0; i < n_pages; i++) free_pages[i] = n_pages - 1 - i;
    *p = (struct kv_pool){.n_pages = n_pages,
                          .page_tokens = page_tokens,
                          .n_free = n_pages,
                          .free = free_pages,
                          .refs = refs};
    return true;
}

void kv_deinit(struct kv_pool *p)
{
    free(p->free);
    free(p->refs);
    *p = (struct kv_pool){0};
}

uint32_t kv_page_take(struct kv_pool *p)
{
    if (p->n_free == 0) return KV_NONE;
    const uint32_t page = p->free[--p->n_free];
    assert(p->refs[page] == 0);
    p->refs[page] = 1;
    return page;
}

void kv_page_pin(struct kv_pool *p, uint32_t page)
{
    assert(page < p->n_pages && p->refs[page] > 0);
    p->refs[page]++;
}

void kv_page_give(struct kv_pool *p, uint32_t page)
{
    assert(page < p->n_pages && p->refs[page] > 0);
    if (--p->refs[page] == 0) p->free[p->n_free++] = page;
}
