// submind inspect: what the server would see, through the same functions. For people and for tests.
// Not here: any tokenising, rendering or sampling of its own.
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cmd/actions.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "engine/engine.h"

enum { MAX_INPUT_BYTES = 256 << 20, SCORE_ROWS = 512 };

static bool read_stdin(struct buf *out, struct err *e)
{
    return file_read(out, "-", MAX_INPUT_BYTES, e);
}

static bool put_out(struct buf *b, struct err *e)
{
    if (b->failed) return err_set(e, ERR_MEMORY, "no memory for the output");
    if (fwrite(b->p, 1, b->n, stdout) != b->n || fflush(stdout) != 0)
        return err_errno(e, ERR_IO, "cannot write the output");
    return true;
}

static void put_ids(struct buf *b, const int32_t *ids, size_t n)
{
    buf_c(b, '[');
    for (size_t i = 0; i < n; i++) buf_printf(b, i == 0 ? "%d" : ", %d", ids[i]);
    buf_z(b, "]\n");
}

// "1,2,3" -> ids, each checked against the vocabulary.
static bool parse_ids(const char *text, uint32_t n_vocab, struct ids *out, struct err *e)
{
    if (text == NULL || *text == '\0')
        return err_set(e, ERR_INPUT, "--tokens is needed: token ids, comma separated");
    for (const char *p = text; *p != '\0';) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || v < 0 || v >= (long)n_vocab || (*end != ',' && *end != '\0'))
            return err_set(e, ERR_INPUT, "--tokens: \"%.20s\" is no token id from 0 to %u", p,
                           n_vocab - 1);
        int32_t id = (int32_t)v;
        if (!ids_put(out, &id, 1)) return err_set(e, ERR_MEMORY, "no memory for the tokens");
        p = *end == ',' ? end + 1 : end;
    }
    return true;
}

static bool inspect_tokens(struct engine *en, const struct settings *s, struct err *e)
{
    struct buf text = {0}, out = {0};
    struct ids ids = {0};
    bool ok = read_stdin(&text, e) && tokenizer_encode(engine_tokenizer(en), buf_view(&text),
                                                       s->special ? TOKENIZE_CONTROL : 0, &ids, e);
    if (ok) {
        put_ids(&out, ids.p, ids.n);
        ok = put_out(&out, e);
    }
    buf_free(&text);
    buf_free(&out);
    ids_free(&ids);
    return ok;
}

// The fields of a chat request that decide the prompt.
static bool read_chat(struct value request, struct arena *a, const char *kwargs,
                      struct chat_request *out, struct err *e)
{
    struct chat_request r = {.messages = value_get(request, "messages"),
                             .tools = value_get(request, "tools"),
                             .kwargs = value_get(request, "chat_template_kwargs"),
                             .add_generation_prompt = true,
                             .thinking = -1};
    struct value generation = value_get(request, "add_generation_prompt");
    struct value thinking = value_get(request, "enable_thinking");
    if (r.messages.kind != VALUE_LIST)
        return err_set(e, ERR_INPUT, "the request needs \"messages\", an array");
    if (generation.kind == VALUE_BOOL) r.add_generation_prompt = generation.b;
    if (thinking.kind == VALUE_BOOL) r.thinking = thinking.b;
    if (kwargs != NULL && r.kwargs.kind == VALUE_UNDEFINED &&
        !value_parse(&r.kwargs, a, str_from(kwargs), e))
        return err_prefix(e, "--chat-template-kwargs: ");
    if (!chat_check(&r.messages, &r.tools, a, e)) return false;
    *out = r;
    return true;
}

static bool inspect_prompt(struct engine *en, const struct settings *s, struct err *e)
{
    const struct chat_template *t = engine_chat(en);
    struct arena a = {0};
    struct buf text = {0}, out = {0};
    struct value request;
    struct chat_request chat;
    if (t == NULL)
        return err_set(e, ERR_UNSUPPORTED,
                       "this model has no chat template; give one with --chat-template-file");
    bool ok = read_stdin(&text, e) && value_parse(&request, &a, buf_view(&text), e) &&
              read_chat(request, &a, s->chat_template_kwargs, &chat, e) &&
              chat_render(t, &chat, false, &a, &out, e) && put_out(&out, e);
    buf_free(&text);
    buf_free(&out);
    arena_free(&a);
    return ok;
}

struct scored {
    int32_t id;
    float logit;
};

