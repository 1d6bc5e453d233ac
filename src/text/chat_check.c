// Checks what a client sends as messages and tools, and brings it into the one form that templates
// know. Every complaint names the path of the value, what it is and what it should be.
// Kept as they are: keys that nobody knows here (a template may), and the form of arguments.
#include <string.h>

#include "text/chat.h"

struct checker {
    struct arena *arena;
    struct err *err;
    size_t i; // index of the message or tool being checked
};

static struct value *slot(struct value dict, const char *key)
{
    if (dict.kind != VALUE_DICT) return NULL;
    for (size_t i = 0; i < dict.dict->n; i++)
        if (str_eq(dict.dict->pairs[i].key, str_from(key))) return &dict.dict->pairs[i].v;
    return NULL;
}

static void drop(struct value dict, const char *key)
{
    struct value *v = slot(dict, key);
    if (v == NULL) return;
    struct value_dict *d = dict.dict;
    size_t at = 0;
    while (&d->pairs[at].v != v) at++;
    memmove(d->pairs + at, d->pairs + at + 1, (d->n - at - 1) * sizeof *d->pairs);
    d->n--;
}

static bool is_absent(struct value v)
{
    return v.kind == VALUE_UNDEFINED || v.kind == VALUE_NULL;
}

static bool no_memory(struct checker *c)
{
    return err_set(c->err, ERR_MEMORY, "out of memory while checking the messages");
}

static bool put(struct checker *c, struct value dict, const char *key, struct value v)
{
    return value_set(c->arena, dict, str_from(key), v) || no_memory(c);
}

// A string of a message for an error, bounded.
static int shown(struct str s)
{
    return (int)(s.n < 40 ? s.n : 40);
}

// ---- content --------------------------------------------------------------------------------

// The text of part k of a message's content.
static bool part_text(struct checker *c, struct value part, size_t k, struct str *out)
{
    static const char *const texts[] = {"text", "input_text", "output_text", "refusal"};
    struct value type = value_get(part, "type");
    if (part.kind != VALUE_DICT)
        return err_set(c->err, ERR_INPUT,
                       "messages[%zu].content[%zu] must be an object like {\"type\": \"text\", "
                       "\"text\": \"...\"}, not %s",
                       c->i, k, value_kind_name(part.kind));
    if (type.kind != VALUE_STRING)
        return err_set(c->err, ERR_INPUT,
                       "messages[%zu].content[%zu].type must be a string, \"text\"", c->i, k);
    bool known = false;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        known = known || str_eq(type.s, str_from(texts[i]));
    if (!known)
        return err_set(c->err, ERR_UNSUPPORTED,
                       "messages[%zu].content[%zu] has the type \"%.*s\", which is not supported; "
                       "this server takes text only",
                       c->i, k, shown(type.s), type.s.p);
    const char *key = str_eq(type.s, STR("refusal")) ? "refusal" : "text";
    struct value text = value_get(part, key);
    if (text.kind != VALUE_STRING)
        return err_set(c->err, ERR_INPUT, "messages[%zu].content[%zu].%s must be a string, not %s",
                       c->i, k, key, is_absent(text) ? "missing" : value_kind_name(text.kind));
    *out = text.s;
    return true;
}

static bool join_parts(struct checker *c, struct value parts, struct value *out)
{
    struct buf b = {0};
    struct str text = STR("");
    for (size_t k = 0; k < parts.list->n; k++) {
        if (!part_text(c, parts.list->items[k], k, &text)) {
            buf_free(&b);
            return false;
        }
        if (k > 0) buf_c(&b, '\n');
        buf_str(&b, text);
    }
    if (parts.list->n != 1) text = b.failed ? (struct str){0} : arena_str(c->arena, buf_view(&b));
    buf_free(&b);
    if (text.p == NULL) return no_memory(c);
    *out = value_str(text);
    return true;
}

static bool check_content(struct checker *c, struct value message, bool may_be_null)
{
    struct value *content = slot(message, "content");
    if (content == NULL || content->kind == VALUE_NULL) {
        if (may_be_null) return put(c, message, "content", value_str(STR("")));
        return err_set(c->err, ERR_INPUT,
                       "messages[%zu].content must be a string or an array of parts, not %s", c->i,
                       content == NULL ? "missing" : "null");
    }
    if (content->kind == VALUE_STRING) return true;
    if (content->kind == VALUE_LIST) return join_parts(c, *content, content);
    return err_set(c->err, ERR_INPUT,
                   "messages[%zu].content must be a string or an array of parts, not %s", c->i,
                   value_kind_name(content->kind));
}

