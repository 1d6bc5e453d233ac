// Everything is made from its end: a function is given the place that follows and returns the place where
// its own part begins. What is used more than once, or contains itself, is a rule that is called.
#include "text/json_schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/json_number.h"

enum {
    INDENT_MAX = 20,     // blanks behind a line break: models indent, but must not do so for ever
    VALUES_MAX = 1000,   // of an enum
    COUNT_MAX = 1 << 20, // of minItems and the like; GRAMMAR_STATES_MAX says no before
    CHOICES_MAX = 200,   // of an anyOf: the matcher follows all that go on
    DEPTH_MAX = 150,     // schemas in one another, also by $ref: each takes stack
    POINTER_MAX = 64,    // steps of a $ref
    NAMES_MAX =
        2000, // properties of an object, schemas that are referred to: both are looked through
};

struct rule {
    const struct value_dict *schema;
    uint32_t place;
};

struct build {
    struct grammar *g;
    struct value root;
    struct rule *rules; // of what a $ref names
    size_t n_rules;
    uint32_t end, blank, character, any; // places of rules that all share
    struct str where;                    // the property that is being made, for messages
    int depth;
    struct err *e;
    bool failed; // e is filled
};

static const char too_large[] =
    "it is too large: a maxLength, maxItems or enum of thousands, perhaps";

static uint32_t schema_place(struct build *b, struct value schema, uint32_t next);

static uint32_t refuse(struct build *b, const char *what)
{
    if (!b->failed)
        err_set(b->e, ERR_UNSUPPORTED, "JSON schema: %s%s%.*s%s", what,
                b->where.n > 0 ? " (in \"" : "", (int)(b->where.n < 60 ? b->where.n : 60),
                b->where.n > 0 ? b->where.p : "", b->where.n > 0 ? "\")" : "");
    b->failed = true;
    return GRAMMAR_NONE;
}

// ---- texts, blanks, characters ----------------------------------------------------------------

static uint32_t byte(struct build *b, char c, uint32_t next)
{
    return grammar_text(b->g, (struct str){&c, 1}, next);
}

static uint32_t range(struct build *b, int lo, int hi, uint32_t next)
{
    return grammar_range(b->g, (uint8_t)lo, (uint8_t)hi, 1, 0, next);
}

static uint32_t maybe(struct build *b, uint32_t place, uint32_t next)
{
    return grammar_either(b->g, place, next);
}

static uint32_t blank(struct build *b, uint32_t next)
{
    return grammar_call(b->g, b->blank, next);
}

// A blank, or a line break with an indent, or nothing.
static uint32_t make_blank(struct build *b)
{
    uint32_t indent = b->end;
    for (int i = 0; i < INDENT_MAX; i++)
        indent = maybe(b, grammar_range(b->g, ' ', ' ', '\t', '\t', indent), b->end);
    return maybe(b, byte(b, ' ', b->end), maybe(b, byte(b, '\n', indent), b->end));
}

static uint32_t hex(struct build *b, int n, uint32_t next)
{
    for (int i = 0; i < n; i++)
        next = maybe(b, range(b, '0', '9', next), grammar_range(b->g, 'a', 'f', 'A', 'F', next));
    return next;
}

// What stands behind a backslash. Halves of surrogates are left out.
static uint32_t make_escape(struct build *b)
{
    static const char plain[] = "\"\\/bfnrt";
    uint32_t low = grammar_range(b->g, 'd', 'd', 'D', 'D', range(b, '0', '7', hex(b, 2, b->end)));
    uint32_t rest = hex(b, 3, b->end);
    uint32_t other = maybe(b, range(b, '0', '9', rest),
                           maybe(b, grammar_range(b->g, 'a', 'c', 'A', 'C', rest),
                                 grammar_range(b->g, 'e', 'f', 'E', 'F', rest)));
    uint32_t place = byte(b, 'u', maybe(b, low, other));
    for (size_t i = 0; plain[i] != '\0'; i++) place = maybe(b, byte(b, plain[i], b->end), place);
    return place;
}

