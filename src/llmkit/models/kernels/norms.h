// Root-mean-square norms and rotary positions (arXiv:1910.07467, arXiv:2104.09864), one after the other or each alone.
#pragma once
#include <vector>

#include "numbers.h"
#include "parallel.h"

// Vectors of `width` numbers, `heads` of them to a token. Without `weight` there is no norm; without `cosines` nothing
// turns. Cosines and sines are [tokens, width], of the type of the vectors, the second half's angles those of the first.
template <class T>
struct NormTask {
    int64_t tokens;
    int32_t heads, width, threads;
    float eps;
    const T* input;
    const float* weight;
    const T *cosines, *sines;
    float* scales;  // [tokens, heads] one over the root mean square; written forward, read backward
};

// Tokens to a piece of work: sums over tokens are made piece by piece, whatever the number of threads.
constexpr int64_t NORM_TOKENS = 64;

template <class T>
void norm_forward(const NormTask<T>& task, T* output) {
    const int width = task.width, half = width / 2;
    share_rows(task.threads, task.tokens, NORM_TOKENS, [&](int64_t first, int64_t last) {
        std::vector<float> row(width);
        float* x = row.data();
        for (int64_t index = first * task.heads; index < last * task.heads; index++) {
            const T* input = task.input + index * width;
            T* out = output + index * width;
            float square = 0;
#pragma omp simd reduction(+ : square)
            for (int i = 0; i < width; i++) {
                x[i] = widen(input[i]);
                square += x[i] * x[i];
            }
            if (task.weight) {
                const float scale = 1.0f / std::sqrt(square / width + task.eps);
                task.scales[index] = scale;
                for (int i = 0; i < width; i++) x[i] = x[i] * scale * task.weight[i];
            }
            if (!task.cosines) {
                for (int i = 0; i < width; i++) assign(out[i], x[i]);
                continue;
            }
            const T *cosines = task.cosines + index / task.heads * width, *sines = task.sines + index / task.heads * width;
#pragma omp simd
            for (int i = 0; i < half; i++) {
                const float one = x[i], other = x[half + i];
                assign(out[i], one * widen(cosines[i]) - other * widen(sines[i]));
                assign(out[half + i], other * widen(cosines[half + i]) + one * widen(sines[half + i]));
            }
        }
    });
}

// Gradients by the input and, where `by_weight` is given, by the weight: one row of it for each piece of work.
//
// With n the normalized input and g the gradient of its product with the weight, the input's gradient is
// `(g - n * mean(g * n)) / rms`.
template <class T>
void norm_backward(const NormTask<T>& task, const T* upstream, T* by_input, float* by_weight) {
    const int width = task.width, half = width / 2;
    share_rows(task.threads, task.tokens, NORM_TOKENS, [&](int64_t first, int64_t last) {
        std::vector<float> rows(2 * width);
        float *g = rows.data(), *n = g + width;
        float* sums = by_weight ? by_weight + first / NORM_TOKENS * width : nullptr;
        if (sums)
            for (int i = 0; i < width; i++) sums[i] = 0;
        for (int64_t index = first * task.heads; index < last * task.heads; index++) {
            const T* above = upstream + index * width;
            T* out = by_input + index * width;
            if (task.cosines) {
                const int64_t token = index / task.heads;
                const T *cosines = task.cosines + token * width, *sines = task.sines + token * width;
#pragma omp simd
                for (int i = 0; i < half; i++) {
                    const float one = widen(above[i]), other = widen(above[half + i]);
                    g[i] = one * widen(cosines[i]) + other * widen(sines[half + i]);
                    g[half + i] = other * widen(cosines[half + i]) - one * widen(sines[i]);
                }
            } else {
                for (int i = 0; i < width; i++) g[i] = widen(above[i]);
            }
            if (task.weight) {
                const T* input = task.input + index * width;
                const float scale = task.scales[index];
                for (int i = 0; i < width; i++) n[i] = widen(input[i]) * scale;
                if (sums)
                    for (int i = 0; i < width; i++) sums[i] += g[i] * n[i];
                float mean = 0;
#pragma omp simd reduction(+ : mean)
                for (int i = 0; i < width; i++) {
                    g[i] *= task.weight[i];
                    mean += g[i] * n[i];
                }
                mean /= width;
                for (int i = 0; i < width; i++) g[i] = (g[i] - n[i] * mean) * scale;
            }
            for (int i = 0; i < width; i++) assign(out[i], g[i]);
        }
    });
}
