// Chat templates: opening one, finding out what it can do, rendering a request with it. Checking
// what a client sent is in chat_check.c.
// Invariant: with `guard`, no string of the request reaches the template without a guard byte
// inside every control token's text, so the only control tokens in a prompt are those the template
// wrote.
#include "text/chat.h"

#include <string.h>

// ---- what a template can do -----------------------------------------------------------------

// The form of arguments is told apart by rendering one call with each. Ids have nine characters,
// because some templates insist on that.
#define PROBE(arguments)                                                                     \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", "   \
    "\"content\": \"\", \"tool_calls\": [{\"id\": \"call00001\", \"type\": \"function\", "   \
    "\"function\": {\"name\": \"probe_name\", \"arguments\": " arguments                     \
    "}}]}, {\"role\": \"tool\", \"tool_call_id\": \"call00001\", \"name\": \"probe_name\", " \
    "\"content\": \"r\"}], \"tools\": [{\"type\": \"function\", \"function\": {\"name\": "   \
    "\"probe_name\", \"description\": \"d\", \"parameters\": {\"type\": \"object\", "        \
    "\"properties\": {}}}}], \"add_generation_prompt\": true, \"bos_token\": \"\", "         \
    "\"eos_token\": \"\"}"

static bool contains(struct str s, struct str part)
{
    return str_find(s, part, 0) != SIZE_MAX;
}

// Renders a probe; an empty text when the template fails on it.
static void render_probe(const struct jinja *j, struct str json, struct buf *out)
{
    struct arena a = {.limit_bytes = 64u << 20};
    struct value vars;
    if (value_parse(&vars, &a, json, NULL)) jinja_render(j, vars, &a, out, NULL);
    arena_free(&a);
}

// Does text hold <tool_call> with a JSON object that begins with the name?
static bool is_hermes(struct str text)
{
    static const struct str tag = {"<tool_call>", 11};
    for (size_t i = 0; (i = str_find(text, tag, i)) != SIZE_MAX; i += tag.n)
        if (str_starts(str_trim(str_sub(text, i + tag.n, 64)), STR("{\"name\": \"probe_name\"")))
            return true;
    return false;
}

static void find_abilities(struct chat_template *t, struct str source)
{
    struct buf as_string = {0}, as_object = {0};
    render_probe(t->jinja, STR(PROBE("\"{\\\"probe_key\\\": 1}\"")), &as_string);
    render_probe(t->jinja, STR(PROBE("{\"probe_key\": 1}")), &as_object);
    bool takes_string = contains(buf_view(&as_string), STR("{\"probe_key\": 1}"));
    bool takes_object = contains(buf_view(&as_object), STR("probe_key"));
    t->arguments = takes_string == takes_object ? ARGUMENTS_AS_GIVEN
                   : takes_object               ? ARGUMENTS_OBJECT
                                                : ARGUMENTS_STRING;
    if (is_hermes(buf_view(&as_string)) || is_hermes(buf_view(&as_object))) t->tools = TOOLS_HERMES;
    t->has_enable_thinking = contains(source, STR("enable_thinking"));
    t->has_thinking = t->has_enable_thinking || contains(source, STR("<think>")) ||
                      contains(source, STR("</think>"));
    buf_free(&as_string);
    buf_free(&as_object);
}

static struct str token_text(const struct tokenizer *tok, int32_t id)
{
    struct str piece = id < 0 ? STR("") : tokenizer_piece(tok, id);
    return piece.p == NULL ? STR("") : piece;
}

bool chat_template_open(struct chat_template *out, struct str source, const struct tokenizer *tok,
                        struct err *e)
{
    struct chat_template t = {.tok = tok};
    if (!jinja_open(&t.jinja, source, e)) return false;
    t.bos_token = token_text(tok, tokenizer_bos(tok));
    t.eos_token = token_text(tok, tokenizer_eos(tok));
    find_abilities(&t, source);
    *out = t;
    return true;
}

void chat_template_close(struct chat_template *t)
{
    jinja_close(t->jinja);
    *t = (struct chat_template){0};
}

// ---- guarding -------------------------------------------------------------------------------

struct guard {
    const struct tokenizer *tok;
    struct arena *arena;
    struct err *err;
};

static bool no_memory(struct err *e)
{
    return err_set(e, ERR_MEMORY, "out of memory while rendering the messages");
}

