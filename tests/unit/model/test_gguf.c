// The GGUF reader on files written here by hand: every type, split models, and every way a file can
// be wrong, with the message it gives.
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/fail_malloc.h"
#include "lib/gguf_make.h"
#include "model/gguf.h"

// Type numbers as the specification has them.
enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

static bool open_buf(struct gguf **g, const struct buf *file, struct err *e)
{
    struct str part = buf_view(file);
    return gguf_open_memory(g, &part, 1, "a.gguf", e);
}

// ---- good files ------------------------------------------------------------------------------

static void make_all_types(struct gguf_make *m)
{
    const uint8_t u8 = 200, flags[] = {1, 0};
    const int8_t i8 = -100;
    const uint16_t u16 = 60000;
    const int16_t i16 = -30000;
    const int32_t i32 = -2000000000, items[] = {-1, 2, 3};
    const uint64_t u64 = UINT64_MAX;
    const int64_t i64 = INT64_MIN;
    const double f64 = 0.1;
    make_kv(m, "u8", U8, &u8, 1);
    make_kv(m, "i8", I8, &i8, 1);
    make_kv(m, "u16", U16, &u16, 2);
    make_kv(m, "i16", I16, &i16, 2);
    make_u32(m, "u32", 4000000000u);
    make_kv(m, "i32", I32, &i32, 4);
    make_f32(m, "f32", 1.5f);
    make_bool(m, "bool", true);
    make_str(m, "string", "text");
    make_kv(m, "u64", U64, &u64, 8);
    make_kv(m, "i64", I64, &i64, 8);
    make_kv(m, "f64", F64, &f64, 8);
    make_strs(m, "strings", (const char *const[]){"a", "", "ccc"}, 3);
    make_i32s(m, "ints", items, 3);
    make_kv(m, "bools", ARRAY, NULL, 0);
    make_le(&m->kv, BOOL, 4);
    make_le(&m->kv, 2, 8);
    buf_put(&m->kv, flags, 2);
    make_strs(m, "empty", NULL, 0);
}

static void reads_every_type(void **state)
{
    struct gguf_make m = {0};
    struct buf file = {0};
    struct gguf *g;
    struct err e = {0};
    (void)state;
    make_all_types(&m);
    make_file(&m, &file);
    if (!open_buf(&g, &file, &e)) fail_msg("%s", e.msg);
    assert_int_equal(gguf_n_kv(g), 16);
    assert_int_equal(gguf_file_bytes(g), file.n);
    assert_int_equal(gguf_find(g, "u8")->v.u, 200);
    assert_int_equal(gguf_find(g, "i8")->v.i, -100);
    assert_int_equal(gguf_find(g, "u16")->v.u, 60000);
    assert_int_equal(gguf_find(g, "i16")->v.i, -30000);
    assert_int_equal(gguf_find(g, "u32")->v.u, 4000000000u);
    assert_int_equal(gguf_find(g, "i32")->v.i, -2000000000);
    assert_true(gguf_find(g, "f32")->v.f == 1.5);
    assert_true(gguf_find(g, "bool")->v.b);
    assert_true(str_eq(gguf_find(g, "string")->v.s, STR("text")));
    assert_int_equal(gguf_find(g, "u64")->v.u, UINT64_MAX);
    assert_int_equal(gguf_find(g, "i64")->v.i, INT64_MIN);
    assert_true(gguf_find(g, "f64")->v.f == 0.1);
    assert_int_equal(gguf_find(g, "bools")->n_items, 2);
    assert_int_equal(gguf_find(g, "empty")->n_items, 0);
    assert_null(gguf_find(g, "none"));
    struct str strings[3];
    int32_t ints[3];
    assert_true(gguf_array_str(gguf_find(g, "strings"), strings, &e));
    assert_true(str_eq(strings[0], STR("a")) && strings[1].n == 0 &&
                str_eq(strings[2], STR("ccc")));
    assert_true(gguf_array_i32(gguf_find(g, "ints"), ints, &e));
    assert_true(ints[0] == -1 && ints[1] == 2 && ints[2] == 3);
    gguf_close(g);
    buf_free(&file);
    make_free(&m);
}

