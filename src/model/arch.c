// The table of architectures, and the reading of a model's configuration by it.
// Not here: how the network is computed (engine/net.c reads the same for every row of the table).
// Invariant: after arch_read every tensor that the forward pass asks for exists with the shape that
// the configuration states, and every number is within a bound that makes later products safe.
#include "model/arch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define DEFAULTS(t, p, k)                                                                  \
    {                                                                                      \
        .has_temperature = true, .has_top_p = true, .has_top_k = true, .temperature = (t), \
        .top_p = (p), .top_k = (k)                                                         \
    }

// Sampling values: the makers' model cards and generation_config.json files.
static const struct arch_traits arch_table[] = {
    {.name = "qwen3",
     .rope = ROPE_NEOX,
     .qk_norm = true,
     .thinking = DEFAULTS(0.6f, 0.95f, 20),
     .plain = DEFAULTS(0.7f, 0.8f, 20)},
    {.name = "qwen2",
     .rope = ROPE_NEOX,
     .qkv_bias = true,
     .thinking = DEFAULTS(0.7f, 0.8f, 20),
     .plain = DEFAULTS(0.7f, 0.8f, 20)},
    {.name = "llama",
     .rope = ROPE_NORM,
     .thinking = DEFAULTS(0.6f, 0.9f, 0),
     .plain = DEFAULTS(0.6f, 0.9f, 0)},
    {.name = "qwen3moe",
     .rope = ROPE_NEOX,
     .qk_norm = true,
     .moe = true,
     .thinking = DEFAULTS(0.6f, 0.95f, 20),
     .plain = DEFAULTS(0.7f, 0.8f, 20)},
};
enum { N_ARCH = sizeof arch_table / sizeof *arch_table, MAX_LAYERS = 1024 };

// ---- tensors ---------------------------------------------------------------------------------

enum dim { D_NONE, D_EMBD, D_VOCAB, D_FF, D_Q, D_KV, D_HEAD, D_HALF_HEAD };
enum presence { ALWAYS, OPTIONAL, WITH_QK_NORM, WITH_BIAS };

// Rows are named as GGUF files name them; cols is the row length, dims[0] of the file.
static const struct tensor_row {
    const char *name;
    enum dim cols, rows;
    enum presence presence;
} tensor_table[TENSOR_ROLE_COUNT] = {
    [TENSOR_TOKEN_EMBD] = {"token_embd.weight", D_EMBD, D_VOCAB, ALWAYS},
    [TENSOR_OUTPUT_NORM] = {"output_norm.weight", D_EMBD, D_NONE, ALWAYS},
    [TENSOR_OUTPUT] = {"output.weight", D_EMBD, D_VOCAB, OPTIONAL},
    [TENSOR_ROPE_FREQS] = {"rope_freqs.weight", D_HALF_HEAD, D_NONE, OPTIONAL},
    [TENSOR_ATTN_NORM] = {"attn_norm.weight", D_EMBD, D_NONE, ALWAYS},
    [TENSOR_ATTN_Q] = {"attn_q.weight", D_EMBD, D_Q, ALWAYS},
    [TENSOR_ATTN_K] = {"attn_k.weight", D_EMBD, D_KV, ALWAYS},
    [TENSOR_ATTN_V] = {"attn_v.weight", D_EMBD, D_KV, ALWAYS},
    [TENSOR_ATTN_Q_BIAS] = {"attn_q.bias", D_Q, D_NONE, WITH_BIAS},
    [TENSOR_ATTN_K_BIAS] = {"attn_k.bias", D_KV, D_NONE, WITH_BIAS},
    [TENSOR_ATTN_V_BIAS] = {"attn_v.bias", D_KV, D_NONE, WITH_BIAS},
    [TENSOR_ATTN_Q_NORM] = {"attn_q_norm.weight", D_HEAD, D_NONE, WITH_QK_NORM},
    [TENSOR_ATTN_K_NORM] = {"attn_k_norm.weight", D_HEAD, D_NONE, WITH_QK_NORM},
    [TENSOR_ATTN_OUTPUT] = {"attn_output.weight", D_Q, D_EMBD, ALWAYS},
    [TENSOR_FFN_NORM] = {"ffn_norm.weight", D_EMBD, D_NONE, ALWAYS},
    [TENSOR_FFN_GATE] = {"ffn_gate.weight", D_EMBD, D_FF, ALWAYS},
    [TENSOR_FFN_UP] = {"ffn_up.weight", D_EMBD, D_FF, ALWAYS},
    [TENSOR_FFN_DOWN] = {"ffn_down.weight", D_FF, D_EMBD, ALWAYS},
};

