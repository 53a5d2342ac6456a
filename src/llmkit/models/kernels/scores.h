// What a language model's head says about tokens, one row of its products at a time: a row stays in the cache, and the
// gradient takes the place of the products.
#pragma once
#include <vector>

#include "numbers.h"
#include "parallel.h"

// Scores are `softcap * tanh(scale * product / softcap) / temperature`, with `factor = scale / temperature`; without a
// cap (0) they are `factor * product`.
template <class T>
struct ScoreTask {
    int64_t rows, words;
    int32_t threads;
    float factor, softcap, temperature;
    T* products;             // [rows, words]
    const int64_t* targets;  // [rows]
    float* logprobs;         // [rows] of the targets
    float* entropies;        // [rows], or null
    float* means;            // [rows] of all words' log-probabilities, or null
    const float* upstream;   // [rows] factors of the gradient by the products; null leaves the products as they are
};

template <class T>
void score_rows(const ScoreTask<T>& task) {
    const int64_t words = task.words;
    share(task.threads, task.rows, [&](int64_t index) {
        static thread_local std::vector<float> space;
        if (int64_t(space.size()) < words) space.resize(words);
        float* scores = space.data();
        T* products = task.products + index * words;
        float greatest = -INFINITY;
        if (task.softcap > 0) {
            const float inner = task.factor * task.temperature / task.softcap, outer = task.softcap / task.temperature;
            for (int64_t i = 0; i < words; i++) {
                scores[i] = std::tanh(widen(products[i]) * inner) * outer;
                greatest = scores[i] > greatest ? scores[i] : greatest;
            }
        } else {
#pragma omp simd reduction(max : greatest)
            for (int64_t i = 0; i < words; i++) {
                scores[i] = widen(products[i]) * task.factor;
                greatest = scores[i] > greatest ? scores[i] : greatest;
            }
        }
        const int64_t target = task.targets[index];
        const float wanted = scores[target] - greatest;
        // Sums of so many numbers keep their digits when they are made of shorter ones.
        double sum = 0, weighted = 0, total = 0;
        for (int64_t start = 0; start < words; start += 1024) {
            const int64_t end = start + 1024 < words ? start + 1024 : words;
            float part = 0, moment = 0, plain = 0;
#pragma omp simd reduction(+ : part, moment, plain)
            for (int64_t i = start; i < end; i++) {
                const float shifted = scores[i] - greatest, power = exponential(shifted);
                plain += shifted;
                moment += power * shifted;
                part += power;
                scores[i] = power;
            }
            sum += part;
            weighted += moment;
            total += plain;
        }
        const double normalizer = std::log(sum);
        task.logprobs[index] = float(wanted - normalizer);
        if (task.entropies) task.entropies[index] = float(normalizer - weighted / sum);
        if (task.means) task.means[index] = float(total / double(words) - normalizer);
        if (!task.upstream) return;
        // A log-probability has the gradient `onehot - p` by the scores.
        const float above = task.upstream[index], factor = -above * task.factor, share = float(1.0 / sum);
        if (task.softcap > 0) {
            const float inner = task.factor * task.temperature / task.softcap;
            for (int64_t i = 0; i < words; i++) {
                const float slope = std::tanh(widen(products[i]) * inner);
                const float gradient = scores[i] * share - (i == target ? 1.0f : 0.0f);
                assign(products[i], gradient * factor * (1.0f - slope * slope));
            }
            return;
        }
        const float scaled = share * factor, own = (scores[target] * share - 1.0f) * factor;
        for (int64_t i = 0; i < words; i++) assign(products[i], scores[i] * scaled);
        assign(products[target], own);
    });
}
