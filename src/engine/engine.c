// Opening a model and everything around it, in the order in which things depend on each other, and
// closing in the other. What happens to jobs is the loop's (loop.c).
#include "engine/engine.h"

#include <assert.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "compute/hostbuf.h"
#include "engine/cache.h"
#include "engine/loop.h"
#include "engine/net.h"
#include "engine/plan.h"
#include "engine/score.h"
#include "engine/tier_disk.h"
#include "engine/vocab.h"

enum {
    PARALLEL_DEFAULT = 16,
    PARALLEL_MAX = 256,
    QUEUE_DEFAULT = 256,
    QUOTA_PERCENT = 25,
    QUEUE_MAX = 65536,
    CTX_MIN = 16,
    CTX_MAX = 1 << 24,
    STEP_MS_DEFAULT = 100,
    JUDGE_MS = 40,                   // longer than a thread may have to wait for its turn
    ALONE_MS = 1000,                 // a cancel and a stop wait no longer than this for a step
    MAX_ROWS = 16384 + PARALLEL_MAX, // no device wants more; most want far fewer
    SCORE_LOGITS_BYTES = 256 << 20,
    SCORE_CTX = 2048, // the usual window, so that figures can be compared
};

#define RAM_DEFAULT_MAX ((uint64_t)8 << 30)

struct engine {
    struct engine_info info;
    struct engine_settings settings; // strings are borrowed during engine_open only
    struct backend_info device;
    uint32_t prefill_rows, max_rows; // of a step
    char model_name[128], model_path[1024];
    struct gguf *gguf;
    struct model_config config;
    struct tokenizer *tok;
    struct chat_template chat;
    bool has_chat;
    struct buf template_text;
    struct backend *backend;
    struct net *net;
    struct dbuf *kv;
    struct kv_shape kv_shape;
    struct page_code page_code; // of the tiers below the device
    struct loop *loop;
    struct disk *disk;
    struct sampling flags;
    atomic_uint_fast64_t n_seeds; // for jobs without one
    uint64_t seed0;
};

// ---- settings -----------------------------------------------------------------------------------

static bool check_settings(struct engine_settings *s, struct err *e)
{
    if (s->n_parallel == 0) s->n_parallel = PARALLEL_DEFAULT;
    if (s->n_queue == 0) s->n_queue = QUEUE_DEFAULT;
    if (s->step_ms == 0) s->step_ms = STEP_MS_DEFAULT;
    if (s->n_parallel > PARALLEL_MAX)
        return err_set(e, ERR_INPUT, "--parallel is %u; at most %d sequences run at once",
                       s->n_parallel, PARALLEL_MAX);
    if (s->n_queue > QUEUE_MAX)
        return err_set(e, ERR_INPUT, "the queue would hold %u jobs; at most %d are allowed",
                       s->n_queue, QUEUE_MAX);
    if (s->n_ctx != 0 && (s->n_ctx < CTX_MIN || s->n_ctx > CTX_MAX))
        return err_set(e, ERR_INPUT, "--ctx is %u; it must be from %d to %d", s->n_ctx, CTX_MIN,
                       CTX_MAX);
    return true;
}

// `name`, or what the backend keeps unless it is told otherwise.
static bool kv_type_from(const char *name, const struct backend_class *class, enum kv_type *out,
                         struct err *e)
{
    *out = class->kv_type;
    if (name == NULL || name[0] == '\0') return true;
    for (int i = 0; i < KV_TYPE_COUNT; i++) {
        if (strcmp(name, kv_type_name((enum kv_type)i)) != 0) continue;
        *out = (enum kv_type)i;
        return true;
    }
    return err_set(e, ERR_INPUT, "--kv-type \"%s\" is not known; there are f16, f32 and q8_0",
                   name);
}

static bool wants_fp8(const char *name, bool *out, struct err *e)
{
    *out = name != NULL && strcmp(name, "fp8") == 0;
    return *out || name == NULL || name[0] == '\0' || strcmp(name, "exact") == 0 ||
           err_set(e, ERR_INPUT, "--prefill-type \"%s\" is not known; there are exact and fp8",
                   name);
}

// ---- the file -----------------------------------------------------------------------------------

static void name_model(struct engine *en)
{
    const char *path = en->settings.model_path;
    struct str name = en->config.name;
    if (name.n == 0) {
        const char *slash = strrchr(path, '/');
        name = str_from(slash == NULL ? path : slash + 1);
        if (str_ends(name, STR(".gguf"))) name.n -= 5;
    }
    snprintf(en->model_name, sizeof en->model_name, "%.*s", (int)name.n, name.p);
    snprintf(en->model_path, sizeof en->model_path, "%s", path);
}

