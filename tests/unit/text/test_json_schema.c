// Schemas as grammars. Held against Python's jsonschema (tests/tools/schema_cases.py wrote its verdicts): what
// it calls invalid no grammar may accept; and walks at random through a grammar must be valid to
// agent/schema.c, which is held against the same verdicts.
#include "text/json_schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/schema.h"
#include "lib/fail_malloc.h"

static bool compile(const char *json, struct grammar **g, struct err *e)
{
    struct arena a = {0};
    struct value v;
    *e = (struct err){0};
    if (!value_parse(&v, &a, str_from(json), e)) fail_msg("%s: %s", json, e->msg);
    const bool ok = json_schema_compile(g, v, e);
    arena_free(&a);
    return ok;
}

static bool accepts(struct grammar *g, const char *text)
{
    struct grammar_match *m;
    struct err e = {0};
    assert_true(grammar_match_open(&m, g, &e));
    const bool ok = grammar_match_take(m, str_from(text)) && grammar_match_complete(m);
    grammar_match_close(m);
    return ok;
}

static void instances_are_accepted_and_others_are_not(void **state)
{
    (void)state;
    static const struct {
        const char *schema;
        const char *good[6], *bad[8];
    } cases[] = {
        {"{\"type\":\"boolean\"}", {"true", "false", "\n\ntrue"}, {"tru", "TRUE", "1", "true "}},
        {"{\"type\":\"integer\"}",
         {"0", "-7", "123456789012345"},
         {"01", "-0", "1.0", "1234567890123456", "+1", ""}},
        {"{\"type\":\"number\"}", {"0.5", "-0.5", "1e-9", "12"}, {".5", "1.", "1e", "--1"}},
        {"{\"type\":\"integer\",\"minimum\":0}", {"0", "10"}, {"-1", "-0"}},
        {"{\"type\":\"integer\",\"minimum\":-1,\"exclusiveMaximum\":12}",
         {"-1", "0", "11"},
         {"-2", "12", "110"}},
        {"{\"type\":\"integer\",\"minimum\":-9007199254740991,\"maximum\":9007199254740991}",
         {"-999999999999999", "0", "999999999999999"},
         {"1000000000000000"}}, // as zod says "integer"
        {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
         {"0", "0.5", "1", "1.00", "0.999999999999999"},
         {"1.1", "1.01", "2", "-0.5", "10", "0.5e3", "1."}},
        {"{\"type\":\"number\",\"minimum\":-2}",
         {"-2", "-1.5", "-0.1", "7.25", "-2.0"},
         {"-2.1", "-3"}},
        {"{\"type\":\"number\",\"maximum\":-3}", {"-3", "-3.5", "-100"}, {"-2.9", "3", "0"}},
        {"{\"type\":\"string\",\"minLength\":1,\"maxLength\":2}",
         {"\"a\"", "\"\xc3\xa9\xf0\x9f\x98\x80\"", "\"\\n\\u00e9\""},
         {"\"\"", "\"abc\"", "\"\xc3\"", "\"\xed\xa0\x80\"", "\"\n\"", "\"\\x\"", "\"\\ud800\"",
          "a"}},
        {"{\"enum\":[\"a\",\"ab\",1,null,{\"k\":[1]}]}",
         {"\"a\"", "\"ab\"", "1", "null", "{\"k\": [1]}"},
         {"\"b\"", "\"abc\"", "{\"k\": [2]}"}},
        {"{\"type\":\"string\",\"enum\":[1,\"a\"]}", {"\"a\""}, {"1"}},
        {"{\"type\":[\"string\",\"null\"]}", {"\"\"", "null"}, {"0"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
         {"[1]", "[1, 2,3]", "[\n  1,\n  2\n]"},
         {"[]", "[1,2,3,4]", "[1,]", "[,1]", "[\"a\"]"}},
        {"{\"type\":\"array\"}", {"[]", "[1,\"a\",[{}]]", "[ ]"}, {"[", "{}"}},
        {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"null\"}]}",
         {"[1,null]"},
         {"[1]", "[null,1]", "[1,null,1]", "[]"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
         "\"string\"},\"c\":{}},\"required\":[\"b\"],\"additionalProperties\":false}",
         {"{\"b\":\"\"}", "{\"a\":1,\"b\":\"x\"}", "{ \"b\" : \"x\" , \"c\" : [1] }",
          "{\n  \"a\": 1,\n  \"b\": \"x\",\n  \"c\": {\"d\": null}\n}"},
         {"{}", "{\"a\":1}", "{\"b\":\"\",\"a\":1}", "{\"b\":\"\",}", "{\"b\":\"\",\"d\":1}",
          "{\"b\":1}", "{,\"b\":\"\"}"}},
        {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
         {"{}", "{\"x\":1,\"y\":2}"},
         {"{\"x\":\"1\"}"}},
        {"{\"type\":\"object\",\"additionalProperties\":false}", {"{}"}, {"{\"x\":1}"}},
        {"{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"n\":{\"anyOf\":[{\"$ref\":"
         "\"#/$defs/t\"},{\"type\":\"null\"}]}},\"required\":[\"n\"]}},\"$ref\":\"#/$defs/t\"}",
         {"{\"n\":null}", "{\"n\":{\"n\":null}}"},
         {"{}", "null", "{\"n\":{}}"}},
        {"{\"allOf\":[{\"const\":\"x\"}]}", {"\"x\""}, {"\"y\""}},
        {"{\"anyOf\":[{\"$ref\":\"#/$defs/x\"},{\"type\":\"null\"}],\"$defs\":{\"x\":{\"$ref\":"
         "\"#/$defs/x\"}}}",
         {"null"},
         {"1"}}, // a part that never ends is left alone
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct grammar *g;
        struct err e;
        if (!compile(cases[i].schema, &g, &e)) fail_msg("%s: %s", cases[i].schema, e.msg);
        for (size_t k = 0; k < 6 && cases[i].good[k] != NULL; k++)
            if (!accepts(g, cases[i].good[k]))
                fail_msg("%s refuses %s", cases[i].schema, cases[i].good[k]);
        for (size_t k = 0; k < 8 && cases[i].bad[k] != NULL; k++)
            if (accepts(g, cases[i].bad[k]))
                fail_msg("%s accepts %s", cases[i].schema, cases[i].bad[k]);
        grammar_unref(g);
    }
}

// Every integer around many ranges, by comparing.
static void ranges_of_integers_are_exact(void **state)
{
    (void)state;
    static const int64_t ends[] = {-1204, -99, -10, -1, 0, 9, 42, 101, 999};
    enum { N = sizeof ends / sizeof ends[0] };
    for (size_t i = 0; i < N; i++)
        for (size_t k = i; k < N; k += 1 + k % 2) {
            char text[100];
            struct grammar *g;
            struct err e;
            snprintf(text, sizeof text, "{\"type\":\"integer\",\"minimum\":%lld,\"maximum\":%lld}",
                     (long long)ends[i], (long long)ends[k]);
            assert_true(compile(text, &g, &e));
            for (int64_t x = -1300; x <= 1300;
                 x += labs(x) % 100 > 2 && labs(x) % 100 < 98 ? 11 : 1) {
                snprintf(text, sizeof text, "%lld", (long long)x);
                if (accepts(g, text) != (x >= ends[i] && x <= ends[k]))
                    fail_msg("%s between %lld and %lld", text, (long long)ends[i],
                             (long long)ends[k]);
            }
            grammar_unref(g);
        }
}

static void what_cannot_be_kept_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"type\":\"object\",\"properties\":{\"zip\":{\"type\":\"string\",\"pattern\":\"^a\"}}}",
         "JSON schema: \"pattern\" is not supported (in \"zip\")"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "\"uniqueItems\" is not supported"},
        {"{\"allOf\":[{},{}]}", "\"allOf\" of several"},
        {"{\"anyOf\":[]}", "must be lists that are not empty"},
        {"{\"type\":\"string\",\"anyOf\":[{}]}", "other keywords beside"},
        {"{\"$ref\":\"#/$defs/no\"}", "a $ref names nothing"},
        {"{\"$ref\":\"other.json\"}", "a $ref names nothing"},
        {"{\"$ref\":\"#\"}", "no answer can have this form"},
        {"{\"type\":\"object\",\"required\":[\"a\"]}", "\"required\" names what"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}",
         "no number of 15 digits lies between"},
        {"{\"type\":\"number\",\"maximum\":2.5}", "bounds of numbers that are no whole"},
        {"{\"type\":\"number\",\"exclusiveMinimum\":0}", "exclusive bounds of numbers"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "minLength is above maxLength"},
        {"{\"type\":\"string\",\"maxLength\":-1}", "is no whole number"},
        {"{\"type\":\"array\",\"minItems\":4,\"maxItems\":2}", "no array has as many"},
        {"{\"type\":\"text\"}", "is none of JSON's"},
        {"{\"type\":[]}", "must be a text or a list"},
        {"{\"enum\":[]}", "leave no value"},
        {"{\"type\":\"string\",\"enum\":[1]}", "leave no value"},
        {"{\"properties\":{\"a\":false}}", "a schema must be an object or true (in \"a\")"},
        {"{\"type\":\"string\",\"maxLength\":1000000}", "it is too large"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct grammar *g;
        struct err e;
        if (compile(cases[i][0], &g, &e)) fail_msg("%s is taken", cases[i][0]);
        if (strstr(e.msg, cases[i][1]) == NULL) fail_msg("%s: %s", cases[i][0], e.msg);
        assert_int_equal(err_http_status(e.code), 400);
    }
    char deep[4000] = "";
    for (int i = 0; i < 120; i++) strcat(deep, "{\"items\":");
    strcat(deep, "{}");
    for (int i = 0; i < 120; i++) strcat(deep, "}");
    struct grammar *g;
    struct err e;
    assert_true(compile(deep, &g, &e));
    grammar_unref(g);
}

