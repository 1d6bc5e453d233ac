// host/llama_flags: what becomes of a llama-server command line. What each flag means there is its own
// --help and reference.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/llama_flags.h"

static struct arena arena;

static bool translate(struct llama_plan *p, struct err *e, const char *const *args)
{
    size_t n = 0;
    while (args[n] != NULL) n++;
    return llama_translate(p, args, n, NULL, NULL, &arena, e);
}
#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static bool has_note(const struct llama_plan *p, const char *flag, enum llama_note kind)
{
    for (size_t i = 0; i < p->n_notes; i++)
        if (strcmp(p->notes[i].flag, flag) == 0) return p->notes[i].kind == kind;
    return false;
}

static void the_usual_unit(void **state)
{
    (void)state;
    struct llama_plan p;
    struct err e = {0};
    assert_true(translate(&p, &e,
                          ARGS("-m", "/m.gguf", "-c", "65536", "-ngl", "999", "-fa", "1",
                               "--no-mmap", "-np", "4", "--host", "0.0.0.0", "--port", "8081",
                               "--alias=qwen", "--jinja", "--api-key", "k1,k2", "-ub", "512",
                               "--reasoning-budget", "0", "--temp", "0.6")));
    assert_string_equal(cmdline_flag(&p.words, "model"), "/m.gguf");
    assert_string_equal(cmdline_flag(&p.words, "ctx"), "65536");
    assert_string_equal(cmdline_flag(&p.words, "parallel"), "4");
    assert_string_equal(cmdline_flag(&p.words, "host"), "0.0.0.0");
    assert_string_equal(cmdline_flag(&p.words, "port"), "8081");
    assert_string_equal(cmdline_flag(&p.words, "alias"), "qwen");
    assert_string_equal(cmdline_flag(&p.words, "reasoning"), "off");
    assert_string_equal(cmdline_flag(&p.words, "temperature"), "0.6");
    assert_null(cmdline_flag(&p.words, "device"));
    assert_true(str_eq(p.api_key, STR("k1\nk2\n")));
    for (size_t i = 0; i < p.words.n; i++) assert_null(strstr(p.words.v[i], "k1"));
    assert_true(has_note(&p, "-ub", NOTE_DIFFERENT));
    assert_true(has_note(&p, "--jinja", NOTE_KEPT));
}

static void values_that_mean_something_else(void **state)
{
    (void)state;
    struct llama_plan p;
    struct err e = {0};
    assert_true(translate(&p, &e, ARGS("-ngl", "0", "-c", "0", "-np", "-1", "-fa", "--mlock")));
    assert_string_equal(cmdline_flag(&p.words, "device"), "cpu");
    assert_null(cmdline_flag(&p.words, "ctx"));
    assert_null(cmdline_flag(&p.words, "parallel"));
    assert_true(has_note(&p, "--mlock", NOTE_LOST)); // -fa alone did not swallow it
    assert_true(translate(&p, &e, ARGS("-dev", "CUDA1", "-hf", "Qwen/Qwen3-8B-GGUF:Q8_0")));
    assert_string_equal(cmdline_flag(&p.words, "device"), "cuda:1");
    assert_string_equal(cmdline_flag(&p.words, "model"), "hf:Qwen/Qwen3-8B-GGUF:Q8_0");
    assert_true(translate(&p, &e, ARGS("--host", "/run/llama.sock", "-m", "a", "-m", "b")));
    assert_string_equal(cmdline_flag(&p.words, "unix-socket"), "/run/llama.sock");
    assert_string_equal(cmdline_flag(&p.words, "model"), "b"); // the last one counts
}

// Keys and values have one type, and what no device would start with is not passed on.
static void types_of_keys_and_values(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *values, *want;
        enum llama_note note; // of the keys
    } cases[] = {{"q8_0", "q8_0", "q8_0", NOTE_DIFFERENT}, {"q8_0", "f16", "q8_0", NOTE_DIFFERENT},
                 {"f16", "q8_0", "q8_0", NOTE_DIFFERENT},  {"q4_0", "q4_0", "q8_0", NOTE_LOST},
                 {"f16", "f16", NULL, NOTE_DIFFERENT},     {"bf16", "f16", NULL, NOTE_DIFFERENT},
                 {"f32", "f32", NULL, NOTE_LOST}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct llama_plan p;
        struct err e = {0};
        assert_true(
            translate(&p, &e, ARGS("-ctk", cases[i].keys, "--cache-type-v", cases[i].values)));
        const char *got = cmdline_flag(&p.words, "kv-type");
        assert_true(cases[i].want == NULL ? got == NULL
                                          : got != NULL && strcmp(got, cases[i].want) == 0);
        assert_true(has_note(&p, "-ctk", cases[i].note));
    }
    struct llama_plan p;
    struct err e = {0};
    assert_true(translate(&p, &e, ARGS("-ctk", "q8_0", "-ctk", "f16"))); // the last one counts
    assert_null(cmdline_flag(&p.words, "kv-type"));
}

