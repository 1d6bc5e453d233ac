// host/sizing against numbers computed elsewhere: Qwen3-32B's 256 KiB a token (its published shape) and the
// decode rate that follows from Strix Halo's measured bandwidth.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/sizing.h"

static const struct sizing_model qwen3_32b = {
    .file_bytes = 34800000000u, // Q8_0
    .n_params = 32762000000u,
    .n_layers = 64,
    .n_kv_heads = 8,
    .head_dim = 128,
    .n_embd = 5120,
    .n_ff = 25600,
    .n_vocab = 151936,
    .n_ctx_train = 40960,
};

static void keys_and_values(void **state)
{
    (void)state;
    struct sizing s;
    struct sizing_fit gpu, cpu;
    const struct sizing_wish w = {65536, 4};
    sizing_compute(&qwen3_32b, &s);
    assert_int_equal(s.kv_f16_bytes, 262144);
    assert_int_equal(s.kv_q8_bytes, 139264); // 136 KiB
    assert_int_equal(s.kv_cpu_bytes,
                     135168); // 132 KiB: 1,024 vectors of 128 bytes and a scale of 4
    const struct sizing_place p = {.free_bytes = (uint64_t)50 << 30}; // weights: 32.4 GiB
    struct sizing_place q = p;
    q.is_cpu = true;
    sizing_fit_in(&qwen3_32b, &w, &s, &p, &gpu);
    sizing_fit_in(&qwen3_32b, &w, &s, &q, &cpu);
    assert_int_equal(gpu.one_bytes - s.weights_bytes - s.scratch_bytes, (uint64_t)16 << 30);
    assert_int_equal(gpu.all_bytes - gpu.one_bytes, (uint64_t)48 << 30);
    assert_int_equal(cpu.one_bytes - s.weights_bytes - s.scratch_bytes, (uint64_t)8448 << 20);
    assert_int_equal(cpu.all_bytes - cpu.one_bytes, (uint64_t)3 * 8448 << 20);
    assert_true(gpu.one_fits && cpu.one_fits && !gpu.all_fit && !cpu.all_fit);
    const uint64_t left = p.free_bytes - s.weights_bytes - s.scratch_bytes;
    assert_int_equal(gpu.longest, left / 262144);
    assert_int_equal(gpu.longest_q8, left / 139264);
    assert_int_equal(cpu.longest, left / 135168);
    assert_int_equal(cpu.longest_q8, cpu.longest); // it has no other
    assert_true(s.scratch_bytes < 400000000u);     // a step's activations, not gigabytes
}

static void strix_halo(void **state)
{
    (void)state;
    struct sizing s;
    struct sizing_fit f;
    const struct sizing_wish w = {17000, 1};
    const struct sizing_place p = {
        .free_bytes = (uint64_t)124 << 30, .read_bytes_s = 223e9, .flop_s = 15e12};
    sizing_compute(&qwen3_32b, &s);
    sizing_fit_in(&qwen3_32b, &w, &s, &p, &f);
    assert_true(f.one_fits && f.all_fit);
    assert_true(fabs(f.decode_empty - 6.4) < 0.02); // measured: 6.4 tokens a second
    assert_true(f.decode_full < f.decode_empty && f.decode_full > 5.5);
    assert_true(f.prefill_s > 74 &&
                f.prefill_s < 95); // 2 x 32.8e9 x 17000 / 15e12 = 74 s, and attention
    assert_true(f.longest > 370000 && f.longest < 375000);
}

static void too_small(void **state)
{
    (void)state;
    struct sizing s;
    struct sizing_fit f;
    const struct sizing_wish w = {4096, 1};
    const struct sizing_place p = {.free_bytes = (uint64_t)24 << 30};
    sizing_compute(&qwen3_32b, &s);
    sizing_fit_in(&qwen3_32b, &w, &s, &p, &f);
    assert_false(f.one_fits);
    assert_int_equal(f.longest, 0);
    assert_true(f.decode_empty == 0 && f.prefill_s == 0); // not known is not guessed
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_values),
        cmocka_unit_test(strix_halo),
        cmocka_unit_test(too_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
