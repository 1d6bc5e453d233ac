#!/usr/bin/env python3
"""Prints a trace of an agent box for bench_tree: who sends which prompt when.

A line is one request:   SECONDS SALT PRIORITY TTL HOW SEGMENT... | SEGMENT...
A segment SEED:N stands for N tokens that depend on SEED only; what stands behind the bar was
generated and is cached with the prompt. SALT 0 is none; PRIORITY and TTL "-" are not given;
HOW it ended: "call" (of a tool: it comes back) or "end".

What is in it, because it is what such a box sees:
  sub-minds     several workspaces, each with its own bootstrap of 3,000 to 17,000 tokens, some asked often,
                some once an hour; a run has 2 to 12 steps with tool pauses of seconds to minutes between them
  main session  a person's conversation that grows, pauses for minutes and is compacted when it is long
  cron          the same long prompt every half hour, with another last line
  heartbeat     the main trunk every 30 minutes with a short question
  documents     one large prompt now and then that never comes back
  a tenant      with its own salt, who sends unrelated prompts in a burst (--flood, --greedy)
"""
import argparse
import heapq
import random

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--hours", type=float, default=8)
p.add_argument("--seed", type=int, default=1)
p.add_argument("--flood", action="store_true", help="add a tenant that sends 200 unrelated prompts in a burst")
p.add_argument("--greedy", action="store_true", help="... with priority 100 and a day to live, so that they push all others out")
a = p.parse_args()
r = random.Random(a.seed)
end = a.hours * 3600
next_seed = 1
events = []  # (time, order, generator of the session)
order = 0


def fresh():
    global next_seed
    next_seed += 1
    return next_seed


def seg(n):
    return (fresh(), max(1, int(n)))


def start(t, session):
    global order
    order += 1
    heapq.heappush(events, (t, order, session))


def pause():
    """A tool call: mostly quick, sometimes a build or a person's approval."""
    kind = r.random()
    if kind < 0.7:
        return r.uniform(1, 8)
    if kind < 0.95:
        return r.lognormvariate(3.3, 0.6)
    return r.uniform(120, 600)


def submind(trunk):
    text = [trunk, seg(r.uniform(30, 200))]
    for _ in range(r.randint(2, 12)):
        gen = seg(r.lognormvariate(4.2, 0.6))
        yield (text, [gen], pause(), "call")
        text = text + [gen, seg(r.lognormvariate(5.5, 1.1))]
    yield (text, [seg(r.uniform(50, 300))], None, "end")


def submind_workspace(trunk, mean_s):
    t = r.expovariate(1 / mean_s)
    while t < end:
        start(t, submind(trunk))
        t += r.expovariate(1 / mean_s)


def main_session(trunk):
    text = [trunk]
    while True:
        text = text + [seg(r.lognormvariate(4, 0.8))]
        for _ in range(r.choice([0, 0, 1, 2, 4, 6])):
            gen = seg(r.lognormvariate(4.5, 0.6))
            yield (text, [gen], pause(), "call")
            text = text + [gen, seg(r.lognormvariate(5.5, 1))]
        gen = seg(r.lognormvariate(5, 0.6))
        yield (text, [gen], r.lognormvariate(4.8, 1.0), "end")
        text = text + [gen]
        if sum(n for _, n in text) > 40000:  # compaction: a summary takes the history's place
            text = [trunk, seg(1500)]


def once(segments, gen=100):
    yield (segments, [seg(gen)], None, "end")


main_trunk = seg(14000)
start(1, main_session(main_trunk))
for size, mean_s in ((17000, 120), (12000, 600), (9000, 900), (6000, 1800), (3000, 3600)):
    submind_workspace(seg(size), mean_s)
cron = seg(10500)
t = 300.0
while t < end:
    start(t, once([cron, seg(120)]))
    start(t + 600, once([main_trunk, seg(60)], 30))
    t += 1800
t = 1500.0
while t < end:
    start(t, once([seg(r.uniform(8000, 30000))], 400))
    t += r.expovariate(1 / 1500)
salts = {}
if a.flood:
    t = end / 2
    for _ in range(200):
        session = once([seg(r.uniform(1000, 6000))])
        salts[id(session)] = 1
        start(t, session)
        t += 3

while events:
    t, _, session = heapq.heappop(events)
    if t >= end:
        continue
    step = next(session, None)
    if step is None:
        continue
    text, gen, wait, how = step
    show = lambda segments: " ".join(f"{s}:{n}" for s, n in segments)
    salt = salts.get(id(session), 0)
    hints = "100 86400" if salt and a.greedy else "- -"
    print(f"{t:.2f} {salt} {hints} {how} {show(text)} | {show(gen)}")
    if wait is not None:
        start(t + 2 + wait, session)
