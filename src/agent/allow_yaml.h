// Rules of exec.allow (allow.h) from YAML; submind.yaml and a definition's front matter share it.
#pragma once

#include "agent/yaml_fields.h"

// The slot is a struct allow_list.
bool allow_yaml_read(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                     void *slot, struct err *e);
