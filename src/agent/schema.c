// The schema is walked beside the value. Each keyword is a row of a table, so that none is
// forgotten when another is added; a keyword whose own value is of the wrong shape says nothing.
// Bounded by depth and by a count of steps, because a schema comes from a server.
#include "agent/schema.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MAX_DEPTH = 64, MAX_STEPS = 100000, MAX_COMPLAINTS = 4, MAX_SHOWN = 80 };

struct checking {
    const json_t *root;
    struct buf *why;  // NULL: only the answer counts (anyOf, not)
    struct buf *path; // "a.b[2]" of the value that is looked at
    unsigned depth, steps, n_complaints;
};

static bool check(struct checking *c, const json_t *schema, const json_t *value);

// ---- complaints -----------------------------------------------------------------------------

static void put_json(struct buf *out, const json_t *v, size_t limit)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    struct str s = str_from(text);
    if (s.n > limit) { // at a character's start
        while (limit > 0 && ((unsigned char)s.p[limit] & 0xc0) == 0x80) limit--;
        buf_put(out, s.p, limit);
        buf_z(out, "...");
    } else {
        buf_str(out, s);
    }
    free(text);
}

static void put_value(struct buf *out, const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list", [JSON_STRING] = "the text ",
        [JSON_INTEGER] = "",         [JSON_REAL] = "",        [JSON_TRUE] = "",
        [JSON_FALSE] = "",           [JSON_NULL] = ""};
    buf_z(out, names[json_typeof(v)]);
    if (!json_is_object(v) && !json_is_array(v)) put_json(out, v, MAX_SHOWN);
}

// "PATH must be WANTED, not VALUE". Always false.
static bool wrong(struct checking *c, const char *wanted, const json_t *value)
{
    if (c->why == NULL || c->n_complaints >= MAX_COMPLAINTS) return false;
    c->n_complaints++;
    if (c->why->n > 0) buf_z(c->why, "; ");
    if (c->path->n > 0)
        buf_printf(c->why, "\"%s\"", buf_cstr(c->path));
    else
        buf_z(c->why, "the arguments");
    buf_printf(c->why, " must %s", wanted);
    if (value == NULL) return false;
    buf_z(c->why, ", not ");
    put_value(c->why, value);
    return false;
}

static bool wrong_f(struct checking *c, const json_t *value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool wrong_f(struct checking *c, const json_t *value, const char *fmt, ...)
{
    char wanted[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(wanted, sizeof wanted, fmt, ap);
    va_end(ap);
    return wrong(c, wanted, value);
}

// ---- walking --------------------------------------------------------------------------------

static bool check_member(struct checking *c, const json_t *schema, const char *name,
                         const json_t *value)
{
    size_t n = c->path->n;
    buf_printf(c->path, "%s%s", n > 0 ? "." : "", name);
    bool ok = check(c, schema, value);
    c->path->n = n;
    return ok;
}

static bool check_item(struct checking *c, const json_t *schema, size_t i, const json_t *value)
{
    size_t n = c->path->n;
    buf_printf(c->path, "[%zu]", i);
    bool ok = check(c, schema, value);
    c->path->n = n;
    return ok;
}

// Would it fit? Without complaints.
static bool fits(struct checking *c, const json_t *schema, const json_t *value)
{
    struct buf *why = c->why;
    c->why = NULL;
    bool ok = check(c, schema, value);
    c->why = why;
    return ok;
}

// ---- any value ------------------------------------------------------------------------------

static bool is_whole(const json_t *v)
{
    return json_is_integer(v) ||
           (json_is_real(v) && floor(json_real_value(v)) == json_real_value(v));
}

static bool has_type(const json_t *v, const char *type)
{
    static const struct {
        const char *name;
        unsigned types;
    } rows[] = {{"object", 1u << JSON_OBJECT},
                {"array", 1u << JSON_ARRAY},
                {"string", 1u << JSON_STRING},
                {"number", 1u << JSON_INTEGER | 1u << JSON_REAL},
                {"boolean", 1u << JSON_TRUE | 1u << JSON_FALSE},
                {"null", 1u << JSON_NULL}};
    if (strcmp(type, "integer") == 0) return is_whole(v);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(type, rows[i].name) == 0) return (rows[i].types >> json_typeof(v) & 1u) != 0;
    return true; // no type that we know
}

static const char *type_words(const char *type)
{
    static const char *const words[][2] = {
        {"object", "an object"}, {"array", "a list"},           {"string", "a text"},
        {"number", "a number"},  {"integer", "a whole number"}, {"boolean", "true or false"},
        {"null", "null"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(type, words[i][0]) == 0) return words[i][1];
    return type;
}

static bool on_type(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    (void)schema;
    if (json_is_string(k))
        return has_type(v, json_string_value(k)) ||
               wrong_f(c, v, "be %.100s", type_words(json_string_value(k)));
    struct buf wanted = {0};
    size_t i;
    json_t *one;
    bool ok = !json_is_array(k);
    json_array_foreach(k, i, one)
    {
        if (!json_is_string(one)) continue;
        ok = ok || has_type(v, json_string_value(one));
        buf_printf(&wanted, "%s%s", i > 0 ? " or " : "", type_words(json_string_value(one)));
    }
    if (!ok) wrong_f(c, v, "be %.200s", buf_cstr(&wanted));
    buf_free(&wanted);
    return ok;
}

// json_equal, but 5 and 5.0 are one number, as in JSON Schema.
static bool same(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b) && json_typeof(a) != json_typeof(b))
        return json_number_value(a) == json_number_value(b);
    if (json_typeof(a) != json_typeof(b)) return false;
    if (json_is_array(a)) {
        bool ok = json_array_size(a) == json_array_size(b);
        for (size_t i = 0; ok && i < json_array_size(a); i++)
            ok = same(json_array_get(a, i), json_array_get(b, i));
        return ok;
    }
    if (!json_is_object(a)) return json_equal(a, b);
    const char *name;
    json_t *member;
    if (json_object_size(a) != json_object_size(b)) return false;
    json_object_foreach((json_t *)(uintptr_t)a, name, member)
    {
        const json_t *other = json_object_get(b, name);
        if (other == NULL || !same(member, other)) return false;
    }
    return true;
}

