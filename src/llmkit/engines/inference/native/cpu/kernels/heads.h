// Norms, and what becomes of a head between its projection and attention.
#pragma once
#include <algorithm>
#include <cmath>

#include "simd.h"

// `work(first, count)` for all of `width` numbers, vector by vector.
template <class Work>
inline void each_vector(int width, Work work) {
    for (int i = 0; i < width; i += W) work(i, std::min(W, width - i));
}

// 1 / sqrt(mean(x^2) + eps)
inline float inverse_rms(const float* x, int width, float eps) {
    F squares = zero();
    each_vector(width, [&](int i, int n) {
        F some = load(x + i, n);
        squares = fma(some, some, squares);
    });
    return 1.0f / std::sqrt(sum(squares) / float(width) + eps);
}

// RMSNorm, arXiv:1910.07467, equation 4.
template <class T>
inline void normalise_row(const float* x, const float* weight, int width, float eps, T* out) {
    F factor = set1(inverse_rms(x, width, eps));
    each_vector(width, [&](int i, int n) {
        F result = mul(mul(load(x + i, n), factor), load(weight + i, n));
        if (n == W) store(out + i, result);
        else store(out + i, result, n);
    });
}

// Zeros follow up to a whole vector.
inline void copy_head(const float* values, int width, float* out) {
    each_vector(width, [&](int i, int n) { store(out + i, load(values + i, n)); });
}

inline void normalise_head(const float* values, const float* norm, int width, float eps, float* out) {
    F factor = set1(inverse_rms(values, width, eps));
    each_vector(width, [&](int i, int n) { store(out + i, mul(mul(load(values + i, n), factor), load(norm + i, n))); });
}

// Turn the first 2 * half numbers of a head by halves (arXiv:2104.09864).
inline void rotate(float* head, int half, const float* cosine, const float* sine) {
    each_vector(half, [&](int i, int n) {
        F a = load(head + i, n), b = load(head + half + i, n), c = load(cosine + i, n), s = load(sine + i, n);
        store(head + i, sub(mul(a, c), mul(b, s)), n);
        store(head + half + i, add(mul(b, c), mul(a, s)), n);
    });
}