static void look_ups_take_what_fits(void **state)
{
    struct gguf_make m = {0};
    struct buf file = {0};
    struct gguf *g;
    struct err e = {0};
    uint32_t u = 77;
    float f = 7;
    bool b = true;
    struct str s = STR("old");
    (void)state;
    make_all_types(&m);
    make_kv(&m, "huge", F64, &(double){1e300}, 8);
    make_kv(&m, "small", I64, &(int64_t){12}, 8);
    make_file(&m, &file);
    if (!open_buf(&g, &file, &e)) fail_msg("%s", e.msg);
    assert_true(gguf_get_u32(g, "none", &u, &e) && u == 77);
    assert_true(gguf_get_f32(g, "none", &f, &e) && f == 7);
    assert_true(gguf_get_bool(g, "none", &b, &e) && b);
    assert_true(gguf_get_str(g, "none", &s, &e) && str_eq(s, STR("old")));
    assert_true(gguf_get_u32(g, "u8", &u, &e) && u == 200);
    assert_true(gguf_get_u32(g, "small", &u, &e) && u == 12);
    assert_true(gguf_get_f32(g, "f64", &f, &e) && f == 0.1f);
    assert_true(gguf_get_str(g, "string", &s, &e) && str_eq(s, STR("text")));
    const struct {
        bool ok;
        const char *message;
    } refused[] = {
        {gguf_get_u32(g, "i8", &u, &e), "a.gguf: key 'i8' is -100, expected 0 to 4294967295"},
        {gguf_get_u32(g, "u64", &u, &(struct err){0}), NULL},
        {gguf_get_u32(g, "f32", &u, &(struct err){0}), NULL},
        {gguf_get_f32(g, "huge", &f, &(struct err){0}), NULL},
        {gguf_get_f32(g, "u32", &f, &(struct err){0}), NULL},
        {gguf_get_bool(g, "u8", &b, &(struct err){0}), NULL},
        {gguf_get_str(g, "strings", &s, &(struct err){0}), NULL},
        {gguf_array_i32(gguf_find(g, "strings"), NULL, &(struct err){0}), NULL},
        {gguf_array_str(gguf_find(g, "ints"), NULL, &(struct err){0}), NULL},
        {gguf_array_str(gguf_find(g, "u8"), NULL, &(struct err){0}), NULL},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) assert_false(refused[i].ok);
    assert_string_equal(e.msg, refused[0].message);
    assert_int_equal(e.code, ERR_FORMAT);
    assert_int_equal(u, 12); // outputs are untouched
    gguf_close(g);
    buf_free(&file);
    make_free(&m);
}

