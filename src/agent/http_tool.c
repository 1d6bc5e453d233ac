// The URL is parsed once, by the library that connects: what was compared with the rules is what is
// asked for. Redirects are followed here, one at a time, each compared anew. The address is checked
// at the moment of the connection, so that a name which resolves differently a second time gains
// nothing.
#include "agent/http_tool.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/http_client.h"
#include "agent/tool_text.h"
#include "base/clock.h"

enum { MAX_REDIRECTS = 5, MAX_BODY_BYTES = 2 << 20, MAX_RULES = 500, MAX_URL_BYTES = 8000 };

// ---- addresses ------------------------------------------------------------------------------

// Networks that are not the public Internet, IPv4 (IANA special-purpose address registry).
static const struct {
    uint32_t net;
    unsigned bits;
} private_v4[] = {
    {0x00000000, 8},  {0x0a000000, 8},  {0x64400000, 10}, {0x7f000000, 8},  {0xa9fe0000, 16},
    {0xac100000, 12}, {0xc0000000, 24}, {0xc0000200, 24}, {0xc0586300, 24}, {0xc0a80000, 16},
    {0xc6120000, 15}, {0xc6336400, 24}, {0xcb007100, 24}, {0xe0000000, 4},  {0xf0000000, 4},
};

static bool is_private_v4(uint32_t address)
{
    for (size_t i = 0; i < sizeof private_v4 / sizeof private_v4[0]; i++)
        if ((address ^ private_v4[i].net) >> (32 - private_v4[i].bits) == 0) return true;
    return false;
}

static uint32_t v4_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

// IPv6: public is 2000::/3 without its special parts; addresses that carry an IPv4 one are judged
// by it.
static bool is_private_v6(const uint8_t *a)
{
    static const uint8_t zeros[12], nat64[12] = {0x00, 0x64, 0xff, 0x9b},
                                    mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (memcmp(a, mapped, 12) == 0 || memcmp(a, nat64, 12) == 0)
        return is_private_v4(v4_at(a + 12));
    if (memcmp(a, zeros, 12) == 0) return true; // ::, ::1 and the old compatible ones
    if (a[0] == 0x20 && a[1] == 0x02) return is_private_v4(v4_at(a + 2)); // 6to4
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] < 0x02) return true;         // 2001::/23, Teredo too
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0d && a[3] == 0xb8) return true; // documentation
    return (a[0] & 0xe0) != 0x20;
}

bool http_address_is_private(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, a, sizeof v4);
        return is_private_v4(ntohl(v4.sin_addr.s_addr));
    }
    if (a->sa_family != AF_INET6) return true;
    struct sockaddr_in6 v6;
    memcpy(&v6, a, sizeof v6);
    return is_private_v6(v6.sin6_addr.s6_addr);
}

// Does the rule itself name an address that is private? Then it is listed.
static bool names_private(const char *host)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    char bare[64] = "";
    if (strcasecmp(host, "localhost") == 0) return true;
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1)
        return http_address_is_private((const struct sockaddr *)&v4);
    if (host[0] == '[') snprintf(bare, sizeof bare, "%.*s", (int)strcspn(host + 1, "]"), host + 1);
    if (inet_pton(AF_INET6, bare, &v6.sin6_addr) == 1)
        return http_address_is_private((const struct sockaddr *)&v6);
    return false;
}

// ---- rules ----------------------------------------------------------------------------------

static void free_rule(struct http_rule *r)
{
    free(r->scheme);
    free(r->host);
    free(r->path);
    words_free(&r->headers);
}

void http_settings_free(struct http_settings *s)
{
    for (size_t i = 0; i < s->allow.n; i++) free_rule(&s->allow.list[i]);
    free(s->allow.list);
    *s = (struct http_settings){0};
}

static const char url_wanted[] = "a list of [http://]HOST[:PORT][/PATH]";

