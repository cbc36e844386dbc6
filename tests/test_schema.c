/* The schema: what is written is what is read; whatever else the bytes are, an error or a schema
 * that makes sense, and no byte beyond its end is looked at. */
#include "check.h"

#include <pthread.h>
#include <sys/mman.h>

enum { PARSED = 16, ROW_BYTES = 64 };

struct parsed {
    uint32_t count; /* 0: not valid */
    cbuf_column columns[PARSED];
};

/* A copy of the text that ends where memory ends: a look behind it is a crash. */
static const char *at_the_end_of_memory(const char *text, size_t bytes)
{
    static char *end;
    if (!end) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE),
               room = (CBUF_MAX_SCHEMA_BYTES + page - 1) / page * page;
        void *base = mmap(
            NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(base != MAP_FAILED);
        end = (char *)base + room;
        assert_int_equal(mprotect(end, page, PROT_NONE), 0);
    }
    assert_true(bytes <= CBUF_MAX_SCHEMA_BYTES);
    memcpy(end - bytes, text, bytes);
    return end - bytes;
}

static uint32_t ask(const char *text, size_t bytes, uint32_t row_bytes, cbuf__query *query)
{
    uint32_t count = cbuf__read_schema(text, bytes, row_bytes, query);
    assert_int_equal(count == 0, query->why != NULL);
    return count;
}

/* Reads a text, and checks that what comes out makes sense: columns in the order of their offsets,
 * within the row, none over another, none named twice, each found by its name. */
static struct parsed parse(const char *text, size_t bytes, uint32_t row_bytes)
{
    struct parsed parsed;
    cbuf__query query;
    const char *copy = at_the_end_of_memory(text, bytes);
    memset(&parsed, 0, sizeof parsed);
    memset(&query, 0, sizeof query);
    parsed.count = ask(copy, bytes, row_bytes, &query);
    assert_true(parsed.count <= PARSED);
    for (uint32_t k = 0, end = 0; k < parsed.count; k++) {
        memset(&query, 0, sizeof query);
        query.index = k;
        assert_int_equal(ask(copy, bytes, row_bytes, &query), parsed.count);
        const cbuf_column *column = &parsed.columns[k];
        parsed.columns[k] = query.found;
        assert_true(cbuf__is_type(column->type));
        assert_true(column->offset >= end);
        end = column->offset + CBUF_TYPE_BYTES(column->type);
        assert_true(end <= row_bytes);
        assert_true(column->name[0] && memchr(column->name, 0, sizeof column->name));
        for (uint32_t before = 0; before < k; before++)
            assert_string_not_equal(column->name, parsed.columns[before].name);
        memset(&query, 0, sizeof query);
        query.name = column->name;
        assert_int_equal(ask(copy, bytes, row_bytes, &query), parsed.count);
        assert_memory_equal(&query.found, column, sizeof *column);
    }
    return parsed;
}

/* The same through a ring in memory whose schema is replaced by the text: it cannot be attached to,
 * or has these columns. */
static void attach_as_parsed(const char *text, size_t bytes, const struct parsed *parsed)
{
    static unsigned char row[ROW_BYTES];
    static struct pair pair;
    static cbuf_column columns[CBUF_MAX_COLUMNS];
    if (!pair.memory) { /* with room for a long schema */
        for (uint32_t k = 0; k < CBUF_MAX_COLUMNS; k++) {
            columns[k] = bytes_column(1);
            columns[k].offset = k;
            snprintf(columns[k].name, sizeof columns[k].name, "%u", k);
        }
        cbuf_options options = options_of(2, columns, CBUF_MAX_COLUMNS);
        open_pair(&pair, &options);
        pair.ring.file->facts.row_bytes = ROW_BYTES; /* the stride may be longer */
    }
    cbuf__facts *facts = &pair.ring.file->facts;
    cbuf_ring ring;
    cbuf_column column;
    if (bytes > facts->gates_offset - facts->schema_offset) return;
    memcpy((char *)pair.memory + facts->schema_offset, text, bytes);
    facts->schema_bytes = (uint32_t)bytes;
    facts->column_count = parsed->count;
    assert_int_equal(
        cbuf_attach_in(&ring, pair.memory, pair.bytes), parsed->count ? 0 : CBUF_ESCHEMA);
    if (!parsed->count) {
        assert_true(strlen(cbuf_error(&ring)) > 0);
        assert_int_equal(cbuf_latest(&ring, row, NULL), CBUF_ENOTOPEN);
        return;
    }
    assert_int_equal(cbuf_resolved(&ring)->column_count, parsed->count);
    for (uint32_t k = 0; k < parsed->count; k++) {
        assert_int_equal(cbuf_column_at(&ring, k, &column), 0);
        assert_memory_equal(&column, &parsed->columns[k], sizeof column);
        assert_int_equal(cbuf_column_find(&ring, parsed->columns[k].name, &column), 0);
        assert_memory_equal(&column, &parsed->columns[k], sizeof column);
    }
    assert_int_equal(cbuf_column_at(&ring, parsed->count, &column), CBUF_EINVAL);
    assert_int_equal(cbuf_column_find(&ring, "no such column", &column), CBUF_EINVAL);
    cbuf_close(&ring);
}

