// Products of activations with panels of weights, out[m][n] = sum over k of a[m][k] * w[n][k].
// Each number is summed over k in order, whatever M is: a row never depends on the rows beside it.
#pragma once
#include <array>

#include "panels.h"
#include "team.h"

constexpr int TILE_ROWS = W == 16 ? 6 : 4;  // what the registers hold, beside a unit of weights and one of activations
constexpr int AHEAD_UNITS = 16;             // how far ahead of their use weights are fetched
constexpr size_t BLOCK_BYTES = 384 << 10;   // of activations that stay in the L2 cache while panels pass

// M rows of `a` times a panel; rows of `out` lie PANEL apart.
// A function of its own: inlined among others it runs out of registers.
template <class T, int M>
[[gnu::noinline]] void multiply_tile(const T* a, size_t stride, const char* panel, int units, float* out) {
    constexpr int V = PANEL_VECTORS;
    F sums[M][V];
    UNROLL
    for (int m = 0; m < M; m++)
        UNROLL
        for (int v = 0; v < V; v++) sums[m][v] = zero();
    for (int u = 0; u < units; u++, panel += PANEL * 4) {
        U weights[V];
        UNROLL
        for (int v = 0; v < V; v++) {
            // One row alone waits for memory more than for anything else.
            if constexpr (M == 1) _mm_prefetch(panel + AHEAD_UNITS * PANEL * 4 + v * W * 4, _MM_HINT_T0);
            weights[v] = load_units(panel + v * W * 4);
        }
        UNROLL
        for (int m = 0; m < M; m++) {
            U x = repeat_unit(a + m * stride + u * UNIT<T>);
            UNROLL
            for (int v = 0; v < V; v++) sums[m][v] = dot<T>(sums[m][v], x, weights[v]);
        }
    }
    UNROLL
    for (int m = 0; m < M; m++)
        UNROLL
        for (int v = 0; v < V; v++) store(out + m * PANEL + v * W, sums[m][v]);
}

template <class T>
using Tile = void (*)(const T* a, size_t stride, const char* panel, int units, float* out);

template <class T, size_t... HEIGHTS>
constexpr std::array<Tile<T>, TILE_ROWS> tiles_of(std::index_sequence<HEIGHTS...>) {
    return {multiply_tile<T, HEIGHTS + 1>...};
}

// Rows from `top` to `bottom` times a panel, in tiles of nearly equal height: `emit(row, values)` for each row.
template <class T, class Emit>
void multiply(const T* a, int top, int bottom, const Matrix<T>& matrix, int index, const char* panel, Emit emit) {
    static constexpr auto TILES = tiles_of<T>(std::make_index_sequence<TILE_ROWS>());
    alignas(64) float values[TILE_ROWS * PANEL];
    const float* biases = matrix.biases(index);
    int left = (bottom - top + TILE_ROWS - 1) / TILE_ROWS;
    for (int row = top, height; row < bottom; row += height, left--) {
        height = (bottom - row + left - 1) / left;
        TILES[height - 1](a + size_t(row) * matrix.inputs(), matrix.inputs(), panel, matrix.units(), values);
        for (int m = 0; m < height; m++) {
            float* found = values + m * PANEL;
            for (int i = 0; i < PANEL && biases != nullptr; i += W) store(found + i, add(load(found + i), load(biases + i)));
            emit(row + m, found);
        }
    }
}

// `rows` activations times a matrix, panel by panel among the threads of a team: `emit(row, panel, values)` with PANEL
// results, of which those count that the matrix has. `scratch` is the thread's own, with room for a panel.
template <class T, class Emit>
void share_product(Team& team, const T* a, int rows, const Matrix<T>& matrix, char* scratch, Emit emit) {
    const int fit = std::max<int>(4 * TILE_ROWS, BLOCK_BYTES / (matrix.inputs() * sizeof(T)));
    const int wanted = team.size() == 1 ? 1 : 4 * team.size();  // pieces, so that threads end at about the same time
    const int fair = std::min((wanted + matrix.num_panels() - 1) / matrix.num_panels(), (rows + TILE_ROWS - 1) / TILE_ROWS);
    const int blocks = std::max({1, fair, (rows + fit - 1) / fit}), height = (rows + blocks - 1) / blocks;
    team.share(matrix.num_panels() * blocks, [&](int piece) {
        int index = piece % matrix.num_panels(), top = piece / matrix.num_panels() * height;
        if (top >= rows) return;
        const char* panel = matrix.panel(index, scratch);
        multiply<T>(a, top, std::min(rows, top + height), matrix, index, panel, [&](int row, float* values) { emit(row, index, values); });
    });
}
