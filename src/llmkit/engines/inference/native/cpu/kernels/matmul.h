// Products of a few activations with row-major weights, out[m][n] = sum over k of a[m][k] * w[n][k].
// Each number is summed over k in the same order whatever M is, so a row never depends on the rows beside it.
#pragma once
#include <algorithm>

#include "simd.h"

constexpr int TILE_N = 4;
constexpr int TILE_M = W == 16 ? 4 : 2;  // what the registers hold

constexpr size_t AHEAD_BYTES = 4096;  // how far ahead of their use weights are fetched, at least

// Results of TILE_N outputs for up to TILE_M rows; row m begins at m * TILE_N. Rounded up to whole vectors.
struct Tile {
    alignas(64) float values[(TILE_M * TILE_N + W - 1) / W * W];
};

template <class T, int M, bool FETCHES>
inline void multiply_rows(const T* a, size_t stride, const T* const* w, int k, size_t ahead, Tile& out) {
    constexpr int STEP = W * UNIT<T>;
    F sums[M][TILE_N];
    for (int m = 0; m < M; m++)
        for (int n = 0; n < TILE_N; n++) sums[m][n] = zero();
    const T *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];
    int i = 0;
    for (; i + STEP <= k; i += STEP) {
        if (FETCHES) {
            // In the order of addresses, which is what memory is fast at; the rows themselves are read side by side.
            const char* next = (const char*)(w0 + i * TILE_N) + ahead;
            for (int n = 0; n < TILE_N; n++) _mm_prefetch(next + n * W * 4, _MM_HINT_T0);
        }
        U v0 = load_units(w0 + i), v1 = load_units(w1 + i), v2 = load_units(w2 + i), v3 = load_units(w3 + i);
        for (int m = 0; m < M; m++) {
            U x = load_units(a + m * stride + i);
            sums[m][0] = dot<T>(sums[m][0], x, v0);
            sums[m][1] = dot<T>(sums[m][1], x, v1);
            sums[m][2] = dot<T>(sums[m][2], x, v2);
            sums[m][3] = dot<T>(sums[m][3], x, v3);
        }
    }
    if (int rest = (k - i) * int(sizeof(T)); rest > 0) {
        U v[TILE_N];
        for (int n = 0; n < TILE_N; n++) v[n] = load_bytes(w[n] + i, rest);
        for (int m = 0; m < M; m++) {
            U x = load_bytes(a + m * stride + i, rest);
            for (int n = 0; n < TILE_N; n++) sums[m][n] = dot<T>(sums[m][n], x, v[n]);
        }
    }
    for (int m = 0; m < M; m++)
        _mm_store_ps(out.values + m * TILE_N, sum4(sums[m][0], sums[m][1], sums[m][2], sums[m][3]));
}

// TILE_N outputs from output `n` on, of which those below `end` exist, for `rows` (1 to TILE_M) rows of `a`.
// `fetches` brings the weights that come next nearer meanwhile.
template <class T>
inline void multiply(const T* a, size_t stride, int rows, const T* w, int k, int n, int end, bool fetches, Tile& out) {
    const T* row[TILE_N];
    size_t tile = size_t(k) * TILE_N * sizeof(T), ahead = (AHEAD_BYTES + tile - 1) / tile * tile;
    for (int j = 0; j < TILE_N; j++) row[j] = w + size_t(std::min(n + j, end - 1)) * k;
    switch (rows) {
        case 1: return fetches ? multiply_rows<T, 1, true>(a, stride, row, k, ahead, out) : multiply_rows<T, 1, false>(a, stride, row, k, ahead, out);
        case 2: return fetches ? multiply_rows<T, 2, true>(a, stride, row, k, ahead, out) : multiply_rows<T, 2, false>(a, stride, row, k, ahead, out);
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
        case 3: return fetches ? multiply_rows<T, 3, true>(a, stride, row, k, ahead, out) : multiply_rows<T, 3, false>(a, stride, row, k, ahead, out);
        case 4: return fetches ? multiply_rows<T, 4, true>(a, stride, row, k, ahead, out) : multiply_rows<T, 4, false>(a, stride, row, k, ahead, out);
#endif
    }
}

// How many of `left` rows to take next: tiles of nearly equal height.
inline int tile_rows(int left) {
    int tiles = (left + TILE_M - 1) / TILE_M;
    return (left + tiles - 1) / tiles;
}
