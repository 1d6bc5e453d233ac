// All forms of a secret are made once, when it is added; redacting is then a search for fixed
// texts. The first byte sorts out nearly every position, so that the cost is one look per byte.
#include "base/redact.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PART_MIN_BYTES = 4,   // of a secret that was cut through
    BASE64_MIN_BYTES = 6, // a shorter piece of base64 is everywhere
    LINE_MIN_BYTES = 12,  // of one line of a secret of several
    MAX_SECRET_BYTES = 65536,
};

// ---- forms ----------------------------------------------------------------------------------

static bool put_pattern(struct redactor *r, const char *name, struct redact_pattern p,
                        struct str text, struct err *e)
{
    struct redact_pattern *list = realloc(r->patterns, (r->n + 1) * sizeof *list);
    if (list != NULL) r->patterns = list;
    p.text = malloc(text.n);
    p.name = strdup(name);
    if (list == NULL || p.text == NULL || p.name == NULL) {
        free(p.text);
        free(p.name);
        return err_set(e, ERR_MEMORY, "no memory for a secret");
    }
    memcpy(p.text, text.p, text.n);
    p.n = text.n;
    r->starts[(unsigned char)text.p[0]] = true;
    list[r->n++] = p;
    return true;
}

// A form that is the secret itself again is no second pattern.
static bool put_form(struct redactor *r, const char *name, struct str secret, struct buf *form,
                     struct err *e)
{
    struct str text = buf_view(form);
    bool ok = !form->failed || err_set(e, ERR_MEMORY, "no memory for a secret");
    if (ok && !str_eq(text, secret)) ok = put_pattern(r, name, (struct redact_pattern){0}, text, e);
    buf_free(form);
    return ok;
}

static bool put_html(struct redactor *r, const char *name, struct str secret, const char *quote,
                     struct err *e)
{
    struct buf form = {0};
    for (size_t i = 0; i < secret.n; i++) {
        char c = secret.p[i];
        if (c == '&')
            buf_z(&form, "&amp;");
        else if (c == '<')
            buf_z(&form, "&lt;");
        else if (c == '>')
            buf_z(&form, "&gt;");
        else if (c == '"')
            buf_z(&form, "&quot;");
        else if (c == '\'')
            buf_z(&form, quote);
        else
            buf_c(&form, c);
    }
    return put_form(r, name, secret, &form, e);
}

static bool put_json(struct redactor *r, const char *name, struct str secret, struct err *e)
{
    struct buf form = {0};
    buf_json(&form, secret);
    if (!form.failed) { // without its quotes
        memmove(form.p, form.p + 1, form.n - 2);
        form.n -= 2;
    }
    return put_form(r, name, secret, &form, e);
}

static bool put_hex(struct redactor *r, const char *name, struct str secret, const char *digits,
                    struct err *e)
{
    struct buf form = {0};
    for (size_t i = 0; i < secret.n; i++) {
        buf_c(&form, digits[(unsigned char)secret.p[i] >> 4]);
        buf_c(&form, digits[(unsigned char)secret.p[i] & 15]);
    }
    bool ok = !form.failed || err_set(e, ERR_MEMORY, "no memory for a secret");
    ok = ok && put_pattern(r, name, (struct redact_pattern){.hex = true}, buf_view(&form), e);
    buf_free(&form);
    return ok;
}

// "&#83;&#85;": what HTML knows beside the names and hex.
static bool put_decimal(struct redactor *r, const char *name, struct str secret, struct err *e)
{
    struct buf form = {0};
    for (size_t i = 0; i < secret.n; i++) buf_printf(&form, "&#%u;", (unsigned char)secret.p[i]);
    return put_form(r, name, secret, &form, e);
}

static bool put_percent(struct redactor *r, const char *name, struct str secret, const char *digits,
                        struct err *e)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    struct buf form = {0};
    for (size_t i = 0; i < secret.n; i++) {
        unsigned char c = (unsigned char)secret.p[i];
        if (c != 0 && strchr(plain, c) != NULL) {
            buf_c(&form, (char)c);
            continue;
        }
        buf_c(&form, '%');
        buf_c(&form, digits[c >> 4]);
        buf_c(&form, digits[c & 15]);
    }
    return put_form(r, name, secret, &form, e);
}