static void integer_arrays_of_every_width(void **state)
{
    static const struct {
        uint32_t type;
        size_t bytes;
        uint64_t raw;
        int32_t want;
        bool ok;
    } cases[] = {
        {U8, 1, 255, 255, true},
        {I8, 1, 0xff, -1, true},
        {U16, 2, 65535, 65535, true},
        {I16, 2, 0xfffe, -2, true},
        {U32, 4, 0x7fffffff, INT32_MAX, true},
        {U32, 4, 0x80000000u, 0, false},
        {I32, 4, 0x80000000u, INT32_MIN, true},
        {U64, 8, 5, 5, true},
        {U64, 8, UINT64_MAX, 0, false},
        {I64, 8, (uint64_t)-6, -6, true},
        {I64, 8, (uint64_t)INT64_MIN, 0, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_make m = {0};
        struct buf file = {0};
        struct gguf *g;
        struct err e = {0};
        int32_t out[2] = {0, 0};
        make_kv(&m, "k", ARRAY, NULL, 0);
        make_le(&m.kv, cases[i].type, 4);
        make_le(&m.kv, 2, 8);
        make_le(&m.kv, 0, cases[i].bytes);
        make_le(&m.kv, cases[i].raw, cases[i].bytes);
        make_file(&m, &file);
        if (!open_buf(&g, &file, &e)) fail_msg("%s", e.msg);
        assert_int_equal(gguf_array_i32(gguf_find(g, "k"), out, &e), cases[i].ok);
        if (cases[i].ok) assert_int_equal(out[1], cases[i].want);
        gguf_close(g);
        buf_free(&file);
        make_free(&m);
    }
}

static void finds_tensors_at_any_alignment(void **state)
{
    static const uint32_t alignments[] = {0, 8, 32, 64, 4096};
    (void)state;
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        struct gguf_make m = {.alignment = alignments[i]};
        struct buf file = {0};
        struct gguf *g;
        struct err e = {0};
        const uint64_t dims[] = {32, 3};
        unsigned char bytes[3 * 34];
        for (size_t k = 0; k < sizeof bytes; k++) bytes[k] = (unsigned char)(k * 7);
        if (alignments[i] != 0) make_u32(&m, "general.alignment", alignments[i]);
        make_tensor(&m, "first", 0, (const uint64_t[]){5}, 1, NULL, 20);
        make_tensor(&m, "second", 8, dims, 2, bytes, sizeof bytes);
        make_file(&m, &file);
        if (!open_buf(&g, &file, &e)) fail_msg("%s", e.msg);
        const struct gguf_tensor *t = gguf_tensor_find(g, "second");
        assert_non_null(t);
        assert_int_equal(t->fmt, FMT_Q8_0);
        assert_int_equal(t->n_bytes, sizeof bytes);
        assert_true(t->dims[0] == 32 && t->dims[1] == 3 && t->dims[2] == 1 && t->dims[3] == 1);
        assert_memory_equal(t->data, bytes, sizeof bytes);
        assert_memory_equal(file.p + t->file_off, bytes, sizeof bytes);
        assert_int_equal(t->fd, -1);
        assert_int_equal(gguf_tensor_find(g, "first")->n_bytes, 20);
        assert_null(gguf_tensor_find(g, "third"));
        gguf_close(g);
        buf_free(&file);
        make_free(&m);
    }
}

// Bytes of a row of 256 weights in each format, by the specification's block sizes.
static void knows_every_format(void **state)
{
    static const struct {
        uint32_t type;
        const char *name;
        size_t bytes;
    } cases[FMT_COUNT] = {{0, "F32", 1024},
                          {1, "F16", 512},
                          {30, "BF16", 512},
                          {8, "Q8_0", 8 * 34},
                          {2, "Q4_0", 8 * 18},
                          {12, "Q4_K", 2 + 2 + 12 + 128},
                          {13, "Q5_K", 2 + 2 + 12 + 32 + 128},
                          {14, "Q6_K", 128 + 64 + 16 + 2},
                          {3, "Q4_1", 8 * (2 + 2 + 16)},
                          {6, "Q5_0", 8 * (2 + 4 + 16)},
                          {7, "Q5_1", 8 * (2 + 2 + 4 + 16)},
                          {10, "Q2_K", 16 + 64 + 2 + 2},
                          {11, "Q3_K", 32 + 64 + 12 + 2},
                          {20, "IQ4_NL", 8 * (2 + 16)},
                          {23, "IQ4_XS", 2 + 2 + 4 + 128},
                          {39, "MXFP4", 8 * (1 + 16)}};
    (void)state;
    for (int i = 0; i < FMT_COUNT; i++) {
        struct gguf_make m = {0};
        struct buf file = {0};
        struct gguf *g;
        struct err e = {0};
        make_tensor(&m, "t", cases[i].type, (const uint64_t[]){256}, 1, NULL, cases[i].bytes);
        make_file(&m, &file);
        if (!open_buf(&g, &file, &e)) fail_msg("%s", e.msg);
        assert_int_equal(gguf_tensor_at(g, 0)->n_bytes, cases[i].bytes);
        assert_string_equal(fmt_info[gguf_tensor_at(g, 0)->fmt].name, cases[i].name);
        gguf_close(g);
        buf_free(&file);
        make_free(&m);
    }
}

