// The bootstrap: which files, in which order, how they are cut; and that it is the same every time.
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

#include "agent/workspace.h"

static char dir[64];

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/submind-ws-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void files_come_in_the_fixed_order(void **state)
{
    (void)state;
    static const char *const order[] = {"AGENTS.md", "SOUL.md",   "IDENTITY.md", "USER.md",
                                        "TOOLS.md",  "MEMORY.md", "Zoo.md",      "attic.md"};
    char sub[128];
    for (size_t i = 0; i < 8; i++) put(order[7 - i], order[7 - i]); // made in the reverse order
    put("README.md", "for people");
    put("BOOTSTRAP.md", "a gateway's");
    put(".hidden.md", "hidden");
    put("notes.txt", "no markdown");
    snprintf(sub, sizeof sub, "%s/subminds", dir);
    mkdir(sub, 0700);
    put("subminds/task.md", "a task");
    snprintf(sub, sizeof sub, "%s/folder.md", dir);
    mkdir(sub, 0700);
    struct workspace w, again;
    struct err e = {0};
    if (!workspace_open(&w, dir, &e)) fail_msg("%s", e.msg);
    assert_int_equal(w.n_parts, 8);
    const char *at = buf_cstr(&w.bootstrap);
    for (size_t i = 0; i < 8; i++) {
        char want[64];
        snprintf(want, sizeof want, "<file name=\"%s\">\n%s\n</file>", order[i], order[i]);
        at = strstr(at, want);
        assert_non_null(at);
        assert_string_equal(w.parts[i].name, order[i]);
    }
    assert_null(strstr(w.bootstrap.p, "people"));
    assert_null(strstr(w.bootstrap.p, "hidden"));
    assert_null(strstr(w.bootstrap.p, dir)); // another place gives the same bytes
    assert_true(workspace_open(&again, dir, &e));
    assert_true(str_eq(buf_view(&w.bootstrap), buf_view(&again.bootstrap)));
    workspace_close(&w);
    workspace_close(&again);
}

static void what_is_too_long_is_cut_visibly(void **state)
{
    (void)state;
    struct buf text = {0};
    for (int i = 0; i < 200; i++) buf_printf(&text, "line %03d\n", i); // 9 bytes each
    put("AGENTS.md", buf_cstr(&text));
    put("MEMORY.md", buf_cstr(&text));
    put("submind.yaml", "bootstrap: {file_bytes: 1000, total_bytes: 1500}\n");
    struct workspace w;
    struct err e = {0};
    if (!workspace_open(&w, dir, &e)) fail_msg("%s", e.msg);
    assert_int_equal(w.parts[0].file_bytes, 1799);
    assert_int_equal(w.parts[0].kept_bytes, 998); // 111 lines, the last without its line feed
    assert_true(w.parts[1].kept_bytes <= 502);
    assert_non_null(strstr(buf_cstr(&w.bootstrap),
                           "line 110\n[AGENTS.md is cut here: 801 of 1799 bytes left out; limit "
                           "1000 bytes]\n</file>"));
    assert_non_null(strstr(w.bootstrap.p, "[MEMORY.md is cut here: "));
    workspace_close(&w);
    buf_free(&text);
}

static void a_cut_keeps_characters_whole(void **state)
{
    (void)state;
    struct buf text = {0};
    for (int i = 0; i < 400; i++) buf_z(&text, "\xe2\x82\xac"); // one line of euro signs
    put("AGENTS.md", buf_cstr(&text));
    put("submind.yaml", "bootstrap: {file_bytes: 1000}\n");
    struct workspace w;
    struct err e = {0};
    if (!workspace_open(&w, dir, &e)) fail_msg("%s", e.msg);
    assert_int_equal(w.parts[0].kept_bytes, 999);
    workspace_close(&w);
    buf_free(&text);
}

static void bad_workspaces_are_named(void **state)
{
    (void)state;
    struct workspace w;
    struct err e = {0};
    assert_false(workspace_open(&w, "/no/such/place", &e));
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "/no/such/place"));
    e = (struct err){0};
    assert_false(workspace_open(&w, "/etc/passwd", &e));
    assert_non_null(strstr(e.msg, "no folder"));
    put("submind.yaml", "timeout: never\n");
    e = (struct err){0};
    assert_false(workspace_open(&w, dir, &e));
    assert_non_null(strstr(e.msg, "submind.yaml:1: timeout must be"));
    put("submind.yaml", "");
    e = (struct err){0};
    assert_true(workspace_open(&w, dir, &e)); // no Markdown at all: the opening alone
    assert_int_equal(w.n_parts, 0);
    assert_true(w.bootstrap.n > 0);
    workspace_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_come_in_the_fixed_order, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_is_too_long_is_cut_visibly, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_cut_keeps_characters_whole, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(bad_workspaces_are_named, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