// One character of a string, as well-formed UTF-8 (Unicode 15, table 3-7).
static uint32_t make_character(struct build *b)
{
    static const uint8_t forms[][4] = {// first byte, second byte; then as many as it takes
                                       {0xe0, 0xe0, 0xa0, 0xbf}, {0xe1, 0xec, 0x80, 0xbf},
                                       {0xed, 0xed, 0x80, 0x9f}, {0xee, 0xef, 0x80, 0xbf},
                                       {0xf0, 0xf0, 0x90, 0xbf}, {0xf1, 0xf3, 0x80, 0xbf},
                                       {0xf4, 0xf4, 0x80, 0x8f}};
    const uint32_t one = range(b, 0x80, 0xbf, b->end), two = range(b, 0x80, 0xbf, one);
    uint32_t place = range(b, 0xc2, 0xdf, one);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const uint8_t *f = forms[i];
        const uint32_t tail = range(b, f[2], f[3], f[0] >= 0xf0 ? two : one);
        place = maybe(b, range(b, f[0], f[1], tail), place);
    }
    place = maybe(b, byte(b, '\\', make_escape(b)), place);
    place = maybe(b, range(b, 0x5d, 0x7f, b->end), place);
    return maybe(b, grammar_range(b->g, 0x20, 0x21, 0x23, 0x5b, b->end), place);
}

// The rule from `least` to `most` times (SIZE_MAX: without end).
static uint32_t times(struct build *b, uint32_t rule, size_t least, size_t most, uint32_t next)
{
    uint32_t place = next;
    if (most == SIZE_MAX) {
        const uint32_t again = grammar_later(b->g);
        place = maybe(b, grammar_call(b->g, rule, again), next);
        grammar_set(b->g, again, place);
        most = least;
    }
    for (size_t i = most; i > 0 && !grammar_failed(b->g); i--) {
        const uint32_t one = grammar_call(b->g, rule, place);
        place = i > least ? maybe(b, one, next) : one;
    }
    return place;
}

static uint32_t text_rule(struct build *b, size_t least, size_t most, uint32_t next)
{
    return byte(b, '"', times(b, b->character, least, most, byte(b, '"', next)));
}

// ---- texts side by side: one way as long as they are alike, so that few places are followed at once

