// Definitions: what is read, what each mistake is told as, how a task is filled in.
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
#include <jansson.h>

#include "agent/definition.h"

static struct definition parse(const char *text)
{
    struct definition d;
    struct err e = {0};
    if (!definition_parse(&d, str_from(text), "/w", "look", "look.md", &e)) fail_msg("%s", e.msg);
    return d;
}

static void everything_is_read(void **state)
{
    (void)state;
    struct definition d = parse("---\n"
                                "description: Is the service up?\n"
                                "schedule: [\"*/15 * * * *\", daily]\n"
                                "delay: 2m\n"
                                "missed: skip\n"
                                "overlap: wait\n"
                                "tools: [exec, \"web_*\"]\n"
                                "allow:\n"
                                "  - run: [systemctl, is-active, \"*\"]\n"
                                "deadline: 5m\n"
                                "server: http://127.0.0.1:9000/v1\n"
                                "model: qwen\n"
                                "thinking: off\n"
                                "max_turns: 8\n"
                                "max_tokens: 512\n"
                                "retries: 2\n"
                                "on_failure: tell-marta\n"
                                "notify:\n"
                                "  when: always\n"
                                "  command: [mail-me, --now]\n"
                                "  file: notes/alerts.jsonl\n"
                                "  webhook: https://example.org/hook\n"
                                "  desktop: true\n"
                                "inputs:\n"
                                "  service: mosquitto\n"
                                "  place: \"\"\n"
                                "---\n"
                                "\n"
                                "check whether service {{ service }} is active\n");
    assert_string_equal(d.description, "Is the service up?");
    assert_int_equal(d.n_schedules, 2);
    assert_string_equal(d.schedule_texts[1], "daily");
    assert_int_equal(d.delay_s, 120);
    assert_int_equal(d.missed, MISSED_SKIP);
    assert_int_equal(d.overlap, OVERLAP_WAIT);
    assert_int_equal(d.tools.n, 2);
    assert_true(d.has_tools && d.has_allow);
    assert_int_equal(d.allow.n, 1);
    assert_int_equal(d.deadline_s, 300);
    assert_string_equal(d.server_url, "http://127.0.0.1:9000/v1");
    assert_string_equal(d.server_model, "qwen");
    assert_int_equal(d.thinking, 0);
    assert_int_equal(d.max_turns, 8);
    assert_int_equal(d.max_tokens, 512);
    assert_int_equal(d.retries, 2);
    assert_string_equal(d.on_failure, "tell-marta");
    assert_int_equal(d.notify.when, NOTIFY_ALWAYS);
    assert_int_equal(d.notify.command.n, 2);
    assert_string_equal(d.notify.file, "/w/notes/alerts.jsonl");
    assert_string_equal(d.notify.webhook, "https://example.org/hook");
    assert_true(d.notify.desktop);
    assert_int_equal(d.n_inputs, 2);
    assert_string_equal(d.inputs[1].value, "");
    assert_string_equal(d.task, "check whether service {{ service }} is active");
    definition_close(&d);
}

static void a_task_alone_is_a_definition(void **state)
{
    (void)state;
    static const char *const texts[] = {"look around\n", "---\n---\nlook around",
                                        "---\r\ndescription: x\r\n---\r\nlook around\r\n"};
    for (size_t i = 0; i < 3; i++) {
        struct definition d = parse(texts[i]);
        assert_string_equal(d.task, "look around");
        assert_int_equal(d.thinking, THINKING_UNSET);
        assert_int_equal(d.notify.when, NOTIFY_ATTENTION);
        assert_int_equal(definition_next(&d, 0), -1);
        definition_close(&d);
    }
    struct definition d =
        parse("---\ninputs:\n---\na rule\n---\nbelow"); // only the first two fence
    assert_string_equal(d.task, "a rule\n---\nbelow");
    definition_close(&d);
}

