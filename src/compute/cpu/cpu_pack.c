// Repacking weights at load, by all workers, panel by panel: see repack.h. The copy lies in huge pages,
// which the file's map cannot; the file's own bytes are then only read by EMBED.
#include "compute/cpu/cpu.h"

struct packing {
    struct cpu *cpu;
    struct dbuf *weight;
    atomic_uint next; // panels taken; relaxed, since panels are independent
};

static void pack_panels(void *arg, uint32_t i_thread, uint32_t n_threads)
{
    struct packing *p = arg;
    const struct dbuf *d = p->weight;
    const size_t panel_bytes = pack_bytes(d->fmt, PANEL_ROWS, d->n_cols);
    (void)i_thread;
    (void)n_threads;
    for (;;) {
        const uint32_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        const uint32_t first = i * PANEL_ROWS;
        if (first >= d->n_rows) return;
        const uint32_t left = d->n_rows - first;
        pack_panel(d->fmt, d->weights + first * d->row_bytes, d->row_bytes,
                   left < PANEL_ROWS ? left : PANEL_ROWS, d->n_cols, d->data + i * panel_bytes);
    }
}

size_t cpu_pack_bytes(const struct cpu *c, enum fmt f, uint32_t n_rows, uint32_t n_cols)
{
    return c->k->packed_dot ? pack_bytes(f, n_rows, n_cols) : 0;
}

bool cpu_pack(struct cpu *c, struct dbuf *weight, const char *name, struct err *e)
{
    const size_t n = cpu_pack_bytes(c, weight->fmt, weight->n_rows, weight->n_cols);
    if (n == 0) return true;
    if (!hostbuf_take(weight, n, name, e)) return false;
    struct packing p = {.cpu = c, .weight = weight};
    threads_run(c->threads, pack_panels, &p);
    return true;
}
