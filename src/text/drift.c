// The forms stand in a table, the most specific first; the first whose match covers the place where
// the texts part wins. Before them come whole lines: the same ones in another order, or one more or
// less, which may well begin with a number. What is left is text.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/drift.h"

#include <pcre2.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

enum {
    LINES_MAX = 4096,
    AHEAD_MAX = 256,  // lines that are looked at for the next one that both sides have
    LINE_LEAST = 8,   // bytes; shorter ones ("}", "---") stand anywhere
    SHOWN_BYTES = 160 // of a line
};

#define HEX    "[0-9a-fA-F]"
#define DAY    "\\b(?:Mon|Tue(?:s)?|Wed(?:nes)?|Thu(?:rs?)?|Fri|Sat(?:ur)?|Sun)(?:day)?\\b"
#define ON_DAY "(?:" DAY ",? )?"
#define MONTH                                                                             \
    "\\b(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|" \
    "Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\\b\\.?"
#define NTH     "\\d{1,2}(?:st|nd|rd|th)?"
#define CLOCK   "\\d{1,2}:\\d{2}(?::\\d{2}(?:[.,]\\d+)?)?(?: ?[AaPp][Mm])?"
#define OFFSET  "[+-]\\d{2}:?\\d{2}"
#define ZONE    "(?: ?(?:(?:Z|[A-Z]{2,5}\\b)(?:" OFFSET ")?|" OFFSET "))?"
#define ISO_DAY "\\d{4}[-/]\\d{2}[-/]\\d{2}"
#define NUM_DAY "\\d{1,2}[./]\\d{1,2}[./]\\d{2,4}"

static const char to_end[] =
    "move it to the end of the prompt (the last user message), or leave it out";
static const char no_hash[] =
    "a hash or random id does not belong into the shared part: leave it out, or put it last";

static const struct {
    const char *kind, *pattern, *advice;
} forms[] = {
    {"a UUID", "\\b" HEX "{8}-" HEX "{4}-" HEX "{4}-" HEX "{4}-" HEX "{12}\\b",
     "an id of the run does not belong into the shared part: leave it out, or put it last"},
    {"a date with a time", ON_DAY "(?:" ISO_DAY "[T ,_]+|" NUM_DAY ",? )" CLOCK ZONE, to_end},
    {"a date with a time", "\\b\\d{8}[T_-]?\\d{4}(?:\\d{2})?Z?\\b", to_end},
    {"a date with a time", // as people, mail and JavaScript write it
     ON_DAY "(?:" MONTH " +" NTH ",? \\d{4}|" NTH "\\.? " MONTH ",? \\d{4}),?(?: at)? " CLOCK ZONE,
     to_end},
    {"a date with a time", // as date(1) and logs write it
     ON_DAY MONTH " +\\d{1,2} " CLOCK ZONE "(?: \\d{4})?", to_end},
    {"a date", ON_DAY "(?:" ISO_DAY "|" NUM_DAY ")", to_end},
    {"a date",
     ON_DAY "(?:" MONTH " +" NTH "(?:,? \\d{4})?|" NTH "\\.? " MONTH "(?:,? \\d{4})?)|" DAY,
     to_end},
    {"a time", CLOCK, to_end},
    {"a timestamp", "\\b1\\d{9}(?:\\d{3})?(?:\\.\\d+)?\\b", to_end},
    {"a hash", "\\b(?=" HEX "*\\d)(?=" HEX "*[a-fA-F])" HEX "{5,128}\\b", no_hash},
    {"a random id", // letters between digits, as in V1StGXR8
     "(?<![A-Za-z0-9])(?=[A-Za-z]*\\d+[A-Za-z]+\\d)[A-Za-z0-9]{8,}", no_hash},
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

static size_t common(struct str a, size_t at_a, struct str b, size_t at_b)
{
    size_t n = 0;
    while (at_a + n < a.n && at_b + n < b.n && a.p[at_a + n] == b.p[at_b + n]) n++;
    return n;
}

// Behind the change both sides go on alike from these places.
static void set_same(struct drift *out, struct str ours, size_t from, struct str theirs,
                     size_t theirs_from)
{
    out->same_from = from;
    out->theirs_from = theirs_from;
    out->same_bytes = common(ours, from, theirs, theirs_from);
}

// ---- forms --------------------------------------------------------------------------------------

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
            *out = (struct drift){.kind = forms[i].kind,
                                  .advice = forms[i].advice,
                                  .volatile_text = true,
                                  .ours = a,
                                  .theirs = b};
            set_same(out, ours, (size_t)(a.p - ours.p) + a.n, theirs,
                     (size_t)(b.p - theirs.p) + b.n);
        }
    }
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return found;
}

// ---- lines --------------------------------------------------------------------------------------

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

// A sum over the words: equal for the same words in any order.
static uint64_t words_of(struct str s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s.n; i++) {
        size_t n = 0;
        while (i + n < s.n && is_word(s.p[i + n])) n++;
        if (n > 0) sum += hash64(s.p + i, n, 0);
        i += n;
    }
    return sum;
}

static bool is_json(struct str line)
{
    return memchr(line.p, '{', line.n) != NULL;
}

// The same words in another order, of JSON also with other spaces between them.
static bool same_words(struct str a, struct str b)
{
    const bool comparable = a.n == b.n || (a.n > 0 && b.n > 0 && is_json(a) && is_json(b));
    return comparable && a.n >= LINE_LEAST && words_of(a) == words_of(b);
}

// Where this whole line stands among text's lines from the line at byte `from` on; SIZE_MAX: nowhere.
static size_t find_line(struct str text, size_t from, struct str line)
{
    size_t start;
    for (size_t at = from; at < text.n; at = start + 1) {
        const struct str other = line_at(text, at, &start);
        if (str_eq(other, line)) return start;
        start += other.n;
    }
    return SIZE_MAX;
}

