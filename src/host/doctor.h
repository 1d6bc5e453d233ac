// What is wrong with a machine for running a local brain, why it matters and how to put it right.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "host/look.h"

enum finding_status { FINDING_ABSENT, FINDING_OK, FINDING_ATTENTION, FINDING_PROBLEM };

enum check_id {
#define CHECK(id, what, want, why, source) CHECK_##id,
#include "host/facts.def"
    N_CHECKS
};

struct finding {
    enum finding_status status; // FINDING_ABSENT: does not apply to this machine
    const char *remedy;         // a name in facts.def; NULL when nothing is to do
    char seen[320];
};

struct doctor {
    struct host host;
    struct finding finding[N_CHECKS];
    bool here; // this machine, not a recorded one
};

// Looks at the machine below root_path ("/" is this one) and judges. Fails only when the folder
// cannot be opened.
bool doctor_look(struct doctor *d, const char *root_path, const struct look_wish *wish,
                 struct err *e);
enum finding_status doctor_worst(const struct doctor *d);

// The texts of a finding with this machine's values in them, appended to out.
void doctor_want(const struct doctor *d, enum check_id id, struct buf *out);
void doctor_fix(const struct doctor *d, enum check_id id,
                struct buf *out); // nothing when it is well
// The whole result: for people, as JSON, one check at length, and as a script.
void doctor_table(const struct doctor *d, struct buf *out);
void doctor_json(const struct doctor *d, struct buf *out);
bool doctor_explain(const struct doctor *d, const char *name, struct buf *out, struct err *e);
void doctor_plan(const struct doctor *d, struct buf *out);
// What there is to do, each remedy once.
struct doctor_step {
    const char *remedy, *what, *seen; // of the doctor
    int kind;                         // enum remedy_kind
};
size_t doctor_steps(const struct doctor *d, struct doctor_step steps[N_CHECKS]);

// The judges: fill finding[] from host (src/host/judge.c, src/host/judge_gpu.c).
void judge_system(struct doctor *d);
void judge_gpu(struct doctor *d);
void finding_set(struct doctor *d, enum check_id id, enum finding_status status, const char *remedy,
                 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
// GiB of memory the GPU should be allowed to use here; 0 when the memory is not known.
uint32_t doctor_gtt_gib(const struct host *h);

enum {
#define NUMBER(name, value, source) FACT_##name = (value),
#include "host/facts.def"
};
