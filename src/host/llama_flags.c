// The table decides; only rows whose value means something else here have a function. Later flags win over
// earlier ones, and flags over the environment, as there.
#include "host/llama_flags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "host/service_unit.h"

enum kind {
    VALUE,
    SWITCH,
    SAME,
    OWN,
    OWN_V,
    OWN_OPTIONAL, // takes on, off or auto, or stands alone
    LOST,
    LOST_V,
    HOST,
    CONTEXT,
    PARALLEL,
    THREADS,
    LAYERS,
    DEVICE,
    KV_TYPE,
    API_KEY,
    BUDGET,
    HF_REPO,
};

static const struct row {
    const char *names, *environment;
    enum kind kind;
    const char *target, *note;
} rows[] = {
#define LLAMA(names, environment, kind, target, note) {names, environment, kind, target, note},
#include "host/llama_flags.def"
};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

static bool has_name(const struct row *r, struct str name)
{
    for (struct str rest = str_from(r->names); rest.n > 0;) {
        size_t end = str_find(rest, STR(" "), 0);
        if (str_eq(str_sub(rest, 0, end), name)) return true;
        rest = end == SIZE_MAX ? (struct str){0} : str_sub(rest, end + 1, rest.n);
    }
    return false;
}

static const struct row *find(struct str name)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (has_name(&rows[i], name)) return &rows[i];
    return NULL;
}

bool llama_flag_meaning(const char *word, const char **ours, const char **note)
{
    const struct str name = str_from(word);
    const struct row *r = find(str_sub(name, 0, str_find(name, STR("="), 0)));
    if (r == NULL) return false;
    *ours = r->target;
    *note = r->note;
    return true;
}

static bool takes_value(const struct row *r, const char *next)
{
    switch (r->kind) {
    case SWITCH:
    case SAME:
    case OWN:
    case LOST: return false;
    case OWN_OPTIONAL:
        return next != NULL &&
               (strcmp(next, "on") == 0 || strcmp(next, "off") == 0 || strcmp(next, "auto") == 0 ||
                strcmp(next, "0") == 0 || strcmp(next, "1") == 0);
    default: return true;
    }
}

static void note(struct llama_plan *p, enum llama_note kind, const char *flag, const char *text)
{
    for (size_t i = 0; i < p->n_notes; i++)
        if (strcmp(p->notes[i].flag, flag) == 0) return;
    if (p->n_notes < LLAMA_MAX_NOTES)
        p->notes[p->n_notes++] = (struct llama_line){kind, flag, text};
}

// ---- values that mean something else here --------------------------------------------------------

static bool set_number_above_zero(struct llama_plan *p, const struct row *r, const char *flag,
                                  const char *value)
{
    const bool by_itself = strtol(value, NULL, 10) <= 0; // 0 and -1: "you decide"
    cmdline_set(&p->words, r->target, by_itself ? NULL : value);
    if (by_itself)
        note(p, NOTE_DIFFERENT, flag, "chosen here as if it were not given");
    else if (*r->note != '\0')
        note(p, NOTE_DIFFERENT, flag, r->note);
    return true;
}

static bool set_layers(struct llama_plan *p, const struct row *r, const char *flag,
                       const char *value)
{
    if (strcmp(value, "0") == 0) cmdline_set(&p->words, r->target, "cpu");
    note(p, NOTE_DIFFERENT, flag, r->note);
    return true;
}