// What ChatML-speaking models were trained on; for files that carry the tokens but no template.
static const char chatml[] =
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content "
    "}}<|im_end|>\n"
    "{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

// The model's own template may be one that cannot be parsed: then chat is off, everything else works.
static bool open_chat(struct engine *en, struct err *e)
{
    struct str source = en->settings.chat_template;
    const bool own = source.n == 0;
    if (own && !gguf_get_str(en->gguf, "tokenizer.chat_template", &source, e)) return false;
    if (source.n == 0 && tokenizer_special(en->tok, STR("<|im_start|>")) >= 0) {
        log_warn("engine",
                 "the model has no chat template; ChatML is used, for its tokens are there");
        source = str_from(chatml);
    }
    if (source.n == 0) return true;
    buf_str(&en->template_text, source);
    if (en->template_text.failed) return err_set(e, ERR_MEMORY, "no memory for the chat template");
    en->info.chat_template = buf_view(&en->template_text);
    struct err own_error = {0};
    en->has_chat = chat_template_open(&en->chat, en->info.chat_template, en->tok, &own_error);
    if (en->has_chat) return true;
    if (!own) {
        if (e != NULL) *e = own_error;
        return err_prefix(e, "the chat template: ");
    }
    log_warn("engine", "chat is off: the model's template: %s", own_error.msg);
    return true;
}

// Of a model whose tensors are not looked at any closer.
static uint64_t count_elements(const struct gguf *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const uint64_t *d = gguf_tensor_at(g, i)->dims;
        n += d[0] * d[1] * d[2] * d[3];
    }
    return n;
}

static bool open_file(struct engine *en, struct err *e)
{
    if (!gguf_open(&en->gguf, en->settings.model_path, e) ||
        !arch_read(&en->config, en->gguf, en->settings.vocab_only, e) ||
        !vocab_open(&en->tok, en->gguf, e) || !open_chat(en, e))
        return false;
    name_model(en);
    const struct model_config *c = &en->config;
    struct engine_info *info = &en->info;
    info->model_name = str_from(en->model_name);
    info->model_path = str_from(en->model_path);
    info->arch = str_from(c->traits->name);
    info->file_type = str_from(arch_file_type_name(c->file_type));
    info->n_vocab = c->n_vocab;
    info->n_ctx_train = c->n_ctx_train;
    info->n_ctx = en->settings.n_ctx != 0 ? en->settings.n_ctx : c->n_ctx_train;
    if (en->settings.score_rows != 0 && en->settings.n_ctx == 0 && info->n_ctx > SCORE_CTX)
        info->n_ctx = SCORE_CTX;
    info->n_embd = c->n_embd;
    info->n_layers = c->n_layers;
    info->n_ff = c->n_ff;
    info->n_kv_heads = c->n_kv_heads;
    info->head_dim = c->head_dim;
    info->n_params = c->n_params != 0 ? c->n_params : count_elements(en->gguf);
    info->model_bytes = gguf_file_bytes(en->gguf);
    info->n_parallel = en->settings.n_parallel;
    info->rope_factor = 1;
    info->prefill_type = "exact";
    info->cache_type = "exact";
    info->kv_type = "";
    if (info->n_ctx < CTX_MIN || info->n_ctx > CTX_MAX)
        return err_set(e, ERR_FORMAT, "the model was trained for a context of %u; set --ctx",
                       info->n_ctx);
    return true;
}

// ---- the device ---------------------------------------------------------------------------------

// Rows of a step that may want logits: one for each sequence, or all when texts are scored.
static uint32_t max_out(const struct engine *en)
{
    return en->settings.score_rows != 0 ? en->settings.score_rows : en->settings.n_parallel;
}

// A logits buffer for so many rows stays within SCORE_LOGITS_BYTES.
static void limit_score_rows(struct engine *en)
{
    const uint32_t most = SCORE_LOGITS_BYTES / sizeof(float) / en->config.n_vocab;
    if (en->settings.score_rows > most) en->settings.score_rows = most > 0 ? most : 1;
}