// ---- tool calls -----------------------------------------------------------------------------

static bool check_arguments(struct checker *c, size_t k, struct value function)
{
    struct value *arguments = slot(function, "arguments");
    struct value empty = value_new_dict(c->arena);
    if (empty.kind != VALUE_DICT) return no_memory(c);
    if (arguments == NULL || arguments->kind == VALUE_NULL)
        return put(c, function, "arguments", empty);
    if (arguments->kind == VALUE_DICT) return true;
    if (arguments->kind != VALUE_STRING)
        return err_set(c->err, ERR_INPUT,
                       "messages[%zu].tool_calls[%zu].function.arguments must be a string of JSON "
                       "or an object, not %s",
                       c->i, k, value_kind_name(arguments->kind));
    if (str_trim(arguments->s).n == 0) *arguments = value_str(STR("{}"));
    return true;
}

static bool check_call(struct checker *c, size_t k, struct value call)
{
    if (call.kind != VALUE_DICT)
        return err_set(c->err, ERR_INPUT, "messages[%zu].tool_calls[%zu] must be an object, not %s",
                       c->i, k, value_kind_name(call.kind));
    struct value type = value_get(call, "type");
    if (!is_absent(type) && (type.kind != VALUE_STRING || !str_eq(type.s, STR("function"))))
        return err_set(c->err, ERR_INPUT, "messages[%zu].tool_calls[%zu].type must be \"function\"",
                       c->i, k);
    struct value function = value_get(call, "function");
    if (is_absent(function)) function = call; // some clients leave the wrapper out
    if (function.kind != VALUE_DICT || value_get(function, "name").kind != VALUE_STRING)
        return err_set(c->err, ERR_INPUT,
                       "messages[%zu].tool_calls[%zu].function must be an object with \"name\", a "
                       "string, and \"arguments\"",
                       c->i, k);
    return check_arguments(c, k, function);
}

// The form before tool_calls: {"function_call": {"name", "arguments"}}.
static bool upgrade_function_call(struct checker *c, struct value message)
{
    struct value function = value_get(message, "function_call");
    if (function.kind != VALUE_DICT || !is_absent(value_get(message, "tool_calls"))) return true;
    struct value call = value_new_dict(c->arena), calls = value_new_list(c->arena);
    if (call.kind != VALUE_DICT || calls.kind != VALUE_LIST ||
        !value_set(c->arena, call, STR("type"), value_str(STR("function"))) ||
        !value_set(c->arena, call, STR("function"), function) ||
        !value_append(c->arena, calls, call))
        return no_memory(c);
    return put(c, message, "tool_calls", calls);
}

static bool check_calls(struct checker *c, struct value message)
{
    if (!upgrade_function_call(c, message)) return false;
    struct value calls = value_get(message, "tool_calls");
    if (calls.kind == VALUE_NULL) drop(message, "tool_calls");
    if (is_absent(calls)) return true;
    if (calls.kind != VALUE_LIST)
        return err_set(c->err, ERR_INPUT, "messages[%zu].tool_calls must be an array, not %s", c->i,
                       value_kind_name(calls.kind));
    for (size_t k = 0; k < calls.list->n; k++)
        if (!check_call(c, k, calls.list->items[k])) return false;
    return true;
}

// ---- messages -------------------------------------------------------------------------------

static bool check_assistant(struct checker *c, struct value message)
{
    struct value reasoning = value_get(message, "reasoning_content");
    if (is_absent(reasoning)) { // the other name in use for it
        reasoning = value_get(message, "reasoning");
        if (reasoning.kind == VALUE_STRING && !put(c, message, "reasoning_content", reasoning))
            return false;
    }
    reasoning = value_get(message, "reasoning_content");
    if (!is_absent(reasoning) && reasoning.kind != VALUE_STRING)
        return err_set(c->err, ERR_INPUT,
                       "messages[%zu].reasoning_content must be a string, not %s", c->i,
                       value_kind_name(reasoning.kind));
    return check_calls(c, message);
}

