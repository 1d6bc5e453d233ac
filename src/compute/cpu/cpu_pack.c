// Repacking weights at load, by all workers, panel by panel: see repack.h. The copy lies in huge pages,
// which the file's map cannot; the file's own bytes are then only read by EMBED.
#include <string.h>

#include "compute/cpu/cpu.h"

bool cpu_keeps(const struct cpu *c, enum fmt f)
{
    return c->k->keeps_panels && (f == FMT_F32 || f == FMT_F16 || f == FMT_BF16);
}

struct packing {
    struct cpu *cpu;
    struct dbuf *weight;
    atomic_uint next; // panels taken; relaxed, since panels are independent
};

// A panel of floats to blocks of struct kept_block.
static void keep_panel(const struct cpu_kernels *k, const struct dbuf *d, uint32_t first,
                       struct kept_block *out)
{
    const uint32_t left = d->n_rows - first, n_blocks = (d->n_cols + BLOCK_K - 1) / BLOCK_K;
    struct panel_block block;
    for (uint32_t b = 0; b < n_blocks; b++) {
        k->panel_expand(d->fmt, d->weights + first * d->row_bytes, d->row_bytes,
                        left < PANEL_ROWS ? left : PANEL_ROWS, b, d->n_cols, &block);
        memcpy(out[b].w, block.w, sizeof block.w);
        memcpy(out[b].d, block.d[0], sizeof block.d[0]);
    }
}

static void pack_panels(void *arg, uint32_t i_thread, uint32_t n_threads)
{
    struct packing *p = arg;
    const struct dbuf *d = p->weight;
    const size_t panel_bytes = cpu_pack_bytes(p->cpu, d->fmt, PANEL_ROWS, d->n_cols);
    (void)i_thread;
    (void)n_threads;
    for (;;) {
        const uint32_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        const uint32_t first = i * PANEL_ROWS;
        if (first >= d->n_rows) return;
        const uint32_t left = d->n_rows - first;
        uint8_t *to = d->data + i * panel_bytes;
        if (cpu_keeps(p->cpu, d->fmt))
            keep_panel(p->cpu->k, d, first, (struct kept_block *)(void *)to);
        else
            pack_panel(d->fmt, d->weights + first * d->row_bytes, d->row_bytes,
                       left < PANEL_ROWS ? left : PANEL_ROWS, d->n_cols, to);
    }
}

size_t cpu_pack_bytes(const struct cpu *c, enum fmt f, uint32_t n_rows, uint32_t n_cols)
{
    const size_t n_panels = (n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    if (cpu_keeps(c, f))
        return n_panels * ((n_cols + BLOCK_K - 1) / BLOCK_K) * sizeof(struct kept_block);
    return c->k->packed_dot ? pack_bytes(f, n_rows, n_cols) : 0;
}

bool cpu_pack(struct cpu *c, struct dbuf *weight, const char *name, struct err *e)
{
    const size_t n = cpu_pack_bytes(c, weight->fmt, weight->n_rows, weight->n_cols);
    if (n == 0) return true;
    if (!hostbuf_take(weight, n, name, e)) return false;
    struct packing p = {.cpu = c, .weight = weight};
    threads_run(c->threads, pack_panels, &p);
    hostbuf_join_pages(weight);
    return true;
}
