// The rules are Jinja 3's with trim_blocks, lstrip_blocks and without keep_trailing_newline:
//   "-" beside a tag removes all white space on that side; "+" switches the two options off;
//   a newline right behind a block or comment goes; spaces before a block or comment at the start
//   of a line go. Neither holds for {{ }}.
// Invariant: line and column always belong to pos; only advance() moves them.
#include "text/jinja_lexer.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_text.h"

enum { MAX_BRACKETS = 200 };

struct lexer {
    struct str src;
    size_t pos;
    uint32_t line, column;
    bool line_starting; // the last tag swallowed the end of its line
    char brackets[MAX_BRACKETS];
    size_t n_brackets;
    struct lex_token *tokens;
    size_t n, cap;
    struct arena *arena;
    struct err *err;
};

static bool fail(struct lexer *l, const char *what)
{
    return err_set(l->err, ERR_FORMAT, "template line %u column %u: %s", l->line, l->column, what);
}

static void advance(struct lexer *l, size_t n)
{
    for (size_t end = l->pos + n; l->pos < end; l->pos++) {
        unsigned char c = (unsigned char)l->src.p[l->pos];
        if (c == '\n') {
            l->line++;
            l->column = 1;
        } else {
            l->column += c < 0x80 || c >= 0xc0;
        }
    }
}

static struct str rest(const struct lexer *l)
{
    return str_sub(l->src, l->pos, l->src.n);
}
static char at(const struct lexer *l, size_t i)
{
    return i < l->src.n - l->pos ? l->src.p[l->pos + i] : '\0';
}

// Appends a token of n bytes at pos and moves behind it.
static bool put(struct lexer *l, enum lex_kind kind, size_t n, struct value v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 256 : l->cap * 2;
        struct lex_token *p = arena_array(l->arena, cap, sizeof *p);
        if (p == NULL)
            return err_set(l->err, ERR_MEMORY, "out of memory while reading a chat template");
        if (l->n > 0) memcpy(p, l->tokens, l->n * sizeof *p);
        l->tokens = p;
        l->cap = cap;
    }
    l->tokens[l->n++] = (struct lex_token){.kind = kind,
                                           .line = l->line,
                                           .column = l->column,
                                           .s = str_sub(l->src, l->pos, n),
                                           .v = v};
    advance(l, n);
    return true;
}

static size_t space_len(struct str s)
{
    size_t i = 0;
    for (size_t n; (n = text_space_len(s, i)) > 0;) i += n;
    return i;
}

// ---- text and white space control -----------------------------------------------------------

// Text of n bytes before a tag whose sign is '-', '+' or anything else.
static bool put_text(struct lexer *l, size_t n, char sign, bool is_print)
{
    struct str text = str_sub(l->src, l->pos, n);
    struct str kept = text;
    if (sign == '-') {
        kept = text_strip_end(text);
    } else if (sign != '+' && !is_print) {
        size_t newline = str_rfind(text, STR("\n"));
        size_t start = newline == SIZE_MAX ? 0 : newline + 1;
        struct str tail = str_sub(text, start, text.n);
        if ((start > 0 || l->line_starting) && space_len(tail) == tail.n) kept.n = start;
    }
    if (kept.n > 0 && !put(l, LEX_TEXT, kept.n, (struct value){0})) return false;
    advance(l, text.n - kept.n);
    return true;
}

// Moves behind the end of a tag, which is n bytes long, and over what it swallows.
static void end_tag(struct lexer *l, char sign, size_t n, bool is_print)
{
    advance(l, n);
    if (sign == '-')
        advance(l, space_len(rest(l)));
    else if (sign != '+' && !is_print && at(l, 0) == '\n')
        advance(l, 1);
    l->line_starting = l->pos > 0 && l->src.p[l->pos - 1] == '\n';
}

static bool comment(struct lexer *l)
{
    size_t end = str_find(l->src, STR("#}"), l->pos + 2);
    if (end == SIZE_MAX) return fail(l, "this comment has no end '#}'");
    char sign = end > l->pos + 2 ? l->src.p[end - 1] : ' ';
    end_tag(l, sign, end + 2 - l->pos, false);
    return true;
}

// The length of "{% word %}" at index i of the source with both signs; 0 when it is not there.
static size_t word_tag(struct str src, size_t i, struct str word, char *open_sign, char *close_sign)
{
    size_t start = i;
    i += 2;
    *open_sign = i < src.n ? src.p[i] : ' ';
    if (*open_sign == '-' || *open_sign == '+') i++;
    i += space_len(str_sub(src, i, src.n));
    if (!str_starts(str_sub(src, i, src.n), word)) return 0;
    i += word.n;
    i += space_len(str_sub(src, i, src.n));
    *close_sign = i < src.n ? src.p[i] : ' ';
    if (*close_sign == '-' || *close_sign == '+') i++;
    return str_starts(str_sub(src, i, src.n), STR("%}")) ? i + 2 - start : 0;
}

