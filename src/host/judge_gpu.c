// Judges the GPU, its memory, its kernel parameters and its libraries. What is judged is the result
// (mem_info_gtt_total), not the recipe: either parameter may have brought it about.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/doctor.h"

static double gib(uint64_t bytes)
{
    return (double)bytes / (1 << 30);
}

// The memory in the machine: what the system has and what the BIOS took, rounded up to whole modules.
static uint32_t installed_gib(const struct host *h)
{
    const uint64_t seen = h->memory_bytes + (h->amd != NULL ? h->amd->vram_bytes : 0);
    const uint64_t module = (uint64_t)FACT_MEMORY_MODULE_GIB << 30;
    if (h->memory_bytes == 0 || seen > (uint64_t)1 << 50) return 0;
    return (uint32_t)((seen + module - 1) / module * FACT_MEMORY_MODULE_GIB);
}

uint32_t doctor_gtt_gib(const struct host *h)
{
    const uint32_t all = installed_gib(h);
    return all > FACT_OS_RESERVE_GIB ? all - FACT_OS_RESERVE_GIB : 0;
}

static bool carveout_is_large(const struct host *h)
{
    return h->amd->vram_bytes > (uint64_t)FACT_CARVEOUT_OK_GIB << 30;
}

static void judge_gtt(struct doctor *d)
{
    const struct host *h = &d->host;
    const uint32_t all = installed_gib(h);
    if (h->amd == NULL || !h->strix_halo || !h->amd->drm || all == 0) return;
    const double vram = gib(h->amd->vram_bytes), gtt = gib(h->amd->gtt_bytes);
    const bool large = carveout_is_large(h);
    enum finding_status status = large ? FINDING_ATTENTION : FINDING_OK;
    if (vram * 2 >= all)
        status = FINDING_PROBLEM; // most of the memory is out of the system's reach
    finding_set(d, CHECK_carveout, status, large ? "carveout" : NULL, "%.1f GiB", vram);
    const char *remedy = large ? "after_carveout" : h->amdttm ? "gtt_dkms" : "gtt";
    status = FINDING_OK;
    if (gtt * 100 < FACT_GTT_ENOUGH_PERCENT * (double)all) status = FINDING_ATTENTION;
    if (gtt * 100 <= FACT_GTT_DEFAULT_PERCENT * (double)all && !large) status = FINDING_PROBLEM;
    if (gtt > (double)doctor_gtt_gib(h)) status = FINDING_ATTENTION; // nothing left for the system
    finding_set(d, CHECK_gtt, status, status == FINDING_OK ? NULL : remedy,
                "%.1f GiB of %" PRIu32 " installed", gtt, all);
}

// Does the running module have what the command line asked for?
static void judge_ttm(struct doctor *d)
{
    const struct host *h = &d->host;
    if (!h->strix_halo || !h->cmdline_seen) return;
    const char *ttm = host_parameter(h, "ttm.pages_limit");
    const char *dkms = host_parameter(h, "amdttm.pages_limit");
    const char *gttsize = host_parameter(h, "amdgpu.gttsize");
    const char *asked = h->amdttm ? dkms : ttm;
    const bool differs =
        h->ttm_pages_seen && asked != NULL && strtoull(asked, NULL, 10) != h->ttm_pages;
    const bool wrong_module = h->amdttm && ttm != NULL && dkms == NULL;
    const char *words = h->amdttm ? "amdttm" : "ttm";
    char pages[48] = "not set", size[32] = "not set";
    if (asked != NULL) snprintf(pages, sizeof pages, "%.*s", (int)strcspn(asked, " "), asked);
    if (gttsize != NULL) snprintf(size, sizeof size, "%.*s", (int)strcspn(gttsize, " "), gttsize);
    const char *remedy = wrong_module ? "dkms" : differs ? "reboot" : NULL;
    enum finding_status status = wrong_module || differs ? FINDING_PROBLEM : FINDING_OK;
    finding_set(d, CHECK_ttm, status, remedy,
                "%s.pages_limit %.40s, amdgpu.gttsize %.30s; running %" PRIu64 " pages%s", words,
                pages, size, h->ttm_pages,
                wrong_module ? "; ttm.pages_limit means nothing to amdttm" : "");
}

static bool value_is(const char *value, const char *wanted)
{
    const size_t n = strlen(wanted);
    return value != NULL && strncmp(value, wanted, n) == 0 && (value[n] == ' ' || value[n] == '\0');
}