static int by_text(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

// t[n] sorted and alike in front of `at`. It calls itself once for each place where they part.
static uint32_t texts_from(struct build *b, const struct str *t, size_t n, size_t at, uint32_t next)
{
    const struct str first = t[0], last = t[n - 1];
    size_t same = at, i = 0;
    uint32_t place = GRAMMAR_NONE;
    while (same < first.n && same < last.n && first.p[same] == last.p[same]) same++;
    while (i < n && t[i].n == same) i++; // those that end here
    if (i > 0) place = next;
    while (i < n) {
        size_t end = i + 1;
        while (end < n && t[end].p[same] == t[i].p[same]) end++;
        const uint32_t one = texts_from(b, t + i, end - i, same, next);
        place = place == GRAMMAR_NONE ? one : maybe(b, one, place);
        i = end;
    }
    return grammar_text(b->g, str_sub(first, at, same - at), place);
}

struct texts {
    struct buf all;
    size_t ends[VALUES_MAX], n;
};

static void texts_put(struct texts *x, struct value v)
{
    value_dump(&x->all, v, -1);
    x->ends[x->n++] = x->all.n;
}

static uint32_t texts_place(struct build *b, struct texts *x, uint32_t next)
{
    struct str list[VALUES_MAX];
    size_t from = 0;
    if (x->all.failed) return refuse(b, "there is no memory for it");
    for (size_t i = 0; i < x->n; from = x->ends[i++])
        list[i] = str_sub(buf_view(&x->all), from, x->ends[i] - from);
    qsort(list, x->n, sizeof *list, by_text);
    return texts_from(b, list, x->n, 0, next);
}

// ---- numbers ----------------------------------------------------------------------------------

// A bound that is a whole number; what is beyond all numbers of so many digits is none.
static bool bound(struct build *b, struct value schema, const char *name, bool *given, int64_t *out)
{
    const struct value v = value_get(schema, name);
    *given = v.kind != VALUE_UNDEFINED && v.kind != VALUE_NULL;
    if (!*given) return true;
    if (v.kind == VALUE_INT && v.i > -JSON_WHOLE_MAX && v.i < JSON_WHOLE_MAX)
        *out = v.i;
    else if (v.kind == VALUE_FLOAT && fabs(v.f) < JSON_WHOLE_MAX && v.f == floor(v.f))
        *out = (int64_t)v.f;
    else if (v.kind == VALUE_INT)
        *out = v.i < 0 ? -JSON_WHOLE_MAX : JSON_WHOLE_MAX;
    else
        refuse(b, "bounds of numbers that are no whole numbers are not supported");
    return !b->failed;
}

static uint32_t number_of(struct build *b, struct value schema, bool whole, uint32_t next)
{
    bool low, high, above, below;
    int64_t least = -JSON_WHOLE_MAX, most = JSON_WHOLE_MAX, over = 0, under = 0;
    if (!bound(b, schema, "minimum", &low, &least) || !bound(b, schema, "maximum", &high, &most) ||
        !bound(b, schema, "exclusiveMinimum", &above, &over) ||
        !bound(b, schema, "exclusiveMaximum", &below, &under))
        return GRAMMAR_NONE;
    if (!low && !high && !above && !below)
        return whole ? json_integer(b->g, next) : json_number(b->g, next);
    if (!whole && (above || below))
        return refuse(b, "exclusive bounds of numbers are not supported, but of integers they are");
    if (above && over + 1 > least) least = over + 1;
    if (below && under - 1 < most) most = under - 1;
    if (least > most || least >= JSON_WHOLE_MAX || most <= -JSON_WHOLE_MAX)
        return refuse(b, "no number of 15 digits lies between the bounds");
    if (least <= -JSON_WHOLE_MAX) least = -JSON_WHOLE_MAX + 1;
    if (most >= JSON_WHOLE_MAX) most = JSON_WHOLE_MAX - 1;
    return json_number_between(b->g, whole, least, most, next);
}

// ---- arrays and objects -----------------------------------------------------------------------

// A count such as minItems; `otherwise` where it is not given.
static bool count(struct build *b, struct value schema, const char *name, size_t otherwise,
                  size_t *out)
{
    const struct value v = value_get(schema, name);
    *out = otherwise;
    if (v.kind == VALUE_UNDEFINED || v.kind == VALUE_NULL) return true;
    if (v.kind == VALUE_INT && v.i >= 0 && v.i <= COUNT_MAX) {
        *out = (size_t)v.i;
        return true;
    }
    refuse(b, "a count such as maxItems is no whole number from 0 to 1048576");
    return false;
}

static uint32_t comma(struct build *b, uint32_t next)
{
    return blank(b, byte(b, ',', blank(b, next)));
}

// The rest of an array of which `done` items stand there, each of them `rule`, then a closing bracket.
static uint32_t more_items(struct build *b, uint32_t rule, size_t done, size_t least, size_t most,
                           uint32_t close)
{
    if (rule == GRAMMAR_NONE || done >= most) return close;
    const uint32_t another = comma(b, grammar_call(b->g, rule, b->end));
    const size_t must = least > done ? least - done : 0;
    return times(b, another, must, most == SIZE_MAX ? SIZE_MAX : most - done, close);
}

static uint32_t array(struct build *b, struct value schema, uint32_t next)
{
    const struct value items = value_get(schema, "items"), first = value_get(schema, "prefixItems");
    const size_t n_first = first.kind == VALUE_LIST ? first.list->n : 0;
    size_t least, most;
    if (!count(b, schema, "minItems", 0, &least) || !count(b, schema, "maxItems", SIZE_MAX, &most))
        return GRAMMAR_NONE;
    const bool any = items.kind == VALUE_UNDEFINED, none = items.kind == VALUE_BOOL && !items.b;
    uint32_t rule = any ? (n_first > 0 ? GRAMMAR_NONE : b->any) : GRAMMAR_NONE;
    if (!any && !none) rule = schema_place(b, items, b->end);
    if (b->failed) return GRAMMAR_NONE;
    if (least > most || (rule == GRAMMAR_NONE && least > n_first))
        return refuse(b, "no array has as many items as minItems and maxItems ask for");
    const uint32_t close = blank(b, byte(b, ']', next)), empty = byte(b, ']', next);
    const size_t n = n_first < most ? n_first : most;
    if (n > 0) {
        uint32_t place = more_items(b, rule, n, least, most, close);
        for (size_t i = n; i-- > 0;) {
            place = schema_place(b, first.list->items[i], place);
            if (i > 0) place = comma(b, place);
        }
        return byte(b, '[', blank(b, place));
    }
    if (most == 0 || rule == GRAMMAR_NONE) return byte(b, '[', blank(b, empty));
    const uint32_t some = grammar_call(b->g, rule, more_items(b, rule, 1, least, most, close));
    return byte(b, '[', blank(b, least > 0 ? some : maybe(b, some, empty)));
}

static uint32_t value_after_key(struct build *b, struct value schema, uint32_t next)
{
    return blank(b, byte(b, ':', blank(b, schema_place(b, schema, next))));
}

// {"key": value, ...} with any keys.
static uint32_t map(struct build *b, struct value of, uint32_t next)
{
    const uint32_t pair = text_rule(b, 0, SIZE_MAX, value_after_key(b, of, b->end));
    const uint32_t again = comma(b, grammar_call(b->g, pair, b->end));
    const uint32_t close = blank(b, byte(b, '}', next));
    const uint32_t some = grammar_call(b->g, pair, times(b, again, 0, SIZE_MAX, close));
    return byte(b, '{', blank(b, maybe(b, some, byte(b, '}', next))));
}

static bool in_list(struct value list, struct str s)
{
    for (size_t i = 0; list.kind == VALUE_LIST && i < list.list->n; i++)
        if (list.list->items[i].kind == VALUE_STRING && str_eq(list.list->items[i].s, s))
            return true;
    return false;
}

static bool check_required(struct build *b, struct value required, struct value properties)
{
    for (size_t i = 0; required.kind == VALUE_LIST && i < required.list->n; i++) {
        const struct value name = required.list->items[i];
        if (name.kind == VALUE_STRING && properties.kind == VALUE_DICT &&
            value_find(properties, name.s).kind != VALUE_UNDEFINED)
            continue;
        refuse(b, "\"required\" names what \"properties\" does not list");
        return false;
    }
    return true;
}

static uint32_t object(struct build *b, struct value schema, uint32_t next)
{
    const struct value properties = value_get(schema, "properties");
    const struct value required = value_get(schema, "required");
    const struct value others = value_get(schema, "additionalProperties");
    const size_t n = properties.kind == VALUE_DICT ? properties.dict->n : 0;
    const struct str outer = b->where;
    if (n > NAMES_MAX || (required.kind == VALUE_LIST && required.list->n > NAMES_MAX))
        return refuse(b, "more than 2000 properties of an object are not supported");
    if (!check_required(b, required, properties)) return GRAMMAR_NONE;
    if (n == 0 && others.kind == VALUE_BOOL && !others.b)
        return byte(b, '{', blank(b, byte(b, '}', next)));
    if (n == 0) return map(b, others.kind == VALUE_DICT ? others : value_bool(true), next);
    // What may follow where no pair stands yet, and where one does.
    uint32_t first = byte(b, '}', next), later = blank(b, first);
    for (size_t i = n; i-- > 0;) {
        const struct value_pair *p = &properties.dict->pairs[i];
        struct buf key = {0};
        b->where = p->key;
        buf_json(&key, p->key);
        const uint32_t pair = grammar_text(b->g, buf_view(&key), value_after_key(b, p->v, later));
        if (key.failed) refuse(b, "there is no memory for it");
        buf_free(&key);
        b->where = outer;
        if (b->failed) return GRAMMAR_NONE;
        const bool must = in_list(required, p->key);
        first = must ? pair : maybe(b, pair, first);
        later = must ? comma(b, pair) : maybe(b, comma(b, pair), later);
    }
    return byte(b, '{', blank(b, first));
}

// ---- schemas ----------------------------------------------------------------------------------

static uint32_t one_of(struct build *b, struct value list, uint32_t next)
{
    uint32_t place = GRAMMAR_NONE;
    if (list.kind != VALUE_LIST || list.list->n == 0)
        return refuse(b, "\"anyOf\" and \"oneOf\" must be lists that are not empty");
    if (list.list->n > CHOICES_MAX) return refuse(b, "more than 200 choices are not supported");
    for (size_t i = list.list->n; i-- > 0 && !b->failed;) {
        const uint32_t one = schema_place(b, list.list->items[i], next);
        place = i == list.list->n - 1 ? one : maybe(b, one, place);
    }
    return place;
}

static uint32_t typed(struct build *b, struct value schema, struct str type, uint32_t next)
{
    size_t least, most;
    if (str_eq(type, STR("object"))) return object(b, schema, next);
    if (str_eq(type, STR("array"))) return array(b, schema, next);
    if (str_eq(type, STR("integer"))) return number_of(b, schema, true, next);
    if (str_eq(type, STR("number"))) return number_of(b, schema, false, next);
    if (str_eq(type, STR("null"))) return grammar_text(b->g, STR("null"), next);
    if (str_eq(type, STR("boolean")))
        return maybe(b, grammar_text(b->g, STR("true"), next),
                     grammar_text(b->g, STR("false"), next));
    if (!str_eq(type, STR("string"))) return refuse(b, "a \"type\" is none of JSON's");
    if (!count(b, schema, "minLength", 0, &least) ||
        !count(b, schema, "maxLength", SIZE_MAX, &most))
        return GRAMMAR_NONE;
    if (least > most) return refuse(b, "minLength is above maxLength");
    return text_rule(b, least, most, next);
}

static uint32_t types(struct build *b, struct value schema, struct value type, uint32_t next)
{
    uint32_t place = GRAMMAR_NONE;
    if (type.kind == VALUE_STRING) return typed(b, schema, type.s, next);
    if (type.kind != VALUE_LIST || type.list->n == 0)
        return refuse(b, "\"type\" must be a text or a list of texts");
    for (size_t i = 0; i < type.list->n && !b->failed; i++) {
        const struct value v = type.list->items[i];
        if (v.kind != VALUE_STRING) return refuse(b, "\"type\" must be a text or a list of texts");
        const uint32_t one = typed(b, schema, v.s, next);
        place = i == 0 ? one : maybe(b, one, place);
    }
    return place;
}

static bool given(struct value schema, const char *name)
{
    const struct value v = value_get(schema, name);
    return v.kind != VALUE_UNDEFINED && v.kind != VALUE_NULL && !(v.kind == VALUE_BOOL && !v.b);
}

static bool check_keywords(struct build *b, struct value schema)
{
    static const char *const unknown[] = {"pattern",
                                          "patternProperties",
                                          "propertyNames",
                                          "minProperties",
                                          "maxProperties",
                                          "uniqueItems",
                                          "contains",
                                          "not",
                                          "if",
                                          "dependentRequired",
                                          "dependentSchemas",
                                          "multipleOf",
                                          "$dynamicRef",
                                          "unevaluatedItems"};
    char text[80] = "";
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        if (!given(schema, unknown[i])) continue;
        snprintf(text, sizeof text, "\"%s\" is not supported", unknown[i]);
        refuse(b, text);
        return false;
    }
    return true;
}

