// The forms stand in a table, the most specific first; the first whose match covers the place where
// the texts part wins. Then lines are compared: the same ones in another order, or one more or less.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/drift.h"

#include <pcre2.h>
#include <string.h>

enum { LINES_MAX = 4096, SHOWN_BYTES = 160 };

#define HEX     "[0-9a-fA-F]"
#define DAY     "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
#define MONTH   "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
#define CLOCK   "\\d{1,2}:\\d{2}(?::\\d{2}(?:\\.\\d+)?)?(?: ?[AaPp][Mm])?"
#define ISO_DAY "\\d{4}-\\d{2}-\\d{2}"

static const char to_end[] =
    "move it to the end of the prompt (the last user message), or leave it out";

static const struct {
    const char *kind, *pattern, *advice;
} forms[] = {
    {"a UUID", "\\b" HEX "{8}-" HEX "{4}-" HEX "{4}-" HEX "{4}-" HEX "{12}\\b",
     "an id of the run does not belong into the shared part: leave it out, or put it last"},
    {"a date with a time", ISO_DAY "[T ,]+" CLOCK "(?:Z|[+-]\\d{2}:?\\d{2})?", to_end},
    {"a date with a time",
     "(?:" DAY ",? )?" MONTH " \\d{1,2}(?:st|nd|rd|th)?,? \\d{4},?(?: at)? " CLOCK, to_end},
    {"a date", ISO_DAY "|\\d{1,2}[./]\\d{1,2}[./]\\d{2,4}", to_end},
    {"a date",
     "(?:" DAY ",? )?(?:" MONTH " \\d{1,2}(?:st|nd|rd|th)?(?:,? \\d{4})?|\\d{1,2}\\.? " MONTH
     "(?: \\d{4})?)|" DAY,
     to_end},
    {"a time", CLOCK, to_end},
    {"a timestamp", "\\b1\\d{9}(?:\\d{3})?(?:\\.\\d+)?\\b", to_end},
    {"a hash", "\\b(?=" HEX "*\\d)(?=" HEX "*[a-fA-F])" HEX "{5,128}\\b",
     "a hash or random id does not belong into the shared part: leave it out, or put it last"},
    {"a number", "\\d+(?:[.,]\\d+)*",
     "a counter does not belong into the shared part: leave it out, or put it last"},
};

enum { N_FORMS = sizeof forms / sizeof forms[0] };

static struct str line_at(struct str text, size_t at, size_t *start)
{
    size_t from = at < text.n ? at : text.n;
    while (from > 0 && text.p[from - 1] != '\n') from--;
    const char *end = from < text.n ? memchr(text.p + from, '\n', text.n - from) : NULL;
    *start = from;
    return str_sub(text, from, end == NULL ? text.n : (size_t)(end - text.p) - from);
}

// The match in the line that holds byte `at` (or ends there: a longer number differs at its end).
static bool match_at(const pcre2_code *code, pcre2_match_data *data, struct str text, size_t at,
                     struct str *out)
{
    size_t start, from = 0;
    const struct str line = line_at(text, at, &start);
    const size_t want = at - start;
    while (from <= line.n) {
        const int n = pcre2_match(code, (PCRE2_SPTR)line.p, line.n, from, 0, data, NULL);
        if (n < 1) return false;
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(data);
        if (v[0] > want) return false;
        if (v[1] > want || (v[1] == want && v[1] > v[0])) {
            *out = str_sub(line, v[0], v[1] - v[0]);
            return true;
        }
        from = v[1] > from ? v[1] : from + 1;
    }
    return false;
}

static size_t common(struct str a, struct str b)
{
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[n] == b.p[n]) n++;
    return n;
}

// Does a form stand at the place on both sides? 1 yes, 0 no, -1 no memory.
static int try_form(struct drift *out, int i, struct str ours, struct str theirs, size_t at)
{
    int error, found = -1;
    PCRE2_SIZE where;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)forms[i].pattern, PCRE2_ZERO_TERMINATED, 0, &error, &where, NULL);
    pcre2_match_data *data = code == NULL ? NULL : pcre2_match_data_create_from_pattern(code, NULL);
    if (data != NULL) {
        struct str a, b;
        found = match_at(code, data, ours, at, &a) && match_at(code, data, theirs, at, &b) &&
                a.p - ours.p == b.p - theirs.p && !str_eq(a, b);
        if (found == 1) {
            const size_t end_a = (size_t)(a.p - ours.p) + a.n,
                         end_b = (size_t)(b.p - theirs.p) + b.n;
            *out = (struct drift){.kind = forms[i].kind,
                                  .advice = forms[i].advice,
                                  .volatile_text = true,
                                  .ours = a,
                                  .theirs = b,
                                  .same_bytes = common(str_sub(ours, end_a, ours.n),
                                                       str_sub(theirs, end_b, theirs.n))};
        }
    }
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return found;
}