// Splits by hand, because a rule's "*" is no part of a URL.
static bool parse_rule(struct str text, struct http_rule *r, struct err *e)
{
    struct str scheme = STR("https");
    size_t at = str_find(text, STR("://"), 0);
    if (at != SIZE_MAX) {
        scheme = str_sub(text, 0, at);
        text = str_sub(text, at + 3, text.n);
    }
    if (!str_eq(scheme, STR("https")) && !str_eq(scheme, STR("http"))) return false;
    size_t slash = str_find(text, STR("/"), 0);
    struct str host = str_sub(text, 0, slash == SIZE_MAX ? text.n : slash);
    struct str path = slash == SIZE_MAX ? STR("") : str_sub(text, slash, text.n);
    size_t bracket = str_rfind(host, STR("]")), colon = str_rfind(host, STR(":"));
    if (colon != SIZE_MAX && (bracket == SIZE_MAX || colon > bracket)) {
        for (size_t i = colon + 1; i < host.n; i++) {
            if (host.p[i] < '0' || host.p[i] > '9' || r->port > 65535) return false;
            r->port = r->port * 10 + (unsigned)(host.p[i] - '0');
        }
        if (r->port == 0 || r->port > 65535) return false;
        host.n = colon;
    }
    for (size_t i = 0; i < host.n; i++)
        if (strchr("@?#\\ %", host.p[i]) != NULL || (host.p[i] == '*' && i > 0)) return false;
    if (host.n == 0 || (host.p[0] == '*' && (host.n < 3 || host.p[1] != '.'))) return false;
    return yaml_read_text(scheme, &r->scheme, e) && yaml_read_text(host, &r->host, e) &&
           (path.n == 0 || yaml_read_text(path, &r->path, e));
}

static bool read_url(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                     struct http_rule *rule, struct err *e)
{
    if (!yaml_is_text(n) || !parse_rule(yaml_scalar(n), rule, e)) {
        if (e->code == ERR_MEMORY) return false;
        return yaml_wrong(r, f, n, url_wanted, e);
    }
    rule->is_private = rule->is_private || names_private(rule->host);
    return true;
}

static bool read_headers(const struct yaml_reading *r, const struct yaml_field *f,
                         const yaml_node_t *n, struct http_rule *rule, struct err *e)
{
    if (n->type != YAML_MAPPING_NODE)
        return yaml_wrong(r, f, n, "rules whose \"headers\" are a mapping", e);
    const yaml_node_pair_t *p = n->data.mapping.pairs.start;
    for (; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *name = yaml_at(r, p->key), *value = yaml_at(r, p->value);
        struct str texts[2] = {yaml_scalar(name), yaml_scalar(value)};
        struct buf line = {0};
        for (int i = 0; i < 2; i++)
            if (texts[i].n == 0 || memchr(texts[i].p, '\n', texts[i].n) != NULL ||
                memchr(texts[i].p, '\r', texts[i].n) != NULL)
                return yaml_wrong(r, f, i == 0 ? name : value, "rules with headers of one line", e);
        buf_str(&line, texts[0]);
        buf_z(&line, ": ");
        buf_str(&line, texts[1]);
        bool ok = words_put(&rule->headers, buf_view(&line), e);
        buf_free(&line);
        if (!ok) return false;
    }
    return true;
}

static bool read_rule(const struct yaml_reading *r, const struct yaml_field *f,
                      const yaml_node_t *n, struct http_rule *rule, struct err *e)
{
    if (n->type != YAML_MAPPING_NODE) return read_url(r, f, n, rule, e);
    const yaml_node_pair_t *p = n->data.mapping.pairs.start;
    for (; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = yaml_at(r, p->key), *value = yaml_at(r, p->value);
        struct str name = yaml_scalar(key);
        bool ok = str_eq(name, STR("url"))       ? read_url(r, f, value, rule, e)
                  : str_eq(name, STR("headers")) ? read_headers(r, f, value, rule, e)
                  : str_eq(name, STR("private"))
                      ? yaml_read_flag(r, f, value, &rule->is_private, e)
                      : yaml_wrong(r, f, key, "rules with the keys url, headers, private", e);
        if (!ok) return false;
    }
    return rule->host != NULL || yaml_wrong(r, f, n, "rules with a \"url\"", e);
}