static uint32_t columns_in(const char *text, size_t bytes)
{
    struct parsed parsed = parse(text, bytes, ROW_BYTES);
    attach_as_parsed(text, bytes, &parsed);
    return parsed.count;
}

/* ---- what is written ---- */

TEST(the_text_of_a_schema_is_frozen)
{
    static const char numbered[] =
        "{\"format\":\"cbuf "
        "1.0\",\"layout\":\"numbered\",\"capacity\":8,\"row_bytes\":32,\"stride\":32,"
        "\"rows_offset\":2560,\"head_offset\":256,\"reserve_offset\":384,\"columns\":[\n"
        "{\"name\":\"time\",\"type\":\"timestamp[ns]\",\"offset\":0},\n"
        "{\"name\":\"bid\",\"type\":\"float64\",\"offset\":8},\n"
        "{\"name\":\"ask\",\"type\":\"float64\",\"offset\":16},\n"
        "{\"name\":\"size\",\"type\":\"int32\",\"offset\":24}\n]}\n";
    static const char dense[] =
        "{\"format\":\"cbuf "
        "1.0\",\"layout\":\"dense\",\"capacity\":2,\"row_bytes\":16,\"stride\":16,"
        "\"rows_offset\":2176,\"head_offset\":256,\"reserve_offset\":384,\"columns\":[\n"
        "{\"name\":\"bytes\",\"type\":\"S16\",\"offset\":0}\n]}\n";
    cbuf_column column = bytes_column(16);
    for (int k = 0; k < 2; k++) {
        struct pair pair;
        cbuf_options options = k ? options_of(2, &column, 1) : tick_options(8);
        size_t bytes = 0;
        options.layout = k ? CBUF_DENSE : CBUF_NUMBERED;
        open_pair(&pair, &options);
        const char *text = cbuf_schema(&pair.consumer, &bytes);
        assert_int_equal(bytes, strlen(k ? dense : numbered));
        assert_memory_equal(text, k ? dense : numbered, bytes);
        close_pair(&pair);
    }
}

TEST(every_type_has_its_name)
{
    static const struct {
        uint32_t type;
        const char *name;
    } types[] = { { CBUF_INT8, "int8" }, { CBUF_INT16, "int16" }, { CBUF_INT32, "int32" },
        { CBUF_INT64, "int64" }, { CBUF_UINT8, "uint8" }, { CBUF_UINT16, "uint16" },
        { CBUF_UINT32, "uint32" }, { CBUF_UINT64, "uint64" }, { CBUF_FLOAT32, "float32" },
        { CBUF_FLOAT64, "float64" }, { CBUF_BOOL, "bool" }, { CBUF_TIMESTAMP_NS, "timestamp[ns]" },
        { CBUF_REF, "ref" }, { CBUF_BYTES(1), "S1" }, { CBUF_BYTES(16), "S16" },
        { CBUF_BYTES(1u << 20), "S1048576" } };
    for (size_t k = 0; k < COUNT_OF(types); k++) {
        char text[128], name[32];
        cbuf__text out = { name, name + sizeof name, false };
        cbuf__query query;
        cbuf__say_type(&out, types[k].type);
        assert_string_equal(name, types[k].name);
        int bytes = snprintf(text, sizeof text,
            "{\"columns\":[{\"name\":\"x\",\"type\":\"%s\",\"offset\":0}]}", types[k].name);
        memset(&query, 0, sizeof query);
        assert_int_equal(ask(text, (size_t)bytes, 1u << 20, &query), 1);
        assert_int_equal(query.found.type, types[k].type);
    }
}

