// Attention of a few queries over one sequence's cache blocks of 16 tokens.
// A block holds, for each key-value head, keys as [unit of the head dimension][16 tokens] units and values as
// [unit of tokens][padded head dimension] units: both products run along lanes and need no sums across them.
// Scores of the whole context are kept, so a query's result does not depend on how a prompt was cut into chunks.
#pragma once
#include <algorithm>

#include "simd.h"

constexpr int BLOCK = 16;
constexpr int QUERIES = 4;  // taken through the keys together
constexpr int ABREAST = 4;  // most blocks of keys that are read together, so that a few queries keep the processor busy

struct HeadLayout {
    int dim;         // of a head
    int key_units;   // units along the head dimension
    int value_dim;   // the head dimension, rounded up to whole vectors of either width
    size_t key_bytes, value_bytes;

    template <class T>
    static HeadLayout of(int dim) {
        int key_units = (dim + UNIT<T> - 1) / UNIT<T>, value_dim = (dim + 15) / 16 * 16;
        return {dim, key_units, value_dim, size_t(key_units) * BLOCK * 4, size_t(BLOCK / UNIT<T>) * value_dim * 4};
    }
    size_t bytes() const { return key_bytes + value_bytes; }
};

// The cache of one sequence for one layer and key-value head.
struct HeadCache {
    char* base;
    size_t block_bytes;
    const int32_t* table;
    char* block(int index) const { return base + size_t(table[index]) * block_bytes; }
};

// Blocks in the order in which they are read: keys from `first` to `last`, values of the same, and what comes after
// them. Memory is slow to answer: what is AHEAD blocks away is asked for now, into the L2 cache, which can wait for more
// at once than the L1 cache can.
struct Path {
    static constexpr int AHEAD = 4;
    const HeadLayout& layout;
    const HeadCache &cache, &following;
    int first, last, following_first, following_last;
    const char* keys(int b) const { return b < last ? cache.block(b) : values(b - last + first); }
    const char* values(int b) const {
        if (b < last) return cache.block(b) + layout.key_bytes;
        return following.block(std::min(following_first + b - last, following_last));
    }
};

template <class T>
struct Query {
    const T* values;  // [dim]
    T* out;           // [dim]
    int begin, end;   // positions that it sees
};

// `key` and `value` have the head's numbers and zeros up to whole vectors.
template <class T>
inline void write_key(const HeadLayout& layout, char* block, int slot, const float* key) {
    alignas(64) int32_t units[W];
    for (int first = 0; first < layout.key_units; first += W / UNIT<T>) {
        store((T*)units, load(key + first * UNIT<T>));
        int32_t* target = (int32_t*)block + first * BLOCK + slot;
        for (int u = 0; u < std::min(W / UNIT<T>, layout.key_units - first); u++) target[u * BLOCK] = units[u];
    }
}

template <class T>
inline void write_value(const HeadLayout& layout, char* block, int slot, const float* value) {
    T* target = (T*)(block + layout.key_bytes) + slot / UNIT<T> * layout.value_dim * UNIT<T> + slot % UNIT<T>;
    for (int i = 0; i < layout.value_dim; i += W) {
        if constexpr (UNIT<T> == 2) store_every_second(target + i * 2, load(value + i));
        else store(target + i, load(value + i));
    }
}

// scores[r][(b - first) * BLOCK + t] for the blocks b of [first, last); rows of scores lie `stride` apart.
template <class T, int R>
inline void score(const Path& path, const Query<T>* queries, float scale, float* scores, size_t stride) {
    constexpr int V = BLOCK / W;                                        // vectors of a block
    constexpr int COUNT = W == 8 ? 1 : R <= 2 ? ABREAST : ABREAST / 2;  // blocks at a time
    const int first = path.first, last = path.last;
    for (int b = first; b < last; b += COUNT) {
        const char *keys[COUNT], *next[COUNT];
        UNROLL
        for (int p = 0; p < COUNT; p++) {
            keys[p] = path.cache.block(std::min(b + p, last - 1));
            next[p] = path.keys(b + p + Path::AHEAD);
        }
        F sums[R][COUNT * V];
        UNROLL
        for (int r = 0; r < R; r++)
            UNROLL
            for (int v = 0; v < COUNT * V; v++) sums[r][v] = zero();
        for (int u = 0; u < path.layout.key_units; u++) {
            UNROLL
            for (int p = 0; p < COUNT; p++) _mm_prefetch(next[p] + u * BLOCK * 4, _MM_HINT_T1);
            U key[COUNT * V];
            UNROLL
            for (int v = 0; v < COUNT * V; v++) key[v] = load_units(keys[v / V] + (u * BLOCK + v % V * W) * 4);
            UNROLL
            for (int r = 0; r < R; r++) {
                U query = repeat_unit(queries[r].values + u * UNIT<T>);
                UNROLL
                for (int v = 0; v < COUNT * V; v++) sums[r][v] = dot<T>(sums[r][v], query, key[v]);
            }
        }
        UNROLL
        for (int r = 0; r < R; r++)
            UNROLL
            for (int v = 0; v < COUNT * V; v++) store(scores + r * stride + (b - first) * BLOCK + v * W, mul(sums[r][v], set1(scale)));
    }
}

