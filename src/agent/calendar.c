// Every part of a time is a set of numbers; both notations are read into the same sets, so that
// what we compute and what systemd is given cannot differ by notation.
#include "agent/calendar.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FIRST_YEAR = 1970, LAST_YEAR = 2199, SEARCH_UNTIL = 2100, MAX_WORDS = 6, MAX_TEXT = 256 };

static const struct part {
    const char *name;
    int min, max;
} parts[CALENDAR_PARTS] = {
    {"second", 0, 59},
    {"minute", 0, 59},
    {"hour", 0, 23},
    {"day", 1, 31},
    {"month", 1, 12},
    {"day of the week", 0, 6},
    {"year", FIRST_YEAR, LAST_YEAR},
};

static const char *const months[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                     "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const weekdays[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};

static const struct {
    const char *name, *meaning;
} shorthands[] = {
    {"minutely", "*-*-* *:*:00"},
    {"hourly", "*-*-* *:00:00"},
    {"daily", "*-*-* 00:00:00"},
    {"midnight", "*-*-* 00:00:00"},
    {"@weekly", "Sun *-*-* 00:00:00"}, // cron's; systemd's begins on Monday
    {"weekly", "Mon *-*-* 00:00:00"},
    {"monthly", "*-*-01 00:00:00"},
    {"yearly", "*-01-01 00:00:00"},
    {"annually", "*-01-01 00:00:00"},
    {"quarterly", "*-01,04,07,10-01 00:00:00"},
    {"semiannually", "*-01,07-01 00:00:00"},
};

// ---- sets -----------------------------------------------------------------------------------

static void set_put(struct calendar_set *s, int i)
{
    s->bits[i / 64] |= 1ull << (i % 64);
}

static bool set_has(const struct calendar_set *s, int i)
{
    return (s->bits[i / 64] >> (i % 64) & 1) != 0;
}

static bool has(const struct calendar_set *rule, enum calendar_part p, int value)
{
    return value >= parts[p].min && value <= parts[p].max &&
           set_has(&rule[p], value - parts[p].min);
}

static bool set_is_full(const struct calendar_set *s, enum calendar_part p)
{
    for (int i = 0; i <= parts[p].max - parts[p].min; i++)
        if (!set_has(s, i)) return false;
    return true;
}

static void set_fill(struct calendar_set *s, enum calendar_part p)
{
    for (int i = 0; i <= parts[p].max - parts[p].min; i++) set_put(s, i);
}

// ---- numbers, ranges, lists -----------------------------------------------------------------

struct cursor {
    const char *p, *end;
};

static bool take(struct cursor *c, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(c->end - c->p) < n || strncmp(c->p, word, n) != 0) return false;
    c->p += n;
    return true;
}

// A name may be written out ("Monday"); its first three letters decide.
static bool take_name(struct cursor *c, const char *const *names, int n_names, int *value)
{
    size_t n = 0;
    while (c->p + n < c->end && isalpha((unsigned char)c->p[n])) n++;
    for (int i = 0; n >= 3 && i < n_names; i++) {
        if (strncasecmp(c->p, names[i], 3) != 0) continue;
        c->p += n;
        *value = i;
        return true;
    }
    return false;
}

static bool take_number(struct cursor *c, int *value)
{
    int v = 0, n = 0;
    while (c->p < c->end && isdigit((unsigned char)*c->p) && n < 5) {
        v = v * 10 + (*c->p++ - '0');
        n++;
    }
    *value = v;
    return n > 0;
}

// Cron's week begins with Sunday, which is 0 or 7. Its days are counted on from our Sunday, 6 to
// 13, so that ranges up to 7 go upwards.
static bool take_value(struct cursor *c, enum calendar_part p, bool cron, int *value)
{
    if (p == CALENDAR_WEEKDAY && take_name(c, weekdays, 7, value)) {
        if (cron && *value < 6) *value += 7;
        return true;
    }
    if (p == CALENDAR_MONTH && cron && take_name(c, months, 12, value)) {
        ++*value;
        return true;
    }
    if ((p == CALENDAR_WEEKDAY && !cron) || !take_number(c, value)) return false;
    if (p == CALENDAR_YEAR && *value < 100) *value += *value < 70 ? 2000 : 1900;
    if (p != CALENDAR_WEEKDAY) return *value >= parts[p].min && *value <= parts[p].max;
    *value += 6;
    return *value <= 13;
}