bool http_rules_read(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                     void *slot, struct err *e)
{
    struct http_rules *rules = slot;
    struct err none = {0};
    if (e == NULL) e = &none;
    if (n->type != YAML_SEQUENCE_NODE) return yaml_wrong(r, f, n, url_wanted, e);
    const yaml_node_item_t *i = n->data.sequence.items.start;
    for (; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_at(r, *i);
        struct http_rule *list = realloc(rules->list, (rules->n + 1) * sizeof *list);
        if (list == NULL) return err_set(e, ERR_MEMORY, "no memory for the settings");
        rules->list = list;
        if (rules->n == MAX_RULES) return yaml_wrong(r, f, n, "a list of at most 500 rules", e);
        list[rules->n] = (struct http_rule){.line = yaml_line(item)};
        if (!read_rule(r, f, item, &list[rules->n++], e)) return false;
    }
    return true;
}

// ---- one address ----------------------------------------------------------------------------

struct target { // owned
    char *scheme, *host, *path, *query;
    unsigned port;
    struct buf base, whole; // "https://host:port", "/path?query"
};

static void drop_target(struct target *t)
{
    curl_free(t->scheme);
    curl_free(t->host);
    curl_free(t->path);
    curl_free(t->query);
    buf_free(&t->base);
    buf_free(&t->whole);
    *t = (struct target){0};
}

// False: no address that can be asked for, with the reason.
static bool parse_target(struct target *t, const char *url, struct err *e)
{
    CURLU *u = curl_url();
    char *port = NULL, *user = NULL;
    bool ok = u != NULL && strlen(url) < MAX_URL_BYTES &&
              curl_url_set(u, CURLUPART_URL, url, CURLU_URLENCODE) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_SCHEME, &t->scheme, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_HOST, &t->host, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_PATH, &t->path, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_NO_USER;
    if (ok) {
        curl_url_get(u, CURLUPART_QUERY, &t->query, 0);
        t->port = (unsigned)strtoul(port, NULL, 10);
        ok = strcmp(t->scheme, "http") == 0 || strcmp(t->scheme, "https") == 0;
        buf_printf(&t->base, "%s://%s:%u", t->scheme, t->host, t->port);
        buf_printf(&t->whole, "%s%s%s", t->path, t->query != NULL ? "?" : "",
                   t->query != NULL ? t->query : "");
    }
    if (!ok)
        err_set(e, ERR_INPUT,
                "%s \"%.300s\"; http_get needs a URL such as https://example.org/page",
                user != NULL ? "a user name may not stand in" : "cannot ask for", url);
    curl_free(port);
    curl_free(user);
    curl_url_cleanup(u);
    return ok;
}

static bool host_matches(const char *pattern, const char *host)
{
    size_t n = strlen(host), m = strlen(pattern);
    while (n > 0 && host[n - 1] == '.') n--; // "example.org." is example.org
    if (pattern[0] != '*') return n == m && strncasecmp(pattern, host, n) == 0;
    return n > m - 1 && strncasecmp(pattern + 1, host + n - (m - 1), m - 1) == 0;
}

// A path is compared decoded as little as it is sent; "%2e%2e" and "%2f" could mean other paths to
// the server, so that with a path rule they match nothing.
static bool path_matches(const char *pattern, const char *path)
{
    if (pattern == NULL) return true;
    if (strstr(path, "..") != NULL || strcasestr(path, "%2e") != NULL ||
        strcasestr(path, "%2f") != NULL || strcasestr(path, "%5c") != NULL)
        return false;
    return allow_glob(pattern, path);
}

static const struct http_rule *find_rule(const struct http_rules *rules, const struct target *t)
{
    for (size_t i = 0; i < rules->n; i++) {
        const struct http_rule *r = &rules->list[i];
        unsigned port = r->port != 0 ? r->port : strcmp(r->scheme, "http") == 0 ? 80 : 443;
        if (strcmp(r->scheme, t->scheme) == 0 && port == t->port &&
            host_matches(r->host, t->host) && path_matches(r->path, t->path))
            return r;
    }
    return NULL;
}

