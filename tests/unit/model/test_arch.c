// Reading a model's configuration: what each architecture's metadata become, and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/gguf_make.h"
#include "model/arch.h"

enum { TYPE_I32 = 5 };

static const struct make_shape shape = {"qwen3", 2, 64, 4, 2, 32, 96, 50, 512, true, 1};

struct opened {
    struct buf file;
    struct gguf *g;
};

static void open_made(struct opened *o, struct gguf_make *m)
{
    struct err e = {0};
    *o = (struct opened){0};
    make_file(m, &o->file);
    struct str part = buf_view(&o->file);
    if (!gguf_open_memory(&o->g, &part, 1, "m.gguf", &e)) fail_msg("%s", e.msg);
    make_free(m);
}

static void close_made(struct opened *o)
{
    gguf_close(o->g);
    buf_free(&o->file);
}

static void reads_a_qwen3(void **state)
{
    struct gguf_make m = {0};
    struct opened o;
    struct model_config c;
    struct err e = {0};
    (void)state;
    make_model(&m, &shape);
    make_str(&m, "general.name", "tiny");
    make_u32(&m, "general.file_type", 0);
    make_f32(&m, "general.sampling.temp", 0.25f);
    make_kv(&m, "general.sampling.top_k", TYPE_I32, &(int32_t){30}, 4);
    open_made(&o, &m);
    if (!arch_read(&c, o.g, false, &e)) fail_msg("%s", e.msg);
    assert_string_equal(c.traits->name, "qwen3");
    assert_true(c.traits->rope == ROPE_NEOX && c.traits->qk_norm && !c.traits->qkv_bias);
    assert_true(str_eq(c.name, STR("tiny")));
    assert_true(c.n_layers == 2 && c.n_embd == 64 && c.n_heads == 4 && c.n_kv_heads == 2);
    assert_true(c.head_dim == 32 && c.n_ff == 96 && c.n_vocab == 50 && c.n_ctx_train == 512);
    assert_true(c.rms_eps == 1e-6f && c.rope_base == 1e6f && c.rope_factor == 1);
    assert_true(c.tied_embeddings && c.rope_divisors == NULL && c.rope_orig_ctx == 512);
    // Embedding, then per layer two norms of 64, two of 32, q and o 64*128, k and v 64*64, three 64*96.
    assert_int_equal(c.n_params,
                     50 * 64 + 64 + 2 * (2 * 64 + 2 * 32 + 2 * 8192 + 2 * 4096 + 3 * 6144));
    assert_true(c.sampling.has_temperature && c.sampling.temperature == 0.25f);
    assert_true(c.sampling.has_top_k && c.sampling.top_k == 30 && !c.sampling.has_top_p);
    // Qwen3's model card: thinking 0.6/0.95/20, not thinking 0.7/0.8/20.
    const struct sampling_defaults *t = &c.traits->thinking, *p = &c.traits->plain;
    assert_true(t->temperature == 0.6f && t->top_p == 0.95f && t->top_k == 20);
    assert_true(p->temperature == 0.7f && p->top_p == 0.8f && p->top_k == 20);
    close_made(&o);
}

static void reads_the_other_dense_ones(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct make_shape s = shape;
        struct gguf_make m = {0};
        struct opened o;
        struct model_config c;
        struct err e = {0};
        float divisors[16];
        for (int k = 0; k < 16; k++) divisors[k] = 1 + (float)k;
        s.arch = i == 0 ? "qwen2" : "llama";
        s.tied = i == 0;
        make_model(&m, &s);
        if (i == 1)
            make_tensor(&m, "rope_freqs.weight", 0, (const uint64_t[]){16}, 1, divisors, 64);
        open_made(&o, &m);
        if (!arch_read(&c, o.g, false, &e)) fail_msg("%s", e.msg);
        assert_int_equal(c.traits->qkv_bias, i == 0);
        assert_int_equal(c.traits->rope, i == 0 ? ROPE_NEOX : ROPE_NORM);
        assert_int_equal(c.tied_embeddings, i == 0);
        if (i == 1) assert_memory_equal(c.rope_divisors, divisors, sizeof divisors);
        assert_int_equal(arch_tensor(o.g, TENSOR_ATTN_Q_BIAS, 1) != NULL, i == 0);
        close_made(&o);
    }
}

