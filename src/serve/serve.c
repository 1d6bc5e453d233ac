// The server's life: listen, load, serve, stop. Order at the end: nobody new comes in, every
// running answer ends with an error event, then threads are joined, then the engine goes.
#include "serve/serve.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/notify.h"
#include "serve/exchange.h"
#include "serve/http.h"
#include "serve/kv_events.h"
#include "text/splice.h"

enum {
    DRAIN_MS = 2500,   // for running answers to end after the stop
    LOADER_WAIT_S = 2, // for a load that cannot be interrupted
    LOADING_RETRY_MS = 2000,
    QUIET_MS = 100, // without a connection: then a drain is over
    FIRST_FD = 3,   // of the sockets that a service manager passes
    SPLICE_BYTES = 16 << 20,
    EXTEND_S = 120, // a load that goes on may take so much longer
    // timeout(1), wrappers and terminals signal a process and its group: what comes so soon after the
    // first signal is the same wish, not one for more haste.
    SAME_WISH_MS = 500,
};

// ---- state that the routes read ----------------------------------------------------------------

enum server_state server_state(const struct server *sv)
{
    return (enum server_state)atomic_load_explicit(&sv->state, memory_order_acquire);
}

bool server_check_ready(const struct server *sv, struct err *e)
{
    enum server_state state = server_state(sv);
    if (state == SERVER_READY) return true;
    if (state == SERVER_CLOSING)
        return err_set(e, ERR_SHUTDOWN, "the server is shutting down; try again later");
    if (state == SERVER_FAILED)
        return err_set(e, ERR_SHUTDOWN, "the model could not be loaded: %.300s",
                       sv->load_error.msg);
    uint64_t done = atomic_load_explicit(&sv->load_done, memory_order_relaxed);
    uint64_t total = atomic_load_explicit(&sv->load_total, memory_order_relaxed);
    err_set(e, ERR_LOADING, "the model is loading: %.0f %% of %.1f GB",
            total > 0 ? 100.0 * (double)done / (double)total : 0.0, (double)total / 1e9);
    if (e != NULL) e->retry_after_ms = LOADING_RETRY_MS;
    return false;
}

bool exchange_parse(struct exchange *x, struct value *out, struct err *e)
{
    uint64_t start = clock_ns();
    if (x->body.n == 0) return err_set(e, ERR_INPUT, "the request has no body; send JSON");
    bool ok = value_parse(out, &x->arena, buf_view(&x->body), e);
    x->parse_ms = clock_ms_since(start);
    return ok || err_prefix(e, "the body is not valid JSON: ");
}

void exchange_hex_id(const struct exchange *x, unsigned tag, char out[25])
{
    static const char digits[] = "0123456789abcdef";
    struct {
        uint64_t seed;
        unsigned tag;
        char id[sizeof x->id];
    } key = {0};
    key.seed = x->sv->id_seed;
    key.tag = tag;
    memcpy(key.id, x->id, sizeof key.id);
    struct hash128 h = hash128(&key, sizeof key, 0);
    for (int i = 0; i < 24; i++) {
        uint64_t word = i < 16 ? h.lo : h.hi;
        out[i] = digits[word >> (4 * (i % 16)) & 15];
    }
    out[24] = '\0';
}

// ---- loading -----------------------------------------------------------------------------------

static void on_progress(void *arg, const char *stage, uint64_t done, uint64_t total)
{
    struct server *sv = arg;
    atomic_store_explicit(&sv->load_total, total, memory_order_relaxed);
    atomic_store_explicit(&sv->load_done, done, memory_order_relaxed);
    if (sv->s.progress != NULL) sv->s.progress(sv->s.progress_arg, stage, done, total);
}

static bool open_events(struct server *sv, struct err *e)
{
    const struct str scheme = STR("http://"), url = str_from(sv->listener.url);
    const struct kv_events_settings s = {
        .address = sv->s.kv_events,
        .replay = sv->s.kv_events_replay,
        .topic = sv->s.kv_events_topic,
        .endpoint = str_starts(url, scheme) ? str_sub(url, scheme.n, url.n) : url,
        .model = sv->model_name,
    };
    return s.address == NULL || kv_events_open(&sv->kv_events, sv->engine, &s, e);
}

