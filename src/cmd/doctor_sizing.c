// The model's shape comes from its file, the rates from the machine itself where it is this one (a quick
// measurement), else from published figures of its kind.
#include "cmd/doctor_sizing.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"
#include "cmd/model_path.h"
#include "host/sizing.h"

enum { MAX_PLACES = 4, DISK_BLOCK = 8 << 20, DISK_MS = 400, SMI_MS = 3000 };
static const double gib = 1u << 30;

struct place_list {
    struct sizing_place p[MAX_PLACES];
    size_t n;
};

// ---- the model ----------------------------------------------------------------------------------------

static bool read_model(const char *path, struct engine **en, struct sizing_model *out,
                       struct err *e)
{
    const struct engine_settings es = {.model_path = path, .device = "cpu", .vocab_only = true};
    if (!engine_open(en, &es, e)) return false;
    const struct engine_info *i = engine_info(*en);
    *out = (struct sizing_model){.name = i->model_name,
                                 .type = i->file_type,
                                 .file_bytes = i->model_bytes,
                                 .n_params = i->n_params,
                                 .n_layers = i->n_layers,
                                 .n_kv_heads = i->n_kv_heads,
                                 .head_dim = i->head_dim,
                                 .n_embd = i->n_embd,
                                 .n_ff = i->n_ff,
                                 .n_vocab = i->n_vocab,
                                 .n_ctx_train = i->n_ctx_train};
    return true;
}

// ---- the places ----------------------------------------------------------------------------------------

static void on_ceilings(void *arg, const struct engine_ceilings *c)
{
    struct sizing_place *p = arg;
    p->read_bytes_s = c->read_bytes_s;
    p->flop_s = c->flop_s;
    p->how = "measured now";
}

static void on_op(void *arg, const struct engine_op_timing *t)
{
    (void)arg;
    (void)t;
}

static void measure(struct sizing_place *p, const char *device, uint32_t n_threads)
{
    struct err ignored = {0};
    const struct engine_ops_settings s = {.device = device,
                                          .n_threads = n_threads,
                                          .op = "none: the limits only",
                                          .on_ceilings = on_ceilings,
                                          .on_op = on_op,
                                          .arg = p};
    engine_bench_ops(&s, &ignored);
}

static struct sizing_place *add(struct place_list *l, uint64_t free_bytes, const char *name)
{
    struct sizing_place *p = &l->p[l->n++];
    *p = (struct sizing_place){.free_bytes = free_bytes, .how = "not known"};
    snprintf(p->name, sizeof p->name, "%s", name);
    return p;
}

// NVIDIA tells its free memory through its own tool only.
static uint64_t nvidia_free(void)
{
    static const char *const argv[] = {"nvidia-smi", "--query-gpu=memory.free",
                                       "--format=csv,noheader,nounits", NULL};
    const struct process_spec spec = {.argv = argv,
                                      .env = (const char *const *)environ,
                                      .path = options_env("PATH"),
                                      .timeout_ms = SMI_MS,
                                      .keep_bytes = 4096};
    struct process_result r = {0};
    struct err ignored = {0};
    uint64_t mib = 0;
    if (process_run(&spec, &r, &ignored) && r.code == 0)
        mib = strtoull(buf_cstr(&r.head), NULL, 10);
    process_result_free(&r);
    return mib << 20;
}

static void find_places(const struct doctor *d, uint32_t n_threads, struct place_list *l)
{
    const struct host *h = &d->host;
    const uint64_t reserve = (uint64_t)FACT_OS_RESERVE_GIB << 30;
    struct sizing_place *p;
    if (h->amd != NULL && h->amd->gtt_bytes + h->amd->vram_bytes > 0) {
        p = add(l, h->amd->gtt_bytes > h->amd->vram_bytes ? h->amd->gtt_bytes : h->amd->vram_bytes,
                h->strix_halo ? "GPU (GTT)" : "GPU");
        if (h->strix_halo) {
            p->read_bytes_s = FACT_STRIX_READ_GB_S * 1e9;
            p->flop_s = FACT_STRIX_PREFILL_GFLOP_S * 1e9;
            p->how = "published for Strix Halo";
        }
    }
    const uint64_t cuda = h->nvidia == NULL || !h->lib_cuda ? 0
                          : d->here                         ? nvidia_free()
                                                            : h->nvidia_free_bytes;
    if (cuda > 0) p = add(l, cuda, "GPU (NVIDIA)");
    if (cuda > 0 && d->here) measure(p, "cuda:0", n_threads);
    p = add(l, h->memory_bytes > reserve ? h->memory_bytes - reserve : 0, "CPU (memory)");
    p->is_cpu = true;
    if (d->here) measure(p, "cpu", n_threads);
}

