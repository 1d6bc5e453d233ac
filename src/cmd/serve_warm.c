// A thread of its own: the server answers others meanwhile. What goes wrong is a warning, no more:
// the first run computes the trunk then.
#include "cmd/serve_warm.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/http_client.h"
#include "agent/trunk.h"
#include "base/log.h"

static bool ask(struct serve_warm *w, struct str body, struct err *e)
{
    struct http_client *client;
    struct http_answer a;
    char key[512] = "";
    if (w->key.n > 0) snprintf(key, sizeof key, "%.*s", (int)w->key.n, w->key.p);
    if (!http_client_open(&client, w->url, key[0] != '\0' ? key : NULL, e)) return false;
    const struct http_call call = {
        .path = "/submind/cache/warm", .body = body, .cancel = &w->cancel};
    bool ok = http_client_call(client, &call, &a);
    if (!ok) err_set(e, ERR_IO, "%s", a.why);
    json_t *o = ok ? json_loadb(a.body.p, a.body.n, 0, NULL) : NULL;
    if (ok && a.status != 200) {
        const char *words =
            json_string_value(json_object_get(json_object_get(o, "error"), "message"));
        ok = err_set(e, ERR_IO, "%.300s", words != NULL ? words : "the server refuses");
    }
    if (ok)
        log_info("warm", "workspace=\"%s\" tokens=%lld computed=%lld pinned=%lld ms=%.0f", w->dir,
                 (long long)json_integer_value(json_object_get(o, "tokens")),
                 (long long)json_integer_value(json_object_get(o, "computed_tokens")),
                 (long long)json_integer_value(json_object_get(o, "pinned_tokens")),
                 json_number_value(json_object_get(o, "ms")));
    json_decref(o);
    http_answer_free(&a);
    http_client_close(client);
    return ok;
}

static void *run(void *arg)
{
    struct serve_warm *w = arg;
    struct buf body = {0};
    struct err e = {0};
    bool ok = trunk_request(w->dir, (const char *const *)environ, w->lists_dir, &body, &e);
    if (ok) {
        body.n--; // the closing brace
        buf_printf(&body, ",\"pin\":true,\"public\":%s,\"name\":", w->public ? "true" : "false");
        buf_json(&body, trunk_name(w->dir));
        buf_c(&body, '}');
        ok = body.failed ? err_set(&e, ERR_MEMORY, "no memory") : ask(w, buf_view(&body), &e);
    }
    if (!ok && atomic_load(&w->cancel) == 0)
        log_warn("warm", "workspace=\"%s\" is not warm: %s", w->dir, e.msg);
    buf_free(&body);
    return NULL;
}

void serve_warm_start(void *arg, const char *url)
{
    struct serve_warm *w = arg;
    if (w->dir == NULL) return;
    snprintf(w->url, sizeof w->url, "%s", url);
    w->started = pthread_create(&w->thread, NULL, run, w) == 0;
    if (!w->started) log_warn("warm", "cannot start a thread");
}

void serve_warm_stop(struct serve_warm *w)
{
    if (!w->started) return;
    atomic_store(&w->cancel, 1);
    pthread_join(w->thread, NULL);
    w->started = false;
}
