// The answer as it streams: <think> ... </think> becomes reasoning, <tool_call> JSON </tool_call>
// becomes calls, everything else is content. The result, pieces of one kind put together, does not
// depend on how the text was cut into feeds.
//
// Rules
//  - White space (and only that) around reasoning and calls is dropped; elsewhere it is kept.
//  - <think> counts only before any content or call has come. Without </think> all is reasoning.
//  - A call is announced when its name is known and its arguments have begun or are known to be
//    absent ({}). Until then it can fall back: what is no call comes out as content, tag and all.
//  - From then on arguments stream as far as they are valid JSON for certain (json_walk.h). When a
//    call breaks or is cut off, its arguments are closed where they stand, so that the whole is
//    valid JSON; what follows the break up to </tool_call> comes out as content, unless it is just
//    brackets.
//  - Arguments written as a JSON string are unwrapped when they hold an object or array; null and a
//    blank string are {}. These come in one piece.
//  - Several JSON objects inside one <tool_call> are several calls.
#include "text/answer.h"

#include <stdlib.h>
#include <string.h>

#include "text/json_walk.h"
#include "text/value.h"

enum state { IN_CONTENT, IN_THINKING, IN_CALL, IN_REST };

// Where in {"name": "f", "arguments": {...}} the call is.
enum call_state { CALL_OPEN, CALL_KEY, CALL_COLON, CALL_VALUE, CALL_COMMA, CALL_CLOSED };

enum call_key { KEY_OTHER, KEY_NAME, KEY_ARGUMENTS };

struct call {
    enum call_state state;
    enum call_key key;
    bool has_name, has_arguments; // their values are complete
    bool begun;                   // announced: no way back
    bool streams;                 // the arguments are an object or array
    struct buf raw;               // all bytes behind the tag, until begun
    struct buf name;              // decoded
    struct buf arguments;         // valid, not yet given out
    struct buf literal;           // the key, or a value that is looked at when complete
    struct json_walk walk;
};

struct answer {
    answer_sink *sink;
    void *arg;
    enum tool_format tools;
    bool split_thinking, verbatim;
    enum state state;
    bool drop_lead; // white space that comes now stands behind reasoning or a call
    bool has_content;
    struct buf held; // not yet looked at, from pos on
    size_t pos;
    struct buf space; // white space that may have to go
    struct buf rest;  // behind a broken call
    struct call call;
    int n_calls;
};

static const struct str think_open = {"<think>", 7}, think_close = {"</think>", 8};
static const struct str call_open = {"<tool_call>", 11}, call_close = {"</tool_call>", 12};

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static void send(struct answer *a, enum answer_part part, int call, struct str text)
{
    if (text.n > 0 || part == ANSWER_CALL_BEGIN || part == ANSWER_CALL_END)
        a->sink(a->arg, part, call, text);
}

// ---- text -----------------------------------------------------------------------------------

// Space before text is kept: all of it, or behind reasoning and calls what stands on the line.
static void trim_space(struct answer *a)
{
    size_t newline = a->drop_lead ? str_rfind(buf_view(&a->space), STR("\n")) : SIZE_MAX;
    if (newline == SIZE_MAX) return;
    a->space.n -= newline + 1;
    memmove(a->space.p, a->space.p + newline + 1, a->space.n);
}

static void put_text(struct answer *a, struct str s)
{
    enum answer_part part = a->state == IN_THINKING ? ANSWER_REASONING : ANSWER_CONTENT;
    if (a->verbatim) {
        send(a, part, -1, s);
        return;
    }
    size_t lead = 0, end = s.n;
    while (lead < s.n && is_space(s.p[lead])) lead++;
    while (end > lead && is_space(s.p[end - 1])) end--;
    buf_put(&a->space, s.p, lead);
    if (lead == s.n) return;
    trim_space(a);
    struct str text = str_sub(s, lead, end - lead);
    if (a->space.n > 0) { // one piece, not two: each costs the client a chunk
        buf_str(&a->space, text);
        text = buf_view(&a->space);
    }
    send(a, part, -1, text);
    buf_clear(&a->space);
    buf_put(&a->space, s.p + end, s.n - end);
    a->drop_lead = false;
    if (part == ANSWER_CONTENT) a->has_content = true;
}

static struct str ahead(const struct answer *a)
{
    return str_sub(buf_view(&a->held), a->pos, a->held.n);
}

