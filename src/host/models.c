// The folders are the list: nothing else is kept that could differ from them.
#include "host/models.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "host/download.h"

enum { MAX_DEPTH = 8, PART_SUFFIX = 20 }; // strlen("-00001-of-00002.gguf")

void models_dir(const char *home, const char *data_home, struct buf *out)
{
    if (data_home != NULL && data_home[0] == '/')
        buf_printf(out, "%s/submind/models", data_home);
    else
        buf_printf(out, "%s/.local/share/submind/models", home);
}

// ---- names ------------------------------------------------------------------------------------------

bool model_is_part(struct str file, uint32_t *i, uint32_t *n, struct str *stem)
{
    char tail[PART_SUFFIX + 1];
    unsigned a, b;
    int used = 0;
    if (file.n <= PART_SUFFIX) return false;
    memcpy(tail, file.p + file.n - PART_SUFFIX, PART_SUFFIX);
    tail[PART_SUFFIX] = '\0';
    if (sscanf(tail, "-%5u-of-%5u.gguf%n", &a, &b, &used) != 2 || used != PART_SUFFIX) return false;
    if (a == 0 || a > b) return false;
    *i = a;
    *n = b;
    *stem = str_sub(file, 0, file.n - PART_SUFFIX);
    return true;
}

// One word of a file's name: Q4_K_M, IQ3_XXS, BF16, F16, MXFP4, UD-Q4_K_XL without its UD.
static bool is_quant(struct str w)
{
    char t[24];
    if (w.n < 2 || w.n >= sizeof t) return false;
    for (size_t i = 0; i < w.n; i++) t[i] = (char)toupper((unsigned char)w.p[i]);
    t[w.n] = '\0';
    const char *p = t;
    if (strcmp(p, "BF16") == 0 || strcmp(p, "F16") == 0 || strcmp(p, "F32") == 0) return true;
    if (strncmp(p, "MXFP4", 5) == 0) return true;
    if (p[0] == 'I' || p[0] == 'T') p++;
    return p[0] == 'Q' && isdigit((unsigned char)p[1]) && (p[2] == '_' || p[2] == '\0');
}

struct str model_quant(struct str file)
{
    uint32_t i, n;
    struct str stem, found = {0};
    if (!model_is_part(file, &i, &n, &stem))
        stem = str_ends(file, STR(".gguf")) ? str_sub(file, 0, file.n - 5) : file;
    size_t from = 0;
    for (size_t k = 0; k <= stem.n; k++) {
        if (k < stem.n && stem.p[k] != '-' && stem.p[k] != '.' && stem.p[k] != '/') continue;
        struct str word = str_sub(stem, from, k - from);
        if (is_quant(word)) found = word;
        from = k + 1;
    }
    return found;
}

void model_volume(const char *path, struct buf *out)
{
    struct str stem, whole = str_from(path);
    uint32_t i, n;
    const size_t slash = str_rfind(whole, STR("/"));
    const bool split = model_is_part(whole, &i, &n, &stem) && slash != SIZE_MAX && slash > 0;
    buf_str(out, split ? str_sub(whole, 0, slash) : whole);
}

// "hf/OWNER/REPO/.../FILE" and its kin -> the name that people type.
static void put_name(struct str below, struct buf *out)
{
    size_t slash = str_find(below, STR("/"), 0);
    size_t second = slash == SIZE_MAX ? SIZE_MAX : str_find(below, STR("/"), slash + 1);
    struct str quant = model_quant(below);
    if (str_starts(below, STR("hf/")) && second != SIZE_MAX) {
        size_t third = str_find(below, STR("/"), second + 1);
        if (third == SIZE_MAX) third = below.n;
        buf_z(out, "hf:");
        buf_str(out, str_sub(below, 3, third - 3));
        if (quant.n > 0) buf_printf(out, ":%.*s", (int)quant.n, quant.p);
    } else if (str_starts(below, STR("ollama/")) && second != SIZE_MAX) {
        buf_z(out, "ollama:");
        buf_str(out, str_sub(below, 7, second - 7));
        buf_c(out, ':');
        buf_str(out, str_sub(below, second + 1, below.n - second - 6));
    } else {
        size_t last = str_rfind(below, STR("/"));
        buf_str(out, str_sub(below, last + 1, below.n)); // SIZE_MAX + 1 is 0
    }
}

// ---- walking ----------------------------------------------------------------------------------------

struct walk {
    const char *dir;
    struct model_file *out;
    size_t n, max;
    struct arena *arena;
};

static struct model_file *entry_of(struct walk *w, struct str path, struct str stem)
{
    for (size_t i = 0; i < w->n; i++) {
        struct str other;
        uint32_t a, b;
        if (w->out[i].n_parts > 1 && model_is_part(w->out[i].path, &a, &b, &other) &&
            str_eq(other, stem))
            return &w->out[i];
    }
    if (w->n == w->max) return NULL;
    struct model_file *m = &w->out[w->n];
    struct buf name = {0};
    *m = (struct model_file){.path = arena_str(w->arena, path), .n_parts = 1};
    put_name(str_sub(path, strlen(w->dir) + 1, path.n), &name);
    m->name = arena_str(w->arena, buf_view(&name));
    buf_free(&name);
    if (m->path.p == NULL || m->name.p == NULL) return NULL;
    w->n++;
    return m;
}

