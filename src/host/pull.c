// A model of the hub is one file or the parts of one; which ones they are is decided by the quantisation in
// their names, from the hub's own list with sizes and hashes. When a file changes under our hands the list
// is asked for again, a few times at most.
#include "host/pull.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "host/models.h"

enum { MAX_FILES = 512, MAX_ASKS = 3, MAX_MANIFEST = 4 << 20 };

struct hub_file {
    struct str path;
    uint64_t size_bytes;
    char sha256[65]; // "" when the hub gives none
};

struct hub_list {
    struct arena arena;
    struct hub_file files[MAX_FILES];
    size_t n;
};

struct source {
    struct str repository, quant, revision; // of hf:
};

// ---- a file --------------------------------------------------------------------------------------

struct relay { // progress of one file as that of the whole model
    const struct pull *pull;
    const char *name;
    uint64_t before_bytes, total_bytes;
};

static void on_progress(void *arg, const struct download_progress *p)
{
    const struct relay *r = arg;
    struct download_progress all = *p;
    all.done_bytes += r->before_bytes;
    all.start_bytes += r->before_bytes;
    if (r->total_bytes > 0) all.total_bytes = r->total_bytes;
    if (r->pull->on_progress != NULL) r->pull->on_progress(r->pull->arg, r->name, &all);
}

static bool check_magic(const char *path, struct err *e)
{
    char magic[4] = "";
    FILE *f = fopen(path, "rb");
    const bool ok = f != NULL && fread(magic, 1, 4, f) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (f != NULL) fclose(f);
    if (ok) return true;
    unlink(path);
    return err_set(e, ERR_FORMAT, "%s is no GGUF file (the source sent something else); removed",
                   path);
}

static bool fetch_file(const struct pull *p, const char *url, const char *token, const char *path,
                       const struct hub_file *f, struct relay *relay, bool *changed, struct err *e)
{
    const struct download d = {.url = url,
                               .path = path,
                               .token = token,
                               .size_bytes = f->size_bytes,
                               .sha256 = f->sha256[0] != '\0' ? f->sha256 : NULL,
                               .piece_bytes = p->piece_bytes,
                               .n_connections = p->n_connections,
                               .cancel = p->cancel,
                               .on_progress = on_progress,
                               .arg = relay};
    struct stat st;
    *changed = false;
    if (stat(path, &st) == 0 && (f->size_bytes == 0 || (uint64_t)st.st_size == f->size_bytes))
        return true; // complete files only ever stand under their own name
    return download_run(&d, changed, e) && check_magic(path, e);
}

// ---- the hub ---------------------------------------------------------------------------------------

static bool plain_path(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && strchr("-_./+ ", s.p[i]) == NULL) return false;
    return s.n > 0 && s.p[0] != '/' && str_find(s, STR(".."), 0) == SIZE_MAX;
}

static bool parse_source(const char *text, struct source *out, struct err *e)
{
    struct str s = str_from(text);
    struct source r = {.revision = STR("main")};
    size_t at = str_find(s, STR("@"), 0);
    if (at != SIZE_MAX) r.revision = str_sub(s, at + 1, s.n);
    s = str_sub(s, 0, at);
    size_t colon = str_find(s, STR(":"), 0);
    if (colon != SIZE_MAX) r.quant = str_sub(s, colon + 1, s.n);
    r.repository = str_sub(s, 0, colon);
    size_t slash = str_find(r.repository, STR("/"), 0);
    const bool two = slash != SIZE_MAX && slash > 0 && slash + 1 < r.repository.n &&
                     str_find(r.repository, STR("/"), slash + 1) == SIZE_MAX;
    if (!two || !plain_path(r.repository) || !plain_path(r.revision))
        return err_set(e, ERR_INPUT,
                       "\"hf:%.100s\" is no model of the hub; write hf:OWNER/REPO:QUANT, as in "
                       "hf:Qwen/Qwen3-32B-GGUF:Q4_K_M",
                       text);
    *out = r;
    return true;
}