static bool on_enum(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    struct buf wanted = {0};
    size_t i;
    json_t *one;
    bool ok = !json_is_array(k);
    (void)schema;
    json_array_foreach(k, i, one)
    {
        ok = ok || same(one, v);
        if (i > 0) buf_z(&wanted, ", ");
        put_json(&wanted, one, MAX_SHOWN);
    }
    if (!ok) wrong_f(c, v, "be one of %.200s", buf_cstr(&wanted));
    buf_free(&wanted);
    return ok;
}

static bool on_const(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    (void)schema;
    if (same(k, v)) return true;
    struct buf wanted = {0};
    put_json(&wanted, k, MAX_SHOWN);
    wrong_f(c, v, "be %.200s", buf_cstr(&wanted));
    buf_free(&wanted);
    return false;
}

// ---- objects --------------------------------------------------------------------------------

static void put_names(struct buf *out, const json_t *properties)
{
    const char *name;
    json_t *ignored;
    json_object_foreach((json_t *)(uintptr_t)properties, name, ignored)
        buf_printf(out, "%s%s", out->n > 0 ? ", " : "", name);
}

static bool missing(struct checking *c, const json_t *schema, const char *name)
{
    const json_t *p = json_object_get(json_object_get(schema, "properties"), name);
    const char *type = json_string_value(json_object_get(p, "type"));
    const char *text = json_string_value(json_object_get(p, "description"));
    const char *is = type != NULL ? type_words(type) : "";
    return wrong_f(c, NULL, "have \"%.60s\"%s%s%s%.120s", name, *is != '\0' ? ", " : "", is,
                   text != NULL ? ": " : "", text != NULL ? text : "");
}

static bool on_required(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    size_t i;
    json_t *name;
    bool ok = true;
    if (!json_is_object(v)) return true;
    json_array_foreach(k, i, name) if (json_is_string(name) &&
                                       json_object_get(v, json_string_value(name)) == NULL) ok =
        missing(c, schema, json_string_value(name));
    return ok;
}

static bool on_properties(struct checking *c, const json_t *schema, const json_t *k,
                          const json_t *v)
{
    const char *name;
    json_t *member;
    bool ok = true;
    (void)schema;
    if (!json_is_object(v) || !json_is_object(k)) return true;
    json_object_foreach((json_t *)(uintptr_t)v, name, member)
    {
        const json_t *s = json_object_get(k, name);
        if (s != NULL) ok = check_member(c, s, name, member) && ok;
    }
    return ok;
}

