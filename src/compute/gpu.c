// The CUDA backend: one NVIDIA GPU through the driver's API. Opens the device, loads the kernels that
// the build embedded, runs steps; small decode steps are recorded once as a graph and replayed.
// Device names: "cuda", "cuda:N"; for diagnosis with ":nograph", ":nooverlap", ":nochain" or ":noblas" behind, and
// ":fault=N" for tests: step N writes where no memory is, and the device is lost.
// Invariant: all steps run on one stream in order, pages come and go beside them; a graph is replayed only for a step whose ops and
// shape are those it was recorded from.
#include "compute/gpu.h"
#include "compute/gpu_chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

enum {
    NUMERICS = 5,
    PREFILL_ROWS = 8192,
    SINGLES_MAX = 256,
    WORKSPACE_BYTES = 64 << 20,
    GRAPH_ROWS_MAX = 64
};

// ---- kernels ----------------------------------------------------------------------------------

bool gpu_run(struct gpu *g, enum gpu_kernel k, uint32_t grid_x, uint32_t grid_y, uint32_t threads,
             uint32_t shared_bytes, void *args, gpu_stream stream, struct err *e)
{
    struct gpu_launch_attr overlap = {.id = GPU_LAUNCH_OVERLAP, .flag = 1};
    const struct gpu_launch c = {.grid_x = grid_x,
                                 .grid_y = grid_y,
                                 .grid_z = 1,
                                 .block_x = threads,
                                 .block_y = 1,
                                 .block_z = 1,
                                 .shared_bytes = shared_bytes,
                                 .stream = stream,
                                 .attrs = &overlap,
                                 .n_attrs = g->use_overlap && stream == g->stream};
    void *list[] = {args};
    return gpu_ok(&g->api, g->api.launch(&c, g->kernels[k], list, NULL), gpu_kernel_names[k], e);
}

bool gpu_grow(struct gpu *g, gpu_ptr *p, size_t *have, size_t n, const char *what, struct err *e)
{
    if (*have >= n) return true;
    if (!gpu_ok(&g->api, g->api.stream_sync(g->stream), "a step on the device", e)) return false;
    if (*p) g->api.mem_free(*p);
    *p = 0;
    *have = 0;
    struct err own = {0};
    if (!gpu_ok(&g->api, g->api.mem_alloc(p, n), what, &own))
        return err_set(e, own.code, "no device memory for %s (%.2f GiB): %s", what,
                       (double)n / (1u << 30), own.msg);
    *have = n;
    return true;
}

// An image serves when it covers any device, or is PTX of the newest capability that this one has.
static bool image_serves(const struct gpu *g, const struct gpu_image *m)
{
    if (m->arch == 0) return true;
    return m->arch == (g->cc >= 90 && g->cc < 100 ? 90u : 80u);
}

// More than 48 KiB of shared memory wants asking for. All kernels get the same division of a multiprocessor's
// memory between shared memory (in percent) and cache: where it changes, the next kernel cannot begin beside the
// one before. The products want 196 of sm_90's 228 KiB and the rest as cache (with 228 they are 7 % slower).
static bool allow_shared(struct gpu *g, struct err *e)
{
    struct want {
        enum gpu_kernel kernel;
        int n_bytes, cc;
    };
    static const struct want wants[] = {
        {GPU_attend_128_1, 3 * 32768, 80},       {GPU_attend_128_4, 3 * 32768, 80},
        {GPU_group_128, GROUP_SHARED_BYTES, 90}, {GPU_group_rope_128, GROUP_SHARED_BYTES, 90},
        {GPU_few_mixed, 8 * 3 * 3360, 80},       {GPU_flash_128, 163840 + 64, 90},
        {GPU_flash_pack_128, 163840 + 64, 90},
#define FEW(pack, panels) {GPU_few_##pack##_##panels, 8 * 3 * 3360, 80},
#define SOME(pack, tiles)
#define WIDE(pack, columns) {GPU_wide_##pack##_##columns, 4 * (columns)*128 + 64, 90},
#define PACKED(op, pack)
#define PLAIN(name)
#include "kernels/common/kernels.def"
#undef FEW
#undef SOME
#undef WIDE
#undef PACKED
#undef PLAIN
    };
    for (uint32_t k = 0; k < GPU_KERNEL_COUNT; k++)
        if (!gpu_ok(&g->api, g->api.function_attr(g->kernels[k], GPU_FUNC_CARVEOUT, 86),
                    "shared memory", e))
            return false;
    for (size_t i = 0; i < sizeof wants / sizeof *wants; i++) {
        const gpu_function f = g->kernels[wants[i].kernel];
        if (wants[i].cc == 90 && (g->cc < 90 || g->cc >= 100)) continue;
        if (!gpu_ok(&g->api, g->api.function_attr(f, GPU_FUNC_MAX_SHARED, wants[i].n_bytes),
                    "shared memory", e))
            return false;
    }
    return true;
}

