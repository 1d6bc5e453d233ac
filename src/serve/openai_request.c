// Scalars stand in a table with their bounds; what has a shape of its own has a function.
#include "serve/openai_request.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    STOP_BYTES_MAX = 1024,
    SALT_BYTES_MAX = 256,
    TTL_S_MAX = 7 * 24 * 3600,
    TIMEOUT_MS_MAX = TTL_S_MAX * 1000,
};

// Fields that become something else than their own value.
struct raw_fields {
    int32_t max_tokens, max_completion_tokens,
        n_predict; // -1 = up to the context; INT32_MIN absent
    int32_t top_k, n, best_of, completion_logprobs;
    bool echo, enable_thinking, given_enable_thinking, chat_logprobs, continue_final_message;
    bool given_completion_logprobs;
    struct request_params p;
};

enum field_kind { FIELD_BOOL, FIELD_INT, FIELD_UINT, FIELD_FLOAT };

struct field {
    const char *name;
    enum field_kind kind;
    double min, max; // of numbers
    size_t offset;   // in struct raw_fields
    size_t given;    // a bool that becomes true; 0 = none
};

#define AT(member)  offsetof(struct raw_fields, member)
#define NO_GIVEN    0
#define SAMPLING(m) AT(p.sampling.m), AT(p.sampling.has_##m)

static const struct field common_fields[] = {
    {"stream", FIELD_BOOL, 0, 0, AT(p.stream), NO_GIVEN},
    {"temperature", FIELD_FLOAT, 0, 2, SAMPLING(temperature)},
    {"top_p", FIELD_FLOAT, 0, 1, SAMPLING(top_p)},
    {"min_p", FIELD_FLOAT, 0, 1, SAMPLING(min_p)},
    {"top_k", FIELD_INT, -1, INT32_MAX, AT(top_k), AT(p.sampling.has_top_k)},
    {"repeat_penalty", FIELD_FLOAT, 0.01, 10, SAMPLING(repeat_penalty)},
    {"repetition_penalty", FIELD_FLOAT, 0.01, 10, SAMPLING(repeat_penalty)},
    {"presence_penalty", FIELD_FLOAT, -2, 2, AT(p.sampling.presence_penalty), NO_GIVEN},
    {"frequency_penalty", FIELD_FLOAT, -2, 2, AT(p.sampling.frequency_penalty), NO_GIVEN},
    {"max_tokens", FIELD_INT, -1, INT32_MAX, AT(max_tokens), NO_GIVEN},
    {"max_completion_tokens", FIELD_INT, -1, INT32_MAX, AT(max_completion_tokens), NO_GIVEN},
    {"n_predict", FIELD_INT, -1, INT32_MAX, AT(n_predict), NO_GIVEN},
    {"n", FIELD_INT, 1, 128, AT(n), NO_GIVEN},
    {"ignore_eos", FIELD_BOOL, 0, 0, AT(p.ignore_eos), NO_GIVEN},
    {"priority", FIELD_INT, INT32_MIN, INT32_MAX, AT(p.priority), NO_GIVEN},
    {"timeout_ms", FIELD_UINT, 1, TIMEOUT_MS_MAX, AT(p.timeout_ms), NO_GIVEN},
    {"cache_ttl", FIELD_UINT, 0, TTL_S_MAX, AT(p.cache_ttl_s), AT(p.has_cache_ttl)},
    {"cache_priority", FIELD_UINT, 0, CACHE_PRIORITY_MAX, AT(p.cache_priority),
     AT(p.has_cache_priority)},
};

static const struct field chat_fields[] = {
    {"logprobs", FIELD_BOOL, 0, 0, AT(chat_logprobs), NO_GIVEN},
    {"top_logprobs", FIELD_UINT, 0, TOP_LOGPROBS_MAX, AT(p.n_top_logprobs), NO_GIVEN},
    {"parallel_tool_calls", FIELD_BOOL, 0, 0, AT(p.parallel_tool_calls), NO_GIVEN},
    {"add_generation_prompt", FIELD_BOOL, 0, 0, AT(p.add_generation_prompt), NO_GIVEN},
    {"continue_final_message", FIELD_BOOL, 0, 0, AT(continue_final_message), NO_GIVEN},
    {"enable_thinking", FIELD_BOOL, 0, 0, AT(enable_thinking), AT(given_enable_thinking)},
};