// Behind {% raw %}: everything up to {% endraw %} is text.
static bool raw(struct lexer *l)
{
    size_t from = l->pos;
    for (;;) {
        char open_sign, close_sign;
        size_t tag = str_find(l->src, STR("{%"), from);
        if (tag == SIZE_MAX) return fail(l, "{% raw %} without {% endraw %}");
        size_t n = word_tag(l->src, tag, STR("endraw"), &open_sign, &close_sign);
        from = tag + 2;
        if (n == 0) continue;
        if (!put_text(l, tag - l->pos, open_sign, false)) return false;
        end_tag(l, close_sign, n, false);
        return true;
    }
}

// ---- inside a tag ---------------------------------------------------------------------------

static bool is_name_char(char c, bool first)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_') return true;
    return (unsigned char)c >= 0x80 || (!first && c >= '0' && c <= '9');
}

// An escape at s.p[i] (a backslash) as Python has it; returns how many bytes it takes.
static size_t unescape(struct str s, size_t i, struct buf *out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = s.p[i + 1], utf8[4];
    const char *hit = c == '\0' ? NULL : strchr(from, c);
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (hit != NULL) {
        buf_c(out, to[hit - from]);
        return 2;
    }
    if (c == '\n') return 2;
    unsigned long cp = 0;
    size_t n = 2, base = 16;
    if (c >= '0' && c <= '7') {
        digits = 3;
        base = 8;
        n = 1;
    }
    size_t got = 0;
    for (; got < digits && i + n < s.n; got++, n++) {
        char d = s.p[i + n];
        unsigned v = d >= '0' && d <= '9' ? (unsigned)(d - '0') : (unsigned)((d | 32) - 'a' + 10);
        if (v >= base || (d > '9' && (d | 32) < 'a')) break;
        cp = cp * base + v;
    }
    size_t len = cp <= 0x10ffff ? utf8_encode((uint32_t)cp, utf8) : 0;
    if (got == 0 || (base == 16 && got < digits) || len == 0) { // unknown: stays as it is
        buf_put(out, s.p + i, 2);
        return 2;
    }
    buf_put(out, utf8, len);
    return n;
}

static bool string(struct lexer *l)
{
    struct str s = rest(l);
    size_t end = 1;
    bool has_escapes = false;
    for (; end < s.n && s.p[end] != s.p[0]; end++) {
        if (s.p[end] != '\\') continue;
        has_escapes = true;
        end++;
    }
    if (end >= s.n) return fail(l, "this string has no end");
    struct str body = str_sub(s, 1, end - 1);
    if (!has_escapes) return put(l, LEX_STRING, end + 1, value_str(body));
    struct buf b = {0};
    for (size_t i = 0; i < body.n;) {
        if (body.p[i] == '\\')
            i += unescape(body, i, &b);
        else
            buf_c(&b, body.p[i++]);
    }
    struct str copy = arena_str(l->arena, buf_view(&b));
    bool ok = copy.p != NULL && !b.failed;
    buf_free(&b);
    if (!ok) return err_set(l->err, ERR_MEMORY, "out of memory while reading a chat template");
    return put(l, LEX_STRING, end + 1, value_str(copy));
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return 99;
}

static bool integer(struct lexer *l, struct str digits, size_t n, int base)
{
    int64_t i = 0;
    for (size_t k = 0; k < digits.n; k++)
        if (__builtin_mul_overflow(i, (int64_t)base, &i) ||
            __builtin_add_overflow(i, (int64_t)digit_of(digits.p[k]), &i)) {
            if (base != 10) return fail(l, "this number is too large");
            return put(l, LEX_NUMBER, n, (struct value){.kind = VALUE_BIGINT, .s = digits});
        }
    return put(l, LEX_NUMBER, n, value_int(i));
}

// At least the length of the number at the start of s.
static size_t number_span(struct str s)
{
    size_t n = 0;
    while (n < s.n && (digit_of(s.p[n]) < 99 || strchr("._xo+-", s.p[n]) != NULL)) n++;
    return n;
}

static bool number(struct lexer *l)
{
    struct str s = rest(l);
    int base = 10;
    size_t i = 0, m = 0;
    char kind = s.n > 1 && s.p[0] == '0' ? (char)(s.p[1] | 32) : ' ';
    if (kind == 'x' || kind == 'o' || kind == 'b') {
        base = kind == 'x' ? 16 : kind == 'o' ? 8 : 2;
        i = 2;
    }
    char *digits = arena_alloc(l->arena, number_span(s) + 3);
    if (digits == NULL)
        return err_set(l->err, ERR_MEMORY, "out of memory while reading a chat template");
    for (; i < s.n && (digit_of(s.p[i]) < base || s.p[i] == '_'); i++)
        if (s.p[i] != '_') digits[m++] = s.p[i];
    if (m == 0) return fail(l, "expected digits behind 0x, 0o or 0b");
    size_t whole = i;
    if (base == 10 && i + 1 < s.n && s.p[i] == '.' && digit_of(s.p[i + 1]) < 10) {
        digits[m++] = s.p[i++];
        for (; i < s.n && (digit_of(s.p[i]) < 10 || s.p[i] == '_'); i++)
            if (s.p[i] != '_') digits[m++] = s.p[i];
    }
    if (base == 10 && i < s.n && (s.p[i] | 32) == 'e') {
        size_t k = i + 1;
        bool sign = k < s.n && (s.p[k] == '+' || s.p[k] == '-');
        if (k + sign < s.n && digit_of(s.p[k + sign]) < 10) {
            digits[m++] = 'e';
            if (sign) digits[m++] = s.p[k++];
            for (i = k; i < s.n && digit_of(s.p[i]) < 10; i++) digits[m++] = s.p[i];
        }
    }
    if (i == whole) return integer(l, (struct str){digits, m}, i, base);
    return put(l, LEX_NUMBER, i, (struct value){.kind = VALUE_FLOAT, .f = strtod(digits, NULL)});
}

