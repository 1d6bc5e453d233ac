// The unit is the only record of how a service runs: switching reads its flags back from ExecStart.
// Sandboxing leaves the GPU working: the file system is read-only, no capability is left. A system unit has a
// list of devices and addresses besides. A user's manager needs a user name space for any of it; where the
// machine forbids that (Ubuntu 24.04 does), its unit has the system call filters only.
#include "host/service_unit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/models.h"

// Compiled-in texts with their reasons, so that the unit explains itself.
static const char common_unit[] =
    "Type=notify\n"
    "# Restarted whenever it fails; never given up, so that the socket is never closed.\n"
    "Restart=on-failure\n"
    "RestartSec=2\n"
    "# While a large model loads the server asks for more time by itself.\n"
    "TimeoutStartSec=120\n"
    "# An engine that stands still with requests running is restarted.\n"
    "WatchdogSec=600\n"
    "LimitNOFILE=65536\n"
    "LimitMEMLOCK=infinity\n";

static const char filters[] = "NoNewPrivileges=yes\n"
                              "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n"
                              "RestrictNamespaces=yes\n"
                              "RestrictRealtime=yes\n"
                              "RestrictSUIDSGID=yes\n"
                              "LockPersonality=yes\n"
                              "UMask=0077\n"
                              "SystemCallArchitectures=native\n"
                              "SystemCallFilter=@system-service\n"
                              "SystemCallFilter=~@privileged\n";

// What needs name spaces of its own.
static const char name_spaces[] = "ProtectSystem=strict\n"
                                  "ProtectHome=read-only\n"
                                  "PrivateTmp=yes\n"
                                  "ProtectKernelTunables=yes\n"
                                  "ProtectKernelModules=yes\n"
                                  "ProtectKernelLogs=yes\n"
                                  "ProtectControlGroups=yes\n"
                                  "ProtectClock=yes\n"
                                  "ProtectHostname=yes\n"
                                  "ProtectProc=invisible\n"
                                  "RemoveIPC=yes\n"
                                  "CapabilityBoundingSet=\n"
                                  "CacheDirectory=submind\n"
                                  "CacheDirectoryMode=0700\n";

static const char system_sandbox[] = "AmbientCapabilities=\n"
                                     "Environment=XDG_CACHE_HOME=%C/submind\n"
                                     "# The GPU and nothing else: AMD's kfd and dri, NVIDIA's "
                                     "nodes. Those that do not exist are no error.\n"
                                     "DevicePolicy=closed\n"
                                     "DeviceAllow=char-drm rw\n"
                                     "DeviceAllow=char-kfd rw\n"
                                     "DeviceAllow=char-nvidia-frontend rw\n"
                                     "DeviceAllow=char-nvidia rw\n"
                                     "DeviceAllow=char-nvidiactl rw\n"
                                     "DeviceAllow=char-nvidia-uvm rw\n"
                                     "DeviceAllow=char-nvidia-caps rw\n";

static const char *or_default(const char *text, const char *otherwise)
{
    return text != NULL ? text : otherwise;
}