// "#/$defs/name" -> what stands there.
static struct value find_ref(const struct build *b, struct str ref)
{
    struct value at = b->root;
    if (ref.n == 0 || ref.p[0] != '#') return (struct value){0};
    ref = str_sub(ref, 1, ref.n);
    for (int i = 0; ref.n > 0 && i < POINTER_MAX; i++) {
        struct buf name = {0};
        size_t end = str_find(ref, STR("/"), 1);
        if (end == SIZE_MAX) end = ref.n;
        for (size_t k = 1; k < end; k++) {
            const bool escape = ref.p[k] == '~' && k + 1 < end;
            buf_c(&name, escape ? (ref.p[++k] == '1' ? '/' : '~') : ref.p[k]);
        }
        at = ref.p[0] == '/' ? value_find(at, buf_view(&name)) : (struct value){0};
        buf_free(&name);
        ref = str_sub(ref, end, ref.n);
    }
    return at;
}

// A schema that is named becomes a rule, once, before it is made: it may name itself.
static uint32_t ref_place(struct build *b, struct value ref, uint32_t next)
{
    const struct value to = ref.kind == VALUE_STRING ? find_ref(b, ref.s) : (struct value){0};
    if (to.kind != VALUE_DICT) return refuse(b, "a $ref names nothing in the schema");
    for (size_t i = 0; i < b->n_rules; i++)
        if (b->rules[i].schema == to.dict) return grammar_call(b->g, b->rules[i].place, next);
    if (b->n_rules == NAMES_MAX)
        return refuse(b, "more than 2000 places of $ref are not supported");
    struct rule *p = realloc(b->rules, (b->n_rules + 1) * sizeof *p);
    if (p == NULL) return refuse(b, "there is no memory for it");
    b->rules = p;
    const uint32_t rule = grammar_later(b->g);
    p[b->n_rules++] = (struct rule){to.dict, rule};
    const struct str outer = b->where;
    grammar_set(b->g, rule, schema_place(b, to, b->end));
    b->where = outer;
    return grammar_call(b->g, rule, next);
}

