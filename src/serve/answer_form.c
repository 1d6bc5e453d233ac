// A strict function's arguments are held to its schema, or the request is refused: it asked for that. A
// forced call's are held as far as its schema can be: nobody asked, but a call that cannot be read helps nobody.
#include "serve/answer_form.h"

#include "text/grammar.h"
#include "text/json_schema.h"

enum { TOOLS_MAX = 200 };

static const char call_open[] = "<tool_call>", call_close[] = "</tool_call>";

static struct value function_of(struct value tool)
{
    const struct value f = value_get(tool, "function");
    return f.kind == VALUE_DICT ? f : tool;
}

static bool is_strict(struct value function)
{
    const struct value v = value_get(function, "strict");
    return v.kind == VALUE_BOOL && v.b;
}

static bool has_strict(struct value tools)
{
    for (size_t i = 0; tools.kind == VALUE_LIST && i < tools.list->n; i++)
        if (is_strict(function_of(tools.list->items[i]))) return true;
    return false;
}

static bool can_compile(struct value schema)
{
    struct grammar *g;
    struct err ignored = {0};
    if (!json_schema_compile(&g, schema, &ignored)) return false;
    grammar_unref(g);
    return true;
}

// The functions that may be called, those that are meant where one is named.
static bool list_calls(const struct request_params *p, bool forced, struct json_call *out,
                       size_t *n, struct err *e)
{
    *n = 0;
    for (size_t i = 0; i < p->tools.list->n; i++) {
        const struct value f = function_of(p->tools.list->items[i]);
        const struct value name = value_get(f, "name"), parameters = value_get(f, "parameters");
        if (name.kind != VALUE_STRING) continue; // chat_check has refused it
        if (p->tool_choice == CHOICE_NAMED && !str_eq(name.s, p->tool_name)) continue;
        if (*n == TOOLS_MAX)
            return err_set(e, ERR_UNSUPPORTED,
                           "\"tools\": with more than 200 none can be strict; send fewer, or leave "
                           "\"strict\" out");
        const bool any = parameters.kind != VALUE_DICT || parameters.dict->n == 0;
        const bool held = !any && (is_strict(f) || (forced && can_compile(parameters)));
        out[(*n)++] = (struct json_call){name.s, held ? parameters : (struct value){0}};
    }
    return true;
}

static bool calls_grammar(const struct request_params *p, bool forced, struct grammar **out,
                          struct err *e)
{
    struct json_call calls[TOOLS_MAX];
    size_t n;
    return list_calls(p, forced, calls, &n, e) &&
           (json_calls_grammar(out, calls, n, e) || err_prefix(e, "\"tools\": "));
}

static bool hold_calls(const struct request_params *p, bool forced, struct job_form *out,
                       struct err *e)
{
    struct err own = {0};
    if (!out->may_call)
        err_set(&own, ERR_UNSUPPORTED,
                "\"tools\": this model has no token that begins a call, so that no call can be "
                "held to \"strict\"; leave it out");
    else if (calls_grammar(p, forced, &out->call, &own))
        return true;
    if (has_strict(p->tools)) return err_set(e, own.code, "%s", own.msg);
    out->begun = (struct str){0}; // forced only: then it is free behind its opening
    return true;
}

static void allow_calls(const struct reply_options *o, const struct tokenizer *tok,
                        struct job_form *out)
{
    const struct str forced = o->answer.forced, opening = str_from(call_open);
    out->call_open = tokenizer_special(tok, opening);
    out->call_close = tokenizer_special(tok, str_from(call_close));
    out->may_call = out->call_open >= 0 && out->call_close >= 0;
    if (forced.n > opening.n) out->begun = str_sub(forced, opening.n, forced.n - opening.n);
}

bool answer_form_make(const struct request_params *p, const struct reply_options *o,
                      const struct tokenizer *tok, struct job_form *out, struct err *e)
{
    const bool tools = o->answer.tools != TOOLS_NONE, forced = tools && o->answer.forced.n > 0;
    bool ok = true;
    *out = (struct job_form){
        .think_open = o->thinking ? tokenizer_special(tok, STR("<think>")) : -1,
        .think_close = o->thinking ? tokenizer_special(tok, STR("</think>")) : -1,
        .in_thinking = o->answer.starts_in_thinking,
    };
    if (tools) allow_calls(o, tok, out);
    if (tools && (forced || has_strict(p->tools))) ok = hold_calls(p, forced, out, e);
    if (!ok) return false;
    if (p->form == FORM_OBJECT) ok = json_object_grammar(&out->answer, e);
    if (p->form == FORM_SCHEMA) ok = json_schema_compile(&out->answer, p->schema, e);
    if (ok) return true;
    answer_form_free(out);
    return err_prefix(e, "\"response_format\": ");
}

void answer_form_free(struct job_form *f)
{
    grammar_unref(f->answer);
    grammar_unref(f->call);
}
