// A network of states with calls: a place in an answer is a state and the frames to return to. Several
// places may be possible at once; all of them are followed.
//
// Invariants: places that are kept wait for a byte or stand at the end of all; frames below n_kept are
// those that they reach. What does not fit (too many places, frames too deep) is left out: the matcher
// may then allow less than the grammar does, never more.
#include "text/grammar.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    PLACES_MAX = 2048, // at once: a choice of so many texts
    WAYS_MAX = 4096,   // states without a byte on the way there
    FRAMES_MAX = 8192,
    DEPTH_MAX = 200, // of frames: some sixty objects in one another
};

enum state_kind { STATE_RANGE, STATE_EITHER, STATE_CALL, STATE_GO, STATE_RETURN };

struct state {
    uint32_t next;
    union {
        uint32_t other; // STATE_EITHER; STATE_CALL: the rule
        struct {
            uint8_t lo, hi, lo2, hi2;
        } range;
    };
    uint8_t kind;
    bool ends; // a text from here on ends; others lead nowhere, and no place is kept in them
};

struct grammar {
    atomic_uint refs;
    struct state *states;
    uint32_t n, cap, start;
    bool failed;
};

// ---- making one -----------------------------------------------------------------------------

bool grammar_new(struct grammar **out, struct err *e)
{
    struct grammar *g = calloc(1, sizeof *g);
    if (g == NULL) return err_set(e, ERR_MEMORY, "no memory for a grammar");
    atomic_init(&g->refs, 1);
    g->start = GRAMMAR_NONE;
    *out = g;
    return true;
}

struct grammar *grammar_ref(struct grammar *g)
{
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void grammar_unref(struct grammar *g)
{
    // acq_rel: whoever frees has seen everybody's last use.
    if (g == NULL || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) return;
    free(g->states);
    free(g);
}

static uint32_t put(struct grammar *g, struct state s)
{
    if (g->n == g->cap && !g->failed) {
        const uint32_t cap = g->cap == 0 ? 256 : g->cap * 2;
        struct state *p = g->n < GRAMMAR_STATES_MAX ? realloc(g->states, cap * sizeof *p) : NULL;
        g->failed = p == NULL;
        if (p != NULL) {
            g->states = p;
            g->cap = cap;
        }
    }
    if (g->failed) return GRAMMAR_NONE;
    g->states[g->n] = s;
    return g->n++;
}

uint32_t grammar_return(struct grammar *g)
{
    return put(g, (struct state){.kind = STATE_RETURN});
}

uint32_t grammar_range(struct grammar *g, uint8_t lo, uint8_t hi, uint8_t lo2, uint8_t hi2,
                       uint32_t next)
{
    return put(g, (struct state){.kind = STATE_RANGE, .next = next, .range = {lo, hi, lo2, hi2}});
}

uint32_t grammar_text(struct grammar *g, struct str text, uint32_t next)
{
    for (size_t i = text.n; i-- > 0;) {
        const uint8_t b = (uint8_t)text.p[i];
        next = grammar_range(g, b, b, 1, 0, next);
    }
    return next;
}

uint32_t grammar_either(struct grammar *g, uint32_t a, uint32_t b)
{
    return put(g, (struct state){.kind = STATE_EITHER, .next = a, .other = b});
}

uint32_t grammar_call(struct grammar *g, uint32_t rule, uint32_t next)
{
    return put(g, (struct state){.kind = STATE_CALL, .next = next, .other = rule});
}

uint32_t grammar_later(struct grammar *g)
{
    return put(g, (struct state){.kind = STATE_GO, .next = GRAMMAR_NONE});
}

void grammar_set(struct grammar *g, uint32_t at, uint32_t where)
{
    if (!g->failed) g->states[at].next = where;
}

bool grammar_failed(const struct grammar *g)
{
    return g->failed;
}

static bool can_end(const struct grammar *g, const struct state *s)
{
    switch ((enum state_kind)s->kind) {
    case STATE_RANGE:
    case STATE_GO: return g->states[s->next].ends;
    case STATE_EITHER: return g->states[s->next].ends || g->states[s->other].ends;
    case STATE_CALL: return g->states[s->next].ends && g->states[s->other].ends;
    case STATE_RETURN: return true;
    }
    return false;
}

// States were made from the end on, so that one pass finds nearly all; rules that contain themselves and
// each other take a few.
bool grammar_finish(struct grammar *g, uint32_t start, struct err *e)
{
    if (g->failed) return err_set(e, ERR_FULL, "a grammar of more than %u states", g->n);
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < g->n; i++) {
            struct state *s = &g->states[i];
            if (s->ends || !can_end(g, s)) continue;
            s->ends = more = true;
        }
    }
    g->start = start;
    return g->states[start].ends || err_set(e, ERR_INPUT, "no answer can have this form");
}