static void judge_cmdline(struct doctor *d)
{
    const struct host *h = &d->host;
    if (!h->strix_halo || !h->cmdline_seen) return;
    const bool nomodeset = host_parameter(h, "nomodeset") != NULL;
    finding_set(d, CHECK_nomodeset, nomodeset ? FINDING_PROBLEM : FINDING_OK,
                nomodeset ? "nomodeset" : NULL, "%s", nomodeset ? "nomodeset" : "not there");
    const char *amd = host_parameter(h, "amd_iommu");
    if (value_is(amd, "pt"))
        finding_set(d, CHECK_iommu, FINDING_PROBLEM, "iommu",
                    "amd_iommu=pt, which the kernel does not know (AMD-Vi: Unknown option - 'pt')");
    else if (value_is(amd, "off") && h->iommu_active)
        finding_set(d, CHECK_iommu, FINDING_ATTENTION, NULL,
                    "amd_iommu=off, but /sys/class/iommu is not empty");
    else if (value_is(amd, "off") || value_is(host_parameter(h, "iommu"), "off"))
        finding_set(d, CHECK_iommu, FINDING_OK, NULL, "off");
    else if (value_is(host_parameter(h, "iommu"), "pt"))
        finding_set(d, CHECK_iommu, FINDING_ATTENTION, "iommu",
                    "iommu=pt, which gains nothing over the default");
    else
        finding_set(d, CHECK_iommu, FINDING_ATTENTION, "iommu", "on (the default)");
}

static void judge_kernel(struct doctor *d)
{
    const struct host *h = &d->host;
    if (!h->strix_halo) return;
    if (!h->kernel_seen) {
        finding_set(d, CHECK_kernel, FINDING_ATTENTION, NULL, "the version could not be read");
        return;
    }
    const bool fixed = host_kernel_from(h, 6, 18, 4) || h->kernel_oem >= FACT_OEM_KERNEL_FIXED;
    finding_set(d, CHECK_kernel, fixed ? FINDING_OK : FINDING_ATTENTION, fixed ? NULL : "kernel",
                "%s", h->kernel);
    if (!h->cmdline_seen) return;
    const bool off = value_is(host_parameter(h, "amdgpu.cwsr_enable"), "0");
    if (!fixed)
        finding_set(d, CHECK_cwsr, off ? FINDING_OK : FINDING_PROBLEM, off ? NULL : "cwsr_add",
                    "%s", off ? "0" : "not set on a kernel without the fix");
    else
        finding_set(d, CHECK_cwsr, off ? FINDING_ATTENTION : FINDING_OK, off ? "cwsr_remove" : NULL,
                    "%s", off ? "0 on a kernel that has the fix" : "not set");
}

static void judge_firmware(struct doctor *d)
{
    const struct host *h = &d->host;
    if (!h->strix_halo || h->container[0] != '\0')
        return; // the machine's firmware, not the image's
    // a date anywhere in the version: 20251125-1, 20240318.git3b128b60-0ubuntu2.10
    const char *digits = strstr(h->firmware, "20");
    const unsigned long date = digits != NULL ? strtoul(digits, NULL, 10) : 0;
    char mes[24] = "";
    if (h->mes != 0) snprintf(mes, sizeof mes, ", MES 0x%02" PRIx32, h->mes);
    if (date == FACT_FIRMWARE_BAD || h->mes == FACT_MES_BAD)
        finding_set(d, CHECK_firmware, FINDING_PROBLEM, "firmware", "%s%s", h->firmware, mes);
    else if (date == 0)
        finding_set(d, CHECK_firmware, h->mes != 0 ? FINDING_OK : FINDING_ATTENTION,
                    h->mes != 0 ? NULL : "firmware_look", "version could not be read%s", mes);
    else
        finding_set(d, CHECK_firmware, date < FACT_FIRMWARE_OLD ? FINDING_ATTENTION : FINDING_OK,
                    date < FACT_FIRMWARE_OLD ? "firmware" : NULL, "%s%s", h->firmware, mes);
}