// One entry of a list: "*", "a", "a..b" ("a-b" in cron), each with "/step" behind it. Days of the
// week may be counted beyond Sunday: Fri..Mon.
static bool take_entry(struct cursor *c, enum calendar_part p, bool cron, struct calendar_set *s)
{
    bool sundays_first = cron && p == CALENDAR_WEEKDAY;
    int from = sundays_first ? 6 : parts[p].min, to = sundays_first ? 12 : parts[p].max, step = 1;
    if (!take(c, "*")) {
        int last = to;
        if (!take_value(c, p, cron, &from)) return false;
        to = from;
        if (take(c, cron ? "-" : "..")) {
            if (!take_value(c, p, cron, &to)) return false;
        } else if (c->p < c->end && *c->p == '/') {
            to = last;
        }
    }
    if (take(c, "/") && (!take_number(c, &step) || step < 1)) return false;
    if (to < from && p == CALENDAR_WEEKDAY) to += 7;
    if (to < from) return false;
    // Every 90 minutes is not what a cron line with "*/90" would do.
    if (cron && step > parts[p].max - parts[p].min + 1) return false;
    for (int i = from; i <= to; i += step)
        set_put(s, p == CALENDAR_WEEKDAY ? i % 7 : i - parts[p].min);
    return true;
}

static bool take_list(struct cursor *c, enum calendar_part p, bool cron, struct calendar_set *s)
{
    do {
        if (!take_entry(c, p, cron, s)) return false;
    } while (take(c, ","));
    return true;
}

static bool whole_list(struct str word, enum calendar_part p, bool cron, struct calendar_set *s)
{
    struct cursor c = {word.p, word.p + word.n};
    return take_list(&c, p, cron, s) && c.p == c.end;
}

// ---- cron -----------------------------------------------------------------------------------

static bool parse_cron(struct calendar *out, const struct str *words, struct err *e)
{
    static const enum calendar_part order[] = {CALENDAR_MINUTE, CALENDAR_HOUR, CALENDAR_DAY,
                                               CALENDAR_MONTH, CALENDAR_WEEKDAY};
    struct calendar_set *rule = out->rules[0];
    for (int i = 0; i < 5; i++)
        if (!whole_list(words[i], order[i], true, &rule[order[i]]))
            return err_set(e, ERR_INPUT, "\"%.*s\" is no %s of a cron line (%d to %d, *, a-b, */n)",
                           (int)(words[i].n < 40 ? words[i].n : 40), words[i].p,
                           parts[order[i]].name, i == 4 ? 0 : parts[order[i]].min,
                           i == 4 ? 7 : parts[order[i]].max);
    set_put(&rule[CALENDAR_SECOND], 0);
    set_fill(&rule[CALENDAR_YEAR], CALENDAR_YEAR);
    out->n_rules = 1;
    // crontab(5): when both days are restricted, either is enough.
    if (words[2].p[0] != '*' && words[4].p[0] != '*') {
        memcpy(out->rules[1], rule, sizeof out->rules[1]);
        set_fill(&rule[CALENDAR_WEEKDAY], CALENDAR_WEEKDAY);
        set_fill(&out->rules[1][CALENDAR_DAY], CALENDAR_DAY);
        out->n_rules = 2;
    }
    return true;
}

// ---- OnCalendar -----------------------------------------------------------------------------

// "2026-11-24", "*-*-01", "11-24": parts from the end, joined by "-".
static bool parse_date(struct str word, struct calendar_set *rule)
{
    struct cursor c = {word.p, word.p + word.n};
    size_t first = str_find(word, STR("-"), 0);
    bool year = first != SIZE_MAX && str_find(word, STR("-"), first + 1) != SIZE_MAX;
    if (year)
        if (!take_list(&c, CALENDAR_YEAR, false, &rule[CALENDAR_YEAR]) || !take(&c, "-"))
            return false;
    return take_list(&c, CALENDAR_MONTH, false, &rule[CALENDAR_MONTH]) && take(&c, "-") &&
           take_list(&c, CALENDAR_DAY, false, &rule[CALENDAR_DAY]) && c.p == c.end;
}

static bool parse_time(struct str word, struct calendar_set *rule)
{
    struct cursor c = {word.p, word.p + word.n};
    if (!take_list(&c, CALENDAR_HOUR, false, &rule[CALENDAR_HOUR]) || !take(&c, ":") ||
        !take_list(&c, CALENDAR_MINUTE, false, &rule[CALENDAR_MINUTE]))
        return false;
    if (take(&c, ":"))
        return take_list(&c, CALENDAR_SECOND, false, &rule[CALENDAR_SECOND]) && c.p == c.end;
    set_put(&rule[CALENDAR_SECOND], 0);
    return c.p == c.end;
}

static bool is_empty(const struct calendar_set *s)
{
    return (s->bits[0] | s->bits[1] | s->bits[2] | s->bits[3]) == 0;
}

