// The template interpreter against Jinja itself: jinja_cases.jsonl holds variables, then templates
// and what Jinja 3.1 makes of them (written by jinja_cases.py from jinja_cases.txt). Then the
// bounds.
#include "text/jinja.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/file.h"

static bool render(const char *source, struct value vars, struct arena *a, struct buf *out,
                   struct err *e)
{
    struct jinja *j = NULL;
    bool ok = jinja_open(&j, str_from(source), e) && jinja_render(j, vars, a, out, e);
    jinja_close(j);
    return ok;
}

static void check_case(struct value c, struct value vars)
{
    struct str source = value_get(c, "template").s;
    struct arena a = {0};
    struct buf out = {0};
    struct err e = {0};
    struct jinja *j = NULL;
    struct value want = value_get(c, "text");
    bool ok = jinja_open(&j, source, &e) && jinja_render(j, vars, &a, &out, &e);
    if (ok != (want.kind == VALUE_STRING))
        fail_msg("%.*s\n%s %s", (int)source.n, source.p, ok ? "must fail" : "fails:", e.msg);
    if (ok && !str_eq(buf_view(&out), want.s))
        fail_msg("%.*s\nwant: %.*s\ngot:  %s", (int)source.n, source.p, (int)want.s.n, want.s.p,
                 buf_cstr(&out));
    if (!ok && strncmp(e.msg, "template line ", 14) != 0) fail_msg("no position: %s", e.msg);
    jinja_close(j);
    buf_free(&out);
    arena_free(&a);
}

static void test_cases(void **state)
{
    (void)state;
    const char *source = getenv("SUBMIND_SOURCE");
    char path[4096];
    struct arena a = {0};
    struct buf file = {0};
    struct value vars;
    size_t n_cases = 0;
    if (source == NULL) {
        print_message("SUBMIND_SOURCE is not set: the cases are not read\n");
        skip();
    }
    snprintf(path, sizeof path, "%s/tests/unit/text/jinja_cases.jsonl", source);
    assert_true(file_read(&file, path, 16 << 20, NULL));
    size_t i = str_find(buf_view(&file), STR("\n"), 0);
    assert_true(value_parse(&vars, &a, str_sub(buf_view(&file), 0, i), NULL));
    for (i++; i < file.n;) {
        size_t end = str_find(buf_view(&file), STR("\n"), i);
        struct value c;
        assert_true(value_parse(&c, &a, str_sub(buf_view(&file), i, end - i), NULL));
        check_case(c, vars);
        n_cases++;
        i = end + 1;
    }
    assert_true(n_cases > 200);
    buf_free(&file);
    arena_free(&a);
}

