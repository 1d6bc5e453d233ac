// Who decides about thinking, the later the stronger: --reasoning, --chat-template-kwargs, the
// request's reasoning_effort, its enable_thinking, its chat_template_kwargs.
#include "serve/prompt.h"

#include "base/clock.h"
#include "text/chat.h"
#include "text/splice.h"

// The server's kwargs with the request's on top.
static bool merge_kwargs(struct exchange *x, const struct request_params *p, struct value *out,
                         struct err *e)
{
    struct value base = x->sv->template_kwargs;
    *out = p->template_kwargs;
    if (base.kind != VALUE_DICT) return true;
    if (p->template_kwargs.kind != VALUE_DICT) {
        *out = base;
        return true;
    }
    struct value merged = value_new_dict(&x->arena);
    bool ok = merged.kind == VALUE_DICT;
    const struct value_dict *layers[] = {base.dict, p->template_kwargs.dict};
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; ok && i < layers[k]->n; i++)
            ok = value_set(&x->arena, merged, layers[k]->pairs[i].key, layers[k]->pairs[i].v);
    *out = merged;
    return ok || err_set(e, ERR_MEMORY, "no memory for \"chat_template_kwargs\"");
}

// The request's word, or the server's; -1 leaves it to the template. Whatever the request says by
// one field must not be undone by the server's kwargs, hence the kwargs entry is settled here.
static bool settle_thinking(struct exchange *x, const struct request_params *p, bool forced,
                            struct chat_request *r, struct err *e)
{
    struct value enable = value_get(r->kwargs, "enable_thinking");
    r->thinking = p->thinking;
    if (r->thinking < 0 && enable.kind == VALUE_BOOL) r->thinking = enable.b;
    if (r->thinking < 0 && x->sv->s.reasoning != REASONING_AUTO)
        r->thinking = x->sv->s.reasoning == REASONING_ON;
    if (forced) r->thinking = 0; // the call's opening follows the prompt at once
    if (enable.kind == VALUE_UNDEFINED || r->thinking < 0) return true;
    if (enable.kind == VALUE_BOOL && enable.b == (r->thinking == 1)) return true;
    struct value copy = value_new_dict(&x->arena);
    bool ok = copy.kind == VALUE_DICT;
    for (size_t i = 0; ok && i < r->kwargs.dict->n; i++)
        ok = value_set(&x->arena, copy, r->kwargs.dict->pairs[i].key, r->kwargs.dict->pairs[i].v);
    ok = ok && value_set(&x->arena, copy, STR("enable_thinking"), value_bool(r->thinking == 1));
    if (ok) r->kwargs = copy;
    return ok || err_set(e, ERR_MEMORY, "no memory for \"chat_template_kwargs\"");
}

static bool ends_in_thinking(struct str text)
{
    return str_ends(str_trim(text), STR("<think>"));
}

// The answer's first words, put into the prompt so that the model cannot do anything else but
// call: up to the name's quote, or up to the arguments where only one tool can be meant. It ends
// where the model's own tokens would, before a space.
static bool force_call(struct exchange *x, const struct request_params *p, struct value tools,
                       struct prompt *out, struct err *e)
{
    struct str name = p->tool_name;
    struct buf opening = {0};
    if (p->tool_choice == CHOICE_REQUIRED && tools.list->n == 1) {
        struct value f = value_get(value_get(tools.list->items[0], "function"), "name");
        if (f.kind == VALUE_STRING) name = f.s;
    }
    if (ends_in_thinking(buf_view(&out->text))) buf_z(&out->text, "\n</think>\n\n");
    buf_z(&opening, "<tool_call>\n{\"name\":");
    if (name.n > 0) {
        buf_c(&opening, ' ');
        buf_json(&opening, name);
        buf_z(&opening, ", \"arguments\":");
    } else {
        buf_z(&opening, " \"");
    }
    buf_str(&out->text, buf_view(&opening));
    out->reply.answer.forced = arena_str(&x->arena, buf_view(&opening));
    bool ok = !opening.failed && out->reply.answer.forced.p != NULL;
    buf_free(&opening);
    return ok || err_set(e, ERR_MEMORY, "no memory for the prompt");
}