static void tensor_name(char *out, size_t n, enum tensor_role role, uint32_t layer)
{
    if (role >= TENSOR_ATTN_NORM)
        snprintf(out, n, "blk.%" PRIu32 ".%s", layer, tensor_table[role].name);
    else
        snprintf(out, n, "%s", tensor_table[role].name);
}

const struct gguf_tensor *arch_tensor(const struct gguf *g, enum tensor_role role, uint32_t layer)
{
    char name[64];
    tensor_name(name, sizeof name, role, layer);
    return gguf_tensor_find(g, name);
}

static uint64_t dim_size(const struct model_config *c, enum dim d)
{
    switch (d) {
    case D_EMBD: return c->n_embd;
    case D_VOCAB: return c->n_vocab;
    case D_FF: return c->n_ff;
    case D_Q: return (uint64_t)c->n_heads * c->head_dim;
    case D_KV: return (uint64_t)c->n_kv_heads * c->head_dim;
    case D_HEAD: return c->head_dim;
    case D_HALF_HEAD: return c->head_dim / 2;
    case D_NONE: break;
    }
    return 1;
}

static bool tensor_required(const struct arch_traits *t, enum presence p)
{
    return p == ALWAYS || (p == WITH_QK_NORM && t->qk_norm) || (p == WITH_BIAS && t->qkv_bias);
}

// Adds the tensor's parameters to c and one to *n_used; an absent optional one adds nothing.
static bool check_tensor(struct model_config *c, const struct gguf *g, enum tensor_role role,
                         uint32_t layer, size_t *n_used, struct err *e)
{
    const struct tensor_row *row = &tensor_table[role];
    char name[64];
    tensor_name(name, sizeof name, role, layer);
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    bool required = tensor_required(c->traits, row->presence);
    if (t == NULL && required)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s' is missing; %s models need it", gguf_path(g),
                       name, c->traits->name);
    if (t == NULL || (!required && row->presence != OPTIONAL)) return true;
    uint64_t cols = dim_size(c, row->cols), rows = dim_size(c, row->rows);
    bool vector = row->rows == D_NONE;
    if (vector != (t->n_dims == 1) || t->dims[0] != cols || t->dims[1] != rows || t->dims[2] != 1 ||
        t->dims[3] != 1)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%s' has the shape [%" PRIu64 ", %" PRIu64 ", %" PRIu64
                       ", %" PRIu64 "], the metadata ask for [%" PRIu64 ", %" PRIu64 "]",
                       gguf_path(g), name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], cols,
                       rows);
    c->n_params += cols * rows;
    *n_used += 1;
    return true;
}

// Splits "blk.12.rest" into 12 and rest.
static bool split_layer(struct str *name, uint32_t *layer)
{
    struct str rest = str_sub(*name, 4, name->n);
    if (!str_starts(*name, STR("blk."))) return false;
    for (*layer = 0; rest.n > 0 && rest.p[0] >= '0' && rest.p[0] <= '9';
         rest = str_sub(rest, 1, rest.n))
        if (*layer < MAX_LAYERS) *layer = *layer * 10 + (uint32_t)(rest.p[0] - '0');
    if (rest.n == 0 || rest.p[0] != '.') return false;
    *name = str_sub(rest, 1, rest.n);
    return true;
}

static bool is_used(const struct model_config *c, const struct gguf *g, const struct gguf_tensor *t)
{
    struct str name = t->name;
    uint32_t layer = 0;
    bool in_layer = split_layer(&name, &layer);
    if (layer >= c->n_layers) return false;
    for (int i = in_layer ? TENSOR_ATTN_NORM : 0; i < TENSOR_ROLE_COUNT; i++) {
        const struct tensor_row *row = &tensor_table[i];
        bool wanted = row->presence == OPTIONAL || tensor_required(c->traits, row->presence);
        if (wanted && str_eq(name, str_from(row->name)))
            return arch_tensor(g, (enum tensor_role)i, layer) == t;
    }
    return false;
}

