// service switch: measure the present setup and another one on the same prompts, decide, replace the unit,
// watch, and go back by itself when the new one fails. What keeps it right: the old unit is kept before
// anything changes, the socket is never touched, and every way out leaves a record.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "cmd/bench_prompt.h"
#include "cmd/bench_server.h"
#include "cmd/bench_table.h"
#include "cmd/service.h"
#include "host/look.h"

enum {
    MAX_CANDIDATES = 4,
    WATCH_S = 60,
    COMPLETE_EACH = 15, // looks between two completions while watching
    MISSES_ALLOWED = 3, // looks in a row that find nobody
    ERRORS_ALLOWED = 2, // failed requests while watching
    GEN_TOKENS = 128,
    MAX_UNIT = 1 << 20,
};
static const double must_win = 0.97; // of the present total: less is noise

struct setup {
    char label[96];
    struct cmdline flags;
    const char *image; // NULL: on the machine itself
};

struct plan {
    struct setup now, candidate[MAX_CANDIDATES];
    size_t n_candidates;
    struct bench_column columns[1 + MAX_CANDIDATES]; // the present setup first
    size_t n_columns, winner;                        // winner: of candidate[]
    struct bench_prompt prompt;                      // the user's own, where a workspace is known
    struct buf measured;                             // JSON members
};

// ---- candidates -----------------------------------------------------------------------------------

static void copy_flags(struct cmdline *to, const struct cmdline *from)
{
    for (size_t i = 0; i < from->n; i++) cmdline_z(to, from->v[i]);
}

// Flags of the command line replace those of the unit.
static bool merge_given(struct service *sv, struct cmdline *flags, struct err *e)
{
    struct cmdline given = {.arena = &sv->arena};
    if (!service_given_flags(sv, &given, e)) return false;
    for (size_t i = 0; i < given.n; i++) {
        const bool has_value = i + 1 < given.n && strncmp(given.v[i + 1], "--", 2) != 0;
        if (has_value) {
            cmdline_set(flags, given.v[i] + 2, given.v[i + 1]);
            i++;
        } else if (!cmdline_has(flags, given.v[i])) {
            cmdline_z(flags, given.v[i]);
        }
    }
    return true;
}

static bool add_candidate(struct service *sv, struct plan *p, const char *device, const char *image,
                          struct err *e)
{
    struct setup *c = &p->candidate[p->n_candidates++];
    *c = (struct setup){.flags = {.arena = &sv->arena}, .image = image};
    copy_flags(&c->flags, &p->now.flags);
    if (device != NULL) cmdline_set(&c->flags, "device", device);
    snprintf(c->label, sizeof c->label, "%s%s%s", image != NULL ? "container " : "",
             image != NULL    ? image
             : device != NULL ? device
                              : "new",
             "");
    return merge_given(sv, &c->flags, e);
}

// Every device that this machine has and that is not in use already.
static bool add_devices(struct service *sv, struct plan *p, struct err *e)
{
    struct root root;
    struct host *h = calloc(1, sizeof *h);
    if (h == NULL) return err_set(e, ERR_MEMORY, "no memory");
    if (!root_open(&root, "/", e)) {
        free(h);
        return false;
    }
    host_look(h, &root, &(struct look_wish){0});
    root_close(&root);
    const bool nvidia = h->nvidia != NULL && h->lib_cuda, amd = h->amd != NULL && h->lib_hip;
    const struct {
        const char *name;
        bool there;
    } devices[] = {{"cuda:0", nvidia}, {"hip:0", amd}, {"cpu", true}};
    const char *present = cmdline_flag(&p->now.flags, "device");
    bool ok = true;
    if (present == NULL || strcmp(present, "auto") == 0) present = nvidia ? "cuda:0" : "cpu";
    for (size_t i = 0; i < 3 && ok; i++)
        if (devices[i].there && strcmp(devices[i].name, present) != 0)
            ok = add_candidate(sv, p, devices[i].name, p->now.image, e);
    free(h);
    if (ok && p->n_candidates == 0)
        ok = err_set(e, ERR_UNSUPPORTED,
                     "this machine has no other device than %s; name a container with --to "
                     "container:IMAGE, or give other flags of submind serve",
                     present);
    return ok;
}

