// base/half: all 65,536 half values, and rounding checked with exact double arithmetic.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/half.h"

// IEEE 754 binary16 by its definition: (-1)^s * 2^(e-15) * 1.f, or 2^-14 * 0.f.
static double half_value(uint16_t h)
{
    int e = h >> 10 & 31, f = h & 1023;
    double v = e == 0 ? ldexp(f, -24) : ldexp(1024 + f, e - 25);
    return h & 0x8000 ? -v : v;
}

static void every_half_is_exact_and_returns(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        if ((h >> 10 & 31) == 31) {
            if ((h & 1023) == 0) {
                assert_true(isinf(f));
                assert_int_equal(f32_to_f16(f), h);
            } else {
                assert_true(isnan(f) && isnan(f16_to_f32(f32_to_f16(f))));
            }
            continue;
        }
        assert_true((double)f == half_value((uint16_t)h));
        assert_int_equal(f32_to_f16(f), h);
    }
}

// Between two neighbours a value goes to the nearer one, a tie to the even one.
static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        double lo = half_value((uint16_t)h), hi = half_value((uint16_t)(h + 1)),
               mid = (lo + hi) / 2;
        assert_int_equal(f32_to_f16((float)mid), h % 2 == 0 ? h : h + 1);
        assert_int_equal(f32_to_f16(nextafterf((float)mid, 0.0f)), h);
        assert_int_equal(f32_to_f16(nextafterf((float)mid, 1e9f)), h + 1);
    }
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(f32_to_f16(-1e-9f), 0x8000);
}

static void bfloat16_rounds_and_keeps_nan(void **state)
{
    (void)state;
    assert_int_equal(f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(f32_to_bf16(f32_from_bits(0x3f808000)), 0x3f80); // tie to even
    assert_int_equal(f32_to_bf16(f32_from_bits(0x3f818000)), 0x3f82);
    assert_int_equal(f32_to_bf16(f32_from_bits(0x3f808001)), 0x3f81);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(f32_from_bits(0x7f800001)))));
    assert_true(isinf(bf16_to_f32(f32_to_bf16(INFINITY))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_is_exact_and_returns),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(bfloat16_rounds_and_keeps_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
