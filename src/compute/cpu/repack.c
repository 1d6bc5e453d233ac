// Repacking of weights, see repack.h. Portable: it runs once, at load.
#include "compute/cpu/repack.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "kernels/common/decode.h"

static_assert(sizeof(struct kept_block) == 256 * PANEL_ROWS * 2 + 64, "no padding");
static_assert(offsetof(struct panel_block, d) == offsetof(struct kept_block, d), "its beginning");
static_assert(sizeof(struct act_block) == 208, "no padding");
static_assert(sizeof(struct packed_Q8_0) == PANEL_ROWS * 8 * 34, "as large as the file's blocks");
static_assert(sizeof(struct packed_Q4_0) == PANEL_ROWS * 8 * 18, "as large as the file's blocks");
static_assert(sizeof(struct packed_Q4_K) == PANEL_ROWS * 144, "as large as the file's blocks");
static_assert(sizeof(struct packed_Q5_K) == PANEL_ROWS * 176, "as large as the file's blocks");
static_assert(sizeof(struct packed_Q6_K) == PANEL_ROWS * 212, "two bytes more, for alignment");

// One block (256 columns or fewer) of row r of the panel.
typedef void pack_fn(const uint8_t *p, uint32_t n_cols, uint32_t r, void *out);

static void pack_q8_0(const uint8_t *p, uint32_t n_cols, uint32_t r, void *out)
{
    struct packed_Q8_0 *b = out;
    for (uint32_t s = 0; s < n_cols / PACK_COLS; s++, p += sizeof(struct block_Q8_0)) {
        memcpy(&b->d[s][r], p, 2);
        for (uint32_t i = 0; i < PACK_COLS; i++) b->w[s][i / 4][r][i % 4] = p[2 + i] ^ 0x80;
    }
}

static void put_nibble(pack_quad w[][PACK_QUADS], uint32_t s, uint32_t i, uint32_t r, int q)
{
    w[s / 2][i / 4][r][i % 4] |= (uint8_t)(q << (s % 2 * 4));
}

static void pack_q4_0(const uint8_t *p, uint32_t n_cols, uint32_t r, void *out)
{
    struct packed_Q4_0 *b = out;
    for (uint32_t s = 0; s < n_cols / PACK_COLS; s++, p += sizeof(struct block_Q4_0)) {
        memcpy(&b->d[s][r], p, 2);
        for (uint32_t i = 0; i < 16; i++) {
            put_nibble(b->w, s, i, r, p[2 + i] & 15);
            put_nibble(b->w, s, i + 16, r, p[2 + i] >> 4);
        }
    }
}

// d, dmin, twelve bytes of scales; nibbles already lie as they are wanted.
static void pack_k_low(const uint8_t *p, const uint8_t *low, uint32_t r, struct packed_Q4_K *b)
{
    memcpy(&b->d[r], p, 2);
    memcpy(&b->dmin[r], p + 2, 2);
    for (uint32_t i = 0; i < 12; i++) b->scales[i / 4][i % 4][r] = p[4 + i];
    for (uint32_t i = 0; i < BLOCK_K / 8; i++) memcpy(b->w[i / 8][i % 8][r], low + 4 * i, 4);
}

static void pack_q4_k(const uint8_t *p, uint32_t n_cols, uint32_t r, void *out)
{
    (void)n_cols;
    pack_k_low(p, p + 16, r, out);
}

static void pack_q5_k(const uint8_t *p, uint32_t n_cols, uint32_t r, void *out)
{
    struct packed_Q5_K *b = out;
    (void)n_cols;
    pack_k_low(p, p + 48, r, &b->low);
    for (uint32_t i = 0; i < PACK_QUADS; i++) memcpy(b->high[i][r], p + 16 + 4 * i, 4);
}

// In each half of 128 columns, group g of 32 takes nibble g / 2 of bytes 32 (g % 2) + i of the low
// ones and pair g of byte i of the high ones; here neighbouring groups share a byte.
static void pack_q6_k(const uint8_t *p, uint32_t n_cols, uint32_t r, void *out)
{
    struct packed_Q6_K *b = out;
    (void)n_cols;
    memcpy(&b->d[r], p + 208, 2);
    for (uint32_t i = 0; i < 16; i++) b->scales[i][r] = (int8_t)p[192 + i];
    for (uint32_t s = 0; s < PACK_SUBS; s++) {
        const uint32_t half = s / 4, g = s % 4;
        const uint8_t *low = p + half * 64 + g % 2 * 32;
        for (uint32_t i = 0; i < PACK_COLS; i++)
            put_nibble(b->w, s, i, r, low[i] >> (g / 2 * 4) & 15);
    }
    for (uint32_t h = 0; h < 2; h++)
        for (uint32_t i = 0; i < PACK_QUADS; i++)
            memcpy(b->high[h][i][r], p + 128 + h * 32 + 4 * i, 4);
}

struct packing {
    size_t block_bytes;
    pack_fn *fn;
};

static struct packing packing_of(enum fmt f)
{
    switch (f) {
    case FMT_Q8_0: return (struct packing){sizeof(struct packed_Q8_0), pack_q8_0};
    case FMT_Q4_0: return (struct packing){sizeof(struct packed_Q4_0), pack_q4_0};
    case FMT_Q4_K: return (struct packing){sizeof(struct packed_Q4_K), pack_q4_k};
    case FMT_Q5_K: return (struct packing){sizeof(struct packed_Q5_K), pack_q5_k};
    case FMT_Q6_K: return (struct packing){sizeof(struct packed_Q6_K), pack_q6_k};
    default: return (struct packing){0};
    }
}

size_t pack_block_bytes(enum fmt f)
{
    return packing_of(f).block_bytes;
}

size_t pack_bytes(enum fmt f, uint32_t n_rows, uint32_t n_k)
{
    const size_t n_panels = (n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    return n_panels * ((n_k + BLOCK_K - 1) / BLOCK_K) * pack_block_bytes(f);
}

void pack_panel(enum fmt f, const uint8_t *rows, size_t row_bytes, uint32_t n_rows, uint32_t n_k,
                uint8_t *out)
{
    const struct packing p = packing_of(f);
    for (uint32_t b = 0; b * BLOCK_K < n_k; b++, out += p.block_bytes) {
        memset(out, 0, p.block_bytes);
        const uint8_t *block = rows + fmt_row_bytes(f, (size_t)b * BLOCK_K);
        for (uint32_t r = 0; r < n_rows; r++)
            p.fn(block + r * row_bytes, block_cols(n_k, b), r, out);
    }
}