// PTX is compiled by the driver at the first start (20 s; it keeps the result): nobody is to wait for that in silence.
static void announce_compiling(void)
{
    if (gpu_images[0].arch == 0) return;
    log_info("cuda", "loading kernels as PTX note=\"the driver compiles them for this GPU, half a "
                     "minute at the first start; a build with nvcc has them ready\"");
}

static bool load_modules(struct gpu *g, struct err *e)
{
    announce_compiling();
    for (const struct gpu_image *m = gpu_images; m->start; m++) {
        if (!image_serves(g, m)) continue;
        if (g->n_modules == GPU_MODULES_MAX)
            return err_set(e, ERR_INTERNAL, "too many kernel images");
        if (!gpu_ok(&g->api, g->api.module_load(&g->modules[g->n_modules], m->start, 0, NULL, NULL),
                    m->name, e))
            return err_prefix(e, "loading kernels (built by %s): ", gpu_images_by);
        g->n_modules++;
    }
    for (uint32_t k = 0; k < GPU_KERNEL_COUNT; k++) {
        for (uint32_t m = 0; m < g->n_modules && !g->kernels[k]; m++)
            if (g->api.module_function(&g->kernels[k], g->modules[m], gpu_kernel_names[k]))
                g->kernels[k] = NULL;
        if (!g->kernels[k])
            return err_set(e, ERR_NOT_FOUND, "this build has no GPU kernel %s (%s)",
                           gpu_kernel_names[k], gpu_images_by);
    }
    return allow_shared(g, e);
}

// ---- opening ----------------------------------------------------------------------------------

static bool parse_device(struct gpu *g, const char *name, struct err *e)
{
    char *end = NULL;
    g->device = 0;
    g->use_graphs = g->use_overlap = g->use_blas = g->use_tuning = g->use_chain = true;
    if (strncmp(name, "cuda", 4) != 0)
        return err_set(e, ERR_NOT_FOUND, "\"%s\" is no CUDA device", name);
    name += 4;
    if (*name == ':' && name[1] >= '0' && name[1] <= '9') {
        g->device = (int)strtol(name + 1, &end, 10);
        name = end;
    }
    for (; *name; name += strcspn(name + 1, ":") + 1) {
        const size_t n = strcspn(name + 1, ":");
        if (n == 7 && strncmp(name, ":nograph", 8) == 0)
            g->use_graphs = false;
        else if (n == 9 && strncmp(name, ":nooverlap", 10) == 0)
            g->use_overlap = false;
        else if (n == 6 && strncmp(name, ":noblas", 7) == 0)
            g->use_blas = false;
        else if (n == 6 && strncmp(name, ":notune", 7) == 0)
            g->use_tuning = false;
        else if (n == 7 && strncmp(name, ":nochain", 8) == 0)
            g->use_chain = false;
        else if (strncmp(name, ":fault=", 7) == 0)
            g->fault_at = strtoull(name + 7, NULL, 10);
        else
            return err_set(e, ERR_INPUT, "\"%s\" follows a CUDA device's number: use cuda:N", name);
    }
    return true;
}

