// A remedy is either a text of its own or a set of kernel parameters that goes through the
// distribution's way of changing them. The invariant: a parameter that is set anew is removed first
// with its old value, so that running a plan twice changes nothing more.
#include "host/remedy.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

static const struct {
    const char *name, *add, *remove;
} args_table[] = {
#define ARGS(remedy, add, remove) {#remedy, add, remove},
#include "host/facts.def"
};

static const struct {
    enum distro distro;
    enum remedy_kind kind;
    const char *text;
} boot_table[] = {
#define BOOT(distro, kind, text) {distro, kind, text},
#include "host/facts.def"
};

static const struct {
    const char *name;
    enum distro distro;
    enum remedy_kind kind;
    const char *text;
} fix_table[] = {
#define FIX(remedy, distro, kind, text) {#remedy, distro, kind, text},
#include "host/facts.def"
};

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

// Ubuntu has rows where it differs from Debian; else Debian's hold.
static bool row_fits(enum distro row, enum distro here)
{
    return row == here || row == DISTRO_ANY || (row == DISTRO_DEBIAN && here == DISTRO_UBUNTU);
}

struct place {
    const char *name;
    struct str value;
};

static void fill(const char *text, const struct place *places, size_t n, struct buf *out)
{
    for (const char *p = text; *p != '\0';) {
        size_t i = 0;
        size_t len = 0;
        for (; i < n; i++) {
            len = strlen(places[i].name);
            if (strncmp(p, places[i].name, len) == 0) break;
        }
        if (i < n) {
            buf_str(out, places[i].value);
            p += len;
        } else {
            buf_c(out, *p++);
        }
    }
}

void remedy_sources(const char *text, struct buf *out)
{
    static const struct place places[] = {
#define SOURCE(letter, name) {letter, {name, sizeof(name) - 1}},
#include "host/facts.def"
    };
    fill(text, places, COUNT(places), out);
}

// A name from files that goes into commands: only what such names are made of.
static struct str plain(const char *name, const char *otherwise)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_.-@:/";
    const bool ok = name[0] != '\0' && name[0] != '-' && name[strspn(name, letters)] == '\0';
    return str_from(ok ? name : otherwise);
}

void remedy_expand(const struct doctor *d, const char *text, struct buf *out)
{
    const struct host *h = &d->host;
    const uint64_t gib = doctor_gtt_gib(h);
    struct buf b[6] = {{0}};
    buf_printf(&b[0], "%" PRIu64, gib);
    buf_printf(&b[1], "%" PRIu64, gib * 262144); // pages of 4 KiB
    buf_printf(&b[2], "%" PRIu64, gib * 1024);   // MiB
    buf_printf(&b[3], "%" PRIu32, h->uid);
    buf_printf(&b[4], "%" PRIu32, h->port);
    buf_printf(&b[5], "%" PRIu32, h->listener.pid);
    const struct host_box none = {.name = "", .image = ""};
    const struct host_box *box = h->bad_box != NULL ? h->bad_box : &none;
    const struct place places[] = {
        {"{gib}", buf_view(&b[0])},
        {"{pages}", buf_view(&b[1])},
        {"{gttsize}", buf_view(&b[2])},
        {"{uid}", buf_view(&b[3])},
        {"{port}", buf_view(&b[4])},
        {"{user}", plain(h->user, "\"$USER\"")},
        {"{process}", buf_view(&b[5])},
        {"{llama_unit}", plain(h->unit, "UNIT")},
        {"{unit}", plain(h->listener.unit, "UNIT")},
        {"{box}", plain(box->name, "NAME")},
        {"{image}", plain(box->image, "IMAGE")},
        {"{scope}", str_from(h->listener.user_unit ? "--user" : "--system")},
    };
    fill(text, places, COUNT(places), out);
    for (size_t i = 0; i < COUNT(b); i++) buf_free(&b[i]);
}