// "2 x 10de:2684 at 0000:01:00.0", "1002:1586 at 0000:c1:00.0 (Strix Halo: APU, shares the memory)"
static void put_gpu(const struct host *h, const struct host_gpu *g, char *out, size_t n)
{
    const size_t used = strlen(out);
    char many[16] = "", apu[64] = "";
    const char *name = g->apu != NULL ? g->apu : g == h->amd ? h->kfd_apu : NULL;
    if (g->n_cards > 1) snprintf(many, sizeof many, "%" PRIu32 " x ", g->n_cards);
    if (name != NULL) snprintf(apu, sizeof apu, " (%s: APU, shares the memory)", name);
    snprintf(out + used, n - used, "%s%s%04" PRIx32 ":%04" PRIx32 "%s%s%s%s", used > 0 ? "; " : "",
             many, g->vendor, g->device, g->address[0] != '\0' ? " at " : "", g->address, apu,
             g->vendor == PCI_AMD && !g->drm ? ", no driver" : "");
}

static void judge_device(struct doctor *d)
{
    const struct host *h = &d->host;
    if (h->n_gpus == 0) {
        finding_set(d, CHECK_gpu, h->strix_halo ? FINDING_PROBLEM : FINDING_ATTENTION,
                    h->strix_halo ? "gpu_driver" : NULL, "none found: the CPU backend runs");
        return;
    }
    char seen[256] = "";
    const bool amd_lost = h->amd != NULL && !h->amd->drm;
    for (size_t i = 0; i < h->n_gpus; i++) put_gpu(h, &h->gpu[i], seen, sizeof seen);
    finding_set(d, CHECK_gpu, amd_lost ? FINDING_PROBLEM : FINDING_OK,
                amd_lost ? "gpu_driver" : NULL, "%s", seen);
}

static void judge_nodes(struct doctor *d)
{
    const struct host *h = &d->host;
    const bool boxed = h->container[0] != '\0';
    enum finding_status status = h->kfd ? FINDING_OK : FINDING_ATTENTION; // Vulkan works without
    if (!h->render_node) status = FINDING_PROBLEM;
    finding_set(d, CHECK_nodes, status,
                status == FINDING_OK ? NULL
                : boxed              ? "box"
                                     : "gpu_driver",
                "%s, %s%s%s", h->kfd ? "/dev/kfd" : "no /dev/kfd",
                h->render_node ? "render node" : "no render node", boxed ? ", inside " : "",
                h->container);
}

// May this user open the nodes? Where it was tried that counts, else the groups. Inside a container groups have
// no names: only the trial tells.
static void judge_access(struct doctor *d)
{
    const struct host *h = &d->host;
    const bool boxed = h->container[0] != '\0', member = h->in_video && h->in_render;
    if (h->amd == NULL) return;
    judge_nodes(d);
    if (!h->render_node || (boxed ? !h->nodes_tried : !h->uid_seen || h->uid == 0)) return;
    const bool well = h->nodes_tried ? h->nodes_open : member;
    const char *remedy = boxed                 ? "box_groups"
                         : member              ? "udev"
                         : h->listed_in_groups ? "login"
                                               : "groups";
    const char *opened = !h->nodes_tried ? ""
                         : h->nodes_open ? "the nodes can be opened"
                                         : "the nodes cannot be opened";
    char groups[160] = "";
    if (!boxed)
        snprintf(groups, sizeof groups, "%s: %s%s%s", h->user,
                 h->in_video ? "video" : "not in video",
                 h->in_render ? ", render" : ", not in render", opened[0] != '\0' ? ", " : "");
    finding_set(d, CHECK_groups, well ? FINDING_OK : FINDING_PROBLEM, well ? NULL : remedy, "%s%s",
                groups, opened);
}

// What a container lacks of what its kind needs, appended to out: /dev/kfd is ROCm's alone.
static bool put_lack(const struct host *h, const struct host_box *b, char *out, size_t n)
{
    const bool amd = h->amd != NULL, nvidia = h->nvidia != NULL && !amd;
    const bool groups = amd && !b->keep_groups && !h->nodes_for_all;
    const struct {
        bool lacks;
        const char *what;
    } rows[] = {{amd && !b->dri, "/dev/dri"},
                {amd && b->rocm && !b->kfd, "/dev/kfd"},
                {groups && !b->video, "group video"},
                {groups && b->rocm && !b->render, "group render"},
                {nvidia && !b->nvidia, "nvidia.com/gpu"}};
    bool any = false;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!rows[i].lacks) continue;
        const size_t used = strlen(out);
        snprintf(out + used, n - used, "%s%s", any ? ", " : " lacks ", rows[i].what);
        any = true;
    }
    return any;
}