static bool open_device(struct engine *en, struct err *e)
{
    limit_score_rows(en);
    struct backend_settings bs = {.device = en->settings.device,
                                  .n_threads = en->settings.n_threads,
                                  .max_rows = MAX_ROWS,
                                  .max_out = max_out(en)};
    if (!wants_fp8(en->settings.prefill_type, &bs.prefill_fp8, e) ||
        !backend_open(&en->backend, &bs, e))
        return false;
    en->backend->class->info(en->backend, &en->device);
    en->info.prefill_type = en->device.prefill_fp8 ? "fp8" : "exact";
    if (bs.prefill_fp8 && !en->device.prefill_fp8)
        log_warn("engine", "prefill=exact reason=\"%s\"",
                 en->device.no_fp8[0] != '\0' ? en->device.no_fp8
                                              : "this device has no fp8 products");
    en->info.device = str_from(en->device.device);
    en->info.page_tokens = en->device.page_tokens;
    const uint32_t want = en->device.prefill_rows, most = MAX_ROWS - PARALLEL_MAX;
    en->prefill_rows = want == 0 || want > most ? most : want;
    en->max_rows = en->prefill_rows + en->settings.n_parallel;
    if (en->settings.score_rows > en->prefill_rows) en->settings.score_rows = en->prefill_rows;
    return true;
}

static bool plan_and_take(struct engine *en, const struct net_settings *ns, struct err *e)
{
    const struct backend_class *class = en->backend->class;
    const struct model_config *c = &en->config;
    struct kv_shape shape = {.n_pages = 1,
                             .page_tokens = en->device.page_tokens,
                             .n_layers = c->n_layers,
                             .n_kv_heads = c->n_kv_heads,
                             .head_dim = c->head_dim};
    if (!kv_type_from(en->settings.kv_type, class, &shape.type, e)) return false;
    const struct plan_input in = {
        .free_bytes = en->device.mem_free_bytes,
        .network_bytes = net_bytes(en->backend, en->gguf, c, ns),
        .scratch_bytes = net_scratch_bytes(en->backend, en->gguf, c, ns, &shape),
        .page_bytes = class->page_bytes(en->backend, &shape),
        .kv_bytes = en->settings.kv_bytes,
        .page_tokens = shape.page_tokens,
        .n_ctx = en->info.n_ctx,
        .n_parallel = en->settings.n_parallel,
    };
    if (!plan_pages(&in, &shape.n_pages, e)) return false;
    log_debug("engine", "memory free_mib=%llu network_mib=%llu scratch_mib=%llu kv_mib=%llu",
              (unsigned long long)in.free_bytes >> 20, (unsigned long long)in.network_bytes >> 20,
              (unsigned long long)in.scratch_bytes >> 20,
              (unsigned long long)shape.n_pages * in.page_bytes >> 20);
    const struct buf_desc d = {.kind = BUF_KV, .kv = shape, .name = "KV pages"};
    if (!class->alloc(en->backend, &d, &en->kv, e)) return false;
    en->kv_shape = shape;
    en->info.kv_type = kv_type_name(shape.type);
    en->info.n_pages = shape.n_pages;
    en->info.kv_bytes = (uint64_t)shape.n_pages * in.page_bytes;
    const struct page_form form = class->page_form(en->backend, &shape);
    if (!page_code_from(en->settings.cache_type, &form, in.page_bytes, &en->page_code, e))
        return false;
    en->info.cache_type = en->page_code.encoding == PAGES_Q8_0 ? "q8_0" : "exact";
    return true;
}

// ---- the tiers below the device ----------------------------------------------------------------

static bool read_page(void *arg, uint32_t page, void *out, struct err *e)
{
    struct engine *en = arg;
    return en->backend->class->page_read(en->backend, en->kv, page, out, e);
}

static bool copy_page(void *arg, uint32_t from, uint32_t to, struct err *e)
{
    struct engine *en = arg;
    return en->backend->class->page_copy(en->backend, en->kv, from, to, e);
}

static bool begin_page(void *arg, uint32_t page, const struct page_way *after, struct page_way *out,
                       struct err *e)
{
    struct engine *en = arg;
    return en->backend->class->page_begin(en->backend, en->kv, page, after, out, e);
}

static void *next_piece(void *arg, struct page_way *w, size_t n, struct err *e)
{
    struct engine *en = arg;
    return en->backend->class->page_next(en->backend, w, n, e);
}

static bool end_page(void *arg, struct page_way *w, bool good, struct err *e)
{
    struct engine *en = arg;
    return en->backend->class->page_end(en->backend, w, good, e);
}

static bool land_page(void *arg, struct page_way *w, struct err *e)
{
    struct engine *en = arg;
    return en->backend->class->page_land(en->backend, w, e);
}