// What would be looked through again and again is bounded: a body may have 32 MiB.
static void large_schemas_are_refused_at_once(void **state)
{
    (void)state;
    struct grammar *g;
    struct err e;
    struct buf many = {0}, refs = {0};
    buf_z(&many, "{\"properties\":{");
    for (int i = 0; i < 100000; i++) buf_printf(&many, "%s\"p%d\":{}", i > 0 ? "," : "", i);
    buf_z(&many, "}}");
    assert_false(compile(buf_cstr(&many), &g, &e));
    assert_non_null(strstr(e.msg, "more than 2000 properties"));
    buf_z(&refs, "{\"$defs\":{");
    for (int i = 0; i < 3000; i++)
        buf_printf(&refs, "%s\"d%d\":{\"type\":\"null\"}", i > 0 ? "," : "", i);
    buf_z(&refs, "},\"type\":\"array\",\"prefixItems\":[");
    for (int i = 0; i < 3000; i++)
        buf_printf(&refs, "%s{\"$ref\":\"#/$defs/d%d\"}", i > 0 ? "," : "", i);
    buf_z(&refs, "]}");
    assert_false(compile(buf_cstr(&refs), &g, &e));
    assert_non_null(strstr(e.msg, "more than 2000 places of $ref"));
    buf_clear(&many);
    buf_z(&many, "{\"anyOf\":[{}");
    for (int i = 0; i < 200; i++) buf_z(&many, ",{}");
    buf_z(&many, "]}");
    assert_false(compile(buf_cstr(&many), &g, &e));
    assert_non_null(strstr(e.msg, "more than 200 choices"));
    buf_free(&many);
    buf_free(&refs);
}