static bool operator(struct lexer *l)
{
    static const char *const twos[] = {"//", "**", "==", "!=", ">=", "<="};
    char c = at(l, 0);
    if (c == '(' || c == '[' || c == '{') {
        if (l->n_brackets == MAX_BRACKETS) return fail(l, "more than 200 open brackets");
        l->brackets[l->n_brackets++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (l->n_brackets == 0 || l->brackets[--l->n_brackets] != c)
            return fail(l, "this bracket was never opened");
    }
    for (size_t i = 0; i < sizeof twos / sizeof *twos; i++)
        if (str_starts(rest(l), str_from(twos[i]))) return put(l, LEX_OP, 2, (struct value){0});
    if (c == '\0' || strchr("+-/*%~[](){}><=.:|,", c) == NULL)
        return fail(l, "this character means nothing inside a tag");
    return put(l, LEX_OP, 1, (struct value){0});
}

// One token inside a tag; *done when it was the end.
static bool inside(struct lexer *l, struct str close, bool is_print, bool *done)
{
    advance(l, space_len(rest(l)));
    struct str s = rest(l);
    if (s.n == 0) return fail(l, is_print ? "'{{' without '}}'" : "'{%' without '%}'");
    bool sign = s.p[0] == '-' || (s.p[0] == '+' && !is_print);
    if (l->n_brackets == 0 && str_starts(str_sub(s, sign, s.n), close)) {
        char c = s.p[0];
        *done = true;
        if (!put(l, LEX_CLOSE, 0, (struct value){0})) return false;
        end_tag(l, c, close.n + sign, is_print);
        return true;
    }
    if (s.p[0] == '"' || s.p[0] == '\'') return string(l);
    if (s.p[0] >= '0' && s.p[0] <= '9') return number(l);
    if (!is_name_char(s.p[0], true)) return operator(l);
    size_t n = 1;
    while (n < s.n && is_name_char(s.p[n], false)) n++;
    return put(l, LEX_NAME, n, (struct value){0});
}

static bool tag(struct lexer *l)
{
    bool is_print = at(l, 1) == '{', done = false;
    char open_sign, close_sign;
    if (!is_print) {
        size_t n = word_tag(l->src, l->pos, STR("raw"), &open_sign, &close_sign);
        if (n > 0) {
            end_tag(l, close_sign == '-' ? '-' : '+', n, false);
            return raw(l);
        }
    }
    if (!put(l, is_print ? LEX_PRINT : LEX_BLOCK, 2, (struct value){0})) return false;
    if (at(l, 0) == '-' || at(l, 0) == '+') advance(l, 1);
    l->n_brackets = 0;
    while (!done)
        if (!inside(l, is_print ? STR("}}") : STR("%}"), is_print, &done)) return false;
    return true;
}

static size_t next_tag(const struct lexer *l)
{
    for (size_t i = l->pos; i + 1 < l->src.n; i++) {
        const char *open = memchr(l->src.p + i, '{', l->src.n - 1 - i);
        if (open == NULL) break;
        i = (size_t)(open - l->src.p);
        if (open[1] == '{' || open[1] == '%' || open[1] == '#') return i;
    }
    return l->src.n;
}

bool jinja_lex(struct lex_tokens *out, struct str source, struct arena *a, struct err *e)
{
    struct lexer l = {
        .src = source, .line = 1, .column = 1, .line_starting = true, .arena = a, .err = e};
    if (str_ends(source, STR("\n"))) l.src.n--;
    while (l.pos < l.src.n) {
        size_t i = next_tag(&l);
        if (i == l.src.n) {
            if (!put(&l, LEX_TEXT, i - l.pos, (struct value){0})) return false;
            break;
        }
        char kind = l.src.p[i + 1], sign = i + 2 < l.src.n ? l.src.p[i + 2] : ' ';
        if (!put_text(&l, i - l.pos, sign, kind == '{')) return false;
        if (!(kind == '#' ? comment(&l) : tag(&l))) return false;
    }
    if (!put(&l, LEX_END, 0, (struct value){0})) return false;
    *out = (struct lex_tokens){l.tokens, l.n};
    return true;
}