// Positions counted by hand; the words are ours.
static void test_messages(void **state)
{
    (void)state;
    static const struct {
        const char *source, *message;
    } cases[] = {
        {"a\n  {{ x.y }}", "template line 2 column 7: 'x' is undefined"},
        {"{{ raise_exception('roles must alternate') }}",
         "template line 1 column 19: roles must alternate"},
        {"\n\n{% if x %}", "template line 3 column 11: this block is never closed: expected 'elif "
                           "else endif'"},
        {"{% foo %}", "template line 1 column 4: unknown tag 'foo'; known are if, for, set, macro, "
                      "call, filter, with, generation, raw, break, continue, do"},
        {"\xc3\xa9\xc3\xa9{{ 1 + }}", "template line 1 column 10: expected a value"},
        {"{{ [1, 2 }}", "template line 1 column 10: this bracket was never opened"},
        {"{{ 'a' | nofilter }}", "template line 1 column 10: no filter named 'nofilter'"},
        {"{{ ''.zz() }}", "template line 1 column 9: 'str' object has no method 'zz' that a "
                          "template may call"},
        {"{{ 'a'.split(q=1) }}", "template line 1 column 13: split() has no argument 'q'"},
        {"{{ 'a'.upper(1) }}", "template line 1 column 13: upper() takes at most 0 arguments, not "
                               "1"},
        {"{{ 9223372036854775807 + 1 }}",
         "template line 1 column 24: the integer does not fit 64 bits"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena a = {0};
        struct buf out = {0};
        struct err e = {0};
        assert_false(render(cases[i].source, (struct value){0}, &a, &out, &e));
        assert_string_equal(e.msg, cases[i].message);
        assert_int_equal(out.n, 0);
        buf_free(&out);
        arena_free(&a);
    }
}

static void expect_error(const char *source, const char *part)
{
    struct arena a = {.limit_bytes = 512u << 20};
    struct buf out = {0};
    struct err e = {0};
    buf_z(&out, "before");
    assert_false(render(source, (struct value){0}, &a, &out, &e));
    if (strstr(e.msg, part) == NULL) fail_msg("%s\nhas no \"%s\"", e.msg, part);
    assert_string_equal(buf_cstr(&out), "before");
    buf_free(&out);
    arena_free(&a);
}

static void test_bounds(void **state)
{
    (void)state;
    expect_error(
        "{% set l = range(5000) %}{% for a in l %}{% for b in l %}{% endfor %}{% endfor %}",
        "gave up after 10000000 steps");
    expect_error("{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(99) %}"
                 "{% set ns.s = ns.s + ns.s %}{% endfor %}",
                 "");
    expect_error("{% set s = 'x' * 1000000 %}{% for i in range(99) %}{{ s }}{% endfor %}",
                 "printed more than 64 MiB");
    expect_error("{{ 'x' * 100000000 }}", "too long");
    expect_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper than 300");
    expect_error("{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = [ns.l] %}"
                 "{% endfor %}{{ ns.l|tojson }}",
                 "nests too deep");
    expect_error("{{ 'a'|replace('a', 'a' * 1000000)|replace('a', 'b' * 1000000) }}",
                 "gave up after");
    // A list that holds a list twice, sixty times over: small in memory, endless when walked.
#define TWICE(name)                                                                           \
    "{% set " name " = namespace(l=[1]) %}{% for i in range(60) %}{% set " name ".l = [" name \
    ".l, " name ".l] %}{% endfor %}"
    expect_error(TWICE("x") "{{ x.l }}", "text of this value is too long");
    expect_error(TWICE("x") "{{ x.l|tojson }}", "too long");
    expect_error(TWICE("x") TWICE("y") "{{ x.l == y.l }}", "gave up after");
    expect_error(TWICE("x") TWICE("y") "{{ x.l is eq y.l }}{{ 1 }}", "gave up after");
    expect_error(TWICE("x") TWICE("y") "{{ x.l in [y.l] }}", "gave up after");
#undef TWICE
}

static void test_deep_source(void **state)
{
    (void)state;
    struct buf s = {0};
    struct err e = {0};
    struct jinja *j = NULL;
    static const char *const pieces[] = {"(", "[", "-", "not ", "{% if 1 %}", "{'a':"};
    for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
        bool is_block = pieces[k][1] == '%';
        buf_clear(&s);
        e = (struct err){0};
        if (!is_block) buf_z(&s, "{{ ");
        for (int i = 0; i < 5000; i++) buf_z(&s, pieces[k]);
        if (!is_block) buf_z(&s, " 1 }}");
        assert_false(jinja_open(&j, buf_view(&s), &e));
        assert_int_equal(e.code, ERR_FORMAT);
    }
    buf_clear(&s);
    buf_z(&s, "{{ 1");
    for (int i = 0; i < 5000; i++) buf_z(&s, "-1");
    buf_z(&s, " }}");
    expect_error(buf_cstr(&s), "nested deeper");
    buf_free(&s);
}

// Every limit from nothing to enough: ERR_MEMORY or the right text.
static void test_memory(void **state)
{
    (void)state;
    static const char source[] =
        "{% macro m(a) %}{{ a|upper }}{% endmacro %}{% for w in 'a b c'.split() %}{{ m(w) ~ "
        "loop.index }}{% set x = {'k': [w, 1.5]} %}{{ x|tojson }}{% endfor %}";
    int refused = 0;
    for (size_t limit = 1; limit < 40000; limit += 300) {
        struct arena a = {.limit_bytes = limit};
        struct buf out = {0};
        struct err e = {0};
        if (render(source, (struct value){0}, &a, &out, &e)) {
            assert_string_equal(buf_cstr(&out), "A1{\"k\": [\"a\", 1.5]}B2{\"k\": [\"b\", 1.5]}C3"
                                                "{\"k\": [\"c\", 1.5]}");
        } else {
            assert_int_equal(e.code, ERR_MEMORY);
            refused++;
        }
        buf_free(&out);
        arena_free(&a);
    }
    assert_in_range(refused, 1, 133);
}