// A tensor that no role names would be ignored silently, and the answers would be wrong.
static bool refuse_leftover(const struct model_config *c, const struct gguf *g, struct err *e)
{
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (is_used(c, g, t)) continue;
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tensor '%.*s' is no part of %s models as this program knows them",
                       gguf_path(g), (int)(t->name.n < 64 ? t->name.n : 64), t->name.p,
                       c->traits->name);
    }
    return true;
}

static bool check_tensors(struct model_config *c, const struct gguf *g, struct err *e)
{
    size_t n_used = 0;
    c->tied_embeddings = arch_tensor(g, TENSOR_OUTPUT, 0) == NULL;
    for (int i = 0; i < TENSOR_ROLE_COUNT; i++) {
        uint32_t n = i >= TENSOR_ATTN_NORM ? c->n_layers : 1;
        for (uint32_t layer = 0; layer < n; layer++)
            if (!check_tensor(c, g, (enum tensor_role)i, layer, &n_used, e)) return false;
    }
    const struct gguf_tensor *f = arch_tensor(g, TENSOR_ROPE_FREQS, 0);
    if (f != NULL && f->fmt != FMT_F32)
        return err_set(e, ERR_UNSUPPORTED, "%s: rope_freqs.weight is %s, expected F32",
                       gguf_path(g), fmt_info[f->fmt].name);
    if (f != NULL) c->rope_divisors = (const float *)(const void *)f->data;
    return n_used == gguf_n_tensors(g) || refuse_leftover(c, g, e);
}

// ---- metadata --------------------------------------------------------------------------------

// A key with the architecture in front: "qwen3.block_count".
struct arch_key {
    char z[96];
};

static struct arch_key key_of(const struct model_config *c, const char *suffix)
{
    struct arch_key k;
    snprintf(k.z, sizeof k.z, "%s.%s", c->traits->name, suffix);
    return k;
}

// As gguf_get_u32, for keys that may hold an array with one value a layer: those must be equal.
static bool get_uniform(const struct gguf *g, const char *key, uint32_t *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    int32_t items[MAX_LAYERS];
    if (kv == NULL || kv->type != GGUF_ARRAY) return gguf_get_u32(g, key, out, e);
    if (kv->n_items < 1 || kv->n_items > MAX_LAYERS)
        return err_set(e, ERR_FORMAT, "%s: key '%s' has %" PRIu64 " values, expected 1 to %d",
                       gguf_path(g), key, kv->n_items, MAX_LAYERS);
    if (!gguf_array_i32(kv, items, e)) return err_prefix(e, "%s: ", gguf_path(g));
    for (uint64_t i = 0; i < kv->n_items; i++)
        if (items[i] != items[0] || items[i] < 0)
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: key '%s' is %" PRId32 " for layer %" PRIu64 " and %" PRId32
                           " for layer 0; layers that differ are not supported",
                           gguf_path(g), key, items[i], i, items[0]);
    *out = (uint32_t)items[0];
    return true;
}

// A size within [1, max]; *out holds the default before, 0 = the key must be there.
static bool get_size(const struct model_config *c, const struct gguf *g, const char *suffix,
                     uint32_t max, uint32_t *out, struct err *e)
{
    struct arch_key key = key_of(c, suffix);
    if (*out == 0 && gguf_find(g, key.z) == NULL)
        return err_set(e, ERR_FORMAT, "%s: key '%s' is missing", gguf_path(g), key.z);
    if (!get_uniform(g, key.z, out, e)) return false;
    if (*out >= 1 && *out <= max) return true;
    return err_set(e, ERR_FORMAT, "%s: key '%s' is %" PRIu32 ", expected 1 to %" PRIu32,
                   gguf_path(g), key.z, *out, max);
}

// A number within [min, max]; *out holds the default before, negative = the key must be there.
static bool get_float(const struct model_config *c, const struct gguf *g, const char *suffix,
                      float min, float max, float *out, struct err *e)
{
    struct arch_key key = key_of(c, suffix);
    if (*out < 0 && gguf_find(g, key.z) == NULL)
        return err_set(e, ERR_FORMAT, "%s: key '%s' is missing", gguf_path(g), key.z);
    if (!gguf_get_f32(g, key.z, out, e)) return false;
    if (*out >= min && *out <= max) return true;
    return err_set(e, ERR_FORMAT, "%s: key '%s' is %g, expected %g to %g", gguf_path(g), key.z,
                   (double)*out, (double)min, (double)max);
}