static void reset_call(struct call *c)
{
    buf_free(&c->raw);
    buf_free(&c->name);
    buf_free(&c->arguments);
    buf_free(&c->literal);
    json_walk_free(&c->walk);
    *c = (struct call){0};
}

// Enters the state that a tag begins; white space around tags goes, except before a call, which may
// yet turn out to be none.
static void enter(struct answer *a, enum state state)
{
    if (state != IN_CALL) buf_clear(&a->space);
    if (state != IN_CALL) a->drop_lead = true;
    if (state == IN_CALL) reset_call(&a->call);
    a->state = state;
}

// Reads text up to a tag. Returns false when it must wait for more.
static bool read_text(struct answer *a)
{
    struct str s = ahead(a);
    const char *hit = memchr(s.p, '<', s.n);
    size_t n = hit == NULL || a->verbatim ? s.n : (size_t)(hit - s.p);
    if (n > 0) {
        put_text(a, str_sub(s, 0, n));
        a->pos += n;
        return true;
    }
    bool thinking = a->state == IN_THINKING;
    bool may_think = a->split_thinking && !thinking && !a->has_content && a->n_calls == 0;
    const struct {
        struct str tag;
        bool counts;
        enum state next;
    } tags[] = {{think_close, thinking, IN_CONTENT},
                {think_open, may_think, IN_THINKING},
                {call_open, !thinking && a->tools == TOOLS_HERMES, IN_CALL}};
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (!tags[i].counts) continue;
        if (str_starts(s, tags[i].tag)) {
            a->pos += tags[i].tag.n;
            enter(a, tags[i].next);
            return true;
        }
        if (str_starts(tags[i].tag, s)) return false;
    }
    put_text(a, str_sub(s, 0, 1));
    a->pos++;
    return true;
}

// ---- calls ----------------------------------------------------------------------------------

// Gives out what is known of the call, announcing it first when that is due.
static void send_call(struct answer *a)
{
    struct call *c = &a->call;
    if (!c->begun) {
        if (!c->has_name || (!c->streams && !c->has_arguments)) return;
        c->begun = true;
        buf_free(&c->raw);
        buf_clear(&a->space);
        a->n_calls++;
        send(a, ANSWER_CALL_BEGIN, a->n_calls - 1, buf_view(&c->name));
    }
    send(a, ANSWER_CALL_ARGS, a->n_calls - 1, buf_view(&c->arguments));
    buf_clear(&c->arguments);
}

static void end_call(struct answer *a)
{
    send_call(a);
    send(a, ANSWER_CALL_END, a->n_calls - 1, STR(""));
    a->drop_lead = true;
}

// Keys and values that are complete in c->literal, as JSON text. False: not what it must be.
static bool take_string(struct str json, struct buf *out)
{
    struct arena arena = {0};
    struct value v;
    bool ok = value_parse(&v, &arena, json, NULL) && v.kind == VALUE_STRING;
    buf_clear(out);
    if (ok) buf_str(out, v.s);
    arena_free(&arena);
    return ok;
}

// Arguments that are no object or array, in c->literal.
static void take_arguments(struct call *c)
{
    struct arena arena = {0};
    struct value v, inner;
    struct str json = STR("{}"); // also when the text was not UTF-8 after all
    if (value_parse(&v, &arena, buf_view(&c->literal), NULL)) {
        bool is_text = v.kind == VALUE_STRING;
        if (v.kind != VALUE_NULL && !(is_text && str_trim(v.s).n == 0))
            json = buf_view(&c->literal);
        if (is_text && value_parse(&inner, &arena, v.s, NULL) &&
            (inner.kind == VALUE_DICT || inner.kind == VALUE_LIST))
            json = str_trim(v.s);
    }
    buf_str(&c->arguments, json);
    arena_free(&arena);
}

static void take_key(struct call *c)
{
    struct buf key = {0};
    take_string(buf_view(&c->literal), &key);
    struct str s = buf_view(&key);
    c->key = KEY_OTHER;
    if (str_eq(s, STR("name")) && !c->has_name) c->key = KEY_NAME;
    if ((str_eq(s, STR("arguments")) || str_eq(s, STR("parameters"))) && !c->has_arguments)
        c->key = KEY_ARGUMENTS;
    buf_free(&key);
}