static bool choose(struct service *sv, struct plan *p, struct err *e)
{
    const char *to = sv->s.to;
    struct buf now = {0}, then = {0};
    bool ok;
    if (to == NULL)
        ok = add_candidate(sv, p, NULL, p->now.image, e);
    else if (strcmp(to, "auto") == 0)
        ok = add_devices(sv, p, e);
    else if (strncmp(to, "container:", 10) == 0 && to[10] != '\0')
        ok = add_candidate(sv, p, NULL, to + 10, e);
    else if (strcmp(to, "host") == 0)
        ok = add_candidate(sv, p, NULL, NULL, e);
    else
        ok = add_candidate(sv, p, to, p->now.image, e);
    service_listen_stream(&p->now.flags, &now);
    for (size_t i = 0; ok && i < p->n_candidates; i++) {
        buf_clear(&then);
        service_listen_stream(&p->candidate[i].flags, &then);
        if (!str_eq(buf_view(&now), buf_view(&then)))
            ok =
                err_set(e, ERR_INPUT,
                        "a switch keeps the port (%s); for another one use submind service install",
                        buf_cstr(&now));
    }
    buf_free(&now);
    buf_free(&then);
    return ok;
}

// ---- measuring ------------------------------------------------------------------------------------

static void show(const char *what)
{
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%s", what);
}

struct progress {
    const char *label;
    uint64_t start_ns;
};

static void on_step(void *arg, const char *what, uint32_t done, uint32_t total)
{
    const struct progress *p = arg;
    if (!isatty(STDERR_FILENO)) return;
    fprintf(stderr, "\r\033[K[%u/%u] %s: %s", done + 1, total, p->label, what);
    if (done > 1)
        fprintf(stderr, ", about %.0f s left",
                clock_ms_since(p->start_ns) / 1e3 / done * (total - done));
}

static bool measure(struct service *sv, struct plan *p, const char *label, const char *url,
                    const char *key, uint32_t seed, struct err *e)
{
    struct progress progress = {label, clock_ns()};
    struct workload_settings w = {.url = url,
                                  .key = key,
                                  .prompt_tokens = sv->s.prompt_tokens,
                                  .runs = sv->s.runs,
                                  .gen_tokens = sv->s.gen_tokens,
                                  .seed = seed,
                                  .cancel = &service_cancelled,
                                  .on_step = on_step,
                                  .arg = &progress};
    struct bench_column *column = &p->columns[p->n_columns];
    bench_prompt_use(&p->prompt, &w);
    if (!workload_run(&w, &column->result, e)) return err_prefix(e, "%s: ", label);
    column->name = label;
    p->n_columns++;
    show("");
    return true;
}

static bool measure_candidate(struct service *sv, struct plan *p, struct setup *c, uint32_t seed,
                              struct err *e)
{
    struct bench_server server = {0};
    const struct bench_start how = {
        .flags = &c->flags, .image = c->image, .on_wait = show, .cancel = &service_cancelled};
    bool ok = bench_server_start(&server, &how, e) || err_prefix(e, "%s: ", c->label);
    ok = ok && measure(sv, p, c->label, buf_cstr(&server.url), NULL, seed, e);
    bench_server_stop(&server);
    return ok;
}

static uint32_t gen_tokens(const struct service *sv)
{
    return sv->s.gen_tokens != 0 ? sv->s.gen_tokens : GEN_TOKENS;
}

// The workspace that is named, else the one that the service warms.
static bool open_prompt(struct service *sv, struct plan *p, struct err *e)
{
    const char *dir = sv->s.workspace;
    if (dir == NULL) dir = cmdline_flag(&p->now.flags, "workspace");
    return bench_prompt_open(&p->prompt, dir, e) || err_prefix(e, "--workspace: ");
}

