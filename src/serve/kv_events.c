// The engine thread puts items into a bounded list and rings; a thread of ours makes batches of them,
// sends them and keeps the last ones for replays. Where the list was full, or a replay asks for what is
// no longer kept, the whole cache is told anew: numbers stay without a gap, since readers take a gap or a
// replay that starts elsewhere for a loss.
//
// A replay from 0 has to send every number, so that a server which is up for months would send millions
// of empty batches, more than ZeroMQ queues and readers wait for (llm-d: 2 minutes). Hence numbers begin
// again at 0 after NUMBERS_MAX, which readers take for a restart of the server.
//
// Of the disk nothing rings: this thread looks every LOOK_MS whether something came or went there, and reads what is to
// be told, BATCH_MAX pages at a time, between what the engine tells.
//
// Invariant: batch number i was sent or stands for an empty one; batch 0 says that all is cleared.
#include "serve/kv_events.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/log.h"
#include "serve/kv_pack.h"
#include "serve/zmq_api.h"

enum {
    ITEMS_MAX = 65536, // waiting; beyond it the whole cache is told anew
    BATCH_MAX = 256,   // items of a batch
    KEPT = 1024,       // batches for replays
    NUMBERS_MAX = 65536,
    HIGH_WATER = 100000, // of messages to a slow reader; above NUMBERS_MAX, so that a replay fits
    LINGER_MS = 200,
    LOOK_MS = 500,
};

struct item_list {
    struct kv_item *items;
    size_t n, cap;
    bool lost; // one did not fit
};

struct kv_events {
    struct engine *en;
    const struct zmq_api *zmq;
    void *context, *pub, *replay; // sockets are the thread's
    char topic[256];
    pthread_t thread;
    bool started;
    struct event bell;
    pthread_mutex_t lock; // guards these
    struct item_list waiting;
    bool stopping;
    // the thread's own
    struct buf kept[KEPT]; // payload of batch i at i % KEPT
    uint64_t next;         // number of the next batch
    uint64_t numbers_max;
    struct cache_told *told; // of the disk; NULL: there is none
    bool more_told;          // there is more of it to tell
};

static_assert((int)HIGH_WATER > (int)NUMBERS_MAX, "a replay must fit");

// ---- from the engine ----------------------------------------------------------------------------

// Takes the item where there is memory.
static bool list_add(struct item_list *l, const struct kv_item *item)
{
    if (l->n == l->cap) {
        const size_t cap = l->cap == 0 ? 256 : l->cap * 2;
        struct kv_item *items = realloc(l->items, cap * sizeof *items);
        if (items == NULL) return false;
        l->items = items;
        l->cap = cap;
    }
    l->items[l->n++] = *item;
    return true;
}

static bool list_put(struct item_list *l, const struct cache_event *ev)
{
    struct kv_item item = {.kind = ev->removed ? KV_REMOVED : KV_STORED,
                           .tier = ev->tier,
                           .hash = ev->hash,
                           .parent = ev->parent,
                           .n_tokens = ev->n_tokens};
    if (ev->salt.n > 0) item.salt = strndup(ev->salt.p, ev->salt.n);
    if (!ev->removed) item.tokens = malloc(ev->n_tokens * sizeof *item.tokens);
    bool ok = (ev->salt.n == 0 || item.salt != NULL) && (ev->removed || item.tokens != NULL);
    if (ok && !ev->removed) memcpy(item.tokens, ev->tokens, ev->n_tokens * sizeof *item.tokens);
    ok = ok && list_add(l, &item);
    if (!ok) kv_item_free(&item);
    return ok;
}

static void list_clear(struct item_list *l)
{
    for (size_t i = 0; i < l->n; i++) kv_item_free(&l->items[i]);
    free(l->items);
    *l = (struct item_list){0};
}

static void on_event(void *arg, const struct cache_event *ev)
{
    struct kv_events *k = arg;
    pthread_mutex_lock(&k->lock);
    if (k->waiting.n == ITEMS_MAX || !list_put(&k->waiting, ev)) k->waiting.lost = true;
    pthread_mutex_unlock(&k->lock);
    event_signal(&k->bell);
}

