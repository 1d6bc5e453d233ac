// Graphics processors: PCI devices of display class, and what a kernel driver says about them.
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/look.h"

enum { PATH_BYTES = 256, MAX_NAMES = 256, MAX_KFD_NODES = 16 };

static const struct {
    uint32_t pci, gfx;
    const char *name;
} apus[] = {
#define APU(pci, gfx, name) {pci, gfx, name},
#include "host/facts.def"
};

// The name of an APU by its PCI device or KFD's number (0: not told); NULL when it is none.
static const char *apu_name(uint32_t pci, uint32_t gfx)
{
    for (size_t i = 0; i < sizeof apus / sizeof apus[0]; i++)
        if ((pci != 0 && apus[i].pci == pci) || (gfx != 0 && apus[i].gfx == gfx))
            return apus[i].name;
    return NULL;
}

static struct host_gpu *gpu_find(struct host *h, uint32_t vendor, uint32_t device)
{
    for (size_t i = 0; i < h->n_gpus; i++)
        if (h->gpu[i].vendor == vendor && h->gpu[i].device == device) return &h->gpu[i];
    if (h->n_gpus == HOST_N_GPUS) return NULL;
    struct host_gpu *g = &h->gpu[h->n_gpus++];
    *g = (struct host_gpu){
        .vendor = vendor, .device = device, .apu = vendor == PCI_AMD ? apu_name(device, 0) : NULL};
    return g;
}

static void look_pci(struct host *h, const struct root *r)
{
    static const char dir[] = "sys/bus/pci/devices";
    root_name names[MAX_NAMES];
    char path[PATH_BYTES];
    size_t n = root_list(r, dir, "", "", names, MAX_NAMES);
    for (size_t i = 0; i < n; i++) {
        uint64_t class, vendor, device;
        snprintf(path, sizeof path, "%s/%s/class", dir, names[i]);
        if (!root_number(r, path, &class) || class >> 16 != 3) continue; // 03: display controllers
        snprintf(path, sizeof path, "%s/%s/vendor", dir, names[i]);
        if (!root_number(r, path, &vendor)) continue;
        snprintf(path, sizeof path, "%s/%s/device", dir, names[i]);
        if (!root_number(r, path, &device)) continue;
        struct host_gpu *g = gpu_find(h, (uint32_t)vendor, (uint32_t)device);
        if (g == NULL) continue;
        if (g->n_cards++ == 0) snprintf(g->address, sizeof g->address, "%.23s", names[i]);
    }
}

static void look_card(struct host *h, const struct root *r, const char *name)
{
    char path[PATH_BYTES];
    uint64_t vendor, device, mes;
    snprintf(path, sizeof path, "sys/class/drm/%s/device/vendor", name);
    if (!root_number(r, path, &vendor)) return;
    snprintf(path, sizeof path, "sys/class/drm/%s/device/device", name);
    if (!root_number(r, path, &device)) return;
    struct host_gpu *g = gpu_find(h, (uint32_t)vendor, (uint32_t)device);
    if (g == NULL) return;
    g->drm = true;
    snprintf(path, sizeof path, "sys/class/drm/%s/device/mem_info_vram_total", name);
    root_number(r, path, &g->vram_bytes);
    snprintf(path, sizeof path, "sys/class/drm/%s/device/mem_info_gtt_total", name);
    root_number(r, path, &g->gtt_bytes);
    snprintf(path, sizeof path, "sys/class/drm/%s/device/fw_version/mes_fw_version", name);
    if (root_number(r, path, &mes)) h->mes = (uint32_t)mes & 0xfff; // the version's own 12 bits
}

// The scheduler's firmware as the debug file tells it, where it can be read: "MES feature version: 1,
// firmware version: 0x00000083".
static void look_mes(struct host *h, const struct root *r)
{
    struct buf b = {0};
    unsigned feature, version;
    static const char *const files[] = {"sys/kernel/debug/dri/0/amdgpu_firmware_info",
                                        "sys/kernel/debug/dri/1/amdgpu_firmware_info",
                                        "sys/kernel/debug/dri/128/amdgpu_firmware_info"};
    for (size_t i = 0; i < sizeof files / sizeof files[0] && h->mes == 0; i++) {
        buf_clear(&b);
        if (!root_read(r, files[i], &b, 16 << 10)) continue;
        const char *line = strstr(buf_cstr(&b), "MES feature version:");
        if (line != NULL &&
            sscanf(line, "MES feature version: %u, firmware version: %x", &feature, &version) == 2)
            h->mes = version & 0xfff;
    }
    buf_free(&b);
}

