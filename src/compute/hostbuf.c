// Host memory as device memory: see hostbuf.h. Everything is taken at load; nothing here runs in the
// token loop except copies of pages.
#include "compute/hostbuf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/size.h"
#include "kernels/common/decode.h"

size_t hostbuf_page_bytes(const struct kv_shape *s, size_t unit_bytes)
{
    size_t n = unit_bytes;
    if (!size_mul(&n, n, s->n_layers) || !size_mul(&n, n, s->n_kv_heads)) return SIZE_MAX;
    return n;
}

size_t hostbuf_size(const struct buf_desc *d, size_t unit_bytes)
{
    size_t row_bytes = sizeof(struct topk_row), n;
    switch (d->kind) {
    case BUF_WEIGHT: return 0;
    case BUF_VECTOR: return d->n_cols * sizeof(float);
    case BUF_KV:
        return size_mul(&n, d->kv.n_pages, hostbuf_page_bytes(&d->kv, unit_bytes)) ? n : SIZE_MAX;
    case BUF_TOPK: break;
    case BUF_STREAM:
    case BUF_ACT:
    case BUF_LOGITS: row_bytes = d->n_cols * sizeof(float); break;
    }
    return size_mul(&n, d->n_rows, row_bytes) ? n : SIZE_MAX;
}

static bool check_source(const struct buf_desc *d, struct err *e)
{
    if (d->kind == BUF_VECTOR && d->fmt != FMT_F32)
        return err_set(e, ERR_UNSUPPORTED, "%s: a vector must be F32, not %s", d->name,
                       fmt_info[d->fmt].name);
    if (d->n_cols % fmt_info[d->fmt].block)
        return err_set(e, ERR_FORMAT, "%s: a row of %u weights is no multiple of the block of %s",
                       d->name, d->n_cols, fmt_info[d->fmt].name);
    const size_t n_rows = d->kind == BUF_VECTOR ? 1 : d->n_rows;
    const size_t need = n_rows * fmt_row_bytes(d->fmt, d->n_cols);
    if (!d->source.map || d->source.n_bytes < need)
        return err_set(e, ERR_FORMAT, "%s: %zu bytes of data where %zu are needed", d->name,
                       d->source.n_bytes, need);
    return true;
}

// Fresh zeroed memory, in huge pages where the system gives them (25 % more bandwidth measured on
// long KV scans); untouched pages cost nothing.
static void *map_memory(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    madvise(p, n, MADV_HUGEPAGE);
    return p;
}

static void set_layout(struct dbuf *d, const struct buf_desc *desc, size_t unit_bytes)
{
    d->kind = desc->kind;
    d->fmt = desc->fmt;
    d->n_rows = desc->kind == BUF_VECTOR ? 1 : desc->n_rows;
    d->n_cols = desc->n_cols;
    d->kv = desc->kv;
    d->row_bytes = desc->n_cols * sizeof(float);
    if (desc->kind == BUF_WEIGHT) d->row_bytes = fmt_row_bytes(desc->fmt, desc->n_cols);
    if (desc->kind == BUF_TOPK) d->row_bytes = sizeof(struct topk_row);
    if (desc->kind != BUF_KV) return;
    d->unit_bytes = unit_bytes;
    d->layer_bytes = unit_bytes * d->kv.n_kv_heads;
    d->page_bytes = d->layer_bytes * d->kv.n_layers;
}

bool hostbuf_take(struct dbuf *d, size_t n, const char *name, struct err *e)
{
    assert(!d->data && n > 0);
    d->data = n == SIZE_MAX ? NULL : map_memory(n);
    if (!d->data)
        return err_set(e, ERR_MEMORY, "no memory for %s: %.1f MB wanted", name ? name : "a buffer",
                       (double)n / 1e6);
    d->n_bytes = n;
    return true;
}

// Each huge page with a part of d is asked for by its address, as neighbours are mapped one after the other: none of
// them alone filled the page that they share, so the system gave small ones. Fails without harm where the page is not all
// mapped (the last neighbour is still to come, and asks then) and before Linux 6.1.
void hostbuf_join_pages(const struct dbuf *d)
{
    enum {
        HUGE_BYTES = 2 << 20,
        COLLAPSE = 25
    }; // MADV_COLLAPSE, which Debian 12's headers have not
    unsigned char *p = d->data - (uintptr_t)d->data % HUGE_BYTES;
    for (; p < d->data + d->n_bytes; p += HUGE_BYTES) madvise(p, HUGE_BYTES, COLLAPSE);
}