static void prepare_pages(void *arg, uint32_t first, uint32_t n)
{
    struct engine *en = arg;
    const struct backend_class *class = en->backend->class;
    if (class->page_prepare != NULL) class->page_prepare(en->backend, en->kv, first, n);
}

// Where the device's memory is the host's, the two would be one pool.
static uint64_t ram_bytes(const struct engine *en)
{
    if (en->settings.has_cache_ram) return en->settings.cache_ram_bytes;
    if (en->device.unified) return 0;
    uint64_t total, available;
    hostbuf_memory(&total, &available);
    return available / 4 < RAM_DEFAULT_MAX ? available / 4 : RAM_DEFAULT_MAX;
}

// What changes numbers is said, and where the wish changes nothing, too.
static void say_cache_type(const struct engine *en)
{
    const struct page_code *c = &en->page_code;
    const bool wanted = en->settings.cache_type != NULL && en->settings.cache_type[0] != '\0' &&
                        strcmp(en->settings.cache_type, "exact") != 0;
    if (c->encoding == PAGES_Q8_0)
        log_info(
            "cache",
            "pages below the device are q8_0: %.2f of their bytes, and close to what was computed, "
            "not equal",
            (double)c->stored_bytes / (double)c->page_bytes);
    else if (wanted)
        log_info("cache", "--cache-type %s changes nothing: keys and values have 8 bits already",
                 en->settings.cache_type);
}

static struct tier_settings tiers_of(struct engine *en)
{
    return (struct tier_settings){
        .io = {.arg = en,
               .read = read_page,
               .copy = copy_page,
               .begin = begin_page,
               .next = next_piece,
               .end = end_page,
               .land = en->backend->class->page_land == NULL ? NULL : land_page,
               .prepare = prepare_pages},
        .code = en->page_code,
        .ram_bytes = ram_bytes(en),
        .disk = en->settings.cache_dir != NULL,
        .warm = en->settings.warm,
        .judge_ms = JUDGE_MS,
    };
}

static bool open_disk(struct engine *en, struct err *e)
{
    if (en->settings.cache_dir == NULL) return true;
    const struct disk_settings ds = {
        .dir = en->settings.cache_dir,
        .cap_bytes = en->settings.cache_disk_bytes,
        .gguf = en->gguf,
        .about = {.config = &en->config,
                  .n_ctx = en->info.n_ctx,
                  .shape = en->kv_shape,
                  .page_bytes = en->page_code.page_bytes,
                  .device = &en->device,
                  .code = &en->page_code},
        .loop = en->loop,
    };
    return disk_open(&en->disk, &ds, e);
}

// Tokens before a position at which attending to them (4 flops a head and value) costs as much as
// the weights (2 flops each).
static double attend_tokens(const struct model_config *c)
{
    const double each = 4.0 * c->n_layers * c->n_heads * c->head_dim;
    return each > 0 ? 2.0 * (double)c->n_params / each : 0;
}

static uint32_t quota_pages(const struct engine *en)
{
    const uint64_t percent =
        en->settings.cache_quota == 0 ? QUOTA_PERCENT : en->settings.cache_quota;
    return percent >= 100 ? 0 : (uint32_t)(en->info.n_pages * percent / 100) + 1;
}

static bool open_loop(struct engine *en, struct err *e)
{
    const struct loop_settings ls = {
        .net = en->net,
        .kv = en->kv,
        .backend = en->backend,
        .tok = en->tok,
        .n_vocab = en->config.n_vocab,
        .n_ctx = en->info.n_ctx,
        .n_pages = en->info.n_pages,
        .page_tokens = en->info.page_tokens,
        .n_parallel = en->settings.n_parallel,
        .n_queue = en->settings.n_queue,
        .max_rows = en->max_rows,
        .prefill_rows = en->prefill_rows,
        .step_ms = en->settings.step_ms,
        .alone_ms = ALONE_MS,
        .tiers = tiers_of(en),
        .call_end_token = en->has_chat && en->chat.tools == TOOLS_HERMES
                              ? tokenizer_special(en->tok, STR("</tool_call>"))
                              : -1,
        .attend_tokens = attend_tokens(&en->config),
        .quota_pages = quota_pages(en),
    };
    return loop_open(&en->loop, &ls, e);
}