static bool has_one_of(const char *schema)
{
    return strstr(schema, "oneOf") != NULL;
}

static void nothing_is_accepted_that_the_reference_calls_invalid(void **state)
{
    (void)state;
    char path[4096];
    size_t n_compiled = 0, n_invalid = 0, n_valid = 0;
    snprintf(path, sizeof path, "%s/tests/data/schema_cases.jsonl", getenv("SUBMIND_SOURCE"));
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    for (json_t *row; (row = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)) != NULL;) {
        char *schema = json_dumps(json_object_get(row, "schema"), JSON_ENCODE_ANY);
        struct grammar *g;
        struct err e;
        json_t *one;
        size_t i;
        if (!has_one_of(schema) && compile(schema, &g, &e)) {
            n_compiled++;
            json_array_foreach(json_object_get(row, "cases"), i, one)
            {
                char *text =
                    json_dumps(json_array_get(one, 0), JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
                const bool valid = json_is_true(json_array_get(one, 1)), taken = accepts(g, text);
                if (taken && !valid) fail_msg("%s accepts %s", schema, text);
                n_invalid += !valid;
                n_valid += taken;
                free(text);
            }
            grammar_unref(g);
        }
        free(schema);
        json_decref(row);
    }
    fclose(f);
    assert_true(n_compiled > 30 && n_invalid > 500 && n_valid > 200);
}

