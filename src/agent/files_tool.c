// A path is first made plain as text (no ".", no ".."), then must begin with a listed one, and is
// then opened below it by the kernel with RESOLVE_BENEATH: a link may lead elsewhere inside, never
// out. Where the kernel has no openat2 every component is opened without following links. What was
// opened is what is looked at: no path is used twice.
#include "agent/files_tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/tool_text.h"

enum {
    MAX_PATH_BYTES = 4096,
    MAX_FILE_BYTES = 16 << 20,
    MAX_ENTRIES = 10000,
    MAX_DEPTH = 200,
};

// ---- paths ----------------------------------------------------------------------------------

// The absolute path without ".", ".." and doubled slashes; ".." at the root stays there.
static void make_plain(const char *dir, struct str path, struct buf *out)
{
    struct buf whole = {0};
    if (path.n == 0 || path.p[0] != '/') buf_printf(&whole, "%s/", dir);
    buf_str(&whole, path);
    const char *p = buf_cstr(&whole);
    while (*p != '\0') {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            while (out->n > 0 && out->p[out->n - 1] != '/') out->n--;
            if (out->n > 0) out->n--;
        } else if (n > 0 && !(n == 1 && p[0] == '.')) {
            buf_c(out, '/');
            buf_put(out, p, n);
        }
        p += n;
        while (*p == '/') p++;
    }
    if (out->n == 0) buf_c(out, '/');
    buf_free(&whole);
}

// What stands behind root in path; NULL when path is not below it.
static const char *rest_below(const char *root, const char *path)
{
    size_t n = strlen(root);
    if (strcmp(root, "/") == 0) return path + 1;
    if (strncmp(root, path, n) != 0 || (path[n] != '/' && path[n] != '\0')) return NULL;
    return path[n] == '/' ? path + n + 1 : path + n;
}

// Without openat2: component by component, links refused.
static int walk_below(int root, const char *rest, int flags)
{
    int at = dup(root);
    for (int depth = 0; at >= 0 && *rest != '\0' && depth < MAX_DEPTH; depth++) {
        char name[256];
        size_t n = strcspn(rest, "/");
        bool last = rest[n] == '\0';
        if (n >= sizeof name) {
            close(at);
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(name, rest, n);
        name[n] = '\0';
        int next = openat(at, name, (last ? flags : O_PATH | O_DIRECTORY | O_CLOEXEC) | O_NOFOLLOW);
        int error = errno;
        close(at);
        errno = error;
        at = next;
        rest += n + (last ? 0 : 1);
    }
    return at;
}

static int open_below(int root, const char *rest, int flags)
{
    struct open_how how = {.flags = (unsigned)flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, root, rest, &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) fd = walk_below(root, rest, flags);
    return fd;
}

static bool is_hidden(const struct files_tool *x, const struct stat *st)
{
    struct stat hidden;
    for (size_t i = 0; x->hide != NULL && i < x->hide->n; i++)
        if (stat(x->hide->p[i], &hidden) == 0 && hidden.st_dev == st->st_dev &&
            hidden.st_ino == st->st_ino)
            return true;
    return false;
}

static void refuse_path(const struct files_tool *x, const char *path, struct tool_result *r)
{
    struct buf roots = {0};
    for (size_t i = 0; i < x->settings->read.n && roots.n < 500; i++)
        buf_printf(&roots, "%s%s", i > 0 ? ", " : "", x->settings->read.p[i]);
    tool_refuse(r, "not allowed: %.300s (readable: %s)", path, buf_cstr(&roots));
    buf_free(&roots);
}

static void tell_errno(int error, const char *path, struct tool_result *r)
{
    if (error == EXDEV || error == ELOOP)
        tool_refuse(r, "not allowed: %.300s leads out of what may be read", path);
    else
        tool_fail(r, "%.300s: %s", path, strerror(error));
}

// -1 with the refusal or failure in r.
static int open_listed(const struct files_tool *x, json_t *args, int flags, struct stat *st,
                       struct tool_result *r)
{
    json_t *given = json_object_get(args, "path");
    struct str path = {json_string_value(given), json_string_length(given)};
    struct buf plain = {0};
    int fd = -1;
    if (path.p == NULL) path = STR(".");
    if (path.n >= MAX_PATH_BYTES || memchr(path.p, '\0', path.n) != NULL) {
        tool_refuse(r, "the path is too long or holds a NUL byte");
        return -1;
    }
    make_plain(x->dir, path, &plain);
    const char *z = buf_cstr(&plain);
    buf_z(&r->detail, z);
    for (size_t i = 0; i < x->settings->read.n && fd < 0; i++) {
        struct buf root = {0};
        make_plain("/", str_from(x->settings->read.p[i]), &root);
        const char *rest = rest_below(buf_cstr(&root), z);
        int at =
            rest != NULL ? open(buf_cstr(&root), *rest != '\0' ? O_PATH | O_CLOEXEC : flags) : -1;
        int error = errno;
        fd = at >= 0 && *rest != '\0' ? open_below(at, rest, flags) : at;
        if (at >= 0 && *rest != '\0') {
            error = errno;
            close(at);
        }
        buf_free(&root);
        if (rest != NULL && fd < 0) {
            buf_clear(&r->text);
            tell_errno(error, z, r);
        }
    }
    if (fd >= 0 && (fstat(fd, st) != 0 || is_hidden(x, st))) {
        close(fd);
        fd = -1;
        buf_clear(&r->text);
        tool_refuse(r, "not allowed: %.300s holds a secret", z);
    } else if (fd >= 0) {
        r->refused = r->failed = r->could_not_run = false;
        buf_clear(&r->text);
    }
    if (fd < 0 && r->text.n == 0) refuse_path(x, z, r);
    buf_free(&plain);
    return fd;
}

// ---- read_file ------------------------------------------------------------------------------

static bool read_all(int fd, struct buf *out)
{
    char chunk[65536];
    ssize_t n;
    while (out->n < MAX_FILE_BYTES && (n = read(fd, chunk, sizeof chunk)) != 0) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        buf_put(out, chunk, (size_t)n);
    }
    return true;
}

