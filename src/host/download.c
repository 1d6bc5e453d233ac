// libcurl's multi interface, one thread. What keeps it right: a byte is written only when the answer said
// that it is that byte (206 with the range that was asked for, the same total and ETag as at first), and a
// file moves to its place only with the right hash. A peer that hangs up costs what was under way, no more.
#include "host/download.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "host/download_part.h"

enum {
    MAX_CONNECTIONS = 32,
    TICK_MS = 100,
    STALL_S = 30,      // without a byte: hang up and ask again
    MAX_FAILURES = 10, // in a row without a new byte
    FIRST_BACKOFF_MS = 200,
    LAST_BACKOFF_MS = 10000,
    RETRY_AFTER_MAX_S = 120,
    MAX_TEXT = 32 << 20,
    RATE_MS = 3000, // over which the rate is measured
};
static const uint64_t default_piece = 16u << 20;

enum why { WHY_NOTHING, WHY_CHANGED, WHY_NO_RANGES, WHY_DISK };

struct fetch;

struct connection_of {
    struct fetch *fetch;
    CURL *easy;
    bool busy;
    uint32_t piece;
    uint64_t left; // bytes of the piece still to come
    bool checked;  // the head of this answer was looked at
    enum why why;
    uint64_t retry_ns;
    // of the last head
    char etag[ETAG_BYTES];
    uint64_t range_from, range_total;
    bool has_range;
    char words[CURL_ERROR_SIZE];
};

struct fetch {
    const struct download *d;
    struct part part;
    CURLM *multi;
    struct connection_of c[MAX_CONNECTIONS];
    uint32_t n, n_failures;
    bool whole; // the server has no ranges: one stream from the start
    uint64_t start_ns, start_bytes;
    uint64_t rate_ns, rate_bytes; // where the present measurement of the rate began
    double rate;
    struct err error;
    char last_words[CURL_ERROR_SIZE + 40];
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static void curl_start(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

// ---- one answer -----------------------------------------------------------------------------------

static bool header_is(const char *p, size_t n, const char *name, const char **value)
{
    const size_t k = strlen(name);
    if (n <= k || strncasecmp(p, name, k) != 0) return false;
    *value = p + k + strspn(p + k, " \t");
    return true;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    struct connection_of *c = arg;
    char line[512];
    const char *v;
    (void)size;
    snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), p);
    if (strncmp(line, "HTTP/", 5) == 0) { // a redirect's head came before this one
        c->etag[0] = '\0';
        c->has_range = false;
    } else if (header_is(line, n, "etag:", &v)) {
        snprintf(c->etag, sizeof c->etag, "%.*s", (int)strcspn(v, " \r\n"), v);
    } else if (header_is(line, n, "content-range:", &v)) {
        c->has_range =
            sscanf(v, "bytes %" SCNu64 "-%*u/%" SCNu64, &c->range_from, &c->range_total) == 2;
    }
    return n;
}

static long status_of(CURL *easy)
{
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

// Is what comes what was asked for?
static enum why check_head(const struct connection_of *c)
{
    const struct part *p = &c->fetch->part;
    const long status = status_of(c->easy);
    const uint64_t from = c->piece * p->piece_bytes + p->have[c->piece];
    if (c->fetch->whole) return status == 200 ? WHY_NOTHING : WHY_CHANGED;
    if (status == 200) return strcmp(c->etag, p->etag) == 0 ? WHY_NO_RANGES : WHY_CHANGED;
    if (!c->has_range || c->range_total != p->size_bytes || c->range_from != from)
        return WHY_CHANGED;
    return strcmp(c->etag, p->etag) == 0 ? WHY_NOTHING : WHY_CHANGED;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct connection_of *c = arg;
    (void)size;
    const long status = status_of(c->easy);
    if (status != 206 && status != 200) return n; // an error's text
    if (!c->checked) {
        c->checked = true;
        c->why = check_head(c);
        if (c->why != WHY_NOTHING) return 0;
    }
    if (n > c->left) { // more than the range: this server cannot be believed
        c->why = WHY_CHANGED;
        return 0;
    }
    if (!part_write(&c->fetch->part, c->piece, data, n, &c->fetch->error)) {
        c->why = WHY_DISK;
        return 0;
    }
    c->left -= n;
    c->fetch->n_failures = 0;
    return n;
}

static void set_common(CURL *h, const char *url, const char *token)
{
    curl_easy_setopt(h, CURLOPT_URL, url);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(h, CURLOPT_MAXREDIRS, 8L);
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h, CURLOPT_USERAGENT, "submind/" SUBMIND_VERSION);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, 20L);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    if (token == NULL) return;
    curl_easy_setopt(h, CURLOPT_XOAUTH2_BEARER, token); // libcurl drops it at another host
    curl_easy_setopt(h, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
}