// "CUDA0,CUDA1", "ROCm0", "Vulkan0", "none" -> ours.
static bool set_device(struct llama_plan *p, const struct row *r, const char *flag,
                       const char *value, struct err *e)
{
    static const struct {
        const char *theirs, *ours;
    } names[] = {{"CUDA", "cuda:"}, {"ROCm", "hip:"}, {"HIP", "hip:"}, {"Vulkan", "vulkan:"}};
    char ours[32] = "";
    if (strchr(value, ',') != NULL)
        return err_set(e, ERR_UNSUPPORTED, "%s %s: one device serves the model; name one", flag,
                       value);
    if (strcmp(value, "none") == 0) snprintf(ours, sizeof ours, "cpu");
    for (size_t i = 0; i < sizeof names / sizeof names[0] && ours[0] == '\0'; i++) {
        size_t n = strlen(names[i].theirs);
        if (strncasecmp(value, names[i].theirs, n) == 0 && strlen(value + n) < 4)
            snprintf(ours, sizeof ours, "%s%.4s", names[i].ours, value + n);
    }
    if (ours[0] == '\0')
        return err_set(e, ERR_UNSUPPORTED,
                       "%s %s: not known here; use submind serve --device, or leave it out", flag,
                       value);
    cmdline_set(&p->words, r->target, ours);
    return true;
}

// Keys and values have one type here. Every device has q8_0, the smallest there is; 16 bits are not passed on: a GPU
// has them without a word, and a CPU, which has none, would not start.
static bool set_kv_type(struct llama_plan *p, const struct row *r, const char *flag,
                        const char *value)
{
    const bool values = strcmp(r->note, "values") == 0;
    const bool small =
        strcmp(value, "f16") != 0 && strcmp(value, "bf16") != 0 && strcmp(value, "f32") != 0;
    *(values ? &p->small_values : &p->small_keys) = small;
    cmdline_set(&p->words, r->target, p->small_keys || p->small_values ? "q8_0" : NULL);
    if (strcmp(value, "q8_0") == 0)
        note(p, NOTE_DIFFERENT, flag, "keys and values are both q8_0");
    else if (small)
        note(p, NOTE_LOST, flag, "keys and values are both q8_0, the smallest there is");
    else
        note(p, strcmp(value, "f32") == 0 ? NOTE_LOST : NOTE_DIFFERENT, flag,
             "a GPU keeps keys and values as f16, a CPU as q8_0");
    return true;
}

static bool set_key(struct llama_plan *p, const char *value, struct arena *a, struct err *e)
{
    struct buf lines = {0}; // one a line, as in a key file
    for (const char *c = value; *c != '\0'; c++) buf_c(&lines, *c == ',' ? '\n' : *c);
    buf_c(&lines, '\n');
    p->api_key = lines.failed ? (struct str){0} : arena_str(a, buf_view(&lines));
    buf_free(&lines);
    return p->api_key.p != NULL || err_set(e, ERR_MEMORY, "no memory for the key");
}

static bool set_budget(struct llama_plan *p, const struct row *r, const char *flag,
                       const char *value)
{
    if (strcmp(value, "0") == 0)
        cmdline_set(&p->words, r->target, "off");
    else if (strcmp(value, "-1") != 0)
        note(p, NOTE_LOST, flag, r->note);
    return true;
}

static void set_repository(struct llama_plan *p, const struct row *r, const char *flag,
                           const char *value)
{
    struct buf name = {0};
    buf_printf(&name, "hf:%s", value);
    cmdline_set(&p->words, r->target, buf_cstr(&name));
    buf_free(&name);
    note(p, NOTE_DIFFERENT, flag, r->note);
}

// ---- one flag ------------------------------------------------------------------------------------

