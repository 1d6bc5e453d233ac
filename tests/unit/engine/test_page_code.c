// Pages in 8 bits: what comes back is what the definition of Q8_0 says of the bytes (kernels/common/decode.h, which other
// programs' files are read by), no value is further off than half a step of its block, and pages of every device are what
// it says of them.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/hash.h"
#include "compute/backend.h"
#include "engine/page_code.h"
#include "kernels/common/decode.h"

enum { N = 32, BLOCK = 34 };

static struct page_code code_of(enum page_values v, size_t n_values)
{
    const struct page_form form = {v, n_values};
    struct page_code c;
    struct err e = {0};
    if (!page_code_from("q8_0", &form, n_values * (v == PAGE_F32 ? 4 : 2), &c, &e))
        fail_msg("%s", e.msg);
    return c;
}

static uint64_t draw(uint64_t *state)
{
    *state = hash64(state, sizeof *state, 1);
    return *state;
}

// Of every size that an f16 can have, negative ones too, some blocks all zero.
static float any_value(uint64_t *state)
{
    const double mantissa = 1 + (double)(draw(state) % 1000) / 1000;
    return (float)ldexp(draw(state) % 2 ? mantissa : -mantissa, (int)(draw(state) % 30) - 15);
}

static void names_are_checked(void **state)
{
    (void)state;
    const struct page_form form = {PAGE_F16, 64}, few_bits = {.values = PAGE_OPAQUE};
    struct page_code c;
    struct err e = {0};
    assert_false(page_code_from("q4_0", &form, 128, &c, &e));
    assert_int_equal(e.code, ERR_INPUT);
    const char *const exact[] = {NULL, "", "exact"};
    for (int i = 0; i < 3; i++) {
        assert_true(page_code_from(exact[i], &form, 128, &c, &e));
        assert_int_equal(c.encoding, PAGES_EXACT);
        assert_int_equal(c.stored_bytes, 128);
    }
    assert_true(page_code_from("q8_0", &few_bits, 128, &c, &e));
    assert_int_equal(c.encoding, PAGES_EXACT); // there is nothing to gain
    assert_true(page_code_from("q8_0", &form, 128, &c, &e));
    assert_int_equal(c.encoding, PAGES_Q8_0);
    assert_int_equal(c.stored_bytes, 2 * BLOCK);
}

static void halves_are_what_q8_0_says(void **state)
{
    (void)state;
    enum { BLOCKS = 2000 };
    const struct page_code c = code_of(PAGE_F16, BLOCKS * N);
    static uint16_t in[BLOCKS * N], out[BLOCKS * N];
    static unsigned char stored[BLOCKS * BLOCK];
    uint64_t seed = 1;
    for (int i = 0; i < BLOCKS * N; i++) {
        const float size =
            ldexpf(1, i / N % 40 - 24); // a block's own, from the smallest to the largest
        const float v =
            i / N % 50 == 0 ? 0 : (float)((double)(draw(&seed) % 4001) / 2000 - 1) * size;
        in[i] = f32_to_f16(v);
    }
    in[N] = 0x7bff; // 65504
    in[N + 1] = 0xfbff;
    in[2 * N] = 1; // the smallest
    assert_true(page_encode(&c, in, stored));
    page_decode(&c, stored, out);
    for (int b = 0; b < BLOCKS; b++) {
        float want[N];
        decode_block(FMT_Q8_0, stored + b * BLOCK, want);
        const float d = f16_to_f32((uint16_t)(stored[b * BLOCK] | stored[b * BLOCK + 1] << 8));
        for (int i = b * N; i < (b + 1) * N; i++) {
            const float said = fminf(fmaxf(want[i - b * N], -65504), 65504);
            assert_int_equal(out[i], f32_to_f16(said));
            const float x = f16_to_f32(in[i]);
            assert_true(fabsf(said - x) <= d * 0.5001f);
            assert_true(d <= 0x1p-24f || d * 126 <= 65504); // and the step fits the block:
        }
        float most = 0;
        for (int i = b * N; i < (b + 1) * N; i++) most = fmaxf(most, fabsf(f16_to_f32(in[i])));
        assert_true(most > 0 ? d <= most / 127 * 1.002f + 0x1p-24f : d == 0);
    }
}