// Does text match pattern somewhere? A pattern that PCRE2 does not take, or that takes too long,
// says nothing.
static bool matches(const char *pattern, struct str text)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
    if (re == NULL) return true;
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    int found = 0;
    if (data != NULL && limits != NULL) {
        pcre2_set_match_limit(limits, 200000);
        pcre2_set_depth_limit(limits, 1000);
        found = pcre2_match(re, (PCRE2_SPTR)text.p, text.n, 0, 0, data, limits);
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(data);
    pcre2_code_free(re);
    return found != PCRE2_ERROR_NOMATCH;
}

static bool on_pattern_properties(struct checking *c, const json_t *schema, const json_t *k,
                                  const json_t *v)
{
    const char *name, *pattern;
    json_t *member, *s;
    bool ok = true;
    (void)schema;
    if (!json_is_object(v) || !json_is_object(k)) return true;
    json_object_foreach((json_t *)(uintptr_t)v, name, member) json_object_foreach(
        (json_t *)(uintptr_t)k, pattern, s) if (matches(pattern, str_from(name))) ok =
        check_member(c, s, name, member) && ok;
    return ok;
}

static bool is_named(const json_t *schema, const char *name)
{
    const char *pattern;
    json_t *s;
    if (json_object_get(json_object_get(schema, "properties"), name) != NULL) return true;
    json_object_foreach(json_object_get(schema, "patternProperties"), pattern,
                        s) if (matches(pattern, str_from(name))) return true;
    return false;
}

static bool on_additional(struct checking *c, const json_t *schema, const json_t *k,
                          const json_t *v)
{
    const char *name;
    json_t *member;
    bool ok = true;
    if (!json_is_object(v)) return true;
    json_object_foreach((json_t *)(uintptr_t)v, name, member)
    {
        if (is_named(schema, name)) continue;
        if (!json_is_false(k)) {
            ok = check_member(c, k, name, member) && ok;
            continue;
        }
        struct buf names = {0};
        put_names(&names, json_object_get(schema, "properties"));
        ok = wrong_f(c, NULL, "not have \"%.60s\"; there is: %.200s", name, buf_cstr(&names));
        buf_free(&names);
    }
    return ok;
}

static bool on_property_names(struct checking *c, const json_t *schema, const json_t *k,
                              const json_t *v)
{
    const char *name;
    json_t *ignored;
    bool ok = true;
    (void)schema;
    if (!json_is_object(v)) return true;
    json_object_foreach((json_t *)(uintptr_t)v, name, ignored)
    {
        json_t *text = json_string(name);
        if (text != NULL && !fits(c, k, text))
            ok = wrong_f(c, NULL, "not have a member named \"%.60s\"", name);
        json_decref(text);
    }
    return ok;
}

static bool on_dependent(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    const char *name;
    json_t *needs;
    bool ok = true;
    if (!json_is_object(v) || !json_is_object(k)) return true;
    json_object_foreach((json_t *)(uintptr_t)k, name, needs) if (json_object_get(v, name) != NULL)
        ok = on_required(c, schema, needs, v) && ok;
    return ok;
}

// ---- lists ----------------------------------------------------------------------------------

static bool on_prefix_items(struct checking *c, const json_t *schema, const json_t *k,
                            const json_t *v)
{
    size_t i;
    json_t *s;
    bool ok = true;
    (void)schema;
    if (!json_is_array(v)) return true;
    json_array_foreach(k, i, s) if (i < json_array_size(v)) ok =
        check_item(c, s, i, json_array_get(v, i)) && ok;
    return ok;
}

static bool on_items(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    if (!json_is_array(v)) return true;
    if (json_is_array(k)) return on_prefix_items(c, schema, k, v); // the older form
    bool ok = true;
    size_t first = json_array_size(json_object_get(schema, "prefixItems"));
    for (size_t i = first; i < json_array_size(v); i++)
        ok = check_item(c, k, i, json_array_get(v, i)) && ok;
    return ok;
}

static bool on_contains(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    size_t i;
    json_t *item;
    (void)schema;
    if (!json_is_array(v)) return true;
    json_array_foreach(v, i, item) if (fits(c, k, item)) return true;
    return wrong(c, "contain an item that its schema asks for", NULL);
}