// ---- wrong files -----------------------------------------------------------------------------

// Each builds a whole file into out.
static void header(struct buf *out, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    buf_z(out, "GGUF");
    make_le(out, version, 4);
    make_le(out, n_tensors, 8);
    make_le(out, n_kv, 8);
}

static void fill(struct buf *out, size_t n)
{
    for (size_t i = 0; i < n; i++) buf_c(out, 0);
}

static void key(struct buf *out, const char *name, uint32_t type)
{
    make_text(out, str_from(name));
    make_le(out, type, 4);
}

static void tensor(struct buf *out, const char *name, uint32_t n_dims, uint64_t a, uint64_t b,
                   uint32_t type, uint64_t offset)
{
    make_text(out, str_from(name));
    make_le(out, n_dims, 4);
    if (n_dims > 0) make_le(out, a, 8);
    for (uint32_t i = 1; i < n_dims && i < 8; i++) make_le(out, i == 1 ? b : 1, 8);
    make_le(out, type, 4);
    make_le(out, offset, 8);
}

static void one_tensor(struct buf *out, uint32_t n_dims, uint64_t a, uint64_t b, uint32_t type,
                       uint64_t offset)
{
    header(out, 3, 1, 0);
    tensor(out, "blk.0.t", n_dims, a, b, type, offset);
    fill(out, 256);
}

static void wrong_magic(struct buf *out)
{
    buf_z(out, "GGML and more bytes behind it");
}
static void nothing(struct buf *out)
{
    (void)out;
}
static void only_magic(struct buf *out)
{
    buf_z(out, "GGUF");
}
static void big_endian(struct buf *out)
{
    header(out, 0x03000000u, 0, 0);
}
static void version_1(struct buf *out)
{
    header(out, 1, 0, 0);
}
static void version_4(struct buf *out)
{
    header(out, 4, 0, 0);
}
static void too_many_tensors(struct buf *out)
{
    header(out, 3, UINT64_MAX, 0);
}
static void too_many_keys(struct buf *out)
{
    header(out, 3, 0, 1u << 30);
}

static void many_keys_for_the_size(struct buf *out)
{
    header(out, 3, 0, 1000);
    fill(out, 500);
}

static void key_too_long(struct buf *out)
{
    header(out, 3, 0, 1);
    make_le(out, UINT64_MAX, 8);
    fill(out, 50);
}

static void key_empty(struct buf *out)
{
    header(out, 3, 0, 1);
    fill(out, 50);
}

static void key_twice(struct buf *out)
{
    header(out, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        key(out, "general.name", U32);
        make_le(out, 1, 4);
    }
}

static void type_unknown(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "general.x", 13);
    fill(out, 8);
}

static void bool_of_two(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "flag", BOOL);
    buf_c(out, 2);
}

static void value_cut(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "general.number", U64);
    fill(out, 7);
}

static void string_too_long(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "general.name", STRING);
    make_le(out, 1000, 8);
    buf_z(out, "short");
}

static void array_header(struct buf *out, uint32_t item, uint64_t n)
{
    header(out, 3, 0, 1);
    key(out, "list", ARRAY);
    make_le(out, item, 4);
    make_le(out, n, 8);
}

static void array_too_long(struct buf *out)
{
    array_header(out, U32, UINT64_MAX / 2);
}
static void array_of_arrays(struct buf *out)
{
    array_header(out, ARRAY, 1);
}
static void array_of_nothing_known(struct buf *out)
{
    array_header(out, 99, 1);
}

static void array_string_cut(struct buf *out)
{
    array_header(out, STRING, 2);
    make_text(out, STR("ok"));
    make_le(out, 99, 8);
}

static void alignment_odd(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "general.alignment", U32);
    make_le(out, 24, 4);
}

static void alignment_zero(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "general.alignment", U32);
    make_le(out, 0, 4);
}