struct window {
    size_t first, limit;  // lines asked for, from 1; limit 0 = all
    size_t last, n_lines; // last one shown, all there are
};

// The asked lines of text, as many whole ones as fit.
static void put_lines(struct str text, struct window *w, size_t max_bytes, struct buf *out)
{
    size_t line = 1, used = 0;
    bool full = false;
    for (size_t at = 0; at < text.n; line++) {
        size_t end = str_find(text, STR("\n"), at);
        end = end == SIZE_MAX ? text.n : end + 1;
        struct str one = str_sub(text, at, end - at);
        bool wanted = line >= w->first && (w->limit == 0 || line < w->first + w->limit);
        full = full || (wanted && used > 0 && used + one.n > max_bytes);
        if (wanted && !full) {
            tool_text_put(out, one);
            used += one.n;
            w->last = line;
        }
        w->n_lines = line;
        at = end;
    }
}

// A schema's integer may come as 5.0, and may be larger than any file.
static size_t count_at(json_t *args, const char *name)
{
    double v = json_number_value(json_object_get(args, name));
    return v < 1 ? 0 : v > UINT32_MAX ? UINT32_MAX : (size_t)v;
}

static void put_file(const struct files_tool *x, struct str text, json_t *args,
                     struct tool_result *r)
{
    struct window w = {.first = count_at(args, "offset"), .limit = count_at(args, "limit")};
    size_t max_bytes = x->settings->output_bytes;
    if (w.first == 0) w.first = 1;
    if (text.n == 0) {
        buf_z(&r->text, "[the file is empty]");
        return;
    }
    put_lines(text, &w, max_bytes, &r->text);
    tool_text_trim_end(&r->text);
    tool_text_cut(&r->text, max_bytes); // one line that is longer than everything
    if (w.last == 0)
        buf_printf(&r->text, "[the file has %zu lines; none from %zu on]", w.n_lines, w.first);
    else if (w.first > 1 || w.last < w.n_lines)
        buf_printf(&r->text, "\n[lines %zu to %zu of %zu]", w.first, w.last, w.n_lines);
}

static bool run_read(void *arg, json_t *args, const struct tool_limits *limits,
                     struct tool_result *out, struct err *e)
{
    struct files_tool *x = arg;
    struct stat st;
    struct buf text = {0};
    (void)limits;
    (void)e;
    int fd = open_listed(x, args, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, &st, out);
    if (fd < 0) return true;
    if (S_ISDIR(st.st_mode))
        tool_fail(out, "%.300s is a folder", buf_cstr(&out->detail));
    else if (!S_ISREG(st.st_mode))
        tool_refuse(out, "%.300s is no file", buf_cstr(&out->detail));
    else if (!read_all(fd, &text))
        tool_fail(out, "%.300s: %s", buf_cstr(&out->detail), strerror(errno));
    else if (tool_text_is_binary(buf_view(&text)))
        buf_printf(&out->text, "[%lld bytes that are no text]", (long long)st.st_size);
    else
        put_file(x, buf_view(&text), args, out);
    if (text.failed) out->text.failed = true;
    close(fd);
    buf_free(&text);
    return true;
}