// llama-server listens for everybody without a key; ours does so only when it is told.
static void a_public_address_without_a_key(void **state)
{
    (void)state;
    static const char flag[] = "--allow-public-without-key";
    struct llama_plan p;
    struct err e = {0};
    assert_true(translate(&p, &e, ARGS("-m", "a", "--host", "0.0.0.0")));
    assert_true(cmdline_has(&p.words, flag));
    assert_true(has_note(&p, "--host", NOTE_DIFFERENT));
    cmdline_set(&p.words, "host", "127.0.0.1");
    llama_settle_public(&p);
    assert_false(cmdline_has(&p.words, flag));
    assert_true(translate(&p, &e, ARGS("-m", "a", "--host", "0.0.0.0", "--api-key", "k")));
    assert_false(cmdline_has(&p.words, flag));
    assert_true(translate(&p, &e, ARGS("--host", "::", "--api-key-file", "keys")));
    assert_false(cmdline_has(&p.words, flag));
    assert_true(translate(&p, &e, ARGS("-m", "a")));
    assert_false(cmdline_has(&p.words, flag));
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct llama_plan p;
    struct err e = {0};
    assert_false(translate(&p, &e, ARGS("--no-such-flag")));
    assert_int_equal(e.code, ERR_INPUT);
    e = (struct err){0};
    assert_false(translate(&p, &e, ARGS("-m")));
    e = (struct err){0};
    assert_false(translate(&p, &e, ARGS("-dev", "CUDA0,CUDA1")));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
}

static const char *environment(void *arg, const char *name)
{
    (void)arg;
    if (strcmp(name, "LLAMA_ARG_PORT") == 0) return "9000";
    if (strcmp(name, "LLAMA_ARG_MODEL") == 0) return "/env.gguf";
    if (strcmp(name, "LLAMA_ARG_MLOCK") == 0) return "true";
    return NULL;
}

static void flags_win_over_the_environment(void **state)
{
    (void)state;
    struct llama_plan p;
    struct err e = {0};
    const char *const args[] = {"-m", "/flag.gguf"};
    assert_true(llama_translate(&p, args, 2, environment, NULL, &arena, &e));
    assert_string_equal(cmdline_flag(&p.words, "model"), "/flag.gguf");
    assert_string_equal(cmdline_flag(&p.words, "port"), "9000");
    assert_true(has_note(&p, "LLAMA_ARG_MLOCK", NOTE_LOST));
}

static int tidy(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

// Every flag of a recorded --help has a row that knows whether it takes a value.
static void every_flag_is_known(void **state)
{
    (void)state;
    const char *source = getenv("SUBMIND_SOURCE");
    char path[4096], line[128];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/tests/data/llama_server_flags.txt",
             source != NULL ? source : ".");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        if (line[0] != '-') continue;
        struct llama_plan p;
        struct err e = {0};
        const bool has_value = strstr(line, " V\n") != NULL;
        line[strcspn(line, " \n")] = '\0';
        const bool ok =
            has_value ? translate(&p, &e, ARGS(line, "1")) : translate(&p, &e, ARGS(line));
        if (!ok && strstr(e.msg, "is not known") != NULL) fail_msg("%s: %s", line, e.msg);
        if (!ok && strstr(e.msg, "needs a value") != NULL) fail_msg("%s: %s", line, e.msg);
        n++;
    }
    fclose(f);
    assert_true(n > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_usual_unit),
        cmocka_unit_test(every_flag_is_known),
        cmocka_unit_test(values_that_mean_something_else),
        cmocka_unit_test(types_of_keys_and_values),
        cmocka_unit_test(a_public_address_without_a_key),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(flags_win_over_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, tidy);
}
