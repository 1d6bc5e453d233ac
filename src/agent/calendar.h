// When something is due: systemd's OnCalendar (systemd.time(7)) or five cron fields (crontab(5)),
// in local time or UTC.
//
//   "*/15 * * * *"   "0 7 * * 1-5"   "@daily"            cron
//   "hourly"   "Mon..Fri 07:00"   "*-*-01 06:30:00 UTC"   "*:0/15"   OnCalendar
//
// Not taken: "~" (days from a month's end), fractions of seconds, time zones other than UTC.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum calendar_part {
    CALENDAR_SECOND,
    CALENDAR_MINUTE,
    CALENDAR_HOUR,
    CALENDAR_DAY,
    CALENDAR_MONTH,
    CALENDAR_WEEKDAY, // 0 is Monday
    CALENDAR_YEAR,
    CALENDAR_PARTS
};

enum { CALENDAR_RULES = 2 }; // cron's "day of month or day of week" makes two

struct calendar_set {
    uint64_t bits[4]; // bit i: the part's smallest value + i
};

struct calendar {
    struct calendar_set rules[CALENDAR_RULES][CALENDAR_PARTS]; // due when one rule fits
    int n_rules;
    bool utc;
};

bool calendar_parse(struct calendar *out, struct str text, struct err *e);
// Rule i in systemd's normal form, "Mon..Fri *-*-* 07:00:00".
void calendar_print(const struct calendar *c, int i, struct buf *out);
// The first time behind after_s (Unix seconds) that fits; -1 when none comes by 2100.
int64_t calendar_next(const struct calendar *c, int64_t after_s);
// "90", "90s", "5m", "2h", "1d" -> seconds.
bool calendar_duration(struct str text, uint32_t *seconds);
