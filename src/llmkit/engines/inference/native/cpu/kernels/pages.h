// Memory that is read from end to end: large pages under it, as small ones cost a third of its bandwidth.
#pragma once
#include <sys/mman.h>

#include <cstddef>

class LargeMemory {
public:
    LargeMemory() = default;
    LargeMemory(const LargeMemory&) = delete;
    ~LargeMemory() {
        if (start_ != nullptr) munmap(start_, size_);
    }

    char* start() const { return start_; }

    // Zeros, once; false where the system has no room.
    bool allocate(size_t size) {
        void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return false;
#ifdef MADV_HUGEPAGE
        madvise(memory, size, MADV_HUGEPAGE);
#endif
        start_ = (char*)memory;
        size_ = size;
        return true;
    }

private:
    char* start_ = nullptr;
    size_t size_ = 0;
};
