// Found by looking for the request's texts in the prompt, in order: a template may put anything around
// them, and leave any of them out.
#include "serve/explain_place.h"

#include <string.h>

enum {
    PROBE_LEAST = 8,   // shorter texts could be anywhere
    PROBE_BYTES = 200, // of a text that are looked for
    PLAIN_BYTES = 40   // of a tool's description
};

static uint32_t line_number(struct str text, size_t from, size_t to)
{
    uint32_t line = 1;
    for (size_t i = from; i < to && i < text.n; i++) line += text.p[i] == '\n';
    return line;
}

static size_t find_name(struct str text, struct str name, size_t from)
{
    struct buf quoted = {0};
    buf_z(&quoted, "\"name\": ");
    buf_json(&quoted, name);
    const size_t found = quoted.failed ? SIZE_MAX : str_find(text, buf_view(&quoted), from);
    buf_free(&quoted);
    return found;
}

static size_t line_end(struct str text, size_t at)
{
    const size_t end = str_find(text, STR("\n"), at);
    return end == SIZE_MAX ? text.n : end;
}

static struct value function_of(struct value tool)
{
    const struct value f = value_get(tool, "function");
    return f.kind == VALUE_DICT ? f : tool; // some clients leave the wrapper out
}

// The beginning of a tool's description, as far as all templates write it alike.
static struct str plain_start(struct value description)
{
    size_t n = 0;
    if (description.kind != VALUE_STRING) return STR("");
    for (; n < description.s.n && n < PLAIN_BYTES; n++) {
        const char c = description.s.p[n];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && c != ' ' && !(c >= '0' && c <= '9')) break;
    }
    return str_sub(description.s, 0, n);
}

// The line at or behind *from that tells of the tool: templates print one a line, with its name and
// description. A text may have the same name in it, as an example. SIZE_MAX: none.
static size_t find_tool(struct value tool, struct str text, size_t *from, size_t *end)
{
    const struct value f = function_of(tool), name = value_get(f, "name");
    const struct str start = plain_start(value_get(f, "description"));
    size_t at = name.kind == VALUE_STRING ? find_name(text, name.s, *from) : SIZE_MAX;
    for (; at != SIZE_MAX; at = find_name(text, name.s, *end)) {
        size_t line = at;
        while (line > 0 && text.p[line - 1] != '\n') line--;
        *end = line_end(text, at);
        *from = at + 1;
        if (str_find(str_sub(text, line, *end - line), start, 0) != SIZE_MAX) return line;
    }
    return SIZE_MAX;
}

static bool in_tool(struct value tools, struct str text, size_t at, struct place *out)
{
    size_t from = 0;
    for (size_t i = 0; tools.kind == VALUE_LIST && i < tools.list->n; i++) {
        size_t next = from, end = 0;
        const size_t start = find_tool(tools.list->items[i], text, &next, &end);
        if (start == SIZE_MAX) continue;
        from = next;
        if (at < start || at >= end) continue;
        const struct value name = value_get(function_of(tools.list->items[i]), "name");
        *out = (struct place){.what = "tool", .index = i, .role = name.s, .line = 1};
        return true;
    }
    return false;
}

// ---- messages -----------------------------------------------------------------------------------

struct search {
    struct str text;
    size_t at;
    size_t from;        // behind the part that was found last
    struct place place; // of that part, then of what the template puts behind it
    bool done;
};

// A part of the place's message stands at [found, found + n).
static void take_part(struct search *s, struct place place, size_t found, size_t n)
{
    if (s->at < found) { // the template's words in front of it
        s->done = true;
        return;
    }
    s->from = n < s->text.n - found ? found + n : s->text.n;
    s->done = s->at < s->from;
    place.line = line_number(s->text, found, s->at);
    if (!s->done) place.what = "template";
    s->place = place;
}