// For a snapshot, which is as large as the cache.
static void into_list(void *arg, const struct cache_event *ev)
{
    struct item_list *l = arg;
    if (!l->lost && !list_put(l, ev)) l->lost = true;
}

// ---- sending ------------------------------------------------------------------------------------

static bool send_frame(struct kv_events *k, void *socket, const void *p, size_t n, bool more)
{
    return k->zmq->send(socket, p, n, more ? ZMQ_SNDMORE : 0) >= 0;
}

static bool send_batch(struct kv_events *k, void *socket, uint64_t number, struct str payload)
{
    const uint64_t wire = htobe64(number);
    return send_frame(k, socket, k->topic, strlen(k->topic), true) &&
           send_frame(k, socket, &wire, sizeof wire, true) &&
           send_frame(k, socket, payload.p, payload.n, false);
}

static double unix_s(void)
{
    return (double)clock_unix_ms() / 1000;
}

static void publish(struct kv_events *k, const struct kv_item *items, size_t n)
{
    struct buf *b = &k->kept[k->next % KEPT];
    buf_clear(b);
    kv_pack_batch(b, unix_s(), items, n);
    if (b->failed) { // the number goes out all the same: a gap would read as a loss
        buf_free(b);
        kv_pack_batch(b, unix_s(), NULL, 0);
    }
    if (!send_batch(k, k->pub, k->next, buf_view(b)))
        log_debug("kv-events", "batch not sent error=\"%s\"", k->zmq->strerror(errno));
    k->next++;
}

static void publish_list(struct kv_events *k, const struct item_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->items[i].salt != NULL) cache_told_name(k->told, str_from(l->items[i].salt));
    for (size_t i = 0; i < l->n; i += BATCH_MAX)
        publish(k, l->items + i, l->n - i < BATCH_MAX ? l->n - i : BATCH_MAX);
}

static void publish_cleared(struct kv_events *k)
{
    const struct kv_item cleared = {.kind = KV_CLEARED};
    publish(k, &cleared, 1);
}

// That all is cleared, and all that is on the device now, later than whatever was taken off the list before.
static bool snapshot(struct kv_events *k, struct item_list *out)
{
    struct err e = {0};
    *out = (struct item_list){0};
    const struct kv_item cleared = {.kind = KV_CLEARED};
    bool ok = list_add(out, &cleared) || err_set(&e, ERR_MEMORY, "no memory");
    ok = ok && engine_cache_announce(k->en, into_list, out, &e);
    if (ok && out->lost) ok = err_set(&e, ERR_MEMORY, "no memory for a list of all pages");
    if (ok) return true;
    log_debug("kv-events", "no snapshot error=\"%s\"", e.msg);
    list_clear(out);
    return false;
}

static void begin_again(struct kv_events *k)
{
    for (size_t i = 0; i < KEPT; i++) buf_free(&k->kept[i]);
    k->next = 0;
    log_debug("kv-events", "batches are numbered from 0 again");
}

// Readers forget all and begin anew; in place of what was taken off the list, which is older.
static void tell_anew(struct kv_events *k)
{
    struct item_list all;
    if (!snapshot(k, &all)) {
        pthread_mutex_lock(&k->lock);
        k->waiting.lost = true; // tried again with the next event
        pthread_mutex_unlock(&k->lock);
        return;
    }
    if (k->next >= k->numbers_max) begin_again(k);
    publish_list(k, &all);
    list_clear(&all);
    cache_told_forget(k->told); // the disk follows, some pages at a time
}

// Tells what was taken off the list, or all anew where some of it was lost or numbers are to begin again.
static void publish_or_anew(struct kv_events *k, const struct item_list *l)
{
    if (l->lost) log_warn("kv-events", "events were lost; the whole cache is told anew");
    if (l->lost || (l->n > 0 && k->next >= k->numbers_max))
        tell_anew(k);
    else
        publish_list(k, l);
}

// ---- replays ------------------------------------------------------------------------------------