// ---- following an answer --------------------------------------------------------------------

#define NO_FRAME UINT32_MAX

struct frame {
    uint32_t state, up; // where it goes on, and what is returned to then
    uint32_t depth;
};

struct place {
    uint32_t state, frame;
};

struct places {
    uint32_t n;
    bool complete; // one of the ways ends here
    struct place p[PLACES_MAX];
};

struct grammar_match {
    struct grammar *g;
    uint32_t n_frames, n_kept;
    struct places sets[3]; // the kept one, and two to step between
    uint32_t i_kept;
    bool firsts[256];            // bytes that may come next
    struct place todo[WAYS_MAX]; // of the closure under way
    uint32_t n_todo, n_seen;
    struct place seen[WAYS_MAX]; // states without a byte that this closure has been in
    uint32_t moved[FRAMES_MAX];
    struct frame frames[FRAMES_MAX];
};

// The same frame made again in a step is the same frame, so that equal places are seen to be equal.
static uint32_t push(struct grammar_match *m, uint32_t state, uint32_t up, uint32_t from)
{
    const uint32_t depth = up == NO_FRAME ? 1 : m->frames[up].depth + 1;
    for (uint32_t i = from; i < m->n_frames; i++)
        if (m->frames[i].state == state && m->frames[i].up == up) return i;
    if (m->n_frames == FRAMES_MAX || depth > DEPTH_MAX) return NO_FRAME;
    m->frames[m->n_frames] = (struct frame){state, up, depth};
    return m->n_frames++;
}

static bool has(const struct place *list, uint32_t n, struct place p)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i].state == p.state && list[i].frame == p.frame) return true;
    return false;
}

// A place with a byte is reached; one without is gone on from, once.
static void todo_put(struct grammar_match *m, struct places *out, uint32_t state, uint32_t frame)
{
    const struct place p = {state, frame};
    const struct state *s = &m->g->states[state];
    if (!s->ends) return;
    if (s->kind == STATE_RANGE) {
        if (out->n < PLACES_MAX && !has(out->p, out->n, p)) out->p[out->n++] = p;
    } else if (m->n_seen < WAYS_MAX && !has(m->seen, m->n_seen, p)) {
        m->seen[m->n_seen++] = p;
        m->todo[m->n_todo++] = p;
    }
}

// Adds the places with a byte that are reached from (state, frame) without one. from: the first frame of
// this step.
static void reach(struct grammar_match *m, struct places *out, uint32_t state, uint32_t frame,
                  uint32_t from)
{
    m->n_todo = m->n_seen = 0;
    todo_put(m, out, state, frame);
    while (m->n_todo > 0) {
        const struct place p = m->todo[--m->n_todo];
        const struct state *s = &m->g->states[p.state];
        uint32_t f = p.frame;
        switch ((enum state_kind)s->kind) {
        case STATE_RANGE: break; // is reached already
        case STATE_EITHER:
            todo_put(m, out, s->other, f);
            todo_put(m, out, s->next, f);
            break;
        case STATE_GO: todo_put(m, out, s->next, f); break;
        case STATE_CALL:
            f = push(m, s->next, p.frame, from);
            if (f != NO_FRAME) todo_put(m, out, s->other, f);
            break;
        case STATE_RETURN:
            if (f == NO_FRAME)
                out->complete = true;
            else
                todo_put(m, out, m->frames[f].state, m->frames[f].up);
            break;
        }
    }
}

static bool takes(const struct state *s, uint8_t b)
{
    return (b >= s->range.lo && b <= s->range.hi) || (b >= s->range.lo2 && b <= s->range.hi2);
}

