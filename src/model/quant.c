// Decoding and encoding of weight blocks, one function per format, as short as the format allows.
// Not here: anything fast. Kernels are checked against these.
#include "model/quant.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

// ---- decoding one block ----------------------------------------------------------------------

static void decode_F32(const struct block_F32 *b, float *out)
{
    *out = b->x;
}
static void decode_F16(const struct block_F16 *b, float *out)
{
    *out = f16_to_f32(b->x);
}
static void decode_BF16(const struct block_BF16 *b, float *out)
{
    *out = bf16_to_f32(b->x);
}

static void decode_Q8_0(const struct block_Q8_0 *b, float *out)
{
    float d = f16_to_f32(b->d);
    for (int i = 0; i < 32; i++) out[i] = d * (float)b->q[i];
}

static void decode_Q4_0(const struct block_Q4_0 *b, float *out)
{
    float d = f16_to_f32(b->d);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((b->q[i] & 15) - 8);
        out[i + 16] = d * (float)((b->q[i] >> 4) - 8);
    }
}

// The 6-bit scale and minimum of group g (0..7). The first four stand in the low six bits of bytes
// 0..3 and 4..7; the last four have their low nibbles in bytes 8..11 and their upper two bits in the
// top of bytes 0..3 and 4..7.
static void unpack_scale(const uint8_t *p, int g, float *scale, float *min)
{
    if (g < 4) {
        *scale = (float)(p[g] & 63);
        *min = (float)(p[g + 4] & 63);
    } else {
        *scale = (float)((p[g + 4] & 15) | (p[g - 4] >> 6) << 4);
        *min = (float)((p[g + 4] >> 4) | (p[g] >> 6) << 4);
    }
}

static void decode_Q4_K(const struct block_Q4_K *b, float *out)
{
    float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin), scale, min;
    for (int g = 0; g < 8; g++) {
        unpack_scale(b->scales, g, &scale, &min);
        const uint8_t *q = b->q + g / 2 * 32;
        for (int i = 0; i < 32; i++)
            out[g * 32 + i] = d * scale * (float)(q[i] >> g % 2 * 4 & 15) - dmin * min;
    }
}

static void decode_Q5_K(const struct block_Q5_K *b, float *out)
{
    float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin), scale, min;
    for (int g = 0; g < 8; g++) {
        unpack_scale(b->scales, g, &scale, &min);
        const uint8_t *q = b->q + g / 2 * 32;
        for (int i = 0; i < 32; i++) {
            int x = (q[i] >> g % 2 * 4 & 15) | (b->high[i] >> g & 1) << 4;
            out[g * 32 + i] = d * scale * (float)x - dmin * min;
        }
    }
}

// Two halves of 128 weights. In a half, four runs of 32: the low nibbles of q[0..31], of q[32..63],
// then their high nibbles; run k has its upper two bits at bit 2k of high[0..31].
static void decode_Q6_K(const struct block_Q6_K *b, float *out)
{
    float d = f16_to_f32(b->d);
    for (int j = 0; j < 256; j++) {
        int half = j / 128, run = j % 128 / 32, i = j % 32;
        int low = b->q[half * 64 + run % 2 * 32 + i] >> run / 2 * 4 & 15;
        int high = b->high[half * 32 + i] >> run * 2 & 3;
        out[j] = d * (float)b->scales[j / 16] * (float)((low | high << 4) - 32);
    }
}

// A block may stand at any address: it is copied before it is looked at.
#define FMT(id, name, gguf, block, bytes)                                              \
    static void decode_row_##id(const unsigned char *row, float *out, size_t n_blocks) \
    {                                                                                  \
        for (size_t i = 0; i < n_blocks; i++) {                                        \
            struct block_##id b;                                                       \
            memcpy(&b, row + i * sizeof b, sizeof b);                                  \
            decode_##id(&b, out + i * (block));                                        \
        }                                                                              \
    }
#include "kernels/common/formats.def"
#undef FMT

void quant_decode_row(enum fmt f, const void *row, float *out, size_t n_cols)
{
    static void (*const decode[FMT_COUNT])(const unsigned char *, float *, size_t) = {
#define FMT(id, name, gguf, block, bytes) [FMT_##id] = decode_row_##id,
#include "kernels/common/formats.def"
#undef FMT
    };
    decode[f](row, out, n_cols / fmt_info[f].block);
}

// ---- encoding one block ----------------------------------------------------------------------

// scale amax / 127, halves away from zero: as the files of the ggml project are made.
static void encode_Q8_0(const float *in, struct block_Q8_0 *b)
{
    float amax = 0;
    for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(in[i]));
    float d = amax / 127, inverse = d > 0 ? 1 / d : 0;
    b->d = f32_to_f16(d);
    for (int i = 0; i < 32; i++) b->q[i] = (int8_t)roundf(in[i] * inverse);
}

static uint8_t nibble(float x)
{
    float q = floorf(x + 8.5f);
    return (uint8_t)(q < 0 ? 0 : q > 15 ? 15 : q);
}

// The weight of the largest magnitude becomes -8, the end of the range that has one step more.
static void encode_Q4_0(const float *in, struct block_Q4_0 *b)
{
    float extreme = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(in[i]) > fabsf(extreme)) extreme = in[i];
    float d = extreme / -8, inverse = d != 0 ? 1 / d : 0;
    b->d = f32_to_f16(d);
    for (int i = 0; i < 16; i++)
        b->q[i] = (uint8_t)(nibble(in[i] * inverse) | nibble(in[i + 16] * inverse) << 4);
}

static void encode_block(enum fmt f, const float *in, unsigned char *out)
{
    struct block_Q8_0 q8;
    struct block_Q4_0 q4;
    uint16_t half;
    switch (f) {
    case FMT_F16:
    case FMT_BF16:
        half = f == FMT_F16 ? f32_to_f16(*in) : f32_to_bf16(*in);
        memcpy(out, &half, sizeof half);
        break;
    case FMT_Q8_0:
        encode_Q8_0(in, &q8);
        memcpy(out, &q8, sizeof q8);
        break;
    case FMT_Q4_0:
        encode_Q4_0(in, &q4);
        memcpy(out, &q4, sizeof q4);
        break;
    default: memcpy(out, in, sizeof *in); break;
    }
}

bool quant_encode_row(enum fmt f, const float *in, void *row, size_t n_cols)
{
    if (f != FMT_F32 && f != FMT_F16 && f != FMT_BF16 && f != FMT_Q8_0 && f != FMT_Q4_0)
        return false;
    const struct fmt_info *info = &fmt_info[f];
    for (size_t i = 0; i < n_cols / info->block; i++)
        encode_block(f, in + i * info->block, (unsigned char *)row + i * info->block_bytes);
    return true;
}
