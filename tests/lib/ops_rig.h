// One backend and buffers for a test of single ops, with data from a fixed seed. Any failure to set up
// ends the test with its message.
#pragma once

#include "compute/backend.h"

struct ops_rig {
    struct backend *b;
    uint32_t max_rows;
};

void ops_open(struct ops_rig *r, const char *device, uint32_t n_threads, uint32_t max_rows);
void ops_close(struct ops_rig *r);
// Whether this machine has the device: instruction sets are tested where they exist.
bool ops_can(const char *device);
// The CPU's instruction sets by name, of all machines.
enum { OPS_CPU_DEVICES = 7 };
extern const char *const ops_cpu_devices[OPS_CPU_DEVICES];
// bytes are borrowed as long as the buffer lives.
struct dbuf *ops_weight(struct ops_rig *r, enum fmt f, const void *bytes, uint32_t rows,
                        uint32_t cols);
struct dbuf *ops_vector(struct ops_rig *r, const float *x, uint32_t n);
// Activations of kind, filled from x (rows * cols), or with NaN where x is NULL.
struct dbuf *ops_act(struct ops_rig *r, enum buf_kind kind, const float *x, uint32_t rows,
                     uint32_t cols);
struct dbuf *ops_kv(struct ops_rig *r, enum kv_type type, uint32_t n_pages, uint32_t n_layers,
                    uint32_t n_kv_heads, uint32_t head_dim);
void ops_write(struct ops_rig *r, struct dbuf *d, uint32_t row, uint32_t rows, const float *x);
void ops_read(struct ops_rig *r, const struct dbuf *d, uint32_t row, uint32_t rows, void *out);
void ops_free(struct ops_rig *r, struct dbuf *d);
void ops_run(struct ops_rig *r, const struct op *ops, uint32_t n_ops, const struct batch *batch);

// The seeded source of all data: uniform bits, and about normal floats of deviation 1.
void random_seed(uint64_t seed);
uint64_t random_bits(void);
float random_normal(void);
void random_floats(float *x, size_t n, float deviation);
// A weight of format f with random bits in its integers and scales such that weights are of the size
// of real ones (about 0.05). The caller frees it.
void *random_weight(enum fmt f, uint32_t rows, uint32_t cols);
void *test_alloc(size_t n); // never NULL
