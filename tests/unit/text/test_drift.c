// text/drift: texts as agents send them, with what a person would say about the difference.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "text/drift.h"

struct example {
    const char *ours, *theirs, *kind, *ours_part;
    int same; // bytes behind the change, -1 = not checked
};

static const struct example examples[] = {
    {"Now: 2026-11-24T10:15:00Z\nRest.", "Now: 2026-11-24T10:16:00Z\nRest.", "a date with a time",
     "2026-11-24T10:15:00Z", 6},
    {"Now: 2026-11-24 10:15\n", "Now: 2026-11-25 11:15\n", "a date with a time", "2026-11-24 10:15",
     1},
    {"Today is 2026-11-24.", "Today is 2026-11-25.", "a date", "2026-11-24", 1},
    {"Today is Tuesday, November 24, 2026.", "Today is Wednesday, November 25, 2026.", "a date",
     "Tuesday, November 24, 2026", 1},
    {"Today is 24 November 2026, fine", "Today is 25 November 2026, fine", "a date",
     "24 November 2026", 6},
    {"am 24.11.2026 um", "am 25.11.2026 um", "a date", "24.11.2026", 3},
    {"Current time: 12:01 PM\nx", "Current time: 12:02 PM\nx", "a time", "12:01 PM", 2},
    {"Current time: 9:59\nx", "Current time: 10:00\nx", "a time", "9:59", 2},
    {"ts=1764000000;", "ts=1764000060;", "a timestamp", "1764000000", 1},
    {"run 3f2b8c1e-9d4a-4e6f-8a1b-2c3d4e5f6a7b ok", "run 3f2b8c1e-9d4a-4e6f-8a1b-2c3d4e5f6a7c ok",
     "a UUID", "3f2b8c1e-9d4a-4e6f-8a1b-2c3d4e5f6a7b", 3},
    {"header: cch=1a2b3;", "header: cch=9f8e7;", "a hash", "1a2b3", 1},
    {"commit 9fceb02d0ae5 dirty", "commit 1fceb02d0ae6 dirty", "a hash", "9fceb02d0ae5", 6},
    {"Run number 41 of many", "Run number 42 of many", "a number", "41", 8},
    {"Run number 9 of many", "Run number 10 of many", "a number", "9", 8},
    {"Users: 12 online", "Users: 123 online", "a number", "12", 7},
    {"check the mail", "check the disk", "text", "mail", 0},
    // as gateways, mail, JavaScript and date(1) write it; also where another day's name comes first
    {"[Sun 2026-11-22 21:50 UTC] hello", "[Mon 2026-11-23 07:12 UTC] hello", "a date with a time",
     "Sun 2026-11-22 21:50 UTC", 7},
    {"at Tue, 24 Nov 2026 10:15:00 GMT.", "at Wed, 25 Nov 2026 09:15:00 GMT.", "a date with a time",
     "Tue, 24 Nov 2026 10:15:00 GMT", 1},
    {"at Sun Nov 22 2026 21:50:00 GMT+0100 x", "at Mon Nov 23 2026 21:50:00 GMT+0100 x",
     "a date with a time", "Sun Nov 22 2026 21:50:00 GMT+0100", 2},
    {"at Sun Nov 22 21:50:00 UTC 2026 x", "at Mon Nov 23 21:50:00 UTC 2026 x", "a date with a time",
     "Sun Nov 22 21:50:00 UTC 2026", 2},
    {"log 20261124T101500Z x", "log 20261124T111500Z x", "a date with a time", "20261124T101500Z",
     2},
    {"am 24.11.2026, 10:15 um", "am 25.11.2026, 10:15 um", "a date with a time",
     "24.11.2026, 10:15", 3},
    {"Marching 12 of them", "Marching 13 of them", "a number", "12", 8},
    {"at 12:12 exactly", "at 12:21 exactly", "a time", "12:12", 8}, // the same letters
    {"call_V1StGXR8 ok", "call_Zk3tGQ9x ok", "a random id", "V1StGXR8", 3},
    // of a line only the words that differ, and what comes behind them
    {"a\nOn branch main, clean\nb", "a\nOn branch dev, clean\nb", "text", "main", 9},
    {"end it. More words.\", \"x\": 1}", "end it.\", \"x\": 1}", "text", " More words.", 10},
    {"a mail today", "a sail today", "text", "mail", 6},
    {"gr\xc3\xbcn", "gr\xc3\xb6n", "text", "gr\xc3\xbcn", 0},
    {"is \xf0\x9f\x98\x80 x", "is \xf0\x9f\x98\x81 x", "text", "\xf0\x9f\x98\x80", 2},
    {"first one\n M a.c\n M b.c\nthe same again\nand on", "other\nthe same again\nand on", "text",
     "first one", 21},
    // tools, one a line, as templates print them
    {"<tools>\n{\"name\": \"exec\"}\n{\"name\": \"read\"}\n</tools>",
     "<tools>\n{\"name\": \"read\"}\n{\"name\": \"exec\"}\n</tools>", "lines in another order",
     "exec\"}", 32},
    {"<tools>\n{\"name\": \"exec\"}\n{\"name\": \"read\"}\n</tools>",
     "<tools>\n{\"name\": \"alpha\"}\n{\"name\": \"exec\"}\n{\"name\": \"read\"}\n</tools>",
     "lines that are missing here", "", 32},
    {"<tools>\n{\"name\": \"alpha\"}\n{\"name\": \"exec\"}\n</tools>",
     "<tools>\n{\"name\": \"exec\"}\n</tools>", "lines that are new here", "{\"name\": \"alpha\"}",
     25},
    {"a\n{\"type\": \"object\", \"limit\": 1}\nb", "a\n{\"limit\": 1, \"type\": \"object\"}\nb",
     "JSON keys in another order", "type\": \"object\", \"limit\": 1}", 30},
    {"a\n{\"type\": 1, \"limit\": 2}\n{\"x\": 1, \"y\": 2}\nb",
     "a\n{\"limit\": 2, \"type\": 1}\n{\"y\": 2, \"x\": 1}\nb", "JSON keys in another order",
     "type\": 1, \"limit\": 2}", 40},
    {"a\n{\"id\": \"x\", \"n\": 1}\nb", "a\n{\"n\":1,\"id\":\"x\"}\nb",
     "the same JSON written differently", "id\": \"x\", \"n\": 1}", 19},
};

