// What a step writes on its way through the layers.
#pragma once
#include <vector>

#include "attention.h"
#include "plan.h"

constexpr int OWN_NORM_ROWS = 4;  // up to here every thread normalises for itself, which saves a barrier

// Widths of rows.
struct Widths {
    int hidden, query, key, inner;
    explicit Widths(const Shape& shape)
        : hidden(shape.hidden_size),
          query(shape.num_heads * shape.head_dim),
          key(shape.num_kv_heads * shape.head_dim),
          inner(shape.intermediate_size) {}
    int projected() const { return query + 2 * key; }
};

// One thread's own.
template <class T>
struct ThreadBuffers {
    std::vector<T> normed, weights;
    std::vector<float> scores;
    std::vector<char> panel;
    std::vector<double> sums;  // of sections of logits
};

template <class T>
struct Buffers {
    std::vector<float> residual, chosen, projected, added;
    std::vector<T> normed, queries, attended, activated;
    std::vector<ThreadBuffers<T>> threads;
    size_t context = 0;  // numbers between two rows of scores

    explicit Buffers(int num_threads) : threads(num_threads) {}

    // Threads allocate nothing while they run.
    void fit(const Step& step, const Plan& plan, const Widths& widths) {
        size_t rows = std::max(step.num_tokens, step.num_logits);
        make_room(residual, rows * widths.hidden);
        make_room(chosen, size_t(step.num_logits) * widths.hidden);
        make_room(normed, rows * widths.hidden);
        make_room(projected, rows * widths.projected());
        make_room(queries, rows * widths.query);
        make_room(attended, rows * widths.query);
        make_room(activated, rows * widths.inner);
        if (!plan.adapters.empty()) make_room(added, rows * 2 * widths.inner);
        context = (size_t(plan.longest) / (ABREAST * BLOCK) + 2) * ABREAST * BLOCK;
        for (auto& thread : threads) {
            make_room(thread.normed, size_t(OWN_NORM_ROWS) * widths.hidden);
            make_room(thread.scores, QUERIES * context);
            make_room(thread.weights, QUERIES * context);
        }
    }

    template <class Buffer>
    static void make_room(Buffer& buffer, size_t size) {
        if (buffer.size() < size) buffer.resize(size);
    }
};