static uint32_t next_random(uint64_t *x)
{
    *x = *x * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*x >> 33);
}

// Bytes at random among those that may come, with a liking for ends.
static void walk(const char *schema, uint64_t seed, struct buf *out)
{
    struct grammar *g;
    struct grammar_match *m;
    struct err e;
    if (!compile(schema, &g, &e)) fail_msg("%s: %s", schema, e.msg);
    assert_true(grammar_match_open(&m, g, &e));
    while (!grammar_match_over(m) && out->n < 3000) {
        const char *close = "\"]}0";
        char b = close[next_random(&seed) % 4];
        const bool hurry = out->n > 60 || next_random(&seed) % 3 == 0;
        for (int i = 0; !hurry || !grammar_match_test(m, (struct str){&b, 1}); i++) {
            b = (char)(next_random(&seed) % 256);
            if (grammar_match_test(m, (struct str){&b, 1})) break;
            assert_true(i < 100000); // there is always a byte that may come
        }
        assert_true(grammar_match_take(m, (struct str){&b, 1}));
        buf_c(out, b);
        if (grammar_match_complete(m) && next_random(&seed) % 2 == 0) break;
    }
    if (!grammar_match_complete(m)) out->n = 0; // too long
    grammar_match_close(m);
    grammar_unref(g);
}

static void walks_at_random_are_instances(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":"
        "\"number\"},"
        "\"maxItems\":4},\"b\":{\"enum\":[\"x\",2]},\"c\":{\"type\":\"string\",\"maxLength\":3}},"
        "\"required\":[\"a\",\"c\"],\"additionalProperties\":false}",
        "{\"type\":\"array\",\"items\":{\"anyOf\":[{\"type\":\"integer\",\"minimum\":1},{\"type\":"
        "\"string\",\"minLength\":2}]},\"minItems\":2,\"maxItems\":5}",
        "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"boolean\"}}",
        "{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"k\":"
        "{"
        "\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/t\"}}},\"required\":[\"v\"]}},\"$ref\":"
        "\"#/$defs/t\"}",
        "true",
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++) {
        json_t *schema = json_loads(schemas[i], JSON_DECODE_ANY, NULL);
        for (uint64_t seed = 1; seed <= 60; seed++) {
            struct buf text = {0}, why = {0};
            walk(schemas[i], seed, &text);
            json_error_t where;
            json_t *v =
                json_loadb(buf_view(&text).p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
            if (text.n > 0 && v == NULL) fail_msg("%s: %s", buf_cstr(&text), where.text);
            if (text.n > 0 && !schema_check(schema, v, &why))
                fail_msg("%s: %s: %s", schemas[i], buf_cstr(&text), buf_cstr(&why));
            n += text.n > 0;
            json_decref(v);
            buf_free(&text);
            buf_free(&why);
        }
        json_decref(schema);
    }
    assert_true(n > 200);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    static const char schema[] =
        "{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"n\":{\"$ref\":\"#/$defs/t\"},"
        "\"e\":{\"enum\":[1,\"a\"]},\"s\":{\"type\":\"string\",\"maxLength\":2000}}}},\"$ref\":"
        "\"#/$defs/t\"}";
    struct arena a = {0};
    struct value v;
    struct err e = {0};
    if (!fail_malloc_works()) return;
    assert_true(value_parse(&v, &a, str_from(schema), &e));
    for (long i = 0; i < 2000; i++) {
        struct grammar *g = NULL;
        e = (struct err){0};
        fail_malloc_after(i);
        const bool ok = json_schema_compile(&g, v, &e);
        const bool failed = fail_malloc_done();
        fail_malloc_after(-1);
        assert_true(ok ? g != NULL : g == NULL && e.msg[0] != '\0');
        if (ok) assert_true(accepts(g, "{\"e\":1}"));
        grammar_unref(g);
        if (!failed) break;
        assert_false(ok); // nothing is left out in silence
    }
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instances_are_accepted_and_others_are_not),
        cmocka_unit_test(ranges_of_integers_are_exact),
        cmocka_unit_test(what_cannot_be_kept_is_refused_by_name),
        cmocka_unit_test(large_schemas_are_refused_at_once),
        cmocka_unit_test(nothing_is_accepted_that_the_reference_calls_invalid),
        cmocka_unit_test(walks_at_random_are_instances),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
