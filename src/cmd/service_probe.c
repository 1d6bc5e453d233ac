// A server is well when it completes a prompt, not when its port is open.
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/http_client.h"
#include "base/clock.h"
#include "base/file.h"
#include "cmd/service.h"

enum { POLL_MS = 200, LOOK_S = 5, COMPLETE_S = 300, MAX_KEYS = 1 << 20 };

static const char hello[] =
    "{\"model\":\"default\",\"messages\":[{\"role\":\"user\",\"content\":\"Say hello.\"}],"
    "\"max_tokens\":8}";

// The first line of the key file that is a key.
static bool first_key(struct service *sv, const char *path, const char **key, struct err *e)
{
    struct buf text = {0};
    if (!file_read(&text, path, MAX_KEYS, e)) return err_prefix(e, "the service's keys: ");
    struct str rest = buf_view(&text);
    while (rest.n > 0 && *key == NULL) {
        size_t end = str_find(rest, STR("\n"), 0);
        struct str line = str_trim(str_sub(rest, 0, end));
        rest = end == SIZE_MAX ? (struct str){0} : str_sub(rest, end + 1, rest.n);
        if (line.n > 0 && line.p[0] != '#') *key = arena_str(&sv->arena, line).p;
    }
    buf_free(&text);
    return true;
}

bool service_url(struct service *sv, const struct cmdline *flags, const char **url,
                 const char **key, struct err *e)
{
    const char *host = cmdline_flag(flags, "host"), *port = cmdline_flag(flags, "port");
    const char *path = cmdline_flag(flags, "unix-socket");
    const char *keys = cmdline_flag(flags, "api-key-file");
    struct buf b = {0};
    if (host == NULL || strcmp(host, "0.0.0.0") == 0) host = "127.0.0.1";
    if (strcmp(host, "::") == 0) host = "::1";
    if (path != NULL)
        buf_printf(&b, "unix:%s", path);
    else
        buf_printf(&b, strchr(host, ':') != NULL ? "http://[%s]:%s" : "http://%s:%s", host,
                   port == NULL ? "8080" : port);
    *url = b.failed ? NULL : arena_str(&sv->arena, buf_view(&b)).p;
    *key = NULL;
    buf_free(&b);
    if (*url == NULL) return err_set(e, ERR_MEMORY, "no memory for an address");
    return keys == NULL || first_key(sv, keys, key, e);
}

bool service_port_is_free(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    int on = 1;
    if (getaddrinfo(host == NULL ? "127.0.0.1" : host, port == NULL ? "8080" : port, &hints,
                    &list) != 0)
        return true; // the real attempt tells what is wrong
    const int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_free = true;
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        is_free = bind(fd, list->ai_addr, list->ai_addrlen) == 0 || errno != EADDRINUSE;
        close(fd);
    }
    freeaddrinfo(list);
    return is_free;
}

static bool call(const char *url, const char *key, const struct http_call *c,
                 struct http_answer *answer, struct err *e)
{
    struct http_client *http = NULL;
    *answer = (struct http_answer){0};
    if (!http_client_open(&http, url, key, e)) return false;
    bool ok = http_client_call(http, c, answer);
    http_client_close(http);
    return ok || err_set(e, ERR_NO_SERVER, "%s does not answer: %s", url, answer->why);
}

bool service_complete(const char *url, const char *key, struct str body, struct err *e)
{
    struct http_answer answer;
    const struct http_call c = {.path = "/v1/chat/completions",
                                .body = body,
                                .cancel = &service_cancelled,
                                .deadline_ns = clock_ns() + COMPLETE_S * 1000000000ull};
    bool ok = call(url, key, &c, &answer, e);
    if (ok && answer.status != 200)
        ok = err_set(e, ERR_IO, "%s answers a completion with %ld: %.200s", url, answer.status,
                     buf_cstr(&answer.body));
    if (ok) {
        json_t *root = json_loadb(answer.body.p, answer.body.n, 0, NULL);
        json_t *usage = json_object_get(root, "usage");
        if (json_integer_value(json_object_get(usage, "completion_tokens")) < 1)
            ok = err_set(e, ERR_IO, "%s answers a completion without a token", url);
        json_decref(root);
    }
    http_answer_free(&answer);
    return ok;
}

// "submind:requests_failed_total 3" summed over labels; SIZE_MAX when there is none.
static size_t count_failed(struct str text)
{
    static const char name[] = "vllm:request_success_total{";
    double sum = 0;
    bool seen = false;
    for (size_t at = str_find(text, STR("vllm:request_success_total{"), 0); at != SIZE_MAX;
         at = str_find(text, STR("vllm:request_success_total{"), at + sizeof name)) {
        struct str line = str_sub(text, at, 0);
        line.n = strcspn(text.p + at, "\n");
        size_t space = str_rfind(line, STR(" "));
        seen = true;
        if (str_find(line, STR("\"error\""), 0) != SIZE_MAX && space != SIZE_MAX)
            sum += strtod(line.p + space, NULL);
    }
    return seen ? (size_t)sum : SIZE_MAX;
}

bool service_glance(const char *url, const char *key, size_t *n_failed, struct err *e)
{
    struct http_answer answer;
    struct http_call c = {.path = "/health", .deadline_ns = clock_ns() + LOOK_S * 1000000000ull};
    bool ok = call(url, key, &c, &answer, e);
    if (ok && answer.status != 200)
        ok = err_set(e, ERR_LOADING, "%s says %ld: %.200s", url, answer.status,
                     buf_cstr(&answer.body));
    http_answer_free(&answer);
    if (n_failed == NULL || !ok) return ok;
    *n_failed = SIZE_MAX;
    c.path = "/metrics";
    c.deadline_ns = clock_ns() + LOOK_S * 1000000000ull;
    if (call(url, key, &c, &answer, e) && answer.status == 200) {
        buf_cstr(&answer.body);
        *n_failed = count_failed(buf_view(&answer.body));
    }
    http_answer_free(&answer);
    return true;
}

bool service_probe(const char *url, const char *key, uint32_t wait_s, struct err *e)
{
    const uint64_t start = clock_ns();
    for (;;) {
        struct err local = {0};
        if (atomic_load(&service_cancelled)) return err_set(e, ERR_CANCELLED, "stopped");
        if (service_glance(url, key, NULL, &local)) break;
        if (clock_ms_since(start) > wait_s * 1e3) return err_set(e, local.code, "%s", local.msg);
        clock_sleep_ms(POLL_MS);
    }
    return service_complete(url, key, str_from(hello), e);
}