static void take_entry(struct hub_list *list, const json_t *entry)
{
    const char *path = json_string_value(json_object_get(entry, "path"));
    const json_t *lfs = json_object_get(entry, "lfs");
    const char *oid = json_string_value(json_object_get(lfs, "oid"));
    json_int_t size = json_integer_value(json_object_get(lfs != NULL ? lfs : entry, "size"));
    if (path == NULL || list->n == MAX_FILES || size <= 0) return;
    struct str s = str_from(path);
    if (!str_ends(s, STR(".gguf")) || !plain_path(s)) return;
    struct hub_file *f = &list->files[list->n];
    *f = (struct hub_file){.path = arena_str(&list->arena, s), .size_bytes = (uint64_t)size};
    if (oid != NULL && strncmp(oid, "sha256:", 7) == 0) oid += 7;
    if (oid != NULL && strlen(oid) == 64) snprintf(f->sha256, sizeof f->sha256, "%s", oid);
    if (f->path.p != NULL) list->n++;
}

static bool ask_hub(const struct pull *p, const struct source *s, struct hub_list *list,
                    struct err *e)
{
    struct buf url = {0}, text = {0};
    json_error_t why;
    arena_free(&list->arena);
    list->n = 0;
    buf_printf(&url, "%s/api/models/%.*s/tree/%.*s?recursive=true", p->hub, (int)s->repository.n,
               s->repository.p, (int)s->revision.n, s->revision.p);
    bool ok = download_text(buf_cstr(&url), p->token, p->cancel, &text, e);
    if (!ok && e->code == ERR_NOT_FOUND) {
        *e = (struct err){0};
        err_set(
            e, ERR_NOT_FOUND,
            "the hub has no %.*s (%s); look the name up there, and set HF_TOKEN for a private one",
            (int)s->repository.n, s->repository.p, buf_cstr(&url));
    }
    json_t *root = ok ? json_loadb(text.p, text.n, 0, &why) : NULL;
    if (ok && !json_is_array(root))
        ok = err_set(e, ERR_FORMAT, "%s is no list of files: %.100s", buf_cstr(&url),
                     root == NULL ? why.text : "no array");
    for (size_t i = 0; ok && i < json_array_size(root); i++)
        take_entry(list, json_array_get(root, i));
    json_decref(root);
    buf_free(&url);
    buf_free(&text);
    return ok;
}

// ---- which files -------------------------------------------------------------------------------------

static struct str base_name(struct str path)
{
    return str_sub(path, str_rfind(path, STR("/")) + 1, path.n);
}

// Projectors of pictures and importance matrices are no models.
static bool is_model(const struct hub_file *f)
{
    struct str name = base_name(f->path);
    return !str_starts(name, STR("mmproj")) && !str_starts(name, STR("imatrix"));
}

static bool has_quant(const struct hub_file *f, struct str quant)
{
    struct str found = model_quant(f->path);
    return found.n == quant.n && strncasecmp(found.p, quant.p, quant.n) == 0;
}

// The first file of each model: the file itself or part 1.
static bool is_first(const struct hub_file *f)
{
    uint32_t i = 1, n = 1;
    struct str stem;
    return !model_is_part(f->path, &i, &n, &stem) || i == 1;
}

static uint64_t size_of_model(const struct hub_list *list, const struct hub_file *first)
{
    uint32_t i, n;
    struct str stem, other;
    uint64_t size = first->size_bytes;
    if (!model_is_part(first->path, &i, &n, &stem)) return size;
    for (size_t k = 0; k < list->n; k++)
        if (&list->files[k] != first && model_is_part(list->files[k].path, &i, &n, &other) &&
            str_eq(other, stem))
            size += list->files[k].size_bytes;
    return size;
}

static void list_choices(const struct hub_list *list, struct buf *out)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct hub_file *f = &list->files[i];
        if (!is_model(f) || !is_first(f)) continue;
        struct str quant = model_quant(f->path);
        if (quant.n == 0) quant = base_name(f->path);
        buf_printf(out, "%s%.*s (%.1f GB)", out->n > 0 ? ", " : "", (int)quant.n, quant.p,
                   (double)size_of_model(list, f) / 1e9);
    }
}

