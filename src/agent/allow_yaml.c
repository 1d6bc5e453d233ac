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

static bool read_run(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                     struct allow_rule *rule, struct err *e)
{
    return read_patterns(r, f, n, &rule->patterns, e) && check_patterns(r, f, rule, e);
}

static bool read_shell(const struct yaml_reading *r, const struct yaml_field *f,
                       const yaml_node_t *n, struct allow_rule *rule, struct err *e)
{
    if (!yaml_is_text(n)) return yaml_wrong(r, f, n, "a list whose \"shell\" is a text", e);
    return yaml_read_text(yaml_scalar(n), &rule->shell, e);
}

static bool read_secrets(const struct yaml_reading *r, const struct yaml_field *f,
                         const yaml_node_t *n, struct allow_rule *rule, struct err *e)
{
    struct yaml_field names = {f->group, f->name, .kind = FIELD_NAMES};
    return yaml_read_list(r, &names, n, &rule->secrets, e);
}

static bool read_write(const struct yaml_reading *r, const struct yaml_field *f,
                       const yaml_node_t *n, struct allow_rule *rule, struct err *e)
{
    struct yaml_field paths = {f->group, f->name, .kind = FIELD_PATHS};
    return yaml_read_list(r, &paths, n, &rule->write, e);
}

static bool read_network(const struct yaml_reading *r, const struct yaml_field *f,
                         const yaml_node_t *n, struct allow_rule *rule, struct err *e)
{
    return yaml_read_flag(r, f, n, &rule->network, e);
}

static bool read_sandbox(const struct yaml_reading *r, const struct yaml_field *f,
                         const yaml_node_t *n, struct allow_rule *rule, struct err *e)
{
    bool on = true;
    bool ok = yaml_read_flag(r, f, n, &on, e);
    rule->no_sandbox = !on;
    return ok;
}

static bool read_repeat(const struct yaml_reading *r, const struct yaml_field *f,
                        const yaml_node_t *n, struct allow_rule *rule, struct err *e)
{
    return yaml_read_flag(r, f, n, &rule->repeat, e);
}

static const struct {
    const char *name;
    bool (*read)(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                 struct allow_rule *rule, struct err *e);
} rule_keys[] = {
    {"run", read_run},       {"shell", read_shell},     {"secrets", read_secrets},
    {"write", read_write},   {"network", read_network}, {"sandbox", read_sandbox},
    {"repeat", read_repeat},
};

static bool read_key(const struct yaml_reading *r, const struct yaml_field *f,
                     const yaml_node_t *key, const yaml_node_t *value, struct allow_rule *rule,
                     struct err *e)
{
    for (size_t i = 0; i < sizeof rule_keys / sizeof rule_keys[0]; i++)
        if (str_eq(yaml_scalar(key), str_from(rule_keys[i].name)))
            return rule_keys[i].read(r, f, value, rule, e);
    return yaml_wrong(
        r, f, key, "rules with the keys run or shell, secrets, write, network, sandbox, repeat", e);
}

static bool read_mapping(const struct yaml_reading *r, const struct yaml_field *f,
                         const yaml_node_t *n, struct allow_rule *rule, struct err *e)
{
    const yaml_node_pair_t *p = n->data.mapping.pairs.start;
    for (; p < n->data.mapping.pairs.top; p++)
        if (!read_key(r, f, yaml_at(r, p->key), yaml_at(r, p->value), rule, e)) return false;
    if ((rule->patterns.n > 0) != (rule->shell != NULL)) return true;
    return complain(r, f, yaml_line(n), "a rule has either \"run\" or \"shell\"", e);
}

static bool read_rule(const struct yaml_reading *r, const struct yaml_field *f,
                      const yaml_node_t *n, struct allow_list *list, struct err *e)
{
    if (list->n == MAX_RULES) return complain(r, f, yaml_line(n), "more than 1000 rules", e);
    struct allow_rule *p = realloc(list->rules, (list->n + 1) * sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for the settings");
    list->rules = p;
    p[list->n] = (struct allow_rule){.line = yaml_line(n)};
    struct allow_rule *rule = &p[list->n++];
    if (n->type == YAML_MAPPING_NODE) return read_mapping(r, f, n, rule, e);
    return read_run(r, f, n, rule, e); // the short form: the list or text itself
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
