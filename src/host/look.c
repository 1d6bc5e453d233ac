// The system's part of looking: distribution, kernel, processor, memory, limits.
#include "host/look.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SMALL_FILE = 64 << 10, KIB = 1024 };

// The value behind "KEY=" at the start of a line of os-release, without its quotes.
static void os_field(struct str text, const char *key, char *out, size_t n)
{
    const size_t n_key = strlen(key);
    out[0] = '\0';
    for (size_t i = 0; i < text.n;) {
        size_t end = str_find(text, STR("\n"), i);
        struct str line = str_trim(str_sub(text, i, (end == SIZE_MAX ? text.n : end) - i));
        i = end == SIZE_MAX ? text.n : end + 1;
        if (!str_starts(line, str_from(key)) || line.n <= n_key || line.p[n_key] != '=') continue;
        struct str v = str_sub(line, n_key + 1, line.n);
        if (v.n >= 2 && (v.p[0] == '"' || v.p[0] == '\'')) v = str_sub(v, 1, v.n - 2);
        root_clean(v, out, n);
        return;
    }
}

static bool arch_uses_grub(const struct root *r)
{
    static const char info[] =
        "sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    struct buf b = {0};
    // the loader says its name there in UTF-16, behind four bytes of attributes; GRUB from 2.12 on does so too
    const bool told = root_read(r, info, &b, SMALL_FILE);
    const bool grub = str_find(buf_view(&b), (struct str){"G\0R\0U\0B", 7}, 0) != SIZE_MAX;
    buf_free(&b);
    return told ? grub
                : root_exists(r, "etc/default/grub") && !root_exists(r, "boot/loader/entries");
}

static enum distro distro_of(const struct root *r, const char *id, const char *like)
{
    char both[200];
    snprintf(both, sizeof both, " %s %s ", id, like);
    if (strstr(both, " nixos ") != NULL) return DISTRO_NIXOS;
    if (strstr(both, " fedora ") != NULL)
        return root_exists(r, "run/ostree-booted") ? DISTRO_ATOMIC : DISTRO_FEDORA;
    if (strstr(both, " ubuntu ") != NULL) return DISTRO_UBUNTU;
    if (strstr(both, " debian ") != NULL) return DISTRO_DEBIAN;
    if (strstr(both, " arch ") != NULL)
        return arch_uses_grub(r) ? DISTRO_ARCH_GRUB : DISTRO_ARCH_SYSTEMD_BOOT;
    return DISTRO_OTHER;
}

static void look_system(struct host *h, const struct root *r)
{
    struct buf b = {0};
    char id[64], like[96], line[64];
    // inside a toolbox the machine's own system, which boots, stands in /run/host
    if (!root_read(r, "run/host/etc/os-release", &b, SMALL_FILE) &&
        !root_read(r, "etc/os-release", &b, SMALL_FILE))
        root_read(r, "usr/lib/os-release", &b, SMALL_FILE);
    os_field(buf_view(&b), "PRETTY_NAME", h->os_name, sizeof h->os_name);
    os_field(buf_view(&b), "ID", id, sizeof id);
    os_field(buf_view(&b), "ID_LIKE", like, sizeof like);
    h->distro = distro_of(r, id, like);
    buf_free(&b);
    if (root_exists(r, "run/.toolboxenv"))
        snprintf(h->container, sizeof h->container, "toolbox");
    else if (root_exists(r, "run/.containerenv"))
        snprintf(h->container, sizeof h->container, "podman");
    else if (root_exists(r, ".dockerenv"))
        snprintf(h->container, sizeof h->container, "docker");
    else if (root_line(r, "run/systemd/container", line, sizeof line))
        snprintf(h->container, sizeof h->container, "%.31s", line);
}

static void look_kernel(struct host *h, const struct root *r)
{
    unsigned *v = h->kernel_version;
    unsigned build = 0;
    root_line(r, "proc/sys/kernel/osrelease", h->kernel, sizeof h->kernel);
    const int n = sscanf(h->kernel, "%u.%u.%u-%u", &v[0], &v[1], &v[2], &build);
    h->kernel_seen = n >= 2;
    h->kernel_oem = n == 4 && strstr(h->kernel, "-oem") != NULL ? build : 0;
    h->cmdline_seen = root_line(r, "proc/cmdline", h->cmdline, sizeof h->cmdline);
}

// The value of "Name : value" where a line starts so; from /proc/cpuinfo, /proc/meminfo, /proc/self/limits.
static bool field(struct str text, const char *name, char *out, size_t n)
{
    char key[64];
    snprintf(key, sizeof key, "\n%s", name);
    size_t at = str_find(text, str_from(key), 0);
    size_t from = at + strlen(key);
    if (at == SIZE_MAX && str_starts(text, str_from(name))) {
        at = 0;
        from = strlen(name);
    }
    if (at == SIZE_MAX) return false;
    size_t end = str_find(text, STR("\n"), from);
    struct str v = str_trim(str_sub(text, from, (end == SIZE_MAX ? text.n : end) - from));
    if (v.n > 0 && v.p[0] == ':') v = str_trim(str_sub(v, 1, v.n));
    root_clean(v, out, n);
    return v.n > 0;
}