void service_listen_stream(const struct cmdline *flags, struct buf *out)
{
    const char *path = cmdline_flag(flags, "unix-socket");
    const char *host = or_default(cmdline_flag(flags, "host"), "127.0.0.1");
    const char *port = or_default(cmdline_flag(flags, "port"), "8080");
    if (strcmp(host, "localhost") == 0) host = "127.0.0.1"; // systemd wants numbers
    if (path != NULL)
        buf_z(out, path);
    else
        buf_printf(out, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

bool service_is_loopback(const struct cmdline *flags)
{
    const char *host = cmdline_flag(flags, "host");
    return host == NULL || strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 ||
           strcmp(host, "::1") == 0 || cmdline_flag(flags, "unix-socket") != NULL;
}

// ---- writing ------------------------------------------------------------------------------------

static bool plain(const char *text)
{
    return text == NULL || (*text != '\0' && strpbrk(text, " \t\r\n\"'\\%$") == NULL);
}

static bool check(const struct service_spec *s, struct err *e)
{
    const char *const bad[] = {s->name, s->socket, s->user, s->image};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (!plain(bad[i]))
            return err_set(e, ERR_INPUT,
                           "\"%.100s\" cannot stand in a unit; use letters and digits", bad[i]);
    return true;
}

size_t service_container_devices(const char *words[SERVICE_DEVICE_WORDS])
{
    static const struct {
        const char *node, *device;
    } all[] = {{"/dev/dri", "/dev/dri"},
               {"/dev/kfd", "/dev/kfd"},
               {"/dev/nvidiactl", "nvidia.com/gpu=all"}}; // CDI: the container toolkit's name
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (access(all[i].node, F_OK) != 0) continue;
        words[n++] = "--device";
        words[n++] = all[i].device;
    }
    return n;
}

static void put_volume(const char *from, const char *to, const char *mode, struct buf *out)
{
    struct buf volume = {0};
    if (from == NULL || strcmp(from, "off") == 0) return;
    buf_printf(&volume, "%s:%s%s", from, to, mode);
    buf_z(out, " \\\n    --volume ");
    unit_quote(out, buf_cstr(&volume));
    buf_free(&volume);
}

// What is cached outlives the container: in a volume of podman's where no folder is named.
static void put_container(const struct service_spec *s, struct buf *out)
{
    static const char *const read_only[] = {"api-key-file", "chat-template-file", "workspace"};
    const char *model = cmdline_flag(s->flags, "model");
    struct buf folder = {0};
    const char *devices[SERVICE_DEVICE_WORDS], *cache = cmdline_flag(s->flags, "cache-dir");
    const size_t n_devices = service_container_devices(devices);
    buf_printf(
        out,
        "ExecStart=%s run --rm --replace --name %s --sdnotify=container "
        "--cgroups=split --network=host --group-add keep-groups "
        "--security-opt label=disable", // SELinux: the user's files and the GPU, as toolbx does
        or_default(s->podman, "/usr/bin/podman"), s->name);
    for (size_t i = 0; i < n_devices; i++)
        buf_printf(out, "%s%s", i % 2 == 0 ? " \\\n    " : " ", devices[i]);
    if (model != NULL) model_volume(model, &folder);
    if (folder.n > 0) put_volume(buf_cstr(&folder), buf_cstr(&folder), ":ro", out);
    buf_free(&folder);
    for (size_t i = 0; i < sizeof read_only / sizeof read_only[0]; i++) {
        const char *path = cmdline_flag(s->flags, read_only[i]);
        put_volume(path, path, ":ro", out);
    }
    if (cache == NULL)
        put_volume("submind-cache", "/root/.cache", "", out); // the folder in it is made private
    else
        put_volume(cache, cache, "", out);
    buf_printf(out, " \\\n    %s submind serve", s->image);
}

static void put_command(const struct service_spec *s, struct buf *out)
{
    if (s->image != NULL) {
        put_container(s, out);
    } else {
        buf_z(out, "ExecStart=");
        unit_quote(out, s->binary);
        buf_z(out, " serve");
    }
    for (size_t i = 0; i < s->flags->n; i++) {
        buf_z(out, strncmp(s->flags->v[i], "--", 2) == 0 ? " \\\n    " : " ");
        unit_quote(out, s->flags->v[i]);
    }
    buf_c(out, '\n');
}

static unsigned drain_of(const struct cmdline *flags)
{
    const char *text = cmdline_flag(flags, "drain");
    unsigned long v = text == NULL ? 0 : strtoul(text, NULL, 10);
    return v > 86400 ? 86400 : (unsigned)v;
}

// Where the service writes besides its own cache folder.
static void put_writable(const struct cmdline *flags, struct buf *out)
{
    const char *dir = cmdline_flag(flags, "cache-dir");
    if (dir == NULL || strcmp(dir, "off") == 0) return;
    buf_z(out, "ReadWritePaths=");
    unit_quote(out, dir);
    buf_c(out, '\n');
}

static void put_sandbox(const struct service_spec *s, struct buf *out)
{
    if (s->image != NULL) { // the container is the sandbox
        buf_z(out, "NotifyAccess=all\nDelegate=yes\nKillMode=mixed\n");
        return;
    }
    buf_z(out, "\n# Sandbox\n");
    buf_z(out, filters);
    if (s->system || s->name_spaces) {
        buf_z(out, name_spaces);
        put_writable(s->flags, out);
    }
    if (!s->system) {
        buf_z(out, s->name_spaces
                       ? "PrivateUsers=yes\n"
                       : "# This machine lets no user make name spaces: no more than that.\n");
        return;
    }
    buf_z(out, system_sandbox);
    if (s->user == NULL)
        buf_z(out, "DynamicUser=yes\n");
    else
        buf_printf(out, "User=%s\n", s->user);
    if (s->groups != NULL) buf_printf(out, "SupplementaryGroups=%s\n", s->groups);
    if (service_is_loopback(s->flags)) buf_z(out, "IPAddressDeny=any\nIPAddressAllow=localhost\n");
}

bool service_unit_text(const struct service_spec *s, struct buf *out, struct err *e)
{
    if (!check(s, e)) return false;
    buf_z(out,
          "# Written by submind service. Change it with `submind service switch`, or by hand and\n"
          "# systemctl daemon-reload; `submind service rollback` brings the one before back.\n"
          "[Unit]\n"
          "Description=Submind: a local brain for background agents\n");
    const char *socket = s->socket != NULL ? s->socket : s->name;
    buf_printf(out, "Requires=%s.socket\nAfter=%s.socket\n", socket, socket);
    buf_z(out, "StartLimitIntervalSec=0\n\n[Service]\n");
    if (s->socket != NULL) buf_printf(out, "Sockets=%s.socket\n", s->socket);
    put_command(s, out);
    buf_z(out, common_unit);
    buf_printf(out, "# Running answers may finish before it stops.\nTimeoutStopSec=%u\n",
               drain_of(s->flags) + 20);
    put_sandbox(s, out);
    buf_printf(out, "\n[Install]\nWantedBy=%s\n",
               s->system ? "multi-user.target" : "default.target");
    return !out->failed || err_set(e, ERR_MEMORY, "no memory for the unit");
}

bool service_socket_text(const struct service_spec *s, struct buf *out, struct err *e)
{
    if (!check(s, e)) return false;
    buf_z(
        out,
        "# Written by submind service. Holds the port while servers come and go: no connection is\n"
        "# refused, those that come in between wait.\n"
        "[Unit]\nDescription=Submind's port\n\n[Socket]\nListenStream=");
    service_listen_stream(s->flags, out);
    buf_z(out, "\nAccept=no\nBacklog=4096\nNoDelay=yes\n");
    if (cmdline_flag(s->flags, "unix-socket") != NULL) buf_z(out, "SocketMode=0600\n");
    buf_z(out, "\n[Install]\nWantedBy=sockets.target\n");
    return !out->failed || err_set(e, ERR_MEMORY, "no memory for the unit");
}

// ---- reading back -------------------------------------------------------------------------------

bool service_unit_flags(const struct unit_file *u, const char *home, struct cmdline *flags,
                        struct str *image, struct err *e)
{
    struct cmdline all = {.arena = flags->arena};
    struct unit_env env = {.arena = flags->arena};
    struct unit_scope scope = {.env = &env};
    size_t at = 0;
    unit_scope_names(&scope, NULL, false, home, "/run", flags->arena);
    if (!unit_command(unit_value(u, "Service", "ExecStart"), &scope, &all, e)) return false;
    while (at < all.n && strcmp(all.v[at], "serve") != 0) at++;
    if (at == 0 || at == all.n)
        return err_set(e, ERR_FORMAT, "the unit's ExecStart does not run `submind serve`");
    for (size_t i = at + 1; i < all.n; i++) cmdline_z(flags, all.v[i]);
    const bool contained = at >= 3 && strcmp(all.v[1], "run") == 0;
    *image = str_from(contained ? all.v[at - 2] : NULL);
    return !flags->failed || err_set(e, ERR_MEMORY, "no memory for the flags");
}
