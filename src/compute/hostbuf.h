// Buffers of the backends that run on the host (ref, cpu): what alloc, free, read and write mean
// there. Weights are used in place from the map. A row of activations holds n_cols floats.
//
// A KV page holds [layer][kv_head] units, a unit the keys and values of page_tokens tokens in the
// backend's own layout. A page is one piece of memory for the cache tiers.
#pragma once

#include "compute/backend.h"

struct dbuf {
    enum buf_kind kind;
    enum fmt fmt;
    uint32_t n_rows, n_cols;
    size_t row_bytes;
    unsigned char *data;          // n_rows * row_bytes, or all pages, or NULL
    const unsigned char *weights; // BUF_WEIGHT: borrowed from the map
    size_t n_bytes;               // of data, taken from the system
    struct kv_shape kv;
    size_t page_bytes, layer_bytes, unit_bytes; // BUF_KV strides
};

// unit_bytes matters for BUF_KV only: bytes of one unit of d->kv.
size_t hostbuf_size(const struct buf_desc *d, size_t unit_bytes);
bool hostbuf_alloc(const struct buf_desc *d, size_t unit_bytes, struct dbuf **out, struct err *e);
// n bytes for a buffer that has none: the backend's own form of a weight.
bool hostbuf_take(struct dbuf *d, size_t n, const char *name, struct err *e);
// Brings d's memory, filled, and what shares pages with it, to huge pages where the system does that.
void hostbuf_join_pages(const struct dbuf *d);
void hostbuf_free(struct backend *b, struct dbuf *d);
bool hostbuf_read(struct backend *b, const struct dbuf *d, uint32_t row, uint32_t n_rows, void *out,
                  struct err *e);
bool hostbuf_write(struct backend *b, struct dbuf *d, uint32_t row, uint32_t n_rows,
                   const float *in, struct err *e);
size_t hostbuf_page_bytes(const struct kv_shape *s, size_t unit_bytes); // SIZE_MAX: too large
bool hostbuf_page_read(struct backend *b, const struct dbuf *kv, uint32_t page, void *out,
                       struct err *e);
bool hostbuf_page_copy(struct backend *b, struct dbuf *kv, uint32_t from, uint32_t to,
                       struct err *e);
bool hostbuf_page_begin(struct backend *b, struct dbuf *kv, uint32_t page,
                        const struct page_way *after, struct page_way *out, struct err *e);
void *hostbuf_page_next(struct backend *b, struct page_way *w, size_t n, struct err *e);
bool hostbuf_page_end(struct backend *b, struct page_way *w, bool good, struct err *e);
void hostbuf_page_prepare(struct backend *b, struct dbuf *kv, uint32_t first, uint32_t n);
// Total and available bytes of the machine's memory.
void hostbuf_memory(uint64_t *total_bytes, uint64_t *free_bytes);

static inline float *hostbuf_row(const struct dbuf *d, uint32_t row)
{
    return (float *)(void *)(d->data + row * d->row_bytes);
}

static inline unsigned char *hostbuf_kv(const struct dbuf *d, uint32_t page, uint32_t layer,
                                        uint32_t head)
{
    return d->data + page * d->page_bytes + layer * d->layer_bytes + head * d->unit_bytes;
}