// Chooses the winner among what was measured and shows the table; true when the policy is for it.
static bool judge(struct service *sv, struct plan *p)
{
    const double now = bench_total_s(&p->columns[0].result, gen_tokens(sv));
    struct buf table = {0};
    double best = 0;
    for (size_t i = 1; i < p->n_columns; i++) {
        const double total = bench_total_s(&p->columns[i].result, gen_tokens(sv));
        if (i > 1 && total >= best) continue;
        best = total;
        p->winner = i - 1;
    }
    const bool wins = best < now * must_win;
    bench_table_print(p->columns, p->n_columns, &table);
    fputs(buf_cstr(&table), stdout);
    printf(
        "\nnow: as it runs, beside whatever else it serves\n%s: %.2f s now, %.2f s with %s: %s\n",
        p->prompt.there ? "the workspace's mix" : "the usual mix (--workspace DIR: yours)", now,
        best, p->candidate[p->winner].label, wins ? "better" : "no better (3 % is noise)");
    buf_free(&table);
    buf_z(&p->measured, ",\"measured\":{");
    bench_table_json(p->columns, p->n_columns, &p->measured);
    buf_printf(&p->measured, "},\"total_s\":{\"now\":%.6g,\"candidate\":%.6g}", now, best);
    return wins;
}

// Fills columns and winner. *wins: the policy is for the winner.
static bool measure_all(struct service *sv, struct plan *p, bool *wins, struct err *e)
{
    const char *url, *key;
    const uint32_t seed = (uint32_t)clock_unix(); // the same prompts for all, and in nobody's cache
    if (!service_url(sv, &p->now.flags, &url, &key, e) || !open_prompt(sv, p, e)) return false;
    if (!measure(sv, p, p->now.label, url, key, seed, e)) return false;
    for (size_t i = 0; i < p->n_candidates; i++)
        if (!measure_candidate(sv, p, &p->candidate[i], seed, e)) return false;
    *wins = judge(sv, p);
    return true;
}