static void judge_containers(struct doctor *d)
{
    struct host *h = &d->host;
    const struct host_box *bad = NULL;
    char seen[320] = "";
    if (h->podman_silent)
        finding_set(d, CHECK_containers, FINDING_ATTENTION, "podman", "podman does not answer");
    if (h->n_boxes == 0) return;
    for (size_t i = 0; i < h->n_boxes; i++) {
        const size_t used = strlen(seen);
        snprintf(seen + used, sizeof seen - used, "%s%s", used > 0 ? "; " : "", h->box[i].name);
        if (put_lack(h, &h->box[i], seen, sizeof seen) && bad == NULL) bad = &h->box[i];
    }
    h->bad_box = bad;
    const char *remedy = bad == NULL      ? NULL
                         : h->amd == NULL ? "container_nvidia"
                         : bad->toolbox   ? "container_toolbox"
                                          : "container_podman";
    finding_set(d, CHECK_containers, bad == NULL ? FINDING_OK : FINDING_ATTENTION, remedy, "%s%s",
                seen, bad == NULL && h->n_gpus > 0 ? ": get what they need" : "");
}

static void judge_libraries(struct doctor *d)
{
    const struct host *h = &d->host;
    if (h->amd == NULL) return;
    if (h->amdvlk && !h->radv_chosen)
        finding_set(d, CHECK_vulkan, FINDING_PROBLEM, h->radv ? "vulkan" : "radv", "AMDVLK%s",
                    h->radv ? " beside RADV, and nothing chooses RADV" : " alone");
    else
        finding_set(d, CHECK_vulkan, h->radv ? FINDING_OK : FINDING_ATTENTION,
                    h->radv ? NULL : "radv", "%s", h->radv ? "RADV" : "no driver file");
    if (!h->lib_hip) {
        finding_set(d, CHECK_rocm, FINDING_ATTENTION, "box", "libamdhip64 not found");
        return;
    }
    unsigned major = 0, minor = 0;
    const bool known = sscanf(h->rocm, "%u.%u", &major, &minor) == 2;
    const bool old = known && (major < 7 || (major == 7 && minor < 2));
    const bool breaks = old && h->strix_halo && host_kernel_from(h, 6, 18, 4);
    finding_set(d, CHECK_rocm,
                breaks ? FINDING_PROBLEM
                : old  ? FINDING_ATTENTION
                       : FINDING_OK,
                old ? "box" : NULL, "%s%s", known ? h->rocm : "libamdhip64, version unknown",
                breaks ? " on a kernel from 6.18.4 on" : "");
    finding_set(d, CHECK_hipblaslt, h->lib_hipblaslt ? FINDING_OK : FINDING_ATTENTION,
                h->lib_hipblaslt ? NULL : "hipblaslt", "%s",
                h->lib_hipblaslt ? "found" : "not found");
}

static void judge_nvidia(struct doctor *d)
{
    const struct host *h = &d->host;
    if (h->nvidia == NULL) return;
    const bool well = h->nvidia_driver && h->lib_cuda;
    finding_set(d, CHECK_nvidia, well ? FINDING_OK : FINDING_PROBLEM, well ? NULL : "nvidia",
                "%s%s",
                h->nvidia_driver ? h->nvidia_version
                : h->nouveau     ? "nouveau instead of NVIDIA's driver"
                                 : "no driver",
                h->lib_cuda ? "" : ", no libcuda");
    if (!well) return;
    finding_set(d, CHECK_cublaslt, h->lib_cublaslt ? FINDING_OK : FINDING_ATTENTION,
                h->lib_cublaslt ? NULL : "cublaslt", "%s", h->lib_cublaslt ? "found" : "not found");
}

void judge_gpu(struct doctor *d)
{
    const struct host *h = &d->host;
    judge_device(d);
    judge_access(d);
    judge_cmdline(d);
    judge_gtt(d);
    judge_ttm(d);
    judge_kernel(d);
    judge_firmware(d);
    judge_libraries(d);
    judge_nvidia(d);
    judge_containers(d);
    if (h->strix_halo && h->unit[0] != '\0')
        finding_set(d, CHECK_llama_unit,
                    h->unit_missing[0] != '\0' ? FINDING_ATTENTION : FINDING_OK,
                    h->unit_missing[0] != '\0' ? "llama_unit" : NULL, "%s%s%s", h->unit,
                    h->unit_missing[0] != '\0' ? " lacks " : "", h->unit_missing);
}