// The only one of that quantisation; without one the only model there is, or its Q4_K_M.
static const struct hub_file *choose(const struct hub_list *list, const struct source *s,
                                     struct err *e)
{
    const struct hub_file *found = NULL, *common = NULL;
    size_t n_found = 0;
    struct buf choices = {0};
    for (size_t i = 0; i < list->n; i++) {
        const struct hub_file *f = &list->files[i];
        if (!is_model(f) || !is_first(f)) continue;
        if (has_quant(f, STR("Q4_K_M"))) common = f;
        const bool named = s->quant.n > 0 && str_eq(base_name(f->path), s->quant);
        if (s->quant.n > 0 && !named && !has_quant(f, s->quant)) continue;
        found = f;
        n_found++;
    }
    if (n_found > 1 && s->quant.n == 0 && common != NULL) {
        found = common;
        n_found = 1;
    }
    if (n_found == 1) return found;
    list_choices(list, &choices);
    if (choices.n == 0)
        err_set(e, ERR_NOT_FOUND,
                "%.*s has no GGUF files; quantised models often lie in a "
                "repository of their own, OWNER/NAME-GGUF",
                (int)s->repository.n, s->repository.p);
    else
        err_set(e, n_found == 0 ? ERR_NOT_FOUND : ERR_INPUT, "%.*s has %s%.*s; there are: %.350s",
                (int)s->repository.n, s->repository.p, n_found == 0 ? "no model " : "several of ",
                (int)s->quant.n, s->quant.p, buf_cstr(&choices));
    buf_free(&choices);
    return NULL;
}

// ---- fetching a model of the hub -----------------------------------------------------------------------

static void put_url(const struct pull *p, const struct source *s, struct str path, struct buf *out)
{
    buf_printf(out, "%s/%.*s/resolve/%.*s/", p->hub, (int)s->repository.n, s->repository.p,
               (int)s->revision.n, s->revision.p);
    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] == ' ' || path.p[i] == '+')
            buf_printf(out, "%%%02X", (unsigned char)path.p[i]);
        else
            buf_c(out, path.p[i]);
}

static bool fetch_one(const struct pull *p, const struct source *s, const struct hub_file *f,
                      struct relay *relay, struct buf *path, bool *changed, struct err *e)
{
    struct buf url = {0}, name = {0};
    put_url(p, s, f->path, &url);
    buf_str(&name, base_name(f->path));
    buf_printf(path, "%s/hf/%.*s/%.*s", p->dir, (int)s->repository.n, s->repository.p,
               (int)f->path.n, f->path.p);
    relay->name = buf_cstr(&name);
    bool ok = fetch_file(p, buf_cstr(&url), p->token, buf_cstr(path), f, relay, changed, e);
    relay->before_bytes += f->size_bytes;
    buf_free(&url);
    buf_free(&name);
    return ok;
}

// All parts of the model that begins with `first`. path: of the first one.
static bool fetch_model(const struct pull *p, const struct source *s, const struct hub_list *list,
                        const struct hub_file *first, struct buf *path, bool *changed,
                        struct err *e)
{
    uint32_t i = 1, n = 1, n_there = 0;
    struct str stem = {0}, other;
    const bool split = model_is_part(first->path, &i, &n, &stem);
    struct relay relay = {.pull = p, .total_bytes = size_of_model(list, first)};
    for (size_t k = 0; k < list->n; k++) {
        const struct hub_file *f = &list->files[k];
        uint32_t part = 1, of = 1;
        if (split ? !model_is_part(f->path, &part, &of, &other) || !str_eq(other, stem) || of != n
                  : f != first)
            continue;
        struct buf one = {0};
        bool ok = fetch_one(p, s, f, &relay, &one, changed, e);
        if (ok && part == 1) buf_str(path, buf_view(&one));
        buf_free(&one);
        if (!ok) return false;
        n_there++;
    }
    if (n_there == n) return true;
    return err_set(e, ERR_NOT_FOUND, "the hub has %u of the model's %u parts", n_there, n);
}