static void test_strftime(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buf out = {0};
    struct err e = {0};
    assert_true(render("{{ strftime_now('%Y')|int > 2023 }}|{{ strftime_now('x%%') }}",
                       (struct value){0}, &a, &out, &e));
    assert_string_equal(buf_cstr(&out), "True|x%");
    buf_free(&out);
    arena_free(&a);
}

// A guarded control token (text/tokenizer.h) compares, splits and counts as what it stands for, and
// the guard survives.
static void test_guard(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buf out = {0};
    struct err e = {0};
    struct value vars = value_new_dict(&a);
    value_set(&a, vars, STR("s"), value_str(STR("a<\xff/think>b<\xff/think>")));
    static const char source[] =
        "{{ s }}|{{ '</think>' in s }}|{{ s.split('</think>')|join(',') }}|{{ s|length }}|"
        "{{ s.endswith('</think>') }}|{{ s == 'a</think>b</think>' }}|{{ s.find('b') }}|"
        "{{ s|replace('</think>', '.') }}|{{ s[1:3] }}|{{ s.count('</think>') }}|"
        "{{ s.removesuffix('</think>') }}|{{ s.rsplit('</think>', 1)[0] }}|{{ {s: 1}|tojson }}|"
        "{{ s.startswith('a</th') }}|{{ s == 'a</think>b' }}|{{ s|upper }}";
    if (!render(source, vars, &a, &out, &e)) fail_msg("%s", e.msg);
    assert_string_equal(buf_cstr(&out),
                        "a<\xff/think>b<\xff/think>|True|a,b,|18|True|True|9|a.b.|<\xff/|2|"
                        "a<\xff/think>b|a<\xff/think>b|{\"a<\xff/think>b<\xff/think>\": 1}|True|"
                        "False|A<\xff/THINK>B<\xff/THINK>");
    buf_free(&out);
    arena_free(&a);
}

// Long texts with guards: every "</t>" is found, guarded or not, across the search's windows, and
// 100,000 of them in far less than the seconds that a quadratic search takes.
static void test_guard_windows(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buf text = {0}, out = {0};
    struct err e = {0};
    for (int i = 0; i < 100000; i++) {
        for (int k = 0; k < i % 11; k++) buf_c(&text, 'x');
        buf_z(&text, i % 3 == 0 ? "<\xff/t>" : "</t>");
    }
    struct value vars = value_new_dict(&a);
    value_set(&a, vars, STR("s"), value_str(buf_view(&text)));
    clock_t start = clock(); // processor time: the machine may be busy
    if (!render(
            "{{ s.split('</t>')|length }} {{ s.count('</t>') }} {{ s|replace('</t>', '')|length }}",
            vars, &a, &out, &e))
        fail_msg("%s", e.msg);
    // x: 9,090 rounds of 0 + 1 + ... + 10, and 0 + ... + 9
    assert_string_equal(buf_cstr(&out), "100001 100000 499995");
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 1.5);
    buf_free(&text);
    buf_free(&out);
    arena_free(&a);
}

static void *render_often(void *arg)
{
    for (int i = 0; i < 200; i++) {
        struct arena a = {0};
        struct buf out = {0};
        bool ok = jinja_render(arg, (struct value){0}, &a, &out, NULL);
        ok = ok && str_eq(buf_view(&out), STR("0,1,2,|ABC"));
        buf_free(&out);
        arena_free(&a);
        if (!ok) return arg;
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct jinja *j = NULL;
    pthread_t threads[4];
    assert_true(jinja_open(&j,
                           STR("{% set ns = namespace(s='') %}{% for i in range(3) %}"
                               "{% set ns.s = ns.s ~ i ~ ',' %}{% endfor %}{{ ns.s }}|"
                               "{% filter upper %}abc{% endfilter %}"),
                           NULL));
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, j), 0);
    for (int i = 0; i < 4; i++) {
        void *failed = j;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    jinja_close(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),   cmocka_unit_test(test_messages),
        cmocka_unit_test(test_bounds),  cmocka_unit_test(test_deep_source),
        cmocka_unit_test(test_memory),  cmocka_unit_test(test_strftime),
        cmocka_unit_test(test_guard),   cmocka_unit_test(test_guard_windows),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