// The next word of *text; false at its end.
static bool next_word(const char **text, struct str *word)
{
    *text += strspn(*text, " ");
    word->p = *text;
    word->n = strcspn(*text, " ");
    *text += word->n;
    return word->n > 0;
}

static struct str key_of(struct str word)
{
    size_t eq = str_find(word, STR("="), 0);
    return eq == SIZE_MAX ? word : str_sub(word, 0, eq);
}

struct boot_change {
    struct buf add, remove, keys, adds, removes, list;
};

static void free_change(struct boot_change *c)
{
    struct buf *const all[] = {&c->add, &c->remove, &c->keys, &c->adds, &c->removes, &c->list};
    for (size_t i = 0; i < COUNT(all); i++) buf_free(all[i]);
}

static void separate(struct buf *b, const char *separator)
{
    if (b->n > 0) buf_z(b, separator);
}

static void change_key(struct boot_change *c, struct str key)
{
    struct str keys = buf_view(&c->keys);
    struct buf dotted = {0};
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] == '.') buf_c(&dotted, '\\');
        buf_c(&dotted, key.p[i]);
    }
    if (str_find(keys, buf_view(&dotted), 0) == SIZE_MAX ||
        strcmp("iommu", buf_cstr(&dotted)) == 0) {
        separate(&c->keys, "|");
        buf_str(&c->keys, buf_view(&dotted));
    }
    buf_free(&dotted);
}

static void change_add(struct boot_change *c, const struct host *h, struct str word)
{
    const char *line = h->cmdline;
    struct str old, key = key_of(word);
    separate(&c->add, " ");
    buf_str(&c->add, word);
    buf_printf(&c->adds, " --append-if-missing=%.*s", (int)word.n, word.p);
    buf_printf(&c->list, "\"%.*s\" ", (int)word.n, word.p);
    change_key(c, key);
    while (next_word(&line, &old)) { // the same parameter with another value
        if (!str_eq(key_of(old), key) || str_eq(old, word)) continue;
        buf_printf(&c->removes, " --delete-if-present=%.*s", (int)old.n, old.p);
    }
}

static void change_remove(struct boot_change *c, const struct host *h, struct str word)
{
    const char *line = h->cmdline;
    struct str old;
    bool there = false;
    while (next_word(&line, &old)) there = there || str_eq(old, word);
    if (!there) return;
    separate(&c->remove, " ");
    buf_str(&c->remove, word);
    buf_printf(&c->removes, " --delete-if-present=%.*s", (int)word.n, word.p);
    change_key(c, key_of(word));
}

static bool has_word(struct buf *list, struct str wanted)
{
    struct str word;
    for (const char *p = buf_cstr(list); next_word(&p, &word);)
        if (str_eq(word, wanted)) return true;
    return false;
}

// Once: a word may have stood in the way of two changes.
static void put_back(struct boot_change *c, struct str word)
{
    if (has_word(&c->add, word)) return;
    separate(&c->add, " ");
    buf_str(&c->add, word);
    buf_printf(&c->adds, " --append-if-missing=%.*s", (int)word.n, word.p);
    buf_printf(&c->list, "\"%.*s\" ", (int)word.n, word.p);
    change_key(c, key_of(word));
}

// What the change did, the other way round: added words go, words that stood there before come back.
static void turn_back(struct boot_change *c, const struct host *h)
{
    struct boot_change back = {{0}, {0}, {0}, {0}, {0}, {0}};
    struct str word, old;
    const char *p = buf_cstr(&c->add);
    while (next_word(&p, &word)) {
        const char *line = h->cmdline;
        separate(&back.remove, " ");
        buf_str(&back.remove, word);
        buf_printf(&back.removes, " --delete-if-present=%.*s", (int)word.n, word.p);
        change_key(&back, key_of(word));
        while (next_word(&line, &old))
            if (str_eq(key_of(old), key_of(word))) put_back(&back, old);
    }
    for (p = buf_cstr(&c->remove); next_word(&p, &word);) put_back(&back, word);
    free_change(c);
    *c = back;
}