// Without a type its keywords tell what they are about; what else would be valid is left out.
static struct value type_of(struct value schema)
{
    static const char *const about[][2] = {
        {"properties", "object"},      {"additionalProperties", "object"},
        {"required", "object"},        {"items", "array"},
        {"prefixItems", "array"},      {"minItems", "array"},
        {"maxItems", "array"},         {"minLength", "string"},
        {"maxLength", "string"},       {"minimum", "number"},
        {"maximum", "number"},         {"exclusiveMinimum", "number"},
        {"exclusiveMaximum", "number"}};
    const struct value type = value_get(schema, "type");
    if (type.kind != VALUE_UNDEFINED) return type;
    for (size_t i = 0; i < sizeof about / sizeof about[0]; i++)
        if (value_get(schema, about[i][0]).kind != VALUE_UNDEFINED)
            return value_str(str_from(about[i][1]));
    return type;
}

// Does a value that is written out have the type beside it?
static bool has_type(struct value v, struct value type)
{
    const bool number = v.kind == VALUE_INT || v.kind == VALUE_BIGINT || v.kind == VALUE_FLOAT;
    if (type.kind == VALUE_LIST) {
        bool any = false;
        for (size_t i = 0; i < type.list->n; i++) any = any || has_type(v, type.list->items[i]);
        return any;
    }
    if (type.kind != VALUE_STRING) return type.kind == VALUE_UNDEFINED;
    if (str_eq(type.s, STR("integer"))) return number && v.kind != VALUE_FLOAT;
    if (str_eq(type.s, STR("number"))) return number;
    if (str_eq(type.s, STR("boolean"))) return v.kind == VALUE_BOOL;
    if (str_eq(type.s, STR("object"))) return v.kind == VALUE_DICT;
    if (str_eq(type.s, STR("array"))) return v.kind == VALUE_LIST;
    return str_eq(type.s, str_from(value_kind_name(v.kind))); // string, null
}