// ---- pieces on connections --------------------------------------------------------------------------

static bool is_fetched_now(const struct fetch *f, uint32_t piece)
{
    for (uint32_t i = 0; i < f->n; i++)
        if ((f->c[i].busy || f->c[i].retry_ns != 0) && f->c[i].piece == piece) return true;
    return false;
}

static bool next_piece(struct fetch *f, uint32_t *out)
{
    for (uint32_t i = 0; i < f->part.n_pieces; i++) {
        if (f->part.done[i] || is_fetched_now(f, i)) continue;
        *out = i;
        return true;
    }
    return false;
}

static bool begin(struct fetch *f, struct connection_of *c)
{
    char range[64];
    const uint64_t from = c->piece * f->part.piece_bytes + f->part.have[c->piece];
    c->left = part_piece_size(&f->part, c->piece) - f->part.have[c->piece];
    c->checked = false;
    c->why = WHY_NOTHING;
    c->retry_ns = 0;
    c->words[0] = '\0';
    curl_easy_reset(c->easy);
    set_common(c->easy, f->d->url, f->d->token);
    curl_easy_setopt(c->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c->easy, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->words);
    curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
    snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, from, from + c->left - 1);
    if (!f->whole) curl_easy_setopt(c->easy, CURLOPT_RANGE, range);
    c->busy = curl_multi_add_handle(f->multi, c->easy) == CURLM_OK;
    return c->busy || err_set(&f->error, ERR_IO, "cannot start a request");
}

static bool fill(struct fetch *f)
{
    const uint64_t now = clock_ns();
    for (uint32_t i = 0; i < f->n; i++) {
        struct connection_of *c = &f->c[i];
        if (c->busy || c->retry_ns > now) continue;
        if (c->retry_ns == 0 && !next_piece(f, &c->piece)) continue;
        if (!begin(f, c)) return false;
    }
    return true;
}

// As long as the source asks for (Retry-After, at most RETRY_AFTER_MAX_S), or what is ours.
static uint32_t pause_ms(CURL *easy, uint32_t own_ms)
{
    curl_off_t asked = 0;
    if (curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &asked) != CURLE_OK || asked <= 0)
        return own_ms;
    const uint32_t ms = (uint32_t)(asked < RETRY_AFTER_MAX_S ? asked : RETRY_AFTER_MAX_S) * 1000;
    return ms > own_ms ? ms : own_ms;
}

static void rest(uint32_t ms, const atomic_int *cancel)
{
    const uint64_t start = clock_ns();
    while (clock_ms_since(start) < ms && (cancel == NULL || atomic_load(cancel) == 0))
        clock_sleep_ms(ms < 100 ? ms : 100);
}

static uint64_t backoff_ns(const struct fetch *f, CURL *easy)
{
    uint32_t ms = FIRST_BACKOFF_MS << (f->n_failures < 6 ? f->n_failures : 6);
    return clock_ns() + pause_ms(easy, ms < LAST_BACKOFF_MS ? ms : LAST_BACKOFF_MS) * 1000000ull;
}

// For messages: what there is to lose.
static const char *kept(const struct fetch *f)
{
    return part_done_bytes(&f->part) > 0 ? "what came is kept, " : "";
}

// What an answer that is no part of a file means; true: try again.
static bool may_retry(struct fetch *f, struct connection_of *c, CURLcode code)
{
    const long status = status_of(c->easy);
    const char *url = f->d->url;
    if (c->why == WHY_DISK) return false;
    if (status == 401 || status == 403)
        return err_set(&f->error, ERR_AUTH,
                       "%s asks for a token or refuses it (%ld): the name may be wrong (the hub "
                       "answers so for what it does not have), or accept the model's terms on its "
                       "page, then set HF_TOKEN or --token-file",
                       url, status);
    if (status == 404 || status == 410)
        return err_set(&f->error, ERR_NOT_FOUND, "%s is not there (%ld)", url, status);
    if (c->why == WHY_CHANGED || status == 412 || status == 416)
        return err_set(&f->error, ERR_IO, "%s changed while it was fetched", url);
    if (c->why == WHY_NO_RANGES) return true;
    if (c->words[0] == '\0')
        snprintf(f->last_words, sizeof f->last_words, "%s (status %ld)", curl_easy_strerror(code),
                 status);
    else
        snprintf(f->last_words, sizeof f->last_words, "%s", c->words);
    if (++f->n_failures <= MAX_FAILURES) return true;
    return err_set(&f->error, ERR_IO, "%s: %s; %srun it again to go on", url, f->last_words,
                   kept(f));
}

