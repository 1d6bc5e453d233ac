// See gguf_make.h. Source: the GGUF specification of the ggml project.
#include "lib/gguf_make.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_STRING = 8, TYPE_ARRAY = 9 };

void make_le(struct buf *b, uint64_t x, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) buf_c(b, (char)(x >> 8 * i & 255));
}

void make_text(struct buf *b, struct str s)
{
    make_le(b, s.n, 8);
    buf_str(b, s);
}

void make_kv(struct gguf_make *m, const char *key, uint32_t type, const void *value, size_t n)
{
    make_text(&m->kv, str_from(key));
    make_le(&m->kv, type, 4);
    buf_put(&m->kv, value, n);
    m->n_kv++;
}

void make_u32(struct gguf_make *m, const char *key, uint32_t x)
{
    make_kv(m, key, TYPE_U32, &x, sizeof x);
}

void make_f32(struct gguf_make *m, const char *key, float x)
{
    make_kv(m, key, TYPE_F32, &x, sizeof x);
}

void make_bool(struct gguf_make *m, const char *key, bool x)
{
    unsigned char byte = x;
    make_kv(m, key, TYPE_BOOL, &byte, 1);
}

void make_str(struct gguf_make *m, const char *key, const char *z)
{
    make_kv(m, key, TYPE_STRING, NULL, 0);
    make_text(&m->kv, str_from(z));
}

void make_strs(struct gguf_make *m, const char *key, const char *const *z, size_t n)
{
    make_kv(m, key, TYPE_ARRAY, NULL, 0);
    make_le(&m->kv, TYPE_STRING, 4);
    make_le(&m->kv, n, 8);
    for (size_t i = 0; i < n; i++) make_text(&m->kv, str_from(z[i]));
}

void make_i32s(struct gguf_make *m, const char *key, const int32_t *x, size_t n)
{
    make_kv(m, key, TYPE_ARRAY, NULL, 0);
    make_le(&m->kv, TYPE_I32, 4);
    make_le(&m->kv, n, 8);
    buf_put(&m->kv, x, n * sizeof *x);
}

static void pad(struct buf *b, uint32_t alignment)
{
    while (b->n % (alignment == 0 ? 32 : alignment) != 0) buf_c(b, 0);
}

void make_tensor(struct gguf_make *m, const char *name, uint32_t type, const uint64_t *dims,
                 uint32_t n_dims, const void *data, size_t n_bytes)
{
    make_text(&m->infos, str_from(name));
    make_le(&m->infos, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) make_le(&m->infos, dims[i], 8);
    make_le(&m->infos, type, 4);
    make_le(&m->infos, m->data.n, 8);
    for (size_t i = 0; data == NULL && i < n_bytes; i++) buf_c(&m->data, 0);
    if (data != NULL) buf_put(&m->data, data, n_bytes);
    pad(&m->data, m->alignment);
    m->n_tensors++;
}

void make_file(const struct gguf_make *m, struct buf *out)
{
    struct buf head = {0};
    buf_z(&head, "GGUF");
    make_le(&head, 3, 4);
    make_le(&head, m->n_tensors, 8);
    make_le(&head, m->n_kv, 8);
    buf_str(&head, buf_view(&m->kv));
    buf_str(&head, buf_view(&m->infos));
    if (m->n_tensors > 0) pad(&head, m->alignment);
    buf_str(out, buf_view(&head));
    buf_str(out, buf_view(&m->data));
    buf_free(&head);
}

void make_free(struct gguf_make *m)
{
    buf_free(&m->kv);
    buf_free(&m->infos);
    buf_free(&m->data);
    *m = (struct gguf_make){0};
}

// ---- a model ---------------------------------------------------------------------------------

// Values of about unit variance, by a 64-bit LCG (Knuth's constants).
static float random_value(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 3; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*state >> 40) / 8388608.0f - 1.0f;
    }
    return sum;
}

static void add_weights(struct gguf_make *m, const char *name, uint32_t cols, uint32_t rows,
                        uint64_t *state)
{
    const uint64_t dims[] = {cols, rows};
    const bool vector = rows == 0;
    const bool norm = strstr(name, "norm") != NULL;
    size_t n = (size_t)cols * (vector ? 1 : rows);
    float *w = malloc(n * sizeof *w);
    if (w == NULL) return;
    for (size_t i = 0; i < n; i++) {
        float x = random_value(state);
        w[i] = norm ? 1 + 0.1f * x : x / sqrtf((float)cols);
    }
    make_tensor(m, name, 0, dims, vector ? 1 : 2, w, n * sizeof *w);
    free(w);
}

static void add_layer(struct gguf_make *m, const struct make_shape *s, uint32_t i, uint64_t *state)
{
    const uint32_t q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    const bool qwen3 = strcmp(s->arch, "qwen3") == 0, qwen2 = strcmp(s->arch, "qwen2") == 0;
    const struct {
        const char *name;
        uint32_t cols, rows; // rows 0: a vector
        bool present;
    } table[] = {
        {"attn_norm.weight", s->n_embd, 0, true},
        {"attn_q.weight", s->n_embd, q, true},
        {"attn_k.weight", s->n_embd, kv, true},
        {"attn_v.weight", s->n_embd, kv, true},
        {"attn_q.bias", q, 0, qwen2},
        {"attn_k.bias", kv, 0, qwen2},
        {"attn_v.bias", kv, 0, qwen2},
        {"attn_q_norm.weight", s->head_dim, 0, qwen3},
        {"attn_k_norm.weight", s->head_dim, 0, qwen3},
        {"attn_output.weight", q, s->n_embd, true},
        {"ffn_norm.weight", s->n_embd, 0, true},
        {"ffn_gate.weight", s->n_embd, s->n_ff, true},
        {"ffn_up.weight", s->n_embd, s->n_ff, true},
        {"ffn_down.weight", s->n_ff, s->n_embd, true},
    };
    for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s", i, table[k].name);
        if (table[k].present) add_weights(m, name, table[k].cols, table[k].rows, state);
    }
}

void make_model(struct gguf_make *m, const struct make_shape *s)
{
    const struct {
        const char *suffix;
        uint32_t value;
    } table[] = {
        {"block_count", s->n_layers},          {"context_length", s->n_ctx},
        {"embedding_length", s->n_embd},       {"feed_forward_length", s->n_ff},
        {"attention.head_count", s->n_heads},  {"attention.head_count_kv", s->n_kv_heads},
        {"attention.key_length", s->head_dim}, {"attention.value_length", s->head_dim},
    };
    char key[96];
    uint64_t state = s->seed;
    make_str(m, "general.architecture", s->arch);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(key, sizeof key, "%s.%s", s->arch, table[i].suffix);
        make_u32(m, key, table[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", s->arch);
    make_f32(m, key, 1e-6f);
    snprintf(key, sizeof key, "%s.rope.freq_base", s->arch);
    make_f32(m, key, 1e6f);
    add_weights(m, "token_embd.weight", s->n_embd, s->n_vocab, &state);
    add_weights(m, "output_norm.weight", s->n_embd, 0, &state);
    if (!s->tied) add_weights(m, "output.weight", s->n_embd, s->n_vocab, &state);
    for (uint32_t i = 0; i < s->n_layers; i++) add_layer(m, s, i, &state);
}