// How fast the file comes from its disk, past the page cache; 0: not known.
static double disk_speed(const char *path)
{
    void *block = NULL;
    const int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0 || posix_memalign(&block, 4096, DISK_BLOCK) != 0) {
        if (fd >= 0) close(fd);
        return 0;
    }
    const uint64_t start = clock_ns();
    double n = 0;
    for (ssize_t got = 1; got > 0 && clock_ms_since(start) < DISK_MS;) {
        got = read(fd, block, DISK_BLOCK);
        if (got > 0) n += (double)got;
    }
    const double seconds = clock_ms_since(start) / 1e3;
    free(block);
    close(fd);
    return n >= DISK_BLOCK ? n / seconds : 0;
}

// ---- the result -----------------------------------------------------------------------------------------

static void put_rate(struct buf *out, const char *text, double v)
{
    if (v > 0) buf_printf(out, "    %-34s %.*f tokens/s at most\n", text, v < 100 ? 1 : 0, v);
}

static void put_fit(const struct sizing_wish *w, const struct sizing_place *p,
                    const struct sizing_fit *f, struct buf *out)
{
    buf_printf(out, "\n%s: %.1f GiB to use%s%s\n", p->name, (double)p->free_bytes / gib,
               p->read_bytes_s > 0 ? "; rates " : "", p->read_bytes_s > 0 ? p->how : "");
    buf_printf(out, "    %-34s %s\n", "one request of that length",
               f->one_fits ? "fits" : "DOES NOT FIT");
    if (w->n_parallel > 1)
        buf_printf(out, "    %u %-32s %s\n", w->n_parallel, "of them with nothing in common",
                   f->all_fit    ? "fit"
                   : f->one_fits ? "do not fit at once; a shared bootstrap counts once"
                                 : "do not fit");
    if (f->longest > 0 && p->is_cpu)
        buf_printf(out, "    %-34s %llu tokens\n", "longest context",
                   (unsigned long long)f->longest);
    else if (f->longest > 0)
        buf_printf(out, "    %-34s %llu tokens, %llu with --kv-type q8_0\n", "longest context",
                   (unsigned long long)f->longest, (unsigned long long)f->longest_q8);
    else
        buf_printf(out, "    the weights alone do not fit\n");
    if (!f->one_fits && f->longest == 0) return;
    put_rate(out, "generation at the start", f->decode_empty);
    put_rate(out, "generation behind a full context", f->decode_full);
    if (f->prefill_s > 0)
        buf_printf(out, "    %-34s %.*f s at least\n", "to read a full context",
                   f->prefill_s < 10 ? 1 : 0, f->prefill_s);
}

static void put_json_fit(const struct sizing_place *p, const struct sizing_fit *f, bool first,
                         struct buf *out)
{
    buf_printf(out, "%s{\"place\":\"%s\",\"bytes\":%llu,\"how\":\"%s\",", first ? "" : ",", p->name,
               (unsigned long long)p->free_bytes, p->how);
    buf_printf(out,
               "\"kv_type\":\"%s\",\"kv_bytes_per_token\":%llu,\"one_fits\":%s,\"all_fit\":%s,",
               p->is_cpu ? "q8_0" : "f16", (unsigned long long)f->kv_bytes,
               f->one_fits ? "true" : "false", f->all_fit ? "true" : "false");
    if (!p->is_cpu) // which has no f16
        buf_printf(out, "\"longest_ctx_f16\":%llu,", (unsigned long long)f->longest);
    buf_printf(out, "\"longest_ctx_q8_0\":%llu,", (unsigned long long)f->longest_q8);
    buf_printf(out, "\"decode_tps\":%.5g,\"decode_full_tps\":%.5g,\"prefill_s\":%.5g}",
               f->decode_empty, f->decode_full, f->prefill_s);
}

