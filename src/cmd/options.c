// Parsing by table: nothing here knows a setting by name, except the two functions at the end that
// hand settings on to the engine.
#include "cmd/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/default_model.h"
#include "cmd/help_text.h"
#include "cmd/hint.h"
#include "cmd/model_path.h"
#include "host/llama_flags.h"

enum setting_type { SETTING_STR, SETTING_U32, SETTING_F32, SETTING_SIZE, SETTING_FLAG };

struct setting {
    unsigned commands;
    enum setting_type type;
    size_t offset, given_offset;
    const char *name, *arg, *help;
};

static const struct setting settings_table[] = {
#define SETTING(commands, type, field, name, arg, help) \
    {commands,                                          \
     SETTING_##type,                                    \
     offsetof(struct settings, field),                  \
     offsetof(struct settings, given.field),            \
     name,                                              \
     arg,                                               \
     help},
#include "cmd/settings.def"
#undef SETTING
};

enum { N_SETTINGS = sizeof settings_table / sizeof settings_table[0] };

// Of numbers that may not be any number of their type; defaults of sampling as a request may have them.
static const struct range {
    const char *name;
    double min, max;
} ranges[] = {
    {"port", 0, 65535}, {"cache-quota", 1, 100}, {"temperature", 0, 2},
    {"top-p", 0, 1},    {"min-p", 0, 1},         {"repeat-penalty", 0.01, 10},
};

static struct range range_of(const struct setting *t)
{
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (strcmp(ranges[i].name, t->name) == 0) return ranges[i];
    return (struct range){t->name, t->type == SETTING_U32 ? 0 : -HUGE_VAL,
                          t->type == SETTING_U32 ? UINT32_MAX : HUGE_VAL};
}

bool options_size(const char *text, size_t *out)
{
    static const char units[] = "kmgt";
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || errno != 0 || !(v >= 0)) return false;
    if (*end != '\0') {
        const char *unit = strchr(units, *end | 0x20);
        if (unit == NULL) return false;
        v *= ldexp(1.0, 10 * (int)(unit - units + 1));
        end++;
        if ((*end | 0x20) == 'i') end++;
        if ((*end | 0x20) == 'b') end++;
    }
    if (*end != '\0' || v >= 9e18) return false;
    *out = (size_t)v;
    return true;
}

static bool parse_u32(const char *text, const struct range *r, uint32_t *out)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || *text == '-') return false;
    if ((double)v < r->min || (double)v > r->max) return false;
    *out = (uint32_t)v;
    return true;
}

static bool parse_f32(const char *text, const struct range *r, float *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite((float)v) || v < r->min || v > r->max)
        return false;
    *out = (float)v;
    return true;
}

static bool wrong_value(const struct setting *t, const struct range *r, const char *text,
                        struct err *e)
{
    static const char *const wanted[] = {"text", "a whole number", "a number",
                                         "a size such as 512M or 8G", "no value"};
    char from[64] = "";
    if (t->type <= SETTING_F32 && isfinite(r->max))
        snprintf(from, sizeof from, " from %.10g to %.10g", r->min, r->max);
    return err_set(e, ERR_INPUT, "--%s takes %s%s, not \"%s\"", t->name, wanted[t->type], from,
                   text);
}

static bool store(struct settings *s, const struct setting *t, const char *text, struct err *e)
{
    const struct range r = range_of(t);
    char *base = (char *)s;
    bool ok = true;
    switch (t->type) {
    case SETTING_STR: memcpy(base + t->offset, &text, sizeof text); break;
    case SETTING_U32: ok = parse_u32(text, &r, (uint32_t *)(void *)(base + t->offset)); break;
    case SETTING_F32: ok = parse_f32(text, &r, (float *)(void *)(base + t->offset)); break;
    case SETTING_SIZE: ok = options_size(text, (size_t *)(void *)(base + t->offset)); break;
    case SETTING_FLAG: *(bool *)(base + t->offset) = true; break;
    }
    if (!ok) return wrong_value(t, &r, text, e);
    *(bool *)(base + t->given_offset) = true;
    return true;
}

static const struct setting *find(enum command_bit command, const char *name, size_t n)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const struct setting *t = &settings_table[i];
        if ((t->commands & command) != 0 && strlen(t->name) == n && memcmp(t->name, name, n) == 0)
            return t;
    }
    return NULL;
}

