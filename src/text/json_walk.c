// A pushdown automaton for RFC 8259. See the header for what it holds back and what it mends.
#include "text/json_walk.h"

#include <string.h>

enum state {
    ANY_VALUE,  // must be 0
    FIRST_ITEM, // a value or ']'
    FIRST_KEY,  // a key or '}'
    NEXT_KEY,   // a key, behind a comma
    COLON,
    COMMA, // ',' or the end of the container
    IN_STRING,
    IN_ESCAPE,
    IN_NUMBER,
    IN_WORD,
};

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static void give(struct buf *held, struct buf *out)
{
    buf_str(out, buf_view(held));
    buf_clear(held);
}

static bool is_number(struct str s)
{
    size_t i = s.n > 0 && s.p[0] == '-', start = i;
    while (i < s.n && is_digit(s.p[i])) i++;
    if (i == start || (s.p[start] == '0' && i > start + 1)) return false;
    if (i < s.n && s.p[i] == '.') {
        start = ++i;
        while (i < s.n && is_digit(s.p[i])) i++;
        if (i == start) return false;
    }
    if (i < s.n && (s.p[i] | 32) == 'e') {
        i++;
        if (i < s.n && (s.p[i] == '+' || s.p[i] == '-')) i++;
        start = i;
        while (i < s.n && is_digit(s.p[i])) i++;
        if (i == start) return false;
    }
    return i == s.n;
}

// A value has ended: what follows depends on where it stands.
static enum json_walk_result ended(struct json_walk *w)
{
    w->state = COMMA;
    return w->depth == 0 ? WALK_DONE : WALK_MORE;
}

static enum json_walk_result open_container(struct json_walk *w, char c, struct buf *out)
{
    if (w->depth == JSON_WALK_DEPTH) return WALK_BAD;
    give(&w->gap, out);
    w->stack[w->depth++] = c;
    buf_c(out, c);
    w->state = c == '{' ? FIRST_KEY : FIRST_ITEM;
    return WALK_MORE;
}

static enum json_walk_result close_container(struct json_walk *w, char c, struct buf *out)
{
    char opener = c == '}' ? '{' : c == ']' ? '[' : '\0';
    if (w->depth == 0 || w->stack[w->depth - 1] != opener) return WALK_BAD;
    give(&w->gap, out);
    w->depth--;
    buf_c(out, c);
    return ended(w);
}

static enum json_walk_result begin_string(struct json_walk *w, bool is_key, struct buf *out)
{
    give(&w->gap, out);
    buf_c(out, '"');
    w->in_key = is_key;
    w->state = IN_STRING;
    return WALK_MORE;
}

static enum json_walk_result begin_value(struct json_walk *w, char c, struct buf *out)
{
    if (c == '{' || c == '[') return open_container(w, c, out);
    if (c == '"') return begin_string(w, false, out);
    if (c != '-' && !is_digit(c) && c != 't' && c != 'f' && c != 'n') return WALK_BAD;
    buf_c(&w->token, c);
    w->state = c == '-' || is_digit(c) ? IN_NUMBER : IN_WORD;
    return WALK_MORE;
}

