// The gateway's configuration is JSON5 and written by hand, so it is turned into JSON leniently and then
// read by jansson. The invariant: the key itself is never kept, only whether there is one.
#include "host/gateway.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "host/root.h"

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

// A string at s[i] in either quote; *end is behind it.
static bool put_string(struct str s, size_t i, size_t *end, struct buf *out)
{
    const char quote = s.p[i++];
    buf_c(out, '"');
    for (; i < s.n && s.p[i] != quote; i++) {
        const char c = s.p[i];
        if (c == '\n') return false;
        if (c == '\\' && i + 1 < s.n) {
            i++;
            if (s.p[i] == '\n') continue; // a line that goes on
            if (s.p[i] != '\'') buf_c(out, '\\');
            buf_c(out, s.p[i]);
        } else {
            if (c == '"') buf_c(out, '\\');
            buf_c(out, c);
        }
    }
    buf_c(out, '"');
    *end = i + 1;
    return i < s.n;
}

// White space and comments from i on; SIZE_MAX when a comment does not end.
static size_t skip(struct str s, size_t i)
{
    while (i < s.n) {
        if (isspace((unsigned char)s.p[i])) {
            i++;
        } else if (s.p[i] == '/' && i + 1 < s.n && s.p[i + 1] == '/') {
            while (i < s.n && s.p[i] != '\n') i++;
        } else if (s.p[i] == '/' && i + 1 < s.n && s.p[i + 1] == '*') {
            i = str_find(s, STR("*/"), i + 2);
            if (i == SIZE_MAX) return SIZE_MAX;
            i += 2;
        } else {
            break;
        }
    }
    return i;
}

static void put_hex(struct str word, struct buf *out)
{
    char text[20] = "";
    memcpy(text, word.p, word.n < sizeof text ? word.n : sizeof text - 1);
    buf_printf(out, "%llu", strtoull(text, NULL, 16));
}

// A word (bare key, number, literal) at s[i]: quoted when a colon follows.
static size_t put_word(struct str s, size_t i, struct buf *out)
{
    if (s.p[i] == '+') i++;
    const size_t from = i;
    while (i < s.n && (is_word(s.p[i]) || s.p[i] == '.' || s.p[i] == '-' || s.p[i] == '+')) i++;
    const struct str word = str_sub(s, from, i - from);
    const size_t next = skip(s, i);
    const bool key = next < s.n && s.p[next] == ':';
    if (key)
        buf_json(out, word);
    else if (str_starts(word, STR("0x")) || str_starts(word, STR("0X")))
        put_hex(word, out);
    else if (str_starts(word, STR(".")))
        buf_printf(out, "0%.*s", (int)word.n, word.p);
    else
        buf_str(out, word);
    return i;
}

bool json5_to_json(struct str text, struct buf *out)
{
    size_t i = 0;
    if (str_starts(text, STR("\xef\xbb\xbf"))) i = 3;
    for (i = skip(text, i); i < text.n; i = i == SIZE_MAX ? i : skip(text, i)) {
        const char c = text.p[i];
        if (c == '"' || c == '\'') {
            if (!put_string(text, i, &i, out)) return false;
        } else if (is_word(c) || c == '.' || c == '-' || c == '+') {
            const size_t before = i;
            i = put_word(text, i, out);
            if (i == before) return false;
        } else if (c == ',') {
            i = skip(text, i + 1);
            const bool last = i < text.n && (text.p[i] == '}' || text.p[i] == ']');
            if (!last) buf_c(out, ',');
        } else {
            buf_c(out, c);
            i++;
        }
    }
    return i != SIZE_MAX;
}

static bool is_loopback(const char *url)
{
    return strstr(url, "//127.") != NULL || strstr(url, "//localhost") != NULL ||
           strstr(url, "//[::1]") != NULL;
}

bool gateway_url_fits(const char *url, uint32_t port)
{
    const char *host = strstr(url, "://");
    if (host == NULL) return false;
    host += 3;
    const size_t n = strcspn(host, "/");
    if (strcmp(host + n, "/v1") != 0 && strcmp(host + n, "/v1/") != 0) return false;
    const char *colon = memrchr(host, ':', n);
    return colon != NULL && strtoul(colon + 1, NULL, 10) == port;
}

// How likely a provider is this server: its port, this machine, any.
static int provider_fit(const char *url, uint32_t port)
{
    return (gateway_url_fits(url, port) ? 2 : 0) + (is_loopback(url) ? 1 : 0);
}

static void read_provider(struct gateway *g, const json_t *provider)
{
    const char *key = json_string_value(json_object_get(provider, "apiKey"));
    const json_t *models = json_object_get(provider, "models");
    const json_t *model = json_array_get(models, 0);
    g->has_provider = true;
    root_clean(str_from(json_string_value(json_object_get(provider, "baseUrl"))), g->base_url,
               sizeof g->base_url);
    // a key may also be an object that says where it comes from
    g->has_key =
        (key != NULL && *key != '\0') || json_is_object(json_object_get(provider, "apiKey"));
    g->timeout_s = json_integer_value(json_object_get(provider, "timeoutSeconds"));
    g->context_window = json_integer_value(json_object_get(model, "contextWindow"));
}

void gateway_read(struct gateway *g, struct str text, uint32_t port)
{
    struct buf plain = {0};
    json_error_t je = {0};
    json_t *root = NULL;
    g->found = true;
    if (json5_to_json(text, &plain) && !plain.failed) {
        root = json_loadb(plain.p == NULL ? "" : plain.p, plain.n, 0, &je);
        if (root == NULL) root_clean(str_from(je.text), g->why, sizeof g->why);
    } else {
        root_clean(STR("a string or comment does not end"), g->why, sizeof g->why);
    }
    g->readable = root != NULL;
    json_t *providers = json_object_get(json_object_get(root, "models"), "providers");
    const json_t *chosen = NULL;
    int best = -1;
    const char *name;
    json_t *provider;
    json_object_foreach(providers, name, provider)
    {
        const char *url = json_string_value(json_object_get(provider, "baseUrl"));
        if (url == NULL) continue;
        const int fit = provider_fit(url, port);
        if (chosen == NULL || fit > best) {
            chosen = provider;
            best = fit;
        }
    }
    if (chosen != NULL) read_provider(g, chosen);
    json_decref(root);
    buf_free(&plain);
}