static void step(struct grammar_match *m, const struct places *in, uint8_t b, struct places *out)
{
    const uint32_t from = m->n_frames;
    out->n = 0;
    out->complete = false;
    for (uint32_t i = 0; i < in->n; i++) {
        const struct state *s = &m->g->states[in->p[i].state];
        if (takes(s, b)) reach(m, out, s->next, in->p[i].frame, from);
    }
}

static void note_firsts(struct grammar_match *m)
{
    const struct places *now = &m->sets[m->i_kept];
    memset(m->firsts, 0, sizeof m->firsts);
    for (uint32_t i = 0; i < now->n; i++)
        for (unsigned b = 0; b < 256; b++)
            m->firsts[b] |= takes(&m->g->states[now->p[i].state], (uint8_t)b);
}

// Frames that no kept place reaches go. A frame's upper one is older, so that one pass down marks and one
// pass up moves.
static void keep(struct grammar_match *m)
{
    struct places *now = &m->sets[m->i_kept];
    memset(m->moved, 0, m->n_frames * sizeof *m->moved);
    for (uint32_t i = 0; i < now->n; i++)
        if (now->p[i].frame != NO_FRAME) m->moved[now->p[i].frame] = 1;
    for (uint32_t i = m->n_frames; i-- > 0;)
        if (m->moved[i] != 0 && m->frames[i].up != NO_FRAME) m->moved[m->frames[i].up] = 1;
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_frames; i++) {
        if (m->moved[i] == 0) continue;
        struct frame f = m->frames[i];
        if (f.up != NO_FRAME) f.up = m->moved[f.up];
        m->frames[n] = f;
        m->moved[i] = n++;
    }
    for (uint32_t i = 0; i < now->n; i++)
        if (now->p[i].frame != NO_FRAME) now->p[i].frame = m->moved[now->p[i].frame];
    m->n_frames = m->n_kept = n;
    note_firsts(m);
}

bool grammar_match_open(struct grammar_match **out, struct grammar *g, struct err *e)
{
    assert(!g->failed && g->start < g->n);
    struct grammar_match *m = calloc(1, sizeof *m);
    if (m == NULL) return err_set(e, ERR_MEMORY, "no memory for a grammar");
    m->g = grammar_ref(g);
    grammar_match_restart(m);
    *out = m;
    return true;
}

void grammar_match_restart(struct grammar_match *m)
{
    struct places *start = &m->sets[m->i_kept];
    m->n_frames = 0;
    start->n = 0;
    start->complete = false;
    reach(m, start, m->g->start, NO_FRAME, 0);
    keep(m);
}

void grammar_match_close(struct grammar_match *m)
{
    if (m == NULL) return;
    grammar_unref(m->g);
    free(m);
}

// The set that holds after the bytes, NULL where they may not come; frames above n_kept are its own.
static struct places *run(struct grammar_match *m, struct str bytes)
{
    struct places *in = &m->sets[m->i_kept], *a = &m->sets[(m->i_kept + 1) % 3],
                  *b = &m->sets[(m->i_kept + 2) % 3];
    if (bytes.n == 0 || !m->firsts[(uint8_t)bytes.p[0]]) return NULL;
    for (size_t i = 0; i < bytes.n; i++) {
        step(m, in, (uint8_t)bytes.p[i], a);
        if (a->n == 0 && !a->complete) return NULL;
        in = a;
        a = b;
        b = in;
    }
    return in;
}

bool grammar_match_test(struct grammar_match *m, struct str bytes)
{
    const bool ok = run(m, bytes) != NULL;
    m->n_frames = m->n_kept;
    return ok;
}

bool grammar_match_take(struct grammar_match *m, struct str bytes)
{
    const struct places *after = run(m, bytes);
    if (after == NULL) {
        m->n_frames = m->n_kept;
        return false;
    }
    m->i_kept = (uint32_t)(after - m->sets);
    keep(m);
    return true;
}

bool grammar_match_complete(const struct grammar_match *m)
{
    return m->sets[m->i_kept].complete;
}

bool grammar_match_over(const struct grammar_match *m)
{
    return m->sets[m->i_kept].n == 0;
}