// One stream from the start: pieces are its consecutive parts, the file is one piece.
static bool go_without_ranges(struct fetch *f)
{
    char etag[ETAG_BYTES];
    if (f->part.n_pieces == 1 && f->part.have[0] == 0 && f->whole) return true;
    snprintf(etag, sizeof etag, "%s", f->part.etag);
    const uint64_t size = f->part.size_bytes;
    part_discard(&f->part);
    f->whole = true;
    f->n = 1;
    return part_fit(&f->part, size, etag, size > 0 ? size : 1, &f->error);
}

static bool finish(struct fetch *f, struct connection_of *c, CURLcode code, bool *changed)
{
    c->busy = false;
    const bool whole_piece = c->checked && c->why == WHY_NOTHING && c->left == 0;
    if (whole_piece) return part_finish_piece(&f->part, c->piece, &f->error);
    const enum why why = c->why;
    if (!may_retry(f, c, code)) {
        *changed = why == WHY_CHANGED;
        return false;
    }
    if (why == WHY_NO_RANGES) return go_without_ranges(f);
    if (f->whole) f->part.have[0] = 0; // it begins at the start again
    c->retry_ns = backoff_ns(f, c->easy);
    return true;
}

static void tell(struct fetch *f)
{
    const uint64_t done = part_done_bytes(&f->part);
    const double ms = clock_ms_since(f->rate_ns);
    if (ms >= RATE_MS) {
        f->rate = done >= f->rate_bytes ? (double)(done - f->rate_bytes) / ms * 1e3 : 0;
        f->rate_ns = clock_ns();
        f->rate_bytes = done;
    }
    const struct download_progress p = {.done_bytes = done,
                                        .total_bytes = f->part.size_bytes,
                                        .start_bytes = f->start_bytes,
                                        .seconds = clock_ms_since(f->start_ns) / 1e3,
                                        .rate = f->rate};
    if (f->d->on_progress != NULL) f->d->on_progress(f->d->arg, &p);
}

static bool drive(struct fetch *f, bool *changed)
{
    while (f->part.n_done < f->part.n_pieces) {
        int running = 0, n = 0;
        bool ok = true;
        if (!fill(f)) return false;
        if (curl_multi_perform(f->multi, &running) != CURLM_OK)
            return err_set(&f->error, ERR_IO, "libcurl cannot go on");
        for (CURLMsg *m; ok && (m = curl_multi_info_read(f->multi, &n)) != NULL;) {
            struct connection_of *c = NULL;
            const CURLcode code = m->data.result;
            if (m->msg != CURLMSG_DONE) continue;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &c);
            curl_multi_remove_handle(f->multi, m->easy_handle);
            ok = finish(f, c, code, changed);
        }
        if (!ok) return false;
        tell(f);
        if (f->d->cancel != NULL && atomic_load(f->d->cancel) != 0)
            return err_set(&f->error, ERR_CANCELLED, "stopped; %srun it again to go on", kept(f));
        curl_multi_poll(f->multi, NULL, 0, TICK_MS, NULL);
    }
    return true;
}

// ---- the whole file ---------------------------------------------------------------------------------

struct probe {
    struct connection_of head;
    struct buf body;
};

static size_t on_probe_body(char *p, size_t size, size_t n, void *arg)
{
    struct probe *probe = arg;
    (void)size;
    if (status_of(probe->head.easy) == 200 || probe->body.n + n > 4096) return 0; // enough seen
    buf_put(&probe->body, p, n);
    return n;
}