// A guard behind the first byte of each control token's text.
static bool guard_string(const struct guard *g, struct str s, struct str *out)
{
    size_t n, at = tokenizer_find_control(g->tok, s, 0, &n);
    *out = s;
    if (at == SIZE_MAX) return true;
    struct buf b = {0};
    size_t from = 0;
    while (at != SIZE_MAX) {
        buf_put(&b, s.p + from, at + 1 - from);
        buf_c(&b, TOKENIZE_GUARD);
        from = at + 1; // a token's text may begin inside another's
        at = tokenizer_find_control(g->tok, s, from, &n);
    }
    buf_put(&b, s.p + from, s.n - from);
    struct str copy = b.failed ? (struct str){0} : arena_str(g->arena, buf_view(&b));
    buf_free(&b);
    if (copy.p == NULL) return no_memory(g->err);
    *out = copy;
    return true;
}

static bool guard_value(const struct guard *g, struct value v, struct value *out);

static bool guard_list(const struct guard *g, struct value v, struct value *out)
{
    struct value copy = value_new_list(g->arena);
    if (copy.kind != VALUE_LIST) return no_memory(g->err);
    for (size_t i = 0; i < v.list->n; i++) {
        struct value item;
        if (!guard_value(g, v.list->items[i], &item)) return false;
        if (!value_append(g->arena, copy, item)) return no_memory(g->err);
    }
    *out = copy;
    return true;
}

static bool guard_dict(const struct guard *g, struct value v, struct value *out)
{
    struct value copy = value_new_dict(g->arena);
    if (copy.kind != VALUE_DICT) return no_memory(g->err);
    for (size_t i = 0; i < v.dict->n; i++) {
        struct value_pair pair;
        if (!guard_string(g, v.dict->pairs[i].key, &pair.key) ||
            !guard_value(g, v.dict->pairs[i].v, &pair.v))
            return false;
        if (!value_add_pair(g->arena, copy.dict, pair.key, pair.v)) return no_memory(g->err);
    }
    *out = copy;
    return true;
}

// A copy of v whose strings, keys included, are guarded. Depth: the parser's 128 levels.
static bool guard_value(const struct guard *g, struct value v, struct value *out)
{
    *out = v;
    if (v.kind == VALUE_STRING) return guard_string(g, v.s, &out->s);
    if (v.kind == VALUE_LIST) return guard_list(g, v, out);
    if (v.kind == VALUE_DICT) return guard_dict(g, v, out);
    return true;
}

// ---- arguments ------------------------------------------------------------------------------

// One call's arguments in the form that the template takes. JSON that cannot be parsed, such as a
// call that was cut off, stays as it is: a template may still print it.
static bool convert_arguments(const struct chat_template *t, struct arena *a, struct value *v,
                              struct err *e)
{
    struct value parsed;
    if (t->arguments == ARGUMENTS_OBJECT && v->kind == VALUE_STRING) {
        if (value_parse(&parsed, a, v->s, NULL) && parsed.kind == VALUE_DICT) *v = parsed;
        return true;
    }
    if (t->arguments != ARGUMENTS_STRING || v->kind == VALUE_STRING) return true;
    struct buf b = {0};
    value_dump(&b, *v, -1);
    struct str text = b.failed ? (struct str){0} : arena_str(a, buf_view(&b));
    buf_free(&b);
    if (text.p == NULL) return no_memory(e);
    *v = value_str(text);
    return true;
}

// A copy of dict with key's value replaced.
static bool with(struct arena *a, struct value dict, const char *key, struct value v,
                 struct value *out, struct err *e)
{
    struct value copy = value_new_dict(a);
    if (copy.kind != VALUE_DICT) return no_memory(e);
    for (size_t i = 0; i < dict.dict->n; i++) {
        struct value_pair pair = dict.dict->pairs[i];
        if (str_eq(pair.key, str_from(key))) pair.v = v;
        if (!value_add_pair(a, copy.dict, pair.key, pair.v)) return no_memory(e);
    }
    *out = copy;
    return true;
}

static bool convert_call(const struct chat_template *t, struct arena *a, struct value *call,
                         struct err *e)
{
    struct value function = value_get(*call, "function");
    bool wrapped = function.kind == VALUE_DICT;
    if (!wrapped) function = *call;
    struct value arguments = value_get(function, "arguments");
    if (arguments.kind == VALUE_UNDEFINED) return true;
    if (!convert_arguments(t, a, &arguments, e) ||
        !with(a, function, "arguments", arguments, &function, e))
        return false;
    if (wrapped) return with(a, *call, "function", function, call, e);
    *call = function;
    return true;
}

