// Pieces of work on PyTorch's own threads: a second set of threads would fight with the first for the cores.
#pragma once
#include <atomic>
#include <cstdint>

// `GOMP_parallel` of the OpenMP library that PyTorch has loaded.
using Fork = void (*)(void (*)(void*), void*, unsigned, unsigned);
inline Fork fork_threads = nullptr;

template <class Work>
struct Pieces {
    std::atomic<int64_t> next{0};
    int64_t count;
    Work& work;

    static void claim(void* pieces) {
        auto& self = *static_cast<Pieces*>(pieces);
        for (int64_t piece; (piece = self.next.fetch_add(1, std::memory_order_relaxed)) < self.count;) self.work(piece);
    }
};

// Calls `work(piece)` for each of `count` pieces, in any order, on so many threads.
template <class Work>
void share(int threads, int64_t count, Work work) {
    Pieces<Work> pieces{.count = count, .work = work};
    if (threads > 1 && count > 1)
        fork_threads(Pieces<Work>::claim, &pieces, unsigned(threads), 0);
    else
        Pieces<Work>::claim(&pieces);
}

// Calls `work(first, last)` for blocks of at most `size` of `count` rows.
template <class Work>
void share_rows(int threads, int64_t count, int64_t size, Work work) {
    share(threads, (count + size - 1) / size, [&](int64_t block) {
        const int64_t first = block * size;
        work(first, first + size < count ? first + size : count);
    });
}
