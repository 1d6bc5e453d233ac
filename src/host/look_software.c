// Installed software that decides how a GPU works: firmware, Vulkan drivers, ROCm and CUDA libraries, tuned.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/process.h"
#include "host/look.h"

enum { PATH_BYTES = 320, MAX_NAMES = 512, STATUS_BYTES = 16 << 20, RPM_MS = 1000 };

// Debian's package database: the Version line of the stanza that starts with "Package: NAME".
static bool dpkg_version(const struct root *r, const char *package, char *out, size_t n)
{
    struct buf b = {0};
    char key[96];
    snprintf(key, sizeof key, "Package: %s\n", package);
    root_read(r, "var/lib/dpkg/status", &b, STATUS_BYTES);
    struct str text = buf_view(&b);
    size_t at = str_find(text, str_from(key), 0);
    size_t end = at == SIZE_MAX ? at : str_find(text, STR("\n\n"), at);
    size_t version = at == SIZE_MAX ? at : str_find(text, STR("\nVersion: "), at);
    const bool ok = version != SIZE_MAX && version < end;
    if (ok) {
        version += strlen("\nVersion: ");
        size_t line = str_find(text, STR("\n"), version);
        root_clean(str_sub(text, version, (line == SIZE_MAX ? text.n : line) - version), out, n);
    }
    buf_free(&b);
    return ok;
}

// Arch: one folder a package, named NAME-VERSION-RELEASE.
static bool pacman_version(const struct root *r, const char *package, char *out, size_t n)
{
    root_name names[8];
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s-2", package); // versions of linux-firmware are dates
    if (root_list(r, "var/lib/pacman/local", prefix, "", names, 8) == 0) return false;
    snprintf(out, n, "%s", names[0] + strlen(package) + 1);
    return true;
}

// rpm's database is not text: rpm itself is asked on this machine, the file submind/linux-firmware
// of a recorded one holds what it answered.
static bool rpm_version(const struct root *r, char *out, size_t n)
{
    static const char *const argv[] = {"rpm", "-q", "--qf", "%{VERSION}\n", "linux-firmware", NULL};
    static const char *const env[] = {"LC_ALL=C", NULL};
    if (root_line(r, "submind/linux-firmware", out, n)) return true;
    if (!r->live || !root_exists(r, "usr/bin/rpm")) return false;
    struct process_spec spec = {.argv = argv,
                                .env = env,
                                .path = "/usr/bin:/bin",
                                .timeout_ms = RPM_MS,
                                .keep_bytes = 4096};
    struct process_result result = {0};
    bool ok = process_run(&spec, &result, NULL) && result.end == PROCESS_EXITED && result.code == 0;
    if (ok) root_clean(str_trim(buf_view(&result.head)), out, n);
    process_result_free(&result);
    return ok;
}

static void look_firmware(struct host *h, const struct root *r)
{
    char *out = h->firmware;
    const size_t n = sizeof h->firmware;
    out[0] = '\0';
    if (dpkg_version(r, "linux-firmware", out, n)) return;
    if (dpkg_version(r, "firmware-amd-graphics", out, n)) return;
    if (pacman_version(r, "linux-firmware-amdgpu", out, n)) return;
    if (pacman_version(r, "linux-firmware", out, n)) return;
    rpm_version(r, out, n);
}

// The name of the first file that starts so, to n bytes of out where that is not NULL.
static bool library(const struct root *r, const char *prefix, char *out, size_t n)
{
    static const char *const dirs[] = {"usr/lib64",
                                       "usr/lib/x86_64-linux-gnu",
                                       "usr/lib/aarch64-linux-gnu",
                                       "usr/lib",
                                       "usr/local/lib",
                                       "opt/rocm/lib",
                                       "usr/local/cuda/lib64",
                                       "run/opengl-driver/lib"};
    root_name names[16];
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        const size_t found = root_list(r, dirs[i], prefix, "", names, 16);
        if (found == 0) continue;
        if (out != NULL) snprintf(out, n, "%s", names[found - 1]); // sorted: the longest version
        return true;
    }
    return false;
}

// Does a setting pick RADV: AMD's own variable, or the loader's list of driver files?
static bool picks_radv(struct str text)
{
    static const char *const lists[] = {"VK_DRIVER_FILES=", "VK_ICD_FILENAMES="};
    if (str_find(text, STR("AMD_VULKAN_ICD=RADV"), 0) != SIZE_MAX) return true;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        const size_t at = str_find(text, str_from(lists[i]), 0);
        if (at == SIZE_MAX) continue;
        struct str value = str_sub(text, at, text.n);
        for (size_t n = 0; n < value.n; n++)
            if (value.p[n] == '\n' || value.p[n] == '\0') value.n = n;
        if (str_find(value, STR("radeon_icd"), 0) != SIZE_MAX &&
            str_find(value, STR("amd_icd"), 0) == SIZE_MAX)
            return true;
    }
    return false;
}

static void look_vulkan(struct host *h, const struct root *r)
{
    static const char *const dirs[] = {"usr/share/vulkan/icd.d", "etc/vulkan/icd.d",
                                       "run/opengl-driver/share/vulkan/icd.d"};
    static const char *const settings[] = {"etc/environment", "proc/self/environ"};
    root_name names[64];
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        size_t n = root_list(r, dirs[i], "", ".json", names, 64);
        for (size_t k = 0; k < n; k++) {
            if (strncmp(names[k], "radeon_icd", 10) == 0) h->radv = true;
            if (strncmp(names[k], "amd_icd", 7) == 0) h->amdvlk = true;
        }
    }
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        struct buf b = {0};
        root_read(r, settings[i], &b, 128 << 10);
        h->radv_chosen = h->radv_chosen || picks_radv(buf_view(&b));
        buf_free(&b);
    }
}