static bool find_device(struct gpu *g, struct err *e)
{
    const struct gpu_api *a = &g->api;
    int n = 0, major = 0, minor = 0, sm = 0, integrated = 0, device = 0;
    if (!gpu_ok(a, a->device_count(&n), "counting GPUs", e)) return false;
    if (g->device >= n)
        return err_set(e, ERR_NOT_FOUND, "there is no GPU %d: %d found, numbered from 0", g->device,
                       n);
    if (!gpu_ok(a, a->device_get(&device, g->device), "finding the GPU", e) ||
        !gpu_ok(a, a->device_name(g->device_name, sizeof g->device_name, device), "the GPU's name",
                e) ||
        !gpu_ok(a, a->device_attr(&major, GPU_ATTR_CC_MAJOR, device), "the GPU's kind", e) ||
        !gpu_ok(a, a->device_attr(&minor, GPU_ATTR_CC_MINOR, device), "the GPU's kind", e) ||
        !gpu_ok(a, a->device_attr(&sm, GPU_ATTR_SM_COUNT, device), "the GPU's size", e) ||
        !gpu_ok(a, a->device_attr(&integrated, GPU_ATTR_INTEGRATED, device), "the GPU's memory", e))
        return false;
    g->n_devices = (uint32_t)n;
    g->cc = (uint32_t)(major * 10 + minor);
    g->n_sm = (uint32_t)sm;
    g->integrated = integrated != 0;
    if (g->cc < 80)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s has compute capability %d.%d; the kernels want 8.0 or newer: use --device cpu",
            g->device_name, major, minor);
    return gpu_ok(a, a->ctx_retain(&g->ctx, device), "opening the GPU", e) &&
           gpu_ok(a, a->ctx_set(g->ctx), "opening the GPU", e);
}

static void open_blas(struct gpu *g)
{
    struct err e = {0};
    if (!g->use_blas) return;
    if (!gpu_ok(&g->api, g->api.mem_alloc(&g->workspace, WORKSPACE_BYTES), "workspace", &e) ||
        !gpu_blas_open(&g->blas, g->workspace, WORKSPACE_BYTES, &e))
        log_warn("cuda", "cublaslt=missing reason=\"%s\"", e.msg);
}

// Are products in e4m3 wanted and possible?
static void open_fp8(struct gpu *g)
{
    struct err why = {0};
    if (!g->settings.prefill_fp8) return;
    if (!g->blas)
        err_set(&why, ERR_NOT_FOUND, "fp8 products want libcublasLt of CUDA 12.9 or newer");
    else if (g->cc < 90 || g->cc >= 100)
        err_set(&why, ERR_UNSUPPORTED, "fp8 products want a GPU of compute capability 9.0");
    else
        g->fp8 = gpu_blas_try_fp8(g->blas, &g->api, g->stream, g->workspace, &why);
    if (!g->fp8) snprintf(g->no_fp8, sizeof g->no_fp8, "%.150s", why.msg);
}

// How much is left: what was planned shows in the difference.
static void log_free(const struct gpu *g, const char *when)
{
    size_t free_bytes = 0, total = 0;
    g->api.mem_info(&free_bytes, &total);
    log_debug("cuda", "memory when=%s free_mib=%zu", when, free_bytes >> 20);
}

static void cuda_close(struct backend *b)
{
    struct gpu *g = gpu_of(b);
    if (!g) return;
    if (g->ctx) {
        g->api.ctx_set(g->ctx);
        if (g->stream) g->api.stream_sync(g->stream);
        if (g->step.waves) log_free(g, "closing"); // of a device that ran
        gpu_load_close(g);
        gpu_pages_close(g);
        gpu_step_close(g);
        gpu_blas_close(g->blas);
        gpu_large_close(g);
        const gpu_ptr own[] = {g->workspace, g->parts,      g->slices,    g->tiles,
                               g->squares,   g->kv_scratch, g->topk_work, g->arrived};
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
            if (own[i]) g->api.mem_free(own[i]);
        if (g->host_box) g->api.host_free(g->host_box);
        for (uint32_t i = 0; i < g->n_modules; i++) g->api.module_unload(g->modules[i]);
        if (g->stream) g->api.stream_destroy(g->stream);
        if (g->page_stream) g->api.stream_destroy(g->page_stream);
        g->api.ctx_release(g->device);
    }
    threads_close(g->threads);
    gpu_api_close(&g->api);
    pthread_mutex_destroy(&g->pages_lock);
    pthread_cond_destroy(&g->pages_free);
    free(g);
}