static bool read_traits(struct model_config *c, const struct gguf *g, struct err *e)
{
    struct str name = {0};
    char have[128] = "";
    if (!gguf_get_str(g, "general.architecture", &name, e)) return false;
    for (int i = 0; i < N_ARCH; i++) {
        size_t n = strlen(have);
        if (str_eq(name, str_from(arch_table[i].name))) c->traits = &arch_table[i];
        if (!arch_table[i].moe)
            snprintf(have + n, sizeof have - n, "%s%s", i > 0 ? ", " : "", arch_table[i].name);
    }
    if (c->traits != NULL) return true;
    if (name.n == 0)
        return err_set(e, ERR_FORMAT, "%s: key 'general.architecture' is missing", gguf_path(g));
    return err_set(e, ERR_UNSUPPORTED, "%s: architecture '%.*s' is not supported; supported are %s",
                   gguf_path(g), (int)(name.n < 64 ? name.n : 64), name.p, have);
}

static bool read_vocab(struct model_config *c, const struct gguf *g, struct err *e)
{
    const struct gguf_kv *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    const struct gguf_tensor *embd = arch_tensor(g, TENSOR_TOKEN_EMBD, 0);
    uint64_t n_tokens = tokens != NULL && tokens->type == GGUF_ARRAY ? tokens->n_items : 0;
    uint64_t n = embd != NULL ? embd->dims[1] : n_tokens;
    const uint32_t max = 1u << 24;
    if (n < 1 || n > max || n_tokens > n)
        return err_set(e, ERR_FORMAT,
                       "%s: the vocabulary has %" PRIu64 " tokens and token_embd.weight %" PRIu64
                       " rows; expected 1 to %" PRIu32 " rows, and no more tokens than rows",
                       gguf_path(g), n_tokens, n, max);
    c->n_vocab = (uint32_t)n;
    return true;
}

static bool read_sizes(struct model_config *c, const struct gguf *g, struct err *e)
{
    if (!get_size(c, g, "block_count", MAX_LAYERS, &c->n_layers, e) ||
        !get_size(c, g, "context_length", 1u << 28, &c->n_ctx_train, e) ||
        !get_size(c, g, "embedding_length", 1u << 17, &c->n_embd, e) ||
        !get_size(c, g, "feed_forward_length", 1u << 20, &c->n_ff, e) ||
        !get_size(c, g, "attention.head_count", 1u << 12, &c->n_heads, e))
        return false;
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->n_embd / c->n_heads;
    if (!get_size(c, g, "attention.head_count_kv", c->n_heads, &c->n_kv_heads, e) ||
        !get_size(c, g, "attention.key_length", 512, &c->head_dim, e))
        return false;
    uint32_t v = c->head_dim, n_rot = c->head_dim;
    if (!get_size(c, g, "attention.value_length", 512, &v, e) ||
        !get_size(c, g, "rope.dimension_count", 512, &n_rot, e))
        return false;
    if (c->n_heads % c->n_kv_heads != 0 || c->head_dim % 8 != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: %" PRIu32 " heads of %" PRIu32 " over %" PRIu32
                       " key/value heads; the heads must divide evenly, their size by 8",
                       gguf_path(g), c->n_heads, c->head_dim, c->n_kv_heads);
    if (v != c->head_dim || n_rot != c->head_dim)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: keys of %" PRIu32 ", values of %" PRIu32 ", %" PRIu32
                       " rotated; only equal sizes are supported",
                       gguf_path(g), c->head_dim, v, n_rot);
    return true;
}