static bool replay_one(struct kv_events *k, const void *id, size_t n_id, uint64_t number,
                       struct str payload)
{
    return send_frame(k, k->replay, id, n_id, true) && send_frame(k, k->replay, "", 0, true) &&
           send_batch(k, k->replay, number, payload);
}

// What is too old to be kept is sent empty, and the newest batch tells all that is cached now; what the
// reader knew before may have gone meanwhile, so it is to forget that first.
static void replay_from(struct kv_events *k, const void *id, size_t n_id, uint64_t start)
{
    const bool too_old = k->next > KEPT && start < k->next - KEPT;
    struct item_list all = {0};
    struct buf empty = {0}, whole = {0};
    kv_pack_batch(&empty, unix_s(), NULL, 0);
    const bool anew = too_old && snapshot(k, &all);
    if (anew) cache_told_again(k->told, into_list, &all);
    if (anew) kv_pack_batch(&whole, unix_s(), all.items, all.n);
    bool ok = !empty.failed && !whole.failed;
    for (uint64_t i = start; ok && i < k->next; i++) {
        const bool last = i + 1 == k->next;
        struct str payload = buf_view(&k->kept[i % KEPT]);
        if (too_old) payload = anew && last ? buf_view(&whole) : buf_view(&empty);
        ok = replay_one(k, id, n_id, i, payload);
    }
    const uint64_t end = UINT64_MAX;
    ok = ok && send_frame(k, k->replay, id, n_id, true) && send_frame(k, k->replay, "", 0, true) &&
         send_frame(k, k->replay, "", 0, true) &&
         send_frame(k, k->replay, &end, sizeof end, true) && send_frame(k, k->replay, "", 0, false);
    if (!ok) log_debug("kv-events", "replay broke off error=\"%s\"", k->zmq->strerror(errno));
    buf_free(&empty);
    buf_free(&whole);
    list_clear(&all);
}

// [id, "", number]; false when nothing waits.
static bool take_request(struct kv_events *k)
{
    unsigned char frames[3][256];
    size_t n[3] = {0};
    int n_frames = 0, more = 1;
    while (more) {
        unsigned char *room = frames[n_frames < 3 ? n_frames : 2];
        const int got = k->zmq->recv(k->replay, room, sizeof frames[0], ZMQ_DONTWAIT);
        if (got < 0) return false;
        if (n_frames < 3) n[n_frames] = (size_t)got;
        n_frames++;
        size_t size = sizeof more;
        k->zmq->getsockopt(k->replay, ZMQ_RCVMORE, &more, &size);
    }
    uint64_t number;
    if (n_frames != 3 || n[0] > sizeof frames[0] || n[1] != 0 || n[2] != sizeof number) return true;
    memcpy(&number, frames[2], sizeof number);
    replay_from(k, frames[0], n[0], be64toh(number));
    return true;
}

// ---- the thread ---------------------------------------------------------------------------------

// False when it is over.
static bool take_items(struct kv_events *k)
{
    event_clear(&k->bell);
    pthread_mutex_lock(&k->lock);
    struct item_list l = k->waiting;
    k->waiting = (struct item_list){0};
    const bool go_on = !k->stopping;
    pthread_mutex_unlock(&k->lock);
    if (go_on)
        publish_or_anew(k, &l);
    else
        publish_list(k, &l);
    list_clear(&l);
    return go_on;
}

static void look_at_disk(struct kv_events *k)
{
    struct item_list l = {0};
    k->more_told = cache_told_turn(k->told, BATCH_MAX, into_list, &l);
    publish_or_anew(k, &l);
    list_clear(&l);
}

static void *run(void *arg)
{
    struct kv_events *k = arg;
    publish_cleared(k); // whoever knew an earlier process of this server forgets it
    while (take_items(k)) {
        zmq_pollitem_t wait[] = {{.fd = k->bell.fd, .events = ZMQ_POLLIN},
                                 {.socket = k->replay, .events = ZMQ_POLLIN}};
        look_at_disk(k);
        const long ms = k->more_told ? 0 : k->told != NULL ? LOOK_MS : -1;
        k->zmq->poll(wait, k->replay == NULL ? 1 : 2, ms);
        while (k->replay != NULL && take_request(k)) {
        }
    }
    k->zmq->close(k->pub);
    if (k->replay != NULL) k->zmq->close(k->replay);
    return NULL;
}