static const struct field completion_fields[] = {
    {"logprobs", FIELD_INT, 0, TOP_LOGPROBS_MAX, AT(completion_logprobs),
     AT(given_completion_logprobs)},
    {"echo", FIELD_BOOL, 0, 0, AT(echo), NO_GIVEN},
    {"best_of", FIELD_INT, 1, 128, AT(best_of), NO_GIVEN},
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static bool absent(struct value v)
{
    return v.kind == VALUE_UNDEFINED || v.kind == VALUE_NULL;
}

static bool wrong_type(const char *name, const char *wanted, struct value v, struct err *e)
{
    return err_set(e, ERR_INPUT, "\"%s\" must be %s, not %s", name, wanted,
                   value_kind_name(v.kind));
}

static bool read_number(const struct field *f, struct value v, double *out, struct err *e)
{
    bool whole = f->kind != FIELD_FLOAT;
    double d;
    if (v.kind == VALUE_INT)
        d = (double)v.i;
    else if (v.kind == VALUE_FLOAT)
        d = v.f;
    else if (v.kind == VALUE_BIGINT)
        d = HUGE_VAL;
    else
        return wrong_type(f->name, whole ? "a whole number" : "a number", v, e);
    if (whole && isfinite(d) && d != floor(d))
        return err_set(e, ERR_INPUT, "\"%s\" must be a whole number, not %g", f->name, d);
    if (isinf(d))
        return err_set(e, ERR_INPUT,
                       "\"%s\" must be from %.10g to %.10g; this number is far outside", f->name,
                       f->min, f->max);
    if (!(d >= f->min && d <= f->max))
        return err_set(e, ERR_INPUT, "\"%s\" must be from %.10g to %.10g, not %g", f->name, f->min,
                       f->max, d);
    *out = d;
    return true;
}

static bool read_field(struct raw_fields *raw, const struct field *f, struct value body,
                       struct err *e)
{
    struct value v = value_get(body, f->name);
    char *base = (char *)raw, *at = base + f->offset;
    double d = 0;
    if (absent(v)) return true;
    if (f->kind == FIELD_BOOL && v.kind != VALUE_BOOL)
        return wrong_type(f->name, "true or false", v, e);
    if (f->kind != FIELD_BOOL && !read_number(f, v, &d, e)) return false;
    switch (f->kind) {
    case FIELD_BOOL: memcpy(at, &v.b, sizeof v.b); break;
    case FIELD_INT: memcpy(at, &(int32_t){(int32_t)d}, sizeof(int32_t)); break;
    case FIELD_UINT: memcpy(at, &(uint32_t){(uint32_t)d}, sizeof(uint32_t)); break;
    case FIELD_FLOAT: memcpy(at, &(float){(float)d}, sizeof(float)); break;
    }
    if (f->given != NO_GIVEN) memcpy(base + f->given, &(bool){true}, sizeof(bool));
    return true;
}

static bool read_fields(struct raw_fields *raw, const struct field *table, size_t n,
                        struct value body, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (!read_field(raw, &table[i], body, e)) return false;
    return true;
}

static bool add_stop(struct request_params *p, struct value v, struct err *e)
{
    if (v.kind != VALUE_STRING) return wrong_type("stop", "a string or an array of strings", v, e);
    if (v.s.n == 0) return true; // would stop before the first token: clients mean "none"
    if (v.s.n > STOP_BYTES_MAX)
        return err_set(e, ERR_INPUT, "\"stop\" strings may have %d bytes, not %zu", STOP_BYTES_MAX,
                       v.s.n);
    if (p->n_stops == STOPS_MAX)
        return err_set(e, ERR_INPUT, "\"stop\" may hold at most %d strings", STOPS_MAX);
    p->stops[p->n_stops++] = v.s;
    return true;
}

static bool read_stop(struct request_params *p, struct value body, struct err *e)
{
    struct value v = value_get(body, "stop");
    if (absent(v)) return true;
    if (v.kind != VALUE_LIST) return add_stop(p, v, e);
    for (size_t i = 0; i < v.list->n; i++)
        if (!add_stop(p, v.list->items[i], e)) return false;
    return true;
}

static bool read_seed(struct request_params *p, struct value body, struct err *e)
{
    struct value v = value_get(body, "seed");
    if (absent(v)) return true;
    if (v.kind == VALUE_BIGINT || v.kind == VALUE_FLOAT)
        return err_set(e, ERR_INPUT, "\"seed\" must be a whole number from -2^63 to 2^63 - 1");
    if (v.kind != VALUE_INT) return wrong_type("seed", "a whole number", v, e);
    if (v.i == -1) return true; // several clients' word for "any"
    p->sampling.has_seed = true;
    p->sampling.seed = (uint64_t)v.i;
    return true;
}

bool request_token_id(int32_t *out, struct value v, uint32_t n_vocab, const char *where,
                      struct err *e)
{
    if (v.kind != VALUE_INT) return wrong_type(where, "token ids (whole numbers)", v, e);
    if (v.i < 0 || v.i >= (int64_t)n_vocab)
        return err_set(e, ERR_INPUT, "\"%s\": token id %lld is not from 0 to %u", where,
                       (long long)v.i, n_vocab - 1);
    *out = (int32_t)v.i;
    return true;
}

static bool bias_token(int32_t *out, struct str key, uint32_t n_vocab, struct err *e)
{
    char digits[12] = "";
    if (key.n > 0 && key.n < sizeof digits) memcpy(digits, key.p, key.n);
    char *end;
    long id = strtol(digits, &end, 10);
    if (key.n == 0 || key.n >= sizeof digits || end != digits + key.n || digits[0] == ' ')
        return err_set(e, ERR_INPUT, "\"logit_bias\" keys must be token ids, not \"%.*s\"",
                       (int)(key.n < 40 ? key.n : 40), key.p);
    return request_token_id(out, value_int(id), n_vocab, "logit_bias", e);
}

static bool read_bias(struct request_params *p, struct value body, uint32_t n_vocab,
                      struct arena *a, struct err *e)
{
    static const struct field range = {"logit_bias", FIELD_FLOAT, -100, 100, 0, NO_GIVEN};
    struct value v = value_get(body, "logit_bias");
    if (absent(v)) return true;
    if (v.kind != VALUE_DICT)
        return wrong_type("logit_bias", "an object of token ids and numbers", v, e);
    if (v.dict->n > BIAS_MAX)
        return err_set(e, ERR_INPUT, "\"logit_bias\" may hold %d tokens, not %zu", BIAS_MAX,
                       v.dict->n);
    p->bias = arena_array(a, v.dict->n, sizeof *p->bias);
    if (p->bias == NULL && v.dict->n > 0)
        return err_set(e, ERR_MEMORY, "no memory for \"logit_bias\"");
    for (size_t i = 0; i < v.dict->n; i++) {
        double d;
        if (!bias_token(&p->bias[i].token, v.dict->pairs[i].key, n_vocab, e)) return false;
        if (!read_number(&range, v.dict->pairs[i].v, &d, e)) return false;
        p->bias[i].bias = (float)d;
    }
    p->n_bias = v.dict->n;
    return true;
}

static bool read_stream_options(struct request_params *p, struct value body, struct err *e)
{
    struct value v = value_get(body, "stream_options");
    if (absent(v)) return true;
    if (v.kind != VALUE_DICT) return wrong_type("stream_options", "an object", v, e);
    struct value usage = value_get(v, "include_usage");
    if (absent(usage)) return true;
    if (usage.kind != VALUE_BOOL)
        return wrong_type("stream_options.include_usage", "true or false", usage, e);
    p->include_usage = usage.b;
    return true;
}

static bool read_salt(struct request_params *p, struct value body, struct err *e)
{
    struct value v = value_get(body, "cache_salt");
    if (absent(v)) return true;
    if (v.kind != VALUE_STRING) return wrong_type("cache_salt", "a string", v, e);
    if (v.s.n > SALT_BYTES_MAX)
        return err_set(e, ERR_INPUT, "\"cache_salt\" may have %d bytes, not %zu", SALT_BYTES_MAX,
                       v.s.n);
    p->cache_salt = v.s;
    return true;
}

// What other servers have beside response_format, and calls of the old form: saying no is better than an
// answer in the wrong form.
static bool refuse_formats(struct value body, struct err *e)
{
    static const char *const names[] = {
        "grammar",        "structured_outputs", "guided_json", "guided_regex", "guided_choice",
        "guided_grammar", "structural_tag",     "regex",       "ebnf"};
    for (size_t i = 0; i < COUNT(names); i++)
        if (!absent(value_get(body, names[i])))
            return err_set(e, ERR_UNSUPPORTED,
                           "\"%s\" is not supported; send \"response_format\" with a JSON schema",
                           names[i]);
    if (!absent(value_get(body, "functions")) || !absent(value_get(body, "function_call")))
        return err_set(e, ERR_UNSUPPORTED,
                       "\"functions\" and \"function_call\" are not supported; send \"tools\" and "
                       "\"tool_choice\"");
    return true;
}

// OpenAI's {"type": "json_schema", "json_schema": {"schema": ...}}, also with "schema" directly, as
// llama-server takes it for either type.
static bool read_schema(struct request_params *p, struct value format, bool must, struct err *e)
{
    struct value wrapped = value_get(value_get(format, "json_schema"), "schema");
    struct value v = absent(wrapped) ? value_get(format, "schema") : wrapped;
    if (absent(v) && !must) return true;
    if (absent(v))
        return err_set(e, ERR_INPUT, "\"response_format.json_schema.schema\" is missing");
    if (v.kind != VALUE_DICT && v.kind != VALUE_BOOL)
        return wrong_type("response_format.json_schema.schema", "an object", v, e);
    p->form = FORM_SCHEMA;
    p->schema = v;
    return true;
}

static bool read_format(struct request_params *p, struct value body, struct err *e)
{
    struct value v = value_get(body, "response_format"), bare = value_get(body, "json_schema");
    if (!absent(bare)) { // llama-server's
        if (bare.kind != VALUE_DICT) return wrong_type("json_schema", "an object", bare, e);
        p->form = FORM_SCHEMA;
        p->schema = bare;
    }
    if (absent(v)) return true;
    if (v.kind != VALUE_DICT) return wrong_type("response_format", "an object", v, e);
    struct value type = value_get(v, "type");
    if (absent(type)) return err_set(e, ERR_INPUT, "\"response_format.type\" is missing");
    if (type.kind != VALUE_STRING) return wrong_type("response_format.type", "a string", type, e);
    if (str_eq(type.s, STR("text"))) return true;
    if (str_eq(type.s, STR("json_schema"))) return read_schema(p, v, true, e);
    if (str_eq(type.s, STR("json_object"))) {
        p->form = FORM_OBJECT;
        return read_schema(p, v, false, e);
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "\"response_format\" of type \"%.*s\" is not known; there are \"text\", "
                   "\"json_object\" and \"json_schema\"",
                   (int)(type.s.n < 40 ? type.s.n : 40), type.s.p);
}

static bool settle_max_tokens(struct raw_fields *raw, struct err *e)
{
    int32_t n = raw->n_predict;
    if (raw->max_tokens != INT32_MIN) n = raw->max_tokens;
    if (raw->max_completion_tokens != INT32_MIN) n = raw->max_completion_tokens;
    if (n == 0)
        return err_set(e, ERR_INPUT, "\"max_tokens\" must be at least 1 (-1 or absent: no limit)");
    raw->p.max_tokens = n > 0 ? (uint32_t)n : 0;
    return true;
}

static void raw_defaults(struct raw_fields *raw)
{
    *raw = (struct raw_fields){
        .max_tokens = INT32_MIN,
        .max_completion_tokens = INT32_MIN,
        .n_predict = INT32_MIN,
        .n = 1,
        .best_of = 1,
        .p = {.parallel_tool_calls = true,
              .add_generation_prompt = true,
              .split_reasoning = true,
              .thinking = -1},
    };
}

static bool read_common(struct raw_fields *raw, struct value body, uint32_t n_vocab,
                        struct arena *a, struct err *e)
{
    struct request_params *p = &raw->p;
    if (body.kind != VALUE_DICT)
        return err_set(e, ERR_INPUT, "the request body must be a JSON object, not %s",
                       value_kind_name(body.kind));
    if (!read_fields(raw, common_fields, COUNT(common_fields), body, e)) return false;
    if (raw->n > 1)
        return err_set(e, ERR_UNSUPPORTED,
                       "\"n\" above 1 is not supported yet; send %d requests, their prompt is "
                       "computed once",
                       raw->n);
    p->sampling.top_k = raw->top_k > 0 ? (uint32_t)raw->top_k : 0;
    return settle_max_tokens(raw, e) && read_stop(p, body, e) && read_seed(p, body, e) &&
           read_bias(p, body, n_vocab, a, e) && read_stream_options(p, body, e) &&
           read_salt(p, body, e) && refuse_formats(body, e) && read_format(p, body, e);
}

static bool has_tool(struct value tools, struct str name)
{
    for (size_t i = 0; tools.kind == VALUE_LIST && i < tools.list->n; i++) {
        struct value f = value_get(value_get(tools.list->items[i], "function"), "name");
        if (f.kind == VALUE_STRING && str_eq(f.s, name)) return true;
    }
    return false;
}

static bool read_named_tool(struct request_params *p, struct value choice, struct err *e)
{
    struct value type = value_get(choice, "type");
    struct value name = value_get(value_get(choice, "function"), "name");
    if (type.kind != VALUE_STRING || !str_eq(type.s, STR("function")) || name.kind != VALUE_STRING)
        return err_set(e, ERR_INPUT,
                       "\"tool_choice\" as an object must be {\"type\": \"function\", "
                       "\"function\": {\"name\": ...}}");
    if (!has_tool(p->tools, name.s))
        return err_set(e, ERR_INPUT, "\"tool_choice\" names \"%.*s\", which is not in \"tools\"",
                       (int)(name.s.n < 64 ? name.s.n : 64), name.s.p);
    p->tool_choice = CHOICE_NAMED;
    p->tool_name = name.s;
    return true;
}

static bool read_tool_choice(struct request_params *p, struct value body, struct err *e)
{
    static const char *const names[] = {"auto", "none", "required"};
    struct value v = value_get(body, "tool_choice");
    if (absent(v)) return true;
    if (v.kind == VALUE_DICT) return read_named_tool(p, v, e);
    if (v.kind != VALUE_STRING) return wrong_type("tool_choice", "a string or an object", v, e);
    for (size_t i = 0; i < COUNT(names); i++)
        if (str_eq(v.s, str_from(names[i]))) p->tool_choice = (enum tool_choice)i;
    if (p->tool_choice == CHOICE_AUTO && !str_eq(v.s, STR("auto")))
        return err_set(e, ERR_INPUT,
                       "\"tool_choice\" must be \"auto\", \"none\", \"required\" or an object, "
                       "not \"%.*s\"",
                       (int)(v.s.n < 40 ? v.s.n : 40), v.s.p);
    bool any = p->tools.kind == VALUE_LIST && p->tools.list->n > 0;
    if (p->tool_choice == CHOICE_REQUIRED && !any)
        return err_set(e, ERR_INPUT, "\"tool_choice\" is \"required\" but there are no \"tools\"");
    return true;
}

// Later lines win: effort, then the switch. chat_template_kwargs wins over both (text/chat.h).
static bool read_thinking(struct raw_fields *raw, struct value body, struct err *e)
{
    struct request_params *p = &raw->p;
    struct value effort = value_get(body, "reasoning_effort");
    struct value format = value_get(body, "reasoning_format");
    struct value kwargs = value_get(body, "chat_template_kwargs");
    if (!absent(effort) && effort.kind != VALUE_STRING)
        return wrong_type("reasoning_effort", "a string", effort, e);
    if (!absent(format) && format.kind != VALUE_STRING)
        return wrong_type("reasoning_format", "a string", format, e);
    if (!absent(kwargs) && kwargs.kind != VALUE_DICT)
        return wrong_type("chat_template_kwargs", "an object", kwargs, e);
    if (!absent(effort)) p->thinking = !str_eq(effort.s, STR("none"));
    if (raw->given_enable_thinking) p->thinking = raw->enable_thinking;
    if (!absent(format)) p->split_reasoning = !str_eq(format.s, STR("none"));
    if (absent(kwargs)) return true;
    p->template_kwargs = kwargs;
    struct value enable = value_get(kwargs, "enable_thinking");
    if (absent(enable)) return true;
    if (enable.kind != VALUE_BOOL)
        return wrong_type("chat_template_kwargs.enable_thinking", "true or false", enable, e);
    p->thinking = enable.b;
    return true;
}

bool request_read_chat(struct request_params *out, struct value body, uint32_t n_vocab,
                       struct arena *a, struct err *e)
{
    struct raw_fields raw;
    raw_defaults(&raw);
    if (!read_common(&raw, body, n_vocab, a, e)) return false;
    if (!read_fields(&raw, chat_fields, COUNT(chat_fields), body, e)) return false;
    if (raw.continue_final_message)
        return err_set(e, ERR_UNSUPPORTED, "\"continue_final_message\" is not supported yet");
    raw.p.logprobs = raw.chat_logprobs;
    if (raw.p.n_top_logprobs > 0 && !raw.p.logprobs)
        return err_set(e, ERR_INPUT, "\"top_logprobs\" needs \"logprobs\": true");
    raw.p.messages = value_get(body, "messages");
    raw.p.tools = value_get(body, "tools");
    if (raw.p.tools.kind == VALUE_NULL) raw.p.tools = (struct value){0};
    if (absent(raw.p.messages)) return err_set(e, ERR_INPUT, "\"messages\" is missing");
    if (raw.p.messages.kind != VALUE_LIST)
        return wrong_type("messages", "an array", raw.p.messages, e);
    if (!absent(raw.p.tools) && raw.p.tools.kind != VALUE_LIST)
        return wrong_type("tools", "an array", raw.p.tools, e);
    if (!read_tool_choice(&raw.p, body, e) || !read_thinking(&raw, body, e)) return false;
    *out = raw.p;
    return true;
}

// A string, token ids, or an array that holds one of these.
static bool read_prompt(struct request_params *p, struct value body, uint32_t n_vocab,
                        struct err *e)
{
    static const char wanted[] = "a string or an array of token ids";
    struct value v = value_get(body, "prompt");
    if (absent(v)) return err_set(e, ERR_INPUT, "\"prompt\" is missing");
    bool nested = v.kind == VALUE_LIST && v.list->n > 0 &&
                  (v.list->items[0].kind == VALUE_LIST || v.list->items[0].kind == VALUE_STRING);
    if (nested && v.list->n > 1)
        return err_set(e, ERR_UNSUPPORTED,
                       "\"prompt\" holds %zu prompts; several in one request are not supported "
                       "yet, send one request each",
                       v.list->n);
    if (nested) v = v.list->items[0];
    if (v.kind != VALUE_STRING && v.kind != VALUE_LIST) return wrong_type("prompt", wanted, v, e);
    for (size_t i = 0; v.kind == VALUE_LIST && i < v.list->n; i++) {
        int32_t id;
        if (!request_token_id(&id, v.list->items[i], n_vocab, "prompt", e)) return false;
    }
    p->prompt = v;
    return true;
}

bool request_read_completion(struct request_params *out, struct value body, uint32_t n_vocab,
                             struct arena *a, struct err *e)
{
    struct raw_fields raw;
    raw_defaults(&raw);
    if (!read_common(&raw, body, n_vocab, a, e)) return false;
    if (!read_fields(&raw, completion_fields, COUNT(completion_fields), body, e)) return false;
    if (raw.echo) return err_set(e, ERR_UNSUPPORTED, "\"echo\" is not supported yet");
    if (raw.best_of > 1) return err_set(e, ERR_UNSUPPORTED, "\"best_of\" is not supported yet");
    struct value suffix = value_get(body, "suffix");
    if (!absent(suffix) && suffix.kind != VALUE_STRING)
        return wrong_type("suffix", "a string", suffix, e);
    if (suffix.kind == VALUE_STRING && suffix.s.n > 0)
        return err_set(e, ERR_UNSUPPORTED, "\"suffix\" is not supported yet");
    raw.p.logprobs = raw.given_completion_logprobs;
    raw.p.n_top_logprobs = (uint32_t)raw.completion_logprobs;
    if (!read_prompt(&raw.p, body, n_vocab, e)) return false;
    *out = raw.p;
    return true;
}