// SUBMIND_KV_MEMORY=8G stands for --kv-memory 8G. Flags without a value are on for "1".
static bool read_environment(struct settings *s, enum command_bit command, struct err *e)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const struct setting *t = &settings_table[i];
        char name[64] = "SUBMIND_";
        size_t n = strlen(name);
        if ((t->commands & command) == 0 || strcmp(t->name, "help") == 0) continue;
        for (const char *p = t->name; *p != '\0' && n + 1 < sizeof name; p++, n++)
            name[n] = *p == '-' ? '_' : (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
        const char *text = getenv(name);
        if (text == NULL || *text == '\0') continue;
        if (t->type == SETTING_FLAG && strcmp(text, "1") != 0) continue;
        if (!store(s, t, text, e)) return err_prefix(e, "environment %s: ", name);
    }
    return true;
}

// Says what may have been meant: llama-server's flag where a server's were expected, one that is spelled nearly so,
// one of another command.
static bool unknown_flag(enum command_bit command, const char *word, struct err *e)
{
    const char *ours, *note;
    char name[64] = "";
    const size_t dashes = strspn(word, "-");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + dashes, "="), word + dashes);
    if (command == C_SERVE && llama_flag_meaning(word, &ours, &note))
        return err_set(
            e, ERR_INPUT,
            "%.60s is a flag of llama-server%s%s%s%s%s. Put submind llama-server in place "
            "of submind serve: it takes all of them",
            word, *ours != '\0' ? "; here it is --" : "", ours, *note != '\0' ? " (" : "", note,
            *note != '\0' ? ")" : "");
    struct hint near = hint_of(name);
    bool elsewhere = false;
    for (size_t i = 0; i < N_SETTINGS; i++) {
        if ((settings_table[i].commands & command) != 0) hint_offer(&near, settings_table[i].name);
        elsewhere = elsewhere || (dashes == 2 && strcmp(settings_table[i].name, name) == 0);
    }
    if (near.best != NULL)
        return err_set(e, ERR_INPUT, "unknown flag %.60s; did you mean --%s?", word, near.best);
    return err_set(e, ERR_INPUT, "unknown flag %.60s%s; --help lists those that exist", word,
                   elsewhere ? " (other commands have it)" : "");
}

// One flag at argv[i]; *used is how many words it took.
static bool parse_flag(struct settings *s, enum command_bit command, int argc, char **argv, int i,
                       int *used, struct err *e)
{
    const char *word = argv[i];
    if (strcmp(word, "-h") == 0) word = "--help";
    const char *name = word + 2, *equals = strchr(word, '=');
    size_t n = equals != NULL && equals > name ? (size_t)(equals - name) : strlen(name);
    const struct setting *t = word[1] == '-' ? find(command, name, n) : NULL;
    if (word[1] != '-' && word[1] != '\0' && word[2] == '\0') t = find(command, word + 1, 1);
    if (t == NULL) return unknown_flag(command, argv[i], e);
    *used = 1;
    if (t->type == SETTING_FLAG) {
        if (equals != NULL) return err_set(e, ERR_INPUT, "--%s takes no value", t->name);
        return store(s, t, "", e);
    }
    if (equals != NULL) return store(s, t, equals + 1, e);
    if (i + 1 >= argc) return err_set(e, ERR_INPUT, "--%s needs a value: %s", t->name, t->arg);
    *used = 2;
    return store(s, t, argv[i + 1], e);
}

bool options_parse(struct settings *out, enum command_bit command, int argc, char **argv,
                   struct err *e)
{
    struct settings s = {0};
    int n = 0;
    bool flags_over = false;
    if (!read_environment(&s, command, e)) return false;
    for (int i = 1; i < argc;) {
        int used = 1;
        if (!flags_over && strcmp(argv[i], "--") == 0)
            flags_over = true;
        else if (flags_over || argv[i][0] != '-' || argv[i][1] == '\0')
            argv[1 + n++] = argv[i];
        else if (!parse_flag(&s, command, argc, argv, i, &used, e))
            return false;
        i += used;
    }
    s.args = (const char *const *)(argv + 1);
    s.n_args = n;
    *out = s;
    return true;
}

bool options_row(size_t i, struct option_row *out)
{
    if (i >= N_SETTINGS) return false;
    const struct setting *t = &settings_table[i];
    *out = (struct option_row){t->commands, t->name, t->arg, t->help};
    return true;
}

void options_help(enum command_bit bit, const char *command)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const struct setting *t = &settings_table[i];
        if ((t->commands & bit) == 0) continue;
        char flag[64];
        struct buf text = {0};
        snprintf(flag, sizeof flag, "--%s %s", t->name, t->arg);
        help_text(&text, t->help, t->commands, command);
        help_print(flag, buf_cstr(&text));
        buf_free(&text);
    }
}

