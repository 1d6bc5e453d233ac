// The GPU driver's functions, found at run time, so that one binary starts with or without a GPU. Each
// row names the function in CUDA's driver API and in HIP's; the calls are alike.
// Not here: headers of a vendor. The few types and numbers used are stated below.
// Sources: CUDA driver API reference; HIP API reference (module, stream, graph management).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef int gpu_result; // 0 is success
typedef uint64_t gpu_ptr;
typedef struct gpu_ctx_opaque *gpu_ctx;
typedef struct gpu_stream_opaque *gpu_stream;
typedef struct gpu_event_opaque *gpu_event;
typedef struct gpu_module_opaque *gpu_module;
typedef struct gpu_function_opaque *gpu_function;
typedef struct gpu_graph_opaque *gpu_graph;
typedef struct gpu_graph_exec_opaque *gpu_graph_exec;

struct gpu_launch_attr { // CUlaunchAttribute
    int id, pad;
    union {
        int flag;
        char bytes[64];
    };
};
struct gpu_launch { // CUlaunchConfig
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    gpu_stream stream;
    struct gpu_launch_attr *attrs;
    unsigned n_attrs;
};

enum {
    GPU_ATTR_SM_COUNT = 16,
    GPU_ATTR_INTEGRATED = 18,
    GPU_ATTR_CC_MAJOR = 75,
    GPU_ATTR_CC_MINOR = 76,
    GPU_FUNC_MAX_SHARED = 8,
    GPU_FUNC_CARVEOUT = 9,
    GPU_LAUNCH_OVERLAP = 6, // programmatic stream serialization
    GPU_STREAM_NON_BLOCKING = 1,
    GPU_EVENT_NO_TIMING = 2,
    GPU_CAPTURE_THREAD_LOCAL = 1
};