static bool pull_hub(const struct pull *p, const char *name, struct buf *path, struct err *e)
{
    struct source s = {0};
    if (!parse_source(name, &s, e)) return false;
    struct hub_list *list = calloc(1, sizeof *list);
    bool ok = list != NULL || err_set(e, ERR_MEMORY, "no memory for a list of files");
    for (int asks = 1; ok; asks++) {
        bool changed = false;
        struct err local = {0};
        const struct hub_file *first = NULL;
        ok = ask_hub(p, &s, list, e) && (first = choose(list, &s, e)) != NULL;
        if (!ok || fetch_model(p, &s, list, first, path, &changed, &local)) break;
        if (!changed || asks == MAX_ASKS) {
            ok = err_set(e, local.code, "%s", local.msg);
            break;
        }
        log_warn("pull", "%s; asking the hub again", local.msg);
        buf_clear(path);
    }
    if (list != NULL) arena_free(&list->arena);
    free(list);
    return ok;
}

// ---- a plain address -------------------------------------------------------------------------------------

static bool pull_url(const struct pull *p, struct buf *path, struct err *e)
{
    struct str url = str_from(p->source),
               rest = str_sub(url, str_find(url, STR("://"), 0) + 3, url.n);
    size_t slash = str_find(rest, STR("/"), 0), query = str_find(rest, STR("?"), 0);
    struct str host = str_sub(rest, 0, slash);
    struct str file = base_name(str_sub(rest, 0, query));
    struct buf name = {0}, clean_host = {0};
    for (size_t i = 0; i < host.n; i++) buf_c(&clean_host, host.p[i] == ':' ? '_' : host.p[i]);
    if (slash == SIZE_MAX || !str_ends(file, STR(".gguf")) || !plain_path(file) ||
        !plain_path(buf_view(&clean_host))) {
        buf_free(&clean_host);
        return err_set(e, ERR_INPUT, "%.200s is no address of a .gguf file", p->source);
    }
    buf_printf(path, "%s/url/%s/", p->dir, buf_cstr(&clean_host));
    buf_str(path, file);
    buf_str(&name, file);
    struct relay relay = {.pull = p, .name = buf_cstr(&name)};
    const struct hub_file unknown = {0};
    bool ok = false, changed = true;
    for (int tries = 1; !ok && changed && tries <= MAX_ASKS; tries++) {
        *e = (struct err){0};
        ok = fetch_file(p, p->source, NULL, buf_cstr(path), &unknown, &relay, &changed, e);
    }
    buf_free(&name);
    buf_free(&clean_host);
    return ok;
}

// ---- Ollama -----------------------------------------------------------------------------------------------

// The blob of the model's weights in a manifest: "sha256:..." -> "sha256-...".
static bool blob_of(const char *manifest, char out[80], struct err *e)
{
    struct buf text = {0};
    bool ok = file_read(&text, manifest, MAX_MANIFEST, e);
    json_t *root = ok ? json_loadb(text.p, text.n, 0, NULL) : NULL;
    const json_t *layers = json_object_get(root, "layers");
    bool found = false;
    for (size_t i = 0; i < json_array_size(layers) && !found; i++) {
        const json_t *layer = json_array_get(layers, i);
        const char *type = json_string_value(json_object_get(layer, "mediaType"));
        const char *digest = json_string_value(json_object_get(layer, "digest"));
        found = type != NULL && digest != NULL &&
                strcmp(type, "application/vnd.ollama.image.model") == 0 &&
                strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == 71 &&
                strspn(digest + 7, "0123456789abcdef") == 64;
        if (found) snprintf(out, 80, "sha256-%s", digest + 7);
    }
    json_decref(root);
    buf_free(&text);
    if (ok && !found) return err_set(e, ERR_FORMAT, "%s names no model", manifest);
    return ok;
}

