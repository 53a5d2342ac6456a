// Large pages under what is read from end to end: small ones cost a third of the memory's bandwidth.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

using Range = std::pair<uintptr_t, uintptr_t>;  // of addresses

// Only an advice to the system; contents and addresses stay. Ranges that lie close together are taken as one.
inline void use_large_pages(std::vector<Range> ranges) {
#ifdef __linux__
    constexpr int COLLAPSE = 25;  // MADV_COLLAPSE of Linux 6.1; others refuse it
    constexpr uintptr_t PAGE = 2 << 20;
    std::sort(ranges.begin(), ranges.end());
    for (size_t first = 0, last; first < ranges.size(); first = last) {
        uintptr_t end = ranges[first].second;
        for (last = first + 1; last < ranges.size() && ranges[last].first < end + PAGE; last++) end = std::max(end, ranges[last].second);
        uintptr_t begin = (ranges[first].first + PAGE - 1) / PAGE * PAGE, whole = end / PAGE * PAGE;
        if (begin >= whole) continue;
        madvise((void*)begin, whole - begin, MADV_HUGEPAGE);
        madvise((void*)begin, whole - begin, COLLAPSE);
    }
#endif
}