static bool apply(struct llama_plan *p, const struct row *r, const char *flag, const char *value,
                  struct arena *a, struct err *e)
{
    struct buf word = {0};
    switch (r->kind) {
    case VALUE: cmdline_set(&p->words, r->target, value); return true;
    case SWITCH:
        buf_printf(&word, "--%s", r->target);
        if (!cmdline_has(&p->words, buf_cstr(&word))) cmdline_put(&p->words, buf_view(&word));
        buf_free(&word);
        return true;
    case SAME: note(p, NOTE_KEPT, flag, r->note); return true;
    case OWN:
    case OWN_V:
    case OWN_OPTIONAL:
        note(p, NOTE_DIFFERENT, flag, *r->note != '\0' ? r->note : "decided here by itself");
        return true;
    case LOST:
    case LOST_V:
        note(p, NOTE_LOST, flag, *r->note != '\0' ? r->note : "has no equivalent here");
        return true;
    case HOST: { // a socket's path ends in .sock there
        size_t n = strlen(value);
        bool path = n > 5 && strcmp(value + n - 5, ".sock") == 0;
        cmdline_set(&p->words, path ? "unix-socket" : r->target, value);
        return true;
    }
    case CONTEXT:
    case PARALLEL:
    case THREADS: return set_number_above_zero(p, r, flag, value);
    case LAYERS: return set_layers(p, r, flag, value);
    case DEVICE: return set_device(p, r, flag, value, e);
    case KV_TYPE: return set_kv_type(p, r, flag, value);
    case API_KEY: return set_key(p, value, a, e);
    case BUDGET: return set_budget(p, r, flag, value);
    case HF_REPO: set_repository(p, r, flag, value); return true;
    }
    return true;
}

// A switch of the environment counts for 1, true, on and enabled.
static bool is_on(const char *value)
{
    static const char *const on[] = {"1", "true", "on", "enabled"};
    for (size_t i = 0; i < sizeof on / sizeof on[0]; i++)
        if (strcasecmp(value, on[i]) == 0) return true;
    return false;
}

static bool read_environment(struct llama_plan *p,
                             const char *(*environment)(void *arg, const char *name), void *arg,
                             struct arena *a, struct err *e)
{
    for (size_t i = 0; environment != NULL && i < N_ROWS; i++) {
        const char *name = rows[i].environment;
        const char *value = *name == '\0' ? NULL : environment(arg, name);
        if (value == NULL || *value == '\0') continue;
        if (!takes_value(&rows[i], value) && !is_on(value)) continue;
        if (!apply(p, &rows[i], name, value, a, e)) return err_prefix(e, "environment: ");
    }
    return true;
}

void llama_settle_public(struct llama_plan *p)
{
    static const char flag[] = "--allow-public-without-key";
    for (size_t i = 0; i < p->words.n; i++)
        if (strcmp(p->words.v[i], flag) == 0) cmdline_drop(&p->words, i, 1);
    if (service_is_loopback(&p->words) || p->api_key.n > 0 ||
        cmdline_flag(&p->words, "api-key-file") != NULL)
        return;
    cmdline_z(&p->words, flag);
    note(p, NOTE_DIFFERENT, "--host",
         "other machines get in without a key, as before; --api-key-file FILE keeps them out");
}

bool llama_translate(struct llama_plan *out, const char *const *args, size_t n,
                     const char *(*environment)(void *arg, const char *name), void *arg,
                     struct arena *a, struct err *e)
{
    struct llama_plan *p = out;
    *p = (struct llama_plan){.words = {.arena = a}};
    if (!read_environment(p, environment, arg, a, e)) return false;
    for (size_t i = 0; i < n; i++) {
        const struct str word = str_from(args[i]);
        const size_t eq = str_starts(word, STR("--")) ? str_find(word, STR("="), 0) : SIZE_MAX;
        const struct row *r = find(str_sub(word, 0, eq));
        const char *next = i + 1 < n ? args[i + 1] : NULL, *value = NULL;
        if (r == NULL)
            return err_set(e, ERR_INPUT,
                           "llama-server's flag \"%.100s\" is not known; leave it out, or see "
                           "submind serve --help",
                           args[i]);
        if (eq != SIZE_MAX) {
            value = args[i] + eq + 1;
        } else if (takes_value(r, next)) {
            if (next == NULL) return err_set(e, ERR_INPUT, "%s needs a value", args[i]);
            value = next;
            i++;
        }
        const struct str flag = arena_str(a, str_sub(word, 0, eq));
        if (flag.p == NULL) return err_set(e, ERR_MEMORY, "no memory for the flags");
        if (!apply(p, r, flag.p, value != NULL ? value : "", a, e)) return false;
    }
    llama_settle_public(p);
    return !p->words.failed || err_set(e, ERR_MEMORY, "no memory for the flags");
}
