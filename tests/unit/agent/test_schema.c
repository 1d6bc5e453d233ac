// Arguments against a schema: the verdicts of Python's jsonschema (tests/tools/schema_cases.py),
// and what a model is told.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/schema.h"

static void the_verdicts_are_those_of_the_reference(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/data/schema_cases.jsonl", getenv("SUBMIND_SOURCE"));
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = 0;
    for (json_t *row; (row = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)) != NULL;) {
        json_t *schema = json_object_get(row, "schema"), *one;
        size_t i;
        json_array_foreach(json_object_get(row, "cases"), i, one)
        {
            struct buf why = {0};
            bool fits = schema_check(schema, json_array_get(one, 0), &why);
            if (fits != json_is_true(json_array_get(one, 1))) {
                char *text = json_dumps(row, 0), *value = json_dumps(one, 0);
                fail_msg("%s: %s (%s)", value, text, buf_cstr(&why));
            }
            assert_true(fits == (why.n == 0));
            buf_free(&why);
            n++;
        }
        json_decref(row);
    }
    fclose(f);
    assert_true(n > 3000);
}

static void complaints_say_what_to_mend(void **state)
{
    (void)state;
    static const char schema[] =
        "{\"type\":\"object\",\"required\":[\"path\"],\"additionalProperties\":false,"
        "\"properties\":{"
        "\"path\":{\"type\":\"string\",\"description\":\"Which file.\"},"
        "\"limit\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":10},"
        "\"unit\":{\"enum\":[\"C\",\"F\"]},"
        "\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"maxItems\":2},"
        "\"day\":{\"type\":\"string\",\"pattern\":\"^\\\\d{4}-\\\\d\\\\d-\\\\d\\\\d$\"},"
        "\"who\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}}}";
    static const char *const cases[][2] = {
        {"{}", "the arguments must have \"path\", a text: Which file."},
        {"{\"path\":5}", "\"path\" must be a text, not 5"},
        {"{\"path\":[\"a\"]}", "\"path\" must be a text, not a list"},
        {"{\"path\":\"a\",\"limit\":\"ten\"}",
         "\"limit\" must be a whole number, not the text \"ten\""},
        {"{\"path\":\"a\",\"limit\":0}", "\"limit\" must be at least 1, not 0"},
        {"{\"path\":\"a\",\"limit\":11}", "\"limit\" must be at most 10, not 11"},
        {"{\"path\":\"a\",\"unit\":\"K\"}",
         "\"unit\" must be one of \"C\", \"F\", not the text \"K\""},
        {"{\"path\":\"a\",\"tags\":[\"x\",null]}", "\"tags[1]\" must be a text, not null"},
        {"{\"path\":\"a\",\"tags\":[\"x\",\"y\",\"z\"]}", "\"tags\" must have at most 2 items"},
        {"{\"path\":\"a\",\"day\":\"today\"}",
         "\"day\" must match the pattern ^\\d{4}-\\d\\d-\\d\\d$, not the text \"today\""},
        {"{\"path\":\"a\",\"who\":1}", "\"who\" must be a text or null, not 1"},
        {"{\"path\":\"a\",\"file\":1}",
         "the arguments must not have \"file\"; there is: path, limit, unit, tags, day, who"},
        {"{\"path\":1,\"limit\":0}",
         "\"path\" must be a text, not 1; \"limit\" must be at least 1, not 0"},
    };
    json_t *s = json_loads(schema, 0, NULL);
    assert_non_null(s);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf why = {0};
        json_t *v = json_loads(cases[i][0], 0, NULL);
        assert_non_null(v);
        assert_false(schema_check(s, v, &why));
        assert_string_equal(buf_cstr(&why), cases[i][1]);
        json_decref(v);
        buf_free(&why);
    }
    json_decref(s);
}

// Schemas come from servers: one that refers to itself, or whose pattern explodes, ends.
static void hostile_schemas_end(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/"
         "$defs/a\"}}}",
         "1"},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}", "{}"},
        {"{\"pattern\":\"^(a+)+$\"}",
         "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab\""},
        {"{\"pattern\":\"(\"}", "\"x\""},
        {"{\"type\":5,\"required\":7,\"properties\":[],\"items\":3,\"enum\":\"a\"}", "{\"a\":[1]}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf why = {0};
        json_t *s = json_loads(cases[i][0], JSON_DECODE_ANY, NULL);
        json_t *v = json_loads(cases[i][1], JSON_DECODE_ANY, NULL);
        assert_true(s != NULL && v != NULL);
        schema_check(s, v, &why);
        json_decref(s);
        json_decref(v);
        buf_free(&why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_verdicts_are_those_of_the_reference),
        cmocka_unit_test(complaints_say_what_to_mend),
        cmocka_unit_test(hostile_schemas_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