static void put_rule(const struct http_rule *r, struct buf *out)
{
    buf_printf(out, "%s://%s", r->scheme, r->host);
    if (r->port != 0) buf_printf(out, ":%u", r->port);
    buf_z(out, r->path != NULL ? r->path : "/**");
}

static void refuse_target(const struct http_rules *rules, const char *url, struct tool_result *r)
{
    struct buf list = {0};
    for (size_t i = 0; i < rules->n && list.n < 500; i++) {
        if (i > 0) buf_z(&list, ", ");
        put_rule(&rules->list[i], &list);
    }
    tool_refuse(r, "not allowed: %.300s (allowed: %s)", url, buf_cstr(&list));
    buf_free(&list);
}

// ---- the request ----------------------------------------------------------------------------

struct guard {
    bool is_private; // the rule lets private addresses through
    bool refused;
    char address[INET6_ADDRSTRLEN];
};

static bool may_connect(void *arg, const struct sockaddr *to)
{
    struct guard *g = arg;
    if (g->is_private || !http_address_is_private(to)) return true;
    g->refused = true;
    const void *raw = to->sa_family == AF_INET
                          ? (const void *)&((const struct sockaddr_in *)to)->sin_addr
                          : (const void *)&((const struct sockaddr_in6 *)to)->sin6_addr;
    if (inet_ntop(to->sa_family, raw, g->address, sizeof g->address) == NULL) g->address[0] = '\0';
    return false;
}

static bool make_headers(const struct http_tool *x, const struct http_rule *rule, struct words *out,
                         struct err *e)
{
    bool ok =
        words_put(out, STR("Accept: text/html, application/json, text/*;q=0.9, */*;q=0.5"), e);
    for (size_t i = 0; ok && i < rule->headers.n; i++) {
        struct buf line = {0};
        ok = secrets_expand(x->secrets, str_from(rule->headers.p[i]), NULL, &line, e) &&
             words_put(out, buf_view(&line), e);
        if (line.p != NULL) explicit_bzero(line.p, line.n);
        buf_free(&line);
    }
    return ok;
}

static void tell_failure(const struct http_answer *a, const struct guard *g, const struct target *t,
                         struct tool_result *r)
{
    static const char *const words[] = {[HTTP_OK] = "",
                                        [HTTP_NO_CONNECTION] = "no connection",
                                        [HTTP_HANG_UP] = "the server hung up",
                                        [HTTP_DEADLINE] = "timed out",
                                        [HTTP_CANCELLED] = "cancelled",
                                        [HTTP_BROKEN] = "no valid answer"};
    if (g->refused)
        tool_refuse(r,
                    "%.200s leads to the private address %s, which is not listed (\"private: yes\" "
                    "in the rule would allow it)",
                    t->host, g->address);
    else if (a->fail == HTTP_DEADLINE || a->fail == HTTP_CANCELLED)
        tool_fail(r, "%s", words[a->fail]);
    else
        tool_fail(r, "%s: %.200s", words[a->fail], a->why);
}

