// What the actions of `submind service` share: the settings, the unit as it is, and how a unit is put in
// force. Inside cmd/ only.
#pragma once

#include <stdatomic.h>

#include "base/arena.h"
#include "cmd/options.h"
#include "host/service_files.h"
#include "host/service_unit.h"
#include "host/systemd.h"

enum { SERVICE_START_WAIT_S = 600 }; // for a large model on a slow disk

struct service {
    struct settings s;
    struct arena arena;
    bool system;
    const char *name, *home, *runtime;
    const char *run_as; // User= of the unit that is replaced; NULL: who owns the model
    struct systemd manager;
    struct service_files files;
    struct buf binary; // this program's path
};

extern atomic_int service_cancelled; // set by SIGINT and SIGTERM

bool service_open(struct service *sv, struct err *e);
void service_close(struct service *sv);

// The flags of the installed unit. ERR_NOT_FOUND when nothing is installed.
bool service_load(struct service *sv, struct cmdline *flags, struct str *image, struct err *e);
// The flags that were given on the command line, files by absolute path.
bool service_given_flags(struct service *sv, struct cmdline *flags, struct err *e);
// The unit of a second server on the same socket, for the time of a switch.
bool service_bridge_text(struct service *sv, const struct cmdline *flags, const char *image,
                         const char *name, struct buf *unit, struct err *e);
// Unit and socket for these flags, as text.
bool service_texts(struct service *sv, const struct cmdline *flags, const char *image,
                   struct buf *unit, struct buf *socket, struct err *e);
// Writes the unit, restarts the service and waits until it answers with a completion.
bool service_apply(struct service *sv, struct str unit, const struct cmdline *flags, struct err *e);
bool service_write_units(struct service *sv, struct str unit, struct str socket, struct err *e);
void service_remove_units(struct service *sv);
// What is installed, to go back to when something new fails: then it is put back as it was, running or only
// written, or, where nothing was, everything is removed.
struct service_before {
    struct buf unit, socket;
    bool existed, ran;
};
void service_before_read(struct service *sv, struct service_before *b);
void service_put_back(struct service *sv, struct service_before *b);
void service_before_free(struct service_before *b);
// The end of the server's log, for an error's message: appended on new lines to out.
void service_log_tail(struct service *sv, struct buf *out);

// ---- asking the server (service_probe.c) ---------------------------------------------------------

// Its address and first key, as the flags say; both in the arena, the key NULL when none is wanted.
bool service_url(struct service *sv, const struct cmdline *flags, const char **url,
                 const char **key, struct err *e);
// Can host:port be listened on now? NULL: 127.0.0.1, 8080.
bool service_port_is_free(const char *host, const char *port);
// Waits until it is healthy, then asks for a real completion.
bool service_probe(const char *url, const char *key, uint32_t wait_s, struct err *e);
// One look: healthy, and requests that failed since its start (SIZE_MAX: not told).
bool service_glance(const char *url, const char *key, size_t *n_failed, struct err *e);
// A completion of a few tokens with this body; false when what came is no answer.
bool service_complete(const char *url, const char *key, struct str body, struct err *e);

// ---- actions that have a file of their own --------------------------------------------------------

// Measures a running server and ours with these flags on the same prompts, shows the table. *wins: ours takes
// less time for the mix; what was measured, as JSON members, is appended to measured.
bool service_compare(struct service *sv, const char *old, const char *url, const char *key,
                     const struct cmdline *ours, bool *wins, struct buf *measured, struct err *e);
// Looks at a server that has just taken over, for --watch seconds; false with what is wrong with it.
bool service_watch(struct service *sv, const struct cmdline *flags, struct err *e);
// The unit that this service has taken the place of (arena), or NULL; *kept: the newest kept setup at that time.
const char *service_adopted(struct service *sv, uint32_t *kept);
void service_forget_adopted(struct service *sv);
bool service_give_back(struct service *sv, const char *old, struct err *e);
bool service_adopt(struct service *sv, const char *unit, struct err *e);
bool service_switch(struct service *sv, struct err *e);
bool service_rollback(struct service *sv, struct err *e);
bool service_gateway(struct service *sv, const char *which, struct err *e);
