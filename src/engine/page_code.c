// See page_code.h. A block is that of GGUF's Q8_0, f16 d and int8 q[32], x = d q; d is rounded up, so that no q is
// beyond 127.
//
// Loops are of a constant length and without branches, so that a compiler makes vectors of them.
#include "engine/page_code.h"

#include <assert.h>
#include <string.h>

#include "base/half.h"

enum { N = 32, Q_MAX = 127 };
static const float f16_max = 65504;
static const float round_f32 = 12582912; // 1.5 * 2^23: added and taken off, rounds to nearest even

struct block {
    uint16_t d;
    int8_t q[N];
};
static_assert(sizeof(struct block) == 34, "a file format");

static size_t value_bytes(enum page_values v)
{
    return v == PAGE_F32 ? sizeof(float) : sizeof(uint16_t);
}

bool page_code_from(const char *name, const struct page_form *form, size_t page_bytes,
                    struct page_code *out, struct err *e)
{
    const bool q8 = name != NULL && strcmp(name, "q8_0") == 0;
    if (!q8 && name != NULL && name[0] != '\0' && strcmp(name, "exact") != 0)
        return err_set(e, ERR_INPUT, "--cache-type \"%s\" is not known; there are exact and q8_0",
                       name);
    *out = (struct page_code){.page_bytes = page_bytes, .stored_bytes = page_bytes};
    if (!q8 || form->values == PAGE_OPAQUE) return true;
    assert(form->n_values % N == 0);
    assert(form->n_values * value_bytes(form->values) == page_bytes);
    out->encoding = PAGES_Q8_0;
    out->form = *form;
    out->stored_bytes = form->n_values / N * sizeof(struct block);
    return true;
}

// ---- down ---------------------------------------------------------------------------------------

// The nearest integers of x * by, |x * by| < 2^22.
static void round_all(const float *x, float by, int32_t *out)
{
    for (int i = 0; i < N; i++)
        out[i] = (int32_t)(f32_bits(x[i] * by + round_f32) - f32_bits(round_f32));
}

static bool encode_floats(const float *x, struct block *b)
{
    int32_t q[N];
    uint32_t max =
        0; // bits of absolute values are in the order of the values, infinity and NaN above all
    for (int i = 0; i < N; i++) {
        const uint32_t v = f32_bits(x[i]) & 0x7fffffffu;
        max = v > max ? v : max;
    }
    const float most = f32_from_bits(max);
    if (!(most <= f16_max * Q_MAX)) return false;
    uint16_t d = f32_to_f16(most / Q_MAX);
    if (f16_to_f32(d) * Q_MAX < most) d++; // the next larger one
    round_all(x, d > 0 ? 1 / f16_to_f32(d) : 0, q);
    for (int i = 0; i < N; i++)
        b->q[i] = (int8_t)(q[i] > Q_MAX ? Q_MAX : q[i] < -Q_MAX ? -Q_MAX : q[i]);
    b->d = d;
    return true;
}

// Exact for all finite ones; infinity and NaN become more than any f16 is.
static void from_halves(const uint16_t *h, float *out)
{
    for (int i = 0; i < N; i++) {
        const float f = f32_from_bits((uint32_t)(h[i] & 0x7fffu) << 13) * 0x1p112f;
        out[i] = f32_from_bits(f32_bits(f) | (uint32_t)(h[i] & 0x8000u) << 16);
    }
}

static bool all_are_halves(const float *f)
{
    bool ok = true;
    for (int i = 0; i < N; i++) ok &= f[i] <= f16_max && f[i] >= -f16_max;
    return ok;
}

static bool encode_block(enum page_values v, const unsigned char *from, struct block *b)
{
    float f[N];
    uint16_t halves[N];
    if (v == PAGE_F32) {
        memcpy(f, from, sizeof f);
        return encode_floats(f, b);
    }
    memcpy(halves, from, sizeof halves);
    from_halves(halves, f);
    return all_are_halves(f) && encode_floats(f, b);
}

bool page_encode(const struct page_code *c, const void *page, void *stored)
{
    const struct page_form *m = &c->form;
    const size_t n = N * value_bytes(m->values);
    const unsigned char *from = page;
    unsigned char *to = stored;
    assert(c->encoding == PAGES_Q8_0);
    for (size_t i = 0; i < m->n_values; i += N, from += n, to += sizeof(struct block)) {
        struct block b;
        if (!encode_block(m->values, from, &b)) return false;
        memcpy(to, &b, sizeof b);
    }
    return true;
}

// ---- up -----------------------------------------------------------------------------------------

// |f| <= 65504; 2^-112 makes an f16's exponent of it, and denormal numbers of what an f16 has as such.
static void to_halves(const float *f, uint16_t *h)
{
    for (int i = 0; i < N; i++) {
        const uint32_t sign = f32_bits(f[i]) >> 16 & 0x8000u;
        const uint32_t u = f32_bits(f32_from_bits(f32_bits(f[i]) & 0x7fffffffu) * 0x1p-112f);
        h[i] = (uint16_t)(sign | (u + 0xfffu + (u >> 13 & 1u)) >> 13);
    }
}

static void decode_floats(const struct block *b, enum page_values v, unsigned char *to)
{
    const float d = f16_to_f32(b->d);
    float f[N];
    uint16_t h[N];
    for (int i = 0; i < N; i++) f[i] = (float)b->q[i] * d;
    if (v == PAGE_F32) {
        memcpy(to, f, sizeof f);
        return;
    }
    for (int i = 0; i < N; i++) f[i] = f[i] > f16_max ? f16_max : f[i] < -f16_max ? -f16_max : f[i];
    to_halves(f, h);
    memcpy(to, h, sizeof h);
}

void page_decode(const struct page_code *c, const void *stored, void *page)
{
    const struct page_form *m = &c->form;
    const size_t n = N * value_bytes(m->values);
    const unsigned char *from = stored;
    unsigned char *to = page;
    assert(c->encoding == PAGES_Q8_0);
    for (size_t i = 0; i < m->n_values; i += N, from += sizeof(struct block), to += n) {
        struct block b;
        memcpy(&b, from, sizeof b);
        decode_floats(&b, m->values, to);
    }
}