static void alignment_of_text(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "general.alignment", STRING);
    make_text(out, STR("32"));
}

static void dims_none(struct buf *out)
{
    one_tensor(out, 0, 0, 0, 0, 0);
}
static void dims_five(struct buf *out)
{
    one_tensor(out, 5, 1, 1, 0, 0);
}
static void dim_zero(struct buf *out)
{
    one_tensor(out, 2, 8, 0, 0, 0);
}
static void dims_overflow(struct buf *out)
{
    one_tensor(out, 2, (uint64_t)1 << 40, (uint64_t)1 << 40, 0, 0);
}
static void bytes_overflow(struct buf *out)
{
    one_tensor(out, 2, (uint64_t)1 << 62, 2, 0, 0);
}
static void bytes_of_row_overflow(struct buf *out)
{
    one_tensor(out, 1, (uint64_t)1 << 63, 1, 0, 0);
}
static void block_broken(struct buf *out)
{
    one_tensor(out, 1, 100, 1, 12, 0);
}
static void format_iq3_s(struct buf *out)
{
    one_tensor(out, 1, 256, 1, 21, 0);
}
static void format_removed(struct buf *out)
{
    one_tensor(out, 1, 256, 1, 4, 0);
}
static void format_unknown(struct buf *out)
{
    one_tensor(out, 1, 256, 1, 4000000000u, 0);
}
static void offset_unaligned(struct buf *out)
{
    one_tensor(out, 1, 4, 1, 0, 4);
}
static void offset_outside(struct buf *out)
{
    one_tensor(out, 1, 4, 1, 0, (uint64_t)1 << 50);
}
static void data_cut(struct buf *out)
{
    one_tensor(out, 1, 1000, 1, 0, 0);
}

static void name_too_long(struct buf *out)
{
    char name[300];
    memset(name, 'n', sizeof name);
    name[299] = '\0';
    header(out, 3, 1, 0);
    tensor(out, name, 1, 1, 1, 0, 0);
    fill(out, 64);
}

static void name_empty(struct buf *out)
{
    header(out, 3, 1, 0);
    tensor(out, "", 1, 1, 1, 0, 0);
    fill(out, 64);
}

static void name_odd(struct buf *out)
{
    header(out, 3, 1, 0);
    tensor(out, "a\x1b[31m\xff", 9, 1, 1, 0, 0);
    fill(out, 64);
}

static void tensor_twice(struct buf *out)
{
    header(out, 3, 2, 0);
    tensor(out, "blk.0.t", 1, 4, 1, 0, 0);
    tensor(out, "blk.0.t", 1, 4, 1, 0, 32);
    fill(out, 256);
}

static void split_of_too_many(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "split.count", U16);
    make_le(out, 5000, 2);
}

static void split_beyond_count(struct buf *out)
{
    header(out, 3, 0, 2);
    key(out, "split.count", U16);
    make_le(out, 2, 2);
    key(out, "split.no", U16);
    make_le(out, 2, 2);
}

static void split_of_two(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "split.count", U16);
    make_le(out, 2, 2);
}

static void split_tensors_missing(struct buf *out)
{
    header(out, 3, 0, 1);
    key(out, "split.tensors.count", I32);
    make_le(out, 3, 4);
}

