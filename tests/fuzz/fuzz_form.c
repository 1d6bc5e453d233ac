// A schema, a zero byte, and bytes that choose a way through its grammar: what comes out whole is valid JSON
// and, where the schema says nothing that grammars leave out, an instance of it (agent/schema.c).
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/schema.h"
#include "text/json_schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(struct str schema, struct str answer)
{
    struct buf why = {0};
    struct arena a = {0};
    struct value ours;
    struct err e = {0};
    if (!value_parse(&ours, &a, answer, &e) && strstr(e.msg, "nested deeper") == NULL) abort();
    arena_free(&a);
    json_t *s = json_loadb(schema.p, schema.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    json_t *v = json_loadb(answer.p, answer.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (s != NULL && v != NULL && // jansson has no keys with a NUL
        str_find(schema, STR("oneOf"), 0) == SIZE_MAX && !schema_check(s, v, &why))
        abort();
    json_decref(s);
    json_decref(v);
    buf_free(&why);
}

static void walk(struct grammar *g, struct str schema, const uint8_t *ways, size_t n)
{
    struct grammar_match *m;
    struct buf answer = {0};
    struct err e = {0};
    if (!grammar_match_open(&m, g, &e)) return;
    for (size_t i = 0; i < n && !grammar_match_over(m); i++)
        for (unsigned k = 0; k < 256; k++) { // the byte itself, or the next that may come
            const char b = (char)(ways[i] + k);
            if (!grammar_match_take(m, (struct str){&b, 1})) continue;
            buf_c(&answer, b);
            break;
        }
    if (grammar_match_complete(m)) check(schema, buf_view(&answer));
    buf_free(&answer);
    grammar_match_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *zero = n > 0 ? memchr(data, 0, n) : NULL;
    struct arena a = {.limit_bytes = 1 << 20};
    struct value v;
    struct grammar *g;
    struct err e = {0};
    if (zero == NULL || n > 4000) return 0;
    const struct str schema = {(const char *)data, (size_t)(zero - data)};
    if (value_parse(&v, &a, schema, &e) && json_schema_compile(&g, v, &e)) {
        walk(g, schema, zero + 1, n - schema.n - 1);
        grammar_unref(g);
    }
    arena_free(&a);
    return 0;
}
