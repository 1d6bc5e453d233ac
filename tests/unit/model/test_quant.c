// Weight formats: a second decoder written from the layouts' description, weight by weight with the
// bits picked out of the block as one long number, against quant_decode_row on random blocks; the
// values that are easy to get wrong, by hand; and encoding there and back.
// data/golden/formats.jsonl holds what another decoder makes of blocks of each format.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "model/quant.h"

// IEEE 754 binary16 by its definition.
static double half_at(const unsigned char *p)
{
    int h = p[0] | p[1] << 8, e = h >> 10 & 31, f = h & 1023;
    double sign = h & 0x8000 ? -1 : 1;
    if (e == 31) return f == 0 ? sign * HUGE_VAL : (double)NAN;
    return sign * (e == 0 ? ldexp(f, -24) : ldexp(1024 + f, e - 25));
}

// n bits of the little-endian number at p, from bit `from` on.
static int bits_at(const unsigned char *p, int from, int n)
{
    int x = 0;
    for (int i = 0; i < n; i++) x |= (p[(from + i) / 8] >> (from + i) % 8 & 1) << i;
    return x;
}

// Scale (min false) or minimum of group g in the 12 packed bytes: values 0..3 are bytes 0..3 (mins
// 4..7) without their upper two bits; of values 4..7 the low four bits are nibbles of bytes 8..11
// (scales low, mins high), the upper two those that were left over.
static int packed_at(const unsigned char *p, int g, bool min)
{
    int base = min ? 4 : 0;
    if (g < 4) return bits_at(p + base + g, 0, 6);
    return bits_at(p + 8 + g - 4, min ? 4 : 0, 4) + 16 * bits_at(p + base + g - 4, 6, 2);
}

static double k_value(const unsigned char *b, int i, const unsigned char *q, int high)
{
    int g = i / 32, low = bits_at(q + i / 64 * 32 + i % 32, g % 2 * 4, 4);
    return half_at(b) * packed_at(b + 4, g, false) * (low + 16 * high) -
           half_at(b + 2) * packed_at(b + 4, g, true);
}

// Weight i of 32 whose 4-bit numbers start at q: the first 16 in the lower halves of the bytes.
static int nibble_at(const unsigned char *q, int i)
{
    return bits_at(q, i % 16 * 8 + i / 16 * 4, 4);
}

// Weight i of 256 whose 2-bit numbers start at q: 128 weights in 32 bytes, weights i, i + 32, i + 64
// and i + 96 in one byte from its low end up.
static int pair_at(const unsigned char *q, int i)
{
    return bits_at(q + i / 128 * 32, i % 32 * 8 + i / 32 % 4 * 2, 2);
}

// Scale g of sixteen with 6 bits: the low four in the nibbles of bytes 0..7 (all low ones first), the
// upper two in bytes 8..11 (four scales' first pairs, then the next four's ...).
static int scale_q3_k(const unsigned char *s, int g)
{
    return (bits_at(s, g % 8 * 8 + g / 8 * 4, 4) + 16 * bits_at(s + 8, g % 4 * 8 + g / 4 * 2, 2)) -
           32;
}

static int scale_iq4_xs(const unsigned char *b, int g)
{
    return bits_at(b + 4, g * 4, 4) + 16 * bits_at(b + 2, g * 2, 2) - 32;
}

static const int iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

// E2M1: a sign, two bits of exponent with bias 1, one of fraction.
static double e2m1(int q)
{
    int e = q >> 1 & 3, m = q & 1;
    double size = e == 0 ? 0.5 * m : ldexp(2 + m, e - 2);
    return q & 8 ? -size : size;
}

