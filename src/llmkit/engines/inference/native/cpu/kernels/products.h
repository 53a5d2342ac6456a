// Matrix products of a whole step's rows, cut into pieces for a team.
#pragma once
#include "matmul.h"
#include "team.h"

constexpr int PIECE_OUTPUTS = 64;          // most outputs of a matrix product in one piece
constexpr size_t PANEL_BYTES = 256 << 10;  // of activations that stay in the L2 cache while weights pass

// One matrix of a product that takes several, with the same activations.
template <class T>
struct Matrix {
    const T* weight;
    const float* bias;
    int outputs;
    int column;  // where its first output goes
};

// How many rows of activations stay in the cache while a piece of the weights passes.
template <class T>
int panel_rows(int rows, int inputs) {
    int fit = std::max<int>(TILE_M * 4, PANEL_BYTES / (inputs * sizeof(T)) / TILE_M * TILE_M);
    int panels = (rows + fit - 1) / fit;
    return panels <= 1 ? std::max(rows, 1) : (rows / panels / TILE_M + 1) * TILE_M;
}

// Go through the products of `rows` activations with matrices piece by piece: `work(matrix, first row, end row, first
// output, end output)`, all matrices having `inputs` columns.
template <class T, size_t COUNT, class Work>
void share_products(Team& team, int rows, int inputs, const Matrix<T> (&matrices)[COUNT], Work work) {
    int all = 0, height = panel_rows<T>(rows, inputs), pieces[COUNT], total = 0;
    for (const auto& matrix : matrices) all += matrix.outputs;
    int width = team.size() == 1 ? PIECE_OUTPUTS : std::clamp(all / (4 * team.size()) / TILE_N * TILE_N, 2 * TILE_N, PIECE_OUTPUTS);
    for (size_t i = 0; i < COUNT; i++) total += pieces[i] = (matrices[i].outputs + width - 1) / width;
    int panels = (rows + height - 1) / height;
    team.share(panels * total, [&](int piece) {
        int top = piece / total * height, at = piece % total;
        size_t i = 0;
        while (at >= pieces[i]) at -= pieces[i++];
        work(matrices[i], top, std::min(rows, top + height), at * width, std::min(matrices[i].outputs, (at + 1) * width));
    });
}

// `emit(row, output, tile row)` for every TILE_N results of a piece; fewer are valid where the matrix ends.
template <class T, class Emit>
void multiply_piece(const T* a, int inputs, const Matrix<T>& matrix, int top, int bottom, int begin, int end, Emit emit) {
    Panel panel;
    for (int n = begin; n < end; n += TILE_N)
        for (int m = top; m < bottom; m += PANEL_ROWS) {
            int count = std::min(PANEL_ROWS, bottom - m);
            multiply<T>(a + size_t(m) * inputs, inputs, count, matrix.weight, inputs, n, end, m == top, panel);
            for (int r = 0; r < count; r++) emit(m + r, n, panel.values + r * TILE_N);
        }
}