bool hostbuf_alloc(const struct buf_desc *desc, size_t unit_bytes, struct dbuf **out, struct err *e)
{
    const bool from_source = desc->kind == BUF_WEIGHT || desc->kind == BUF_VECTOR;
    if (from_source && !check_source(desc, e)) return false;
    assert(desc->kind != BUF_TOPK || desc->n_cols <= TOPK_MAX);

    struct dbuf *d = calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_MEMORY, "no memory for a buffer's record");
    set_layout(d, desc, unit_bytes);
    const size_t n = hostbuf_size(desc, unit_bytes);
    if (n && !hostbuf_take(d, n, desc->name, e)) {
        free(d);
        return false;
    }
    if (desc->kind == BUF_WEIGHT) d->weights = desc->source.map;
    if (desc->kind == BUF_VECTOR)
        decode_row(FMT_F32, desc->source.map, hostbuf_row(d, 0), d->n_cols);
    *out = d;
    return true;
}

void hostbuf_free(struct backend *b, struct dbuf *d)
{
    (void)b;
    if (!d) return;
    if (d->data) munmap(d->data, d->n_bytes);
    free(d);
}

bool hostbuf_read(struct backend *b, const struct dbuf *d, uint32_t row, uint32_t n_rows, void *out,
                  struct err *e)
{
    (void)b;
    (void)e;
    assert(d->data && d->kind != BUF_KV && row + n_rows <= d->n_rows);
    memcpy(out, d->data + row * d->row_bytes, n_rows * d->row_bytes);
    return true;
}

bool hostbuf_write(struct backend *b, struct dbuf *d, uint32_t row, uint32_t n_rows,
                   const float *in, struct err *e)
{
    (void)b;
    (void)e;
    assert(d->kind == BUF_STREAM || d->kind == BUF_ACT || d->kind == BUF_LOGITS);
    assert(row + n_rows <= d->n_rows);
    memcpy(d->data + row * d->row_bytes, in, n_rows * d->row_bytes);
    return true;
}

bool hostbuf_page_read(struct backend *b, const struct dbuf *kv, uint32_t page, void *out,
                       struct err *e)
{
    (void)b;
    (void)e;
    assert(kv->kind == BUF_KV && page < kv->kv.n_pages);
    memcpy(out, kv->data + page * kv->page_bytes, kv->page_bytes);
    return true;
}

bool hostbuf_page_copy(struct backend *b, struct dbuf *kv, uint32_t from, uint32_t to,
                       struct err *e)
{
    (void)b;
    (void)e;
    assert(kv->kind == BUF_KV && from < kv->kv.n_pages && to < kv->kv.n_pages && from != to);
    memcpy(kv->data + to * kv->page_bytes, kv->data + from * kv->page_bytes, kv->page_bytes);
    return true;
}

bool hostbuf_page_begin(struct backend *b, struct dbuf *kv, uint32_t page,
                        const struct page_way *after, struct page_way *out, struct err *e)
{
    (void)b;
    (void)after;
    (void)e;
    assert(kv->kind == BUF_KV && page < kv->kv.n_pages);
    *out = (struct page_way){.kv = kv, .page = page};
    return true;
}

void *hostbuf_page_next(struct backend *b, struct page_way *w, size_t n, struct err *e)
{
    unsigned char *at = w->kv->data + w->page * w->kv->page_bytes + w->n_put;
    (void)b;
    (void)e;
    w->n_put += n;
    assert(w->n_put <= w->kv->page_bytes);
    return at;
}

bool hostbuf_page_end(struct backend *b, struct page_way *w, bool good, struct err *e)
{
    (void)b;
    (void)w;
    (void)good; // nothing reads a row before it was written
    (void)e;
    return true; // they were put in their place
}

// Memory that is cleared at its first use makes a page's way back from disk five times as long. Where the
// kernel does not know this advice (before 5.14), it stays so.
void hostbuf_page_prepare(struct backend *b, struct dbuf *kv, uint32_t first, uint32_t n)
{
    const size_t unit = (size_t)sysconf(_SC_PAGESIZE);
    (void)b;
    assert(kv->kind == BUF_KV && first + n <= kv->kv.n_pages);
    const size_t begin = first * kv->page_bytes / unit * unit; // data begins at a page's beginning
    madvise(kv->data + begin, (first + n) * kv->page_bytes - begin, MADV_POPULATE_WRITE);
}

void hostbuf_memory(uint64_t *total_bytes, uint64_t *free_bytes)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    *total_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * page;
    *free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * page;
}
