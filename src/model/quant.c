// Rows of weights to floats by the shared definition (kernels/common/decode.h), and the plain way back.
// Not here: anything fast. Kernels are checked against these.
#include "model/quant.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernels/common/decode.h"

void quant_decode_row(enum fmt f, const void *row, float *out, size_t n_cols)
{
    decode_row(f, row, out, n_cols);
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
