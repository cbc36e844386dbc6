/* Rows whose structs have bytes that nobody sets, filled field by field and written, as users do:
 * tests/headers compiles this with every compiler and standard, optimised and not, and wants no
 * warning. */
#include <cbuf.h>

#define ROW(name, attribute, ...) \
    struct attribute name { __VA_ARGS__ }; \
    CBUF_TYPED(name, struct name); \
    int use_##name(cbuf_ring *ring, cbuf_reader *reader, int value); \
    int use_##name(cbuf_ring *ring, cbuf_reader *reader, int value)
#define SET(field, type) row.field = CBUF__AS(type, value + i)
#define USE(name, ...) \
    { \
        int failed = 0; \
        for (int i = 0; i < 100; i++) { \
            struct name row; \
            __VA_ARGS__; \
            if (name##_write(ring, &row) < 0) failed++; \
            if (name##_read(reader, &row, 1) < 0) failed++; \
        } \
        return failed; \
    }

#define ALIGNED __attribute__((aligned(64)))
#define PLAIN
ROW(tail, PLAIN, int64_t time; double bid; int32_t size;)
USE(tail, SET(time, int64_t); SET(bid, double); SET(size, int32_t))
ROW(middle, PLAIN, int32_t size; double bid; char side;)
USE(middle, SET(size, int32_t); SET(bid, double); SET(side, char))
ROW(line, ALIGNED, int64_t time; double bid;)
USE(line, SET(time, int64_t); SET(bid, double))
ROW(words, ALIGNED, int64_t time; char side;)
USE(words, SET(time, int64_t); SET(side, char))
ROW(small, PLAIN, int16_t size; char side;)
USE(small, SET(size, int16_t); SET(side, char))
ROW(holes, PLAIN, int64_t a; int16_t b; double c; char d; int64_t e; float f;)
USE(holes, SET(a, int64_t); SET(b, int16_t); SET(c, double); SET(d, char); SET(e, int64_t);
    SET(f, float))
ROW(large, PLAIN, char text[300]; int32_t size;)
USE(large, row.text[value % 300] = CBUF__AS(char, i); SET(size, int32_t))

int main(void) { return 0; }