static bool on_unique(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    (void)schema;
    if (!json_is_true(k) || !json_is_array(v)) return true;
    for (size_t i = 0; i < json_array_size(v); i++)
        for (size_t j = 0; j < i && c->steps < MAX_STEPS; j++, c->steps++)
            if (same(json_array_get(v, i), json_array_get(v, j)))
                return wrong(c, "hold each item once", NULL);
    return true;
}

// ---- sizes ----------------------------------------------------------------------------------

static size_t characters(const json_t *v)
{
    size_t n = 0;
    const char *p = json_string_value(v);
    for (size_t i = 0; i < json_string_length(v); i++) n += ((unsigned char)p[i] & 0xc0) != 0x80;
    return n;
}

struct size_row {
    const char *keyword;
    json_type type; // JSON_NULL: a number
    bool is_max, exclusive;
    const char *wanted, *unit;
};
static const struct size_row sizes[] = {
    {"minLength", JSON_STRING, false, false, "have at least", " characters"},
    {"maxLength", JSON_STRING, true, false, "have at most", " characters"},
    {"minItems", JSON_ARRAY, false, false, "have at least", " items"},
    {"maxItems", JSON_ARRAY, true, false, "have at most", " items"},
    {"minProperties", JSON_OBJECT, false, false, "have at least", " members"},
    {"maxProperties", JSON_OBJECT, true, false, "have at most", " members"},
    {"minimum", JSON_NULL, false, false, "be at least", ""},
    {"maximum", JSON_NULL, true, false, "be at most", ""},
    {"exclusiveMinimum", JSON_NULL, false, true, "be more than", ""},
    {"exclusiveMaximum", JSON_NULL, true, true, "be less than", ""},
};

static bool measure(const json_t *v, json_type type, double *size)
{
    if (type == JSON_NULL) {
        *size = json_number_value(v);
        return json_is_number(v);
    }
    if (json_typeof(v) != type) return false;
    *size = (double)(type == JSON_STRING  ? characters(v)
                     : type == JSON_ARRAY ? json_array_size(v)
                                          : json_object_size(v));
    return true;
}

static bool check_sizes(struct checking *c, const json_t *schema, const json_t *v)
{
    bool all = true;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const struct size_row *row = &sizes[i];
        const json_t *k = json_object_get(schema, row->keyword);
        double size, limit = json_number_value(k);
        if (!json_is_number(k) || !measure(v, row->type, &size)) continue;
        double over = row->is_max ? size - limit : limit - size;
        if (over < 0 || (over == 0 && !row->exclusive)) continue;
        all = wrong_f(c, json_is_number(v) ? v : NULL, "%s %.15g%s", row->wanted, limit, row->unit);
    }
    return all;
}

static bool on_multiple(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    double step = json_number_value(k);
    (void)schema;
    if (!json_is_number(v) || !(step > 0)) return true;
    double q = json_number_value(v) / step;
    if (fabs(q - round(q)) <= 1e-9 * fmax(1, fabs(q))) return true;
    return wrong_f(c, v, "be a multiple of %.15g", step);
}

static bool on_pattern(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    (void)schema;
    if (!json_is_string(v) || !json_is_string(k)) return true;
    if (matches(json_string_value(k), (struct str){json_string_value(v), json_string_length(v)}))
        return true;
    return wrong_f(c, v, "match the pattern %.150s", json_string_value(k));
}

// ---- several schemas ------------------------------------------------------------------------

static bool on_all_of(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    size_t i;
    json_t *s;
    bool ok = true;
    (void)schema;
    json_array_foreach(k, i, s) ok = check(c, s, v) && ok;
    return ok;
}

static size_t count_fits(struct checking *c, const json_t *list, const json_t *v)
{
    size_t i, n = 0;
    json_t *s;
    json_array_foreach(list, i, s) n += fits(c, s, v);
    return n;
}

// When nothing fits, what the last alternative of the value's own type misses helps most.
static bool on_any_of(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    size_t i;
    json_t *s;
    (void)schema;
    if (json_array_size(k) == 0 || count_fits(c, k, v) > 0) return true;
    json_array_foreach(k, i, s)
    {
        const char *type = json_string_value(json_object_get(s, "type"));
        if (type != NULL && has_type(v, type)) return check(c, s, v);
    }
    struct buf wanted = {0};
    json_array_foreach(k, i, s)
    {
        const char *type = json_string_value(json_object_get(s, "type"));
        if (type != NULL) buf_printf(&wanted, "%s%s", wanted.n > 0 ? " or " : "", type_words(type));
    }
    wrong_f(c, v, "%s%.200s", wanted.n > 0 ? "be " : "fit one of the alternatives of its schema",
            buf_cstr(&wanted));
    buf_free(&wanted);
    return false;
}