static void floats_come_back_within_half_a_step(void **state)
{
    (void)state;
    enum { BLOCKS = 500 };
    const struct page_code c = code_of(PAGE_F32, BLOCKS * N);
    static float in[BLOCKS * N], out[BLOCKS * N], want[N];
    static unsigned char stored[BLOCKS * BLOCK];
    uint64_t seed = 2;
    for (int i = 0; i < BLOCKS * N; i++) in[i] = any_value(&seed);
    assert_true(page_encode(&c, in, stored));
    page_decode(&c, stored, out);
    for (int b = 0; b < BLOCKS; b++) {
        decode_block(FMT_Q8_0, stored + b * BLOCK, want);
        const float d = f16_to_f32((uint16_t)(stored[b * BLOCK] | stored[b * BLOCK + 1] << 8));
        for (int i = 0; i < N; i++) {
            assert_true(out[b * N + i] == want[i]);
            assert_true(fabsf(want[i] - in[b * N + i]) <= d * 0.5001f);
        }
    }
}

static void no_number_has_no_place(void **state)
{
    (void)state;
    const struct page_code half = code_of(PAGE_F16, N), single = code_of(PAGE_F32, N);
    static const uint16_t bad[] = {0x7c00, 0xfc00, 0x7e01, 0xfe00};
    static const float worse[] = {INFINITY, -INFINITY, NAN, 1e9f};
    unsigned char stored[BLOCK];
    for (int i = 0; i < 4; i++) {
        uint16_t h[N] = {0};
        float f[N] = {0};
        assert_true(page_encode(&half, h, stored) && page_encode(&single, f, stored));
        h[17] = bad[i];
        f[17] = worse[i];
        assert_false(page_encode(&half, h, stored));
        assert_false(page_encode(&single, f, stored));
    }
}

static const struct device {
    const char *name;
    enum kv_type type;
    enum page_values values;
    size_t value_bits, vector_bytes; // of a value, of a vector besides
} devices[] = {
    {"ref", KV_F16, PAGE_F16, 16, 0},
    {"ref", KV_F32, PAGE_F32, 32, 0},
    {"cpu", KV_Q8_0, PAGE_OPAQUE, 8, sizeof(float)},
};

static void check_pages(const struct device *v)
{
    struct backend *b;
    struct err e = {0};
    const struct backend_settings s = {
        .device = v->name, .n_threads = 1, .max_rows = 4, .max_out = 1};
    if (!backend_open(&b, &s, &e)) fail_msg("%s", e.msg);
    struct backend_info info;
    b->class->info(b, &info);
    const struct kv_shape shape = {.n_pages = 3,
                                   .page_tokens = info.page_tokens,
                                   .n_layers = 2,
                                   .n_kv_heads = 2,
                                   .head_dim = 64,
                                   .type = v->type};
    const struct buf_desc d = {.kind = BUF_KV, .kv = shape, .name = "pages"};
    const size_t n = b->class->page_bytes(b, &shape), n_vectors = 2 * 2 * 2 * info.page_tokens;
    assert_int_equal(n, n_vectors * (64 * v->value_bits / 8 + v->vector_bytes));
    const struct page_form form = b->class->page_form(b, &shape);
    struct page_code c;
    assert_true(page_code_from("q8_0", &form, n, &c, &e));
    assert_int_equal(form.values, v->values);
    assert_int_equal(c.stored_bytes, v->values == PAGE_OPAQUE ? n : n_vectors * 64 / N * BLOCK);
    struct dbuf *kv;
    if (!b->class->alloc(b, &d, &kv, &e)) fail_msg("%s", e.msg);
    unsigned char *page = malloc(n), *stored = malloc(c.stored_bytes), *back = malloc(n);
    for (uint32_t p = 0; p < shape.n_pages; p++) { // taken ahead, and what is in them stays
        struct page_way way;
        assert_true(b->class->page_begin(b, kv, p, NULL, &way, &e));
        memset(b->class->page_next(b, &way, 100, &e), (int)(p + 1), 100);
        memset(b->class->page_next(b, &way, n - 100, &e), (int)(p + 1), n - 100);
        assert_true(b->class->page_end(b, &way, true, &e));
    }
    b->class->page_prepare(b, kv, 0, 2);
    b->class->page_prepare(b, kv, 1, 2);
    for (uint32_t p = 0; p < shape.n_pages; p++) {
        assert_true(b->class->page_read(b, kv, p, page, &e));
        for (size_t k = 0; k < n; k++) assert_int_equal(page[k], p + 1);
        if (c.encoding == PAGES_EXACT) continue;
        assert_true(page_encode(&c, page, stored));
        page_decode(&c, stored, back);
    }
    free(page);
    free(stored);
    free(back);
    b->class->free(b, kv);
    b->class->close(b);
}

// As the devices of this machine say of their own pages.
static void every_device_tells_its_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) check_pages(&devices[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(halves_are_what_q8_0_says),
        cmocka_unit_test(floats_come_back_within_half_a_step),
        cmocka_unit_test(no_number_has_no_place),
        cmocka_unit_test(every_device_tells_its_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
