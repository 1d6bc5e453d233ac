// Strings with lengths and the growing buffer that the whole program writes text with.
#include "base/str.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

struct str str_from(const char *z)
{
    if (z == NULL) return (struct str){"", 0};
    return (struct str){z, strlen(z)};
}

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

int str_cmp(struct str a, struct str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n == 0 ? 0 : memcmp(a.p, b.p, n);
    if (c != 0) return c;
    return (a.n > b.n) - (a.n < b.n);
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq((struct str){s.p, prefix.n}, prefix);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.n >= suffix.n && str_eq((struct str){s.p + (s.n - suffix.n), suffix.n}, suffix);
}

size_t str_find(struct str s, struct str needle, size_t from)
{
    if (from > s.n || needle.n > s.n - from) return SIZE_MAX;
    if (needle.n == 0) return from;
    const char *hit = memmem(s.p + from, s.n - from, needle.p, needle.n);
    return hit == NULL ? SIZE_MAX : (size_t)(hit - s.p);
}

size_t str_rfind(struct str s, struct str needle)
{
    if (needle.n > s.n) return SIZE_MAX;
    for (size_t i = s.n - needle.n + 1; i-- > 0;)
        if (str_eq((struct str){s.p + i, needle.n}, needle)) return i;
    return SIZE_MAX;
}

struct str str_sub(struct str s, size_t from, size_t n)
{
    if (from > s.n) from = s.n;
    if (n > s.n - from) n = s.n - from;
    return (struct str){s.p + from, n};
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
    while (s.n > 0 && is_space(s.p[0])) s = str_sub(s, 1, s.n);
    while (s.n > 0 && is_space(s.p[s.n - 1])) s.n--;
    return s;
}

bool buf_reserve(struct buf *b, size_t more)
{
    if (b->failed) return false;
    if (more < b->cap - b->n && b->cap > b->n) return true;
    size_t want = b->n + more + 1;
    if (want <= b->n) { // overflow
        b->failed = true;
        return false;
    }
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < want) cap = cap > SIZE_MAX / 2 ? want : cap * 2;
    char *p = realloc(b->p, cap);
    if (p == NULL) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    if (n == 0 || !buf_reserve(b, n)) return;
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_str(struct buf *b, struct str s)
{
    buf_put(b, s.p, s.n);
}
void buf_z(struct buf *b, const char *z)
{
    buf_put(b, z, strlen(z));
}
void buf_c(struct buf *b, char c)
{
    buf_put(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n <= 0 || !buf_reserve(b, (size_t)n)) return;
    va_start(ap, fmt);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}

void buf_count(struct buf *b, uint64_t n)
{
    if (n >= 1000) {
        buf_count(b, n / 1000);
        buf_printf(b, ",%03u", (unsigned)(n % 1000));
    } else {
        buf_printf(b, "%u", (unsigned)n);
    }
}

static void json_char(struct buf *b, unsigned char c)
{
    switch (c) {
    case '"': buf_z(b, "\\\""); return;
    case '\\': buf_z(b, "\\\\"); return;
    case '\n': buf_z(b, "\\n"); return;
    case '\r': buf_z(b, "\\r"); return;
    case '\t': buf_z(b, "\\t"); return;
    default: buf_printf(b, "\\u%04x", c);
    }
}

void buf_json(struct buf *b, struct str s)
{
    buf_c(b, '"');
    size_t i = 0;
    while (i < s.n) {
        size_t start = i;
        while (i < s.n) { // the longest run that is copied as it stands
            unsigned char c = (unsigned char)s.p[i];
            if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f) break;
            size_t len = c < 0x80 ? 1 : utf8_valid_len(s.p + i, s.n - i);
            if (len == 0) break;
            i += len;
        }
        buf_put(b, s.p + start, i - start);
        if (i == s.n) break;
        if ((unsigned char)s.p[i] < 0x80)
            json_char(b, (unsigned char)s.p[i]);
        else
            buf_z(b, "\xef\xbf\xbd");
        i++;
    }
    buf_c(b, '"');
}

struct str buf_view(const struct buf *b)
{
    return (struct str){b->p == NULL ? "" : b->p, b->n};
}

const char *buf_cstr(struct buf *b)
{
    if (!buf_reserve(b, 0)) return "";
    b->p[b->n] = '\0';
    return b->p;
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->failed = false;
}

void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){0};
}