static void fill_left_out(struct calendar_set *rule)
{
    static const enum calendar_part dates[] = {CALENDAR_DAY, CALENDAR_MONTH, CALENDAR_WEEKDAY,
                                               CALENDAR_YEAR};
    static const enum calendar_part times[] = {CALENDAR_SECOND, CALENDAR_MINUTE, CALENDAR_HOUR};
    for (size_t i = 0; i < 4; i++)
        if (is_empty(&rule[dates[i]])) set_fill(&rule[dates[i]], dates[i]);
    for (size_t i = 0; i < 3; i++)
        if (is_empty(&rule[times[i]])) set_put(&rule[times[i]], 0);
}

// Weekdays, a date and a time, each at most once and in this order; at least one.
static bool parse_on_calendar(struct calendar *out, const struct str *words, size_t n)
{
    struct calendar_set *rule = out->rules[0];
    size_t i = 0;
    if (n > 1 && (str_eq(words[n - 1], STR("UTC")) || str_eq(words[n - 1], STR("Etc/UTC")))) {
        out->utc = true;
        n--;
    }
    if (i < n && isalpha((unsigned char)words[i].p[0])) {
        struct str days = words[i];
        if (days.p[days.n - 1] == ',') days.n--; // "Mon,Tue, 07:00" of older units
        if (!whole_list(days, CALENDAR_WEEKDAY, false, &rule[CALENDAR_WEEKDAY])) return false;
        i++;
    }
    if (i < n && str_find(words[i], STR("-"), 0) != SIZE_MAX && parse_date(words[i], rule)) i++;
    if (i < n && parse_time(words[i], rule)) i++;
    fill_left_out(rule);
    out->n_rules = 1;
    return i == n && n > 0;
}

// ---- both -----------------------------------------------------------------------------------

static size_t split(struct str text, struct str *words)
{
    size_t n = 0;
    for (size_t i = 0; i < text.n;) {
        while (i < text.n && isspace((unsigned char)text.p[i])) i++;
        size_t from = i;
        while (i < text.n && !isspace((unsigned char)text.p[i])) i++;
        if (i > from && n < MAX_WORDS) words[n++] = str_sub(text, from, i - from);
    }
    return n;
}

static struct str spell_out(struct str text)
{
    for (size_t i = 0; i < sizeof shorthands / sizeof shorthands[0]; i++) {
        struct str name = str_from(shorthands[i].name), word = text;
        if (name.p[0] != '@' && str_starts(word, STR("@"))) word = str_sub(word, 1, SIZE_MAX);
        if (word.n == name.n && strncasecmp(word.p, name.p, name.n) == 0)
            return str_from(shorthands[i].meaning);
    }
    return text;
}

bool calendar_parse(struct calendar *out, struct str text, struct err *e)
{
    struct calendar c = {0};
    struct str words[MAX_WORDS];
    text = str_trim(text);
    int shown = (int)(text.n < 80 ? text.n : 80);
    size_t n = text.n < MAX_TEXT ? split(spell_out(text), words) : 0;
    bool ok = n == 5 ? parse_cron(&c, words, e) : parse_on_calendar(&c, words, n);
    if (!ok)
        return err_set(e, ERR_INPUT,
                       "\"%.*s\" is no time: use five cron fields (\"*/15 * * * *\"), or systemd's "
                       "form (\"hourly\", \"Mon..Fri 07:00\", \"*-*-01 06:30 UTC\")",
                       shown, text.p);
    if (calendar_next(&c, (int64_t)time(NULL)) < 0)
        return err_set(e, ERR_INPUT, "\"%.*s\" never comes again", shown, text.p);
    *out = c;
    return true;
}

static void print_set(const struct calendar_set *s, enum calendar_part p, struct buf *out)
{
    const struct part *about = &parts[p];
    bool first = true;
    if (set_is_full(s, p)) {
        buf_c(out, '*');
        return;
    }
    for (int i = about->min; i <= about->max; i++) {
        if (!set_has(s, i - about->min)) continue;
        int to = i;
        while (to < about->max && set_has(s, to + 1 - about->min)) to++;
        if (to == i + 1) to = i; // two neighbours are a list
        if (!first) buf_c(out, ',');
        if (p == CALENDAR_WEEKDAY)
            buf_printf(out, "%c%s", weekdays[i][0] - 32, weekdays[i] + 1);
        else
            buf_printf(out, p == CALENDAR_YEAR ? "%04d" : "%02d", i);
        if (to > i && p == CALENDAR_WEEKDAY)
            buf_printf(out, "..%c%s", weekdays[to][0] - 32, weekdays[to] + 1);
        else if (to > i)
            buf_printf(out, p == CALENDAR_YEAR ? "..%04d" : "..%02d", to);
        first = false;
        i = to;
    }
}

