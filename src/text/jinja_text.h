// Text as templates see it: Python's idea of white space, characters instead of bytes, and
// searching that looks through guard bytes, so that a guarded control token still compares equal to
// the text it stands for.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/str.h"

// Length of the white space character at s.p[i] (str.isspace of Python); 0 when there is none.
size_t text_space_len(struct str s, size_t i);
struct str text_strip_start(struct str s);
struct str text_strip_end(struct str s);
// The same with a set of characters instead of white space.
struct str text_strip_set_start(struct str s, struct str set);
struct str text_strip_set_end(struct str s, struct str set);

// Length in bytes of the character at s.p[i], a guard before it included. Bad bytes count as one.
size_t text_char_len(struct str s, size_t i);
size_t text_n_chars(struct str s);
// Byte offset of character i; s.n when there are not so many.
size_t text_offset(struct str s, size_t i);

// First place of needle in s at or after from, and how many bytes it covers there; SIZE_MAX if
// none.
size_t text_find(struct str s, struct str needle, size_t from, size_t *n);
size_t text_rfind(struct str s, struct str needle, size_t *n);
bool text_eq(struct str a, struct str b);
// Length of the prefix / suffix of s that matches part; SIZE_MAX when none does.
size_t text_prefix(struct str s, struct str part);
size_t text_suffix(struct str s, struct str part);
int text_cmp(struct str a, struct str b); // by code point

enum text_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_JINJA_TITLE };
// Simple case mapping of Unicode (one character to one, but for sharp s). p is NULL when there is
// no memory.
struct str text_to_case(struct arena *a, struct str s, enum text_case c);
bool text_has_case(struct str s, bool upper); // str.isupper / str.islower
// repr() of a string.
void text_repr(struct buf *out, struct str s);