static bool check_role(struct checker *c, struct value message, struct str *out)
{
    static const struct {
        const char *given, *meant;
    } roles[] = {{"system", "system"},    {"user", "user"}, {"assistant", "assistant"},
                 {"developer", "system"}, {"tool", "tool"}, {"function", "tool"}};
    struct value *role = slot(message, "role");
    if (role == NULL || role->kind != VALUE_STRING)
        return err_set(c->err, ERR_INPUT, "messages[%zu].role must be a string, not %s", c->i,
                       role == NULL ? "missing" : value_kind_name(role->kind));
    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++) {
        if (!str_eq(role->s, str_from(roles[k].given))) continue;
        *role = value_str(str_from(roles[k].meant));
        *out = role->s;
        return true;
    }
    return err_set(c->err, ERR_INPUT,
                   "messages[%zu].role is \"%.*s\"; it must be system, developer, user, assistant "
                   "or tool",
                   c->i, shown(role->s), role->s.p);
}

static bool check_message(struct checker *c, struct value message)
{
    struct str role;
    if (message.kind != VALUE_DICT)
        return err_set(c->err, ERR_INPUT, "messages[%zu] must be an object, not %s", c->i,
                       value_kind_name(message.kind));
    if (!check_role(c, message, &role)) return false;
    bool assistant = str_eq(role, STR("assistant"));
    return check_content(c, message, assistant) && (!assistant || check_assistant(c, message));
}

// ---- tools ----------------------------------------------------------------------------------

static bool check_tool(struct checker *c, struct value tool)
{
    if (tool.kind != VALUE_DICT)
        return err_set(c->err, ERR_INPUT, "tools[%zu] must be an object, not %s", c->i,
                       value_kind_name(tool.kind));
    struct value type = value_get(tool, "type"), function = value_get(tool, "function");
    bool bare = is_absent(function) && value_get(tool, "name").kind == VALUE_STRING;
    if (!is_absent(type) && (type.kind != VALUE_STRING || !str_eq(type.s, STR("function"))))
        return err_set(c->err, ERR_UNSUPPORTED, "tools[%zu].type must be \"function\"", c->i);
    if (bare) function = tool;
    if (function.kind != VALUE_DICT)
        return err_set(c->err, ERR_INPUT,
                       "tools[%zu].function must be an object with \"name\", \"description\" and "
                       "\"parameters\", not %s",
                       c->i, is_absent(function) ? "missing" : value_kind_name(function.kind));
    struct value name = value_get(function, "name");
    struct value description = value_get(function, "description");
    struct value parameters = value_get(function, "parameters");
    if (name.kind != VALUE_STRING || name.s.n == 0)
        return err_set(c->err, ERR_INPUT,
                       "tools[%zu].function.name must be a string that is not "
                       "empty",
                       c->i);
    if (!is_absent(description) && description.kind != VALUE_STRING)
        return err_set(c->err, ERR_INPUT,
                       "tools[%zu].function.description must be a string, not %s", c->i,
                       value_kind_name(description.kind));
    if (!is_absent(parameters) && parameters.kind != VALUE_DICT)
        return err_set(c->err, ERR_INPUT,
                       "tools[%zu].function.parameters must be an object (a JSON "
                       "schema), not %s",
                       c->i, value_kind_name(parameters.kind));
    drop(tool, "cache_control");
    drop(function, "cache_control");
    return true;
}

bool chat_check(struct value *messages, struct value *tools, struct arena *a, struct err *e)
{
    struct checker c = {.arena = a, .err = e};
    if (messages->kind != VALUE_LIST)
        return err_set(e, ERR_INPUT, "messages must be an array, not %s",
                       messages->kind == VALUE_UNDEFINED ? "missing"
                                                         : value_kind_name(messages->kind));
    if (messages->list->n == 0) return err_set(e, ERR_INPUT, "messages must not be empty");
    for (c.i = 0; c.i < messages->list->n; c.i++)
        if (!check_message(&c, messages->list->items[c.i])) return false;
    if (tools->kind == VALUE_NULL) *tools = (struct value){0};
    if (tools->kind == VALUE_UNDEFINED) return true;
    if (tools->kind != VALUE_LIST)
        return err_set(e, ERR_INPUT, "tools must be an array, not %s",
                       value_kind_name(tools->kind));
    for (c.i = 0; c.i < tools->list->n; c.i++)
        if (!check_tool(&c, tools->list->items[c.i])) return false;
    return true;
}
