/*
 * cbuf from C++11 on: a producer and two readers in three threads, with the wrapper of raii.hpp.
 *
 *   c++ -std=c++11 -O2 -Iinclude examples/raii.cpp -o raii -pthread && ./raii
 *
 * The ring is smaller than what is written and the policy is to block: no reader loses a row.
 *
 * SPDX-License-Identifier: MIT
 */
#include "raii.hpp"

#include <exception>
#include <future>
#include <iostream>
#include <memory>

struct trade {
    int64_t time;
    double price;
    int32_t size;
};

static const cbuf_column columns[] = {
    CBUF_COLUMN_AS(trade, time, CBUF_TIMESTAMP_NS),
    CBUF_COLUMN(trade, price),
    CBUF_COLUMN(trade, size),
};

struct totals {
    uint64_t rows, lost, batches;
    double value;
};

static const int32_t trades = 200000;

static totals add_up(cbuf::reader<trade> &in)
{
    totals sum = totals();
    for (const auto &batch : in) {
        for (const trade &row : batch) sum.value += row.price * row.size;
        sum.rows += batch.size();
        sum.lost += batch.lost();
        sum.batches++;
    }
    return sum;
}

static int run()
{
    const std::string name = "raii_" + std::to_string(getpid());
    double value = 0;
    cbuf::temporary removed_at_the_end(name);
    cbuf_options options = cbuf_options();
    options.capacity = 4096;
    options.on_full = CBUF_BLOCK;

    std::unique_ptr<cbuf::reader<trade>> readers[2];
    std::future<totals> results[2];
    {
        cbuf::producer<trade> out(name, columns, 3, options);
        std::cout << out.path() << ": " << trades << " trades through "
                  << cbuf_resolved(&out.ring())->capacity << " rows\n";
        for (int i = 0; i < 2; i++) { /* from here on the producer waits for them */
            readers[i].reset(new cbuf::reader<trade>(name));
            results[i] = std::async(std::launch::async, add_up, std::ref(*readers[i]));
        }
        for (int32_t i = 0; i < trades; i++) {
            trade row = { i * INT64_C(1000000), 100 + i % 50 * 0.25, 1 + i % 9 };
            if (out.write(row)) value += row.price * row.size;
        }
    } /* the producer closes the ring: the readers get the rest, and end */

    bool good = true;
    for (auto &result : results) {
        totals sum = result.get();
        std::cout << "a reader got " << sum.rows << " rows in " << sum.batches << " batches, lost "
                  << sum.lost << ", worth " << static_cast<int64_t>(sum.value) << "\n";
        good = good && sum.rows == static_cast<uint64_t>(trades) && !sum.lost &&
               sum.value >= value && sum.value <= value;
    }

    try {
        cbuf::reader<trade> nobody("no_such_ring");
        good = false;
    } catch (const cbuf::error &e) {
        std::cout << "as it should be, error " << e.code() << ": " << e.what() << "\n";
    }
    return good ? 0 : 1;
}

int main()
{
    try {
        return run();
    } catch (const std::exception &e) {
        std::cerr << "raii: " << e.what() << "\n";
        return 1;
    }
}