static void *load(void *arg)
{
    struct server *sv = arg;
    struct engine *en = NULL;
    sv->es.progress = on_progress;
    sv->es.progress_arg = sv;
    int next = SERVER_FAILED;
    if (engine_open(&en, &sv->es, &sv->load_error)) {
        engine_set_sampling(en, &sv->s.sampling);
        sv->engine = en;
        sv->model_name = sv->s.alias != NULL ? str_from(sv->s.alias) : engine_info(en)->model_name;
        if (open_events(sv, &sv->load_error)) next = SERVER_READY;
    }
    int expected = SERVER_LOADING; // it may be closing already
    atomic_compare_exchange_strong_explicit(&sv->state, &expected, next, memory_order_acq_rel,
                                            memory_order_acquire);
    event_signal(&sv->loaded);
    return NULL;
}

// ---- opening -----------------------------------------------------------------------------------

static void fill_defaults(struct serve_settings *s)
{
    if (s->host == NULL) s->host = "127.0.0.1";
    if (s->max_body_bytes == 0) s->max_body_bytes = 32u << 20;
    if (s->max_connections == 0) s->max_connections = 1024;
}

static bool parse_kwargs(struct server *sv, struct err *e)
{
    struct value v;
    if (sv->s.template_kwargs.n == 0) return true;
    if (!value_parse(&v, &sv->arena, sv->s.template_kwargs, e))
        return err_prefix(e, "--chat-template-kwargs: ");
    if (v.kind != VALUE_DICT)
        return err_set(e, ERR_INPUT, "--chat-template-kwargs must be a JSON object, not %s",
                       value_kind_name(v.kind));
    sv->template_kwargs = v;
    return true;
}

static bool check_public(const struct server *sv, struct err *e)
{
    const struct serve_settings *s = &sv->s;
    if (sv->listener.loopback || s->n_keys > 0 || s->allow_public) return true;
    return err_set(e, ERR_INPUT,
                   "%s lets other machines in without a key; add --api-key-file FILE, or "
                   "--allow-public-without-key if that is meant",
                   sv->listener.url);
}

static bool open_listener(struct server *sv, struct err *e)
{
    const struct serve_settings *s = &sv->s;
    if (s->listen_fds > 1)
        return err_set(e, ERR_INPUT,
                       "the service manager passed %u sockets; one ListenStream= can be served",
                       s->listen_fds);
    if (s->listen_fds == 1) {
        if (!listener_adopt(&sv->listener, FIRST_FD, e)) return false;
        return check_public(sv, e);
    }
    if (s->unix_socket != NULL) return listener_open_unix(&sv->listener, s->unix_socket, e);
    return listener_open_tcp(&sv->listener, s->host, s->port, e) && check_public(sv, e);
}

static bool start(struct server *sv, struct err *e)
{
    if (!event_open(&sv->stop, e) || !event_open(&sv->loaded, e)) return false;
    if (!parse_kwargs(sv, e) || !open_listener(sv, e)) return false;
    if (!sv->s.accept_when_ready && !http_open(sv, e)) return false;
    int rc = pthread_create(&sv->loader, NULL, load, sv);
    if (rc == 0) return true;
    http_quiesce(sv);
    http_close(sv);
    return err_set(e, ERR_IO, "cannot start a thread: %s", strerror(rc));
}

static void release(struct server *sv)
{
    listener_close(&sv->listener);
    event_close(&sv->stop);
    event_close(&sv->loaded);
    arena_free(&sv->arena);
    connections_deinit(&sv->connections);
    splice_close(sv->splice);
    free(sv);
}

bool server_open(struct server **out, const struct serve_settings *s,
                 const struct engine_settings *es, struct err *e)
{
    struct server *sv = calloc(1, sizeof *sv);
    if (sv == NULL) return err_set(e, ERR_MEMORY, "no memory for the server");
    sv->s = *s;
    sv->es = *es;
    fill_defaults(&sv->s);
    // The only string that is not from the command line: a load that outlives us may still read it.
    if (es->chat_template.n > 0) sv->es.chat_template = arena_str(&sv->arena, es->chat_template);
    connections_init(&sv->connections);
    sv->splice = splice_open(SPLICE_BYTES); // without it a next turn may miss, no more
    sv->start_ns = clock_ns();
    atomic_store_explicit(&sv->last_ns, sv->start_ns, memory_order_relaxed);
    if (getrandom(&sv->id_seed, sizeof sv->id_seed, 0) != (ssize_t)sizeof sv->id_seed)
        sv->id_seed = sv->start_ns;
    if (!start(sv, e)) {
        release(sv);
        return false;
    }
    log_info("serve", "listening url=%s keys=%zu", sv->listener.url, sv->s.n_keys);
    *out = sv;
    return true;
}

uint16_t server_port(const struct server *sv)
{
    return sv->listener.port;
}
int server_fd(const struct server *sv)
{
    return sv->loaded.fd;
}