static const struct {
    void (*build)(struct buf *out);
    enum err_code code;
    const char *message; // a part of it
} wrong[] = {
    {wrong_magic, ERR_FORMAT, "a.gguf is not a GGUF file: it does not begin with 'GGUF'"},
    {nothing, ERR_FORMAT, "a.gguf is empty; fetch it again"},
    {only_magic, ERR_FORMAT,
     "a.gguf is cut short: the version needs 4 bytes at offset 4, the file has 4"},
    {big_endian, ERR_UNSUPPORTED, "a.gguf is a big-endian GGUF file"},
    {version_1, ERR_UNSUPPORTED, "a.gguf has GGUF version 1, supported are 2 and 3"},
    {version_4, ERR_UNSUPPORTED, "a.gguf has GGUF version 4"},
    {too_many_tensors, ERR_FORMAT,
     "a.gguf states 18446744073709551615 tensors and holds 24 bytes: it is cut short or damaged; "
     "fetch"},
    {too_many_keys, ERR_FORMAT, "a.gguf states 1073741824 keys and holds 24 bytes"},
    {many_keys_for_the_size, ERR_FORMAT, "a.gguf states 1000 keys"},
    {key_too_long, ERR_FORMAT, "the length of a key at offset 24 is 18446744073709551615"},
    {key_empty, ERR_FORMAT, "an empty key at offset 32"},
    {key_twice, ERR_FORMAT, "key 'general.name' appears twice"},
    {type_unknown, ERR_FORMAT, "key 'general.x' has type 13, known are 0 to 12"},
    {bool_of_two, ERR_FORMAT, "key 'flag' is a bool with the value 2"},
    {value_cut, ERR_FORMAT, "key 'general.number': a.gguf is cut short: a value needs 8 bytes"},
    {string_too_long, ERR_FORMAT,
     "key 'general.name': a.gguf: the length of a string at offset 48"},
    {array_too_long, ERR_FORMAT, "key 'list' is an array of 9223372036854775807 items"},
    {array_of_arrays, ERR_UNSUPPORTED, "key 'list' is an array of arrays"},
    {array_of_nothing_known, ERR_FORMAT, "key 'list' has array item type 99"},
    {array_string_cut, ERR_FORMAT,
     "key 'list', item 1: a.gguf: the length of a string in an array"},
    {alignment_odd, ERR_FORMAT, "general.alignment is 24, not a power of two from 8 to"},
    {alignment_zero, ERR_FORMAT, "general.alignment is 0"},
    {alignment_of_text, ERR_FORMAT,
     "key 'general.alignment' is of type string, expected an integer"},
    {dims_none, ERR_FORMAT, "tensor 'blk.0.t' has 0 dimensions, not 1 to 4"},
    {dims_five, ERR_FORMAT, "tensor 'blk.0.t' has 5 dimensions, not 1 to 4"},
    {dim_zero, ERR_FORMAT, "tensor 'blk.0.t' has a dimension of 0"},
    {dims_overflow, ERR_FORMAT, "tensor 'blk.0.t' has a dimension of 1099511627776, or its size"},
    {bytes_overflow, ERR_FORMAT, "the size of tensor 'blk.0.t' overflows"},
    {bytes_of_row_overflow, ERR_FORMAT, "the size of tensor 'blk.0.t' overflows"},
    {block_broken, ERR_FORMAT, "tensor 'blk.0.t' has rows of 100, not whole Q4_K blocks of 256"},
    {format_iq3_s, ERR_UNSUPPORTED,
     "tensor 'blk.0.t' has type IQ3_S (21), which is not supported; supported are F32, F16, BF16, "
     "Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, IQ4_NL, IQ4_XS, MXFP4:"},
    {format_removed, ERR_UNSUPPORTED, "tensor 'blk.0.t' has type unknown (4)"},
    {format_unknown, ERR_UNSUPPORTED, "tensor 'blk.0.t' has type unknown (4000000000)"},
    {offset_unaligned, ERR_FORMAT,
     "tensor 'blk.0.t' is at offset 4, not a multiple of the alignment 32"},
    {offset_outside, ERR_FORMAT, "tensor 'blk.0.t' is 16 bytes at offset 1125899906842624"},
    {data_cut, ERR_FORMAT, "a.gguf is cut short: tensor 'blk.0.t' is 4000 bytes at offset 0"},
    {name_too_long, ERR_FORMAT, "the length of a tensor's name at offset 24 is 299"},
    {name_empty, ERR_FORMAT, "a tensor without a name at offset 32"},
    {name_odd, ERR_FORMAT, "tensor 'a?[31m?' has 9 dimensions"},
    {tensor_twice, ERR_FORMAT, "tensor 'blk.0.t' appears twice"},
    {split_of_too_many, ERR_FORMAT, "split.no is 0 of split.count 5000; at most 999 parts"},
    {split_beyond_count, ERR_FORMAT, "split.no is 2 of split.count 2"},
    {split_of_two, ERR_FORMAT,
     "its metadata say part 0 of 2 (counted from 0), it stands in for part 0 of 1"},
    {split_tensors_missing, ERR_FORMAT, "split.tensors.count is 3, the parts hold 0 tensors"},
};