// The value of c->key is complete.
static bool take_value(struct call *c)
{
    if (c->key == KEY_NAME) {
        c->has_name = take_string(buf_view(&c->literal), &c->name) && c->name.n > 0;
        if (!c->has_name) return false;
    } else if (c->key == KEY_ARGUMENTS) {
        if (!c->streams) take_arguments(c);
        c->has_arguments = true;
    }
    json_walk_free(&c->walk);
    buf_clear(&c->literal);
    c->state = CALL_COMMA;
    return true;
}

static bool call_byte(struct answer *a, char b);

static bool value_byte(struct answer *a, char b)
{
    struct call *c = &a->call;
    bool first = c->walk.state == 0 && c->walk.depth == 0;
    if (first && is_space(b)) return true;
    if (first && c->key == KEY_NAME && b != '"') return false;
    if (first && c->key == KEY_ARGUMENTS) c->streams = b == '{' || b == '[';
    bool direct = c->key == KEY_ARGUMENTS && c->streams;
    switch (json_walk(&c->walk, b, direct ? &c->arguments : &c->literal)) {
    case WALK_MORE: return true;
    case WALK_DONE: return take_value(c);
    case WALK_PAST: return take_value(c) && call_byte(a, b);
    case WALK_BAD: break;
    }
    return false;
}

static bool key_byte(struct call *c, char b)
{
    if (c->walk.state == 0) {
        if (is_space(b)) return true;
        if (b != '"') return false;
    }
    switch (json_walk(&c->walk, b, &c->literal)) {
    case WALK_MORE: return true;
    case WALK_DONE:
        take_key(c);
        json_walk_free(&c->walk);
        buf_clear(&c->literal);
        c->state = CALL_COLON;
        return true;
    default: return false;
    }
}

// The closing brace: a name without arguments has none.
static bool close_object(struct answer *a)
{
    struct call *c = &a->call;
    if (!c->has_name) return false;
    if (!c->has_arguments) buf_z(&c->arguments, "{}");
    c->has_arguments = true;
    c->state = CALL_CLOSED;
    end_call(a);
    return true;
}

// One byte inside a call's JSON. False: it cannot stand there.
static bool call_byte(struct answer *a, char b)
{
    struct call *c = &a->call;
    switch (c->state) {
    case CALL_OPEN:
        if (is_space(b)) return true;
        c->state = CALL_KEY;
        return b == '{';
    case CALL_KEY:
        if (b == '}' && c->walk.state == 0) return close_object(a);
        return key_byte(c, b);
    case CALL_COLON:
        if (b == ':') c->state = CALL_VALUE;
        return b == ':' || is_space(b);
    case CALL_VALUE: return value_byte(a, b);
    case CALL_COMMA:
        if (b == '}') return close_object(a);
        if (b == ',') c->state = CALL_KEY;
        return b == ',' || is_space(b);
    case CALL_CLOSED: return is_space(b);
    }
    return false;
}

// What looked like a call is none: the tag is text, and so is what followed, unless it holds a
// call.
static void fall_back(struct answer *a)
{
    struct buf again = {0};
    a->state = IN_CONTENT;
    buf_str(&again, buf_view(&a->call.raw));
    buf_str(&again, ahead(a));
    reset_call(&a->call);
    put_text(a, call_open);
    buf_free(&a->held);
    a->held = again;
    a->pos = 0;
}

// A call that was announced cannot go on: closes its arguments.
static void break_off(struct answer *a)
{
    struct call *c = &a->call;
    bool open = c->state == CALL_VALUE && c->key == KEY_ARGUMENTS && c->streams;
    if (open) json_walk_close(&c->walk, &c->arguments);
    end_call(a);
    reset_call(c);
}

// Reads a call's bytes. Returns false when it must wait for more.
static bool read_call(struct answer *a)
{
    struct call *c = &a->call;
    struct str s = ahead(a);
    if (c->state == CALL_CLOSED && s.p[0] == '<' && str_starts(s, call_close)) {
        a->pos += call_close.n;
        reset_call(c);
        enter(a, IN_CONTENT);
        return true;
    }
    if (c->state == CALL_CLOSED && s.p[0] == '<' && str_starts(call_close, s)) return false;
    if (c->state == CALL_CLOSED && s.p[0] == '{') {
        reset_call(c); // another object in the same tag
        a->state = IN_CALL;
    }
    char b = s.p[0];
    if (call_byte(a, b)) {
        if (!c->begun) buf_c(&c->raw, b);
        if (!c->begun && c->has_name && (c->streams || c->has_arguments)) send_call(a);
        a->pos++;
        return true;
    }
    if (c->state == CALL_CLOSED) { // junk behind a whole call
        reset_call(c);
        a->state = IN_REST;
    } else if (c->begun) {
        break_off(a);
        a->state = IN_REST;
    } else {
        fall_back(a);
    }
    return true;
}

