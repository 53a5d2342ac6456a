// Products of a few activations with row-major weights, out[m][n] = sum over k of a[m][k] * w[n][k].
// Each number is summed over k in the same order whatever M is, so a row never depends on the rows beside it.
#pragma once
#include <algorithm>

#include "simd.h"

constexpr int TILE_N = 4;
constexpr int TILE_M = W == 16 ? 4 : 2;  // what the registers hold
constexpr int PANEL_ROWS = 64;           // rows that pass along TILE_N outputs in one call

constexpr int SPREAD_TILES = 4;          // so many tiles share the work of fetching what follows
constexpr size_t AHEAD_BYTES = 4096;     // how far ahead of their use weights are fetched, at least

// Results of TILE_N outputs for up to PANEL_ROWS rows; row m begins at m * TILE_N.
struct Panel {
    alignas(64) float values[PANEL_ROWS * TILE_N];
};

// M rows of `a` times TILE_N rows of weights. From `next` on are weights to fetch, FETCHED vectors in each step.
template <class T, int M, int FETCHED>
[[gnu::always_inline]] inline void multiply_tile(const T* a, size_t stride, const T* const* w, int k, const char* next, float* out) {
    constexpr int STEP = W * UNIT<T>;
    F sums[M][TILE_N];
    UNROLL
    for (int m = 0; m < M; m++)
        UNROLL
        for (int n = 0; n < TILE_N; n++) sums[m][n] = zero();
    const T *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];
    int i = 0;
    for (; i + STEP <= k; i += STEP) {
        UNROLL
        for (int n = 0; n < FETCHED; n++) _mm_prefetch(next + (i * int(sizeof(T)) * FETCHED + n * W * 4), _MM_HINT_T0);
        U v0 = load_units(w0 + i), v1 = load_units(w1 + i), v2 = load_units(w2 + i), v3 = load_units(w3 + i);
        UNROLL
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
        UNROLL
        for (int n = 0; n < TILE_N; n++) v[n] = load_bytes(w[n] + i, rest);
        UNROLL
        for (int m = 0; m < M; m++) {
            U x = load_bytes(a + m * stride + i, rest);
            UNROLL
            for (int n = 0; n < TILE_N; n++) sums[m][n] = dot<T>(sums[m][n], x, v[n]);
        }
    }
    if constexpr (M == TILE_M) {
        store_sums(out, sums);
    } else {
        UNROLL
        for (int m = 0; m < M; m++) _mm_store_ps(out + m * TILE_N, sum4(sums[m][0], sums[m][1], sums[m][2], sums[m][3]));
    }
}

// A tile fetches its share of the weights that follow, and together the tiles of a product all of them, in the order of
// addresses, which is what memory is fast at; the rows themselves are read side by side. A single tile fetches as it goes.
template <class T>
struct Following {
    const char* begin;
    size_t size;
    Following(const T* w, int k) {
        size = size_t(k) * TILE_N * sizeof(T);
        begin = (const char*)w + (AHEAD_BYTES + size - 1) / size * size;
    }
    // The more of them are asked for at once, the longer the tile waits for activations that are not in the L1 cache.
    void fetch(int tile, int tiles) const {
        size_t part = (size / 64 + tiles - 1) / tiles * 64;
        for (size_t i = 0; i < part; i += 64) _mm_prefetch(begin + part * tile + i, _MM_HINT_T0);
    }
};

// `tiles` times M rows. A function of its own: inlined among others it runs out of registers.
template <class T, int M>
[[gnu::noinline]] void multiply_tiles(const T* a, size_t stride, int tiles, const T* const* w, int k, bool fetches, float* out) {
    const Following<T> following(w[0], k);
    int tile = 0;
    if (fetches && tiles < SPREAD_TILES) multiply_tile<T, M, TILE_N>(a, stride, w, k, following.begin, out), tile = 1;
    for (; tile < tiles; tile++) {
        if (fetches && tiles >= SPREAD_TILES) following.fetch(tile, tiles);
        multiply_tile<T, M, 0>(a + size_t(tile) * M * stride, stride, w, k, nullptr, out + tile * M * TILE_N);
    }
}

// TILE_N outputs from output `n` on, of which those below `end` exist, for `rows` (1 to PANEL_ROWS) rows of `a`.
// `fetches` brings the weights that come next nearer meanwhile.
template <class T>
inline void multiply(const T* a, size_t stride, int rows, const T* w, int k, int n, int end, bool fetches, Panel& out) {
    const T* row[TILE_N];
    for (int j = 0; j < TILE_N; j++) row[j] = w + size_t(std::min(n + j, end - 1)) * k;
    // Tiles of nearly equal height: the first `high` of them have a row more than the others.
    int tiles = (rows + TILE_M - 1) / TILE_M, height = rows / tiles, high = rows % tiles, low = tiles - high;
    auto pass = [&]<int M>(int first, int count, bool fetching) {
        multiply_tiles<T, M>(a + size_t(first) * stride, stride, count, row, k, fetching, out.values + first * TILE_N);
    };
    auto pass_any = [&](int tall, int first, int count, bool fetching) {
        if (tall == 1) return pass.template operator()<1>(first, count, fetching);
        if (tall == 2) return pass.template operator()<2>(first, count, fetching);
        if constexpr (TILE_M == 4) {
            if (tall == 3) return pass.template operator()<3>(first, count, fetching);
            if (tall == 4) return pass.template operator()<4>(first, count, fetching);
        }
    };
    if (high > 0) pass_any(height + 1, 0, high, fetches);
    pass_any(height, high * (height + 1), low, fetches && high == 0);
}
