// What a machine is, as far as its files tell: one struct that the checks judge. Looking never fails;
// what cannot be read stays zero, and the checks say so.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/gateway.h"
#include "host/listener.h"
#include "host/root.h"

enum distro {
    DISTRO_OTHER,
    DISTRO_FEDORA,
    DISTRO_ATOMIC, // rpm-ostree
    DISTRO_DEBIAN,
    DISTRO_UBUNTU, // Debian's remedies where it has none of its own
    DISTRO_ARCH_SYSTEMD_BOOT,
    DISTRO_ARCH_GRUB,
    DISTRO_NIXOS,
    DISTRO_ANY, // in the table of remedies: all that have no row of their own
};

enum { HOST_N_GPUS = 8, HOST_N_BOXES = 8, PCI_AMD = 0x1002, PCI_NVIDIA = 0x10de };

struct host_gpu {
    uint32_t vendor, device, n_cards; // n_cards of this kind
    bool drm;                         // a kernel driver gave it a card
    uint64_t vram_bytes, gtt_bytes;   // 0 = not told
    char address[24];                 // of the first on the PCI bus; "" = not told
    const char *apu;                  // its name where it shares the processor's memory, else NULL
};

// A toolbox or another container of podman's whose name or image speaks of a GPU.
struct host_box {
    char name[64], image[160];
    bool toolbox, rocm;              // rocm: wants /dev/kfd
    bool dri, kfd, nvidia;           // devices that it gets
    bool keep_groups, video, render; // groups that it gets
};

enum disk_kind { DISK_UNKNOWN, DISK_SOLID, DISK_ROTATING, DISK_NETWORK };

// Where to look beside the root: as the settings and the user's environment say. NULL: not known.
struct look_wish {
    uint32_t port;
    const char *models, *cache;
    const char *path, *const *environment; // for podman; NULL: it is not asked
};

struct host {
    // system
    enum distro distro;
    char os_name[128], container[32]; // container: "" on the machine itself
    char kernel[96], cmdline[4096];
    unsigned kernel_version[3], kernel_oem; // oem: the build number of Ubuntu's OEM kernels
    bool kernel_seen, cmdline_seen;
    char cpu_name[128];
    uint32_t n_cpus;
    bool cpu_seen, fast_isa, strix_halo; // fast_isa: what our kernels want
    char isa[128];                       // the instruction sets of facts.def that it has
    uint64_t memory_bytes, swap_bytes, swap_free_bytes, memlock_bytes, files_soft, files_hard;
    bool limits_seen;
    char huge_pages[64], governor[32], platform_profile[32];
    // GPU
    struct host_gpu gpu[HOST_N_GPUS];
    size_t n_gpus;
    const struct host_gpu *amd, *nvidia; // the first of each, inside gpu[]
    uint64_t ttm_pages;                  // what the running module has
    bool ttm_pages_seen, amdttm;         // amdttm: the module of amdgpu-dkms
    bool kfd, render_node, iommu_active, nvidia_driver, nouveau;
    char nvidia_version[96], firmware[96], rocm[64];
    uint32_t mes;
    bool radv, amdvlk, radv_chosen;
    const char *kfd_apu; // as KFD tells it: an APU's name; NULL: none
    bool lib_cuda, lib_cublaslt, lib_hip, lib_hipblaslt, lib_vulkan;
    // user and services
    char user[64], home[256];
    uint32_t uid;
    bool uid_seen, in_video, in_render, listed_in_groups;
    bool nodes_tried, nodes_open; // this user may open them
    bool nodes_for_all;           // anybody may (Fedora's udev rules): no group is needed
    bool tuned_installed, tuned_running, tuned_enabled;
    char tuned_profile[96];
    struct listener listener; // on the port
    uint32_t port;
    struct host_box box[HOST_N_BOXES];
    size_t n_boxes;
    const struct host_box *bad_box; // the first that lacks something, inside box[]
    bool podman_silent;             // it is there and does not answer
    uint64_t disk_free_bytes, nvidia_free_bytes;
    bool disk_seen;
    uint64_t model_mb_s, cache_mb_s; // measured reading, 0: not known
    enum disk_kind model_disk, cache_disk;
    char unit[160], unit_missing[64]; // a llama-server unit and what its command line lacks
    bool own_unit, own_running;       // submind.service: installed, has processes
    struct gateway gateway;
};

void host_look(struct host *h, const struct root *r, const struct look_wish *wish);
void host_look_gpu(struct host *h, const struct root *r);
void host_look_software(struct host *h, const struct root *r);
void host_look_user(struct host *h, const struct root *r, const struct look_wish *wish);
void host_look_disk(struct host *h, const struct root *r,
                    const struct look_wish *wish);                // after the user's home is known
void host_look_own_service(struct host *h, const struct root *r); // after host_look_user
void host_look_containers(struct host *h, const struct root *r, const struct look_wish *wish);

// The value of a kernel parameter ("" for one without); NULL when it is not on the command line. Of
// several the last counts, as in the kernel. The text ends at a space or NUL.
const char *host_parameter(const struct host *h, const char *name);
// Is the kernel at least this version?
bool host_kernel_from(const struct host *h, unsigned major, unsigned minor, unsigned patch);