// Weight i of the block at b.
static double weight_at(enum fmt f, const unsigned char *b, int i)
{
    float x;
    uint32_t u;
    switch (f) {
    case FMT_F32: memcpy(&x, b, 4); return (double)x;
    case FMT_F16: return half_at(b);
    case FMT_BF16:
        u = (uint32_t)(b[0] | b[1] << 8) << 16;
        memcpy(&x, &u, 4);
        return (double)x;
    case FMT_Q8_0: return half_at(b) * (b[2 + i] < 128 ? b[2 + i] : b[2 + i] - 256);
    case FMT_Q4_0: return half_at(b) * (bits_at(b + 2 + i % 16, i / 16 * 4, 4) - 8);
    case FMT_Q4_K: return k_value(b, i, b + 16, 0);
    case FMT_Q5_K: return k_value(b, i, b + 48, bits_at(b + 16 + i % 32, i / 32, 1));
    case FMT_Q6_K: {
        int half = i / 128, run = i / 32 % 4, at = i % 32, scale = b[192 + i / 16];
        int low = bits_at(b + half * 64 + run % 2 * 32 + at, run / 2 * 4, 4);
        int high = bits_at(b + 128 + half * 32 + at, run * 2, 2);
        return half_at(b + 208) * (scale < 128 ? scale : scale - 256) * (low + 16 * high - 32);
    }
    case FMT_Q4_1: return half_at(b) * nibble_at(b + 4, i) + half_at(b + 2);
    case FMT_Q5_0: return half_at(b) * (nibble_at(b + 6, i) + 16 * bits_at(b + 2, i, 1) - 16);
    case FMT_Q5_1:
        return half_at(b) * (nibble_at(b + 8, i) + 16 * bits_at(b + 4, i, 1)) + half_at(b + 2);
    case FMT_Q2_K:
        return half_at(b + 80) * bits_at(b + i / 16, 0, 4) * pair_at(b + 16, i) -
               half_at(b + 82) * bits_at(b + i / 16, 4, 4);
    case FMT_Q3_K:
        return half_at(b + 108) * scale_q3_k(b + 96, i / 16) *
               (pair_at(b + 32, i) - 4 + 4 * bits_at(b + i % 32, i / 32, 1));
    case FMT_IQ4_NL: return half_at(b) * iq4_values[nibble_at(b + 2, i)];
    case FMT_IQ4_XS:
        return half_at(b) * scale_iq4_xs(b, i / 32) *
               iq4_values[nibble_at(b + 8 + i / 32 * 16, i % 32)];
    case FMT_MXFP4: return ldexp(e2m1(nibble_at(b + 1, i)), b[0] - 127);
    case FMT_COUNT: break;
    }
    return (double)NAN;
}

static uint64_t noise_state = 99;

static unsigned char noise_byte(void)
{
    noise_state = noise_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned char)(noise_state >> 56);
}

// Where the block's halves are (-1: none): d, and the minimum's, which may be larger than the weight.
static const struct {
    int d, min, largest; // largest: integer that the minimum's half is multiplied with
} halves[FMT_COUNT] = {
    [FMT_F32] = {-1, -1, 0},   [FMT_F16] = {-1, -1, 0},   [FMT_BF16] = {-1, -1, 0},
    [FMT_Q8_0] = {0, -1, 0},   [FMT_Q4_0] = {0, -1, 0},   [FMT_Q4_K] = {0, 2, 63},
    [FMT_Q5_K] = {0, 2, 63},   [FMT_Q6_K] = {208, -1, 0}, [FMT_Q4_1] = {0, 2, 1},
    [FMT_Q5_0] = {0, -1, 0},   [FMT_Q5_1] = {0, 2, 1},    [FMT_Q2_K] = {80, 82, 15},
    [FMT_Q3_K] = {108, -1, 0}, [FMT_IQ4_NL] = {0, -1, 0}, [FMT_IQ4_XS] = {0, -1, 0},
    [FMT_MXFP4] = {-1, -1, 0},
};

// May these differ? Two products and a difference in f32 are three roundings of the larger part;
// infinities and NaNs as scales may cancel on the way.
static bool same_weight(enum fmt f, const unsigned char *b, double want, double got)
{
    const double d = halves[f].d < 0 ? 1 : half_at(b + halves[f].d);
    const double min = halves[f].min < 0 ? 0 : half_at(b + halves[f].min) * halves[f].largest;
    if (!isfinite(d) || !isfinite(min)) return true;
    if (isnan(want)) return isnan(got);
    if (fabs(want) > 0x1.ffffffp127) return isinf(got) && got * want > 0; // beyond f32
    const bool exact = fmt_info[f].block <= 32 && halves[f].min < 0;
    return fabs(got - want) <= (exact ? 0 : (fabs(want) + fabs(min)) * 3e-7);
}