// FN(our name, CUDA name, HIP name, arguments)
#define GPU_FUNCTIONS(FN)                                                                         \
    FN(init, "cuInit", "hipInit", (unsigned flags))                                               \
    FN(device_count, "cuDeviceGetCount", "hipGetDeviceCount", (int *n))                           \
    FN(device_get, "cuDeviceGet", "hipDeviceGet", (int *device, int i))                           \
    FN(device_name, "cuDeviceGetName", "hipDeviceGetName", (char *name, int n, int device))       \
    FN(device_attr, "cuDeviceGetAttribute", "hipDeviceGetAttribute",                              \
       (int *v, int attr, int device))                                                            \
    FN(ctx_retain, "cuDevicePrimaryCtxRetain", "hipDevicePrimaryCtxRetain",                       \
       (gpu_ctx * ctx, int device))                                                               \
    FN(ctx_release, "cuDevicePrimaryCtxRelease_v2", "hipDevicePrimaryCtxRelease", (int device))   \
    FN(ctx_set, "cuCtxSetCurrent", "hipCtxSetCurrent", (gpu_ctx ctx))                             \
    FN(mem_info, "cuMemGetInfo_v2", "hipMemGetInfo", (size_t * free_bytes, size_t * total))       \
    FN(mem_alloc, "cuMemAlloc_v2", "hipMalloc", (gpu_ptr * p, size_t n))                          \
    FN(mem_free, "cuMemFree_v2", "hipFree", (gpu_ptr p))                                          \
    FN(host_alloc, "cuMemAllocHost_v2", "hipHostMalloc", (void **p, size_t n))                    \
    FN(host_free, "cuMemFreeHost", "hipHostFree", (void *p))                                      \
    FN(host_register, "cuMemHostRegister_v2", "hipHostRegister",                                  \
       (void *p, size_t n, unsigned flags))                                                       \
    FN(host_unregister, "cuMemHostUnregister", "hipHostUnregister", (void *p))                    \
    FN(to_device, "cuMemcpyHtoDAsync_v2", "hipMemcpyHtoDAsync",                                   \
       (gpu_ptr to, const void *from, size_t n, gpu_stream s))                                    \
    FN(to_host, "cuMemcpyDtoHAsync_v2", "hipMemcpyDtoHAsync",                                     \
       (void *to, gpu_ptr from, size_t n, gpu_stream s))                                          \
    FN(copy, "cuMemcpyDtoDAsync_v2", "hipMemcpyDtoDAsync",                                        \
       (gpu_ptr to, gpu_ptr from, size_t n, gpu_stream s))                                        \
    FN(fill, "cuMemsetD8Async", "hipMemsetD8Async",                                               \
       (gpu_ptr p, unsigned char v, size_t n, gpu_stream s))                                      \
    FN(stream_create, "cuStreamCreate", "hipStreamCreateWithFlags",                               \
       (gpu_stream * s, unsigned flags))                                                          \
    FN(stream_destroy, "cuStreamDestroy_v2", "hipStreamDestroy", (gpu_stream s))                  \
    FN(stream_sync, "cuStreamSynchronize", "hipStreamSynchronize", (gpu_stream s))                \
    FN(event_create, "cuEventCreate", "hipEventCreateWithFlags", (gpu_event * e, unsigned flags)) \
    FN(event_destroy, "cuEventDestroy_v2", "hipEventDestroy", (gpu_event e))                      \
    FN(event_record, "cuEventRecord", "hipEventRecord", (gpu_event e, gpu_stream s))              \
    FN(event_sync, "cuEventSynchronize", "hipEventSynchronize", (gpu_event e))                    \
    FN(event_ms, "cuEventElapsedTime", "hipEventElapsedTime",                                     \
       (float *ms, gpu_event from, gpu_event to))                                                 \
    FN(module_load, "cuModuleLoadDataEx", "hipModuleLoadDataEx",                                  \
       (gpu_module * m, const void *image, unsigned n, int *options, void **values))              \
    FN(module_unload, "cuModuleUnload", "hipModuleUnload", (gpu_module m))                        \
    FN(module_function, "cuModuleGetFunction", "hipModuleGetFunction",                            \
       (gpu_function * f, gpu_module m, const char *name))                                        \
    FN(function_attr, "cuFuncSetAttribute", "hipFuncSetAttribute",                                \
       (gpu_function f, int attr, int value))                                                     \
    FN(launch, "cuLaunchKernelEx", "hipDrvLaunchKernelEx",                                        \
       (const struct gpu_launch *c, gpu_function f, void **args, void **extra))                   \
    FN(capture_begin, "cuStreamBeginCapture_v2", "hipStreamBeginCapture",                         \
       (gpu_stream s, int mode))                                                                  \
    FN(capture_end, "cuStreamEndCapture", "hipStreamEndCapture", (gpu_stream s, gpu_graph * g))   \
    FN(graph_make, "cuGraphInstantiateWithFlags", "hipGraphInstantiateWithFlags",                 \
       (gpu_graph_exec * e, gpu_graph g, unsigned long long flags))                               \
    FN(graph_launch, "cuGraphLaunch", "hipGraphLaunch", (gpu_graph_exec e, gpu_stream s))         \
    FN(graph_exec_destroy, "cuGraphExecDestroy", "hipGraphExecDestroy", (gpu_graph_exec e))       \
    FN(graph_destroy, "cuGraphDestroy", "hipGraphDestroy", (gpu_graph g))                         \
    FN(error_text, "cuGetErrorString", "hipDrvGetErrorString", (gpu_result r, const char **text))

struct gpu_api {
    void *library;
#define FN(name, cuda, hip, args) gpu_result(*name) args;
    GPU_FUNCTIONS(FN)
#undef FN
};

// Opens the NVIDIA driver's library and starts it. ERR_NOT_FOUND says what is missing.
bool gpu_api_open(struct gpu_api *out, struct err *e);
void gpu_api_close(struct gpu_api *api);
// True where r is success; otherwise e says what failed and why.
bool gpu_ok(const struct gpu_api *api, gpu_result r, const char *what, struct err *e);
