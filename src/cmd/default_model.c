// The model's bytes stand in the binary (embedded_model.S). GGUF files are read by mapping a path, so
// the bytes are put into an anonymous file once, and its path under /proc is given out.
#include "cmd/default_model.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern const unsigned char submind_embedded_model[];
extern const unsigned char submind_embedded_model_end[];

static char model_path[64];

static bool write_all(int fd, const unsigned char *p, size_t n)
{
    while (n > 0) {
        ssize_t m = write(fd, p, n);
        if (m <= 0) return false;
        p += m;
        n -= (size_t)m;
    }
    return true;
}

bool default_model_path(const char **out, struct err *e)
{
    if (model_path[0] != '\0') {
        *out = model_path;
        return true;
    }
    int fd = memfd_create("submind-demo", MFD_CLOEXEC);
    if (fd < 0)
        return err_errno(e, ERR_IO, "cannot unpack the built-in model; give one with --model");
    size_t n = (size_t)(submind_embedded_model_end - submind_embedded_model);
    if (!write_all(fd, submind_embedded_model, n)) {
        err_errno(e, ERR_IO, "cannot unpack the built-in model; give one with --model");
        close(fd);
        return false;
    }
    snprintf(model_path, sizeof model_path, "/proc/self/fd/%d", fd);
    *out = model_path;
    return true;
}

bool default_model_is(const char *path)
{
    return model_path[0] != '\0' && strcmp(path, model_path) == 0;
}