static void says_what_a_person_would(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        const struct example *x = &examples[i];
        const struct str ours = str_from(x->ours), theirs = str_from(x->theirs);
        struct drift d = {0};
        struct err e = {0};
        size_t at = 0;
        while (ours.p[at] == theirs.p[at]) at++;
        while (at > 0 && (ours.p[at] & 0xc0) == 0x80) at--; // the character's beginning
        assert_true(drift_find(&d, ours, theirs, at, &e));
        const bool right = strcmp(d.kind, x->kind) == 0 && str_eq(d.ours, str_from(x->ours_part));
        if (!right)
            fail_msg("%s: \"%s\" (\"%.*s\"), not \"%s\" (\"%s\")", x->ours, d.kind, (int)d.ours.n,
                     d.ours.p, x->kind, x->ours_part);
        if (x->same >= 0 && d.same_bytes != (size_t)x->same)
            fail_msg("%s: %zu bytes are the same behind it, not %d", x->ours, d.same_bytes,
                     x->same);
    }
}

static void ends_of_texts_are_no_trouble(void **state)
{
    (void)state;
    const struct str texts[] = {STR(""),     STR("a"),      STR("a 1"),
                                STR("a 12"), STR("a 12\n"), STR("\n")};
    for (size_t i = 0; i < 6; i++)
        for (size_t k = 0; k < 6; k++) {
            size_t at = 0;
            struct drift d = {0};
            struct err e = {0};
            while (at < texts[i].n && at < texts[k].n && texts[i].p[at] == texts[k].p[at]) at++;
            assert_true(drift_find(&d, texts[i], texts[k], at, &e));
            assert_non_null(d.kind);
            assert_true(d.same_from <= texts[i].n && d.same_bytes <= texts[i].n - d.same_from);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_a_person_would),
        cmocka_unit_test(ends_of_texts_are_no_trouble),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
