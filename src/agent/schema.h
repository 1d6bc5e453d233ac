// Does a value fit a JSON schema? For the arguments of tool calls: what does not fit is told so
// that a model can mend it ("\"limit\" must be a whole number, not the text \"ten\"").
//
// What is checked: type, enum, const, required, properties, patternProperties,
// additionalProperties, propertyNames, minProperties, maxProperties, items, prefixItems,
// minItems, maxItems, uniqueItems, contains, minimum, maximum, exclusive ones, multipleOf,
// minLength, maxLength, pattern, allOf, anyOf, oneOf, not, if/then/else, dependentRequired and
// $ref within the schema. Other keywords (format, title, default ...) say nothing about validity
// here. https://json-schema.org/draft/2020-12/json-schema-validation
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/str.h"

// False: why (appended to) says what is wrong, one sentence a problem, the first few of them.
bool schema_check(const json_t *schema, const json_t *value, struct buf *why);