enum remedy_kind remedy_boot(const struct doctor *d, const char *const *names, size_t n, bool back,
                             struct buf *out)
{
    struct boot_change c = {{0}, {0}, {0}, {0}, {0}, {0}};
    struct str word;
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < COUNT(args_table) && strcmp(args_table[k].name, names[i]) != 0) k++;
        if (k == COUNT(args_table)) continue;
        struct buf add = {0};
        remedy_expand(d, args_table[k].add, &add);
        const char *p = args_table[k].remove;
        while (next_word(&p, &word)) change_remove(&c, &d->host, word);
        for (p = buf_cstr(&add); next_word(&p, &word);) change_add(&c, &d->host, word);
        buf_free(&add);
    }
    if (back) turn_back(&c, &d->host);
    size_t row = 0;
    while (!row_fits(boot_table[row].distro, d->host.distro)) row++;
    const bool by_hand = boot_table[row].kind == BY_HAND; // read by people
    const struct place places[] = {
        {"{adds}", buf_view(&c.adds)},
        {"{removes}", buf_view(&c.removes)},
        {"{add}", buf_view(&c.add)},
        {"{remove}", by_hand && c.remove.n == 0 ? STR("nothing") : buf_view(&c.remove)},
        {"{keys}", buf_view(&c.keys)},
        {"{list}", buf_view(&c.list)},
    };
    fill(boot_table[row].text, places, COUNT(places), out);
    free_change(&c);
    return boot_table[row].kind;
}

static const struct {
    const char *name, *text;
} undo_table[] = {
#define UNDO(remedy, text) {#remedy, text},
#include "host/facts.def"
};

// What a remedy changes, as it was: for {old}.
static void put_old(const struct host *h, const char *name, struct buf *out)
{
    const char *open = strchr(h->huge_pages, '['), *close = strchr(h->huge_pages, ']');
    if (strcmp(name, "tuned_profile") == 0)
        buf_z(out, h->tuned_profile[0] != '\0' ? h->tuned_profile : "balanced");
    else if (strcmp(name, "power") == 0)
        buf_z(out, h->platform_profile);
    else if (strcmp(name, "groups") == 0)
        buf_printf(out, "%s%s", h->in_video ? "" : "video ", h->in_render ? "" : "render");
    else if (strcmp(name, "huge_pages") == 0 && open != NULL && close > open)
        buf_put(out, open + 1, (size_t)(close - open - 1));
}

bool remedy_undo(const struct doctor *d, const char *name, struct buf *out)
{
    for (size_t i = 0; i < COUNT(undo_table); i++) {
        if (strcmp(undo_table[i].name, name) != 0) continue;
        struct buf old = {0}, text = {0};
        put_old(&d->host, name, &old);
        const struct place places[] = {{"{old}", buf_view(&old)}};
        fill(undo_table[i].text, places, COUNT(places), &text);
        remedy_expand(d, buf_cstr(&text), out);
        buf_free(&old);
        buf_free(&text);
        return true;
    }
    return false;
}

enum remedy_kind remedy_text(const struct doctor *d, const char *name, struct buf *out)
{
    for (size_t i = 0; i < COUNT(args_table); i++) {
        if (strcmp(args_table[i].name, name) != 0) continue;
        remedy_boot(d, &name, 1, false, out);
        return AT_BOOT;
    }
    for (size_t i = 0; i < COUNT(fix_table);
         i++) { // a distribution's own row stands before DISTRO_ANY
        if (strcmp(fix_table[i].name, name) != 0) continue;
        if (!row_fits(fix_table[i].distro, d->host.distro)) continue;
        remedy_expand(d, fix_table[i].text, out);
        return fix_table[i].kind;
    }
    assert(!"a judge names a remedy that facts.def does not have");
    return BY_HAND;
}