bool server_tick(struct server *sv, struct err *e)
{
    uint64_t now = clock_ns();
    enum server_state state = server_state(sv);
    size_t n = connections_reap(&sv->connections, now);
    if (n > 0) log_debug("serve", "closed connections=%zu because their time was over", n);
    if (state == SERVER_FAILED) return err_set(e, sv->load_error.code, "%s", sv->load_error.msg);
    if (state == SERVER_READY && engine_lost(sv->engine, e)) // a service manager starts it anew
        return err_prefix(e, "the server ends, for only a new process can use the device again: ");
    uint64_t last = atomic_load_explicit(&sv->last_ns, memory_order_relaxed);
    bool busy = atomic_load_explicit(&sv->active, memory_order_relaxed) > 0;
    if (sv->s.idle_exit_s == 0 || busy || state == SERVER_LOADING) return true;
    return now < last + sv->s.idle_exit_s * 1000000000ull;
}

// ---- the service manager -----------------------------------------------------------------------

// What moves when the engine works: while requests run it must not stand still.
static uint64_t work_done(const struct server *sv, bool *running)
{
    struct engine_stats st;
    if (server_state(sv) != SERVER_READY) {
        *running = true;
        return atomic_load_explicit(&sv->load_done, memory_order_relaxed);
    }
    engine_stats(sv->engine, &st);
    *running = st.running > 0;
    return st.prefill_tokens + st.generated_tokens + st.requests_done + st.requests_cancelled;
}

// A sign of life, as long as there is life: an engine thread that hangs is restarted. While the model
// loads, the time limit of the start moves with it.
static void keep_alive(struct server *sv)
{
    const uint64_t now = clock_ns();
    bool running;
    char text[64];
    if (sv->s.notify_socket == NULL) return;
    const uint64_t work = work_done(sv, &running);
    const bool moved = work != sv->last_work;
    if (moved || !running) {
        sv->last_work = work;
        sv->moved_ns = now;
    }
    if (server_state(sv) == SERVER_LOADING && moved) {
        snprintf(text, sizeof text, "EXTEND_TIMEOUT_USEC=%llu\nSTATUS=loading",
                 EXTEND_S * 1000000ull);
        notify_send(sv->s.notify_socket, text);
    }
    if (sv->s.watchdog_us == 0 || now < sv->pinged_ns + sv->s.watchdog_us * 250) return;
    if (now > sv->moved_ns + sv->s.watchdog_us * 500) {
        log_warn("serve", "the engine stands still with requests running");
        return;
    }
    sv->pinged_ns = now;
    notify_send(sv->s.notify_socket, "WATCHDOG=1");
}

// ---- closing -----------------------------------------------------------------------------------

static void drain(const struct server *sv)
{
    uint64_t start = clock_ns();
    while (atomic_load_explicit(&sv->active, memory_order_relaxed) > 0 &&
           clock_ms_since(start) < DRAIN_MS)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static bool take_signal(int signal_fd)
{
    struct signalfd_siginfo info;
    return read(signal_fd, &info, sizeof info) == (ssize_t)sizeof info;
}

static bool asked_to_hurry(int signal_fd, uint64_t start_ns)
{
    struct pollfd p = {.fd = signal_fd, .events = POLLIN};
    if (poll(&p, 1, 20) <= 0) return false;
    if (clock_ms_since(start_ns) >= SAME_WISH_MS) return true;
    take_signal(signal_fd);
    return false;
}

void server_drain(struct server *sv, int signal_fd)
{
    uint64_t start = clock_ns(), quiet_ns = start;
    if (sv->s.drain_s == 0 || server_state(sv) != SERVER_READY) return;
    atomic_store_explicit(&sv->draining, true, memory_order_relaxed);
    http_quiesce(sv);
    log_info("serve", "draining requests=%u for_s=%u",
             atomic_load_explicit(&sv->active, memory_order_relaxed), sv->s.drain_s);
    // What was seen a while ago counts for nothing: this thread may be late itself.
    while (clock_ms_since(start) < sv->s.drain_s * 1e3) {
        connections_reap(&sv->connections, clock_ns());
        if (connections_settle(&sv->connections, clock_ns()) > 0)
            quiet_ns = clock_ns();
        else if (clock_ms_since(quiet_ns) >= QUIET_MS)
            break;
        if (asked_to_hurry(signal_fd, start)) break;
        keep_alive(sv);
    }
}

static bool join_loader(struct server *sv)
{
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += LOADER_WAIT_S;
    return pthread_timedjoin_np(sv->loader, NULL, &limit) == 0;
}

void server_close(struct server *sv)
{
    if (sv == NULL) return;
    uint64_t begun = clock_ns();
    atomic_store_explicit(&sv->state, SERVER_CLOSING, memory_order_release);
    http_quiesce(sv);
    event_signal(&sv->stop); // every waiting answer ends
    drain(sv);
    http_close(sv);
    bool loaded = join_loader(sv);
    if (loaded) {
        kv_events_close(sv->kv_events);
        engine_close(sv->engine);
        release(sv);
    } // otherwise the loader still uses it: it stays until the process ends
    log_info("serve", "stopped after_ms=%.0f", clock_ms_since(begun));
}

static int open_signals(struct err *e)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL); // inherited by every thread started later
    signal(SIGPIPE, SIG_IGN);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) err_errno(e, ERR_IO, "cannot wait for signals");
    return fd;
}