static bool find_manifest(const struct pull *p, struct str name, struct str tag, struct buf *root,
                          struct buf *manifest, struct err *e)
{
    struct buf home = {0};
    buf_printf(&home, "%s/.ollama/models", p->home);
    const char *const usual[] = {p->ollama_dir, buf_cstr(&home), "/usr/share/ollama/.ollama/models",
                                 "/var/lib/ollama/.ollama/models", "/var/lib/ollama/models"};
    const size_t n = p->ollama_dir != NULL ? 1 : sizeof usual / sizeof usual[0];
    const bool owned = str_find(name, STR("/"), 0) != SIZE_MAX; // user/name, else the library's
    bool found = false;
    for (size_t i = 0; i < n && !found; i++) {
        struct stat st;
        if (usual[i] == NULL) continue;
        buf_clear(manifest);
        buf_printf(manifest, "%s/manifests/registry.ollama.ai/%s%.*s/%.*s", usual[i],
                   owned ? "" : "library/", (int)name.n, name.p, (int)tag.n, tag.p);
        found = stat(buf_cstr(manifest), &st) == 0;
        if (found) buf_z(root, usual[i]);
    }
    buf_free(&home);
    return found || err_set(e, ERR_NOT_FOUND,
                            "Ollama has no \"%.*s:%.*s\" here (looked for %s); see: ollama list",
                            (int)name.n, name.p, (int)tag.n, tag.p, buf_cstr(manifest));
}

static bool pull_ollama(const struct pull *p, const char *text, struct buf *path, struct err *e)
{
    struct str s = str_from(text), tag = STR("latest");
    size_t colon = str_find(s, STR(":"), 0);
    struct str name = str_sub(s, 0, colon);
    struct buf root = {0}, manifest = {0}, blob = {0};
    char digest[80];
    if (colon != SIZE_MAX) tag = str_sub(s, colon + 1, s.n);
    if (!plain_path(name) || !plain_path(tag))
        return err_set(e, ERR_INPUT, "\"ollama:%.100s\": write ollama:NAME or ollama:NAME:TAG",
                       text);
    bool ok =
        find_manifest(p, name, tag, &root, &manifest, e) && blob_of(buf_cstr(&manifest), digest, e);
    if (ok) {
        struct str flat = base_name(name);
        buf_printf(&blob, "%s/blobs/%s", buf_cstr(&root), digest);
        buf_printf(path, "%s/ollama/%.*s/%.*s.gguf", p->dir, (int)flat.n, flat.p, (int)tag.n,
                   tag.p);
        FILE *f = fopen(buf_cstr(&blob), "rb");
        char magic[4] = "";
        if (f == NULL)
            ok = err_errno(e, ERR_IO, "cannot read Ollama's %s", buf_cstr(&blob));
        else if (fread(magic, 1, 4, f) != 4 || memcmp(magic, "GGUF", 4) != 0)
            ok = err_set(e, ERR_FORMAT, "Ollama's %s is no GGUF file", buf_cstr(&blob));
        if (f != NULL) fclose(f);
    }
    ok = ok && file_make_parents(buf_cstr(path), e);
    if (ok) unlink(buf_cstr(path));
    if (ok && symlink(buf_cstr(&blob), buf_cstr(path)) != 0)
        ok = err_errno(e, ERR_IO, "cannot link %s", buf_cstr(path));
    buf_free(&root);
    buf_free(&manifest);
    buf_free(&blob);
    return ok;
}

bool pull_run(const struct pull *p, struct buf *path, struct err *e)
{
    if (strncmp(p->source, "hf:", 3) == 0) return pull_hub(p, p->source + 3, path, e);
    if (strncmp(p->source, "ollama:", 7) == 0) return pull_ollama(p, p->source + 7, path, e);
    if (strncmp(p->source, "https://", 8) == 0 || strncmp(p->source, "http://", 7) == 0)
        return pull_url(p, path, e);
    return err_set(e, ERR_INPUT,
                   "\"%.200s\" is no source; use hf:OWNER/REPO:QUANT, ollama:NAME or an https:// "
                   "address of a .gguf file",
                   p->source);
}
