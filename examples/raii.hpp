/*
 * cbuf for C++11 and later: handles that close themselves, errors as exceptions, range-for over
 * rows. See raii.cpp.
 *
 *   cbuf::producer<tick> out("ticks", columns, 4);      out.write(row);
 *   cbuf::reader<tick> in("ticks");
 *   for (const auto &batch : in)                        ends when the producer closes the ring
 *       for (const tick &row : batch) use(row);         batch.first(), batch.lost()
 *
 * Neither class can be copied or moved: a handle must stay where it was opened. Hold them as
 * locals, as members, or by std::unique_ptr<cbuf::reader<tick>>.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_RAII_HPP
#define CBUF_RAII_HPP

#include <cbuf.h>

#include <cstddef>
#include <iterator>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace cbuf {

class error : public std::runtime_error {
public:
    error(int64_t code, const std::string &text)
        : std::runtime_error(text), code_(static_cast<int>(code))
    {
    }
    int code() const noexcept { return code_; } /* enum cbuf_error_code */

private:
    int code_;
};

inline int64_t check(int64_t result)
{
    if (result < 0) throw error(result, cbuf_strerror(result));
    return result;
}

namespace detail {
template <typename T> struct typed {
    static_assert(std::is_trivially_copyable<T>::value,
                  "rows are copied as bytes between processes");
    CBUF_TYPED(row, T); /* row_write, row_read ...: with the row's size known to the compiler */
};

/* A ring that closes itself. */
class handle {
public:
    handle() noexcept : ring_() {}
    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;
    ~handle() { cbuf_close(&ring_); }

    void opened(int result, std::size_t row_bytes) const
    {
        if (result < 0) throw error(result, cbuf_error(&ring_));
        if (cbuf_resolved(&ring_)->row_bytes != row_bytes)
            throw error(CBUF_EROWSIZE, path() + ": " + cbuf_strerror(CBUF_EROWSIZE));
    }
    std::string path() const { return cbuf_path(&ring_); }

    cbuf_ring ring_;
};
} // namespace detail

template <typename T> class producer {
public:
    /* `options` need only say what is not default; name, row size and columns are put in here. */
    producer(const std::string &name, const cbuf_column *fields, uint32_t count,
             cbuf_options options = cbuf_options())
    {
        options.name = name.empty() ? nullptr : name.c_str();
        options.columns = fields;
        options.column_count = count;
        options.row_bytes = sizeof(T);
        handle_.opened(cbuf_create(&handle_.ring_, &options), sizeof(T));
    }

    /* False if the ring is full and its policy refuses the row. */
    bool write(const T &row)
    {
        int written = detail::typed<T>::row_write(&handle_.ring_, &row);
        return written != CBUF_ETIMEDOUT && check(written) == 1;
    }
    /* Returns how many of the n rows were written. */
    std::size_t write(const T *rows, std::size_t n)
    {
        int64_t written = detail::typed<T>::row_write_n(&handle_.ring_, rows, n);
        return written == CBUF_ETIMEDOUT ? 0 : static_cast<std::size_t>(check(written));
    }
    std::string path() const { return handle_.path(); }
    const cbuf_ring &ring() const { return handle_.ring_; }

private:
    detail::handle handle_;
};

/* Rows that came together, in the reader's buffer until its next read. */
template <typename T> class batch {
public:
    batch(const T *rows, std::size_t size, uint64_t first, uint64_t lost)
        : rows_(rows), size_(size), first_(first), lost_(lost)
    {
    }
    const T *begin() const { return rows_; }
    const T *end() const { return rows_ + size_; }
    std::size_t size() const { return size_; }
    uint64_t first() const { return first_; } /* sequence number of the first row */
    uint64_t lost() const { return lost_; }   /* rows lost between the batch before and this one */

private:
    const T *rows_;
    std::size_t size_;
    uint64_t first_, lost_;
};

template <typename T> class reader {
public:
    explicit reader(const std::string &name, cbuf_reader_options options = cbuf_reader_options(),
                    std::size_t batch_rows = 256)
        : reader_(), rows_(batch_rows), lost_(0)
    {
        handle_.opened(cbuf_attach(&handle_.ring_, name.c_str(), nullptr), sizeof(T));
        check(cbuf_reader_open(&reader_, &handle_.ring_, &options));
    }
    reader(const reader &) = delete;
    reader &operator=(const reader &) = delete;
    ~reader() { cbuf_reader_close(&reader_); }

    /* The next rows; empty if none came within timeout_ns, or none will ever: see ended. */
    batch<T> next(int64_t timeout_ns = CBUF_FOREVER)
    {
        int64_t n = cbuf_wait(&reader_, 1, timeout_ns);
        ended_ = n == CBUF_ECLOSED || n == CBUF_ERETIRED;
        if (!ended_ && check(n))
            n = check(detail::typed<T>::row_read(&reader_, rows_.data(),
                                                 static_cast<uint32_t>(rows_.size())));
        uint64_t before = lost_;
        lost_ = cbuf_lost(&reader_);
        return batch<T>(rows_.data(), ended_ ? 0 : static_cast<std::size_t>(n),
                        cbuf_first(&reader_), lost_ - before);
    }
    bool ended() const { return ended_; }   /* the ring was closed or removed, and all was read */
    uint64_t lost() const { return lost_; } /* rows lost since the reader was opened */
    const cbuf_ring &ring() const { return handle_.ring_; }

    /* A single pass over all batches, to the end of the ring. */
    class iterator {
    public:
        typedef std::input_iterator_tag iterator_category;
        typedef batch<T> value_type;
        typedef std::ptrdiff_t difference_type;
        typedef const batch<T> *pointer;
        typedef const batch<T> &reference;

        explicit iterator(reader *from) : from_(from), now_(nullptr, 0, 0, 0) { ++*this; }
        reference operator*() const { return now_; }
        pointer operator->() const { return &now_; }
        iterator &operator++()
        {
            if (from_) now_ = from_->next();
            if (from_ && from_->ended()) from_ = nullptr;
            return *this;
        }
        bool operator==(const iterator &other) const { return from_ == other.from_; }
        bool operator!=(const iterator &other) const { return from_ != other.from_; }

    private:
        reader *from_;
        batch<T> now_;
    };
    iterator begin() { return iterator(this); }
    iterator end() { return iterator(nullptr); }

private:
    detail::handle handle_; /* before reader_: it is closed after it */
    cbuf_reader reader_;
    std::vector<T> rows_;
    uint64_t lost_;
    bool ended_ = false;
};

/* Removes a ring when it goes out of scope. Declare it before the producer: it then comes after. */
class temporary {
public:
    explicit temporary(const std::string &name) : name_(name) {}
    temporary(const temporary &) = delete;
    temporary &operator=(const temporary &) = delete;
    ~temporary() { cbuf_remove(name_.c_str()); }

private:
    std::string name_;
};

} // namespace cbuf
#endif