static bool open_network(struct engine *en, struct err *e)
{
    if (!open_device(en, e)) return false;
    const struct net_settings ns = {.n_ctx = en->info.n_ctx,
                                    .max_rows = en->max_rows,
                                    .max_out = max_out(en),
                                    .n_top = TOPK_MAX,
                                    .progress = en->settings.progress,
                                    .progress_arg = en->settings.progress_arg};
    if (!plan_and_take(en, &ns, e) ||
        !net_open(&en->net, en->backend, en->gguf, &en->config, &ns, e))
        return false;
    if (en->settings.score_rows == 0) {
        if (en->settings.cache_dir != NULL || ram_bytes(en) > 0) say_cache_type(en);
        if (!open_loop(en, e) || !open_disk(en, e)) return false;
    }
    en->info.rope_factor = net_rope_factor(en->net);
    log_info("engine",
             "loaded model=\"%s\" type=%s device=\"%s\" prefill=%s ctx=%u parallel=%u kv=%s "
             "kv_tokens=%llu",
             en->model_name, en->info.file_type.p, en->device.device, en->info.prefill_type,
             en->info.n_ctx, en->info.n_parallel, en->info.kv_type,
             (unsigned long long)en->info.n_pages * en->info.page_tokens);
    if (en->info.rope_factor > 1)
        log_info("engine", "context beyond training: YaRN is on trained=%u factor=%.2f",
                 en->info.n_ctx_train, (double)en->info.rope_factor);
    return true;
}

// ---- open and close -----------------------------------------------------------------------------

bool engine_open(struct engine **out, const struct engine_settings *s, struct err *e)
{
    struct engine *en = calloc(1, sizeof *en);
    if (en == NULL) return err_set(e, ERR_MEMORY, "no memory for an engine");
    en->settings = *s;
    if (!check_settings(&en->settings, e) || !open_file(en, e) ||
        (!s->vocab_only && !open_network(en, e))) {
        engine_close(en);
        return false;
    }
    en->info.loaded_unix = clock_unix();
    en->seed0 = clock_ns() ^ (uint64_t)(uintptr_t)en;
    *out = en;
    return true;
}

void engine_stop(struct engine *en)
{
    if (en->loop != NULL) loop_stop(en->loop);
}

void engine_close(struct engine *en)
{
    if (en == NULL) return;
    disk_close(en->disk);
    loop_close(en->loop);
    net_close(en->net);
    if (en->backend != NULL) {
        en->backend->class->free(en->backend, en->kv);
        en->backend->class->close(en->backend);
    }
    if (en->has_chat) chat_template_close(&en->chat);
    tokenizer_close(en->tok);
    gguf_close(en->gguf);
    buf_free(&en->template_text);
    free(en);
}

const struct engine_info *engine_info(const struct engine *en)
{
    return &en->info;
}

const struct tokenizer *engine_tokenizer(const struct engine *en)
{
    return en->tok;
}

const struct chat_template *engine_chat(const struct engine *en)
{
    return en->has_chat ? &en->chat : NULL;
}

// ---- sampling defaults --------------------------------------------------------------------------

#define FILL(s, field, from)                            \
    do {                                                \
        if (!(s)->has_##field && (from)->has_##field) { \
            (s)->has_##field = true;                    \
            (s)->field = (from)->field;                 \
        }                                               \
    } while (0)

static void fill_defaults(struct sampling *s, const struct sampling_defaults *from)
{
    FILL(s, temperature, from);
    FILL(s, top_k, from);
    FILL(s, top_p, from);
    FILL(s, min_p, from);
    FILL(s, repeat_penalty, from);
}

void engine_set_sampling(struct engine *en, const struct sampling *flags)
{
    en->flags = *flags;
}

void engine_sampling(const struct engine *en, bool thinking, struct sampling *s)
{
    const struct arch_traits *traits = en->config.traits;
    FILL(s, temperature, &en->flags);
    FILL(s, top_k, &en->flags);
    FILL(s, top_p, &en->flags);
    FILL(s, min_p, &en->flags);
    FILL(s, repeat_penalty, &en->flags);
    FILL(s, seed, &en->flags);
    if (s->presence_penalty == 0) s->presence_penalty = en->flags.presence_penalty;
    if (s->frequency_penalty == 0) s->frequency_penalty = en->flags.frequency_penalty;
    fill_defaults(s, &en->config.sampling);
    fill_defaults(s, thinking ? &traits->thinking : &traits->plain);
    const struct sampling_defaults neutral = {.has_temperature = true,
                                              .has_top_k = true,
                                              .has_top_p = true,
                                              .has_min_p = true,
                                              .has_repeat_penalty = true,
                                              .temperature = 1,
                                              .top_p = 1,
                                              .repeat_penalty = 1};
    fill_defaults(s, &neutral);
    if (s->has_seed) return;
    struct engine *counter = (struct engine *)(uintptr_t)en; // the count is not part of the value
    const uint64_t n = atomic_fetch_add_explicit(&counter->n_seeds, 1, memory_order_relaxed);
    s->has_seed = true;
    s->seed = hash64(&n, sizeof n, en->seed0);
}