// One hop. False when the call is over, whichever way; *url is the next address otherwise.
static bool hop(const struct http_tool *x, struct buf *url, uint64_t deadline_ns,
                const struct tool_limits *limits, struct http_answer *answer,
                struct tool_result *out, struct err *e)
{
    struct target t = {0};
    struct words headers = {0};
    struct http_client *client = NULL;
    struct err problem = {0};
    bool again = false;
    const struct http_rule *rule = NULL;
    if (!parse_target(&t, buf_cstr(url), &problem))
        tool_refuse(out, "%s", problem.msg);
    else if ((rule = find_rule(&x->settings->allow, &t)) == NULL)
        refuse_target(&x->settings->allow, buf_cstr(url), out);
    else if (!make_headers(x, rule, &headers, &problem) ||
             !http_client_open(&client, buf_cstr(&t.base), NULL, &problem))
        tool_fail(out, "%s", problem.msg);
    if (client != NULL) {
        struct guard guard = {.is_private = rule->is_private};
        struct http_call call = {.path = buf_cstr(&t.whole),
                                 .deadline_ns = deadline_ns,
                                 .cancel = limits->cancel,
                                 .headers = (const char *const *)headers.p,
                                 .limit_bytes = MAX_BODY_BYTES};
        http_client_guard(client, may_connect, &guard);
        http_answer_free(answer);
        if (!http_client_call(client, &call, answer))
            tell_failure(answer, &guard, &t, out);
        else
            again = answer->status >= 300 && answer->status < 400 && answer->location.n > 0;
    }
    if (again) {
        buf_clear(url);
        buf_str(url, buf_view(&answer->location));
    }
    if (problem.code == ERR_MEMORY) err_set(e, ERR_MEMORY, "%s", problem.msg);
    http_client_close(client);
    for (size_t i = 0; i < headers.n; i++) explicit_bzero(headers.p[i], strlen(headers.p[i]));
    words_free(&headers);
    drop_target(&t);
    return again;
}

static void put_answer(const struct http_tool *x, const struct http_answer *a,
                       struct tool_result *r)
{
    struct str body = buf_view(&a->body);
    r->failed = a->status < 200 || a->status > 299;
    if (r->failed) buf_printf(&r->text, "HTTP status %ld\n", a->status);
    if (tool_text_is_binary(body)) {
        buf_printf(&r->text, "[%zu%s bytes of %s, no text]", body.n, a->cut ? " or more" : "",
                   a->content_type[0] != '\0' ? a->content_type : "unknown type");
        return;
    }
    tool_text_put(&r->text, body);
    tool_text_trim_end(&r->text);
    redact_text(&x->secrets->redactor, &r->text); // before a cut could hide half of one
    tool_text_cut(&r->text, x->settings->output_bytes);
    if (a->cut) buf_printf(&r->text, "\n[the page is longer than %d bytes]", MAX_BODY_BYTES);
    if (r->text.n == 0) buf_z(&r->text, "[empty]");
}

static bool run_get(void *arg, json_t *args, const struct tool_limits *limits,
                    struct tool_result *out, struct err *e)
{
    const struct http_tool *x = arg;
    struct http_answer answer = {0};
    struct buf url = {0};
    struct err problem = {0};
    uint64_t ms = (uint64_t)x->settings->timeout_s * 1000;
    if (limits->timeout_ms != 0 && limits->timeout_ms < ms) ms = limits->timeout_ms;
    uint64_t deadline_ns = clock_ns() + ms * 1000000;
    json_t *given = json_object_get(args, "url");
    buf_put(&url, json_string_value(given), json_string_length(given));
    int n = 0;
    bool again = strlen(buf_cstr(&url)) == url.n;
    if (!again) tool_refuse(out, "the URL holds a NUL byte");
    for (; again && n <= MAX_REDIRECTS; n++) {
        buf_printf(&out->detail, "%s%s", n > 0 ? " -> " : "GET ", buf_cstr(&url));
        again = hop(x, &url, deadline_ns, limits, &answer, out, &problem);
    }
    if (again)
        tool_fail(out, "more than %d redirects", MAX_REDIRECTS);
    else if (out->text.n == 0)
        put_answer(x, &answer, out);
    http_answer_free(&answer);
    buf_free(&url);
    return problem.code != ERR_MEMORY || err_set(e, ERR_MEMORY, "%s", problem.msg);
}

struct tool http_tool_row(struct http_tool *x)
{
    return (struct tool){.name = "http_get",
                         .description = "Fetch a URL with HTTP GET.",
                         .parameters =
                             "{\"type\":\"object\",\"properties\":{\"url\":{\"type\":\"string\","
                             "\"description\":\"Address to fetch.\"}},\"required\":[\"url\"]}",
                         .repeatable = true,
                         .arg = x,
                         .run = run_get};
}