static bool on_one_of(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    size_t n = count_fits(c, k, v);
    if (!json_is_array(k) || n == 1) return true;
    if (n == 0) return on_any_of(c, schema, k, v);
    return wrong_f(c, v, "fit exactly one alternative of its schema (it fits %zu)", n);
}

static bool on_not(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    (void)schema;
    if (!fits(c, k, v)) return true;
    return wrong(c, "be something that its schema does not exclude", v);
}

static bool on_if(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    const json_t *then = json_object_get(schema, fits(c, k, v) ? "then" : "else");
    return then == NULL || check(c, then, v);
}

// "#", "#/a/b" with ~0, ~1 and %XX; NULL for what is elsewhere.
static const json_t *resolve(const json_t *root, const char *ref)
{
    if (*ref++ != '#') return NULL;
    const json_t *at = root;
    struct buf name = {0};
    while (at != NULL && *ref == '/') {
        buf_clear(&name);
        for (ref++; *ref != '\0' && *ref != '/'; ref++) {
            unsigned code;
            char c = *ref;
            if (c == '~' && (ref[1] == '0' || ref[1] == '1'))
                c = *++ref == '0' ? '~' : '/';
            else if (c == '%' && sscanf(ref, "%%%2x", &code) == 1 && ref[1] != '\0' &&
                     ref[2] != '\0') {
                c = (char)code;
                ref += 2;
            }
            buf_c(&name, c);
        }
        at = json_is_array(at) ? json_array_get(at, strtoul(buf_cstr(&name), NULL, 10))
                               : json_object_get(at, buf_cstr(&name));
    }
    buf_free(&name);
    return *ref == '\0' ? at : NULL;
}

static bool on_ref(struct checking *c, const json_t *schema, const json_t *k, const json_t *v)
{
    const json_t *target = json_is_string(k) ? resolve(c->root, json_string_value(k)) : NULL;
    return target == NULL || target == schema || check(c, target, v);
}

// ---- the walk -------------------------------------------------------------------------------

// $ref and type stand first: what has the wrong type needs no second complaint.
static const struct {
    const char *keyword;
    bool (*check)(struct checking *c, const json_t *schema, const json_t *k, const json_t *v);
} keywords[] = {
    {"$ref", on_ref},
    {"required", on_required},
    {"properties", on_properties},
    {"patternProperties", on_pattern_properties},
    {"additionalProperties", on_additional},
    {"propertyNames", on_property_names},
    {"dependentRequired", on_dependent},
    {"prefixItems", on_prefix_items},
    {"items", on_items},
    {"contains", on_contains},
    {"uniqueItems", on_unique},
    {"enum", on_enum},
    {"const", on_const},
    {"multipleOf", on_multiple},
    {"pattern", on_pattern},
    {"allOf", on_all_of},
    {"anyOf", on_any_of},
    {"oneOf", on_one_of},
    {"not", on_not},
    {"if", on_if},
};

static bool check_keywords(struct checking *c, const json_t *schema, const json_t *value)
{
    const json_t *type = json_object_get(schema, "type");
    if (type != NULL && !on_type(c, schema, type, value)) return false;
    bool ok = check_sizes(c, schema, value);
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++) {
        const json_t *k = json_object_get(schema, keywords[i].keyword);
        if (k != NULL) ok = keywords[i].check(c, schema, k, value) && ok;
    }
    return ok;
}

static bool check(struct checking *c, const json_t *schema, const json_t *value)
{
    if (json_is_false(schema)) return wrong(c, "not be there", NULL);
    if (!json_is_object(schema)) return true;
    if (c->depth == MAX_DEPTH || c->steps >= MAX_STEPS) return wrong(c, "be less nested", NULL);
    c->depth++;
    c->steps++;
    bool ok = check_keywords(c, schema, value);
    c->depth--;
    return ok;
}

bool schema_check(const json_t *schema, const json_t *value, struct buf *why)
{
    struct buf path = {0};
    struct checking c = {.root = schema, .why = why, .path = &path};
    bool ok = check(&c, schema, value);
    buf_free(&path);
    return ok;
}
