// Hashing everything that decides about the bits of a page.
// Invariant: whatever is added here changes all fingerprints, so old pages are never found again.
#include "engine/fingerprint.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/net.h"

enum { FORMAT = 1, LINE_BYTES = 82, FILE_MAX = 1 << 20 }; // FORMAT: of the records and of this hash
#define PIECE ((size_t)16 << 20)

// ---- the weights --------------------------------------------------------------------------------

// What changes when a file does.
struct identity {
    uint64_t dev, ino, size, mtime_s, mtime_ns, ctime_s, ctime_ns;
};

// All parts' identities as one hash; false where a part is no file.
static bool identify(const struct gguf *g, struct hash128 *out)
{
    struct hash128 all = {0};
    for (size_t i = 0; i < gguf_n_parts(g); i++) {
        struct stat st;
        const int fd = gguf_part_at(g, i).fd;
        if (fd < 0 || fstat(fd, &st) != 0) return false;
        const struct identity one = {(uint64_t)st.st_dev,          (uint64_t)st.st_ino,
                                     (uint64_t)st.st_size,         (uint64_t)st.st_mtim.tv_sec,
                                     (uint64_t)st.st_mtim.tv_nsec, (uint64_t)st.st_ctim.tv_sec,
                                     (uint64_t)st.st_ctim.tv_nsec};
        const struct hash128 both[2] = {all, hash128(&one, sizeof one, 0)};
        all = hash128(both, sizeof both, 0);
    }
    *out = all;
    return true;
}

bool fingerprint_weights(const struct gguf *g, const atomic_bool *stop, struct hash128 *out)
{
    struct hash128 all = {0}, before = {0}, after = {0};
    const bool is_file = identify(g, &before);
    for (size_t i = 0; i < gguf_n_parts(g); i++) {
        const struct gguf_part part = gguf_part_at(g, i);
        for (size_t at = 0; at < part.n; at += PIECE) {
            if (atomic_load_explicit(stop, memory_order_relaxed))
                return false; // nothing hangs on it
            const size_t n = part.n - at < PIECE ? part.n - at : PIECE;
            const struct hash128 both[2] = {all, hash128(part.p + at, n, 0)};
            all = hash128(both, sizeof both, 0);
        }
    }
    if (is_file && (!identify(g, &after) || !hash128_equal(before, after))) return false;
    *out = all;
    return true;
}

// ---- remembering --------------------------------------------------------------------------------

// A line: identity, weights (32 hex digits each) and a check of both (16).
static void put_line(char out[LINE_BYTES + 2], struct hash128 identity, struct hash128 weights)
{
    const struct hash128 both[2] = {identity, weights};
    snprintf(out, LINE_BYTES + 2, "%016llx%016llx %016llx%016llx %016llx",
             (unsigned long long)identity.hi, (unsigned long long)identity.lo,
             (unsigned long long)weights.hi, (unsigned long long)weights.lo,
             (unsigned long long)hash64(both, sizeof both, 0));
}

static bool read_line(const char *text, struct hash128 *identity, struct hash128 *weights)
{
    char line[LINE_BYTES + 1] = "", again[LINE_BYTES + 2];
    memcpy(line, text, LINE_BYTES);
    unsigned long long v[5];
    if (sscanf(line, "%16llx%16llx %16llx%16llx %16llx", &v[0], &v[1], &v[2], &v[3], &v[4]) != 5)
        return false;
    *identity = (struct hash128){.lo = v[1], .hi = v[0]};
    *weights = (struct hash128){.lo = v[3], .hi = v[2]};
    put_line(again, *identity, *weights);
    return strcmp(again, line) == 0;
}

static void path_of(struct buf *out, const char *dir)
{
    buf_printf(out, "%s/weights", dir);
}

bool fingerprint_recall(const char *dir, const struct gguf *g, struct hash128 *out)
{
    struct hash128 wanted, identity, weights;
    struct buf path = {0}, text = {0};
    bool found = false;
    if (!identify(g, &wanted)) return false;
    path_of(&path, dir);
    const bool ok = file_read(&text, buf_cstr(&path), FILE_MAX, &(struct err){0});
    for (size_t at = 0; ok && at + LINE_BYTES < text.n; at += LINE_BYTES + 1) {
        if (!read_line(text.p + at, &identity, &weights) || !hash128_equal(identity, wanted))
            continue;
        *out = weights;
        found = true;
    }
    buf_free(&path);
    buf_free(&text);
    return found;
}

// One write: lines of two processes cannot mix. A file that has become too long begins anew.
void fingerprint_remember(const char *dir, const struct gguf *g, struct hash128 weights)
{
    struct hash128 identity;
    struct buf path = {0};
    struct stat st;
    char line[LINE_BYTES + 2];
    if (!identify(g, &identity)) return;
    path_of(&path, dir);
    put_line(line, identity, weights);
    line[LINE_BYTES] = '\n';
    const int fd =
        open(buf_cstr(&path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        const bool odd = fstat(fd, &st) == 0 &&
                         (st.st_size > FILE_MAX / 2 || st.st_size % (LINE_BYTES + 1) != 0);
        const bool ok =
            (!odd || ftruncate(fd, 0) == 0) && write(fd, line, LINE_BYTES + 1) == LINE_BYTES + 1;
        (void)ok; // not remembered: hashed again next time
        close(fd);
    }
    buf_free(&path);
}

// ---- all of it ----------------------------------------------------------------------------------

bool fingerprint_of(struct hash128 weights, const struct fingerprint_about *a, struct hash128 *out,
                    struct err *e)
{
    const struct model_config *c = a->config;
    const bool is_host = strcmp(a->device->name, "cpu") == 0 || strcmp(a->device->name, "ref") == 0;
    float mscale = 1;
    float *freqs = calloc(c->head_dim / 2 + 1, sizeof *freqs);
    if (freqs == NULL) return err_set(e, ERR_MEMORY, "no memory for a fingerprint");
    const float factor = net_rope_freqs(c, a->n_ctx, freqs, &mscale);
    const struct hash128 freqs_sum = hash128(freqs, c->head_dim / 2 * sizeof *freqs, 0);
    free(freqs);
    struct buf b = {0};
    buf_printf(&b, "format=%d weights=%016llx%016llx arch=%s", FORMAT,
               (unsigned long long)weights.hi, (unsigned long long)weights.lo, c->traits->name);
    buf_printf(&b, " rope=%016llx%016llx,%a,%a", (unsigned long long)freqs_sum.hi,
               (unsigned long long)freqs_sum.lo, (double)factor, (double)mscale);
    buf_printf(&b, " kv=%d,%u,%u,%u,%u page=%zu", (int)a->shape.type, a->shape.page_tokens,
               a->shape.n_layers, a->shape.n_kv_heads, a->shape.head_dim, a->page_bytes);
    // A host's threads and model name are in its name and change nothing; a GPU's kind may.
    buf_printf(&b, " backend=%s numerics=%u device=%s", a->device->name, a->device->numerics,
               is_host ? "" : a->device->device);
    if (a->device->prefill_fp8) buf_str(&b, STR(" prefill=fp8"));
    if (a->code != NULL && a->code->encoding == PAGES_Q8_0) buf_str(&b, STR(" pages=q8_0"));
    const bool ok = !b.failed || err_set(e, ERR_MEMORY, "no memory for a fingerprint");
    if (ok) *out = hash128(b.p, b.n, 0);
    buf_free(&b);
    return ok;
}