static bool convert_message(const struct chat_template *t, struct arena *a, struct value *message,
                            struct err *e)
{
    struct value calls = value_get(*message, "tool_calls"), copy = value_new_list(a);
    if (calls.kind != VALUE_LIST) return true;
    if (copy.kind != VALUE_LIST) return no_memory(e);
    for (size_t i = 0; i < calls.list->n; i++) {
        struct value call = calls.list->items[i];
        if (!convert_call(t, a, &call, e)) return false;
        if (!value_append(a, copy, call)) return no_memory(e);
    }
    return with(a, *message, "tool_calls", copy, message, e);
}

static bool convert_messages(const struct chat_template *t, struct arena *a, struct value *messages,
                             struct err *e)
{
    struct value copy = value_new_list(a);
    if (t->arguments == ARGUMENTS_AS_GIVEN) return true;
    if (copy.kind != VALUE_LIST) return no_memory(e);
    for (size_t i = 0; i < messages->list->n; i++) {
        struct value message = messages->list->items[i];
        if (!convert_message(t, a, &message, e)) return false;
        if (!value_append(a, copy, message)) return no_memory(e);
    }
    *messages = copy;
    return true;
}

// ---- rendering ------------------------------------------------------------------------------

// The request's own values, converted and guarded.
static bool request_values(const struct chat_template *t, const struct chat_request *r, bool guard,
                           struct arena *a, struct value out[3], struct err *e)
{
    struct guard g = {.tok = t->tok, .arena = a, .err = e};
    struct value messages = r->messages;
    if (messages.kind != VALUE_LIST) return err_set(e, ERR_INPUT, "messages must be an array");
    if (!convert_messages(t, a, &messages, e)) return false;
    const struct value given[3] = {messages, r->tools, r->kwargs};
    for (int i = 0; i < 3; i++) {
        out[i] = given[i];
        if (guard && !guard_value(&g, given[i], &out[i])) return false;
    }
    bool no_tools = out[1].kind != VALUE_LIST || out[1].list->n == 0;
    if (no_tools) out[1] = (struct value){.kind = VALUE_NULL}; // as transformers passes it
    return true;
}

static bool variables(const struct chat_template *t, const struct chat_request *r,
                      const struct value own[3], struct arena *a, struct value *out, struct err *e)
{
    const struct {
        struct str name;
        struct value v;
    } fixed[] = {
        {STR("messages"), own[0]},
        {STR("tools"), own[1]},
        {STR("documents"), {.kind = VALUE_NULL}},
        {STR("add_generation_prompt"), value_bool(r->add_generation_prompt)},
        {STR("bos_token"), value_str(t->bos_token)},
        {STR("eos_token"), value_str(t->eos_token)},
        {STR("enable_thinking"), value_bool(r->thinking == 1)},
    };
    size_t n = sizeof fixed / sizeof *fixed;
    struct value vars = value_new_dict(a);
    bool ok = vars.kind == VALUE_DICT;
    for (size_t i = 0; ok && i < n - (r->thinking < 0); i++)
        ok = value_set(a, vars, fixed[i].name, fixed[i].v);
    for (size_t i = 0; ok && own[2].kind == VALUE_DICT && i < own[2].dict->n; i++)
        ok = value_set(a, vars, own[2].dict->pairs[i].key, own[2].dict->pairs[i].v);
    *out = vars;
    return ok || no_memory(e);
}

bool chat_render(const struct chat_template *t, const struct chat_request *r, bool guard,
                 struct arena *scratch, struct buf *out, struct err *e)
{
    struct value own[3], vars;
    if (r->kwargs.kind != VALUE_DICT && r->kwargs.kind != VALUE_UNDEFINED &&
        r->kwargs.kind != VALUE_NULL)
        return err_set(e, ERR_INPUT, "chat_template_kwargs must be an object, not %s",
                       value_kind_name(r->kwargs.kind));
    if (!request_values(t, r, guard, scratch, own, e) || !variables(t, r, own, scratch, &vars, e))
        return false;
    if (jinja_render(t->jinja, vars, scratch, out, e)) return true;
    return err_prefix(e, "the messages do not fit the model's chat template: ");
}
