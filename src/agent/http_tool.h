// The tool `http_get`: pages of listed hosts, and of no other ones, whatever their names resolve to
// and wherever they redirect.
//
// A rule is [http://|https://]HOST[:PORT][/PATH]: https unless it says http; HOST may begin with
// "*." (any name below); PATH is a glob as in allow.h. Without a path every path is meant. Private
// addresses (the machine itself, the house's network, the cloud's metadata) are reached only where
// the rule says so ("private: yes") or names the address itself.
#pragma once

#include "agent/secrets.h"
#include "agent/tool.h"

struct http_rule {              // text is owned
    char *scheme, *host, *path; // path NULL: any
    unsigned port;              // 0 = the scheme's own
    bool is_private;
    struct words headers; // "Name: value", with ${secret:NAME}
    int line;
};

struct http_rules {
    struct http_rule *list;
    size_t n;
};

struct http_settings {
    struct http_rules allow;
    uint32_t timeout_s;    // of one call, with its redirects
    uint32_t output_bytes; // of one answer that the model sees
};

struct http_tool { // borrowed
    const struct http_settings *settings;
    const struct secrets *secrets;
};

void http_settings_free(struct http_settings *s);
// The slot is a struct http_rules.
field_reader http_rules_read;
// The row; it lives as long as x.
struct tool http_tool_row(struct http_tool *x);

struct sockaddr;
// Is it an address that is not on the public Internet? Also where one hides in another (IPv4 mapped
// or embedded in IPv6). RFC 6890 and its registries.
bool http_address_is_private(const struct sockaddr *a);