// Behind a broken call: brackets are dropped, anything else is content.
static void end_rest(struct answer *a)
{
    struct str s = str_trim(buf_view(&a->rest));
    bool only_brackets = true;
    for (size_t i = 0; i < s.n; i++)
        only_brackets = only_brackets && (is_space(s.p[i]) || strchr("]}\",", s.p[i]) != NULL);
    a->state = IN_CONTENT;
    if (!only_brackets) put_text(a, s);
    buf_clear(&a->rest);
}

static bool read_rest(struct answer *a)
{
    struct str s = ahead(a);
    const char *hit = memchr(s.p, '<', s.n);
    size_t n = hit == NULL ? s.n : (size_t)(hit - s.p);
    if (n == 0 && str_starts(s, call_close)) {
        a->pos += call_close.n;
        end_rest(a);
        enter(a, IN_CONTENT);
        return true;
    }
    if (n == 0 && str_starts(s, call_open)) { // the closing tag was forgotten
        end_rest(a);
        return true;
    }
    if (n == 0 && (str_starts(call_close, s) || str_starts(call_open, s))) return false;
    if (n == 0) n = 1;
    buf_put(&a->rest, s.p, n);
    a->pos += n;
    return true;
}

// ---- the stream -----------------------------------------------------------------------------

static void read_all(struct answer *a)
{
    bool more = true;
    while (more && a->pos < a->held.n) {
        switch (a->state) {
        case IN_CONTENT:
        case IN_THINKING: more = read_text(a); break;
        case IN_CALL: more = read_call(a); break;
        case IN_REST: more = read_rest(a); break;
        }
    }
    if (a->state == IN_CALL && a->call.begun && a->call.state != CALL_CLOSED) send_call(a);
    struct str left = ahead(a);
    if (a->pos > 0 && left.n > 0) memmove(a->held.p, left.p, left.n);
    a->held.n = left.n;
    a->pos = 0;
}

struct answer *answer_open(const struct answer_options *o, answer_sink *sink, void *arg)
{
    struct answer *a = calloc(1, sizeof *a);
    if (a == NULL) return NULL;
    *a = (struct answer){.sink = sink,
                         .arg = arg,
                         .tools = o->tools,
                         .split_thinking = o->split_thinking,
                         .verbatim = o->tools == TOOLS_NONE && !o->split_thinking};
    if (o->split_thinking && o->starts_in_thinking) enter(a, IN_THINKING);
    buf_str(&a->held, o->forced);
    return a;
}

void answer_close(struct answer *a)
{
    if (a == NULL) return;
    reset_call(&a->call);
    buf_free(&a->held);
    buf_free(&a->space);
    buf_free(&a->rest);
    free(a);
}

void answer_feed(struct answer *a, struct str text)
{
    buf_str(&a->held, text);
    read_all(a);
}

// Nothing more comes, and read_all waits for more: decides what the rest is.
static void settle(struct answer *a)
{
    struct call *c = &a->call;
    struct str left = ahead(a);
    if (a->state == IN_CONTENT || a->state == IN_THINKING) {
        put_text(a, left); // the start of a tag that never came
        a->pos = a->held.n;
    } else if (a->state == IN_REST) {
        if (!str_starts(call_close, left)) buf_str(&a->rest, left);
        a->pos = a->held.n;
        end_rest(a);
    } else if (c->state == CALL_CLOSED) {
        a->pos = a->held.n; // the call is whole; the closing tag was cut off
        enter(a, IN_CONTENT);
    } else if (c->begun) {
        break_off(a);
        a->pos = a->held.n;
        enter(a, IN_CONTENT);
    } else {
        fall_back(a);
    }
}

void answer_finish(struct answer *a, bool cut)
{
    (void)cut; // an open call is treated alike, whoever ended it
    read_all(a);
    while (a->pos < a->held.n || a->state == IN_CALL || a->state == IN_REST) {
        settle(a); // each fall_back turns one tag into text, so this ends
        read_all(a);
    }
    if (a->state == IN_CONTENT && !a->drop_lead) send(a, ANSWER_CONTENT, -1, buf_view(&a->space));
    buf_clear(&a->space);
    buf_clear(&a->held);
}

int answer_n_calls(const struct answer *a)
{
    return a->n_calls;
}