static void put_json(const struct sizing_model *m, const struct sizing_wish *w,
                     const struct sizing *s, const struct place_list *l, struct buf *out)
{
    buf_z(out, "{\"model\":");
    buf_json(out, m->name);
    buf_printf(out,
               ",\"parameters\":%llu,\"ctx\":%u,\"parallel\":%u,\"weights_bytes\":%llu,"
               "\"scratch_bytes\":%llu,",
               (unsigned long long)m->n_params, w->n_ctx, w->n_parallel,
               (unsigned long long)s->weights_bytes, (unsigned long long)s->scratch_bytes);
    buf_printf(out, "\"kv_bytes_per_token\":{\"f16\":%llu,\"q8_0\":%llu,\"cpu\":%llu},\"places\":[",
               (unsigned long long)s->kv_f16_bytes, (unsigned long long)s->kv_q8_bytes,
               (unsigned long long)s->kv_cpu_bytes);
    for (size_t i = 0; i < l->n; i++) {
        struct sizing_fit f;
        sizing_fit_in(m, w, s, &l->p[i], &f);
        put_json_fit(&l->p[i], &f, i == 0, out);
    }
    buf_z(out, "]}\n");
}

// What keys and values take, times `by`, in `unit`.
static void put_kv(struct buf *out, const char *what, const struct sizing *s, double by,
                   const char *unit)
{
    buf_printf(out, "    %-34s %.2f %s on a GPU (%.2f as q8_0), %.2f on the CPU\n", what,
               (double)s->kv_f16_bytes * by, unit, (double)s->kv_q8_bytes * by,
               (double)s->kv_cpu_bytes * by);
}

static void put_text(const struct sizing_model *m, const struct sizing_wish *w,
                     const struct sizing *s, const struct place_list *l, double disk,
                     struct buf *out)
{
    char request[40];
    snprintf(request, sizeof request, "of one request of %u", w->n_ctx);
    buf_printf(out, "%.*s %.*s: %.1f billion parameters\n", (int)m->name.n, m->name.p,
               (int)m->type.n, m->type.p, (double)m->n_params / 1e9);
    buf_printf(out, "    %-34s %.2f GiB\n", "weights", (double)s->weights_bytes / gib);
    put_kv(out, "keys and values of a token", s, 1.0 / 1024, "KiB");
    put_kv(out, request, s, w->n_ctx / gib, "GiB");
    buf_printf(out, "    %-34s about %.2f GiB\n", "scratch", (double)s->scratch_bytes / gib);
    if (w->n_ctx > m->n_ctx_train)
        buf_printf(out, "    trained for %u tokens: YaRN stretches it\n", m->n_ctx_train);
    if (disk > 0)
        buf_printf(out, "    %-34s about %.0f s (its disk reads %.2f GB/s)\n", "to load it",
                   (double)s->weights_bytes / disk, disk / 1e9);
    for (size_t i = 0; i < l->n; i++) {
        struct sizing_fit f;
        sizing_fit_in(m, w, s, &l->p[i], &f);
        put_fit(w, &l->p[i], &f, out);
    }
}

bool doctor_sizing(const struct doctor *d, const struct settings *s, struct buf *out, struct err *e)
{
    struct engine *en = NULL;
    struct sizing_model m;
    struct sizing sizes;
    struct place_list places = {.n = 0};
    const char *path;
    if (!model_path(s->model, &path, e) || !read_model(path, &en, &m, e)) return false;
    const struct sizing_wish w = {.n_ctx = s->ctx != 0 ? s->ctx : m.n_ctx_train,
                                  .n_parallel = s->parallel != 0 ? s->parallel : 1};
    sizing_compute(&m, &sizes);
    find_places(d, s->threads, &places);
    if (s->json)
        put_json(&m, &w, &sizes, &places, out);
    else
        put_text(&m, &w, &sizes, &places, d->here ? disk_speed(path) : 0, out);
    engine_close(en);
    return true;
}