static void look_tuned(struct host *h, const struct root *r)
{
    char path[PATH_BYTES];
    uint64_t pid;
    h->tuned_installed = root_exists(r, "usr/sbin/tuned") || root_exists(r, "usr/bin/tuned") ||
                         root_exists(r, "usr/sbin/tuned-adm");
    root_name links[2]; // listed, not followed: a recorded machine may lack what the link names
    h->tuned_enabled = root_list(r, "etc/systemd/system/multi-user.target.wants", "tuned.service",
                                 "", links, 2) > 0;
    root_line(r, "etc/tuned/active_profile", h->tuned_profile, sizeof h->tuned_profile);
    if (root_number(r, "run/tuned/tuned.pid", &pid)) {
        snprintf(path, sizeof path, "proc/%llu/comm", (unsigned long long)pid);
        h->tuned_running = root_exists(r, path);
    }
}

// llama-server's --no-mmap, since 0.5.0 --load-mode without mmap in it (its default, auto, maps where it can).
static bool maps_weights(const char *text)
{
    const char *mode = strstr(text, " -lm ");
    if (mode == NULL) mode = strstr(text, " --load-mode");
    if (mode != NULL) {
        mode += 1 + strcspn(mode + 1, " =");
        mode += strspn(mode, " =");
        return strncmp(mode, "none", 4) != 0 && strncmp(mode, "dio", 3) != 0 &&
               strncmp(mode, "mlock", 5) != 0;
    }
    return strstr(text, "--no-mmap") == NULL && strstr(text, "LLAMA_ARG_LOAD_MODE=none") == NULL;
}

// A llama-server unit, so that its command line can be judged: the first that names the program.
static void look_units(struct host *h, const struct root *r, const char *dir)
{
    root_name names[MAX_NAMES];
    char path[PATH_BYTES];
    size_t n = root_list(r, dir, "", ".service", names, MAX_NAMES);
    for (size_t i = 0; i < n && h->unit[0] == '\0'; i++) {
        struct buf b = {0};
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        if (root_read(r, path, &b, 64 << 10) &&
            str_find(buf_view(&b), STR("llama-server"), 0) != SIZE_MAX) {
            const char *text = buf_cstr(&b);
            const bool fa = strstr(text, " -fa ") != NULL || strstr(text, "--flash-attn") != NULL;
            snprintf(h->unit, sizeof h->unit, "%s", names[i]);
            snprintf(h->unit_missing, sizeof h->unit_missing, "%s%s", fa ? "" : "-fa 1 ",
                     maps_weights(text) ? "--no-mmap" : "");
        }
        buf_free(&b);
    }
}

// Our own service: its unit and, since a running service has a control group, whether it runs.
static void look_own(struct host *h, const struct root *r, const char *unit, const char *cgroup)
{
    uint64_t pid;
    char path[PATH_BYTES + 64];
    if (!root_exists(r, unit)) return;
    h->own_unit = true;
    snprintf(path, sizeof path, "sys/fs/cgroup/%s/submind.service/cgroup.procs", cgroup);
    if (root_number(r, path, &pid)) h->own_running = true;
}

void host_look_software(struct host *h, const struct root *r)
{
    char path[PATH_BYTES];
    look_firmware(h, r);
    look_vulkan(h, r);
    look_tuned(h, r);
    static const char hip[] = "libamdhip64.so";
    root_name file = "";
    h->lib_cuda = library(r, "libcuda.so", NULL, 0);
    h->lib_cublaslt = library(r, "libcublasLt.so", NULL, 0);
    h->lib_hip = library(r, hip, file, sizeof file);
    h->lib_hipblaslt = library(r, "libhipblaslt.so", NULL, 0);
    h->lib_vulkan = library(r, "libvulkan.so", NULL, 0);
    // AMD's own packages note the release; a distribution's name it in the file: libamdhip64.so.7.2.53211
    if (!root_line(r, "opt/rocm/.info/version", h->rocm, sizeof h->rocm) && h->lib_hip &&
        strlen(file) > sizeof hip)
        snprintf(h->rocm, sizeof h->rocm, "%.60s", file + sizeof hip);
    look_units(h, r, "etc/systemd/system");
    root_name users[32];
    size_t n = root_list(r, "home", "", "", users, 32);
    for (size_t i = 0; i < n && h->unit[0] == '\0'; i++) {
        snprintf(path, sizeof path, "home/%s/.config/systemd/user", users[i]);
        look_units(h, r, path);
    }
    look_own(h, r, "etc/systemd/system/submind.service", "system.slice");
}

void host_look_own_service(struct host *h, const struct root *r)
{
    char unit[PATH_BYTES * 2], cgroup[PATH_BYTES];
    if (h->home[0] != '/') return;
    snprintf(unit, sizeof unit, "%s/.config/systemd/user/submind.service", h->home + 1);
    snprintf(cgroup, sizeof cgroup, "user.slice/user-%u.slice/user@%u.service/app.slice", h->uid,
             h->uid);
    look_own(h, r, unit, cgroup);
}
