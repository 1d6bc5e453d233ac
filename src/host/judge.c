// Judges what has nothing to do with the GPU: processor, memory, limits, tuned, the gateway. Every
// function compares struct host with the numbers of facts.def and picks a remedy by name.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/doctor.h"

static double gib(uint64_t bytes)
{
    return (double)bytes / (1 << 30);
}

static void judge_cpu(struct doctor *d)
{
    const struct host *h = &d->host;
    if (!h->cpu_seen)
        finding_set(d, CHECK_cpu, FINDING_ATTENTION, NULL, "/proc/cpuinfo names no processor");
    else
        finding_set(d, CHECK_cpu, h->fast_isa ? FINDING_OK : FINDING_ATTENTION,
                    h->fast_isa ? NULL : "cpu", "%s, %" PRIu32 " threads, %s", h->cpu_name,
                    h->n_cpus, h->isa[0] != '\0' ? h->isa : "no AVX2");
}

static void judge_memory(struct doctor *d)
{
    const struct host *h = &d->host;
    const double have = gib(h->memory_bytes);
    enum finding_status status = FINDING_OK;
    if (have < FACT_MEMORY_OK_GIB) status = FINDING_ATTENTION;
    if (have < FACT_MEMORY_MIN_GIB) status = FINDING_PROBLEM;
    if (h->memory_bytes == 0)
        finding_set(d, CHECK_memory, FINDING_ATTENTION, NULL, "/proc/meminfo could not be read");
    else
        finding_set(d, CHECK_memory, status, status == FINDING_OK ? NULL : "memory", "%.1f GiB",
                    have);
    if (h->huge_pages[0] != '\0') {
        const bool never = strstr(h->huge_pages, "[never]") != NULL;
        finding_set(d, CHECK_huge_pages, never ? FINDING_ATTENTION : FINDING_OK,
                    never ? "huge_pages" : NULL, "%s", h->huge_pages);
    }
    if (h->memory_bytes == 0) return;
    const uint64_t used =
        h->swap_bytes > h->swap_free_bytes ? h->swap_bytes - h->swap_free_bytes : 0;
    const bool well = h->swap_bytes > 0 && used < h->swap_bytes / 2;
    const char *remedy = h->swap_bytes == 0 ? "swap" : "swap_full";
    finding_set(d, CHECK_swap, well ? FINDING_OK : FINDING_ATTENTION, well ? NULL : remedy,
                "%.1f GiB, %.1f used", gib(h->swap_bytes), gib(used));
}

static void judge_limits(struct doctor *d)
{
    const struct host *h = &d->host;
    if (!h->limits_seen) return;
    const bool files = h->files_hard >= FACT_FILES_OK;
    const bool locked = h->memlock_bytes >= (uint64_t)FACT_MEMLOCK_OK_MIB << 20;
    char memlock[48] = "unlimited";
    if (h->memlock_bytes != UINT64_MAX)
        snprintf(memlock, sizeof memlock, "%" PRIu64 " KiB", h->memlock_bytes >> 10);
    finding_set(d, CHECK_limits, files && locked ? FINDING_OK : FINDING_ATTENTION,
                files && locked ? NULL : "limits",
                "%" PRIu64 " files (hard limit), %s locked memory", h->files_hard, memlock);
}

// "models 140 MB/s", or what they lie on where there is no file to time; true when that is slow.
static bool put_disk(const char *what, uint64_t mb_s, enum disk_kind kind, char *out, size_t n)
{
    static const char *const kinds[] = {"", "solid state", "a rotating disk", "a network"};
    const size_t used = strlen(out);
    const char *separator = used > 0 ? ", " : "";
    if (mb_s != 0)
        snprintf(out + used, n - used, "%s%s %" PRIu64 " MB/s", separator, what, mb_s);
    else if (kind != DISK_UNKNOWN)
        snprintf(out + used, n - used, "%s%s on %s", separator, what, kinds[kind]);
    return mb_s != 0 ? mb_s < FACT_DISK_READ_MB_S : kind == DISK_ROTATING || kind == DISK_NETWORK;
}

static void judge_disk_speed(struct doctor *d)
{
    const struct host *h = &d->host;
    char seen[128] = "";
    bool slow = put_disk("models", h->model_mb_s, h->model_disk, seen, sizeof seen);
    slow = put_disk("cached pages", h->cache_mb_s, h->cache_disk, seen, sizeof seen) || slow;
    if (seen[0] != '\0')
        finding_set(d, CHECK_disk_speed, slow ? FINDING_ATTENTION : FINDING_OK,
                    slow ? "disk_speed" : NULL, "%s", seen);
}

static void judge_port(struct doctor *d)
{
    const struct listener *l = &d->host.listener;
    if (!l->there)
        finding_set(d, CHECK_port, FINDING_OK, NULL, "free");
    else if (l->pid == 0)
        finding_set(d, CHECK_port, FINDING_ATTENTION, "port",
                    "somebody listens: a process of user %" PRIu32 " that this one may not look at",
                    l->uid);
    else
        finding_set(d, CHECK_port, FINDING_ATTENTION,
                    l->unit[0] != '\0' ? "port_unit" : "port_process",
                    "%s listens (process %" PRIu32 "%s%s)", l->program, l->pid,
                    l->unit[0] != '\0' ? " of " : "", l->unit);
}

