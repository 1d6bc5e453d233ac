// The two systemd units of a service: a socket that keeps the port whatever happens to the server, and the
// server, which takes over that socket. Texts only; nothing is written here.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "host/cmdline.h"
#include "host/unit_file.h"

enum { SERVICE_DEVICE_WORDS = 6 };
enum { SERVICE_DRAIN_S = 120 }; // running answers may finish for so long when a server stops

struct service_spec {
    const char *socket;          // whose socket it takes; NULL: its own, NAME.socket
    const char *name;            // "submind"
    bool system;                 // a unit of the system, not of a user's manager
    bool name_spaces;            // a user's manager may make them here (systemd_name_spaces)
    const char *user;            // system: whose service it is; NULL: a user made for it
    const char *groups;          // system: further groups that own the GPU's nodes; NULL: none
    const char *binary;          // this program
    const char *podman;          // its path; NULL: /usr/bin/podman
    const char *image;           // container image that the server runs in (podman); NULL: none
    const struct cmdline *flags; // of `submind serve`
};

// Where the flags say that the server listens: "127.0.0.1:8080", "[::1]:80" or a socket's path.
void service_listen_stream(const struct cmdline *flags, struct buf *out);
bool service_is_loopback(const struct cmdline *flags);
// podman's words that let a container use this machine's GPUs; returns how many.
size_t service_container_devices(const char *words[SERVICE_DEVICE_WORDS]);
// ERR_INPUT when a text would not be a unit (a line break in a path).
bool service_unit_text(const struct service_spec *s, struct buf *out, struct err *e);
bool service_socket_text(const struct service_spec *s, struct buf *out, struct err *e);
// The other way round: the flags of a unit that service_unit_text wrote, and its container image in
// `image` (empty: none). ERR_FORMAT when it does not run `submind serve`.
bool service_unit_flags(const struct unit_file *u, const char *home, struct cmdline *flags,
                        struct str *image, struct err *e);