// YaRN as Hugging Face's configuration means it is the one scaling that is computed here; values
// that this program would not honour are refused.
static bool read_rope(struct model_config *c, const struct gguf *g, struct err *e)
{
    static const struct {
        const char *suffix;
        float only;
    } fixed[] = {{"rope.scaling.attn_factor", 1},
                 {"rope.scaling.yarn_beta_fast", 32},
                 {"rope.scaling.yarn_beta_slow", 1}};
    struct str type = STR("none");
    c->rope_base = 10000;
    c->rope_factor = 1;
    c->rope_orig_ctx = c->n_ctx_train;
    if (!get_float(c, g, "rope.freq_base", 1.5f, 1e12f, &c->rope_base, e) ||
        !gguf_get_str(g, key_of(c, "rope.scaling.type").z, &type, e) ||
        !get_float(c, g, "rope.scaling.factor", 0, 1e4f, &c->rope_factor, e) ||
        !get_size(c, g, "rope.scaling.original_context_length", 1u << 28, &c->rope_orig_ctx, e))
        return false;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        float x = fixed[i].only;
        if (!get_float(c, g, fixed[i].suffix, x, x, &x, e)) return false;
    }
    bool off = str_eq(type, STR("none")) || c->rope_factor <= 1;
    if (!off && !str_eq(type, STR("yarn")))
        return err_set(
            e, ERR_UNSUPPORTED, "%s: rope scaling '%.*s' with factor %g is not supported; yarn is",
            gguf_path(g), (int)(type.n < 32 ? type.n : 32), type.p, (double)c->rope_factor);
    if (off) c->rope_factor = 1;
    return true;
}

// Takes one value where it lies in [min, max]; a strange recommendation is no reason not to load.
static bool take_sampling(const struct gguf *g, const char *key, float min, float max, float *out)
{
    struct err e = {0};
    float x = min;
    if (gguf_find(g, key) == NULL) return false;
    if (!gguf_get_f32(g, key, &x, &e) || x < min || x > max) {
        log_warn("model", "%s is ignored: %s", key, e.code != ERR_NONE ? e.msg : "out of range");
        return false;
    }
    *out = x;
    return true;
}

static void read_sampling(struct sampling_defaults *s, const struct gguf *g)
{
    struct err e = {0};
    const char *top_k = "general.sampling.top_k";
    s->has_temperature = take_sampling(g, "general.sampling.temp", 0, 100, &s->temperature);
    s->has_top_p = take_sampling(g, "general.sampling.top_p", 0, 1, &s->top_p);
    s->has_min_p = take_sampling(g, "general.sampling.min_p", 0, 1, &s->min_p);
    s->has_repeat_penalty =
        take_sampling(g, "general.sampling.penalty_repeat", 0.01f, 100, &s->repeat_penalty);
    s->has_top_k = gguf_find(g, top_k) != NULL && gguf_get_u32(g, top_k, &s->top_k, &e);
    if (e.code != ERR_NONE) log_warn("model", "%s is ignored: %s", top_k, e.msg);
}

bool arch_read(struct model_config *out, const struct gguf *g, bool vocab_only, struct err *e)
{
    struct model_config c = {.file_type = UINT32_MAX, .rms_eps = -1};
    if (!read_traits(&c, g, e) || !gguf_get_str(g, "general.name", &c.name, e) ||
        !gguf_get_u32(g, "general.file_type", &c.file_type, e) || !read_vocab(&c, g, e) ||
        !read_sizes(&c, g, e) || !read_rope(&c, g, e) ||
        !get_float(&c, g, "attention.layer_norm_rms_epsilon", 0, 1, &c.rms_eps, e))
        return false;
    read_sampling(&c.sampling, g);
    if (!vocab_only && c.traits->moe)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: %s is a mixture of experts, which is not supported yet; take a dense "
                       "model such as Qwen3-32B",
                       gguf_path(g), c.traits->name);
    if (!vocab_only && gguf_n_tensors(g) == 0)
        return err_set(e, ERR_FORMAT, "%s holds a vocabulary only, no weights", gguf_path(g));
    if (!vocab_only && !check_tensors(&c, g, e)) return false;
    *out = c;
    return true;
}

// The numbers of general.file_type as the GGUF specification lists them.
const char *arch_file_type_name(uint32_t file_type)
{
    static const char *const names[] = {
        [0] = "F32",     [1] = "F16",     [2] = "Q4_0",    [3] = "Q4_1",    [7] = "Q8_0",
        [8] = "Q5_0",    [9] = "Q5_1",    [10] = "Q2_K",   [11] = "Q3_K_S", [12] = "Q3_K_M",
        [13] = "Q3_K_L", [14] = "Q4_K_S", [15] = "Q4_K_M", [16] = "Q5_K_S", [17] = "Q5_K_M",
        [18] = "Q6_K",   [25] = "IQ4_NL", [30] = "IQ4_XS", [32] = "BF16",   [38] = "MXFP4_MOE",
    };
    bool known = file_type < sizeof names / sizeof *names && names[file_type] != NULL;
    return known ? names[file_type] : "mixed";
}
