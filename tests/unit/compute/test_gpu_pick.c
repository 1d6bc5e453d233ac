// The choice of GPU kernels, which needs no GPU: every pack is served for every number of columns by the smallest
// kernel that holds them, and what decides the order of sums is a function of the matrix alone.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "compute/gpu_pick.h"

static const char *const packs[PACK_COUNT] = {"H16",  "Q8_0", "Q4_0", "Q5_1",
                                              "Q4_K", "Q5_K", "Q6_K"};

static void expect_name(enum gpu_kernel k, const char *op, int pack, uint32_t size)
{
    char want[64];
    if (size)
        snprintf(want, sizeof want, "%s_%s_%u", op, packs[pack], size);
    else
        snprintf(want, sizeof want, "%s_%s", op, packs[pack]);
    assert_string_equal(gpu_kernel_names[k], want);
}

static void every_pack_has_its_kernels(void **state)
{
    (void)state;
    for (int p = 0; p < PACK_COUNT; p++) {
        const enum pack_kind pack = (enum pack_kind)p;
        expect_name(gpu_pick(GPU_OP_FEW, pack, 1, false, NULL), "few", p, 1);
        expect_name(gpu_pick(GPU_OP_FEW, pack, 8, true, NULL), "few", p, 2);
        expect_name(gpu_pick(GPU_OP_REPACK, pack, 0, false, NULL), "repack", p, 0);
        expect_name(gpu_pick(GPU_OP_DEQUANT, pack, 0, false, NULL), "dequant", p, 0);
        expect_name(gpu_pick(GPU_OP_EMBED, pack, 0, false, NULL), "embed", p, 0);
    }
}

static void the_smallest_kernel_that_holds_the_columns(void **state)
{
    (void)state;
    for (int p = 0; p < PACK_COUNT; p++)
        for (uint32_t n = FEW_COLUMNS_MAX + 1; n <= SOME_COLUMNS_MAX; n++) {
            uint32_t columns = 0;
            const uint32_t wide = n <= 32 ? 32 : n <= 64 ? 64 : 128;
            const uint32_t some = n <= 16 ? 16 : n <= 32 ? 32 : 64;
            expect_name(gpu_pick(GPU_OP_WIDE, (enum pack_kind)p, n, false, &columns), "wide", p,
                        wide);
            assert_int_equal(columns, wide);
            expect_name(gpu_pick(GPU_OP_SOME, (enum pack_kind)p, n, false, &columns), "some", p,
                        some / 8);
            assert_int_equal(columns, some);
        }
}

static void every_kernel_is_named_once(void **state)
{
    (void)state;
    for (int i = 0; i < GPU_KERNEL_COUNT; i++) {
        assert_non_null(gpu_kernel_names[i]);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(gpu_kernel_names[i], gpu_kernel_names[j]);
    }
}

// Results are added by the first 128 threads of a block, one each: four warps at least.
static void blocks_have_four_or_eight_warps(void **state)
{
    (void)state;
    assert_int_equal(gpu_few_warps(100, 320, false), 8); // a long row
    assert_int_equal(gpu_few_warps(16, 256, false), 8);  // few blocks
    assert_int_equal(gpu_few_warps(20, 640, false), 4);
    assert_int_equal(gpu_few_warps(1, 1, false), 4);
    assert_int_equal(gpu_few_warps(100, 320, true), 4); // gate and up share a block
}

// The last round of blocks is as full as the others, if it can be.
static void gate_and_up_leave_no_short_round(void **state)
{
    (void)state;
    assert_int_equal(gpu_few_live(768, 132), 6);  // one round
    assert_int_equal(gpu_few_live(1600, 132), 5); // 2.4 rounds; 2.02 with six
    assert_int_equal(gpu_few_live(1, 132), 6);
}

static void slices_fill_the_device_once_with_two_units_each(void **state)
{
    (void)state;
    for (uint32_t units = 1; units <= 200; units++)
        for (uint32_t blocks = 1; blocks <= 1200; blocks += 7) {
            const uint32_t n = gpu_slices(units, blocks, 264);
            assert_in_range(n, 1, 16);
            if (n == 1) continue;
            assert_true(n * blocks <= 264);
            assert_true(units / n >= 2);
        }
    assert_int_equal(gpu_slices(100, 40, 264), 6);
    assert_int_equal(gpu_slices(100, 400, 264), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pack_has_its_kernels),
        cmocka_unit_test(the_smallest_kernel_that_holds_the_columns),
        cmocka_unit_test(every_kernel_is_named_once),
        cmocka_unit_test(blocks_have_four_or_eight_warps),
        cmocka_unit_test(gate_and_up_leave_no_short_round),
        cmocka_unit_test(slices_fill_the_device_once_with_two_units_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
