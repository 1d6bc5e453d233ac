// Times are checked against `systemd-analyze calendar` where it is there, and against dates that
// were worked out by hand.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "agent/calendar.h"

static struct calendar parse(const char *text)
{
    struct calendar c;
    struct err e = {0};
    if (!calendar_parse(&c, str_from(text), &e)) fail_msg("%s: %s", text, e.msg);
    return c;
}

static int64_t at(const char *text)
{
    struct tm tm = {.tm_isdst = -1};
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
    return (int64_t)mktime(&tm);
}

static void set_zone(const char *zone)
{
    setenv("TZ", zone, 1);
    tzset();
}

// 2026-11-24 is a Tuesday.
static void times_come_when_a_person_would_expect_them(void **state)
{
    (void)state;
    static const struct {
        const char *text, *after, *next;
    } cases[] = {
        {"*/15 * * * *", "2026-11-24 10:00:00", "2026-11-24 10:15:00"},
        {"*/15 * * * *", "2026-11-24 10:14:59", "2026-11-24 10:15:00"},
        {"5 7 * * *", "2026-11-24 07:05:00", "2026-11-25 07:05:00"},
        {"0 9 * * 1-5", "2026-11-27 09:00:00", "2026-11-30 09:00:00"},
        {"0 9 * * mon", "2026-11-24 00:00:00", "2026-11-30 09:00:00"},
        {"0 0 * * 0", "2026-11-24 00:00:00", "2026-11-29 00:00:00"},
        {"0 0 * * 7", "2026-11-24 00:00:00", "2026-11-29 00:00:00"},
        {"0 0 * * */2", "2026-11-24 00:00:00", "2026-11-26 00:00:00"}, // Sun, Tue, Thu, Sat
        {"0 0 * * 6-0", "2026-11-24 00:00:00", "2026-11-28 00:00:00"},
        {"0 0 * * 0-7/2", "2026-11-24 00:00:00", "2026-11-26 00:00:00"},
        {"0 0 * * 0-7", "2026-11-24 00:00:00", "2026-11-25 00:00:00"},
        {"0 0 * * 2,5-7", "2026-11-24 00:00:00", "2026-11-27 00:00:00"},
        {"0 0 * * 5-7", "2026-11-28 00:00:00", "2026-11-29 00:00:00"},
        {"0 0 * * mon-5", "2026-11-27 00:00:00", "2026-11-30 00:00:00"},
        {"0 0 * * fri-sun", "2026-11-29 00:00:00", "2026-12-04 00:00:00"},
        {"0 0 * * 7-1", "2026-11-29 00:00:00", "2026-11-30 00:00:00"},
        {"0 0 */2 * 1", "2026-11-24 00:00:00", "2026-12-07 00:00:00"}, // a star: both must fit
        {"*/60 * * * *", "2026-11-24 00:00:00", "2026-11-24 01:00:00"},
        {"0 0 31 * *", "2026-11-24 00:00:00", "2026-12-31 00:00:00"},
        {"0 0 1 * 5", "2026-11-24 00:00:00", "2026-11-27 00:00:00"}, // the first or a Friday
        {"0 0 1 * 5", "2026-11-27 00:00:00", "2026-12-01 00:00:00"},
        {"0 0 29 2 *", "2026-11-24 00:00:00", "2028-02-29 00:00:00"},
        {"30 6 1 jan,jul *", "2026-11-24 00:00:00", "2027-01-01 06:30:00"},
        {"10-20/5 3 * * *", "2026-11-24 03:11:00", "2026-11-24 03:15:00"},
        {"@daily", "2026-11-24 10:00:00", "2026-11-25 00:00:00"},
        {"@weekly", "2026-11-24 10:00:00", "2026-11-29 00:00:00"},
        {"weekly", "2026-11-24 10:00:00", "2026-11-30 00:00:00"},
        {"Mon..Fri 07:00", "2026-11-27 08:00:00", "2026-11-30 07:00:00"},
        {"Fri..Mon 07:00", "2026-11-24 08:00:00", "2026-11-27 07:00:00"},
        {"2026-12-24 18:00", "2026-11-24 08:00:00", "2026-12-24 18:00:00"},
        {"*-*-* *:*:30", "2026-11-24 08:00:31", "2026-11-24 08:01:30"},
    };
    set_zone("UTC");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct calendar c = parse(cases[i].text);
        int64_t next = calendar_next(&c, at(cases[i].after));
        if (next != at(cases[i].next))
            fail_msg("%s after %s: %lld, not %lld", cases[i].text, cases[i].after, (long long)next,
                     (long long)at(cases[i].next));
    }
}

// "    Next elapse: Tue 2026-11-24 07:00:00 UTC", "       Iter. #2: ..."
static size_t ask_systemd(const char *expression, const char *zone, int64_t *times, size_t max)
{
    char command[512], line[256];
    size_t n = 0;
    snprintf(command, sizeof command,
             "TZ=%s systemd-analyze calendar --iterations=%zu '%s' 2>/dev/null", zone, max,
             expression);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        const char *p = strstr(line, "Next elapse: "), *q = strstr(line, "Iter. #");
        struct tm tm = {.tm_isdst = -1};
        if (p == NULL && q == NULL) continue;
        p = strchr(p != NULL ? p : q, ':') + 2;
        if (n < max && strptime(p, "%a %Y-%m-%d %H:%M:%S", &tm) != NULL)
            times[n++] = (int64_t)mktime(&tm);
    }
    return pclose(f) == 0 ? n : 0;
}

