// submind llama-server: takes llama-server's own flags, so that replacing the program's path in a unit or
// a script is enough. What means something else here is said on standard error before it starts.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "host/llama_flags.h"

static const char *environment(void *arg, const char *name)
{
    (void)arg;
    return options_env(name);
}

// Keys go to serve in an anonymous file: they stand in no argument list.
static bool put_key(struct llama_plan *p, char path[32], struct err *e)
{
    if (p->api_key.n == 0) return true;
    int fd = memfd_create("api-keys", 0);
    if (fd < 0 || write(fd, p->api_key.p, p->api_key.n) != (ssize_t)p->api_key.n)
        return err_errno(e, ERR_IO, "cannot hand the API key on; use --api-key-file");
    snprintf(path, 32, "/proc/self/fd/%d", fd); // open until the process ends
    cmdline_set(&p->words, "api-key-file", path);
    return true;
}

static void tell(const struct llama_plan *p)
{
    for (size_t i = 0; i < p->n_notes; i++) {
        const struct llama_line *l = &p->notes[i];
        if (l->kind != NOTE_KEPT)
            log_line(l->kind == NOTE_LOST ? LOG_WARN : LOG_INFO, "llama-server", "%s: %s", l->flag,
                     l->text);
    }
}

int cmd_llama_server(int argc, char **argv)
{
    struct err e = {0};
    struct arena a = {0};
    struct llama_plan p;
    char path[32];
    if (argc == 2 && (argv[1][0] == '-') &&
        (argv[1][1] == 'h' || strstr(argv[1], "help") != NULL)) {
        printf("usage: submind llama-server [llama-server's flags]\n\n"
               "Serves like submind serve, with the flags of llama.cpp's server. What has no\n"
               "equivalent is said at the start.\n");
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("submind %s\n", SUBMIND_VERSION);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--list-devices") == 0) {
        char inspect[] = "inspect", devices[] = "devices";
        return cmd_inspect(2, (char *[]){inspect, devices, NULL});
    }
    bool ok = llama_translate(&p, (const char *const *)argv + 1, (size_t)argc - 1, environment,
                              NULL, &a, &e) &&
              put_key(&p, path, &e);
    struct cmdline serve = {.arena = &a};
    cmdline_z(&serve, "serve");
    for (size_t i = 0; ok && i < p.words.n; i++) cmdline_z(&serve, p.words.v[i]);
    if (ok && serve.failed) ok = err_set(&e, ERR_MEMORY, "no memory for the flags");
    int code;
    if (ok) {
        tell(&p);
        code = cmd_serve((int)serve.n, (char **)(uintptr_t)serve.v);
    } else {
        code = cmd_fail("llama-server", &e);
    }
    arena_free(&a);
    return code;
}