// ---- lines --------------------------------------------------------------------------------------

static bool same_letters(struct str a, struct str b)
{
    int count[256] = {0};
    if (a.n != b.n || a.n < 8) return false;
    for (size_t i = 0; i < a.n; i++) {
        count[(unsigned char)a.p[i]]++;
        count[(unsigned char)b.p[i]]--;
    }
    for (int i = 0; i < 256; i++)
        if (count[i] != 0) return false;
    return true;
}

// Is this whole line among text's lines from byte `from` on?
static bool has_line(struct str text, size_t from, struct str line)
{
    for (size_t at = from; (at = str_find(text, line, at)) != SIZE_MAX; at++) {
        const bool starts = at == 0 || text.p[at - 1] == '\n';
        if (starts && (at + line.n == text.n || text.p[at + line.n] == '\n')) return true;
    }
    return false;
}

// Bytes of ours' lines behind `from` that the other side has too, up to the first that it has not.
static size_t shared_lines(struct str ours, size_t from, struct str theirs, size_t theirs_from)
{
    size_t n = 0, at = from;
    for (int i = 0; i < LINES_MAX && at < ours.n; i++) {
        size_t start;
        const struct str line = line_at(ours, at, &start);
        if (line.n > 0 && !has_line(theirs, theirs_from, line)) break;
        n += line.n + 1;
        at = start + line.n + 1;
    }
    return n < ours.n - from ? n : ours.n - from;
}

// The rest of a sentence for a person, not the whole line.
static struct str shown(struct str line, size_t skip)
{
    return str_sub(line, skip < line.n ? skip : line.n, SHOWN_BYTES);
}

static void compare_lines(struct drift *out, struct str ours, struct str theirs, size_t at)
{
    size_t start, start_theirs;
    const struct str a = line_at(ours, at, &start), b = line_at(theirs, at, &start_theirs);
    const bool ours_later = a.n >= 8 && has_line(theirs, start_theirs, a);
    const bool theirs_later = b.n >= 8 && has_line(ours, start, b);
    const size_t next = start + a.n + 1 < ours.n ? start + a.n + 1 : ours.n;
    *out = (struct drift){.kind = "text",
                          .advice = "what differs between requests belongs behind what they share",
                          .ours = shown(a, at - start),
                          .theirs = shown(b, at - start)};
    if (same_letters(a, b)) {
        out->kind =
            memchr(a.p, '{', a.n) != NULL ? "JSON keys in another order" : "words in another order";
        out->advice = "write them in one fixed order (sort the keys)";
        out->same_bytes = next - start + shared_lines(ours, next, theirs, start_theirs);
    } else if (ours_later && theirs_later) {
        out->kind = "lines in another order";
        out->advice = "send them in one fixed order (sort tools and files by name)";
        out->same_bytes = shared_lines(ours, start, theirs, start_theirs);
    } else if (ours_later) {
        out->kind = "lines that are missing here";
        out->advice = "send the same tools and files every time, or put what varies last";
        out->same_bytes = shared_lines(ours, start, theirs, start_theirs);
    } else if (theirs_later) {
        out->kind = "lines that are new here";
        out->advice = "send the same tools and files every time, or put what varies last";
        out->same_bytes = shared_lines(ours, next, theirs, start_theirs);
    }
}

bool drift_find(struct drift *out, struct str ours, struct str theirs, size_t at, struct err *e)
{
    compare_lines(out, ours, theirs, at);
    if (strcmp(out->kind, "text") != 0) return true;
    for (int i = 0; i < N_FORMS; i++) {
        const int found = try_form(out, i, ours, theirs, at);
        if (found < 0) return err_set(e, ERR_MEMORY, "no memory to compare two prompts");
        if (found == 1) return true;
    }
    return true;
}