// ---- jobs ---------------------------------------------------------------------------------------

bool engine_submit(struct engine *en, const struct job *job, struct stream **out, struct err *e)
{
    if (en->loop == NULL)
        return err_set(e, ERR_UNSUPPORTED, "the model was not loaded to run jobs");
    return loop_submit(en->loop, job, NULL, out, e);
}

bool engine_ahead(struct engine *en, const struct job *job, struct err *e)
{
    if (en->loop == NULL)
        return err_set(e, ERR_UNSUPPORTED, "the model was not loaded to run jobs");
    return loop_ahead(en->loop, job, e);
}

static bool is_stopping(void *arg)
{
    return loop_stopping(arg);
}

bool engine_cache_verify(struct engine *en, struct cache_check *out, struct err *e)
{
    return tier_verify(en->loop == NULL ? NULL : en->loop->tier, is_stopping, en->loop, out, e);
}

bool engine_call(struct engine *en, void (*run)(struct loop *l, void *arg), void *arg,
                 struct err *e)
{
    if (en->loop == NULL)
        return err_set(e, ERR_UNSUPPORTED, "only the vocabulary was loaded; there is no cache");
    return loop_call(en->loop, run, arg, e);
}

struct tier *engine_tier(struct engine *en)
{
    return en->loop == NULL ? NULL : en->loop->tier; // set before the loop runs, until it is closed
}

bool engine_seq(struct engine *en, const struct job *job, struct seq **out, struct err *e)
{
    if (en->loop == NULL)
        return err_set(e, ERR_UNSUPPORTED, "only the vocabulary was loaded; there is no cache");
    return loop_check(en->loop, job, e) &&
           seq_open(out, job, en->info.n_ctx, en->config.n_vocab, en->info.page_tokens, e);
}

static void wait_for_end(struct stream *s, struct stream_event *end)
{
    struct pollfd p = {.fd = stream_fd(s), .events = POLLIN};
    while (!stream_next(s, end)) poll(&p, 1, -1);
}

bool engine_logits(struct engine *en, const int32_t *ids, size_t n_ids, float *logits,
                   struct err *e)
{
    if (en->loop == NULL)
        return err_set(e, ERR_UNSUPPORTED, "the model was not loaded to run jobs");
    const struct job job = {.ids = ids, .n_ids = n_ids, .sampling = {.repeat_penalty = 1}};
    struct stream *s;
    if (!loop_submit(en->loop, &job, logits, &s, e)) return false;
    struct stream_event end;
    wait_for_end(s, &end);
    stream_close(s);
    if (end.finish != FINISH_ERROR) return true;
    return err_set(e, end.error.code, "%s", end.error.msg);
}

bool engine_score(struct engine *en, const int32_t *ids, size_t n_ids, struct engine_score *out,
                  struct err *e)
{
    if (en->net == NULL || en->settings.score_rows == 0)
        return err_set(e, ERR_UNSUPPORTED, "the model was not loaded to score texts");
    if (n_ids < 2)
        return err_set(e, ERR_INPUT, "a text of %zu tokens foretells nothing: give two or more",
                       n_ids);
    const struct score_settings s = {.net = en->net,
                                     .kv = en->kv,
                                     .n_vocab = en->config.n_vocab,
                                     .page_tokens = en->info.page_tokens,
                                     .n_ctx = en->info.n_ctx,
                                     .n_rows = en->settings.score_rows};
    double nll;
    size_t n_tokens;
    if (!score_text(&s, ids, n_ids, &nll, &n_tokens, e)) return false;
    *out = (struct engine_score){
        .nll = nll, .n_tokens = n_tokens, .n_ctx = s.n_ctx, .n_rows = s.n_rows};
    return true;
}

void engine_stats(const struct engine *en, struct engine_stats *out)
{
    *out = (struct engine_stats){0};
    if (en->loop != NULL) loop_stats(en->loop, out);
}

size_t engine_slots(const struct engine *en, struct engine_slot *out, size_t max)
{
    return en->loop == NULL ? 0 : loop_slots(en->loop, out, max);
}

bool engine_lost(const struct engine *en, struct err *e)
{
    return en->loop != NULL && loop_lost(en->loop, e);
}
