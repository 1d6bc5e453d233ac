// Settings in YAML, read by a table of fields into any struct: submind.yaml and the front matter of
// a sub-mind's definition. A new setting is one row.
//
// Errors are "FILE:LINE: FIELD must be ..., not ...", or which settings there are.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yaml.h>

#include "agent/allow.h"
#include "base/err.h"
#include "base/str.h"

enum field_kind {
    FIELD_TEXT,   // char *
    FIELD_PATH,   // char *, absolute
    FIELD_COUNT,  // uint32_t from min to max
    FIELD_SIZE,   // uint64_t bytes: 512M, 2G or a number
    FIELD_NUMBER, // float from min to max; has is the place of a bool that says it was given
    FIELD_CHOICE, // int, one of choices
    FIELD_PATHS,  // struct words of absolute paths without a colon
    FIELD_NAMES,  // struct words
    FIELD_OWN,    // whatever read() makes of it
};

struct field_choice {
    const char *text; // NULL ends the list
    int value;
};

struct yaml_field;
struct yaml_reading {
    const struct yaml_field *fields;
    size_t n_fields;
    void *into;
    yaml_document_t *doc;
    const char *file, *dir; // file for messages; relative paths start at dir
    bool *seen;             // [n_fields]
};
typedef bool field_reader(const struct yaml_reading *r, const struct yaml_field *f,
                          const yaml_node_t *n, void *slot, struct err *e);

struct yaml_field {
    const char *group, *name; // group "" is the top
    enum field_kind kind;
    size_t offset; // of the slot in the struct; its memory is the struct's
    uint32_t min, max;
    size_t has;
    const struct field_choice *choices;
    const char
        *wanted; // FIELD_CHOICE: "on, off or auto"; lists: what of them, where that is no name
    field_reader *read;
};

// Reads the document into *into, which holds the defaults; on failure it may be half filled and is
// the caller's to free.
bool yaml_fields_read(const struct yaml_field *fields, size_t n_fields, void *into, struct str yaml,
                      const char *dir, const char *file, struct err *e);

// ---- for readers of their own ----
int yaml_line(const yaml_node_t *n);
struct str yaml_scalar(const yaml_node_t *n); // empty for lists and mappings
bool yaml_is_text(const yaml_node_t *n);      // not empty, of sensible length, without NUL
const yaml_node_t *yaml_at(const struct yaml_reading *r, int index);
// The value of a key in a mapping; NULL when it is not there.
const yaml_node_t *yaml_value(const struct yaml_reading *r, const yaml_node_t *mapping,
                              const char *key);
// "FILE:LINE: FIELD must be WANTED, not ...".
bool yaml_wrong(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                const char *wanted, struct err *e);
bool yaml_read_text(struct str s, char **slot, struct err *e); // a copy
bool yaml_read_path(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                    char **slot, struct err *e);
// f->kind FIELD_PATHS or FIELD_NAMES decides what the list holds.
bool yaml_read_list(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                    struct words *slot, struct err *e);
bool yaml_read_flag(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                    bool *slot, struct err *e);