static uint32_t written_out(struct build *b, struct value schema, uint32_t next)
{
    const struct value list = value_get(schema, "enum"), type = value_get(schema, "type");
    const struct value fixed = value_get(schema, "const");
    const bool one = fixed.kind != VALUE_UNDEFINED;
    const size_t n = one ? 1 : list.kind == VALUE_LIST ? list.list->n : 0;
    struct texts texts = {.n = 0};
    if (n > VALUES_MAX) return refuse(b, "\"enum\" of more than 1000 values is not supported");
    for (size_t i = 0; i < n; i++) {
        const struct value v = one ? fixed : list.list->items[i];
        if (has_type(v, type)) texts_put(&texts, v);
    }
    const uint32_t place = texts.n > 0 ? texts_place(b, &texts, next)
                                       : refuse(b, "\"enum\" and \"const\" leave no value");
    buf_free(&texts.all);
    return place;
}

// What is to be held beside a choice would have to be held by each of what is chosen from.
static bool stands_alone(struct build *b, struct value schema, bool type_too)
{
    static const char *const names[] = {"type",
                                        "properties",
                                        "required",
                                        "additionalProperties",
                                        "items",
                                        "prefixItems",
                                        "minItems",
                                        "maxItems",
                                        "minLength",
                                        "maxLength",
                                        "minimum",
                                        "maximum",
                                        "exclusiveMinimum",
                                        "exclusiveMaximum"};
    static const char *const choices[] = {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"};
    int n = 0;
    for (size_t i = type_too ? 0 : 1; i < sizeof names / sizeof names[0]; i++)
        n += value_get(schema, names[i]).kind != VALUE_UNDEFINED;
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++)
        n += value_get(schema, choices[i]).kind != VALUE_UNDEFINED;
    if (n > 1)
        refuse(b,
               "other keywords beside $ref, anyOf, oneOf, allOf, enum or const are not supported");
    return n <= 1;
}