// Asks for the first byte: how long is it, what is its ETag, are there ranges?
static bool probe(struct fetch *f, uint64_t *size, char etag[ETAG_BYTES])
{
    struct probe p = {0};
    CURLcode code = CURLE_OK;
    long status = 0;
    uint32_t wait_ms = 0;
    for (uint32_t tries = 0; tries <= 4; tries++) {
        if (tries > 0) rest(wait_ms, f->d->cancel);
        curl_off_t length = -1;
        p.head = (struct connection_of){.fetch = f, .easy = f->c[0].easy};
        curl_easy_reset(p.head.easy);
        set_common(p.head.easy, f->d->url, f->d->token);
        curl_easy_setopt(p.head.easy, CURLOPT_RANGE, "0-0");
        curl_easy_setopt(p.head.easy, CURLOPT_HEADERFUNCTION, on_header);
        curl_easy_setopt(p.head.easy, CURLOPT_HEADERDATA, &p.head);
        curl_easy_setopt(p.head.easy, CURLOPT_WRITEFUNCTION, on_probe_body);
        curl_easy_setopt(p.head.easy, CURLOPT_WRITEDATA, &p);
        curl_easy_setopt(p.head.easy, CURLOPT_ERRORBUFFER, p.head.words);
        code = curl_easy_perform(p.head.easy);
        status = status_of(p.head.easy);
        curl_easy_getinfo(p.head.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
        if (status == 206 && p.head.has_range) *size = p.head.range_total;
        if (status == 200) f->whole = true;
        if (status == 200) *size = length > 0 ? (uint64_t)length : f->d->size_bytes;
        snprintf(etag, ETAG_BYTES, "%s", p.head.etag);
        buf_free(&p.body);
        if (status == 200 || (status == 206 && p.head.has_range)) break;
        if (status >= 400 && status < 500 && status != 429 && status != 408) break;
        wait_ms = pause_ms(p.head.easy, FIRST_BACKOFF_MS << (tries + 1));
        if (f->d->cancel != NULL && atomic_load(f->d->cancel) != 0)
            return err_set(&f->error, ERR_CANCELLED, "stopped");
    }
    if ((status == 200 || status == 206) && *size > 0) return true;
    snprintf(f->c[0].words, sizeof f->c[0].words, "%s", p.head.words);
    f->n_failures = MAX_FAILURES;
    if (status == 200 || status == 206)
        return err_set(&f->error, ERR_IO, "%s does not say how long the file is", f->d->url);
    f->c[0].why = WHY_NOTHING;
    may_retry(f, &f->c[0], code);
    return false;
}

static bool open_connections(struct fetch *f)
{
    f->n = f->d->n_connections == 0 ? 8 : f->d->n_connections;
    if (f->n > MAX_CONNECTIONS) f->n = MAX_CONNECTIONS;
    f->multi = curl_multi_init();
    for (uint32_t i = 0; i < f->n; i++) {
        f->c[i].fetch = f;
        f->c[i].easy = curl_easy_init();
        if (f->c[i].easy == NULL || f->multi == NULL)
            return err_set(&f->error, ERR_MEMORY, "no memory for connections");
    }
    return true;
}

static void close_connections(struct fetch *f)
{
    for (uint32_t i = 0; i < MAX_CONNECTIONS; i++) {
        if (f->c[i].easy == NULL) continue;
        if (f->c[i].busy) curl_multi_remove_handle(f->multi, f->c[i].easy);
        curl_easy_cleanup(f->c[i].easy);
    }
    curl_multi_cleanup(f->multi);
}

static bool fetch_pieces(struct fetch *f, bool *changed)
{
    uint64_t size = 0;
    char etag[ETAG_BYTES] = "";
    if (!probe(f, &size, etag)) return false;
    if (f->d->size_bytes != 0 && size != f->d->size_bytes) {
        *changed = true;
        return err_set(&f->error, ERR_IO, "%s has %" PRIu64 " bytes where its source says %" PRIu64,
                       f->d->url, size, f->d->size_bytes);
    }
    uint64_t piece = f->d->piece_bytes == 0 ? default_piece : f->d->piece_bytes;
    if (f->whole) {
        piece = size;
        f->n = 1;
    }
    if (!part_fit(&f->part, size, etag, piece, &f->error)) return false;
    f->start_bytes = f->rate_bytes = part_done_bytes(&f->part);
    f->start_ns = f->rate_ns = clock_ns();
    const bool ok = drive(f, changed);
    struct err ignored = {0};
    if (!ok) part_save(&f->part, &ignored);
    return ok;
}

static bool check_hash(struct fetch *f)
{
    char hex[65];
    if (!part_hash(&f->part, &f->error)) return false;
    sha256_hex(&f->part.hash, hex);
    if (f->d->sha256 == NULL || strcasecmp(hex, f->d->sha256) == 0) return true;
    part_discard(&f->part);
    return err_set(&f->error, ERR_FORMAT,
                   "%s: SHA-256 is %.16s... where its source says %.16s...; it was removed",
                   f->d->url, hex, f->d->sha256);
}

bool download_run(const struct download *d, bool *changed, struct err *e)
{
    struct fetch *f = calloc(1, sizeof *f);
    *changed = false;
    if (f == NULL) return err_set(e, ERR_MEMORY, "no memory for a download");
    pthread_once(&curl_once, curl_start);
    f->d = d;
    bool opened = part_open(&f->part, d->path, &f->error);
    bool ok = opened && open_connections(f) && fetch_pieces(f, changed);
    if (ok && !check_hash(f)) {
        *changed = true; // pieces of an earlier run, or the source was replaced: once more
        ok = false;
    }
    ok = ok && part_complete(&f->part, &f->error);
    if (ok) tell(f);
    close_connections(f);
    if (!ok && opened && part_done_bytes(&f->part) == 0) part_remove(&f->part);
    if (opened) part_close(&f->part);
    if (!ok) err_set(e, f->error.code, "%s", f->error.msg);
    free(f);
    return ok;
}

uint64_t download_part(const char *path, uint64_t *total_bytes)
{
    uint64_t done = 0;
    *total_bytes = 0;
    part_peek(path, &done, total_bytes);
    return done;
}

// ---- small texts ------------------------------------------------------------------------------------

struct text_sink {
    struct buf *out;
    size_t start;
};

static size_t on_text(char *p, size_t size, size_t n, void *arg)
{
    struct text_sink *t = arg;
    (void)size;
    if (t->out->n - t->start + n > MAX_TEXT) return 0;
    buf_put(t->out, p, n);
    return n;
}

static int on_xfer(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const atomic_int *cancel = arg;
    (void)a, (void)b, (void)c, (void)d;
    return cancel != NULL && atomic_load(cancel) != 0;
}

bool download_text(const char *url, const char *token, const atomic_int *cancel, struct buf *out,
                   struct err *e)
{
    struct text_sink sink = {out, out->n};
    char words[CURL_ERROR_SIZE] = "";
    long status = 0;
    CURLcode code = CURLE_OK;
    pthread_once(&curl_once, curl_start);
    CURL *h = curl_easy_init();
    if (h == NULL) return err_set(e, ERR_MEMORY, "no memory for a request");
    for (uint32_t tries = 0; tries < 5; tries++) {
        if (tries > 0) rest(pause_ms(h, FIRST_BACKOFF_MS << tries), cancel);
        out->n = sink.start;
        set_common(h, url, token);
        curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_text);
        curl_easy_setopt(h, CURLOPT_WRITEDATA, &sink);
        curl_easy_setopt(h, CURLOPT_ERRORBUFFER, words);
        curl_easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, on_xfer);
        curl_easy_setopt(h, CURLOPT_XFERINFODATA, (void *)(uintptr_t)cancel);
        code = curl_easy_perform(h);
        status = status_of(h);
        if (code == CURLE_OK && status < 500 && status != 429) break;
        if (cancel != NULL && atomic_load(cancel) != 0) break;
    }
    curl_easy_cleanup(h);
    if (code == CURLE_OK && status == 200) return true;
    if (cancel != NULL && atomic_load(cancel) != 0) return err_set(e, ERR_CANCELLED, "stopped");
    if (status == 401 || status == 403)
        return err_set(e, ERR_AUTH,
                       "%s asks for a token or refuses it (%ld): the name may be wrong (the hub "
                       "answers so for what it does not have), or accept the model's terms on its "
                       "page, then set HF_TOKEN or --token-file",
                       url, status);
    if (status == 404) return err_set(e, ERR_NOT_FOUND, "%s is not there (404)", url);
    if (status != 0)
        return err_set(e, ERR_IO, "%s: status %ld; %s", url, status,
                       status >= 500 || status == 429 ? "try again later"
                                                      : "is the address right?");
    return err_set(
        e, ERR_IO,
        "%s: %s; is this machine on the network? --hub names another hub, http_proxy a proxy", url,
        words[0] != '\0' ? words : curl_easy_strerror(code));
}
