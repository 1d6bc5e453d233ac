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
        finding_set(d, CHECK_cpu, h->avx2 ? FINDING_OK : FINDING_ATTENTION, h->avx2 ? NULL : "cpu",
                    "%s, %" PRIu32 " threads, %s", h->cpu_name, h->n_cpus,
                    h->avx512 ? "AVX-512"
                    : h->avx2 ? "AVX2"
                              : "no AVX2");
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
    finding_set(d, CHECK_swap, well ? FINDING_OK : FINDING_ATTENTION, well ? NULL : "swap",
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

static void judge_disk_speed(struct doctor *d)
{
    const struct host *h = &d->host;
    char models[48] = "", cache[48] = "";
    if (h->model_mb_s == 0 && h->cache_mb_s == 0) return;
    const bool slow = (h->model_mb_s != 0 && h->model_mb_s < FACT_DISK_READ_MB_S) ||
                      (h->cache_mb_s != 0 && h->cache_mb_s < FACT_DISK_READ_MB_S);
    if (h->model_mb_s != 0)
        snprintf(models, sizeof models, "models %" PRIu64 " MB/s", h->model_mb_s);
    if (h->cache_mb_s != 0)
        snprintf(cache, sizeof cache, "%scached pages %" PRIu64 " MB/s",
                 models[0] != '\0' ? ", " : "", h->cache_mb_s);
    finding_set(d, CHECK_disk_speed, slow ? FINDING_ATTENTION : FINDING_OK,
                slow ? "disk_speed" : NULL, "%s%s", models, cache);
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
    finding_set(d, CHECK_port, h->port_used ? FINDING_ATTENTION : FINDING_OK,
                h->port_used ? "port" : NULL, "%s", h->port_used ? "somebody listens" : "free");
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

// The port in a URL: behind the last colon of the authority.
static bool url_fits(const char *url, uint32_t port)
{
    const char *host = strstr(url, "://");
    if (host == NULL) return false;
    host += 3;
    const size_t n = strcspn(host, "/");
    if (strcmp(host + n, "/v1") != 0 && strcmp(host + n, "/v1/") != 0) return false;
    const char *colon = memrchr(host, ':', n);
    return colon != NULL && strtoul(colon + 1, NULL, 10) == port;
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
    const bool url = url_fits(g->base_url, d->host.port);
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
    if (h->own_running && h->port_used) // it is ours that listens there
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
