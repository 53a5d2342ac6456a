// The gated unit of a feed-forward layer, `silu(gate) * up` (arXiv:2002.05202).
#pragma once
#include "numbers.h"
#include "parallel.h"

constexpr int64_t GATE_NUMBERS = 1 << 14;

template <class T>
void gate_forward(int threads, int64_t count, const T* gate, const T* up, T* output) {
    share_rows(threads, count, GATE_NUMBERS, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i++) {
            const float x = widen(gate[i]);
            assign(output[i], x * logistic(x) * widen(up[i]));
        }
    });
}

template <class T>
void gate_backward(int threads, int64_t count, const T* gate, const T* up, const T* upstream, T* by_gate, T* by_up) {
    share_rows(threads, count, GATE_NUMBERS, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i++) {
            const float x = widen(gate[i]), above = widen(upstream[i]), share = logistic(x);
            assign(by_up[i], above * x * share);
            assign(by_gate[i], above * widen(up[i]) * share * (1.0f + x * (1.0f - share)));
        }
    });
}