// Scores of `count` tokens into exp(score - greatest), in place or as `weights`; 0 outside [begin, end). Returns their sum.
template <class T>
inline float exponentials(float* scores, int count, int begin, int end, T* weights) {
    F most = set1(-INFINITY);
    for (int i = begin / W * W; i < end; i += W) most = max(most, select(in_range(i, begin, end), load(scores + i), most));
    F peak = set1(greatest(most)), total = zero();
    for (int i = 0; i < count; i += W) {
        F weight = select(in_range(i, begin, end), exp(sub(load(scores + i), peak)), zero());
        total = add(total, weight);
        store(weights + i, weight);
    }
    return sum(total);
}

// V vectors of the output from lane `lane` on, for R queries.
template <class T, int R, int V>
inline void blend(const Path& path, const Query<T>* queries, int end, const T* weights, size_t stride, const float* totals,
                  int lane) {
    const HeadLayout& layout = path.layout;
    F sums[R][V];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < V; v++) sums[r][v] = zero();
    for (int b = path.first; b < path.last; b++) {
        const char* values = path.cache.block(b) + layout.key_bytes + lane * 4;
        const char* next = path.values(b + Path::AHEAD) + lane * 4;
        int tokens = std::min(BLOCK, end - b * BLOCK);
        for (int t = 0; t < tokens; t += UNIT<T>) {
            // The second token of a pair may never have been written: what lies there could be a NaN.
            bool half = UNIT<T> == 2 && t + 1 == tokens;
            U value[V];
            UNROLL
            for (int v = 0; v < V; v++) {
                _mm_prefetch(next + (t / UNIT<T> * layout.value_dim + v * W) * 4, _MM_HINT_T1);
                value[v] = load_units(values + (t / UNIT<T> * layout.value_dim + v * W) * 4);
                if (half) value[v] = first_halves(value[v]);
            }
            UNROLL
            for (int r = 0; r < R; r++) {
                U weight = repeat_unit(weights + r * stride + (b - path.first) * BLOCK + t);
                UNROLL
                for (int v = 0; v < V; v++) sums[r][v] = dot<T>(sums[r][v], weight, value[v]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < V; v++) {
            int at = lane + v * W, there = std::min(W, layout.dim - at);
            F result = div(sums[r][v], set1(totals[r]));
            if (there == W) store(queries[r].out + at, result);
            else if (there > 0) store(queries[r].out + at, result, there);
        }
}

// scratch: QUERIES * stride floats of scores and as many weights, with stride >= the context rounded up to ABREAST blocks.
template <class T>
struct Scratch {
    float* scores;
    T* weights;
    size_t stride;
};

template <class T, int R>
inline void attend_rows(Path path, const Query<T>* queries, float scale, const Scratch<T>& scratch) {
    int begin = queries[0].begin, end = queries[0].end;
    for (int r = 1; r < R; r++) begin = std::min(begin, queries[r].begin), end = std::max(end, queries[r].end);
    path.first = begin / BLOCK, path.last = (end + BLOCK - 1) / BLOCK;
    score<T, R>(path, queries, scale, scratch.scores, scratch.stride);
    float totals[R];
    UNROLL
    for (int r = 0; r < R; r++)
        totals[r] = exponentials(scratch.scores + r * scratch.stride, (path.last - path.first) * BLOCK,
                                 queries[r].begin - path.first * BLOCK, queries[r].end - path.first * BLOCK,
                                 scratch.weights + r * scratch.stride);
    constexpr int V = W == 16 ? 4 : 2;
    int lane = 0, width = path.layout.value_dim;
    for (; lane + V * W <= width; lane += V * W) blend<T, R, V>(path, queries, end, scratch.weights, scratch.stride, totals, lane);
    for (; lane + 2 * W <= width; lane += 2 * W) blend<T, R, 2>(path, queries, end, scratch.weights, scratch.stride, totals, lane);
    for (; lane < width; lane += W) blend<T, R, 1>(path, queries, end, scratch.weights, scratch.stride, totals, lane);
}

// `path` need not know its first and last block.
template <class T>
inline void attend(const Path& path, const Query<T>* queries, int count, float scale, const Scratch<T>& scratch) {
    switch (count) {
        case 1: return attend_rows<T, 1>(path, queries, scale, scratch);
        case 2: return attend_rows<T, 2>(path, queries, scale, scratch);
        case 3: return attend_rows<T, 3>(path, queries, scale, scratch);
        case 4: return attend_rows<T, 4>(path, queries, scale, scratch);
    }
}