// Bytes of ours' lines from `from` on that the other side has too, or has in another order of their
// words, up to the first that it has not.
static size_t shared_lines(struct str ours, size_t from, struct str theirs, size_t theirs_from)
{
    size_t at = from, other_at = theirs_from, start;
    for (int i = 0; i < LINES_MAX && at < ours.n; i++) {
        const struct str line = line_at(ours, at, &start);
        const struct str other = line_at(theirs, other_at, &start);
        if (line.n > 0 && !str_eq(line, other) && !same_words(line, other) &&
            find_line(theirs, theirs_from, line) == SIZE_MAX)
            break;
        at += line.n + 1;
        other_at = start + other.n + 1;
    }
    return (at < ours.n ? at : ours.n) - from;
}

// From the first line of ours, at or behind `from`, that the other side has too.
static void set_same_lines(struct drift *out, struct str ours, size_t from, struct str theirs,
                           size_t theirs_from)
{
    size_t start;
    for (int i = 0; i < AHEAD_MAX && from < ours.n; i++) {
        const struct str line = line_at(ours, from, &start);
        const size_t found = line.n < LINE_LEAST ? SIZE_MAX : find_line(theirs, theirs_from, line);
        if (found != SIZE_MAX) {
            set_same(out, ours, start, theirs, found);
            return;
        }
        from = start + line.n + 1;
    }
}

// The rest of a sentence for a person, not the whole line; whole characters.
static struct str shown(struct str line, size_t skip)
{
    struct str s = str_sub(line, skip, SHOWN_BYTES);
    s.n -= utf8_partial_tail(s);
    return s;
}

// The words that differ, without what the two lines end with alike.
static void compare_words(struct drift *out, struct str ours, struct str theirs, size_t at)
{
    size_t start, start_theirs, from = at, n = 0;
    const struct str line_a = line_at(ours, at, &start),
                     line_b = line_at(theirs, at, &start_theirs);
    while (from > start && is_word(ours.p[from - 1]) && at - from < SHOWN_BYTES / 2) from--;
    const struct str a = str_sub(ours, from, start + line_a.n - from),
                     b = str_sub(theirs, from, start_theirs + line_b.n - from);
    const size_t most = a.n < b.n ? a.n - (at - from) : b.n - (at - from);
    while (n < most && a.p[a.n - n - 1] == b.p[b.n - n - 1]) n++;
    while (n > 0 && is_word(a.p[a.n - n]) &&
           ((a.n > n && is_word(a.p[a.n - n - 1])) || (b.n > n && is_word(b.p[b.n - n - 1]))))
        n--; // a word that only ends alike is another word
    out->ours = shown(str_sub(a, 0, a.n - n), 0);
    out->theirs = shown(str_sub(b, 0, b.n - n), 0);
    if (n > 0)
        set_same(out, ours, from + a.n - n, theirs, from + b.n - n);
    else
        set_same_lines(out, ours, start + line_a.n + 1, theirs, start_theirs + line_b.n + 1);
}

static void compare_lines(struct drift *out, struct str ours, struct str theirs, size_t at)
{
    size_t start, start_theirs;
    const struct str a = line_at(ours, at, &start), b = line_at(theirs, at, &start_theirs);
    const size_t in_theirs = a.n >= LINE_LEAST ? find_line(theirs, start_theirs, a) : SIZE_MAX;
    const size_t in_ours = b.n >= LINE_LEAST ? find_line(ours, start, b) : SIZE_MAX;
    const struct str none = str_sub(ours, at, 0);
    *out = (struct drift){.ours = shown(a, at - start), .theirs = shown(b, at - start)};
    if (in_theirs != SIZE_MAX && in_ours != SIZE_MAX) {
        out->kind = "lines in another order";
        out->advice = "send them in one fixed order (sort tools and files by name)";
        out->same_from = at;
        out->same_bytes = shared_lines(ours, start, theirs, start_theirs) - (at - start);
    } else if (same_words(a, b)) {
        out->kind = !is_json(a)  ? "words in another order"
                    : a.n == b.n ? "JSON keys in another order"
                                 : "the same JSON written differently";
        out->advice = "write them in one fixed order (sort the keys), with the same spaces";
        out->same_from = at;
        out->same_bytes = shared_lines(ours, start, theirs, start_theirs) - (at - start);
    } else if (in_theirs != SIZE_MAX) {
        out->kind = "lines that are missing here";
        out->advice = "send the same tools and files every time, or put what varies last";
        out->ours = none;
        out->theirs = shown(b, 0);
        set_same(out, ours, at, theirs, in_theirs + (at - start));
    } else if (in_ours != SIZE_MAX) {
        out->kind = "lines that are new here";
        out->advice = "send the same tools and files every time, or put what varies last";
        out->ours = shown(a, 0);
        out->theirs = none;
        set_same(out, ours, in_ours, theirs, start_theirs);
    }
}

bool drift_find(struct drift *out, struct str ours, struct str theirs, size_t at, struct err *e)
{
    compare_lines(out, ours, theirs, at);
    for (int i = 0; out->kind == NULL && i < N_FORMS; i++)
        if (try_form(out, i, ours, theirs, at) < 0)
            return err_set(e, ERR_MEMORY, "no memory to compare two prompts");
    if (out->kind != NULL) return true;
    *out = (struct drift){.kind = "text",
                          .advice = "what differs between requests belongs behind what they share",
                          .same_from = at};
    compare_words(out, ours, theirs, at);
    return true;
}