static bool cuda_open(struct backend **out, const struct backend_settings *s, struct err *e)
{
    struct gpu *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_MEMORY, "no memory for the CUDA backend");
    g->base.class = &backend_cuda;
    g->settings = *s;
    gpu_pages_open(g);
    if (!parse_device(g, s->device, e)) goto fail;
    if (!gpu_images[0].start) {
        err_set(e, ERR_NOT_FOUND, "this build has no GPU kernels (%s)", gpu_images_by);
        goto fail;
    }
    const uint64_t start = clock_ns();
    if (!gpu_api_open(&g->api, e) || !find_device(g, e)) goto fail;
    const double context_ms = clock_ms_since(start);
    size_t free_bytes;
    if (!gpu_ok(&g->api, g->api.mem_info(&free_bytes, &g->mem_bytes), "the GPU's memory", e))
        goto fail;
    if (!gpu_ok(&g->api, g->api.stream_create(&g->stream, GPU_STREAM_NON_BLOCKING), "a stream",
                e) ||
        !gpu_ok(&g->api, g->api.stream_create(&g->page_stream, GPU_STREAM_NON_BLOCKING), "a stream",
                e) ||
        !load_modules(g, e) || !gpu_chain_open(g, e))
        goto fail;
    const double kernels_ms = clock_ms_since(start);
    open_blas(g);
    open_fp8(g);
    log_debug("cuda", "opened context_ms=%.0f kernels_ms=%.0f library_ms=%.0f", context_ms,
              kernels_ms - context_ms, clock_ms_since(start) - kernels_ms);
    *out = &g->base;
    return true;
fail:
    cuda_close(&g->base);
    return false;
}

// Twice as many where activations of so many rows (up to 3 GiB) are small beside the memory.
static uint32_t prefill_rows(const struct gpu *g)
{
    return g->mem_bytes >= (size_t)64 << 30 ? 2 * PREFILL_ROWS : PREFILL_ROWS;
}

uint32_t gpu_max_rows(const struct gpu *g)
{
    const uint32_t rows = g->settings.max_rows, most = prefill_rows(g) + SINGLES_MAX;
    return rows < most ? rows : most;
}

static void cuda_info(const struct backend *b, struct backend_info *out)
{
    const struct gpu *g = gpu_of(b);
    size_t free_bytes = 0, total = 0;
    g->api.ctx_set(g->ctx);
    g->api.mem_info(&free_bytes, &total);
    const uint32_t rows = g->settings.max_rows, most = prefill_rows(g);
    *out = (struct backend_info){.name = "cuda",
                                 .page_tokens = KV_PAGE_TOKENS,
                                 .unified = g->integrated,
                                 .prefill_rows = rows && rows < most ? rows : most,
                                 .n_devices = g->n_devices,
                                 .numerics = NUMERICS,
                                 .prefill_fp8 = g->fp8,
                                 .mem_total_bytes = total};
    out->mem_free_bytes = free_bytes;
    snprintf(out->no_fp8, sizeof out->no_fp8, "%s", g->no_fp8);
    snprintf(out->device, sizeof out->device, "%.70s (sm_%u, %u multiprocessors)%s", g->device_name,
             g->cc, g->n_sm, g->blas ? "" : ", no cuBLASLt");
}

// ---- steps ------------------------------------------------------------------------------------

// Decode steps of few rows with all attention in one wave, whose launches depend on the key alone.
static bool may_record(const struct gpu *g, const struct batch *b)
{
    if (!g->use_graphs || b->n_rows > GRAPH_ROWS_MAX || g->step.flash || g->step.n_waves > 1)
        return false;
    return b->n_rows == b->n_seqs;
}

static uint64_t step_key(const struct gpu *g, const struct op *ops, uint32_t n_ops,
                         const struct batch *b)
{
    const struct attn_wave none = {0}, *w = g->step.n_waves ? &g->step.waves[0] : &none;
    const uint32_t shape[] = {n_ops, b->n_rows, b->n_out, w->n_items, w->n_merges, w->most_queries};
    return hash64(ops, n_ops * sizeof *ops, hash64(shape, sizeof shape, 1));
}

