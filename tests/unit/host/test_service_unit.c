// host/service_unit: what podman and systemd must be told, by their own documentation; and reading it back.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <string.h>

#include "host/service_unit.h"

static struct arena arena;

static const char *unit_of(struct service_spec spec, const char *const *words, size_t n)
{
    struct cmdline flags = {.arena = &arena};
    struct buf text = {0};
    struct err e = {0};
    for (size_t i = 0; i < n; i++) cmdline_z(&flags, words[i]);
    spec.name = "submind";
    spec.binary = "/usr/bin/submind";
    spec.flags = &flags;
    if (!service_unit_text(&spec, &text, &e)) fail_msg("%s", e.msg);
    const char *copy = arena_str(&arena, buf_view(&text)).p;
    buf_free(&text);
    return copy;
}

static void has(const char *unit, const char *text)
{
    if (strstr(unit, text) == NULL) fail_msg("no \"%s\" in:\n%s", text, unit);
}

// systemd makes the folder with mode 0755 unless told otherwise, and the server keeps nothing where others look.
static void the_cache_folder_is_private(void **state)
{
    (void)state;
    static const char *const words[] = {"--model", "/m/a.gguf"};
    has(unit_of((struct service_spec){.system = true}, words, 2), "CacheDirectoryMode=0700\n");
    has(unit_of((struct service_spec){.name_spaces = true}, words, 2), "CacheDirectoryMode=0700\n");
    // podman's volume is made so too: the folder below it is the server's own
    has(unit_of((struct service_spec){.image = "localhost/submind:x"}, words, 2),
        "--volume submind-cache:/root/.cache ");
}

static void a_container_sees_the_whole_model(void **state)
{
    (void)state;
    static const char *const one[] = {"--model", "/m/a.gguf"};
    static const char *const split[] = {"--model", "/m/b/a-00001-of-00003.gguf"};
    const struct service_spec spec = {.image = "localhost/submind:x"};
    has(unit_of(spec, one, 2), "--volume /m/a.gguf:/m/a.gguf:ro ");
    has(unit_of(spec, split, 2), "--volume /m/b:/m/b:ro ");
    has(unit_of(spec, one, 2), "--security-opt label=disable "); // SELinux
}

static void flags_are_read_back(void **state)
{
    (void)state;
    static const char *const words[] = {"--model", "/m/a b%c$d.gguf", "--ctx", "4096", "--warm"};
    const struct service_spec specs[] = {{.system = true}, {.image = "localhost/submind:x"}};
    for (size_t k = 0; k < 2; k++) {
        struct unit_file u;
        struct cmdline flags = {.arena = &arena};
        struct str image;
        struct err e = {0};
        assert_true(unit_parse(&u, str_from(unit_of(specs[k], words, 5)), &arena, &e));
        assert_true(service_unit_flags(&u, "/home/ada", &flags, &image, &e));
        assert_int_equal(flags.n, 5);
        for (size_t i = 0; i < 5; i++) assert_string_equal(flags.v[i], words[i]);
        assert_true(str_eq(image, str_from(specs[k].image)));
    }
}

static int done(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cache_folder_is_private),
        cmocka_unit_test(a_container_sees_the_whole_model),
        cmocka_unit_test(flags_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