// ---- open and close -----------------------------------------------------------------------------

static void *open_socket(struct kv_events *k, int type, const char *address, struct err *e)
{
    void *s = k->zmq->socket(k->context, type);
    const int water = HIGH_WATER, linger = LINGER_MS;
    if (s != NULL) {
        k->zmq->setsockopt(s, ZMQ_SNDHWM, &water, sizeof water);
        k->zmq->setsockopt(s, ZMQ_LINGER, &linger, sizeof linger);
        const bool bind =
            strchr(address, '*') != NULL || strncmp(address, "ipc:", 4) == 0 || type == ZMQ_ROUTER;
        if ((bind ? k->zmq->bind(s, address) : k->zmq->connect(s, address)) == 0) return s;
    }
    err_set(e, ERR_INPUT, "--kv-events: ZeroMQ does not take \"%.200s\": %s", address,
            k->zmq->strerror(errno));
    if (s != NULL) k->zmq->close(s);
    return NULL;
}

static bool start(struct kv_events *k, const struct kv_events_settings *s, struct err *e)
{
    if (!event_open(&k->bell, e)) return false;
    k->zmq = zmq_api_open(e);
    if (k->zmq == NULL) return false;
    k->context = k->zmq->ctx_new();
    if (k->context == NULL) return err_set(e, ERR_MEMORY, "no memory for ZeroMQ");
    k->pub = open_socket(k, ZMQ_PUB, s->address, e);
    if (k->pub == NULL) return false;
    if (s->replay != NULL) {
        k->replay = open_socket(k, ZMQ_ROUTER, s->replay, e);
        if (k->replay == NULL) return false;
    }
    if (!engine_cache_told_open(&k->told, k->en, e)) return false;
    if (!engine_cache_listen(k->en, on_event, k, e)) return false;
    k->started = pthread_create(&k->thread, NULL, run, k) == 0;
    return k->started || err_set(e, ERR_IO, "cannot start a thread for --kv-events");
}

bool kv_events_open(struct kv_events **out, struct engine *en, const struct kv_events_settings *s,
                    struct err *e)
{
    struct kv_events *k = calloc(1, sizeof *k);
    if (k == NULL) return err_set(e, ERR_MEMORY, "no memory for --kv-events");
    k->en = en;
    k->numbers_max = s->numbers_max > 0 ? s->numbers_max : NUMBERS_MAX;
    k->bell.fd = -1;
    pthread_mutex_init(&k->lock, NULL);
    if (s->topic != NULL)
        snprintf(k->topic, sizeof k->topic, "%s", s->topic);
    else
        snprintf(k->topic, sizeof k->topic, "kv@%.*s@%.*s", (int)s->endpoint.n, s->endpoint.p,
                 (int)s->model.n, s->model.p);
    if (!start(k, s, e)) {
        kv_events_close(k);
        return false;
    }
    log_info("kv-events", "publishing address=%s replay=%s topic=\"%s\"", s->address,
             s->replay == NULL ? "none" : s->replay, k->topic);
    *out = k;
    return true;
}

void kv_events_close(struct kv_events *k)
{
    if (k == NULL) return;
    engine_cache_listen(k->en, NULL, NULL, NULL);
    if (k->started) {
        pthread_mutex_lock(&k->lock);
        k->stopping = true;
        pthread_mutex_unlock(&k->lock);
        event_signal(&k->bell);
        pthread_join(k->thread, NULL);
    } else {
        if (k->pub != NULL) k->zmq->close(k->pub);
        if (k->replay != NULL) k->zmq->close(k->replay);
    }
    if (k->context != NULL) k->zmq->ctx_term(k->context);
    for (size_t i = 0; i < KEPT; i++) buf_free(&k->kept[i]);
    list_clear(&k->waiting);
    cache_told_close(k->told);
    event_close(&k->bell);
    pthread_mutex_destroy(&k->lock);
    free(k);
}
