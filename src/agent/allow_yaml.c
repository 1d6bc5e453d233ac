// A rule is a list of patterns or a command line; the checks are those that allow.h assumes.
#include "agent/allow_yaml.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RULES = 1000 };

static bool complain(const struct yaml_reading *r, const struct yaml_field *f, int line,
                     const char *what, struct err *e)
{
    return err_set(e, ERR_INPUT, "%.200s:%d: %s%s%s: %s", r->file, line, f->group,
                   f->group[0] != '\0' ? "." : "", f->name, what);
}

static bool read_patterns(const struct yaml_reading *r, const struct yaml_field *f,
                          const yaml_node_t *n, struct words *out, struct err *e)
{
    struct err problem = {0};
    if (n->type == YAML_SCALAR_NODE && yaml_is_text(n)) {
        if (words_split(out, yaml_scalar(n), &problem)) return true;
        return complain(r, f, yaml_line(n), problem.msg, e);
    }
    if (n->type != YAML_SEQUENCE_NODE || n->data.sequence.items.start == n->data.sequence.items.top)
        return yaml_wrong(r, f, n, "a list of rules, each \"- run: [program, argument, ...]\"", e);
    const yaml_node_item_t *i = n->data.sequence.items.start;
    for (; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_at(r, *i);
        if (item->type != YAML_SCALAR_NODE)
            return yaml_wrong(r, f, item, "a list of rules whose arguments are texts", e);
        if (!words_put(out, yaml_scalar(item), &problem))
            return complain(r, f, yaml_line(item), problem.msg, e);
    }
    return true;
}

// "**" is the rest of a command, so nothing can stand behind it, and it cannot be the program.
static bool check_patterns(const struct yaml_reading *r, const struct yaml_field *f,
                           const struct allow_rule *rule, struct err *e)
{
    const struct words *w = &rule->patterns;
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->p[i], "**") == 0 && (i == 0 || i + 1 < w->n))
            return complain(r, f, rule->line,
                            "\"**\" stands for the rest of a command; it must come last, behind "
                            "the program",
                            e);
    if (w->p[0][0] == '\0') return complain(r, f, rule->line, "the program is empty", e);
    return true;
}

static bool read_rule(const struct yaml_reading *r, const struct yaml_field *f,
                      const yaml_node_t *n, struct allow_list *list, struct err *e)
{
    const yaml_node_t *run = n; // the short form: the list or text itself
    if (n->type == YAML_MAPPING_NODE) {
        const yaml_node_pair_t *p = n->data.mapping.pairs.start;
        const yaml_node_t *key = p < n->data.mapping.pairs.top ? yaml_at(r, p->key) : n;
        if (!str_eq(yaml_scalar(key), STR("run")) || p + 1 != n->data.mapping.pairs.top) {
            if (p + 1 < n->data.mapping.pairs.top && str_eq(yaml_scalar(key), STR("run")))
                key = yaml_at(r, p[1].key);
            return yaml_wrong(r, f, key, "rules with the one key \"run\"", e);
        }
        run = yaml_at(r, p->value);
    }
    if (list->n == MAX_RULES) return complain(r, f, yaml_line(n), "more than 1000 rules", e);
    struct allow_rule *p = realloc(list->rules, (list->n + 1) * sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for the settings");
    list->rules = p;
    p[list->n] = (struct allow_rule){.line = yaml_line(n)};
    struct allow_rule *rule = &p[list->n++];
    return read_patterns(r, f, run, &rule->patterns, e) && check_patterns(r, f, rule, e);
}

bool allow_yaml_read(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                     void *slot, struct err *e)
{
    struct allow_list *list = slot;
    if (n->type != YAML_SEQUENCE_NODE)
        return yaml_wrong(r, f, n, "a list of rules, each \"- run: [program, argument, ...]\"", e);
    const yaml_node_item_t *i = n->data.sequence.items.start;
    for (; i < n->data.sequence.items.top; i++)
        if (!read_rule(r, f, yaml_at(r, *i), list, e)) return false;
    return true;
}