void calendar_print(const struct calendar *c, int i, struct buf *out)
{
    static const struct {
        enum calendar_part part;
        char before;
    } order[] = {{CALENDAR_YEAR, 0},   {CALENDAR_MONTH, '-'},  {CALENDAR_DAY, '-'},
                 {CALENDAR_HOUR, ' '}, {CALENDAR_MINUTE, ':'}, {CALENDAR_SECOND, ':'}};
    const struct calendar_set *rule = c->rules[i];
    if (!set_is_full(&rule[CALENDAR_WEEKDAY], CALENDAR_WEEKDAY)) {
        print_set(&rule[CALENDAR_WEEKDAY], CALENDAR_WEEKDAY, out);
        buf_c(out, ' ');
    }
    for (size_t k = 0; k < sizeof order / sizeof order[0]; k++) {
        if (order[k].before != 0) buf_c(out, order[k].before);
        print_set(&rule[order[k].part], order[k].part, out);
    }
    if (c->utc) buf_z(out, " UTC");
}

// ---- the next time --------------------------------------------------------------------------

static int64_t to_unix(struct tm day, int h, int m, int s, bool utc)
{
    day.tm_hour = h;
    day.tm_min = m;
    day.tm_sec = s;
    day.tm_isdst = -1;
    return utc ? (int64_t)timegm(&day) : (int64_t)mktime(&day);
}

// The first fitting time of a day, behind after_s and not before the time h:m:s. A clock time that
// the change to summer time leaves out becomes the one that mktime makes of it.
static int64_t first_of_day(const struct calendar_set *rule, const struct tm *day, int64_t after_s,
                            bool utc, int h0)
{
    for (int h = h0; h < 24; h++) {
        if (!has(rule, CALENDAR_HOUR, h)) continue;
        if (to_unix(*day, h, 59, 59, utc) <= after_s) continue;
        for (int i = 0; i < 3600; i++) {
            if (!has(rule, CALENDAR_MINUTE, i / 60)) {
                i += 59;
                continue;
            }
            if (!has(rule, CALENDAR_SECOND, i % 60)) continue;
            int64_t at = to_unix(*day, h, i / 60, i % 60, utc);
            if (at > after_s) return at;
        }
    }
    return -1;
}

static int64_t next_of_rule(const struct calendar_set *rule, int64_t after_s, bool utc)
{
    struct tm day;
    time_t start = (time_t)after_s;
    if (utc)
        gmtime_r(&start, &day);
    else
        localtime_r(&start, &day);
    int h0 = day.tm_hour > 0 ? day.tm_hour - 1 : 0; // the hour that is repeated in autumn
    while (day.tm_year + 1900 <= SEARCH_UNTIL) {
        if (has(rule, CALENDAR_YEAR, day.tm_year + 1900) &&
            has(rule, CALENDAR_MONTH, day.tm_mon + 1) && has(rule, CALENDAR_DAY, day.tm_mday) &&
            has(rule, CALENDAR_WEEKDAY, (day.tm_wday + 6) % 7)) {
            int64_t at = first_of_day(rule, &day, after_s, utc, h0);
            if (at >= 0) return at;
        }
        h0 = 0;
        day.tm_mday++;
        day.tm_hour = 12; // far from any change of the clock
        day.tm_min = day.tm_sec = 0;
        day.tm_isdst = -1;
        if ((utc ? timegm(&day) : mktime(&day)) < 0) return -1;
    }
    return -1;
}

int64_t calendar_next(const struct calendar *c, int64_t after_s)
{
    int64_t best = -1;
    for (int i = 0; i < c->n_rules; i++) {
        int64_t at = next_of_rule(c->rules[i], after_s, c->utc);
        if (at >= 0 && (best < 0 || at < best)) best = at;
    }
    return best;
}

bool calendar_duration(struct str text, uint32_t *seconds)
{
    static const struct {
        const char *unit;
        uint64_t seconds;
    } units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400}};
    struct cursor c = {text.p, text.p + text.n};
    uint64_t v = 0;
    size_t digits = 0;
    for (; c.p < c.end && isdigit((unsigned char)*c.p) && digits < 8; digits++)
        v = v * 10 + (uint64_t)(*c.p++ - '0');
    struct str unit = {c.p, (size_t)(c.end - c.p)};
    for (size_t i = 0; digits > 0 && i < sizeof units / sizeof units[0]; i++) {
        if (!str_eq(unit, str_from(units[i].unit)) || v * units[i].seconds > UINT32_MAX) continue;
        *seconds = (uint32_t)(v * units[i].seconds);
        return true;
    }
    return false;
}
