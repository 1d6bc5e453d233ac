// A secret (the first line) and a text around it: afterwards neither the secret nor its hex stands
// there, and text without any of it is left alone.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/redact.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct redactor r = {0};
    struct err e = {0};
    struct buf text = {0};
    const uint8_t *end = n > 0 ? memchr(data, '\n', n) : NULL;
    if (end == NULL || n > 20000) return 0;
    struct str secret = {(const char *)data, (size_t)(end - data)};
    if (!redactor_add(&r, "S", secret, &e)) {
        redactor_free(&r);
        return 0;
    }
    buf_put(&text, end + 1, n - secret.n - 1);
    buf_str(&text, secret);
    buf_put(&text, end + 1, n - secret.n - 1);
    redact_cut(&r, &text, n % 2 == 0, n % 3 == 0);
    // The mark itself may hold the secret's letters ("secret" as a secret): then it cannot be told.
    if (str_find(STR("[secret S][secret S]"), secret, 0) == SIZE_MAX &&
        str_find(buf_view(&text), secret, 0) != SIZE_MAX &&
        memchr(secret.p, '[', secret.n) == NULL && memchr(secret.p, ']', secret.n) == NULL)
        abort();
    buf_free(&text);
    redactor_free(&r);
    return 0;
}