static void defaults_where_keys_are_absent(void **state)
{
    struct gguf_make m = {0};
    struct opened o;
    struct model_config c;
    struct err e = {0};
    const int32_t heads[] = {8, 8};
    (void)state;
    make_str(&m, "general.architecture", "llama");
    make_u32(&m, "llama.block_count", 2);
    make_u32(&m, "llama.context_length", 100);
    make_u32(&m, "llama.embedding_length", 128);
    make_u32(&m, "llama.feed_forward_length", 10);
    make_i32s(&m, "llama.attention.head_count", heads, 2); // one a layer, all alike
    make_f32(&m, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    make_strs(&m, "tokenizer.ggml.tokens", (const char *const[]){"a", "b", "c"}, 3);
    open_made(&o, &m);
    if (!arch_read(&c, o.g, true, &e)) fail_msg("%s", e.msg);
    assert_true(c.n_heads == 8 && c.n_kv_heads == 8 && c.head_dim == 16 && c.rope_base == 10000);
    assert_true(c.n_vocab == 3 && c.rms_eps == 1e-5f && c.file_type == UINT32_MAX);
    assert_string_equal(arch_file_type_name(c.file_type), "mixed");
    assert_false(arch_read(&c, o.g, false, &e)); // no weights
    assert_string_equal(e.msg, "m.gguf holds a vocabulary only, no weights");
    close_made(&o);
}

static void reads_yarn(void **state)
{
    struct gguf_make m = {0};
    struct opened o;
    struct model_config c;
    struct err e = {0};
    (void)state;
    make_model(&m, &shape);
    make_str(&m, "qwen3.rope.scaling.type", "yarn");
    make_f32(&m, "qwen3.rope.scaling.factor", 4);
    make_u32(&m, "qwen3.rope.scaling.original_context_length", 128);
    open_made(&o, &m);
    if (!arch_read(&c, o.g, false, &e)) fail_msg("%s", e.msg);
    assert_true(c.rope_factor == 4 && c.rope_orig_ctx == 128);
    close_made(&o);
}

// ---- what is refused -------------------------------------------------------------------------

static void no_arch(struct gguf_make *m)
{
    make_u32(m, "some.key", 1);
}
static void unknown_arch(struct gguf_make *m)
{
    make_str(m, "general.architecture", "gpt2");
}

static void moe(struct gguf_make *m)
{
    struct make_shape s = shape;
    s.arch = "qwen3moe";
    make_model(m, &s);
}

static void model_without(struct gguf_make *m, struct make_shape s, const char *arch)
{
    s.arch = arch;
    make_model(m, &s);
}

static void missing_tensor(struct gguf_make *m) // a qwen2 has no q norm, a qwen3 needs it
{
    struct gguf_make other = {0};
    struct make_shape s = shape;
    make_model(m, &shape);
    s.n_layers = 1;
    make_model(&other, &s);
    // The first layer's tensors under metadata that state two layers.
    struct buf kv = m->kv;
    m->kv = other.kv;
    other.kv = kv;
    uint64_t n = m->n_kv;
    struct buf infos = m->infos, data = m->data;
    m->infos = other.infos;
    m->data = other.data;
    other.infos = infos;
    other.data = data;
    m->n_tensors = other.n_tensors;
    m->n_kv = n;
    // kv of one layer, but block_count is patched to 2
    char *at = memmem(m->kv.p, m->kv.n, "qwen3.block_count", 17);
    at[17 + 4] = 2;
    make_free(&other);
}

static void leftover_tensor(struct gguf_make *m)
{
    make_model(m, &shape);
    make_tensor(m, "blk.0.ffn_gate_inp.weight", 0, (const uint64_t[]){64, 8}, 2, NULL, 64 * 8 * 4);
}

static void leftover_layer(struct gguf_make *m)
{
    make_model(m, &shape);
    make_tensor(m, "blk.2.attn_norm.weight", 0, (const uint64_t[]){64}, 1, NULL, 256);
}

static void vector_as_matrix(struct gguf_make *m)
{
    struct make_shape s = shape;
    s.n_layers = 1;
    make_model(m, &s);
    make_tensor(m, "output.weight", 0, (const uint64_t[]){64, 49}, 2, NULL, 64 * 49 * 4);
}

static void patched(struct gguf_make *m, const char *key, uint32_t value)
{
    make_model(m, &shape);
    char *at = memmem(m->kv.p, m->kv.n, key, strlen(key));
    memcpy(at + strlen(key) + 4, &value, 4);
}

static void layers_zero(struct gguf_make *m)
{
    patched(m, "qwen3.block_count", 0);
}
static void layers_many(struct gguf_make *m)
{
    patched(m, "qwen3.block_count", 100000);
}
static void embd_huge(struct gguf_make *m)
{
    patched(m, "qwen3.embedding_length", UINT32_MAX);
}
static void embd_other(struct gguf_make *m)
{
    patched(m, "qwen3.embedding_length", 128);
}
static void heads_uneven(struct gguf_make *m)
{
    patched(m, "qwen3.attention.head_count", 3);
}
static void kv_heads_more(struct gguf_make *m)
{
    patched(m, "attention.head_count_kv", 5);
}
static void key_odd(struct gguf_make *m)
{
    patched(m, "qwen3.attention.key_length", 36);
}
static void value_other(struct gguf_make *m)
{
    patched(m, "attention.value_length", 64);
}
static void eps_negative(struct gguf_make *m)
{
    float x = -1;
    uint32_t u;
    memcpy(&u, &x, 4);
    patched(m, "layer_norm_rms_epsilon", u);
}

static void heads_differ(struct gguf_make *m)
{
    make_str(m, "general.architecture", "qwen3");
    make_u32(m, "qwen3.block_count", 2);
    make_u32(m, "qwen3.context_length", 100);
    make_u32(m, "qwen3.embedding_length", 128);
    make_u32(m, "qwen3.feed_forward_length", 10);
    make_i32s(m, "qwen3.attention.head_count", (const int32_t[]){8, 4}, 2);
    make_strs(m, "tokenizer.ggml.tokens", (const char *const[]){"a"}, 1);
}

static void linear_rope(struct gguf_make *m)
{
    make_model(m, &shape);
    make_str(m, "qwen3.rope.scaling.type", "linear");
    make_f32(m, "qwen3.rope.scaling.factor", 2);
}

static void partial_rope(struct gguf_make *m)
{
    make_model(m, &shape);
    make_u32(m, "qwen3.rope.dimension_count", 16);
}

static void odd_attn_factor(struct gguf_make *m)
{
    make_model(m, &shape);
    make_f32(m, "qwen3.rope.scaling.attn_factor", 2);
}

static void tokens_beyond_rows(struct gguf_make *m)
{
    const char *words[51];
    for (int i = 0; i < 51; i++) words[i] = "w";
    make_model(m, &shape);
    make_strs(m, "tokenizer.ggml.tokens", words, 51);
}

static void qwen2_tensors(struct gguf_make *m)
{
    // qwen3's metadata over qwen2's tensors: biases that qwen3 does not have, norms missing
    struct gguf_make q3 = {0};
    model_without(m, shape, "qwen2");
    make_model(&q3, &shape);
    struct buf kv = m->kv;
    m->kv = q3.kv;
    q3.kv = kv;
    m->n_kv = q3.n_kv;
    make_free(&q3);
}

static const struct {
    void (*build)(struct gguf_make *m);
    enum err_code code;
    const char *message;
} wrong[] = {
    {no_arch, ERR_FORMAT, "m.gguf: key 'general.architecture' is missing"},
    {unknown_arch, ERR_UNSUPPORTED,
     "m.gguf: architecture 'gpt2' is not supported; supported are qwen3, qwen2, llama"},
    {moe, ERR_UNSUPPORTED, "m.gguf: qwen3moe is a mixture of experts, which is not supported yet"},
    {missing_tensor, ERR_FORMAT,
     "tensor 'blk.1.attn_norm.weight' is missing; qwen3 models need it"},
    {qwen2_tensors, ERR_FORMAT, "tensor 'blk.0.attn_q_norm.weight' is missing"},
    {leftover_tensor, ERR_UNSUPPORTED, "tensor 'blk.0.ffn_gate_inp.weight' is no part of qwen3"},
    {leftover_layer, ERR_UNSUPPORTED, "tensor 'blk.2.attn_norm.weight' is no part of qwen3"},
    {vector_as_matrix, ERR_FORMAT,
     "tensor 'output.weight' has the shape [64, 49, 1, 1], the metadata ask for [64, 50]"},
    {layers_zero, ERR_FORMAT, "key 'qwen3.block_count' is 0, expected 1 to 1024"},
    {layers_many, ERR_FORMAT, "key 'qwen3.block_count' is 100000, expected 1 to 1024"},
    {embd_huge, ERR_FORMAT, "key 'qwen3.embedding_length' is 4294967295, expected 1 to"},
    {embd_other, ERR_FORMAT, "tensor 'token_embd.weight' has the shape [64, 50, 1, 1]"},
    {heads_uneven, ERR_UNSUPPORTED, "3 heads of 32 over 2 key/value heads"},
    {kv_heads_more, ERR_FORMAT, "key 'qwen3.attention.head_count_kv' is 5, expected 1 to 4"},
    {key_odd, ERR_UNSUPPORTED, "4 heads of 36 over 2"},
    {value_other, ERR_UNSUPPORTED, "keys of 32, values of 64, 32 rotated"},
    {eps_negative, ERR_FORMAT, "key 'qwen3.attention.layer_norm_rms_epsilon' is -1"},
    {heads_differ, ERR_UNSUPPORTED, "key 'qwen3.attention.head_count' is 4 for layer 1 and 8"},
    {linear_rope, ERR_UNSUPPORTED, "rope scaling 'linear' with factor 2 is not supported; yarn is"},
    {partial_rope, ERR_UNSUPPORTED, "keys of 32, values of 32, 16 rotated"},
    {odd_attn_factor, ERR_FORMAT, "key 'qwen3.rope.scaling.attn_factor' is 2, expected 1 to 1"},
    {tokens_beyond_rows, ERR_FORMAT, "the vocabulary has 51 tokens and token_embd.weight 50 rows"},
};

static void refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct gguf_make m = {0};
        struct opened o;
        struct model_config c;
        struct err e = {0};
        wrong[i].build(&m);
        open_made(&o, &m);
        if (arch_read(&c, o.g, false, &e)) fail_msg("accepted: %s", wrong[i].message);
        if (strstr(e.msg, wrong[i].message) == NULL)
            fail_msg("message is '%s', expected '%s'", e.msg, wrong[i].message);
        assert_int_equal(e.code, wrong[i].code);
        close_made(&o);
    }
}

// Numbers of the GGUF specification's list of file types.
static void names_file_types(void **state)
{
    (void)state;
    assert_string_equal(arch_file_type_name(0), "F32");
    assert_string_equal(arch_file_type_name(7), "Q8_0");
    assert_string_equal(arch_file_type_name(15), "Q4_K_M");
    assert_string_equal(arch_file_type_name(18), "Q6_K");
    assert_string_equal(arch_file_type_name(32), "BF16");
    assert_string_equal(arch_file_type_name(4), "mixed");
    assert_string_equal(arch_file_type_name(1000), "mixed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_qwen3),
        cmocka_unit_test(reads_the_other_dense_ones),
        cmocka_unit_test(defaults_where_keys_are_absent),
        cmocka_unit_test(reads_yarn),
        cmocka_unit_test(refuses),
        cmocka_unit_test(names_file_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