// In this thread, which is enough for the next one to end the process.
static void unblock_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    struct timespec zero = {0};
    while (sigtimedwait(&set, NULL, &zero) > 0) {
    } // those that were one wish
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void *let_signals_kill(void *closed)
{
    struct pollfd p = {.fd = ((struct event *)closed)->fd, .events = POLLIN};
    if (poll(&p, 1, SAME_WISH_MS) > 0) return NULL;
    unblock_signals();
    while (poll(&p, 1, -1) < 0) {
    }
    return NULL;
}

// A signal while closing ends the process at once, unless it belongs to the one that began it.
// Once closed they stay blocked: all that is left is to return, and one that comes a moment late
// must not turn a clean end into a killed process.
static void close_or_die(struct server *sv)
{
    struct event closed;
    struct err ignored = {0};
    pthread_t thread;
    bool watched = event_open(&closed, &ignored);
    bool started = watched && pthread_create(&thread, NULL, let_signals_kill, &closed) == 0;
    server_close(sv);
    if (started) {
        event_signal(&closed);
        pthread_join(thread, NULL);
    }
    if (watched) event_close(&closed);
}

static void log_ready(const struct server *sv)
{
    const struct engine_info *i = engine_info(sv->engine);
    log_info("serve",
             "ready model=\"%.*s\" ctx=%u parallel=%u page_tokens=%u pages=%u kv_mb=%llu "
             "device=\"%.*s\" load_ms=%.0f url=%s",
             (int)sv->model_name.n, sv->model_name.p, i->n_ctx, i->n_parallel, i->page_tokens,
             i->n_pages, (unsigned long long)(i->kv_bytes >> 20), (int)i->device.n, i->device.p,
             clock_ms_since(sv->start_ns), sv->listener.url);
}

// Loaded: whoever waits in the kernel's queue is let in, and the service manager is told.
static bool announce(struct server *sv, struct err *e)
{
    if (sv->daemon == NULL && !http_open(sv, e)) return false;
    log_ready(sv);
    if (sv->s.on_ready != NULL) sv->s.on_ready(sv->s.on_ready_arg, sv->listener.url);
    notify_send(sv->s.notify_socket, "READY=1\nSTATUS=serving");
    return true;
}

static bool serve_until_signal(struct server *sv, int signal_fd, struct err *e)
{
    bool announced = false;
    for (;;) {
        struct pollfd p[] = {{.fd = signal_fd, .events = POLLIN},
                             {.fd = announced ? -1 : server_fd(sv), .events = POLLIN}};
        int n = poll(p, 2, 1000);
        if (n > 0 && p[0].revents != 0) return true;
        if (!announced && server_state(sv) == SERVER_READY) {
            announced = true;
            if (!announce(sv, e)) return false;
        }
        keep_alive(sv);
        if (!server_tick(sv, e)) return e->code == ERR_NONE;
    }
}

// A stream takes two descriptors; the usual soft limit of 1,024 would be the real bound otherwise.
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

bool serve_run(const struct serve_settings *s, const struct engine_settings *es, struct err *e)
{
    struct server *sv = NULL;
    struct err local = {0};
    int signal_fd = open_signals(e);
    if (signal_fd < 0) return false;
    raise_descriptor_limit();
    bool ok = server_open(&sv, s, es, e);
    if (ok) {
        ok = serve_until_signal(sv, signal_fd, &local);
        if (!ok && e != NULL) *e = local;
        notify_send(s->notify_socket, "STOPPING=1\nSTATUS=finishing running answers");
        // None is there when the server ends because it was idle for long enough.
        if (ok && take_signal(signal_fd)) server_drain(sv, signal_fd);
        close_or_die(sv);
    }
    close(signal_fd);
    return ok;
}
