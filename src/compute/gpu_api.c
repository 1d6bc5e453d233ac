// Finds the driver's functions. Not here: what is done with them (gpu.c and its neighbours).
// Invariant: an opened table has every function; where one is missing nothing is opened.
#include "compute/gpu_api.h"

#include <dlfcn.h>
#include <string.h>

struct entry {
    const char *cuda, *hip;
    size_t at; // in struct gpu_api
};

static const struct entry entries[] = {
#define FN(name, cuda, hip, args) {cuda, hip, offsetof(struct gpu_api, name)},
    GPU_FUNCTIONS(FN)
#undef FN
};

static bool find_all(struct gpu_api *api, struct err *e)
{
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        void *f = dlsym(api->library, entries[i].cuda);
        if (!f)
            return err_set(
                e, ERR_NOT_FOUND,
                "the NVIDIA driver lacks %s: it is older than CUDA 12; update the driver",
                entries[i].cuda);
        memcpy((char *)api + entries[i].at, &f, sizeof f);
    }
    return true;
}

bool gpu_api_open(struct gpu_api *out, struct err *e)
{
    struct gpu_api api = {.library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)};
    if (!api.library)
        return err_set(e, ERR_NOT_FOUND,
                       "no NVIDIA driver here (%s): install it, or use --device cpu", dlerror());
    if (!find_all(&api, e) || !gpu_ok(&api, api.init(0), "starting the NVIDIA driver", e)) {
        if (e && e->code == ERR_DEVICE) e->code = ERR_NOT_FOUND;
        dlclose(api.library);
        return false;
    }
    *out = api;
    return true;
}

void gpu_api_close(struct gpu_api *api)
{
    if (api->library) dlclose(api->library);
    *api = (struct gpu_api){0};
}

bool gpu_ok(const struct gpu_api *api, gpu_result r, const char *what, struct err *e)
{
    const char *text = NULL;
    if (r == 0) return true;
    api->error_text(r, &text);
    return err_set(e, r == 2 ? ERR_MEMORY : ERR_DEVICE, "%s failed: %s (%d)", what,
                   text ? text : "unknown error", r);
}
