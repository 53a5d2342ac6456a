// Low-rank additions to matrix products, each row with those of its own adapter.
#pragma once
#include <vector>

#include "model.h"
#include "simd.h"

constexpr int MAX_RANK = 512;  // as in `adapters.py`

using Adapter = std::vector<LayerAdapter>;
using RowAdapters = std::vector<const Adapter*>;  // null for rows of the model itself

template <class T>
inline float product(const T* a, const T* b, int count) {
    constexpr int STEP = W * UNIT<T>;
    F total = zero();
    int i = 0;
    for (; i + STEP <= count; i += STEP) total = dot<T>(total, load_units(a + i), load_units(b + i));
    if (int rest = (count - i) * int(sizeof(T)); rest > 0) total = dot<T>(total, load_bytes(a + i, rest), load_bytes(b + i, rest));
    return sum(total);
}

// out += scale * up (down x), arXiv:2106.09685, equation 3.
template <class T>
inline void add_low_rank(const LowRank& factors, const T* x, int inputs, int outputs, float scale, float* out) {
    float inner[MAX_RANK];
    for (int j = 0; j < factors.rank; j++) inner[j] = scale * product((const T*)factors.down + size_t(j) * inputs, x, inputs);
    for (int i = 0; i < outputs && factors.rank > 0; i += W) {
        int there = std::min(W, outputs - i);
        F total = load(out + i, there);
        for (int j = 0; j < factors.rank; j++) total = fma(set1(inner[j]), load(factors.up + size_t(j) * outputs + i, there), total);
        store(out + i, total, there);
    }
}
