// What Python calls, for float32 and for bfloat16.
#include <vector>

#include "attention.h"
#include "gates.h"
#include "norms.h"
#include "scores.h"

#define FOR_TYPE(T, NAME)                                                                                             \
    void NAME##_norm_forward(const NormTask<T>* task, T* output) { norm_forward(*task, output); }                      \
    void NAME##_norm_backward(const NormTask<T>* task, const T* upstream, T* by_input, float* by_weight) {             \
        norm_backward(*task, upstream, by_input, by_weight);                                                          \
    }                                                                                                                 \
    void NAME##_gate_forward(int32_t threads, int64_t count, const T* gate, const T* up, T* output) {                  \
        gate_forward(threads, count, gate, up, output);                                                               \
    }                                                                                                                 \
    void NAME##_gate_backward(int32_t threads, int64_t count, const T* gate, const T* up, const T* upstream,           \
                              T* by_gate, T* by_up) {                                                                 \
        gate_backward(threads, count, gate, up, upstream, by_gate, by_up);                                            \
    }                                                                                                                 \
    void NAME##_score_rows(const ScoreTask<T>* task) { score_rows(*task); }                                            \
    void NAME##_lift_rows(const RowsTask* task, const T* tokens, T* rows) { lift_rows(*task, tokens, rows); }          \
    void NAME##_lower_rows(const RowsTask* task, const T* rows, T* tokens) { lower_rows(*task, rows, tokens); }        \
    void NAME##_softmax_forward(const SoftmaxTask* task, T* scores) { softmax_forward(*task, scores); }                \
    void NAME##_softmax_backward(const SoftmaxTask* task, const T* probabilities, T* gradients) {                      \
        softmax_backward(*task, probabilities, gradients);                                                            \
    }

extern "C" {
void use_threads_of(Fork fork) { fork_threads = fork; }
FOR_TYPE(float, float32)
FOR_TYPE(bf16, bfloat16)
}