static enum json_walk_result in_string(struct json_walk *w, char c, struct buf *out)
{
    if (c == '"') {
        buf_c(out, c);
        if (!w->in_key) return ended(w);
        w->state = COLON;
    } else if (c == '\\') {
        buf_c(&w->token, c);
        w->state = IN_ESCAPE;
    } else if (c == '\n' || c == '\r' || c == '\t') {
        buf_c(out, '\\');
        buf_c(out, c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    } else if ((unsigned char)c < 0x20) {
        buf_printf(out, "\\u%04x", (unsigned char)c);
    } else {
        buf_c(out, c);
    }
    return WALK_MORE;
}

static enum json_walk_result in_escape(struct json_walk *w, char c, struct buf *out)
{
    size_t n = w->token.n; // the backslash, then u and its digits
    bool is_u = n > 1;
    if (is_u ? is_hex(c) : c != '\0' && strchr("\"\\/bfnrtu", c) != NULL) {
        buf_c(&w->token, c);
        if (is_u ? n + 1 < 6 : c == 'u') return WALK_MORE;
        give(&w->token, out);
        w->state = IN_STRING;
        return WALK_MORE;
    }
    buf_c(out, '\\'); // it escapes nothing: the backslash is meant
    give(&w->token, out);
    w->state = IN_STRING;
    return in_string(w, c, out);
}

static enum json_walk_result in_word(struct json_walk *w, char c, struct buf *out)
{
    static const struct str words[] = {{"true", 4}, {"false", 5}, {"null", 4}};
    for (size_t i = 0; i < 3; i++) {
        struct str word = words[i];
        if (!str_starts(word, buf_view(&w->token)) || w->token.n >= word.n) continue;
        if (word.p[w->token.n] != c) return WALK_BAD;
        buf_c(&w->token, c);
        if (w->token.n < word.n) return WALK_MORE;
        give(&w->gap, out);
        give(&w->token, out);
        return ended(w);
    }
    return WALK_BAD;
}

static enum json_walk_result in_number(struct json_walk *w, char c, struct buf *out)
{
    if (is_digit(c) || (c != '\0' && strchr("+-.eE", c) != NULL)) {
        buf_c(&w->token, c);
        return WALK_MORE;
    }
    if (!is_number(buf_view(&w->token))) return WALK_BAD;
    give(&w->gap, out);
    give(&w->token, out);
    if (ended(w) == WALK_DONE) return WALK_PAST;
    return json_walk(w, c, out);
}

static enum json_walk_result after_value(struct json_walk *w, char c, struct buf *out)
{
    if (c != ',') return close_container(w, c, out);
    buf_c(&w->gap, c);
    w->state = w->stack[w->depth - 1] == '{' ? NEXT_KEY : ANY_VALUE;
    return WALK_MORE;
}

enum json_walk_result json_walk(struct json_walk *w, char c, struct buf *out)
{
    if (w->state == IN_STRING) return in_string(w, c, out);
    if (w->state == IN_ESCAPE) return in_escape(w, c, out);
    if (w->state == IN_NUMBER) return in_number(w, c, out);
    if (w->state == IN_WORD) return in_word(w, c, out);
    if (is_space(c)) {
        if (w->depth > 0) buf_c(&w->gap, c);
        return WALK_MORE;
    }
    switch (w->state) {
    case FIRST_ITEM:
        if (c == ']') return close_container(w, c, out);
        return begin_value(w, c, out);
    case FIRST_KEY:
        if (c == '}') return close_container(w, c, out);
        return c == '"' ? begin_string(w, true, out) : WALK_BAD;
    case NEXT_KEY: return c == '"' ? begin_string(w, true, out) : WALK_BAD;
    case COLON:
        if (c != ':') return WALK_BAD;
        give(&w->gap, out);
        buf_c(out, c);
        w->state = ANY_VALUE;
        return WALK_MORE;
    case COMMA: return after_value(w, c, out);
    default: return begin_value(w, c, out);
    }
}

bool json_walk_close(struct json_walk *w, struct buf *out)
{
    bool in_text = w->state == IN_STRING || w->state == IN_ESCAPE;
    if (w->depth == 0 && !in_text) return false;
    bool in_object = w->depth > 0 && w->stack[w->depth - 1] == '{';
    if (in_text) buf_c(out, '"');
    if (in_object && ((in_text && w->in_key) || w->state == COLON)) buf_c(out, ':');
    bool wants_value = w->state == ANY_VALUE || w->state == IN_NUMBER || w->state == IN_WORD;
    if (in_object && (wants_value || w->state == COLON || (in_text && w->in_key)))
        buf_z(out, "null");
    while (w->depth > 0) buf_c(out, w->stack[--w->depth] == '{' ? '}' : ']');
    json_walk_free(w);
    return true;
}

void json_walk_free(struct json_walk *w)
{
    buf_free(&w->gap);
    buf_free(&w->token);
    *w = (struct json_walk){0};
}
