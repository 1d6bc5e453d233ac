// Decayed rates and plain counters.
#include "engine/stats.h"

const double engine_hist_bounds[HIST_BUCKETS - 1] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,  2.5,
                                                     5,    10,    20,   40,  80,   160, 640};

enum { DECAY_ROWS = 16 }; // a step with fewer prompt rows says little about speed

void stats_init(struct stats *st)
{
    *st = (struct stats){.speed = {.mean_new = 64}}; // a guess until requests have ended
    pthread_mutex_init(&st->lock, NULL);
}

void stats_deinit(struct stats *st)
{
    pthread_mutex_destroy(&st->lock);
}

// The mutex is not part of the figures' value.
static pthread_mutex_t *lock_of(const struct stats *st)
{
    return &((struct stats *)(uintptr_t)st)->lock;
}

void stats_copy(const struct stats *st, struct engine_stats *out)
{
    pthread_mutex_lock(lock_of(st));
    *out = st->s;
    pthread_mutex_unlock(lock_of(st));
}

struct speed stats_speed(const struct stats *st)
{
    pthread_mutex_lock(lock_of(st));
    const struct speed speed = st->speed;
    pthread_mutex_unlock(lock_of(st));
    return speed;
}

static void add_prefill(struct speed *v, uint32_t n_rows, double alone_s, double dt_s)
{
    if (n_rows < DECAY_ROWS && v->rows > 0) return;
    const double keep = 0.8; // about the last five steps
    v->rows = v->rows * keep + n_rows;
    v->seconds = v->seconds * keep + alone_s;
    v->wall_seconds = v->wall_seconds * keep + dt_s;
    v->prefill_tps = v->rows / v->seconds;
    v->wall_tps = v->rows / v->wall_seconds;
    if (2 * n_rows < v->bulk_rows) return; // a short prompt, or the rest of a long one
    const bool anew =
        n_rows > 2 * v->bulk_rows; // steps of few rows say nothing about those of many
    const double tps = n_rows / alone_s;
    v->bulk_tps = anew ? tps : v->bulk_tps + 0.3 * (tps - v->bulk_tps);
    if (n_rows > v->bulk_rows) v->bulk_rows = n_rows;
}

void stats_step(struct stats *st, uint32_t n_prefill, uint32_t n_decode, double dt_s)
{
    if (dt_s < 1e-6) dt_s = 1e-6;
    pthread_mutex_lock(&st->lock);
    struct speed *v = &st->speed;
    double decode_s = 0;
    if (n_prefill == 0) {
        decode_s = dt_s;
        v->decode_s = v->decode_s == 0 ? dt_s : 0.8 * v->decode_s + 0.2 * dt_s;
    } else {
        // What the decodes would have taken alone; at most half, for the first ones are not measured.
        if (n_decode > 0) decode_s = v->decode_s < dt_s / 2 ? v->decode_s : dt_s / 2;
        add_prefill(v, n_prefill, dt_s - decode_s, dt_s);
    }
    st->s.prefill_tokens += n_prefill;
    st->s.prefill_seconds += dt_s - decode_s;
    st->s.generate_seconds += decode_s;
    pthread_mutex_unlock(&st->lock);
}

void stats_expect(struct stats *st, double tps, double rows)
{
    pthread_mutex_lock(&st->lock);
    struct speed *v = &st->speed;
    if (v->rows == 0) {
        v->rows = DECAY_ROWS;
        v->seconds = v->wall_seconds = DECAY_ROWS / tps;
        v->prefill_tps = v->wall_tps = v->bulk_tps = tps;
        v->bulk_rows = rows;
    }
    pthread_mutex_unlock(&st->lock);
}

void stats_ahead(struct stats *st, uint32_t n_rows)
{
    pthread_mutex_lock(&st->lock);
    st->s.prefill_tokens -= n_rows;
    st->s.ahead_tokens += n_rows;
    pthread_mutex_unlock(&st->lock);
}

void stats_refused(struct stats *st)
{
    pthread_mutex_lock(&st->lock);
    st->s.requests_refused++;
    pthread_mutex_unlock(&st->lock);
}

uint32_t stats_retry_ms(const struct stats *st, uint32_t n_live, uint32_t n_parallel)
{
    pthread_mutex_lock(lock_of(st));
    const struct speed v = st->speed;
    const double backlog = (double)st->backlog;
    pthread_mutex_unlock(lock_of(st));
    double all_s = v.wall_tps > 0 ? backlog / v.wall_tps : 0;
    all_s += v.mean_new * v.decode_s * n_live / n_parallel;
    const double ms = n_live > 0 ? all_s * 1000 / n_live : 0;
    return ms < 1000 ? 1000 : ms > 60000 ? 60000 : (uint32_t)ms;
}

void histogram_add(struct histogram *h, double seconds)
{
    int i = 0;
    while (i < HIST_BUCKETS - 1 && seconds > engine_hist_bounds[i]) i++;
    h->counts[i]++;
    h->sum += seconds;
    h->n++;
}