const char *options_env(const char *name)
{
    const char *text = getenv(name);
    return text == NULL || *text == '\0' ? NULL : text;
}

bool options_engine(const struct settings *s, struct engine_settings *out, struct err *e)
{
    struct engine_settings es = {
        .model_path = s->model,
        .device = s->device == NULL ? "auto" : s->device,
        .n_threads = s->threads,
        .n_ctx = s->ctx,
        .n_parallel = s->parallel,
        .n_queue = s->queue,
        .kv_bytes = s->kv_memory,
        .kv_type = s->kv_type,
        .prefill_type = s->prefill_type,
        .step_ms = s->step_ms,
        .cache_dir = s->cache_dir,
        .cache_disk_bytes = s->cache_disk,
        .has_cache_ram = s->given.cache_ram,
        .cache_ram_bytes = s->cache_ram,
        .cache_type = s->cache_type,
        .warm = s->warm,
        .cache_quota = s->cache_quota,
    };
    if (es.cache_dir != NULL && strcmp(es.cache_dir, "off") == 0) es.cache_dir = NULL;
    if (es.model_path == NULL && !default_model_path(&es.model_path, e)) return false;
    if (s->model != NULL && !model_path(s->model, &es.model_path, e)) return false;
    *out = es;
    return true;
}

void options_home(struct buf *out, const char *xdg, const char *below)
{
    const char *dir = options_env(xdg), *home = options_env("HOME");
    if (dir != NULL && dir[0] == '/')
        buf_printf(out, "%s/submind", dir);
    else if (home != NULL && home[0] == '/')
        buf_printf(out, "%s/%s/submind", home, below);
}

void options_sampling(const struct settings *s, struct sampling *out)
{
    *out = (struct sampling){
        .has_temperature = s->given.temperature,
        .temperature = s->temperature,
        .has_top_k = s->given.top_k,
        .top_k = s->top_k,
        .has_top_p = s->given.top_p,
        .top_p = s->top_p,
        .has_min_p = s->given.min_p,
        .min_p = s->min_p,
        .has_repeat_penalty = s->given.repeat_penalty,
        .repeat_penalty = s->repeat_penalty,
    };
}

static struct str setting_text(const struct settings *s, const struct setting *t, struct arena *a)
{
    const char *p = (const char *)s + t->offset;
    struct buf b = {0};
    switch (t->type) {
    case SETTING_STR: buf_z(&b, *(const char *const *)(const void *)p); break;
    case SETTING_U32: buf_printf(&b, "%u", *(const uint32_t *)(const void *)p); break;
    case SETTING_F32: buf_printf(&b, "%.9g", (double)*(const float *)(const void *)p); break;
    case SETTING_SIZE: buf_printf(&b, "%zu", *(const size_t *)(const void *)p); break;
    case SETTING_FLAG: break;
    }
    struct str text = b.failed ? (struct str){NULL, 0} : arena_str(a, buf_view(&b));
    buf_free(&b);
    return text;
}

static bool put_words(const struct settings *s, bool (*wanted)(const struct setting *t),
                      struct arena *a, const char **argv, size_t *n, size_t max)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const struct setting *t = &settings_table[i];
        if (!wanted(t) || !*((const bool *)(const void *)s + t->given_offset)) continue;
        const bool has_value = t->type != SETTING_FLAG;
        struct buf flag = {0};
        buf_printf(&flag, "--%s", t->name);
        struct str name = arena_str(a, buf_view(&flag)), text = setting_text(s, t, a);
        buf_free(&flag);
        if (name.p == NULL || text.p == NULL || *n + 2 > max) return false;
        argv[(*n)++] = name.p;
        if (has_value) argv[(*n)++] = text.p;
    }
    return true;
}

static bool is_engine(const struct setting *t)
{
    return (t->commands & C_ENGINE) == C_ENGINE && t->commands != C_ALL;
}

static bool is_serve(const struct setting *t)
{
    return (t->commands & C_SERVE) != 0 && strcmp(t->name, "help") != 0;
}

bool options_engine_words(const struct settings *s, struct arena *a, const char **argv, size_t *n,
                          size_t max)
{
    return put_words(s, is_engine, a, argv, n, max);
}

bool options_serve_words(const struct settings *s, struct arena *a, const char **argv, size_t *n,
                         size_t max)
{
    return put_words(s, is_serve, a, argv, n, max);
}