// The entry with this key, or the one longest unused, emptied.
static struct gpu_graph_entry *find_graph(struct gpu *g, uint64_t key)
{
    struct gpu_graph_entry *oldest = &g->graphs[0];
    for (uint32_t i = 0; i < GPU_GRAPHS_MAX; i++) {
        struct gpu_graph_entry *en = &g->graphs[i];
        if (en->key == key && en->seen) return en;
        if (en->last_use < oldest->last_use) oldest = en;
    }
    if (oldest->exec) g->api.graph_exec_destroy(oldest->exec);
    *oldest = (struct gpu_graph_entry){.key = key};
    return oldest;
}

static bool record(struct gpu *g, const struct op *ops, uint32_t n_ops, struct gpu_graph_entry *en,
                   struct err *e)
{
    const struct gpu_api *a = &g->api;
    gpu_graph graph = NULL;
    if (!gpu_ok(a, a->capture_begin(g->stream, GPU_CAPTURE_THREAD_LOCAL), "recording a step", e))
        return false;
    const bool ran = gpu_ops_run(g, ops, n_ops, e);
    const bool ended = gpu_ok(a, a->capture_end(g->stream, &graph), "recording a step", e);
    const bool made =
        ran && ended && gpu_ok(a, a->graph_make(&en->exec, graph, 0), "recording a step", e);
    if (graph) a->graph_destroy(graph);
    return made;
}

// What a broken kernel does.
static bool fail_on_purpose(struct gpu *g, struct err *e)
{
    struct args_bias a = {.n_cols = 1, .stride = 1, .is_f32 = 1};
    return gpu_run(g, GPU_bias, 1, 1, 32, 0, &a, g->stream, e);
}

static bool cuda_submit(struct backend *b, const struct op *ops, uint32_t n_ops,
                        const struct batch *batch, struct err *e)
{
    struct gpu *g = gpu_of(b);
    if (!gpu_ok(&g->api, g->api.ctx_set(g->ctx), "choosing the device", e) ||
        !gpu_step_prepare(g, ops, n_ops, batch, e))
        return false;
    g->large.room = 0, g->large.room_bytes = 0; // pages are in use from now on
    if (++g->n_submits == g->fault_at && !fail_on_purpose(g, e)) return false;
    if (!may_record(g, batch)) return gpu_ops_run(g, ops, n_ops, e);
    // the first time plain, so that whatever grows has grown; then record; then replay
    struct gpu_graph_entry *en = find_graph(g, step_key(g, ops, n_ops, batch));
    en->last_use = ++g->n_steps;
    if (en->seen++ == 0) return gpu_ops_run(g, ops, n_ops, e);
    if (!en->exec && !record(g, ops, n_ops, en, e)) return false;
    return gpu_ok(&g->api, g->api.graph_launch(en->exec, g->stream), "replaying a step", e);
}

static bool cuda_wait(struct backend *b, struct err *e)
{
    struct gpu *g = gpu_of(b);
    const bool loaded = g->loader != NULL;
    if (!gpu_ok(&g->api, g->api.ctx_set(g->ctx), "choosing the device", e) || !gpu_load_wait(g, e))
        return false;
    gpu_load_close(g);
    const bool ok = gpu_plan_take(g, e) && gpu_large_tune(g, e) && gpu_large_keep(g, e) &&
                    gpu_ok(&g->api, g->api.stream_sync(g->stream), "a step on the device", e);
    if (ok && loaded) log_free(g, "loaded");
    return ok;
}

// Errors of kernels stay with the process: after one of them every call fails.
static bool cuda_lost(struct backend *b)
{
    struct gpu *g = gpu_of(b);
    return g->api.ctx_set(g->ctx) != 0 || g->api.stream_sync(g->stream) != 0;
}

const struct backend_class backend_cuda = {
    .name = "cuda",
    .kv_type = KV_F16,
    .open = cuda_open,
    .close = cuda_close,
    .info = cuda_info,
    .size = gpu_size,
    .scratch = gpu_scratch,
    .alloc = gpu_alloc,
    .free = gpu_free,
    .read = gpu_read,
    .write = gpu_write,
    .page_bytes = gpu_page_bytes,
    .page_form = gpu_page_form,
    .page_read = gpu_page_read,
    .page_copy = gpu_page_copy,
    .page_begin = gpu_page_begin,
    .page_next = gpu_page_next,
    .page_end = gpu_page_end,
    .page_land = gpu_page_land,
    .submit = cuda_submit,
    .wait = cuda_wait,
    .lost = cuda_lost,
};
