"""Writes jinja_cases.jsonl: a line with the variables, then templates and what Jinja itself (3.1, set up as transformers
does for chat templates) makes of them. Needs the Python package jinja2; the tests do not."""
import json
import os

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """{% generation %}: marks text, changes nothing."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                    extensions=["jinja2.ext.loopcontrols", Generation])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception

VARS = {
    "none_": None, "t": True, "f": False, "i": 42, "neg": -7, "x": 1.5, "s": "Hello, World",
    "u": "Grüße 😀 \u3000", "ws": " \t\n two  words \u00a0", "empty": "", "l": [3, 1, 2],
    "big": 123456789012345678901234567890,
    "d": {"b": 2, "a": 1, "c": {"d": [1, {"e": "deep"}]}},
    "users": [{"name": "Bo", "age": 30, "tags": ["x"]}, {"name": "al", "age": 25, "tags": []},
              {"name": "Cy", "age": 30}],
    "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
                 {"role": "assistant", "content": None,
                  "tool_calls": [{"function": {"name": "f", "arguments": {"q": [1, "é"]}}}]},
                 {"role": "tool", "content": "42"}],
}

CASES = open(os.path.join(os.path.dirname(__file__), "jinja_cases.txt"), encoding="utf-8",
             newline="").read()


def main():
    print(json.dumps(VARS))
    for template in CASES.split("\n====\n"):
        case = {"template": template}
        try:
            case["text"] = env.from_string(template).render(**VARS)
        except Exception as error:  # every error counts: the test wants one, not its words
            case["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(case, ensure_ascii=True))


main()