static int by_logit(const void *pa, const void *pb)
{
    const struct scored *a = pa, *b = pb;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static void put_logits(struct buf *b, const float *logits, uint32_t n)
{
    buf_z(b, "{\"logits\":[");
    for (uint32_t i = 0; i < n; i++) buf_printf(b, i == 0 ? "%.9g" : ",%.9g", (double)logits[i]);
    buf_z(b, "]}\n");
}

static bool put_top(struct buf *b, const float *logits, uint32_t n, uint32_t top, struct err *e)
{
    struct scored *scored = calloc(n, sizeof *scored);
    if (scored == NULL) return err_set(e, ERR_MEMORY, "no memory to sort %u logits", n);
    for (uint32_t i = 0; i < n; i++) scored[i] = (struct scored){(int32_t)i, logits[i]};
    qsort(scored, n, sizeof *scored, by_logit);
    buf_z(b, "[");
    for (uint32_t i = 0; i < top && i < n; i++)
        buf_printf(b, "%s[%d,%.9g]", i == 0 ? "" : ",", scored[i].id, (double)scored[i].logit);
    buf_z(b, "]\n");
    free(scored);
    return true;
}

static bool inspect_logits(struct engine *en, const struct settings *s, struct err *e)
{
    uint32_t n_vocab = engine_info(en)->n_vocab;
    struct ids ids = {0};
    struct buf out = {0};
    float *logits = calloc(n_vocab, sizeof *logits);
    bool ok = logits != NULL || err_set(e, ERR_MEMORY, "no memory for %u logits", n_vocab);
    ok = ok && parse_ids(s->tokens, n_vocab, &ids, e) && engine_logits(en, ids.p, ids.n, logits, e);
    if (ok && s->top == 0) put_logits(&out, logits, n_vocab);
    if (ok && s->top != 0) ok = put_top(&out, logits, n_vocab, s->top, e);
    ok = ok && put_out(&out, e);
    free(logits);
    ids_free(&ids);
    buf_free(&out);
    return ok;
}

// Reads the stream to its end; the ids go to out.
static bool collect(struct stream *stream, struct ids *out, struct err *e)
{
    for (;;) {
        struct stream_event ev;
        struct pollfd wait = {.fd = stream_fd(stream), .events = POLLIN};
        if (!stream_next(stream, &ev)) {
            poll(&wait, 1, 1000);
            continue;
        }
        if (ev.kind == EVENT_TOKEN && !ids_put(out, &ev.id, 1))
            return err_set(e, ERR_MEMORY, "no memory for the answer");
        if (ev.kind == EVENT_END && ev.finish == FINISH_ERROR)
            return err_set(e, ev.error.code, "%s", ev.error.msg);
        if (ev.kind == EVENT_END) return true;
    }
}

static bool inspect_generate(struct engine *en, const struct settings *s, struct err *e)
{
    struct ids ids = {0}, answer = {0};
    struct buf out = {0};
    struct stream *stream = NULL;
    struct job job = {.max_tokens = s->given.n ? s->n : 64, .ignore_eos = true};
    job.sampling = (struct sampling){.has_temperature = true};
    engine_sampling(en, false, &job.sampling);
    bool ok = parse_ids(s->tokens, engine_info(en)->n_vocab, &ids, e);
    job.ids = ids.p;
    job.n_ids = ids.n;
    ok = ok && engine_submit(en, &job, &stream, e) && collect(stream, &answer, e);
    if (ok) {
        put_ids(&out, answer.p, answer.n);
        ok = put_out(&out, e);
    }
    stream_close(stream);
    ids_free(&ids);
    ids_free(&answer);
    buf_free(&out);
    return ok;
}

static bool inspect_perplexity(struct engine *en, const struct settings *s, struct err *e)
{
    struct buf text = {0}, out = {0};
    struct ids ids = {0};
    struct engine_score score;
    const struct engine_info *info = engine_info(en);
    bool ok = read_stdin(&text, e) &&
              tokenizer_encode(engine_tokenizer(en), buf_view(&text),
                               s->special ? TOKENIZE_CONTROL : 0, &ids, e) &&
              engine_score(en, ids.p, ids.n, &score, e);
    if (ok) {
        const double mean = score.nll / (double)score.n_tokens;
        buf_z(&out, "{\"model\":");
        buf_json(&out, info->model_name);
        buf_z(&out, ",\"file_type\":");
        buf_json(&out, info->file_type);
        buf_z(&out, ",\"device\":");
        buf_json(&out, info->device);
        buf_printf(
            &out, ",\"kv_type\":\"%s\",\"tokens\":%zu,\"scored\":%llu,\"ctx\":%u,\"rows\":%u",
            info->kv_type, ids.n, (unsigned long long)score.n_tokens, score.n_ctx, score.n_rows);
        buf_printf(&out, ",\"nll\":%.9g,\"nll_per_token\":%.9g,\"perplexity\":%.9g}\n", score.nll,
                   mean, exp(mean));
        ok = put_out(&out, e);
    }
    buf_free(&text);
    buf_free(&out);
    ids_free(&ids);
    return ok;
}

static bool inspect_model(struct engine *en, const struct settings *s, struct err *e)
{
    (void)s;
    const struct engine_info *info = engine_info(en);
    const struct {
        const char *name;
        struct str text;
    } texts[] = {
        {"name", info->model_name},
        {"architecture", info->arch},
        {"file type", info->file_type},
        {"device", info->device},
    };
    const struct {
        const char *name;
        uint64_t n;
    } numbers[] = {
        {"parameters", info->n_params}, {"file bytes", info->model_bytes},
        {"layers", info->n_layers},     {"embedding", info->n_embd},
        {"vocabulary", info->n_vocab},  {"trained context", info->n_ctx_train},
        {"context", info->n_ctx},       {"page tokens", info->page_tokens},
        {"pages", info->n_pages},       {"kv bytes", info->kv_bytes},
    };
    struct buf out = {0};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].text.n > 0)
            buf_printf(&out, "%-16s %.*s\n", texts[i].name, (int)texts[i].text.n, texts[i].text.p);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (numbers[i].n > 0)
            buf_printf(&out, "%-16s %llu\n", numbers[i].name, (unsigned long long)numbers[i].n);
    buf_printf(&out, "%-16s %s\n", "chat template", engine_chat(en) != NULL ? "yes" : "no");
    bool ok = put_out(&out, e);
    buf_free(&out);
    return ok;
}