static void systemd_computes_the_same(void **state)
{
    (void)state;
    static const char *const expressions[] = {
        "hourly",
        "daily",
        "weekly",
        "monthly",
        "quarterly",
        "semiannually",
        "yearly",
        "minutely",
        "Mon..Fri 07:00",
        "Sat,Sun *-*-* 10:30:15",
        "*-*-01 06:30",
        "*:0/15",
        "*-02-29 00:00",
        "00/3:20",
        "*-*-1..7 08:00:00",
        "Mon *-*-1..7 08:00",
        "*-1,4..6-15 00:00:00",
        "12-24 18:00",
        "*:*:0/20",
        "Tue",
        "Wed..Sat,Tue 12:05",
        "2030-01-01 00:00:00",
        "*-*-* 02:30:00",
        "*:30:00",
    };
    static const char *const crons[] = {"*/15 * * * *", "0 9 * * 1-5",  "5 4 1,15 * *",
                                        "0 0 * * 0",    "30 6 * 1-3 *", "0 22 * * 5-7"};
    static const char *const zones[] = {"UTC", "Europe/Berlin"};
    enum { N = 8 };
    size_t n_compared = 0;
    if (system("systemd-analyze --version >/dev/null 2>&1") != 0) skip();
    for (size_t z = 0; z < 2; z++) {
        set_zone(zones[z]);
        for (size_t i = 0;
             i < sizeof expressions / sizeof *expressions + sizeof crons / sizeof *crons; i++) {
            size_t n_expressions = sizeof expressions / sizeof *expressions;
            bool cron = i >= n_expressions;
            const char *text = cron ? crons[i - n_expressions] : expressions[i];
            struct calendar c = parse(text);
            struct buf normal = {0};
            int64_t times[N];
            calendar_print(&c, 0, &normal); // for cron: what the timer would be given
            size_t n = ask_systemd(buf_cstr(&normal), zones[z], times, N);
            if (n == 0) fail_msg("systemd does not take %s (%s)", text, buf_cstr(&normal));
            int64_t first = times[0] - 1; // `now` of the other process may lie a second apart
            for (size_t k = 0; k < n; k++) {
                first = calendar_next(&c, first);
                if (first != times[k])
                    fail_msg("%s (%s) in %s, time %zu: %lld, systemd says %lld", text,
                             buf_cstr(&normal), zones[z], k, (long long)first, (long long)times[k]);
                n_compared++;
            }
            // And the text as it was written means the same to systemd; the clock may tick
            // between two questions, so they are asked again.
            bool same = cron;
            for (int k = 0; k < 5 && !same; k++) {
                int64_t as_written[N];
                same = ask_systemd(buf_cstr(&normal), zones[z], times, N) == n &&
                       ask_systemd(text, zones[z], as_written, N) == n &&
                       memcmp(as_written, times, n * sizeof times[0]) == 0;
            }
            if (!same) fail_msg("%s and %s differ for systemd", text, buf_cstr(&normal));
            buf_free(&normal);
        }
    }
    assert_true(n_compared > 200);
}

static void what_is_no_time_is_refused_with_examples(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "soon",
        "* * * *",
        "61 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "a b c d e",
        "25:00",
        "07:60",
        "*-13-01 00:00",
        "Foo 07:00",
        "5-3 * * * *",
        "07:00 Mon",
        "1,,2 * * * *",
        "*-*~3 00:00",
        "07:00 Mars/Base",
        "0 0 * * * *",
        "*/90 * * * *",
        "0 */25 * * *",
        "@reboot",
        "0 0 L * *",
        "0 0 * * 1#2",
        "0 0 ? * 1",
        "-1 * * * *",
    };
    set_zone("UTC");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct calendar c;
        struct err e = {0};
        if (calendar_parse(&c, str_from(wrong[i]), &e)) fail_msg("\"%s\" was taken", wrong[i]);
        assert_int_equal(e.code, ERR_INPUT);
    }
    struct calendar c;
    struct err e = {0};
    assert_false(calendar_parse(&c, STR("2020-01-01 00:00"), &e));
    assert_non_null(strstr(e.msg, "never comes again"));
    e = (struct err){0};
    assert_false(calendar_parse(&c, STR("0 0 30 2 *"), &e));
    assert_non_null(strstr(e.msg, "never comes"));
}

static void durations_have_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        uint32_t seconds;
    } cases[] = {{"90", true, 90},    {"90s", true, 90},       {"5m", true, 300},
                 {"2min", true, 120}, {"2h", true, 7200},      {"1d", true, 86400},
                 {"", false, 0},      {"m", false, 0},         {"-5", false, 0},
                 {"5 m", false, 0},   {"99999999d", false, 0}, {"1.5h", false, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t seconds = 0;
        assert_int_equal(calendar_duration(str_from(cases[i].text), &seconds), cases[i].ok);
        if (cases[i].ok) assert_int_equal(seconds, cases[i].seconds);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_come_when_a_person_would_expect_them),
        cmocka_unit_test(systemd_computes_the_same),
        cmocka_unit_test(what_is_no_time_is_refused_with_examples),
        cmocka_unit_test(durations_have_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
