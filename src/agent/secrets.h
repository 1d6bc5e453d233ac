// Secrets by name: where they come from (a file, or a systemd credential), their values, and text
// that asks for them ("Bearer ${secret:MAIL}"). A secret goes only where the configuration names
// it; everywhere else the redactor keeps it out.
#pragma once

#include "agent/allow.h"
#include "agent/yaml_fields.h"
#include "base/redact.h"

struct secret_source {
    char *name;
    char *file;       // absolute; NULL for a credential
    char *credential; // name below $CREDENTIALS_DIRECTORY
};

struct secret_list { // of the configuration, owned
    struct secret_source *list;
    size_t n;
};

void secret_list_free(struct secret_list *l);
// secrets: {NAME: FILE, NAME: credential:NAME}. The slot is a struct secret_list.
field_reader secret_list_read;

struct secret {
    const char *name; // borrowed from the list
    struct buf value; // owned; without the line feed at its end
    char *path;       // of the file, owned
    char *problem;    // why there is no value, owned; NULL when there is one
};

struct secrets { // owned
    struct secret *list;
    size_t n;
    struct redactor redactor;
};

// Reads all of them. A secret that cannot be read is no failure here but where it is used; one that
// is too short to be kept out of text is.
bool secrets_open(struct secrets *out, const struct secret_list *l, const char *const *environment,
                  struct err *e);
void secrets_close(struct secrets *s);
// NULL with ERR_INPUT or the reason why it could not be read.
const struct buf *secrets_find(const struct secrets *s, struct str name, struct err *e);
// Appends text with every ${secret:NAME} replaced; and ${NAME} by the variable where environment is
// not NULL. ERR_INPUT for an unknown one.
bool secrets_expand(const struct secrets *s, struct str text, const char *const *environment,
                    struct buf *out, struct err *e);