// False: the schema is no choice, but says by its type what it wants.
static bool choice_place(struct build *b, struct value schema, uint32_t next, uint32_t *place)
{
    const struct value all = value_get(schema, "allOf"), any = value_get(schema, "anyOf"),
                       one = value_get(schema, "oneOf"), ref = value_get(schema, "$ref");
    const bool written = value_get(schema, "const").kind != VALUE_UNDEFINED ||
                         value_get(schema, "enum").kind != VALUE_UNDEFINED;
    const bool choice = all.kind != VALUE_UNDEFINED || any.kind != VALUE_UNDEFINED ||
                        one.kind != VALUE_UNDEFINED || ref.kind != VALUE_UNDEFINED;
    if (!written && !choice) return false;
    if (!stands_alone(b, schema, choice)) return true;
    if (written)
        *place = written_out(b, schema, next);
    else if (ref.kind != VALUE_UNDEFINED)
        *place = ref_place(b, ref, next);
    else if (all.kind == VALUE_UNDEFINED)
        *place = one_of(b, any.kind != VALUE_UNDEFINED ? any : one, next);
    else if (all.kind == VALUE_LIST && all.list->n == 1)
        *place = schema_place(b, all.list->items[0], next);
    else
        refuse(b, "\"allOf\" of several is not supported");
    return true;
}

static uint32_t schema_place(struct build *b, struct value schema, uint32_t next)
{
    uint32_t place = GRAMMAR_NONE;
    if (b->failed) return place;
    if (schema.kind == VALUE_BOOL && schema.b) return grammar_call(b->g, b->any, next);
    if (schema.kind != VALUE_DICT) return refuse(b, "a schema must be an object or true");
    if (grammar_failed(b->g)) return refuse(b, too_large);
    if (b->depth == DEPTH_MAX) return refuse(b, "it is nested deeper than 150 levels");
    if (!check_keywords(b, schema)) return place;
    b->depth++;
    if (!choice_place(b, schema, next, &place)) {
        const struct value type = type_of(schema);
        place = type.kind == VALUE_UNDEFINED ? grammar_call(b->g, b->any, next)
                                             : types(b, schema, type, next);
    }
    b->depth--;
    return place;
}

// Any JSON value: as a rule, for it contains itself.
static void make_any(struct build *b)
{
    const struct value yes = value_bool(true);
    const uint32_t rule = b->any = grammar_later(b->g);
    const uint32_t items = comma(b, grammar_call(b->g, rule, b->end));
    const uint32_t close = blank(b, byte(b, ']', b->end));
    const uint32_t some = grammar_call(b->g, rule, times(b, items, 0, SIZE_MAX, close));
    const uint32_t list = byte(b, '[', blank(b, maybe(b, some, byte(b, ']', b->end))));
    uint32_t place = maybe(b, list, map(b, yes, b->end));
    place = maybe(b, text_rule(b, 0, SIZE_MAX, b->end), place);
    place = maybe(b, json_number(b->g, b->end), place);
    place = maybe(b, grammar_text(b->g, STR("true"), b->end), place);
    place = maybe(b, grammar_text(b->g, STR("false"), b->end), place);
    place = maybe(b, grammar_text(b->g, STR("null"), b->end), place);
    grammar_set(b->g, rule, place);
}

