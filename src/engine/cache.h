// What cache.c needs of the engine that engine.h does not show. Inside engine/ only.
#pragma once

#include "engine/loop.h"

// loop_call, or ERR_UNSUPPORTED where only the vocabulary was loaded.
bool engine_call(struct engine *en, void (*run)(struct loop *l, void *arg), void *arg,
                 struct err *e);
// NULL where there is none.
struct tier *engine_tier(struct engine *en);
// A sequence that is never admitted, to look things up with; checked as a job is.
bool engine_seq(struct engine *en, const struct job *job, struct seq **out, struct err *e);
