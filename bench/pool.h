/*
 * pool.h - payloads of ROW_BYTES bytes taken and given back. Needs CAN_POOL, and of the adapter:
 *
 *   struct user                        one thread's handle; user_open(u, side), user_close(u)
 *   void *take(u, uint64_t *token)     a payload
 *   void hold(u, token), drop(u, token); CAN_HOLD: 0 if there is no hold; ONE_THREAD: 1 if nothing can be passed on
 *   CAN_PASS: send(u, token), which waits for room and gives the payload away, and receive(u, *token), which returns the payload,
 *   held, or NULL; else tokens go through a ring of words, the same for all.
 *
 * Shapes: pool-pair: `batch` payloads taken, 8 bytes of each written, and given back, by one thread; pool-retain: one more
 * reference and back, by another user of the same thread; pool-pass: taken, filled and sent by one thread, summed up and given
 * back by another.
 */

enum { PASS_SLOTS = 256 };
#ifndef CAN_PASS
static struct pass { /* lim.c's ring, of words */
    uint64_t head __attribute__((aligned(LINE)));
    uint64_t tail __attribute__((aligned(LINE)));
    uint64_t words[PASS_SLOTS] __attribute__((aligned(LINE)));
} pass_ring;
INLINE void send(UNUSED struct user *u, uint64_t token)
{
    static uint64_t head, tail;
    while (head - tail == PASS_SLOTS) {
        tail = __atomic_load_n(&pass_ring.tail, __ATOMIC_ACQUIRE);
        if (head - tail == PASS_SLOTS) idle(&setup);
    }
    pass_ring.words[head % PASS_SLOTS] = token;
    __atomic_store_n(&pass_ring.head, ++head, __ATOMIC_RELEASE);
}
INLINE void *receive(struct user *u, uint64_t *token)
{
    static uint64_t head, tail;
    if (head == tail && (head = __atomic_load_n(&pass_ring.head, __ATOMIC_ACQUIRE)) == tail) return NULL;
    *token = pass_ring.words[tail % PASS_SLOTS];
    __atomic_store_n(&pass_ring.tail, ++tail, __ATOMIC_RELEASE);
    return payload(u, *token);
}
#endif

static struct user pool_users[2] __attribute__((aligned(LINE)));

INLINE void pool_pairs(struct user *u, struct side *s, const int batch)
{
    uint64_t tokens[32], i = 0;
    side_begin(s);
    uint64_t deadline = deadline_in_ticks();
    struct window window;
    window_begin(&window, 0);
    do {
        for (uint64_t until = i + WINDOW_ROWS; i < until; i += (uint64_t)batch) {
            for (int k = 0; k < batch; k++) *(volatile uint64_t *)take(u, &tokens[k]) = i;
            for (int k = 0; k < batch; k++) drop(u, tokens[k]);
        }
        window_pass(&window, i);
    } while (ticks() < deadline);
    side_end(s);
    s->tally.rows = i;
}
static void pool_pair_side(int side)
{
    user_open(&pool_users[0], side);
    if (setup.batch == 1) pool_pairs(&pool_users[0], &control->sides[0], 1);
    else if (setup.batch == 32) pool_pairs(&pool_users[0], &control->sides[0], 32);
    else die("batch", "1 or 32");
    user_close(&pool_users[0]);
}

static void pool_retain_side(int side)
{
    struct side *s = &control->sides[side];
    uint64_t token, i = 0;
    user_open(&pool_users[0], 0);
    user_open(&pool_users[1], 1);
    take(&pool_users[0], &token);
    side_begin(s);
    uint64_t deadline = deadline_in_ticks();
    struct window window;
    window_begin(&window, 0);
    do {
        for (uint64_t until = i + WINDOW_ROWS; i < until; i++) {
            hold(&pool_users[1], token);
            drop(&pool_users[1], token);
        }
        window_pass(&window, i);
    } while (ticks() < deadline);
    side_end(s);
    s->tally.rows = i;
    drop(&pool_users[0], token);
    user_close(&pool_users[1]);
    user_close(&pool_users[0]);
}

enum { POOL_WORDS = ROW_BYTES / 8 };
static void pool_pass_side(int side)
{
    struct user *u = &pool_users[side];
    struct side *s = &control->sides[side];
    uint64_t i = 0, wrong = 0;
    open_turn((uint32_t)side);
    user_open(u, side);
    opened();
    start_together(2);
    side_begin(s);
    uint64_t deadline = deadline_in_ticks();
    if (side == 0) {
        for (uint64_t last = 0; !last; i++) {
            uint64_t token, *words = (uint64_t *)take(u, &token);
            last = i % 1024 == 0 && ticks() >= deadline;
            for (int k = 1; k < POOL_WORDS; k++) words[k] = i;
            words[0] = i << 1 | last;
            send(u, token);
        }
    } else {
        struct window window;
        window_begin(&window, 0);
        for (uint64_t last = 0; !last; i++) {
            uint64_t token = 0, sum = 0;
            const uint64_t *words;
            while ((words = (const uint64_t *)receive(u, &token)) == NULL) idle(&setup);
            for (int k = 1; k < POOL_WORDS; k++) sum += words[k];
            last = words[0] & 1;
            wrong |= (words[0] >> 1 ^ i) | (sum ^ i * (uint64_t)(POOL_WORDS - 1));
            drop(u, token);
            window_pass(&window, i + 1);
        }
    }
    side_end(s);
    s->tally.rows = i;
    s->tally.wrong = wrong;
    if (side == 1) user_close(u); /* the producer's pool outlives it */
    opened();
    if (side == 0) open_turn(4), user_close(u);
}

#ifndef ONE_THREAD
#define ONE_THREAD 0
#endif
static bool pool_run(const char *shape)
{
    struct side *s = &control->sides[0];
    if (!strcmp(shape, "pool-pair")) run_sides(1, pool_pair_side);
    else if (!strcmp(shape, "pool-retain") && CAN_HOLD) run_sides(1, pool_retain_side);
    else if (!strcmp(shape, "pool-pass") && !ONE_THREAD) run_sides(2, pool_pass_side), s = &control->sides[1];
    else return false;
    if (s->tally.wrong) die("pool", "a payload changed on its way");
    report_rate((double)s->tally.rows, (double)(s->end_ns - s->begin_ns), true);
    report_disturbance(s == &control->sides[1] ? 2 : 1);
    return true;
}