static bool has_flag(const char *flags, const char *name)
{
    const size_t n = strlen(name);
    for (const char *p = strstr(flags, name); p != NULL; p = strstr(p + 1, name))
        if (p[-1] == ' ' && (p[n] == ' ' || p[n] == '\0')) return true;
    return false;
}

static void look_isa(struct host *h, struct str cpuinfo)
{
    static const struct {
        const char *flag, *name;
    } sets[] = {
#define ISA(flag, name) {flag, name},
#include "host/facts.def"
    };
    char flags[8192] = " ";
    if (!field(cpuinfo, "flags", flags + 1, sizeof flags - 1) &&
        !field(cpuinfo, "Features", flags + 1, sizeof flags - 1)) // as ARM's kernels call them
        flags[1] = '\0';
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        const size_t n = strlen(h->isa);
        if (has_flag(flags, sets[i].flag))
            snprintf(h->isa + n, sizeof h->isa - n, "%s%s", n > 0 ? ", " : "", sets[i].name);
    }
    h->fast_isa = (has_flag(flags, "avx2") && has_flag(flags, "fma") && has_flag(flags, "f16c")) ||
                  has_flag(flags, "asimddp");
}

// ARM's kernels give numbers for a name.
static bool arm_name(struct str cpuinfo, char *out, size_t n)
{
    char maker[32], part[32];
    if (!field(cpuinfo, "CPU implementer", maker, sizeof maker) ||
        !field(cpuinfo, "CPU part", part, sizeof part))
        return false;
    snprintf(out, n, "aarch64, implementer %s part %s", maker, part);
    return true;
}

static void look_cpu(struct host *h, const struct root *r)
{
    struct buf b = {0};
    root_read(r, "proc/cpuinfo", &b, 1 << 20);
    struct str text = buf_view(&b);
    h->cpu_seen = field(text, "model name", h->cpu_name, sizeof h->cpu_name) ||
                  arm_name(text, h->cpu_name, sizeof h->cpu_name);
    look_isa(h, text);
    for (size_t at = str_find(text, STR("processor\t"), 0); at != SIZE_MAX;
         at = str_find(text, STR("processor\t"), at + 1))
        h->n_cpus++;
    h->strix_halo = strcasestr(h->cpu_name, "ryzen ai max") != NULL;
    buf_free(&b);
    root_line(r, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", h->governor,
              sizeof h->governor);
    root_line(r, "sys/firmware/acpi/platform_profile", h->platform_profile,
              sizeof h->platform_profile);
}

static uint64_t kib_field(struct str text, const char *name)
{
    char value[64];
    if (!field(text, name, value, sizeof value)) return 0;
    const uint64_t kib = strtoull(value, NULL, 10);
    return kib < UINT64_MAX / KIB ? kib * KIB : 0;
}

static uint64_t limit_value(const char *text)
{
    return strncmp(text, "unlimited", 9) == 0 ? UINT64_MAX : strtoull(text, NULL, 10);
}

static void look_memory(struct host *h, const struct root *r)
{
    struct buf b = {0};
    char value[128];
    root_read(r, "proc/meminfo", &b, SMALL_FILE);
    h->memory_bytes = kib_field(buf_view(&b), "MemTotal:");
    h->swap_bytes = kib_field(buf_view(&b), "SwapTotal:");
    h->swap_free_bytes = kib_field(buf_view(&b), "SwapFree:");
    buf_clear(&b);
    root_read(r, "proc/self/limits", &b, SMALL_FILE);
    if (field(buf_view(&b), "Max open files", value, sizeof value)) {
        char soft[32] = "", hard[32] = "";
        h->limits_seen = sscanf(value, "%31s %31s", soft, hard) == 2;
        h->files_soft = limit_value(soft);
        h->files_hard = limit_value(hard);
    }
    if (field(buf_view(&b), "Max locked memory", value, sizeof value))
        h->memlock_bytes = limit_value(value);
    else
        h->limits_seen = false;
    buf_free(&b);
    root_line(r, "sys/kernel/mm/transparent_hugepage/enabled", h->huge_pages, sizeof h->huge_pages);
}

const char *host_parameter(const struct host *h, const char *name)
{
    const size_t n = strlen(name);
    const char *found = NULL;
    for (const char *p = h->cmdline; *p != '\0';) {
        const size_t word = strcspn(p, " ");
        if (word >= n && strncmp(p, name, n) == 0) {
            if (word == n) found = "";
            if (p[n] == '=') found = p + n + 1;
        }
        p += word;
        p += strspn(p, " ");
    }
    return found;
}

bool host_kernel_from(const struct host *h, unsigned major, unsigned minor, unsigned patch)
{
    const unsigned *v = h->kernel_version;
    if (v[0] != major) return v[0] > major;
    if (v[1] != minor) return v[1] > minor;
    return v[2] >= patch;
}

void host_look(struct host *h, const struct root *r, const struct look_wish *wish)
{
    *h = (struct host){.port = wish->port};
    look_system(h, r);
    look_kernel(h, r);
    look_cpu(h, r);
    look_memory(h, r);
    host_look_gpu(h, r);
    host_look_software(h, r);
    host_look_user(h, r, wish);
    host_look_own_service(h, r);
    host_look_containers(h, r, wish);
}