static void judge_places(struct doctor *d)
{
    const struct host *h = &d->host;
    if (h->disk_seen) {
        const double have = gib(h->disk_free_bytes);
        enum finding_status status = have < FACT_DISK_OK_GIB ? FINDING_ATTENTION : FINDING_OK;
        if (have < FACT_DISK_MIN_GIB) status = FINDING_PROBLEM;
        finding_set(d, CHECK_disk, status, status == FINDING_OK ? NULL : "disk", "%.1f GiB free",
                    have);
    }
    judge_port(d);
}

static void judge_tuned(struct doctor *d)
{
    static const char best[] = "accelerator-performance";
    const struct host *h = &d->host;
    if (!h->strix_halo || h->container[0] != '\0') return; // a container cannot see the daemon
    if (!h->tuned_installed) {
        finding_set(d, CHECK_tuned, FINDING_ATTENTION, "tuned", "not installed");
        return;
    }
    const bool well = h->tuned_running && h->tuned_enabled;
    finding_set(d, CHECK_tuned, well ? FINDING_OK : FINDING_ATTENTION, well ? NULL : "tuned_start",
                "%s, %s at boot", h->tuned_running ? "running" : "not running",
                h->tuned_enabled ? "starts" : "does not start");
    const bool right = strcmp(h->tuned_profile, best) == 0;
    finding_set(d, CHECK_tuned_profile, right ? FINDING_OK : FINDING_ATTENTION,
                right ? NULL : "tuned_profile", "%s",
                h->tuned_profile[0] != '\0' ? h->tuned_profile : "none");
}

static void judge_power(struct doctor *d)
{
    const struct host *h = &d->host;
    if (!h->strix_halo) return;
    if (h->governor[0] != '\0') {
        const bool right = strcmp(h->governor, "performance") == 0;
        finding_set(d, CHECK_governor, right ? FINDING_OK : FINDING_ATTENTION,
                    right ? NULL : "tuned_profile", "%s", h->governor);
    }
    if (h->platform_profile[0] != '\0') {
        const bool right = strcmp(h->platform_profile, "performance") == 0;
        finding_set(d, CHECK_power, right ? FINDING_OK : FINDING_ATTENTION, right ? NULL : "power",
                    "%s", h->platform_profile);
    }
}

static void judge_gateway(struct doctor *d)
{
    const struct gateway *g = &d->host.gateway;
    if (!g->found) return;
    if (!g->readable || !g->has_provider) {
        finding_set(d, CHECK_gateway, g->readable ? FINDING_ATTENTION : FINDING_PROBLEM, "gateway",
                    "%s%s", g->readable ? "no provider with a baseUrl" : "could not be read: ",
                    g->readable ? "" : g->why);
        return;
    }
    finding_set(d, CHECK_gateway, FINDING_OK, NULL, "read");
    const bool url = gateway_url_fits(g->base_url, d->host.port);
    finding_set(d, CHECK_gateway_url, url ? FINDING_OK : FINDING_ATTENTION, url ? NULL : "gateway",
                "%s", g->base_url);
    finding_set(d, CHECK_gateway_key, g->has_key ? FINDING_OK : FINDING_PROBLEM,
                g->has_key ? NULL : "gateway", "%s", g->has_key ? "set" : "not set");
    const bool window = g->context_window >= FACT_GATEWAY_CONTEXT;
    finding_set(d, CHECK_gateway_context, window ? FINDING_OK : FINDING_ATTENTION,
                window ? NULL : "gateway", "%" PRId64 "%s", g->context_window,
                g->context_window == 0 ? " (not set)" : "");
    const bool patient = g->timeout_s >= FACT_GATEWAY_TIMEOUT_S;
    finding_set(d, CHECK_gateway_timeout, patient ? FINDING_OK : FINDING_ATTENTION,
                patient ? NULL : "gateway", "%" PRId64 "%s", g->timeout_s,
                g->timeout_s == 0 ? " (not set: 300 s)" : "");
}

static void judge_service(struct doctor *d)
{
    const struct host *h = &d->host;
    if (!h->own_unit) return;
    finding_set(d, CHECK_service, h->own_running ? FINDING_OK : FINDING_PROBLEM,
                h->own_running ? NULL : "service", "%s",
                h->own_running ? "running" : "installed, not running");
    if (h->own_running && h->listener.there) // it is ours that listens there
        finding_set(d, CHECK_port, FINDING_OK, NULL, "submind's service listens");
}

void judge_system(struct doctor *d)
{
    judge_cpu(d);
    judge_memory(d);
    judge_limits(d);
    judge_places(d);
    judge_disk_speed(d);
    judge_tuned(d);
    judge_power(d);
    judge_service(d);
    judge_gateway(d);
}