static void refuses_wrong_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct buf file = {0};
        struct err e = {0};
        struct gguf *g = NULL;
        wrong[i].build(&file);
        if (open_buf(&g, &file, &e)) fail_msg("accepted: %s", wrong[i].message);
        assert_null(g);
        if (strstr(e.msg, wrong[i].message) == NULL)
            fail_msg("message is '%s', expected '%s'", e.msg, wrong[i].message);
        assert_int_equal(e.code, wrong[i].code);
        buf_free(&file);
    }
}

// A file cut at any byte is refused, and nothing is read beyond its end (the copies are exact).
static void refuses_every_cut(void **state)
{
    struct gguf_make m = {0};
    struct buf file = {0};
    (void)state;
    make_all_types(&m);
    make_tensor(&m, "t", 0, (const uint64_t[]){8}, 1, NULL, 32);
    make_file(&m, &file);
    for (size_t n = 0; n < file.n; n++) {
        char *copy = malloc(n > 0 ? n : 1);
        struct str part = {copy, n};
        struct gguf *g = NULL;
        struct err e = {0};
        assert_non_null(copy);
        memcpy(copy, file.p, n);
        if (gguf_open_memory(&g, &part, 1, "a.gguf", &e)) fail_msg("accepted at %zu bytes", n);
        assert_true(e.code == ERR_FORMAT);
        free(copy);
    }
    buf_free(&file);
    make_free(&m);
}

// ---- split models and files ------------------------------------------------------------------

static void make_part(struct buf *out, uint16_t no, uint16_t count, int32_t n_tensors)
{
    struct gguf_make m = {0};
    char name[32];
    float x[8];
    for (int i = 0; i < 8; i++) x[i] = (float)(no * 10 + i);
    make_kv(&m, "split.no", U16, &no, 2);
    make_kv(&m, "split.count", U16, &count, 2);
    make_kv(&m, "split.tensors.count", I32, &n_tensors, 4);
    if (no == 0) make_str(&m, "general.name", "in three files");
    snprintf(name, sizeof name, "blk.%d.t", no);
    make_tensor(&m, name, 0, (const uint64_t[]){8}, 1, x, sizeof x);
    make_file(&m, out);
    make_free(&m);
}

static void write_file(const char *path, const struct buf *b)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->p, 1, b->n, f), b->n);
    fclose(f);
}

struct folder {
    char dir[64];
    char paths[3][128];
};

static void make_folder(struct folder *f)
{
    snprintf(f->dir, sizeof f->dir, "/tmp/test_gguf_XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    for (int i = 0; i < 3; i++) {
        struct buf b = {0};
        snprintf(f->paths[i], sizeof f->paths[i], "%s/m-%05d-of-00003.gguf", f->dir, i + 1);
        make_part(&b, (uint16_t)i, 3, 3);
        write_file(f->paths[i], &b);
        buf_free(&b);
    }
}

static void remove_folder(const struct folder *f)
{
    for (int i = 0; i < 3; i++) unlink(f->paths[i]);
    rmdir(f->dir);
}