static void every_mistake_is_told_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"---\ndescription: x\n", "look.md:1: the settings have no end"},
        {"---\ndescription: x\n---\n \n", "look.md:5: there is no task"},
        {"---\n\ntimeout: 5\n---\nx", "look.md:3: there is no setting \"timeout\"; allowed: desc"},
        {"---\nretries: 11\n---\nx", "look.md:2: retries must be a whole number from 0 to 10"},
        {"---\nschedule: soon\n---\nx", "look.md:2: schedule: \"soon\" is no time: use five cron"},
        {"---\nschedule:\n - daily\n - {}\n---\nx", "look.md:4: schedule must be a time or a list"},
        {"---\ndeadline: 5 minutes\n---\nx",
         "look.md:2: deadline must be a time from 1s to 7d such as 90s, 5m, 2h, not \"5 minutes\""},
        {"---\noverlap: kill\n---\nx", "look.md:2: overlap must be skip, wait or allow, not"},
        {"---\nserver: localhost\n---\nx", "look.md:2: server must be http://host:port"},
        {"---\nthinking: hard\n---\nx", "look.md:2: thinking must be on, off or auto"},
        {"---\non_failure: look\n---\nx", "on_failure must be another sub-mind"},
        {"---\non_failure: Tell Marta\n---\nx", "look.md:2: on_failure must be the name"},
        {"---\nnotify:\n  when: loud\n---\nx", "look.md:3: notify.when must be failure, attention"},
        {"---\nnotify:\n  webhook: ftp://x\n---\nx",
         "look.md:3: notify.webhook must be an http://"},
        {"---\nnotify:\n  pager: x\n---\nx", "look.md:3: there is no setting \"pager\" in notify"},
        {"---\nallow:\n  - run: [\"**\"]\n---\nx", "look.md:3: allow: \"**\""},
        {"---\ninputs: [a]\n---\nx", "look.md:2: inputs must be a mapping"},
        {"---\ninputs:\n  a b: c\n---\nx", "look.md:3: inputs must be a mapping of names"},
        {"---\ninputs:\n  a: c\n  a: d\n---\nx", "look.md:4: the input a stands there twice"},
        {"---\ninputs:\n  a: 1\n---\nx\n{{ b }}", "look.md:6: {{b}} is no input; inputs has: a"},
        {"x {{b}}", "look.md:1: {{b}} is no input; inputs has: none"},
        {"---\nschedule: daily\ninputs:\n  host:\n---\n{{host}}", "inputs.host needs a default"},
        {"---\na: [\n---\nx", "look.md:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct definition d;
        struct err e = {0};
        if (definition_parse(&d, str_from(cases[i].text), "/w", "look", "look.md", &e))
            fail_msg("taken: %s", cases[i].text);
        if (strstr(e.msg, cases[i].words) == NULL)
            fail_msg("%s\ninstead of %s", e.msg, cases[i].words);
        assert_int_equal(e.code, ERR_INPUT);
    }
}

static void inputs_are_filled_in(void **state)
{
    (void)state;
    struct definition d =
        parse("---\ninputs:\n  service: cups\n  host:\n  note: \"a \\\"b\\\"\"\n---\n"
              "Is {{service}} on {{ host }} up? {{service}}! {{ not a name }} }}");
    const char *values[DEFINITION_INPUTS];
    const char *const words[] = {"host=rack=1", "service="};
    struct buf task = {0}, json = {0};
    struct err e = {0};
    assert_true(definition_take_inputs(&d, words, 2, values, &e));
    definition_fill(&d, values, &task, &json);
    assert_string_equal(buf_cstr(&task), "Is  on rack=1 up? ! {{ not a name }} }}"
                                         "\n\nInputs:\n- note: a \"b\"");
    json_t *v = json_loads(buf_cstr(&json), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(v, "host")), "rack=1");
    assert_string_equal(json_string_value(json_object_get(v, "note")), "a \"b\"");
    json_decref(v);
    static const struct {
        const char *word, *words;
    } wrong[] = {{"host", "is no key=value; look takes: service, host, note"},
                 {"hots=x", "look has no input \"hots\"; inputs: service, host, note"},
                 {"service=x", "look needs the input host"}};
    for (size_t i = 0; i < 3; i++) {
        e = (struct err){0};
        assert_false(definition_take_inputs(&d, &wrong[i].word, 1, values, &e));
        if (strstr(e.msg, wrong[i].words) == NULL) fail_msg("%s", e.msg);
    }
    buf_free(&task);
    buf_free(&json);
    definition_close(&d);
}

static void a_folder_is_listed_and_opened(void **state)
{
    (void)state;
    char dir[] = "/tmp/submind-df-XXXXXX", path[128], command[64];
    static const char *const files[] = {"b.md",  "a.md",  "README.md",
                                        ".c.md", "d.txt", "Not Good.md"};
    struct definition_names names;
    struct err e = {0};
    assert_non_null(mkdtemp(dir));
    assert_true(definition_list(&names, dir, &e)); // no folder, no definitions
    assert_int_equal(names.n, 0);
    snprintf(path, sizeof path, "%s/subminds", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/subminds/%s", dir, files[i]);
        FILE *f = fopen(path, "w");
        fputs("look", f);
        fclose(f);
    }
    assert_true(definition_list(&names, dir, &e));
    assert_int_equal(names.n, 3);
    assert_string_equal(names.p[0], "Not Good");
    assert_string_equal(names.p[1], "a");
    definition_names_free(&names);
    struct definition d;
    assert_true(definition_open(&d, dir, "a", &e));
    definition_close(&d);
    assert_false(definition_open(&d, dir, "Not Good", &e));
    assert_non_null(strstr(e.msg, "lower case letters"));
    e = (struct err){0};
    assert_false(definition_open(&d, dir, "gone", &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_false(definition_open(&d, dir, "../a", &e));
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

static void names_are_plain(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "check-service", "x_1", "9lives"};
    static const char *const bad[] = {"",
                                      "-a",
                                      "_a",
                                      "A",
                                      "a b",
                                      "a/b",
                                      "a.b",
                                      "show",
                                      "follow",
                                      "last",
                                      "0123456789012345678901234567890123456789012345678"};
    for (size_t i = 0; i < 4; i++) assert_true(definition_name_is_valid(str_from(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(definition_name_is_valid(str_from(bad[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),
        cmocka_unit_test(a_task_alone_is_a_definition),
        cmocka_unit_test(every_mistake_is_told_with_its_line),
        cmocka_unit_test(inputs_are_filled_in),
        cmocka_unit_test(a_folder_is_listed_and_opened),
        cmocka_unit_test(names_are_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
