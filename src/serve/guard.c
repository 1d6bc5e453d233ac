// The checks of guard.h. Nothing here allocates or knows of HTTP beyond header texts.
#include "serve/guard.h"

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

static bool equal_nocase(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

// Walks all of b whatever differs, so that the time tells nothing about how much of a key is right.
static unsigned differs(struct str key, struct str given)
{
    unsigned diff = key.n != given.n;
    for (size_t i = 0; i < given.n; i++) {
        unsigned char k = key.n > 0 ? (unsigned char)key.p[i % key.n] : 0;
        diff |= (unsigned)(k ^ (unsigned char)given.p[i]);
    }
    return diff;
}

bool guard_key_ok(const struct str *keys, size_t n_keys, struct str given)
{
    volatile unsigned ok = 0; // volatile: no early exit by a clever compiler
    for (size_t i = 0; i < n_keys; i++) ok |= (differs(keys[i], given) == 0) & (keys[i].n > 0);
    return ok != 0;
}

struct str guard_bearer(struct str authorization)
{
    const struct str scheme = STR("Bearer ");
    if (!equal_nocase(str_sub(authorization, 0, scheme.n), scheme)) return (struct str){"", 0};
    return str_trim(str_sub(authorization, scheme.n, authorization.n));
}

// "name:port", "[v6]:port", "name" -> the name, brackets kept.
static struct str without_port(struct str host)
{
    if (host.n > 0 && host.p[0] == '[') {
        size_t end = str_find(host, STR("]"), 0);
        return end == SIZE_MAX ? host : str_sub(host, 0, end + 1);
    }
    size_t colon = str_find(host, STR(":"), 0);
    return colon == SIZE_MAX ? host : str_sub(host, 0, colon);
}

static bool is_loopback_v4(struct str name)
{
    if (!str_starts(name, STR("127."))) return false;
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] != '.' && (name.p[i] < '0' || name.p[i] > '9')) return false;
    return true;
}

static bool in_list(struct str name, struct str list)
{
    while (list.n > 0) {
        size_t comma = str_find(list, STR(","), 0);
        if (comma == SIZE_MAX) comma = list.n;
        struct str entry = str_trim(str_sub(list, 0, comma));
        if (entry.n > 0 && equal_nocase(name, entry)) return true;
        list = str_sub(list, comma + 1, list.n);
    }
    return false;
}

bool guard_host_ok(struct str host, struct str extra)
{
    const struct str suffix = STR(".localhost");
    struct str name = without_port(str_trim(host));
    if (equal_nocase(name, STR("localhost")) || equal_nocase(name, STR("[::1]"))) return true;
    if (name.n > suffix.n && equal_nocase(str_sub(name, name.n - suffix.n, suffix.n), suffix))
        return true;
    return is_loopback_v4(name) || in_list(name, extra);
}

bool guard_address_local(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    if (a->sa_family != AF_INET6) return false;
    struct sockaddr_in6 in6;
    memcpy(&in6, a, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr) && in6.sin6_addr.s6_addr[12] == 127);
}

bool guard_is_json(struct str content_type)
{
    size_t end = str_find(content_type, STR(";"), 0);
    return equal_nocase(str_trim(str_sub(content_type, 0, end)), STR("application/json"));
}
