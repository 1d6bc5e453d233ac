// Front matter of others is read leniently: only two keys matter, and a skill that cannot be read
// must not stop a workspace.
#include "agent/skills.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"
#include "base/utf8.h"

enum { MAX_SKILL_BYTES = 1 << 20, MAX_WORDS = 300 };

struct skill {
    char *path; // relative to the workspace: "skills/x/SKILL.md"
    struct buf name, about;
};

struct skills {
    struct skill *list;
    size_t n;
};

// ---- one file -------------------------------------------------------------------------------

static struct str scalar_of(yaml_document_t *doc, const char *key)
{
    yaml_node_t *root = yaml_document_get_root_node(doc);
    struct str none = {"", 0};
    if (root == NULL || root->type != YAML_MAPPING_NODE) return none;
    for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top;
         p++) {
        yaml_node_t *k = yaml_document_get_node(doc, p->key);
        yaml_node_t *v = yaml_document_get_node(doc, p->value);
        if (k->type == YAML_SCALAR_NODE && v->type == YAML_SCALAR_NODE &&
            str_eq((struct str){(char *)k->data.scalar.value, k->data.scalar.length},
                   str_from(key)))
            return (struct str){(char *)v->data.scalar.value, v->data.scalar.length};
    }
    return none;
}

// One line: what a description spreads over several would break the list.
static void put_line(struct buf *out, struct str text)
{
    text = str_trim(text);
    bool cut = text.n > MAX_WORDS;
    if (cut) text = str_sub(text, 0, MAX_WORDS - utf8_partial_tail(str_sub(text, 0, MAX_WORDS)));
    for (size_t i = 0; i < text.n; i++) buf_c(out, (unsigned char)text.p[i] < 32 ? ' ' : text.p[i]);
    if (cut) buf_z(out, "...");
}

static void take_front(struct skill *s, struct str name, struct str about)
{
    if (name.n > 0) {
        buf_clear(&s->name);
        put_line(&s->name, name);
    }
    put_line(&s->about, about);
}

// What stands behind "key:" on a line of its own; empty when nothing does.
static struct str line_of(struct str front, struct str key)
{
    struct str none = {"", 0};
    for (size_t at = 0; at < front.n;) {
        size_t end = str_find(front, STR("\n"), at);
        if (end == SIZE_MAX) end = front.n;
        struct str line = str_sub(front, at, end - at);
        if (str_starts(line, key)) {
            line = str_trim(str_sub(line, key.n, SIZE_MAX));
            bool quoted = line.n > 1 && (line.p[0] == '"' || line.p[0] == '\'') &&
                          line.p[line.n - 1] == line.p[0];
            return quoted ? str_sub(line, 1, line.n - 2) : line;
        }
        at = end + 1;
    }
    return none;
}

// As YAML; where it is none ("description: see: below" is common) by its line.
static void read_front(struct skill *s, struct str text)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    size_t end = str_find(text, STR("\n---"), 0);
    if (!str_starts(text, STR("---")) || end == SIZE_MAX || !yaml_parser_initialize(&parser))
        return;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, end + 1);
    if (yaml_parser_load(&parser, &doc)) {
        take_front(s, scalar_of(&doc, "name"), scalar_of(&doc, "description"));
        yaml_document_delete(&doc);
    } else {
        struct str front = str_sub(text, 0, end);
        struct str about = line_of(front, STR("description:"));
        if (about.n > 0 && strchr("[{>|&*!", about.p[0]) == NULL)
            take_front(s, (struct str){"", 0}, about);
    }
    yaml_parser_delete(&parser);
}

// ---- the folders ----------------------------------------------------------------------------

static bool put_skill(struct skills *s, const char *dir, const char *below, const char *folder,
                      struct err *e)
{
    struct buf path = {0}, text = {0};
    struct err ignored = {0};
    buf_printf(&path, "%s/%s/%s/SKILL.md", dir, below, folder);
    bool there = file_read_text(&text, buf_cstr(&path), MAX_SKILL_BYTES, NULL, &ignored);
    bool ok = true;
    if (there && s->n < SKILLS_MAX) {
        struct skill *p = realloc(s->list, (s->n + 1) * sizeof *p);
        ok = p != NULL || err_set(e, ERR_MEMORY, "no memory for the skills");
        if (ok) {
            s->list = p;
            p = &p[s->n++];
            *p = (struct skill){.path = strdup(buf_cstr(&path) + strlen(dir) + 1)};
            put_line(&p->name, str_from(folder));
            read_front(p, buf_view(&text));
            ok = p->path != NULL || err_set(e, ERR_MEMORY, "no memory for the skills");
        }
    }
    buf_free(&path);
    buf_free(&text);
    return ok;
}

static bool read_folder(struct skills *s, const char *dir, const char *below, struct err *e)
{
    struct buf path = {0};
    buf_printf(&path, "%s/%s", dir, below);
    DIR *d = opendir(buf_cstr(&path));
    bool ok = true;
    buf_free(&path);
    if (d == NULL) return true;
    for (struct dirent *entry; ok && (entry = readdir(d)) != NULL;)
        if (entry->d_name[0] != '.') ok = put_skill(s, dir, below, entry->d_name, e);
    closedir(d);
    return ok;
}

static int by_path(const void *pa, const void *pb)
{
    const struct skill *a = pa, *b = pb;
    return strcmp(a->path, b->path);
}

bool skills_put(const char *dir, struct buf *out, size_t *n, struct err *e)
{
    struct skills s = {0};
    size_t start = out->n, kept = 0;
    bool ok = read_folder(&s, dir, "skills", e) && read_folder(&s, dir, ".agents/skills", e);
    if (ok && s.n > 0) {
        qsort(s.list, s.n, sizeof *s.list, by_path);
        buf_z(out, "\n<skills>\nInstructions for particular tasks. When a task fits one, read its "
                   "file first.\n");
        for (; kept < s.n && out->n - start < SKILLS_BYTES; kept++) {
            buf_printf(out, "- %s (%s)", buf_cstr(&s.list[kept].name), s.list[kept].path);
            if (s.list[kept].about.n > 0) buf_printf(out, ": %s", buf_cstr(&s.list[kept].about));
            buf_c(out, '\n');
        }
        if (kept < s.n)
            buf_printf(out, "[the list is cut here: %zu skills left out; limit %d bytes]\n",
                       s.n - kept, SKILLS_BYTES);
        buf_z(out, "</skills>\n");
    }
    for (size_t i = 0; i < s.n; i++) {
        free(s.list[i].path);
        buf_free(&s.list[i].name);
        buf_free(&s.list[i].about);
    }
    free(s.list);
    *n = kept;
    return ok;
}
