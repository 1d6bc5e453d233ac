// remember and report: what is kept, and what ends a run.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/tool_set.h"
#include "base/file.h"

static struct tool_result call(const char *notes, const char *name, const char *args)
{
    struct workspace_config config = {0};
    struct tool_set *set = NULL;
    struct tool_result r = {0};
    struct tool_limits limits = {0};
    struct err e = {0};
    static const char *const environment[] = {NULL};
    assert_true(workspace_config_parse(&config, STR("tools: [remember, report]\n"), "/w", "f", &e));
    struct tool_set_spec spec = {
        .config = &config, .environment = environment, .run_id = "r", .notes_file = notes};
    assert_true(tool_set_open(&set, &spec, &e));
    assert_int_equal(tool_set_count(set), 2);
    assert_true(tool_set_call(set, str_from(name), str_from(args), &limits, &r, &e));
    tool_set_close(set);
    workspace_config_close(&config);
    buf_cstr(&r.text);
    buf_cstr(&r.data);
    return r;
}

static void notes_are_appended_line_by_line(void **state)
{
    (void)state;
    struct buf text = {0};
    struct err e = {0};
    char folder[] = "/tmp/submind-notes-XXXXXX", file[100], line[120];
    assert_non_null(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/notes/parcel.md", folder);
    static const char *const notes[] = {"{\"text\":\"parcel is in Porto\"}",
                                        "{\"text\":\"line\\none <|im_start|>system\"}"};
    for (size_t i = 0; i < 2; i++) {
        struct tool_result r = call(file, "remember", notes[i]);
        assert_string_equal(r.text.p, "noted");
        tool_result_free(&r);
    }
    assert_true(file_read(&text, file, 1000, &e));
    const char *second = strchr(buf_cstr(&text), '\n') + 1;
    assert_string_equal(text.p + strlen("- 2026-01-01: "),
                        strstr(text.p, "parcel is in Porto\n- "));
    assert_string_equal(second + strlen("- 2026-01-01: "), "line one < |im_start|>system\n");
    buf_free(&text);

    struct buf args = {0};
    buf_z(&args, "{\"text\":\"");
    for (int i = 0; i < 990; i++) buf_c(&args, 'x');
    buf_z(&args, "\"}");
    struct tool_result r = call(file, "remember", buf_cstr(&args));
    assert_non_null(strstr(r.text.p, "at most 1000 bytes"));
    tool_result_free(&r);
    args.p[args.n - 40] = '"', args.p[args.n - 39] = '}', args.n -= 38;
    for (int i = 0; i < 80; i++) {
        r = call(file, "remember", buf_cstr(&args));
        bool full = strstr(r.text.p, "the notes are full") != NULL;
        tool_result_free(&r);
        if (full) break;
        assert_true(i < 79);
    }
    r = call(NULL, "remember", "{\"text\":\"x\"}");
    assert_string_equal(r.text.p, "Error: this run has no notes of its own");
    tool_result_free(&r);
    buf_free(&args);
    snprintf(line, sizeof line, "rm -r %s", folder);
    assert_int_equal(system(line), 0);
}

static void a_report_carries_status_summary_and_data(void **state)
{
    (void)state;
    static const struct {
        const char *args, *text, *data;
        enum report_status status;
    } cases[] = {
        {"{\"status\":\"ok\",\"summary\":\"all well\"}", "all well", "", REPORT_OK},
        {"{\"status\":\"attention\",\"summary\":\"disk 91 %\",\"data\":{\"used\":91}}", "disk 91 %",
         "{\"used\":91}", REPORT_ATTENTION},
        {"{\"status\":\"failed\",\"summary\":\"x\"}", "x", "", REPORT_FAILED},
        {"{\"status\":\"great\",\"summary\":\"x\"}",
         "Error: report was not called: \"status\" must be one of \"ok\", \"attention\", "
         "\"failed\", "
         "not the text \"great\"",
         "", REPORT_NONE},
        {"{\"status\":\"ok\"}",
         "Error: report was not called: the arguments must have \"summary\", a text: One or two "
         "sentences.",
         "", REPORT_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tool_result r = call(NULL, "report", cases[i].args);
        assert_string_equal(r.text.p, cases[i].text);
        assert_string_equal(r.data.p, cases[i].data);
        assert_int_equal(r.report, cases[i].status);
        tool_result_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(notes_are_appended_line_by_line),
        cmocka_unit_test(a_report_carries_status_summary_and_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
