// What attention over rows of sequences does beside its matrix products: lay tokens into rows and back, and the causal
// softmax with its gradient.
#pragma once
#include <cstring>
#include <vector>

#include "numbers.h"
#include "parallel.h"

// Sequences of a packed batch as right-padded rows. Tokens are [T, heads, width]; rows are [batch, kv_heads,
// prompt + length, heads / kv_heads, width], the tokens of `prompt` before those of each sequence.
struct RowsTask {
    int32_t batch, heads, kv_heads, width, length, prompt, prompt_start, threads;
    const int32_t *starts, *lengths;  // [batch] of the sequences
};

// Zeros stand where a sequence is over.
template <class T>
void lift_rows(const RowsTask& task, const T* tokens, T* rows) {
    const int64_t group = int64_t(task.heads / task.kv_heads) * task.width, stride = int64_t(task.heads) * task.width;
    const int64_t size = task.prompt + task.length;
    share(task.threads, int64_t(task.batch) * task.kv_heads, [&](int64_t index) {
        const int64_t row = index / task.kv_heads, head = index % task.kv_heads;
        T* out = rows + index * size * group;
        const T* source = tokens + head * group;
        for (int64_t i = 0; i < task.prompt; i++, out += group)
            std::memcpy(out, source + (task.prompt_start + i) * stride, group * sizeof(T));
        for (int64_t i = 0; i < task.lengths[row]; i++, out += group)
            std::memcpy(out, source + (task.starts[row] + i) * stride, group * sizeof(T));
        std::memset(out, 0, (task.length - task.lengths[row]) * group * sizeof(T));
    });
}

// The way back: a sequence's tokens take the place of what was there, and what all rows have for the prompt is added.
template <class T>
void lower_rows(const RowsTask& task, const T* rows, T* tokens) {
    const int64_t group = int64_t(task.heads / task.kv_heads) * task.width, stride = int64_t(task.heads) * task.width;
    const int64_t size = task.prompt + task.length;
    share(task.threads, int64_t(task.batch) * task.kv_heads, [&](int64_t index) {
        const int64_t row = index / task.kv_heads, head = index % task.kv_heads;
        const T* source = rows + (index * size + task.prompt) * group;
        for (int64_t i = 0; i < task.lengths[row]; i++, source += group)
            std::memcpy(tokens + (task.starts[row] + i) * stride + head * group, source, group * sizeof(T));
    });
    if (!task.prompt) return;
    share(task.threads, int64_t(task.prompt) * task.kv_heads, [&](int64_t index) {
        const int64_t place = index / task.kv_heads, head = index % task.kv_heads;
        T* out = tokens + (task.prompt_start + place) * stride + head * group;
        std::vector<float> sums(group);
        for (int64_t i = 0; i < group; i++) sums[i] = widen(out[i]);
        for (int64_t row = 0; row < task.batch; row++) {
            const T* source = rows + ((row * task.kv_heads + head) * size + place) * group;
            for (int64_t i = 0; i < group; i++) sums[i] += widen(source[i]);
        }
        for (int64_t i = 0; i < group; i++) assign(out[i], sums[i]);
    });
}

// Scores of queries in order, `group` heads to a query: [matrices, queries * group, keys]. The first query sees
// `visible` keys and each later one a key more. `lengths` has the queries of each sequence that are there, of which a
// block begins at `first`; what is not there gets zeros. A sequence has `kv_heads` matrices.
struct SoftmaxTask {
    int64_t matrices;
    int32_t queries, group, keys, visible, first, kv_heads, threads;
    float scaling;
    const int32_t* lengths;

    // Keys that a row of a matrix sees.
    int64_t seen(int64_t matrix, int64_t row) const {
        const int64_t query = row / group;
        return first + query < lengths[matrix / kv_heads] ? visible + query : 0;
    }
};

// Scores become probabilities, in place.
template <class T>
void softmax_forward(const SoftmaxTask& task, T* scores) {
    const int64_t rows = int64_t(task.queries) * task.group;
    share(task.threads, task.matrices, [&](int64_t matrix) {
        static thread_local std::vector<float> space;
        if (int64_t(space.size()) < task.keys) space.resize(task.keys);
        float* x = space.data();
        for (int64_t row = 0; row < rows; row++) {
            T* line = scores + (matrix * rows + row) * task.keys;
            const int64_t seen = task.seen(matrix, row);
            float greatest = -INFINITY, sum = 0;
#pragma omp simd reduction(max : greatest)
            for (int64_t i = 0; i < seen; i++) {
                x[i] = widen(line[i]) * task.scaling;
                greatest = x[i] > greatest ? x[i] : greatest;
            }
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < seen; i++) {
                x[i] = exponential(x[i] - greatest);
                sum += x[i];
            }
            const float share = 1.0f / sum;
            for (int64_t i = 0; i < seen; i++) assign(line[i], x[i] * share);
            std::memset(line + seen, 0, (task.keys - seen) * sizeof(T));
        }
    });
}

// Gradients by the probabilities P become those by the products, in place: `P * (dP - sum(P * dP)) * scaling`.
template <class T>
void softmax_backward(const SoftmaxTask& task, const T* probabilities, T* gradients) {
    const int64_t rows = int64_t(task.queries) * task.group;
    share(task.threads, task.matrices, [&](int64_t matrix) {
        for (int64_t row = 0; row < rows; row++) {
            const int64_t start = (matrix * rows + row) * task.keys, seen = task.seen(matrix, row);
            const T* p = probabilities + start;
            T* line = gradients + start;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < seen; i++) sum += widen(p[i]) * widen(line[i]);
            for (int64_t i = 0; i < seen; i++) assign(line[i], widen(p[i]) * (widen(line[i]) - sum) * task.scaling);
            std::memset(line + seen, 0, (task.keys - seen) * sizeof(T));
        }
    });
}