bool prompt_render(struct exchange *x, struct request_params *p, bool guard, struct prompt *out,
                   struct err *e)
{
    const struct chat_template *t = engine_chat(x->sv->engine);
    struct prompt prompt = {.reply = {.chat = true}};
    bool forced = p->tool_choice == CHOICE_REQUIRED || p->tool_choice == CHOICE_NAMED;
    if (t == NULL)
        return err_set(e, ERR_UNSUPPORTED,
                       "this model has no chat template; start the server with "
                       "--chat-template-file, or use /v1/completions");
    if (p->tool_choice == CHOICE_NONE) p->tools = (struct value){0};
    if (forced && t->tools == TOOLS_NONE)
        return err_set(e, ERR_UNSUPPORTED,
                       "this model's chat template has no tool calls that could be forced; use "
                       "\"tool_choice\": \"auto\"");
    struct chat_request r = {.messages = p->messages,
                             .tools = p->tools,
                             .add_generation_prompt = p->add_generation_prompt};
    if (!merge_kwargs(x, p, &r.kwargs, e) || !settle_thinking(x, p, forced, &r, e)) return false;
    if (!chat_check(&r.messages, &r.tools, &x->arena, e)) return false;
    uint64_t start = clock_ns();
    bool ok = chat_render(t, &r, guard, &x->arena, &prompt.text, e);
    x->render_ms = clock_ms_since(start);
    bool has_tools = r.tools.kind == VALUE_LIST && r.tools.list->n > 0;
    prompt.reply.thinking = t->has_thinking && r.thinking != 0;
    prompt.reply.answer.tools = has_tools ? t->tools : TOOLS_NONE;
    prompt.reply.answer.split_thinking = t->has_thinking && p->split_reasoning;
    if (ok && forced) ok = force_call(x, p, r.tools, &prompt, e);
    prompt.reply.answer.starts_in_thinking = ok && ends_in_thinking(buf_view(&prompt.text));
    if (ok && prompt.text.failed) ok = err_set(e, ERR_MEMORY, "no memory for the prompt");
    if (!ok) {
        prompt_free(&prompt);
        return false;
    }
    *out = prompt;
    return true;
}

bool prompt_encode(struct exchange *x, const struct prompt *prompt, struct str salt,
                   struct ids *out, struct err *e)
{
    uint64_t start = clock_ns();
    bool ok = splice_encode(x->sv->splice, engine_tokenizer(x->sv->engine), salt,
                            buf_view(&prompt->text), TOKENIZE_CONTROL | TOKENIZE_BOS, out, e);
    x->tokenize_ms = clock_ms_since(start);
    return ok;
}

bool prompt_encode_text(struct exchange *x, struct value prompt, struct str salt, struct ids *out,
                        struct err *e)
{
    if (prompt.kind == VALUE_STRING) {
        uint64_t start = clock_ns();
        bool ok = tokenizer_encode_with(
            engine_tokenizer(x->sv->engine), prompt.s, TOKENIZE_CONTROL | TOKENIZE_BOS,
            &(struct tokenizer_help){.space = tokenizer_space(salt)}, out, e);
        x->tokenize_ms = clock_ms_since(start);
        if (!ok) return false;
    }
    for (size_t i = 0; prompt.kind == VALUE_LIST && i < prompt.list->n; i++) {
        int32_t id = (int32_t)prompt.list->items[i].i; // checked by request_read_completion
        if (!ids_put(out, &id, 1)) return err_set(e, ERR_MEMORY, "no memory for the prompt");
    }
    return out->n > 0 || err_set(e, ERR_INPUT, "\"prompt\" is empty; send at least one token");
}

bool prompt_read(struct exchange *x, struct value body, struct request_params *p,
                 struct prompt *prompt, struct ids *ids, struct err *e)
{
    const uint32_t n_vocab = engine_info(x->sv->engine)->n_vocab;
    if (value_get(body, "messages").kind == VALUE_UNDEFINED &&
        value_get(body, "prompt").kind != VALUE_UNDEFINED)
        return request_read_completion(p, body, n_vocab, &x->arena, e) &&
               prompt_encode_text(x, p->prompt, p->cache_salt, ids, e);
    return request_read_chat(p, body, n_vocab, &x->arena, e) &&
           prompt_render(x, p, true, prompt, e) && prompt_encode(x, prompt, p->cache_salt, ids, e);
}

void prompt_free(struct prompt *p)
{
    buf_free(&p->text);
    *p = (struct prompt){0};
}