// What KFD, the door that ROCm takes, says about its nodes; processors have gfx_target_version 0.
static const char *kfd_apu(const struct root *r)
{
    char path[PATH_BYTES];
    const char *name = NULL;
    for (int i = 0; i < MAX_KFD_NODES && name == NULL; i++) {
        struct buf b = {0};
        unsigned version = 0;
        snprintf(path, sizeof path, "sys/class/kfd/kfd/topology/nodes/%d/properties", i);
        root_read(r, path, &b, 16 << 10);
        const char *line = strstr(buf_cstr(&b), "gfx_target_version ");
        if (line != NULL && sscanf(line, "gfx_target_version %u", &version) == 1)
            name = apu_name(0, version);
        buf_free(&b);
    }
    return name;
}

static bool open_to_all(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & 06) == 06;
}

static void look_nodes(struct host *h, const struct root *r)
{
    root_name names[16];
    char path[PATH_BYTES];
    uint64_t recorded = 0, for_all = 0;
    size_t n = root_list(r, "dev/dri", "renderD", "", names, 16);
    h->kfd = root_exists(r, "dev/kfd");
    h->render_node = n > 0;
    h->nodes_tried = r->live || root_number(r, "submind/nodes-open", &recorded);
    h->nodes_open = r->live ? n > 0 : recorded != 0;
    h->nodes_for_all =
        r->live ? n > 0 : root_number(r, "submind/nodes-for-all", &for_all) && for_all != 0;
    for (size_t i = 0; i < n && r->live; i++) {
        snprintf(path, sizeof path, "/dev/dri/%s", names[i]);
        if (access(path, R_OK | W_OK) != 0) h->nodes_open = false;
        if (!open_to_all(path)) h->nodes_for_all = false;
    }
    if (r->live && h->kfd && !open_to_all("/dev/kfd")) h->nodes_for_all = false;
    if (r->live && h->kfd && access("/dev/kfd", R_OK | W_OK) != 0) h->nodes_open = false;
}

void host_look_gpu(struct host *h, const struct root *r)
{
    root_name cards[32];
    look_pci(h, r);
    size_t n = root_list(r, "sys/class/drm", "card", "", cards, 32);
    for (size_t i = 0; i < n; i++)
        if (strchr(cards[i], '-') == NULL) look_card(h, r, cards[i]); // card0-HDMI-1 is a connector
    for (size_t i = 0; i < h->n_gpus; i++) {
        const struct host_gpu *g = &h->gpu[i];
        const bool strix = g->apu != NULL && strcmp(g->apu, apus[0].name) == 0;
        // of several the one that serves: Strix Halo's, else a card of its own before a processor's
        if (g->vendor == PCI_AMD && (h->amd == NULL || strix || (h->amd->apu != NULL && !g->apu)))
            h->amd = g;
        if (g->vendor == PCI_NVIDIA && h->nvidia == NULL) h->nvidia = g;
        h->strix_halo = h->strix_halo || strix;
    }
    h->kfd_apu = kfd_apu(r);
    if (h->kfd_apu != NULL && strcmp(h->kfd_apu, apus[0].name) == 0) h->strix_halo = true;
    look_mes(h, r);
    h->amdttm = root_exists(r, "sys/module/amdttm");
    h->ttm_pages_seen = root_number(r,
                                    h->amdttm ? "sys/module/amdttm/parameters/pages_limit"
                                              : "sys/module/ttm/parameters/pages_limit",
                                    &h->ttm_pages);
    h->iommu_active = root_list(r, "sys/class/iommu", "", "", cards, 32) > 0;
    h->nvidia_driver =
        root_line(r, "proc/driver/nvidia/version", h->nvidia_version, sizeof h->nvidia_version);
    h->nouveau = root_exists(r, "sys/module/nouveau");
    look_nodes(h, r);
}
