// Attention of a few queries over one sequence's cache blocks of 16 tokens.
// A block holds, for each key-value head, keys as [unit of the head dimension][16 tokens] units and values as
// [unit of tokens][padded head dimension] units: both products run along lanes and need no sums across them.
// Scores of the whole context are kept, so a query's result does not depend on how a prompt was cut into chunks.
#pragma once
#include <algorithm>

#include "simd.h"

constexpr int BLOCK = 16;
constexpr int QUERIES = 4;  // taken through the keys together

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

template <class T>
struct Query {
    const T* values;  // [dim]
    T* out;           // [dim]
    int begin, end;   // positions that it sees
};

template <class T>
inline void write_key(const HeadLayout& layout, char* block, int slot, const float* key) {
    T* target = (T*)block + slot * UNIT<T>;
    for (int i = 0; i < layout.dim; i++) assign(target[(i / UNIT<T>)*BLOCK * UNIT<T> + i % UNIT<T>], key[i]);
}

template <class T>
inline void write_value(const HeadLayout& layout, char* block, int slot, const float* value) {
    T* target = (T*)(block + layout.key_bytes) + (slot / UNIT<T>)*layout.value_dim * UNIT<T> + slot % UNIT<T>;
    for (int i = 0; i < layout.dim; i++) assign(target[i * UNIT<T>], value[i]);
}

// scores[r][(b - first) * BLOCK + t] for the blocks b of [first, last); rows of scores lie `stride` apart.
template <class T, int R>
inline void score(const HeadLayout& layout, const HeadCache& cache, const Query<T>* queries, int first, int last, float scale,
                  float* scores, size_t stride) {
    constexpr int V = BLOCK / W, PAIR = W == 16 ? 2 : 1;  // vectors of a block, blocks at a time
    for (int b = first; b < last; b += PAIR) {
        const char *keys[PAIR], *next[PAIR];
        for (int p = 0; p < PAIR; p++) {
            keys[p] = cache.block(std::min(b + p, last - 1));
            next[p] = cache.block(std::min(b + p + PAIR, last - 1));
        }
        F sums[R][PAIR * V];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < PAIR * V; v++) sums[r][v] = zero();
        for (int u = 0; u < layout.key_units; u++) {
            for (int p = 0; p < PAIR; p++) _mm_prefetch(next[p] + u * BLOCK * 4, _MM_HINT_T0);
            U key[PAIR * V];
            for (int v = 0; v < PAIR * V; v++) key[v] = load_units(keys[v / V] + (u * BLOCK + v % V * W) * 4);
            for (int r = 0; r < R; r++) {
                U query = repeat_unit(queries[r].values + u * UNIT<T>);
                for (int v = 0; v < PAIR * V; v++) sums[r][v] = dot<T>(sums[r][v], query, key[v]);
            }
        }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < PAIR * V; v++) store(scores + r * stride + (b - first) * BLOCK + v * W, mul(sums[r][v], set1(scale)));
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
inline void blend(const HeadLayout& layout, const HeadCache& cache, const Query<T>* queries, int first, int end, const T* weights,
                  size_t stride, const float* totals, int lane) {
    F sums[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sums[r][v] = zero();
    for (int b = first; b * BLOCK < end; b++) {
        const char* values = cache.block(b) + layout.key_bytes + lane * 4;
        const char* next = cache.block((b + 1) * BLOCK < end ? b + 1 : b) + layout.key_bytes + lane * 4;
        int tokens = std::min(BLOCK, end - b * BLOCK);
        for (int t = 0; t < tokens; t += UNIT<T>) {
            // The second token of a pair may never have been written: what lies there could be a NaN.
            bool half = UNIT<T> == 2 && t + 1 == tokens;
            U value[V];
            for (int v = 0; v < V; v++) {
                _mm_prefetch(next + (t / UNIT<T> * layout.value_dim + v * W) * 4, _MM_HINT_T0);
                value[v] = load_units(values + (t / UNIT<T> * layout.value_dim + v * W) * 4);
                if (half) value[v] = first_halves(value[v]);
            }
            for (int r = 0; r < R; r++) {
                U weight = repeat_unit(weights + r * stride + (b - first) * BLOCK + t);
                for (int v = 0; v < V; v++) sums[r][v] = dot<T>(sums[r][v], weight, value[v]);
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            int at = lane + v * W, there = std::min(W, layout.dim - at);
            F result = div(sums[r][v], set1(totals[r]));
            if (there == W) store(queries[r].out + at, result);
            else if (there > 0) store(queries[r].out + at, result, there);
        }
}

// scratch: QUERIES * stride floats of scores and as many weights, with stride >= the context rounded up to 2 blocks.
template <class T, int R>
inline void attend_rows(const HeadLayout& layout, const HeadCache& cache, const Query<T>* queries, float scale, float* scores,
                        T* weights, size_t stride) {
    int begin = queries[0].begin, end = queries[0].end;
    for (int r = 1; r < R; r++) begin = std::min(begin, queries[r].begin), end = std::max(end, queries[r].end);
    int first = begin / BLOCK, last = (end + BLOCK - 1) / BLOCK;
    score<T, R>(layout, cache, queries, first, last, scale, scores, stride);
    float totals[R];
    for (int r = 0; r < R; r++)
        totals[r] = exponentials(scores + r * stride, (last - first) * BLOCK, queries[r].begin - first * BLOCK,
                                 queries[r].end - first * BLOCK, weights + r * stride);
    constexpr int V = W == 16 ? 4 : 2;
    int lane = 0;
    for (; lane + V * W <= layout.value_dim; lane += V * W)
        blend<T, R, V>(layout, cache, queries, first, end, weights, stride, totals, lane);
    for (; lane + 2 * W <= layout.value_dim; lane += 2 * W)
        blend<T, R, 2>(layout, cache, queries, first, end, weights, stride, totals, lane);
    for (; lane < layout.value_dim; lane += W)
        blend<T, R, 1>(layout, cache, queries, first, end, weights, stride, totals, lane);
}

template <class T>
inline void attend(const HeadLayout& layout, const HeadCache& cache, const Query<T>* queries, int count, float scale, float* scores,
                   T* weights, size_t stride) {
    switch (count) {
        case 1: return attend_rows<T, 1>(layout, cache, queries, scale, scores, weights, stride);
        case 2: return attend_rows<T, 2>(layout, cache, queries, scale, scores, weights, stride);
        case 3: return attend_rows<T, 3>(layout, cache, queries, scale, scores, weights, stride);
        case 4: return attend_rows<T, 4>(layout, cache, queries, scale, scores, weights, stride);
    }
}