static void take_text(struct search *s, struct place place, struct value v)
{
    const struct str body = v.kind == VALUE_STRING ? str_trim(v.s) : STR("");
    const bool last = place.last_message;
    if (s->done || body.n == 0 || (!last && body.n < PROBE_LEAST)) return;
    size_t found = str_find(s->text, str_sub(body, 0, PROBE_BYTES), s->from);
    if (last && found != SIZE_MAX) // may be a word that stands elsewhere too
        found = str_rfind(s->text, body);
    if (found != SIZE_MAX && found >= s->from) take_part(s, place, found, body.n);
}

// From the name to the end of its arguments, or of the line.
static void take_call(struct search *s, struct place place, struct value call)
{
    const struct value name = value_get(function_of(call), "name"),
                       arguments = value_get(function_of(call), "arguments");
    if (s->done || name.kind != VALUE_STRING) return;
    const size_t found = find_name(s->text, name.s, s->from);
    if (found == SIZE_MAX) return;
    size_t end = line_end(s->text, found);
    if (arguments.kind == VALUE_STRING && arguments.s.n > 0) {
        const size_t at = str_find(s->text, arguments.s, found);
        if (at != SIZE_MAX && at < end) end = at + arguments.s.n;
    }
    place.role = name.s;
    take_part(s, place, found, end - found);
}

static void take_message(struct search *s, struct value m, struct place place)
{
    const struct value role = value_get(m, "role"), calls = value_get(m, "tool_calls");
    if (role.kind == VALUE_STRING) place.role = role.s;
    const bool last = place.last_message;
    place.what = "reasoning";
    place.last_message = false; // the content follows
    take_text(s, place, value_get(m, "reasoning_content"));
    place.what = "message";
    place.last_message = last;
    take_text(s, place, value_get(m, "content"));
    place.what = "call";
    for (size_t k = 0; calls.kind == VALUE_LIST && k < calls.list->n; k++) {
        place.call = k;
        take_call(s, place, calls.list->items[k]);
    }
}

struct place place_find(const struct request_params *p, struct str text, size_t at)
{
    struct search s = {
        .text = text, .at = at, .place = {.what = "prompt", .line = line_number(text, 0, at)}};
    if (p->messages.kind != VALUE_LIST || in_tool(p->tools, text, at, &s.place)) return s.place;
    s.place = (struct place){.what = "template", .line = 1, .before_all = true};
    const size_t n = p->messages.list->n;
    for (size_t i = 0; !s.done && i < n; i++)
        take_message(&s, p->messages.list->items[i],
                     (struct place){.index = i, .last_message = i + 1 == n});
    return s.place;
}

void place_name(struct buf *b, const struct place *p)
{
    const int n = (int)p->role.n;
    if (strcmp(p->what, "message") == 0)
        buf_printf(b, "line %u of messages[%zu] (%.*s)", p->line, p->index, n, p->role.p);
    else if (strcmp(p->what, "reasoning") == 0)
        buf_printf(b, "line %u of the reasoning of messages[%zu]", p->line, p->index);
    else if (strcmp(p->what, "call") == 0)
        buf_printf(b, "tool_calls[%zu] (%.*s) of messages[%zu]", p->call, n, p->role.p, p->index);
    else if (strcmp(p->what, "tool") == 0)
        buf_printf(b, "tools[%zu] (%.*s)", p->index, n, p->role.p);
    else if (strcmp(p->what, "prompt") == 0)
        buf_printf(b, "line %u of the prompt", p->line);
    else if (p->before_all)
        buf_z(b, "the template's text in front of messages[0]");
    else
        buf_printf(b, "the template's text behind messages[%zu]", p->index);
}

void place_put(struct buf *b, const struct place *p)
{
    struct buf words = {0};
    place_name(&words, p);
    buf_printf(b, "\"place\":{\"what\":\"%s\",\"index\":%zu,\"name\":", p->what, p->index);
    buf_json(b, p->role);
    buf_printf(b, ",\"line\":%u,\"words\":", p->line);
    buf_json(b, buf_view(&words));
    buf_c(b, '}');
    b->failed |= words.failed;
    buf_free(&words);
}
