// Reading and listing: what is listed, and every way out of it that links and dots could give.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/files_tool.h"

static char dir[] = "/tmp/submind-files-XXXXXX";
static struct files_settings settings;
static struct words hide;
static struct files_tool tool;

static int make_tree(void **state)
{
    (void)state;
    char line[3000];
    struct err e = {0};
    if (mkdtemp(dir) == NULL) return 1;
    snprintf(line, sizeof line,
             "cd %s && mkdir -p ws/sub outside && printf 'one\ntwo\nthree\n' > ws/a.txt && "
             "printf secret-value > ws/key && printf outside > outside/o.txt && : > ws/empty && "
             "ln -s ../outside/o.txt ws/out-link && ln -s ../outside ws/out-dir && "
             "ln -s %s/outside/o.txt ws/abs-link && ln -s a.txt ws/in-link && "
             "ln -s ../a.txt ws/sub/up-link && ln -s key ws/key-link && ln ws/key ws/key-hard && "
             "ln -s /proc/self/environ ws/env && mkfifo ws/pipe && "
             "head -c 2000 /dev/zero > ws/binary && seq 1 5000 > ws/long && "
             "ln -s loop ws/loop && printf 'a\\033[31mb\\377c' > ws/dirty && "
             "mkdir other && printf other > other/x && printf neighbour > ws-not",
             dir, dir);
    if (system(line) != 0) return 1;
    snprintf(line, sizeof line, "%s/ws", dir);
    tool = (struct files_tool){&settings, &hide, strdup(line)};
    settings.output_bytes = 1000;
    if (!words_put(&settings.read, str_from(line), &e)) return 1;
    snprintf(line, sizeof line, "%s/other/x", dir);
    if (!words_put(&settings.read, str_from(line), &e)) return 1;
    snprintf(line, sizeof line, "%s/ws/key", dir);
    return words_put(&hide, str_from(line), &e) ? 0 : 1;
}

static int drop_tree(void **state)
{
    (void)state;
    char line[200];
    snprintf(line, sizeof line, "rm -rf %s", dir);
    words_free(&settings.read);
    words_free(&hide);
    free((char *)(uintptr_t)tool.dir);
    return system(line);
}

static struct tool_result call(struct tool t, const char *args)
{
    struct tool_result r = {0};
    struct tool_limits limits = {0};
    struct err e = {0};
    json_t *v = json_loads(args, JSON_ALLOW_NUL, NULL);
    assert_non_null(v);
    assert_true(t.run(t.arg, v, &limits, &r, &e));
    json_decref(v);
    buf_cstr(&r.text);
    return r;
}

static void files_inside_are_read(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"path\":\"a.txt\"}", "one\ntwo\nthree"},
        {"{\"path\":\"./sub/../a.txt\"}", "one\ntwo\nthree"},
        {"{\"path\":\"in-link\"}", "one\ntwo\nthree"},
        {"{\"path\":\"sub/up-link\"}", "one\ntwo\nthree"},
        {"{\"path\":\"../other/x\"}", "other"}, // a file that is listed itself
        {"{\"path\":\"a.txt\",\"offset\":2,\"limit\":1}", "two\n[lines 2 to 2 of 3]"},
        {"{\"path\":\"a.txt\",\"offset\":9}", "[the file has 3 lines; none from 9 on]"},
        {"{\"path\":\"empty\"}", "[the file is empty]"},
        {"{\"path\":\"binary\"}", "[2000 bytes that are no text]"},
        {"{\"path\":\"dirty\"}", "ab\xef\xbf\xbd"
                                 "c"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tool_result r = call(files_tool_read(&tool), cases[i][0]);
        assert_string_equal(r.text.p, cases[i][1]);
        assert_false(r.refused || r.failed || r.could_not_run);
        tool_result_free(&r);
    }
    struct tool_result r = call(files_tool_read(&tool), "{\"path\":\"long\"}");
    assert_memory_equal(r.text.p, "1\n2\n3\n", 6);
    assert_non_null(strstr(r.text.p, "\n[lines 1 to 277 of 5000]"));
    tool_result_free(&r);
}

static void nothing_outside_is_read(void **state)
{
    (void)state;
    static const char *const paths[] = {"../outside/o.txt",
                                        "../../../../../../../etc/passwd",
                                        "/etc/passwd",
                                        "out-link",
                                        "out-dir/o.txt",
                                        "abs-link",
                                        "env",
                                        "../ws-not",
                                        "sub/../../outside/o.txt",
                                        "out-dir/../../etc/passwd",
                                        "../other",
                                        "../other/./y",
                                        "loop",
                                        "/proc/self/environ",
                                        "key",
                                        "key-link",
                                        "key-hard",
                                        "pipe"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char args[300];
        snprintf(args, sizeof args, "{\"path\":\"%s\"}", paths[i]);
        struct tool_result r = call(files_tool_read(&tool), args);
        if (!r.refused || strncmp(r.text.p, "Error: ", 7) != 0)
            fail_msg("%s: %s", paths[i], r.text.p);
        assert_null(strstr(r.text.p, "root:"));
        assert_null(strstr(r.text.p, "secret-value"));
        tool_result_free(&r);
    }
    struct tool_result r = call(files_tool_read(&tool), "{\"path\":\"no-such\"}");
    assert_non_null(strstr(r.text.p, "/ws/no-such: No such file or directory"));
    assert_false(r.refused);
    tool_result_free(&r);
    r = call(files_tool_read(&tool), "{\"path\":\"a\\u0000b\"}");
    assert_true(r.refused);
    tool_result_free(&r);
}

static void folders_are_listed(void **state)
{
    (void)state;
    struct tool_result r = call(files_tool_list(&tool), "{\"path\":\".\"}");
    assert_non_null(strstr(r.text.p, "a.txt 14 bytes\nabs-link link\nbinary 2000 bytes\n"));
    assert_non_null(strstr(r.text.p, "\nsub/"));
    assert_null(strstr(r.text.p, ".."));
    tool_result_free(&r);
    r = call(files_tool_list(&tool), "{\"path\":\".\",\"pattern\":\"a*\"}");
    assert_string_equal(r.text.p, "a.txt 14 bytes\nabs-link link");
    tool_result_free(&r);
    static const char *const bad[] = {"..", "out-dir", "/", "a.txt"};
    for (size_t i = 0; i < 4; i++) {
        char args[100];
        snprintf(args, sizeof args, "{\"path\":\"%s\"}", bad[i]);
        r = call(files_tool_list(&tool), args);
        assert_true(r.failed);
        tool_result_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_inside_are_read),
        cmocka_unit_test(nothing_outside_is_read),
        cmocka_unit_test(folders_are_listed),
    };
    return cmocka_run_group_tests(tests, make_tree, drop_tree);
}
