// A few threads that go through a step together: they claim pieces of work one by one and meet at barriers.
// Waiting threads spin for some microseconds and then sleep, so that a step survives other processes on the same cores.
#pragma once
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

class Team {
public:
    explicit Team(int size) : size_(size) {
        for (int index = 1; index < size; index++) workers_.emplace_back([this, index] { serve(index); });
    }

    ~Team() {
        job_ = nullptr;
        release(round_);
        for (auto& worker : workers_) worker.join();
    }

    int size() const { return size_; }

    // Every thread of the team, the caller among them, runs `job(index)`; returns when all are done.
    void run(const std::function<void(int)>& job) {
        job_ = &job;
        if (size_ > 1) release(round_);
        job(0);
        barrier();
    }

    // Pieces 0 .. count - 1, each to one thread; then all wait for each other. Every thread of a job calls it.
    template <class Work>
    void share(int count, Work work) {
        for (int piece; (piece = next_.fetch_add(1, std::memory_order_relaxed)) < count;) work(piece);
        barrier();
    }

private:
    using Count = std::atomic<uint32_t>;

    static void release(Count& counter) {
        counter.fetch_add(1, std::memory_order_release);
        counter.notify_all();
    }

    static void await_change(const Count& counter, uint32_t seen) {
        for (int spin = 0; spin < 2000; spin++) {
            if (counter.load(std::memory_order_acquire) != seen) return;
            __builtin_ia32_pause();
        }
        counter.wait(seen, std::memory_order_acquire);
    }

    void barrier() {
        if (size_ == 1) {
            next_.store(0, std::memory_order_relaxed);
            return;
        }
        uint32_t seen = met_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            next_.store(0, std::memory_order_relaxed);
            release(met_);
        } else {
            await_change(met_, seen);
        }
    }

    void serve(int index) {
        for (uint32_t round = 0;; round++) {
            await_change(round_, round);
            if (job_ == nullptr) return;
            (*job_)(index);
            barrier();
        }
    }

    const int size_;
    const std::function<void(int)>* job_ = nullptr;
    // Far apart, since different threads write them.
    alignas(128) Count round_{0};
    alignas(128) Count met_{0};
    alignas(128) std::atomic<int> arrived_{0};
    alignas(128) std::atomic<int> next_{0};
    std::vector<std::thread> workers_;
};