// path: "....gguf", the file or what it will be.
static void add(struct walk *w, struct str path, bool is_whole, uint64_t size, uint64_t done)
{
    uint32_t i = 1, n = 1;
    struct str stem = path;
    const bool part = model_is_part(path, &i, &n, &stem);
    struct model_file *m = entry_of(w, path, stem);
    if (m == NULL) return;
    if (part) m->n_parts = n;
    if (part && i == 1) m->path = arena_str(w->arena, path);
    m->size_bytes += size;
    m->done_bytes += done;
    if (is_whole) m->n_parts_there++;
}

static void walk_dir(struct walk *w, const char *dir, int depth)
{
    DIR *d = depth > MAX_DEPTH ? NULL : opendir(dir);
    if (d == NULL) return;
    for (struct dirent *de = readdir(d); de != NULL; de = readdir(d)) {
        struct buf path = {0};
        struct stat st;
        uint64_t total = 0;
        if (de->d_name[0] == '.') continue;
        buf_printf(&path, "%s/%s", dir, de->d_name);
        struct str text = buf_view(&path);
        if (stat(buf_cstr(&path), &st) != 0) {
            buf_free(&path); // a link to a blob that is gone
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            walk_dir(w, buf_cstr(&path), depth + 1);
        } else if (str_ends(text, STR(".gguf"))) {
            add(w, text, true, (uint64_t)st.st_size, (uint64_t)st.st_size);
        } else if (str_ends(text, STR(".gguf.part"))) {
            path.n -= 5;
            uint64_t done = download_part(buf_cstr(&path), &total);
            add(w, buf_view(&path), false, total, done);
        }
        buf_free(&path);
    }
    closedir(d);
}

static int by_path(const void *pa, const void *pb)
{
    const struct model_file *a = pa, *b = pb;
    return str_cmp(a->path, b->path);
}

size_t models_list(const char *dir, struct model_file *out, size_t max, struct arena *a)
{
    struct walk w = {dir, out, 0, max, a};
    walk_dir(&w, dir, 0);
    qsort(out, w.n, sizeof *out, by_path);
    return w.n;
}

// ---- finding ----------------------------------------------------------------------------------------

static bool is_whole(const struct model_file *m)
{
    return m->n_parts_there == m->n_parts;
}

static bool same(struct str a, struct str b)
{
    return a.n == b.n && strncasecmp(a.p, b.p, a.n) == 0;
}

static bool contains(struct str s, struct str part)
{
    for (size_t i = 0; i + part.n <= s.n; i++)
        if (strncasecmp(s.p + i, part.p, part.n) == 0) return true;
    return false;
}

// 3: it is the name; 1: a part of it; 0: not.
static int fits(const struct model_file *m, const char *dir, struct str name)
{
    struct str below = str_sub(m->path, strlen(dir) + 1, m->path.n);
    struct str file = str_sub(below, str_rfind(below, STR("/")) + 1, below.n);
    struct str bare = str_sub(file, 0, file.n - 5);
    if (same(m->name, name) || same(below, name) || same(file, name) || same(bare, name)) return 3;
    // hf:OWNER/REPO without the quantisation
    if (m->name.n > name.n && m->name.p[name.n] == ':' && same(str_sub(m->name, 0, name.n), name))
        return 2;
    return contains(m->name, name) || contains(file, name) ? 1 : 0;
}

bool models_find(const char *dir, const char *name, struct buf *out, struct err *e)
{
    struct arena a = {0};
    struct model_file *all = arena_array(&a, MODELS_MAX, sizeof *all);
    size_t n = all == NULL ? 0 : models_list(dir, all, MODELS_MAX, &a), n_best = 0;
    const struct model_file *best = NULL;
    struct buf names = {0};
    int best_fit = 1;
    for (size_t i = 0; i < n; i++) {
        int fit = fits(&all[i], dir, str_from(name));
        fit = fit == 0 ? 0 : 2 * fit + is_whole(&all[i]); // of equal ones those that can be served
        if (fit < best_fit) continue;
        if (fit > best_fit || n_best == 0) buf_clear(&names);
        n_best = fit > best_fit ? 1 : n_best + 1;
        best_fit = fit;
        best = &all[i];
        buf_printf(&names, " %.*s", (int)all[i].name.n, all[i].name.p);
    }
    bool ok = n_best == 1;
    if (n_best == 0)
        err_set(e, ERR_NOT_FOUND,
                "there is no file and no fetched model \"%.200s\"; submind pull --list shows what "
                "there is, submind pull hf:OWNER/REPO:QUANT fetches one",
                name);
    else if (!ok)
        err_set(e, ERR_INPUT, "\"%.100s\" fits several models:%.300s", name, buf_cstr(&names));
    else if (!is_whole(best))
        ok = err_set(e, ERR_NOT_FOUND, "%.*s is not whole yet; go on with submind pull",
                     (int)best->name.n, best->name.p);
    else
        buf_str(out, best->path);
    buf_free(&names);
    arena_free(&a);
    return ok;
}