static void decodes_random_blocks(void **state)
{
    enum { BLOCKS = 3, ROUNDS = 200 };
    (void)state;
    for (int f = 0; f < FMT_COUNT; f++) {
        const struct fmt_info *info = &fmt_info[f];
        for (int round = 0; round < ROUNDS; round++) {
            unsigned char raw[1 + BLOCKS * 210];
            float out[BLOCKS * 256];
            unsigned char *row = raw + round % 2; // at odd addresses too
            size_t n = BLOCKS * info->block;
            for (size_t i = 0; i < BLOCKS * info->block_bytes; i++) row[i] = noise_byte();
            quant_decode_row((enum fmt)f, row, out, n);
            for (size_t i = 0; i < n; i++) {
                const unsigned char *b = row + i / info->block * info->block_bytes;
                double want = weight_at((enum fmt)f, b, (int)(i % info->block));
                if (!same_weight((enum fmt)f, b, want, (double)out[i]))
                    fail_msg("%s weight %zu is %.9g, expected %.9g", info->name, i, (double)out[i],
                             want);
            }
        }
    }
}

static int format_named(const char *name)
{
    for (int f = 0; f < FMT_COUNT; f++)
        if (strcmp(fmt_info[f].name, name) == 0) return f;
    return FMT_COUNT;
}

static void check_golden(const json_t *line)
{
    const char *name = json_string_value(json_object_get(line, "format"));
    const char *hex = json_string_value(json_object_get(line, "blocks"));
    const json_t *values = json_object_get(line, "values");
    unsigned char row[2048];
    float out[1024];
    const int f = format_named(name);
    const size_t n = json_array_size(values), n_bytes = strlen(hex) / 2;
    assert_true(f < FMT_COUNT && n <= 1024 && n_bytes == fmt_row_bytes((enum fmt)f, n));
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        row[i] = (unsigned char)byte;
    }
    quant_decode_row((enum fmt)f, row, out, n);
    for (size_t i = 0; i < n; i++) {
        const float want = (float)json_number_value(json_array_get(values, i));
        if (out[i] != want)
            fail_msg("%s weight %zu is %.9g, expected %.9g", name, i, (double)out[i], (double)want);
    }
}

static void decodes_as_others_do(void **state)
{
    char path[4096], *text = NULL;
    size_t cap = 0;
    int n = 0;
    const char *source = getenv("SUBMIND_SOURCE");
    (void)state;
    snprintf(path, sizeof path, "%s/tests/data/golden/formats.jsonl", source ? source : ".");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (getline(&text, &cap, f) > 0) {
        json_t *line = json_loads(text, 0, NULL);
        assert_non_null(line);
        check_golden(line);
        json_decref(line);
        n++;
    }
    fclose(f);
    free(text);
    assert_int_equal(n, FMT_COUNT - 1); // all but F32
}

// Values by hand that a wrong nibble order, sign or offset would change.
static void decodes_by_hand(void **state)
{
    unsigned char b[210] = {0};
    float out[256];
    (void)state;
    b[1] = 0x3c; // d = 1
    b[2] = 0x80; // -128
    b[33] = 0x7f;
    quant_decode_row(FMT_Q8_0, b, out, 32);
    assert_true(out[0] == -128 && out[1] == 0 && out[31] == 127);
    b[2] = 0x2f; // weight 0 is 15 - 8, weight 16 is 2 - 8
    quant_decode_row(FMT_Q4_0, b, out, 32);
    assert_true(out[0] == 7 && out[16] == -6 && out[15] == -8 && out[1] == -8);
    memset(b, 0, sizeof b);
    b[1] = b[3] = 0x3c;    // d = dmin = 1
    b[4 + 3] = 0xc0 | 5;   // scale 3 is 5; upper bits of scale 7
    b[4 + 11] = 0x21;      // scale 7 is 1 + 48, min 7 is 2
    b[16 + 32 + 1] = 0x90; // group 3, weight 1: 9
    b[16 + 96] = 0xf0;     // group 7, weight 0: 15
    quant_decode_row(FMT_Q4_K, b, out, 256);
    assert_true(out[96 + 1] == 45 && out[96] == 0 && out[224] == 49 * 15 - 2 && out[225] == -2);
    memset(b, 0, sizeof b);
    b[1] = 0x3c;
    b[4] = 3;      // scale 0
    b[16 + 4] = 1; // high bit of group 0, weight 4
    b[48 + 4] = 0x0a;
    quant_decode_row(FMT_Q5_K, b, out, 256);
    assert_true(out[4] == 3 * 26 && out[5] == 0);
    memset(b, 0, sizeof b);
    b[209] = 0x3c;
    b[192 + 15] = 0xff;      // scale 15 is -1: weights 240..255
    b[128 + 32 + 31] = 0xc0; // upper bits of weight 255: 3
    b[64 + 63] = 0xf0;       // its low bits: 15
    quant_decode_row(FMT_Q6_K, b, out, 256);
    assert_true(out[255] == -31 && out[254] == 32 && out[239] == 0);
}