TEST(columns_are_read_back_in_the_order_of_their_offsets_whatever_order_they_came_in)
{
    uint64_t seed = 0x5eed0006;
    for (int run = 0; run < 200; run++) {
        cbuf_column columns[PARSED], found;
        struct pair pair;
        uint32_t count = (uint32_t)(1 + random_below(&seed, PARSED)), offset = 0, order[PARSED];
        for (uint32_t k = 0; k < count; k++) {
            static const uint32_t types[] = { CBUF_INT8, CBUF_UINT16, CBUF_FLOAT32,
                CBUF_TIMESTAMP_NS, CBUF_BYTES(11), CBUF_BOOL };
            columns[k] = bytes_column(1);
            columns[k].type = types[random_below(&seed, COUNT_OF(types))];
            columns[k].offset = offset + (uint32_t)random_below(&seed, 3);
            offset = columns[k].offset + CBUF_TYPE_BYTES(columns[k].type);
            /* any printable character but two */
            for (uint64_t i = 0, n = 1 + random_below(&seed, 40); i < n;) {
                char c = (char)(' ' + random_below(&seed, 95));
                if (c != '"' && c != '\\') columns[k].name[i++] = c;
            }
            snprintf(columns[k].name + strlen(columns[k].name) % 40, 7, "#%u", k); /* unique */
            order[k] = k;
        }
        cbuf_column mixed[PARSED];
        for (uint32_t k = 0; k < count; k++) {
            uint32_t pick = (uint32_t)random_below(&seed, count - k);
            mixed[k] = columns[order[pick]];
            order[pick] = order[count - k - 1];
        }
        cbuf_options options = options_of(2, mixed, count);
        open_pair(&pair, &options);
        for (uint32_t k = 0; k < count; k++) {
            assert_int_equal(cbuf_column_at(&pair.consumer, k, &found), 0);
            assert_string_equal(found.name, columns[k].name);
            assert_int_equal(found.type, columns[k].type);
            assert_int_equal(found.offset, columns[k].offset);
            assert_int_equal(cbuf_column_find(&pair.consumer, columns[k].name, &found), 0);
            assert_int_equal(found.offset, columns[k].offset);
        }
        assert_int_equal(cbuf_column_at(&pair.consumer, count, &found), CBUF_EINVAL);
        assert_int_equal(cbuf_column_find(&pair.consumer, "", &found), CBUF_EINVAL);
        close_pair(&pair);
    }
}

TEST(the_largest_schema_that_can_be_made_can_be_read)
{
    static cbuf_column columns[CBUF_MAX_COLUMNS + 1];
    cbuf_column found;
    struct pair pair;
    for (uint32_t k = 0; k <= CBUF_MAX_COLUMNS; k++) {
        memset(columns[k].name, 'x', CBUF_NAME_BYTES - 1);
        snprintf(columns[k].name + CBUF_NAME_BYTES - 5, 5, "%04u", k);
        columns[k].type = CBUF_TIMESTAMP_NS;
        /* seven digits, most of them */
        columns[k].offset = CBUF_MAX_ROW_BYTES - 8 * (CBUF_MAX_COLUMNS - k);
    }
    cbuf_options options = options_of(2, columns, CBUF_MAX_COLUMNS);
    options.row_bytes = CBUF_MAX_ROW_BYTES;
    open_pair(&pair, &options);
    size_t bytes;
    const char *text = cbuf_schema(&pair.consumer, &bytes);
    assert_true(text + bytes <= (const char *)pair.ring.gates);
    for (uint32_t k = 0; k < CBUF_MAX_COLUMNS; k += 73) {
        assert_int_equal(cbuf_column_at(&pair.consumer, k, &found), 0);
        assert_memory_equal(&found, &columns[k], sizeof found);
        assert_int_equal(cbuf_column_find(&pair.consumer, columns[k].name, &found), 0);
        assert_memory_equal(&found, &columns[k], sizeof found);
    }
    close_pair(&pair);
    options.column_count++;
    assert_int_equal(cbuf_memory_needed(&options), CBUF_EINVAL);
}

TEST(a_schema_of_more_columns_than_a_ring_may_have_is_refused)
{
    static char text[CBUF_MAX_SCHEMA_BYTES];
    for (uint32_t count = CBUF_MAX_COLUMNS; count <= CBUF_MAX_COLUMNS + 1; count++) {
        cbuf__query query;
        size_t n = (size_t)snprintf(text, sizeof text, "{\"columns\":[");
        for (uint32_t k = 0; k < count; k++)
            n += (size_t)snprintf(text + n, sizeof text - n,
                "%s{\"name\":\"%u\",\"type\":\"int8\",\"offset\":%u}", k ? "," : "", k, k);
        n += (size_t)snprintf(text + n, sizeof text - n, "]}");
        memset(&query, 0, sizeof query);
        assert_int_equal(ask(at_the_end_of_memory(text, n), n, 4096, &query),
            count > CBUF_MAX_COLUMNS ? 0 : count);
    }
}

/* ---- what cannot be made ---- */

static int making(const cbuf_column *columns, uint32_t count, uint32_t row_bytes)
{
    static unsigned char memory[1 << 16];
    void *aligned = memory + (128 - CBUF__ADDRESS(memory) % 128) % 128;
    cbuf_ring ring;
    cbuf_options options = options_of(2, columns, count);
    options.row_bytes = row_bytes;
    int error = cbuf_create_in(&ring, aligned, sizeof memory - 128, &options);
    if (error) assert_true(strlen(cbuf_error(&ring)) > 0);
    cbuf_close(&ring);
    return error;
}

