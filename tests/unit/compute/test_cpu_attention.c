// Which sequences attend together (compute/cpu/cpu_attention.c): over random trees of pages, every sequence stands in one
// group, a group's members are single rows that fit a tile, and what they are taken to share they do share.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "compute/cpu/cpu.h"
#include "lib/ops_rig.h"

enum { SEQS = 24, PAGES = 20, TIMES = 3000 };

struct plan {
    struct batch_seq seqs[SEQS];
    uint32_t pages[SEQS * PAGES], order[SEQS];
    struct attend_group groups[SEQS];
    struct batch batch;
    struct cpu cpu;
};

static uint32_t below(uint32_t n)
{
    return (uint32_t)(random_bits() >> 33) % n;
}

// Each sequence has the pages of one before it up to some page, then its own.
static void grow_tree(struct plan *p, uint32_t n)
{
    for (uint32_t s = 0; s < n; s++) {
        const uint32_t from = s > 0 ? below(s) : 0, shared = s > 0 ? below(PAGES + 1) : 0;
        for (uint32_t i = 0; i < PAGES; i++)
            p->pages[s * PAGES + i] = i < shared ? p->pages[from * PAGES + i] : s * PAGES + i;
        p->seqs[s] = (struct batch_seq){.row0 = s,
                                        .n_rows = below(8) == 0 ? 2 : 1,
                                        .pos0 = below(PAGES * PAGE_TOKENS - 2),
                                        .page0 = s * PAGES,
                                        .n_pages = PAGES};
    }
    p->batch =
        (struct batch){.n_seqs = n, .n_page_ids = n * PAGES, .seqs = p->seqs, .pages = p->pages};
}

static void check_group(const struct plan *p, const struct attend_group *g, uint32_t n_heads)
{
    const struct batch_seq *first = &p->seqs[p->order[g->first]];
    assert_true(g->n == 1 || g->n * n_heads <= Q_TILE);
    assert_true(g->shared % KEY_BLOCK == 0 && (g->n > 1 || g->shared == 0));
    for (uint32_t i = 0; i < g->n && g->n > 1; i++) {
        const struct batch_seq *s = &p->seqs[p->order[g->first + i]];
        assert_int_equal(s->n_rows, 1);
        assert_true(g->shared > 0 && g->shared <= s->pos0);
        assert_memory_equal(p->pages + s->page0, p->pages + first->page0,
                            g->shared / PAGE_TOKENS * sizeof *p->pages);
    }
}

static void groups_share_what_they_say(void **state)
{
    (void)state;
    static struct plan p;
    uint32_t n_together = 0;
    for (uint32_t t = 0; t < TIMES; t++) {
        random_seed(t + 1);
        const uint32_t n = 1 + below(SEQS), n_kv_heads = 1 + below(3), group = 1 + below(9);
        const struct op_attention o = {.n_heads = n_kv_heads * group, .n_kv_heads = n_kv_heads};
        uint32_t seen = 0, end = 0;
        grow_tree(&p, n);
        p.cpu.n_threads = 1 + below(4);
        p.cpu.seq_order = p.order;
        p.cpu.attend_groups = p.groups;
        cpu_attention_plan(&p.cpu, &p.batch, &o);
        for (uint32_t i = 0; i < p.cpu.n_groups; i++) {
            assert_int_equal(p.groups[i].first, end);
            end += p.groups[i].n;
            n_together += p.groups[i].n > 1;
            check_group(&p, &p.groups[i], group);
        }
        assert_int_equal(end, n);
        for (uint32_t i = 0; i < n; i++) seen |= 1u << p.order[i];
        assert_int_equal(seen, (1u << n) - 1);
    }
    assert_true(n_together > TIMES / 2); // the rest says little where nobody goes together
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(groups_share_what_they_say)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
