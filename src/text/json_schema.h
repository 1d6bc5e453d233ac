// A JSON schema -> the grammar of its instances, for answers that must be one (text/grammar.h).
//
// Whatever the grammar allows is an instance of the schema; of the instances it leaves some out: keys come
// in the order of "properties", others only where no properties are listed, an escaped character is one
// that must be, numbers have at most 15 digits before and after the point. What could not be kept is
// refused, by name: pattern, uniqueItems, not, if, allOf of several, keywords beside anyOf and its like,
// bounds of numbers that are no whole numbers. Not held: that of oneOf no second part fits.
// https://json-schema.org/draft/2020-12/json-schema-validation
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "text/grammar.h"
#include "text/value.h"

// schema: an object or a bool. The caller holds the one reference.
bool json_schema_compile(struct grammar **out, struct value schema, struct err *e);
bool json_object_grammar(struct grammar **out, struct err *e); // any JSON object

// A function that may be called: parameters is the schema of its arguments; not an object: any will do.
struct json_call {
    struct str name;
    struct value parameters;
};
// What stands between <tool_call> and </tool_call>: {"name": ..., "arguments": ...} of one of n functions.
bool json_calls_grammar(struct grammar **out, const struct json_call *calls, size_t n,
                        struct err *e);