TEST(columns_that_make_no_sense_are_refused)
{
    static const struct {
        cbuf_column columns[2];
        uint32_t count, row_bytes;
        int error;
    } cases[] = { { { { "a", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, 2, 8, 0 },
        { { { "b", CBUF_INT32, 4 }, { "a", CBUF_INT32, 0 } }, 2, 0, 0 },
        { { { "a", CBUF_INT32, 0 }, { "b", CBUF_INT32, 3 } }, 2, 8, CBUF_ESCHEMA },
        { { { "a", CBUF_INT32, 0 }, { "b", CBUF_INT32, 0 } }, 2, 8, CBUF_ESCHEMA },
        { { { "a", CBUF_BYTES(8), 0 }, { "b", CBUF_INT8, 4 } }, 2, 8, CBUF_ESCHEMA },
        { { { "a", CBUF_INT32, 0 }, { "a", CBUF_INT32, 4 } }, 2, 8, CBUF_ESCHEMA },
        /* beyond the row */
        { { { "a", CBUF_INT32, 5 }, { "b", CBUF_INT32, 0 } }, 2, 8, CBUF_EINVAL },
        { { { "", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, 2, 8, CBUF_ESCHEMA },
        { { { "a\"", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, 2, 8, CBUF_ESCHEMA },
        { { { "a\\", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, 2, 8, CBUF_ESCHEMA },
        { { { "a\n", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, 2, 8, CBUF_ESCHEMA },
        { { { "\x7f", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, 2, 8, CBUF_ESCHEMA },
        { { { "\xc3\xa4", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, 2, 8, CBUF_ESCHEMA },
        { { { "a", 0, 0 }, { "b", CBUF_INT32, 4 } }, 2, 8, CBUF_ESCHEMA },
        { { { "a", CBUF_BYTES(0), 0 }, { "b", CBUF_INT32, 4 } }, 2, 8, CBUF_ESCHEMA },
        { { { "a", CBUF_BYTES(CBUF_MAX_ROW_BYTES + 1), 0 }, { "b", CBUF_INT32, 4 } }, 1, 0,
            CBUF_ESCHEMA },
        { { { "a", CBUF_INT32 + 1, 0 }, { "b", CBUF_INT32, 4 } }, 1, 8, CBUF_ESCHEMA },
        { { { "a", CBUF_FLOAT32 - 2, 0 }, { "b", CBUF_INT32, 4 } }, 1, 8, CBUF_ESCHEMA },
        { { { "a", CBUF_BOOL + 1, 0 }, { "b", CBUF_INT32, 4 } }, 1, 8, CBUF_ESCHEMA },
        { { { "a", CBUF_TIMESTAMP_NS - 4, 0 }, { "b", CBUF_INT32, 4 } }, 1, 8, CBUF_ESCHEMA },
        { { { "a", CBUF__KIND(7) | 4, 0 }, { "b", CBUF_INT32, 4 } }, 1, 8, CBUF_ESCHEMA },
        { { { "a", UINT32_MAX, 0 }, { "b", CBUF_INT32, 4 } }, 1, 8, CBUF_ESCHEMA },
        { { { "a", CBUF_INT8, UINT32_MAX }, { "b", CBUF_INT32, 4 } }, 1, 0, CBUF_ESCHEMA },
        { { { "a", CBUF_INT8, CBUF_MAX_ROW_BYTES }, { "b", CBUF_INT32, 4 } }, 1, 0, CBUF_EINVAL },
        { { { "a", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, 2, CBUF_MAX_ROW_BYTES + 1,
            CBUF_EINVAL },
        { { { "a", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, 0, 8, CBUF_EINVAL },
        { { { "a", CBUF_INT32, 0 }, { "b", CBUF_INT32, 4 } }, UINT32_MAX, 8, CBUF_EINVAL } };
    for (size_t k = 0; k < COUNT_OF(cases); k++)
        if (making(cases[k].columns, cases[k].count, cases[k].row_bytes) != cases[k].error)
            fail_msg("case %zu", k);
    cbuf_column column = bytes_column(4);
    assert_int_equal(making(NULL, 1, 8), CBUF_EINVAL);
    memset(column.name, 'n', sizeof column.name); /* no room for its end */
    assert_int_equal(making(&column, 1, 8), CBUF_ESCHEMA);
    column.name[sizeof column.name - 1] = 0;
    assert_int_equal(making(&column, 1, 8), 0);
}

/* ---- what is read ---- */

/* The texts below have ' for ", to be legible. */
static void put_quotes(char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (text[i] == '\'') text[i] = '"';
}
static uint32_t columns_in_quoted(const char *text)
{
    char quoted[512];
    size_t bytes = strlen(text);
    assert_true(bytes < sizeof quoted);
    memcpy(quoted, text, bytes);
    put_quotes(quoted, bytes);
    return columns_in(quoted, bytes);
}

#define X "{'name':'x','type':'int32','offset':0}"
#define Y "{'name':'y','type':'int8','offset':4}"
#define NAME47 "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

TEST(good_texts_are_read)
{
    static const char *const one_column[] = {
        "{'columns':[" X "]}", "{'columns':[{ 'offset' : 0 , 'type' : 'S1' , 'name' : 'x' }]}",
        /* the row's last bytes */
        "{'columns':[{'offset':60,'type':'float32','name':'" NAME47 "'}]}",
        "{'columns':[{'offset':0,'type':'S64','name':'x'}]}", "{'a':1,'columns':[" X "],'z':null}",
        "{'a':{'columns':[" Y "," Y "]},'columns':[" X "]}", /* the first is another one's key */
        "{'a':[-1.5e+10,true,false,null,'',[],{}],'b':{'c':{'d':[0]}},'columns':[" X "]}",
        "{'a':'\\'\\\\\\/\\b\\f\\n\\r\\t\\u00e4 ]}','columns':[" X "]}",
        "{'a':{'\\'':1},'columns':[" X "]}",
        "{'columns':[{'unit':'\\u20ac','name':'x','type':'S1','a':[1,{'name':'y'}],'offset':0}]}",
        "{'a':[[[[[[[[0]]]]]]]],'columns':[" X "]}", /* eight deep */
    };
    for (size_t k = 0; k < COUNT_OF(one_column); k++)
        if (columns_in_quoted(one_column[k]) != 1) fail_msg("%s", one_column[k]);
    assert_int_equal(columns_in_quoted("{'columns':[" X "," Y "]}"), 2);
    assert_int_equal(columns_in_quoted(" \t\r\n{ 'columns' : [ " X " ,\n" Y " ] } \n"), 2);
}

TEST(bad_texts_are_refused)
{
    static const char *const texts[] = { "", " ", "{", "}", "[", "null", "0", "'columns'", "{}",
        "[]", "{'columns'", "{'columns':", "{'columns':[", "{'columns':[]}", "{'columns':{}}",
        "{'columns':" X "}", "{'columns':null}", "{'columns':[null]}", "{'columns':[[]]}",
        "{'columns':[{}]}", "{'columns':[" X "]", "{'columns':[" X "}", "{'columns':[" X "]]",
        "{'columns':[" X ",]}", "{'columns':[," X "]}", "{'columns':[" X " " Y "]}",
        "{'columns':[" X "],}", "{,'columns':[" X "]}", "{'columns' [" X "]}", "{columns:[" X "]}",
        "{`columns`:[" X "]}", "['columns',[" X "]]", "\xef\xbb\xbf{'columns':[" X "]}",
        "{'columns':[" X "]}{}", "{'columns':[" X "]}x", "{'columns':[" X "]},",
        "{'columns':[" X "]}\n''", "{'columns':[" X "],'columns':[" Y "]}",
        "{'columns':[" X "],'columns':[]}",                          /* twice */
        "{'columns':[" X "," X "]}",                                 /* one over the other */
        "{'columns':[" Y "," X "]}",                                 /* out of order */
        "{'columns':[" X ",{'name':'x','type':'int8','offset':4}]}", /* one name */
        "{'columns':[" X ",{'name':'y','type':'int8','offset':3}]}", /* overlap by a byte */
        "{'columns':[{'type':'int8','offset':0}]}", "{'columns':[{'name':'x','offset':0}]}",
        "{'columns':[{'name':'x','type':'int8'}]}", "{'columns':[{'nam\\u0065':'x','type':'S1'}]}",
        "{'a':[[[[[[[[[0]]]]]]]]],'columns':[" X "]}", /* nine deep */
        "{'a':[1 2],'columns':[" X "]}", "{'a':[1,],'columns':[" X "]}",
        "{'a':{'b'},'columns':[" X "]}", "{'a':{1:2},'columns':[" X "]}",
        "{'a':,'columns':[" X "]}", "{'a':'\n','columns':[" X "]}", "{'a':'\\", "{'a':'\\'",
        "{'a':['", "{'a':[}],'columns':[" X "]}", "{'a':{]},'columns':[" X "]}" };
    for (size_t k = 0; k < COUNT_OF(texts); k++)
        if (columns_in_quoted(texts[k])) fail_msg("%s", texts[k]);
    static const char nul_in_name[] =
        "{\"columns\":[{\"name\":\"x\0\",\"type\":\"S1\",\"offset\":0}]}";
    static const char nul_behind[] =
        "{\"columns\":[{\"name\":\"x\",\"type\":\"S1\",\"offset\":0}]}";
    assert_int_equal(columns_in(nul_behind, sizeof nul_behind - 1), 1);
    assert_int_equal(columns_in(nul_behind, sizeof nul_behind), 0);
    assert_int_equal(columns_in(nul_in_name, sizeof nul_in_name - 1), 0);
}

TEST(bad_names_types_and_offsets_are_refused)
{
    static const char *const names[] = { "''", "1", "null", "'" NAME47 "n'", "'a\\u0062'", "'a\\n'",
        "'a\nb'", "'a\tb'", "'x", "x'", "['x']" };
    static const char *const types[] = { "''", "8", "null", "'int128'", "'Int8'", "'int'",
        "'int8 '", "'int08'", "'int\\u0038'", "'float16'", "'bool8'", "'timestamp'",
        "'timestamp[us]'", "'S'", "'S0'", "'S01'", "'S-1'", "'S1x'", "'S65'", "'S1048577'",
        "'S4294967297'", "'S99999999999999999999999999999999999999'", "'" NAME47 "n'" };
    static const char *const offsets[] = { "", "null", "'1'", "64", "-1", "+1", "1.0", "1e1", "0x1",
        "1048577", "4294967295", "4294967296", "4294967297", "18446744073709551616",
        "99999999999999999999999999999999999999999999999999" };
    char text[512];
    for (size_t k = 0; k < COUNT_OF(names) + COUNT_OF(types) + COUNT_OF(offsets) + 1; k++) {
        size_t t = k - COUNT_OF(names), o = t - COUNT_OF(types);
        snprintf(text, sizeof text, "{'columns':[{'name':%s,'type':%s,'offset':%s}]}",
            k < COUNT_OF(names) ? names[k] : "'x'", t < COUNT_OF(types) ? types[t] : "'int8'",
            o < COUNT_OF(offsets) ? offsets[o] : "63");
        if (columns_in_quoted(text) != (o == COUNT_OF(offsets))) fail_msg("%s", text);
    }
}

/* In a thread with little stack: a reader that goes down with the text would leave it. */
static void *read_nested(void *result)
{
    static char text[CBUF_MAX_SCHEMA_BYTES];
    static const char *const openers[] = { "[", "{\"\":", "[{\"a\":" };
    for (size_t kind = 0; kind < COUNT_OF(openers); kind++) {
        cbuf__query query;
        size_t n = (size_t)snprintf(text, sizeof text, "{\"a\":"), piece = strlen(openers[kind]);
        for (; n + piece <= sizeof text; n += piece) memcpy(text + n, openers[kind], piece);
        memset(&query, 0, sizeof query);
        *(uint32_t *)result += cbuf__read_schema(text, n, ROW_BYTES, &query);
    }
    return NULL;
}
TEST(nesting_without_end_is_refused_and_costs_no_stack)
{
    pthread_t thread;
    pthread_attr_t attributes;
    uint32_t read = 0;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
    assert_int_equal(pthread_create(&thread, &attributes, read_nested, &read), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(read, 0);
    pthread_attr_destroy(&attributes);
}

/* A text of all kinds of columns, as it is written by a ring; and where in it each column
 * stands. */
static const cbuf_column sample_columns[] = { { "time", CBUF_TIMESTAMP_NS, 0 },
    { "a", CBUF_INT8, 8 }, { "bid price", CBUF_FLOAT64, 16 }, { "{}[],:", CBUF_UINT16, 24 },
    { "text", CBUF_BYTES(13), 26 }, { "ok", CBUF_BOOL, 63 } };
static size_t sample_text(char *text, size_t room)
{
    struct pair pair;
    size_t bytes;
    cbuf_options options = options_of(2, sample_columns, (uint32_t)COUNT_OF(sample_columns));
    options.row_bytes = ROW_BYTES;
    open_pair(&pair, &options);
    const char *from = cbuf_schema(&pair.ring, &bytes);
    assert_true(bytes < room);
    memcpy(text, from, bytes);
    close_pair(&pair);
    return bytes;
}
/* each stands in a line of its own, from the second on */
static size_t column_of(const char *text, size_t at)
{
    size_t lines = 0;
    for (size_t i = 0; i < at; i++) lines += text[i] == '\n';
    return lines - 1;
}
/* The text may be refused. If it is not, it has all the columns, and only number `but` may differ
 * from what it was. */
static void is_the_sample_or_refused(const char *text, size_t bytes, size_t but)
{
    struct parsed parsed = parse(text, bytes, ROW_BYTES);
    attach_as_parsed(text, bytes, &parsed);
    if (!parsed.count) return;
    if (parsed.count != COUNT_OF(sample_columns)) fail_msg("%.*s", (int)bytes, text);
    for (size_t k = 0; k < COUNT_OF(sample_columns); k++)
        if (k != but && memcmp(&parsed.columns[k], &sample_columns[k], sizeof parsed.columns[k]))
            fail_msg("%.*s", (int)bytes, text);
}

TEST(a_text_cut_anywhere_is_refused)
{
    char text[2048];
    size_t bytes = sample_text(text, sizeof text), end = bytes;
    while (text[end - 1] == '\n') end--;
    for (size_t n = 0; n <= bytes; n++)
        assert_int_equal(columns_in(text, n), n < end ? 0 : COUNT_OF(sample_columns));
    for (size_t n = 1; n < bytes; n++) assert_int_equal(columns_in(text + n, bytes - n), 0);
}

TEST(a_text_with_any_byte_changed_is_refused_or_differs_in_that_column_alone)
{
    char text[2048];
    size_t bytes = sample_text(text, sizeof text);
    int step = scaled(16) < 16 ? 7 : 1; /* by all values, or by a part of them, another for each */
    for (size_t at = 0; at < bytes; at++) {
        char was = text[at];
        for (int value = (int)at % step; value < 256; value += step) {
            text[at] = (char)value;
            is_the_sample_or_refused(text, bytes, column_of(text, at));
        }
        text[at] = was;
    }
}

TEST(a_text_with_a_byte_missing_doubled_or_moved_is_refused_or_differs_in_that_column_alone)
{
    char text[2048], changed[2048];
    size_t bytes = sample_text(text, sizeof text);
    for (size_t at = 0; at < bytes; at++) {
        size_t column = column_of(text, at);
        memcpy(changed, text, at);
        memcpy(changed + at, text + at + 1, bytes - at - 1);
        is_the_sample_or_refused(changed, bytes - 1, column);
        changed[at] = text[at];
        memcpy(changed + at + 1, text + at, bytes - at);
        is_the_sample_or_refused(changed, bytes + 1, column);
        if (at + 1 == bytes) continue;
        memcpy(changed, text, bytes);
        changed[at] = text[at + 1];
        changed[at + 1] = text[at];
        is_the_sample_or_refused(changed, bytes, column);
    }
}

/* Pieces of texts put together by chance: whatever comes out of them makes sense, which parse()
 * checks. */
TEST(random_texts_are_refused_or_make_sense)
{
    static const char *const pieces[] = { "{", "}", "[", "]", ",", ":", "'", "\\", "'columns':[",
        "{'name':'", "','type':'", "','offset':", "int8", "float64", "S5", "timestamp[ns]", "0",
        "8", "17", "4294967296", "-1", "null", " ", "\n", "x", "y", "z", "'name':'x'",
        "'type':'bool'", "'offset':1", X, Y, X "," Y, "{'columns':[", "]}", "\xff", "\x01",
        "'a':" };
    uint64_t seed = 0x5eed0007, valid = 0;
    char sample[2048], text[4096];
    size_t bytes = sample_text(sample, sizeof sample);
    for (uint64_t run = 0; run < scaled(100000); run++) {
        size_t n = 0;
        if (random_below(&seed, 2)) { /* a good text with a few spoilt places */
            memcpy(text, sample, n = bytes);
            for (uint64_t k = random_below(&seed, 4); k; k--) {
                size_t from = (size_t)random_below(&seed, n), to = (size_t)random_below(&seed, n);
                size_t length = (size_t)random_below(&seed, 60);
                if (from + length < n && to + length < n) memmove(text + to, text + from, length);
            }
        } else {
            for (uint64_t k = random_below(&seed, 24); k && n < sizeof text - 64; k--) {
                const char *piece = pieces[random_below(&seed, COUNT_OF(pieces))];
                memcpy(text + n, piece, strlen(piece));
                n += strlen(piece);
            }
            put_quotes(text, n);
        }
        valid += columns_in(text, n) > 0;
    }
    assert_true(valid > scaled(100000) / 100);
}

/* ---- the ring around it ---- */

TEST(a_schema_that_does_not_fit_its_ring_is_refused)
{
    struct pair pair;
    cbuf_ring ring;
    cbuf_options options = tick_options(8);
    open_pair(&pair, &options);
    cbuf__facts *facts = &pair.ring.file->facts;
    const cbuf__facts good = *facts;
    char *text = (char *)pair.memory + facts->schema_offset, kept[2048];
    memcpy(kept, text, sizeof kept);

    facts->schema_bytes = 0;
    assert_int_equal(cbuf_attach_in(&ring, pair.memory, pair.bytes), CBUF_ESCHEMA);
    facts->schema_bytes = facts->gates_offset - facts->schema_offset + 1;
    assert_int_equal(cbuf_attach_in(&ring, pair.memory, pair.bytes), CBUF_EFORMAT);
    facts->schema_bytes = UINT32_MAX;
    assert_int_equal(cbuf_attach_in(&ring, pair.memory, pair.bytes), CBUF_EFORMAT);
    facts->schema_bytes = good.schema_bytes;
    facts->schema_offset = UINT32_MAX - 8;
    assert_int_equal(cbuf_attach_in(&ring, pair.memory, pair.bytes), CBUF_EFORMAT);
    *facts = good;

    /* where the numbers are */
    static const char tail[] = "{\"columns\":[{\"name\":\"x\",\"type\":\"int8\",\"offset\":28}]}";
    memcpy(text, tail, sizeof tail - 1);
    facts->schema_bytes = sizeof tail - 1;
    facts->column_count = 1;
    assert_int_equal(cbuf_attach_in(&ring, pair.memory, pair.bytes), CBUF_ESCHEMA);
    memcpy(text, kept, sizeof kept);
    *facts = good;

    /* what it says of the number of columns is not believed */
    for (uint32_t count = 0; count < 8; count++) {
        facts->column_count = count;
        int error = cbuf_attach_in(&ring, pair.memory, pair.bytes);
        if (!error) assert_int_equal(cbuf_resolved(&ring)->column_count, 4);
        else assert_true(count != 4);
        cbuf_close(&ring);
    }
    *facts = good;
    assert_int_equal(cbuf_attach_in(&ring, pair.memory, pair.bytes), 0);
    cbuf_close(&ring);
    close_pair(&pair);
}

/* Facts that agree with one another and with the memory's size, but of which one makes no sense. */
TEST(no_number_of_a_ring_is_taken_beyond_its_limits)
{
    static const struct {
        size_t at, bytes;
        uint64_t value;
    } cases[] = {
#define NUMBER(field, value)                                                                       \
    { offsetof(cbuf__facts, field), sizeof(((cbuf__facts *)0)->field), value }
        NUMBER(row_bytes, 0), NUMBER(row_bytes, 37), NUMBER(stride, 32), NUMBER(stride, 44),
        NUMBER(stride, 1048600), NUMBER(capacity, 0), NUMBER(capacity, 1), NUMBER(capacity, 6),
        NUMBER(reserve_step, 0), NUMBER(reserve_step, 5), NUMBER(max_readers, 0),
        NUMBER(max_readers, CBUF_MAX_READERS + 1), NUMBER(producers, 2), NUMBER(on_full, 4),
        NUMBER(delta_count, 1), NUMBER(schema_offset, 1023), NUMBER(schema_offset, 2049),
        NUMBER(schema_bytes, 4096), NUMBER(gates_offset, 1032), NUMBER(gates_offset, 2052),
        NUMBER(features, CBUF__SHARED_TAIL), NUMBER(features, CBUF__LOCKED),
        NUMBER(features, CBUF__DENSE | CBUF__SHARED_TAIL), /* of a ring with a shared tail */
        NUMBER(features, CBUF__MANY), NUMBER(features, 0) /* as it is */
    };
    static unsigned char memory[1 << 20] __attribute__((aligned(128)));
    cbuf_ring ring, reader;
    cbuf_options options = tick_options(8);
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        options.in_place = cases[k].value != (CBUF__DENSE | CBUF__SHARED_TAIL);
        assert_int_equal(cbuf_create_in(&ring, memory, sizeof memory, &options), 0);
        cbuf__facts *facts = &ring.file->facts;
        void *place = (char *)(void *)facts + cases[k].at;
        uint32_t small = (uint32_t)cases[k].value;
        memcpy(place, cases[k].bytes == 4 ? (const void *)&small : (const void *)&cases[k].value,
            cases[k].bytes);
        if (!facts->delta_count) cbuf__place(facts, false);
        bool as_it_is = k + 1 == COUNT_OF(cases);
        if (cbuf_attach_in(&reader, memory, sizeof memory) != (as_it_is ? 0 : CBUF_EFORMAT))
            fail_msg("case %zu: %s", k, cbuf_error(&reader));
        cbuf_close(&reader);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_of_a_schema_is_frozen),
        cmocka_unit_test(every_type_has_its_name),
        cmocka_unit_test(
            columns_are_read_back_in_the_order_of_their_offsets_whatever_order_they_came_in),
        cmocka_unit_test(the_largest_schema_that_can_be_made_can_be_read),
        cmocka_unit_test(a_schema_of_more_columns_than_a_ring_may_have_is_refused),
        cmocka_unit_test(columns_that_make_no_sense_are_refused),
        cmocka_unit_test(good_texts_are_read),
        cmocka_unit_test(bad_texts_are_refused),
        cmocka_unit_test(bad_names_types_and_offsets_are_refused),
        cmocka_unit_test(nesting_without_end_is_refused_and_costs_no_stack),
        cmocka_unit_test(a_text_cut_anywhere_is_refused),
        cmocka_unit_test(a_text_with_any_byte_changed_is_refused_or_differs_in_that_column_alone),
        cmocka_unit_test(
            a_text_with_a_byte_missing_doubled_or_moved_is_refused_or_differs_in_that_column_alone),
        cmocka_unit_test(random_texts_are_refused_or_make_sense),
        cmocka_unit_test(a_schema_that_does_not_fit_its_ring_is_refused),
        cmocka_unit_test(no_number_of_a_ring_is_taken_beyond_its_limits),
    };
    return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
