// Text with a length (struct str, borrowed) and a growing buffer (struct buf, owned).
// Text may hold NUL bytes: nothing here relies on a terminator unless it says so.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit) ((struct str){"" lit, sizeof(lit) - 1})

struct str str_from(const char *z); // NULL gives the empty string
bool str_eq(struct str a, struct str b);
int str_cmp(struct str a, struct str b); // bytewise, shorter first
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
// Index of the first needle at or after from; SIZE_MAX when there is none. An empty needle is at from.
size_t str_find(struct str s, struct str needle, size_t from);
size_t str_rfind(struct str s, struct str needle); // the last one; SIZE_MAX when there is none
struct str str_sub(struct str s, size_t from, size_t n); // both clamped to s
struct str str_trim(struct str s);                       // ASCII white space on both ends

// A growing byte buffer. A failed allocation sets failed and turns later puts into nothing, so that
// a caller checks once, at the end. Starts as {0}; buf_free leaves {0} behind.
struct buf {
    char *p;
    size_t n, cap;
    bool failed;
};

bool buf_reserve(struct buf *b, size_t more); // room for `more` bytes and a NUL
void buf_put(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, struct str s);
void buf_z(struct buf *b, const char *z);
void buf_c(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_count(struct buf *b, uint64_t n); // for people: 12,404
// A JSON string with quotes. Bytes that are not UTF-8 become U+FFFD, so that the result is valid JSON.
void buf_json(struct buf *b, struct str s);
struct str buf_view(const struct buf *b);
const char *buf_cstr(struct buf *b); // NUL-terminated; "" for an empty buffer
void buf_clear(struct buf *b);       // keeps the memory
void buf_free(struct buf *b);
