#!/usr/bin/env python3
"""Writes tests/data/schema_cases.jsonl: schemas, values and whether they fit, as Python's jsonschema
(Draft 2020-12) says. Run it again after a change here: python3 tests/tools/schema_cases.py"""
import json, os, random
from jsonschema import Draft202012Validator as V

VALUES = [None, True, False, 0, 1, -1, 5, 10, 11, 2.5, 5.0, 1000.5, "", "a", "ab", "abc", "ten", "żółw", "a/b", [], [1], [1, 1],
          [1, "a"], ["a", "b", "c"], [[1], [1]], {}, {"a": 1}, {"a": "x"}, {"a": 1, "b": 2}, {"b": 2}, {"a": None},
          {"path": "/x", "limit": 5}, {"path": 5}, {"limit": 5}, {"a": {"a": {"a": 1}}}, {"a": {"a": {"a": "x"}}},
          {"kind": "file", "path": "x"}, {"kind": "url", "url": "x"}, {"kind": "url"}, {"S_1": "x"}, {"S_1": 1}, {"I_1": 1, "z": 2}]
SCHEMAS = [{}, True, False] + [{"type": t} for t in ("object", "array", "string", "number", "integer", "boolean", "null")] + [
    {"type": ["string", "null"]}, {"type": ["integer", "array"]},
    {"enum": ["a", 1, None, [1]]}, {"const": {"a": 1}}, {"const": 5}, {"const": "a"},
    {"required": ["a"]}, {"required": ["a", "b"]}, {"properties": {"a": {"type": "integer"}}},
    {"properties": {"a": {"type": "integer"}}, "additionalProperties": False},
    {"properties": {"a": {}}, "additionalProperties": {"type": "string"}},
    {"patternProperties": {"^S_": {"type": "string"}, "^I_": {"type": "integer"}}, "additionalProperties": False},
    {"propertyNames": {"maxLength": 1}}, {"minProperties": 1}, {"maxProperties": 1},
    {"items": {"type": "integer"}}, {"prefixItems": [{"type": "integer"}, {"type": "string"}]},
    {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, {"prefixItems": [{}], "items": False},
    {"minItems": 1}, {"maxItems": 1}, {"uniqueItems": True}, {"contains": {"type": "string"}},
    {"minimum": 5}, {"maximum": 5}, {"exclusiveMinimum": 5}, {"exclusiveMaximum": 5}, {"multipleOf": 5}, {"multipleOf": 0.5},
    {"minLength": 2}, {"maxLength": 2}, {"minLength": 4, "maxLength": 4}, {"pattern": "^a"}, {"pattern": "b"}, {"pattern": "^[a-z]{2,3}$"},
    {"allOf": [{"type": "integer"}, {"minimum": 1}]}, {"anyOf": [{"type": "string"}, {"minimum": 5, "type": "number"}]},
    {"oneOf": [{"type": "integer"}, {"minimum": 5}]}, {"not": {"type": "string"}},
    {"if": {"required": ["kind"]}, "then": {"required": ["path"]}}, {"if": {"type": "integer"}, "then": {"minimum": 1}, "else": {"type": "string"}},
    {"dependentRequired": {"a": ["b"]}},
    {"$ref": "#/$defs/s", "$defs": {"s": {"type": "string"}}},
    {"properties": {"a": {"$ref": "#"}}, "type": ["object", "integer"]},
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"minLength": 2}}}, {"$ref": "#/$defs/a%25b", "$defs": {"a%b": {"type": "array"}}},
    {"oneOf": [{"properties": {"kind": {"const": "file"}}, "required": ["kind", "path"]},
               {"properties": {"kind": {"const": "url"}}, "required": ["kind", "url"]}]},
    {"type": "object", "required": ["path"], "properties": {"path": {"type": "string", "description": "x"},
     "limit": {"type": "integer", "minimum": 1, "maximum": 10}}, "additionalProperties": False},
    {"allOf": [{"not": {"enum": [1, "a"]}}, {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "array", "items": {"not": {"const": 1}}}]}]},
]

def drawn(rng, depth=0):
    """A schema of random keywords, so that their combinations are met too."""
    leaf = [s for s in SCHEMAS if isinstance(s, dict) and "$ref" not in json.dumps(s)]
    if depth > 2 or rng.random() < 0.3:
        return rng.choice(leaf)
    out = dict(rng.choice(leaf))
    for _ in range(rng.randint(1, 2)):
        k = rng.choice(["anyOf", "allOf", "oneOf", "not", "items", "properties", "additionalProperties"])
        sub = lambda: drawn(rng, depth + 1)
        out[k] = {"anyOf": lambda: [sub(), sub()], "allOf": lambda: [sub(), sub()], "oneOf": lambda: [sub(), sub()], "not": sub,
                  "items": sub, "properties": lambda: {"a": sub(), "path": sub()}, "additionalProperties": sub}[k]()
    return out

rng = random.Random(6)
schemas = SCHEMAS + [drawn(rng) for _ in range(120)]
path = os.path.join(os.path.dirname(__file__), "../data/schema_cases.jsonl")
with open(path, "w") as f:
    for s in schemas:
        v = V(s)
        values = VALUES if s in SCHEMAS else rng.sample(VALUES, 12)
        f.write(json.dumps({"schema": s, "cases": [[x, v.is_valid(x)] for x in values]}, ensure_ascii=False) + "\n")
