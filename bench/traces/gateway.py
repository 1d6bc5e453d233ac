#!/usr/bin/env python3
"""Prints a trace from captured requests of an agent gateway: their real tokens, on a day's schedule.

usage: gateway.py --server URL DIR > trace      (DIR holds *.json, bodies of /v1/chat/completions)

Each capture is tokenized by the server (/v1/chat/completions/render) and becomes a prompt line
"=N ID...". Requests then come as a gateway sends them: the turns of the main session in order, a
sub-agent and its announcement now and then, cron every half hour, the prompt with all tools rarely.
Every request ends with words of its own, so that only what the captures share is found again.
Lines are those of agents.py; a segment =N:K stands for the first K tokens of prompt N.
"""
import argparse
import glob
import json
import os
import random
import urllib.request

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--server", default="http://127.0.0.1:8080")
p.add_argument("--hours", type=float, default=8)
p.add_argument("--seed", type=int, default=1)
p.add_argument("dir")
a = p.parse_args()
r = random.Random(a.seed)


def render(path):
    body = open(path, "rb").read()
    request = urllib.request.Request(a.server + "/v1/chat/completions/render", body,
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["token_ids"]


prompts = {}
for i, path in enumerate(sorted(glob.glob(os.path.join(a.dir, "*.json")))):
    ids = render(path)
    prompts[os.path.basename(path)[:2]] = (i, len(ids))
    print(f"={i} " + " ".join(map(str, ids)))

lines = []
seeds = iter(range(1, 10**9))


def add(t, name):
    if name in prompts and t < a.hours * 3600:
        i, n = prompts[name]
        how = "call" if name in ("20", "42", "43", "02") else "end"
        lines.append((t, f"{how} ={i}:{max(1, n - 16)} {next(seeds)}:{r.randint(20, 200)} | {next(seeds)}:{r.randint(20, 300)}"))


t = 10.0
while t < a.hours * 3600:  # the person's session
    for name in r.choice((("01", "02"), ("02", "03"), ("06",), ("20", "21"), ("42",), ("43",))):
        add(t, name)
        t += r.uniform(3, 20)
    if r.random() < 0.3:
        for k in range(r.randint(1, 4)):
            add(t + k, "04")
        add(t + 40, "05")
    t += r.lognormvariate(4.8, 1.0)
t = 300.0
while t < a.hours * 3600:
    add(t, "10")
    add(t + 20, "11")
    t += 1800
t = 900.0
while t < a.hours * 3600:
    add(t, "30")
    t += r.expovariate(1 / 3600)
for t, text in sorted(lines):
    print(f"{t:.2f} 0 - - {text}")
