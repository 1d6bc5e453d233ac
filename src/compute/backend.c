// The list of backends of this build and the choice among them. A new backend adds one line to the
// list, fastest first: "auto" takes the first one that opens.
#include "compute/backend.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

static const struct backend_class *const backends[] = {
    &backend_cuda, // opens with ERR_NOT_FOUND where driver or device is missing; "auto" goes on
    &backend_cpu,
    &backend_ref, // the definition; the CPU before it always opens, so "auto" never comes here
    NULL,
};

const char *kv_type_name(enum kv_type t)
{
    static const char *const text[KV_TYPE_COUNT] = {
        [KV_F16] = "f16", [KV_F32] = "f32", [KV_Q8_0] = "q8_0"};
    return text[t];
}

const struct backend_class *const *backend_list(void)
{
    return backends;
}

// "cuda:0" names the backend "cuda".
static bool names(const char *device, const struct backend_class *class)
{
    const size_t n = strlen(class->name);
    return strncmp(device, class->name, n) == 0 && (device[n] == 0 || device[n] == ':');
}

static bool open_auto(struct backend **out, const struct backend_settings *s, struct err *e)
{
    struct err first = {0};
    for (const struct backend_class *const *p = backends; *p; p++) {
        struct backend_settings own = *s;
        own.device = (*p)->name;
        struct err why = {0};
        if ((*p)->open(out, &own, &why)) return true;
        if (!first.code || first.code == ERR_NOT_FOUND) first = why;
    }
    if (e && !e->code) *e = first;
    return err_prefix(e, "no device could be opened: ");
}

bool backend_open(struct backend **out, const struct backend_settings *s, struct err *e)
{
    if (!s->device || strcmp(s->device, "auto") == 0) return open_auto(out, s, e);
    struct buf known = {0};
    for (const struct backend_class *const *p = backends; *p; p++) {
        if (names(s->device, *p)) {
            buf_free(&known);
            return (*p)->open(out, s, e);
        }
        buf_printf(&known, ", %s", (*p)->name);
    }
    err_set(e, ERR_NOT_FOUND, "there is no device \"%s\": use auto%s", s->device, buf_cstr(&known));
    buf_free(&known);
    return false;
}

bool backend_look(const struct backend_class *class, uint32_t i, struct backend_info *out,
                  struct err *e)
{
    char name[48];
    struct backend *b = NULL;
    snprintf(name, sizeof name, i == 0 ? "%s" : "%s:%u", class->name, i);
    const struct backend_settings s = {.device = name, .max_rows = 1, .max_out = 1};
    if (!class->open(&b, &s, e)) return false;
    class->info(b, out);
    class->close(b);
    return true;
}