struct tool files_tool_read(struct files_tool *x)
{
    return (struct tool){
        .name = "read_file",
        .description = "Read a text file and return its content.",
        .parameters =
            "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"description\":"
            "\"File path; relative or absolute.\"},\"offset\":{\"type\":\"integer\",\"minimum\":1,"
            "\"description\":\"First line.\"},\"limit\":{\"type\":\"integer\",\"minimum\":1,"
            "\"description\":\"Most lines.\"}},\"required\":[\"path\"]}",
        .repeatable = true,
        .arg = x,
        .run = run_read};
}

// ---- list_files -----------------------------------------------------------------------------

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool read_names(DIR *d, struct words *names, bool *more, struct err *e)
{
    char **p = NULL;
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(d)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (names->n == MAX_ENTRIES) {
            *more = true;
            break;
        }
        if (names->n % 256 == 0) {
            p = realloc(names->p, (names->n + 257) * sizeof *p);
            if (p != NULL) names->p = p;
            ok = p != NULL;
        }
        char *copy = ok ? strdup(entry->d_name) : NULL;
        ok = copy != NULL || err_set(e, ERR_MEMORY, "no memory for a folder");
        if (ok) names->p[names->n++] = copy;
    }
    return ok;
}

// Folders with "/", files with their size; a link as what it is, not what it leads to.
static void put_entry(int dir, const char *name, struct buf *out)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return;
    struct buf clean = {0};
    tool_text_put(&clean, str_from(name));
    for (size_t i = 0; i < clean.n; i++) // one entry, one line
        buf_c(out, clean.p[i] == '\n' ? '?' : clean.p[i]);
    buf_free(&clean);
    if (S_ISDIR(st.st_mode))
        buf_c(out, '/');
    else if (S_ISREG(st.st_mode))
        buf_printf(out, " %lld bytes", (long long)st.st_size);
    else
        buf_z(out, S_ISLNK(st.st_mode) ? " link" : " special");
    buf_c(out, '\n');
}

static bool put_folder(const struct files_tool *x, int fd, const char *pattern,
                       struct tool_result *out, struct err *e)
{
    struct words names = {0};
    bool more = false;
    DIR *d = fdopendir(dup(fd));
    if (d == NULL) {
        tool_fail(out, "%.300s: %s", buf_cstr(&out->detail), strerror(errno));
        return true;
    }
    bool ok = read_names(d, &names, &more, e);
    closedir(d);
    if (ok && names.n > 0) qsort(names.p, names.n, sizeof *names.p, by_name);
    size_t n_left = 0;
    for (size_t i = 0; i < names.n; i++) {
        if (pattern != NULL && !allow_glob(pattern, names.p[i])) continue;
        if (out->text.n < x->settings->output_bytes)
            put_entry(fd, names.p[i], &out->text);
        else
            n_left++;
    }
    if (n_left > 0 || more)
        buf_printf(&out->text, "[%zu%s entries left out]", n_left, more ? " and more" : "");
    tool_text_trim_end(&out->text);
    if (out->text.n == 0) buf_z(&out->text, pattern != NULL ? "[nothing matches]" : "[empty]");
    words_free(&names);
    return ok;
}

static bool run_list(void *arg, json_t *args, const struct tool_limits *limits,
                     struct tool_result *out, struct err *e)
{
    struct files_tool *x = arg;
    struct stat st;
    (void)limits;
    bool ok = true;
    int fd = open_listed(x, args, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, &st, out);
    if (fd < 0) return true;
    if (S_ISDIR(st.st_mode))
        ok = put_folder(x, fd, json_string_value(json_object_get(args, "pattern")), out, e);
    else
        tool_fail(out, "%.300s is no folder", buf_cstr(&out->detail));
    close(fd);
    return ok;
}

struct tool files_tool_list(struct files_tool *x)
{
    return (struct tool){
        .name = "list_files",
        .description = "List a folder: its files with their sizes, its folders with a slash.",
        .parameters =
            "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"description\":"
            "\"Folder; relative or absolute.\"},\"pattern\":{\"type\":\"string\",\"description\":"
            "\"Only names like this, * for anything.\"}},\"required\":[\"path\"]}",
        .repeatable = true,
        .arg = x,
        .run = run_list};
}