static void opens_all_parts_by_any(void **state)
{
    struct folder f;
    (void)state;
    make_folder(&f);
    for (int i = 0; i < 3; i++) {
        struct gguf *g = NULL;
        struct err e = {0};
        struct str name = {0};
        if (!gguf_open(&g, f.paths[i], &e)) fail_msg("%s", e.msg);
        assert_string_equal(gguf_path(g), f.paths[0]);
        assert_int_equal(gguf_n_tensors(g), 3);
        assert_true(gguf_get_str(g, "general.name", &name, &e));
        assert_true(str_eq(name, STR("in three files")));
        for (int k = 0; k < 3; k++) {
            char tensor_name[32];
            float from_map, from_file;
            snprintf(tensor_name, sizeof tensor_name, "blk.%d.t", k);
            const struct gguf_tensor *t = gguf_tensor_find(g, tensor_name);
            assert_non_null(t);
            memcpy(&from_map, t->data + 4, 4);
            assert_int_equal(pread(t->fd, &from_file, 4, (off_t)t->file_off + 4), 4);
            assert_true(from_map == (float)(k * 10 + 1) && from_file == from_map);
        }
        gguf_close(g);
    }
    remove_folder(&f);
}

static void expect_refusal(const char *path, enum err_code code, const char *message)
{
    struct gguf *g = NULL;
    struct err e = {0};
    if (gguf_open(&g, path, &e)) fail_msg("accepted, expected '%s'", message);
    if (strstr(e.msg, message) == NULL) fail_msg("message is '%s', expected '%s'", e.msg, message);
    assert_int_equal(e.code, code);
}

static void refuses_broken_splits(void **state)
{
    struct folder f;
    struct buf b = {0};
    char other[160];
    (void)state;
    make_folder(&f);
    make_part(&b, 2, 3, 3);
    write_file(f.paths[1], &b);
    expect_refusal(f.paths[0], ERR_FORMAT,
                   "its metadata say part 2 of 3 (counted from 0), it stands "
                   "in for part 1 of 3");
    unlink(f.paths[1]);
    expect_refusal(f.paths[0], ERR_NOT_FOUND, "m-00002-of-00003.gguf");
    expect_refusal(f.paths[2], ERR_NOT_FOUND, "m-00002-of-00003.gguf");
    buf_clear(&b);
    make_part(&b, 0, 3, 3); // the same tensor again, under the second part's number
    snprintf(other, sizeof other, "%s/other.gguf", f.dir);
    write_file(other, &b);
    expect_refusal(other, ERR_FORMAT, "its name must end in '-00001-of-00003.gguf'");
    unlink(other);
    buf_clear(&b);
    make_part(&b, 1, 2, 3);
    write_file(f.paths[1], &b);
    expect_refusal(f.paths[0], ERR_FORMAT, "part 1 of 2");
    buf_free(&b);
    remove_folder(&f);
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    expect_refusal("/nonexistent/model.gguf", ERR_NOT_FOUND, "cannot open /nonexistent/model.gguf");
    expect_refusal("/tmp", ERR_IO, "/tmp is a folder");
}

// Whatever allocation fails, opening says so and leaves nothing behind (the leak check of the
// sanitizer configuration cannot run here; the countdown walks each path once).
static void survives_failing_allocations(void **state)
{
    struct folder f;
    (void)state;
    if (!fail_malloc_works()) skip();
    make_folder(&f);
    long n = 0;
    for (bool failed = true; failed; n++) {
        struct gguf *g = NULL;
        struct err e = {0};
        fail_malloc_after(n);
        bool ok = gguf_open(&g, f.paths[1], &e);
        failed = fail_malloc_done();
        fail_malloc_after(-1);
        if (failed && (ok || e.code != ERR_MEMORY)) fail_msg("allocation %ld: %s", n, e.msg);
        if (!failed && !ok) fail_msg("%s", e.msg);
        if (ok) gguf_close(g);
    }
    assert_true(n > 10);
    remove_folder(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_type),
        cmocka_unit_test(look_ups_take_what_fits),
        cmocka_unit_test(integer_arrays_of_every_width),
        cmocka_unit_test(finds_tensors_at_any_alignment),
        cmocka_unit_test(knows_every_format),
        cmocka_unit_test(refuses_wrong_files),
        cmocka_unit_test(refuses_every_cut),
        cmocka_unit_test(opens_all_parts_by_any),
        cmocka_unit_test(refuses_broken_splits),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
