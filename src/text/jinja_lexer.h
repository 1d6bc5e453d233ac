// Template source -> tokens, with white space control applied (trim_blocks and lstrip_blocks on).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "text/value.h"

enum lex_kind {
    LEX_TEXT,   // text that is printed as it stands
    LEX_PRINT,  // {{
    LEX_BLOCK,  // {%
    LEX_CLOSE,  // }} or %}, whichever fits the opening
    LEX_NAME,   // also keywords
    LEX_STRING, // v holds the text without quotes and escapes
    LEX_NUMBER, // v
    LEX_OP,     // s is one of + - / // * % ** ~ [ ] ( ) { } == != > >= < <= = . : | ,
    LEX_END
};

struct lex_token {
    enum lex_kind kind;
    uint32_t line, column; // from 1; columns count characters
    struct str s;          // the source text
    struct value v;
};

struct lex_tokens {
    struct lex_token *p; // the last one is LEX_END
    size_t n;
};

// source lives in the arena already and must outlive the tokens. "\r\n" must have become "\n".
bool jinja_lex(struct lex_tokens *out, struct str source, struct arena *a, struct err *e);