bool service_compare(struct service *sv, const char *old, const char *url, const char *key,
                     const struct cmdline *ours, bool *wins, struct buf *measured, struct err *e)
{
    struct plan *p = calloc(1, sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for measuring");
    const uint32_t seed = (uint32_t)clock_unix();
    struct setup *c = &p->candidate[p->n_candidates++];
    snprintf(p->now.label, sizeof p->now.label, "now (%.80s)", old);
    snprintf(c->label, sizeof c->label, "submind");
    c->flags.arena = &sv->arena;
    copy_flags(&c->flags, ours);
    bool ok = open_prompt(sv, p, e) && measure(sv, p, p->now.label, url, key, seed, e) &&
              measure_candidate(sv, p, c, seed, e);
    if (ok) *wins = judge(sv, p);
    if (ok) buf_str(measured, buf_view(&p->measured));
    bench_prompt_close(&p->prompt);
    buf_free(&p->measured);
    free(p);
    return ok;
}

// ---- watching -------------------------------------------------------------------------------------

static int restarts(struct service *sv)
{
    struct buf text = {0};
    struct err ignored = {0};
    int n = -1;
    if (systemd_property(&sv->manager, buf_cstr(&sv->files.service_name), "NRestarts", &text,
                         &ignored))
        n = atoi(buf_cstr(&text));
    buf_free(&text);
    return n;
}

// One look at the new server; false with what is wrong.
static bool look(struct service *sv, const char *url, const char *key, int restarts_before,
                 size_t failed_before, uint32_t *misses, struct err *e)
{
    struct err local = {0};
    size_t n_failed = SIZE_MAX;
    const int now = restarts(sv);
    if (now > restarts_before && restarts_before >= 0)
        return err_set(e, ERR_NO_SERVER, "the new server died and was started again");
    *misses = service_glance(url, key, &n_failed, &local) ? 0 : *misses + 1;
    if (*misses >= MISSES_ALLOWED) return err_set(e, local.code, "%s", local.msg);
    if (n_failed != SIZE_MAX && failed_before != SIZE_MAX &&
        n_failed > failed_before + ERRORS_ALLOWED)
        return err_set(e, ERR_IO, "%zu requests failed on the new server",
                       n_failed - failed_before);
    return true;
}

bool service_watch(struct service *sv, const struct cmdline *flags, struct err *e)
{
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Say hello.\"}],\"max_tokens\":4}";
    const uint32_t for_s = sv->s.given.watch ? sv->s.watch : WATCH_S;
    const uint64_t start = clock_ns();
    const char *url, *key;
    const int before = restarts(sv);
    size_t failed_before = SIZE_MAX;
    uint32_t misses = 0;
    struct err local = {0};
    if (!service_url(sv, flags, &url, &key, e)) return false;
    service_glance(url, key, &failed_before, &local);
    for (uint32_t i = 1; clock_ms_since(start) < for_s * 1e3; i++) {
        show("watching the new server");
        if (atomic_load(&service_cancelled)) break; // it is well so far: it stays
        clock_sleep_ms(1000);
        if (!look(sv, url, key, before, failed_before, &misses, e)) return false;
        if (i % COMPLETE_EACH == 0 && !service_complete(url, key, str_from(body), e)) return false;
    }
    show("");
    return true;
}

// ---- switching ------------------------------------------------------------------------------------

static bool record(struct service *sv, const struct plan *p, const char *action, const char *to,
                   uint32_t kept, const char *result, struct err *e)
{
    struct buf b = {0};
    buf_printf(&b, "{\"time\":%lld,\"action\":\"%s\",\"from\":", (long long)clock_unix(), action);
    buf_json(&b, str_from(p == NULL ? "" : p->now.label));
    buf_z(&b, ",\"to\":");
    buf_json(&b, str_from(to));
    buf_printf(&b, ",\"kept\":%u,\"result\":", kept);
    buf_json(&b, str_from(result));
    if (p != NULL) buf_str(&b, buf_view(&p->measured));
    buf_c(&b, '}');
    bool ok = !b.failed && service_record(&sv->files, buf_view(&b), e);
    buf_free(&b);
    return ok;
}

// Brings a kept unit back into force.
static bool restore(struct service *sv, uint32_t number, struct err *e)
{
    struct buf path = {0}, text = {0};
    struct unit_file u;
    struct cmdline flags = {.arena = &sv->arena};
    struct str image;
    service_kept_path(&sv->files, number, &path);
    bool ok = file_read(&text, buf_cstr(&path), MAX_UNIT, e) &&
              unit_parse(&u, buf_view(&text), &sv->arena, e) &&
              service_unit_flags(&u, sv->home, &flags, &image, e) &&
              service_apply(sv, buf_view(&text), &flags, e);
    buf_free(&path);
    buf_free(&text);
    return ok;
}

static bool go_back(struct service *sv, const struct plan *p, const struct setup *c, uint32_t kept,
                    struct err *e)
{
    struct err back = {0}, ignored = {0};
    struct buf tail = {0}, result = {0};
    service_log_tail(sv, &tail);
    fprintf(stderr, "%s\n", buf_cstr(&tail));
    const bool restored = restore(sv, kept, &back);
    buf_printf(&result, "%s: %s", restored ? "rolled back" : "roll-back failed", e->msg);
    record(sv, p, "switch", c->label, kept, buf_cstr(&result), &ignored);
    buf_free(&tail);
    buf_free(&result);
    if (!restored) {
        const struct err first = *e;
        *e = (struct err){0};
        return err_set(e, ERR_NO_SERVER,
                       "%.150s; and the old setup does not come back either: %.200s", first.msg,
                       back.msg);
    }
    return err_prefix(e, "%s failed, the old setup serves again: ", c->label);
}

// A second server with the new setup on the same socket, while the old one finishes its answers and the new
// one loads. Only where both were measured: then there is memory for two. It goes before the new one is
// watched, so that what is seen is the new one; when the new one does not start, it stays until the old one
// is back.
struct bridge {
    struct buf name, unit_name, path;
};

static void take_down(struct service *sv, struct bridge *b)
{
    struct err ignored = {0};
    if (b->path.n > 0) {
        systemd_do(&sv->manager, "stop", buf_cstr(&b->unit_name), &ignored);
        unlink(buf_cstr(&b->path));
        systemd_do(&sv->manager, "daemon-reload", NULL, &ignored);
    }
    buf_free(&b->name);
    buf_free(&b->unit_name);
    buf_free(&b->path);
}

static bool put_up(struct service *sv, const struct setup *c, struct bridge *b, struct err *e)
{
    struct buf text = {0};
    const struct str own = buf_view(&sv->files.unit);
    buf_printf(&b->name, "%s-bridge", sv->name);
    buf_printf(&b->unit_name, "%s-bridge.service", sv->name);
    buf_str(&b->path, str_sub(own, 0, own.n - sizeof ".service" + 1));
    buf_z(&b->path, "-bridge.service");
    show("starting the new setup beside the old one");
    bool ok = service_bridge_text(sv, &c->flags, c->image, buf_cstr(&b->name), &text, e) &&
              file_replace(buf_cstr(&b->path), buf_view(&text), 0644, e) &&
              systemd_do(&sv->manager, "daemon-reload", NULL, e) &&
              systemd_do(&sv->manager, "start", buf_cstr(&b->unit_name), e);
    buf_free(&text);
    return ok;
}

static bool replace(struct service *sv, struct plan *p, struct setup *c, struct err *e)
{
    struct buf unit = {0}, socket = {0};
    struct bridge bridge = {0};
    uint32_t kept = 0;
    bool ok = service_texts(sv, &c->flags, c->image, &unit, &socket, e) &&
              service_keep(&sv->files, &kept, e);
    if (ok && p->n_columns > 1) ok = put_up(sv, c, &bridge, e);
    if (ok) {
        show("switching: running answers finish");
        ok = service_apply(sv, buf_view(&unit), &c->flags, e);
        if (ok) take_down(sv, &bridge);
        ok = ok && service_watch(sv, &c->flags, e);
        if (!ok)
            go_back(sv, p, c, kept, e);
        else if (record(sv, p, "switch", c->label, kept, "ok", e))
            printf("switched from %s to %s; back with: submind service rollback\n", p->now.label,
                   c->label);
        else
            ok = false;
    }
    take_down(sv, &bridge);
    buf_free(&unit);
    buf_free(&socket);
    return ok;
}

bool service_switch(struct service *sv, struct err *e)
{
    struct plan *p = calloc(1, sizeof *p);
    struct str image = {0};
    bool wins = true;
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for the switch");
    p->now.flags.arena = &sv->arena;
    bool ok = service_load(sv, &p->now.flags, &image, e);
    if (ok) {
        const char *device = cmdline_flag(&p->now.flags, "device");
        p->now.image = image.n > 0 ? image.p : NULL;
        snprintf(p->now.label, sizeof p->now.label, "now (%s)",
                 p->now.image != NULL ? p->now.image
                 : device != NULL     ? device
                                      : "auto");
        ok = choose(sv, p, e);
    }
    if (ok && sv->s.no_measure && p->n_candidates > 1)
        ok = err_set(e, ERR_INPUT, "--to auto has to measure; name one device with --no-measure");
    if (ok && !sv->s.no_measure) ok = measure_all(sv, p, &wins, e);
    if (ok && !wins && !sv->s.force) {
        printf("nothing was changed; --force switches all the same\n");
        ok = record(sv, p, "switch", p->candidate[p->winner].label, 0, "kept the present setup", e);
    } else if (ok) {
        ok = replace(sv, p, &p->candidate[p->winner], e);
    }
    bench_prompt_close(&p->prompt);
    buf_free(&p->measured);
    free(p);
    return ok;
}

bool service_rollback(struct service *sv, struct err *e)
{
    const uint32_t target = service_kept_newest(&sv->files);
    uint32_t then;
    const char *old = service_adopted(sv, &then);
    if (sv->s.to != NULL && (old == NULL || strcmp(sv->s.to, old) != 0))
        return err_set(e, ERR_INPUT,
                       "%.100s was not taken over by \"%s\"; --to names that unit%s%s", sv->s.to,
                       sv->name, old == NULL ? "" : ": ", old == NULL ? "" : old);
    if (old != NULL && (sv->s.to != NULL || target <= then)) return service_give_back(sv, old, e);
    uint32_t kept = 0;
    char to[32];
    if (target == 0)
        return err_set(e, ERR_NOT_FOUND, "there is no earlier setup of \"%s\" to go back to",
                       sv->name);
    snprintf(to, sizeof to, "%u.service", target);
    if (!service_keep(&sv->files, &kept, e)) return false;
    if (!restore(sv, target, e)) return err_prefix(e, "roll-back to %s: ", to);
    printf("%s is in force again; the setup before is kept as %u.service\n", to, kept);
    return record(sv, NULL, "rollback", to, kept, "ok", e);
}