// Behind reasoning a model begins with line breaks.
static uint32_t lead(struct build *b, uint32_t place)
{
    for (int i = 0; i < 2; i++)
        place = maybe(b, grammar_range(b->g, '\n', '\n', ' ', ' ', place), place);
    return place;
}

static bool build_open(struct build *b, struct err *own, struct err *e)
{
    *b = (struct build){.e = own};
    if (!grammar_new(&b->g, e)) return false;
    b->end = grammar_return(b->g);
    b->blank = make_blank(b);
    b->character = make_character(b);
    make_any(b);
    return true;
}

static bool build_close(struct build *b, uint32_t start, struct grammar **out, struct err *e)
{
    free(b->rules);
    if (!b->failed && grammar_failed(b->g)) refuse(b, too_large);
    if (!b->failed && grammar_finish(b->g, start, b->e)) {
        *out = b->g;
        return true;
    }
    grammar_unref(b->g);
    return err_set(e, b->e->code, "%s", b->e->msg);
}

bool json_schema_compile(struct grammar **out, struct value schema, struct err *e)
{
    struct build b;
    struct err own = {0};
    if (!build_open(&b, &own, e)) return false;
    b.root = schema;
    return build_close(&b, lead(&b, schema_place(&b, schema, b.end)), out, e);
}

// ---- tool calls -------------------------------------------------------------------------------

static uint32_t name_place(struct build *b, struct str name, uint32_t next)
{
    struct buf key = {0};
    buf_json(&key, name);
    const uint32_t place = grammar_text(b->g, buf_view(&key), next);
    if (key.failed) refuse(b, "there is no memory for it");
    buf_free(&key);
    return place;
}

// {"name": NAME, "arguments": {...}}, the blanks as the template of the calls' format writes them or a model likes them.
static uint32_t call_place(struct build *b, const struct json_call *call, uint32_t next)
{
    const bool any = call->parameters.kind != VALUE_DICT;
    const uint32_t close = blank(b, byte(b, '}', next));
    b->root = call->parameters;
    b->where = call->name;
    const uint32_t arguments =
        any ? map(b, value_bool(true), close) : schema_place(b, call->parameters, close);
    b->where = (struct str){0};
    uint32_t place =
        grammar_text(b->g, STR("\"arguments\""), blank(b, byte(b, ':', blank(b, arguments))));
    place = name_place(b, call->name, comma(b, place));
    place = grammar_text(b->g, STR("\"name\""), blank(b, byte(b, ':', blank(b, place))));
    return byte(b, '{', blank(b, place));
}

bool json_calls_grammar(struct grammar **out, const struct json_call *calls, size_t n,
                        struct err *e)
{
    struct build b;
    struct err own = {0};
    if (!build_open(&b, &own, e)) return false;
    uint32_t place = GRAMMAR_NONE, end = blank(&b, b.end);
    if (n == 0 || n > CHOICES_MAX) refuse(&b, "calls of 1 to 200 tools can be held to their form");
    for (size_t i = n; i-- > 0 && !b.failed;) {
        const uint32_t one = call_place(&b, &calls[i], end);
        place = i == n - 1 ? one : maybe(&b, one, place);
    }
    return build_close(&b, lead(&b, place), out, e);
}

bool json_object_grammar(struct grammar **out, struct err *e)
{
    struct arena a = {0};
    struct value schema = value_new_dict(&a);
    bool ok =
        schema.kind == VALUE_DICT && value_set(&a, schema, STR("type"), value_str(STR("object")));
    ok = ok ? json_schema_compile(out, schema, e)
            : err_set(e, ERR_MEMORY, "no memory for a grammar");
    arena_free(&a);
    return ok;
}
