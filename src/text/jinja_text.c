// See the header. Without a guard byte in s every search is a memmem; with one (a request that
// wrote a control token's text) the slow paths compare byte by byte and skip guards on both sides.
#include "text/jinja_text.h"

#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/tokenizer.h"

static const char guard = TOKENIZE_GUARD;

static bool has_guard(struct str s)
{
    return s.n > 0 && memchr(s.p, guard, s.n) != NULL;
}

static bool is_space_cp(uint32_t c)
{
    if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t text_space_len(struct str s, size_t i)
{
    uint32_t cp;
    size_t n = i < s.n ? utf8_decode(s.p + i, s.n - i, &cp) : 0;
    return n > 0 && is_space_cp(cp) ? n : 0;
}

// Start of the character that ends at byte `end`.
static size_t char_start(struct str s, size_t end)
{
    size_t i = end;
    while (i > 0 && end - i < 4) {
        i--;
        if (((unsigned char)s.p[i] & 0xc0) != 0x80) return i;
    }
    return i;
}

struct str text_strip_start(struct str s)
{
    for (size_t n; (n = text_space_len(s, 0)) > 0;) s = str_sub(s, n, s.n);
    return s;
}

struct str text_strip_end(struct str s)
{
    while (s.n > 0) {
        size_t i = char_start(s, s.n);
        if (text_space_len(s, i) != s.n - i) break;
        s.n = i;
    }
    return s;
}

static bool in_set(struct str set, struct str ch)
{
    for (size_t i = 0; i < set.n;) {
        size_t n = text_char_len(set, i);
        if (str_eq(str_sub(set, i, n), ch)) return true;
        i += n;
    }
    return false;
}

struct str text_strip_set_start(struct str s, struct str set)
{
    while (s.n > 0) {
        size_t n = text_char_len(s, 0);
        if (!in_set(set, str_sub(s, 0, n))) break;
        s = str_sub(s, n, s.n);
    }
    return s;
}

struct str text_strip_set_end(struct str s, struct str set)
{
    while (s.n > 0) {
        size_t i = char_start(s, s.n);
        if (!in_set(set, str_sub(s, i, s.n - i))) break;
        s.n = i;
    }
    return s;
}

size_t text_char_len(struct str s, size_t i)
{
    if (i >= s.n) return 0;
    size_t lead = s.p[i] == guard;
    if (i + lead >= s.n) return lead;
    size_t n = utf8_valid_len(s.p + i + lead, s.n - i - lead);
    return lead + (n > 0 ? n : 1);
}

size_t text_n_chars(struct str s)
{
    size_t n = 0;
    if (!has_guard(s)) { // what text_char_len would say for valid UTF-8, at memory speed
        for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
        return n;
    }
    for (size_t i = 0; i < s.n; i += text_char_len(s, i)) n++;
    return n;
}

size_t text_offset(struct str s, size_t i)
{
    size_t at = 0;
    while (i > 0 && at < s.n) {
        at += text_char_len(s, at);
        i--;
    }
    return at;
}

// Bytes of s from `at` on that spell needle, guards skipped; SIZE_MAX when they do not.
static size_t spelled(struct str s, size_t at, struct str needle)
{
    size_t i = at, k = 0;
    while (k < needle.n) {
        if (needle.p[k] == guard) {
            k++;
        } else if (i < s.n && s.p[i] == guard) {
            i++;
        } else if (i < s.n && s.p[i] == needle.p[k]) {
            i++;
            k++;
        } else {
            return SIZE_MAX;
        }
    }
    return i - at;
}

// Where both sides may hold guards: byte by byte.
static size_t find_slowly(struct str s, struct str needle, size_t from, size_t *n)
{
    for (size_t i = from; i < s.n; i++) {
        if (s.p[i] == guard && i + 1 < s.n) continue; // a match starts at a character
        size_t len = spelled(s, i, needle);
        if (len == SIZE_MAX) continue;
        *n = len;
        return i;
    }
    return SIZE_MAX;
}

// In windows, so that finding all of many matches one after the other stays linear: a call reads
// little more than the way to its match. A match is either exact or spans a guard.
size_t text_find(struct str s, struct str needle, size_t from, size_t *n)
{
    enum { WINDOW = 4096 };
    *n = needle.n;
    if (has_guard(needle)) return find_slowly(s, needle, from, n);
    for (size_t pos = from; pos <= s.n;) {
        struct str window = str_sub(s, pos, WINDOW);
        const char *g = window.n == 0 ? NULL : memchr(window.p, guard, window.n);
        size_t stop = g == NULL ? pos + window.n : (size_t)(g - s.p);
        size_t hit = str_find(str_sub(s, 0, stop + needle.n), needle, pos);
        if (hit != SIZE_MAX) return hit;
        size_t i = stop >= from + needle.n ? stop - needle.n + 1 : from;
        for (; g != NULL && i < stop; i++) {
            size_t len = s.p[i] == guard ? SIZE_MAX : spelled(s, i, needle);
            if (len == SIZE_MAX) continue;
            *n = len;
            return i;
        }
        if (g == NULL && stop == s.n) break;
        pos = g == NULL ? stop : stop + 1;
    }
    return SIZE_MAX;
}

size_t text_rfind(struct str s, struct str needle, size_t *n)
{
    *n = needle.n;
    if (!has_guard(s) && !has_guard(needle)) return str_rfind(s, needle);
    for (size_t i = s.n + 1; i-- > 0;) {
        size_t len = i < s.n && s.p[i] == guard ? SIZE_MAX : spelled(s, i, needle);
        if (len == SIZE_MAX) continue;
        *n = len;
        return i;
    }
    return SIZE_MAX;
}

bool text_eq(struct str a, struct str b)
{
    if (str_eq(a, b)) return true;
    if (!has_guard(a) && !has_guard(b)) return false;
    size_t n = spelled(a, 0, b);
    while (n < a.n && a.p[n] == guard) n++;
    return n == a.n;
}

size_t text_prefix(struct str s, struct str part)
{
    if (str_starts(s, part)) return part.n;
    return has_guard(s) || has_guard(part) ? spelled(s, 0, part) : SIZE_MAX;
}

size_t text_suffix(struct str s, struct str part)
{
    if (str_ends(s, part)) return part.n;
    if (!has_guard(s) && !has_guard(part)) return SIZE_MAX;
    size_t n, at = text_rfind(s, part, &n);
    return at != SIZE_MAX && at + n == s.n ? n : SIZE_MAX;
}

int text_cmp(struct str a, struct str b)
{
    return text_eq(a, b) ? 0 : str_cmp(a, b);
}

// ---- case -----------------------------------------------------------------------------------

static bool is_cased(uint32_t cp)
{
    return utf8proc_toupper((int32_t)cp) != (int32_t)cp ||
           utf8proc_tolower((int32_t)cp) != (int32_t)cp;
}

static bool is_word_cp(uint32_t cp)
{
    if (cp < 0x80) return (cp | 32) - 'a' < 26;
    utf8proc_category_t c = utf8proc_category((int32_t)cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

// Does a word begin behind a character? Jinja's title filter splits at white space and -([{< only;
// Python's str.title at everything that has no case.
static bool begins_word(uint32_t previous, enum text_case c)
{
    if (c == CASE_TITLE) return !is_word_cp(previous);
    return is_space_cp(previous) ||
           (previous < 0x80 && previous != 0 && strchr("-([{<", (int)previous) != NULL);
}

struct str text_to_case(struct arena *a, struct str s, enum text_case c)
{
    struct buf b = {0};
    bool first = true;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t n = utf8_decode(s.p + i, s.n - i, &cp);
        if (n == 0) {
            buf_c(&b, s.p[i++]);
            continue;
        }
        bool upper = c == CASE_UPPER || (c != CASE_LOWER && first);
        char utf8[4];
        int32_t to = upper ? utf8proc_toupper((int32_t)cp) : utf8proc_tolower((int32_t)cp);
        size_t len = utf8_encode((uint32_t)to, utf8);
        if (upper && cp == 0xdf) // the one common letter whose upper case is two
            buf_z(&b, c == CASE_UPPER ? "SS" : "Ss");
        else
            buf_put(&b, utf8, len);
        first = c != CASE_CAPITALIZE && begins_word(cp, c);
        i += n;
    }
    struct str out = b.failed ? (struct str){0} : arena_str(a, buf_view(&b));
    buf_free(&b);
    return out;
}

bool text_has_case(struct str s, bool upper)
{
    bool any = false;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t n = utf8_decode(s.p + i, s.n - i, &cp);
        i += n > 0 ? n : 1;
        if (n == 0 || !is_cased(cp)) continue;
        bool is_upper = utf8proc_toupper((int32_t)cp) == (int32_t)cp;
        if (is_upper != upper) return false;
        any = true;
    }
    return any;
}

// ---- repr -----------------------------------------------------------------------------------

static bool is_printable(uint32_t cp)
{
    if (cp == ' ') return true;
    switch (utf8proc_category((int32_t)cp)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO: return false;
    default: return true;
    }
}

static void repr_char(struct buf *out, uint32_t cp, struct str raw, char quote)
{
    if (cp == '\n' || cp == '\r' || cp == '\t') {
        buf_c(out, '\\');
        buf_c(out, cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
    } else if (cp == '\\' || cp == (unsigned char)quote) {
        buf_c(out, '\\');
        buf_c(out, (char)cp);
    } else if (is_printable(cp)) {
        buf_str(out, raw);
    } else {
        buf_printf(out, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
    }
}

void text_repr(struct buf *out, struct str s)
{
    bool single = s.n > 0 && memchr(s.p, '\'', s.n) != NULL;
    bool twice = s.n > 0 && memchr(s.p, '"', s.n) != NULL;
    char quote = single && !twice ? '"' : '\'';
    buf_c(out, quote);
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t n = utf8_decode(s.p + i, s.n - i, &cp);
        if (n == 0)
            buf_c(out, s.p[i]);
        else
            repr_char(out, cp, str_sub(s, i, n), quote);
        i += n > 0 ? n : 1;
    }
    buf_c(out, quote);
}