static void decodes_edges_of_16_bits(void **state)
{
    const uint16_t in[] = {0x0001, 0x8001, 0x03ff, 0x7bff, 0x7c00, 0xfc00, 0x7e01, 0x8000, 0x3c00};
    float half[9], brain[9];
    (void)state;
    quant_decode_row(FMT_F16, in, half, 9);
    quant_decode_row(FMT_BF16, in, brain, 9);
    assert_true(half[0] == 0x1p-24f && half[1] == -0x1p-24f && half[2] == 1023 * 0x1p-24f);
    assert_true(half[3] == 65504 && isinf(half[4]) && half[5] < 0 && isinf(half[5]));
    assert_true(isnan(half[6]) && half[7] == 0 && signbit(half[7]) && half[8] == 1);
    // BF16: 8 bits of exponent, 7 of fraction; 0x0001 is the least subnormal of binary32 times 2^16.
    assert_true(brain[0] == 0x1p-133f && brain[3] == 0x1.fep+120f && brain[8] == 0x1p-7f);
    assert_true(brain[7] == 0 && signbit(brain[7]));
}

// Encoded values lie within half a step of what was put in; exact ones come back.
static void encodes_there_and_back(void **state)
{
    (void)state;
    for (int f = 0; f < FMT_COUNT; f++) {
        float in[64], out[64];
        unsigned char row[64 * 4];
        float largest = 0;
        for (int i = 0; i < 64; i++) {
            in[i] = ((float)noise_byte() - 128) / 100 + (float)noise_byte() / 25600;
            largest = fmaxf(largest, fabsf(in[i]));
        }
        bool can = f == FMT_F32 || f == FMT_F16 || f == FMT_BF16 || f == FMT_Q8_0 || f == FMT_Q4_0;
        assert_int_equal(quant_encode_row((enum fmt)f, in, row, can ? 64 : 0), can);
        if (!can) continue;
        quant_decode_row((enum fmt)f, row, out, 64);
        // Half a step: of the fraction bits, of amax / 127, of extreme / 8 (and its whole at +8).
        float step = f == FMT_F32    ? 0
                     : f == FMT_F16  ? largest * 0x1p-11f
                     : f == FMT_BF16 ? largest * 0x1p-8f
                     : f == FMT_Q8_0 ? largest / 127 * 0.57f // the scale itself is an f16
                                     : largest / 8 * 1.01f;
        for (int i = 0; i < 64; i++)
            if (!(fabsf(in[i] - out[i]) <= step))
                fail_msg("%s: %g came back as %g", fmt_info[f].name, (double)in[i], (double)out[i]);
    }
    float zeros[32] = {0}, back[32];
    unsigned char row[34];
    assert_true(quant_encode_row(FMT_Q8_0, zeros, row, 32));
    quant_decode_row(FMT_Q8_0, row, back, 32);
    assert_memory_equal(zeros, back, sizeof zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_random_blocks),  cmocka_unit_test(decodes_as_others_do),
        cmocka_unit_test(decodes_by_hand),        cmocka_unit_test(decodes_edges_of_16_bits),
        cmocka_unit_test(encodes_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