// No model: what --device may name.
static bool inspect_devices(struct err *e)
{
    struct engine_device devices[64];
    struct buf out = {0};
    const size_t n = engine_devices(devices, sizeof devices / sizeof *devices);
    buf_printf(&out, "%-8s %10s %10s  %-4s  %s\n", "device", "memory", "free", "KV", "what");
    for (size_t i = 0; i < n; i++) {
        const struct engine_device *d = &devices[i];
        if (d->usable)
            buf_printf(&out, "%-8s %6.1f GiB %6.1f GiB  %-4s  %s\n", d->name,
                       (double)d->mem_total_bytes / (1u << 30),
                       (double)d->mem_free_bytes / (1u << 30), d->kv_type, d->what);
        else
            buf_printf(&out, "%-8s %10s %10s  %-4s  not here: %s\n", d->name, "-", "-", d->kv_type,
                       d->why.msg);
    }
    const bool ok = put_out(&out, e);
    buf_free(&out);
    return ok;
}

static const struct {
    const char *name;
    bool (*run)(struct engine *en, const struct settings *s, struct err *e);
    enum { VOCAB, JOBS, SCORES } needs; // no weights; the engine; the network alone
} subjects[] = {
    {"tokens", inspect_tokens, VOCAB},          {"prompt", inspect_prompt, VOCAB},
    {"logits", inspect_logits, JOBS},           {"generate", inspect_generate, JOBS},
    {"perplexity", inspect_perplexity, SCORES}, {"model", inspect_model, VOCAB},
};

enum { N_SUBJECTS = sizeof subjects / sizeof subjects[0] };

static int help(void)
{
    printf("usage: submind inspect SUBJECT [--model FILE] [flags]\n\n");
    actions_help("inspect");
    options_help(C_INSPECT, "inspect");
    return 0;
}

static bool run_subject(size_t i, const struct settings *s, struct err *e)
{
    struct engine_settings es;
    struct buf template_text = {0};
    struct engine *en = NULL;
    bool ok = options_engine(s, &es, e);
    if (ok && s->chat_template_file != NULL)
        ok = file_read(&template_text, s->chat_template_file, 1 << 20, e);
    if (ok) {
        es.chat_template = buf_view(&template_text);
        es.vocab_only = subjects[i].needs == VOCAB;
        if (subjects[i].needs == SCORES) es.score_rows = s->rows > 0 ? s->rows : SCORE_ROWS;
        ok = engine_open(&en, &es, e) && subjects[i].run(en, s, e);
    }
    engine_close(en);
    buf_free(&template_text);
    return ok;
}

int cmd_inspect(int argc, char **argv)
{
    struct err e = {0};
    struct settings s;
    if (!options_parse(&s, C_INSPECT, argc, argv, &e)) return cmd_fail("inspect", &e);
    if (s.help || s.n_args == 0) return help();
    log_set_level(s.verbose ? LOG_DEBUG : LOG_WARN);
    if (s.n_args == 2 && s.model == NULL) s.model = s.args[1]; // inspect model FILE
    if (strcmp(s.args[0], "devices") == 0) return inspect_devices(&e) ? 0 : cmd_fail("inspect", &e);
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        if (strcmp(s.args[0], subjects[i].name) != 0) continue;
        return run_subject(i, &s, &e) ? 0 : cmd_fail("inspect", &e);
    }
    err_set(&e, ERR_INPUT, "there is no subject \"%s\"; --help lists them", s.args[0]);
    return cmd_fail("inspect", &e);
}