// The characters that this secret decides alone when `before` other bytes of a group of three stand
// in front of it.
static bool put_base64(struct redactor *r, const char *name, struct str secret, unsigned before,
                       const char *alphabet, struct err *e)
{
    struct buf form = {0};
    size_t n = secret.n + before, first = before == 0 ? 0 : before + 1, end = n * 8 / 6;
    for (size_t i = first; i < end; i++) {
        unsigned bits = 0;
        for (unsigned b = 0; b < 6; b++) {
            size_t bit = i * 6 + b;
            unsigned char c = (unsigned char)secret.p[bit / 8 - before];
            bits = bits << 1 | (c >> (7 - bit % 8) & 1u);
        }
        buf_c(&form, alphabet[bits]);
    }
    struct redact_pattern p = {
        .base64 = true, .spills_left = before != 0, .spills_right = n % 3 != 0};
    bool ok = !form.failed || err_set(e, ERR_MEMORY, "no memory for a secret");
    if (ok && form.n >= BASE64_MIN_BYTES) ok = put_pattern(r, name, p, buf_view(&form), e);
    buf_free(&form);
    return ok;
}

static bool put_forms(struct redactor *r, const char *name, struct str s, struct err *e)
{
    static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
    static const char *const alphabets[] = {
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"};
    bool ok = put_pattern(r, name, (struct redact_pattern){0}, s, e) && put_json(r, name, s, e) &&
              put_percent(r, name, s, upper, e) && put_percent(r, name, s, lower, e) &&
              put_hex(r, name, s, lower, e) && put_hex(r, name, s, upper, e) &&
              put_html(r, name, s, "&#39;", e) && put_html(r, name, s, "&#x27;", e) &&
              put_decimal(r, name, s, e);
    for (unsigned before = 0; ok && before < 3; before++)
        for (size_t i = 0; ok && i < 2; i++) ok = put_base64(r, name, s, before, alphabets[i], e);
    return ok;
}

bool redactor_add(struct redactor *r, const char *name, struct str secret, struct err *e)
{
    if (secret.n < SECRET_MIN_BYTES)
        return err_set(e, ERR_INPUT,
                       "the secret %.80s has %zu bytes; at least %d are needed to keep it out of "
                       "what the model reads",
                       name, secret.n, SECRET_MIN_BYTES);
    if (secret.n > MAX_SECRET_BYTES)
        return err_set(e, ERR_INPUT, "the secret %.80s is longer than %d bytes", name,
                       MAX_SECRET_BYTES);
    bool ok = put_forms(r, name, secret, e);
    for (size_t at = 0; ok && str_find(secret, STR("\n"), 0) != SIZE_MAX && at < secret.n;) {
        size_t end = str_find(secret, STR("\n"), at);
        if (end == SIZE_MAX) end = secret.n;
        struct str line = str_trim(str_sub(secret, at, end - at));
        if (line.n >= LINE_MIN_BYTES) ok = put_forms(r, name, line, e);
        at = end + 1;
    }
    return ok;
}

void redactor_free(struct redactor *r)
{
    for (size_t i = 0; i < r->n; i++) {
        explicit_bzero(r->patterns[i].text, r->patterns[i].n);
        free(r->patterns[i].text);
        free(r->patterns[i].name);
    }
    free(r->patterns);
    *r = (struct redactor){0};
}

// ---- finding --------------------------------------------------------------------------------

// Bytes at i that may stand within a pattern: a line break, as some programs fold long lines; in
// base64 an escaped one; between bytes in hex a separator, or what says that one is written so
// (URLs, JSON, C, HTML). 0 when there is none.
static size_t filler(const struct redact_pattern *p, bool within_byte, struct str t, size_t i)
{
    static const struct str before_hex[] = {{"\\u00", 4}, {"&#x", 3}, {"\\x", 2}, {"0x", 2}};
    struct str rest = str_sub(t, i, SIZE_MAX);
    if (t.p[i] == '\n' || t.p[i] == '\r') return 1;
    if (p->base64 && (str_starts(rest, STR("\\n")) || str_starts(rest, STR("\\r")))) return 2;
    if (!p->hex || within_byte) return 0;
    for (size_t k = 0; k < sizeof before_hex / sizeof before_hex[0]; k++)
        if (str_starts(rest, before_hex[k])) return before_hex[k].n;
    return strchr(" :-\t%,;", t.p[i]) != NULL && t.p[i] != '\0' ? 1 : 0;
}

// How many bytes of t at `at` are the pattern from its byte `from` on; 0 when they are not. A text
// that ends before the pattern does matches where `open` allows it, if it has enough of it.
static size_t match(const struct redact_pattern *p, size_t from, struct str t, size_t at, bool open)
{
    size_t i = at, k = from;
    while (k < p->n && i < t.n) {
        if (t.p[i] == p->text[k]) {
            i++;
            k++;
            continue;
        }
        size_t skip = i > at ? filler(p, k % 2 != 0, t, i) : 0;
        if (skip == 0) return 0;
        i += skip;
    }
    if (k == p->n) return k - from >= PART_MIN_BYTES || from == 0 ? i - at : 0;
    return open && k - from >= PART_MIN_BYTES ? i - at : 0;
}

static bool is_base64(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/' || c == '-' || c == '_';
}

static const struct redact_pattern *longest_at(const struct redactor *r, struct str t, size_t at,
                                               bool open, size_t *n)
{
    const struct redact_pattern *best = NULL;
    *n = 0;
    for (size_t i = 0; i < r->n; i++) {
        size_t got = match(&r->patterns[i], 0, t, at, open);
        if (got <= *n) continue;
        *n = got;
        best = &r->patterns[i];
    }
    return best;
}

// The end of a secret whose beginning was cut off in front of the text.
static const struct redact_pattern *longest_rest(const struct redactor *r, struct str t, size_t *n)
{
    const struct redact_pattern *best = NULL;
    *n = 0;
    for (size_t i = 0; i < r->n; i++)
        for (size_t from = 1; from + PART_MIN_BYTES <= r->patterns[i].n; from++) {
            size_t got = match(&r->patterns[i], from, t, 0, false);
            if (got <= *n) continue;
            *n = got;
            best = &r->patterns[i];
        }
    return best;
}

static void put_mark(struct buf *out, const struct redact_pattern *p)
{
    buf_printf(out, "[secret %s]", p->name);
}

void redact_cut(const struct redactor *r, struct buf *text, bool cut_start, bool cut_end)
{
    if (r == NULL || r->n == 0 || text->n == 0) return;
    struct str t = buf_view(text);
    struct buf out = {0};
    size_t done = 0, n; // up to where t stands in out
    const struct redact_pattern *p = cut_start ? longest_rest(r, t, &n) : NULL;
    if (p != NULL) {
        put_mark(&out, p);
        done = n;
    }
    for (size_t i = done; i < t.n;) {
        p = r->starts[(unsigned char)t.p[i]] ? longest_at(r, t, i, cut_end, &n) : NULL;
        if (p == NULL) {
            i++;
            continue;
        }
        size_t start = i, end = i + n;
        if (p->spills_left && start > done && is_base64(t.p[start - 1])) start--;
        if (p->spills_right && end < t.n && is_base64(t.p[end])) end++;
        buf_str(&out, str_sub(t, done, start - done));
        put_mark(&out, p);
        i = done = end;
    }
    if (done == 0 && !out.failed) return; // nothing was found
    buf_str(&out, str_sub(t, done, t.n - done));
    bool failed = out.failed;
    explicit_bzero(text->p, text->n);
    buf_free(text);
    if (failed) buf_free(&out);
    *text = out;
    text->failed = failed;
}

void redact_text(const struct redactor *r, struct buf *text)
{
    redact_cut(r, text, false, false);
}

void redact_line(const struct redactor *r, char *line, size_t size)
{
    if (r == NULL || r->n == 0) return;
    struct buf text = {0};
    buf_z(&text, line);
    redact_text(r, &text);
    snprintf(line, size, "%s", buf_cstr(&text));
    buf_free(&text);
}
