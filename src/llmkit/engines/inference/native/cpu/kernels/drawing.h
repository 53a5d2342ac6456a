// One token from a row of logits as the model left them: the likeliest, or one drawn with a number in [0, 1).
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "model.h"
#include "simd.h"

constexpr int SECTION = 256;  // tokens whose weights are added up before one of them is looked for

struct DrawnToken {
    int64_t id;
    double logprob;  // after temperature; NaN where nothing can be drawn
};

// Logits of up to SECTION tokens over the temperature, filled up with minus infinity.
template <class T>
inline void read_section(const T* logits, int count, float temperature, float* values) {
    int i = 0;
    F divisor = set1(temperature);
    for (; i + W <= count; i += W) store(values + i, temperature == 1.0f ? load(logits + i) : div(load(logits + i), divisor));
    for (; i < count; i++) values[i] = to_float(logits[i]) / temperature;
    for (; i % W; i++) values[i] = -INFINITY;
}

// Weights exp(value - peak) of a section; returns their sum. What is too small to be drawn has none.
inline float weigh_section(float* values, int count, float peak) {
    F total = zero(), least = set1(-87.0f);
    for (int i = 0; i < count; i += W) {
        F below = sub(load(values + i), set1(peak));
        F weight = select(is_above(below, least), exp(below), zero());
        store(values + i, weight);
        total = add(total, weight);
    }
    return sum(total);
}

template <class T>
class RowDrawer {
public:
    RowDrawer(const T* logits, int size, int drawable, float temperature)
        : logits_(logits), size_(size), drawable_(drawable), temperature_(temperature) {
        look_at(0, drawable);
        look_at(drawable, size);
    }

    DrawnToken likeliest(bool wants_logprob) {
        if (is_faulty()) return {0, NAN};
        int count = read(best_section_, drawable_);
        int64_t id = best_section_ + (std::find(values_, values_ + count, best_) - values_);
        return {id, wants_logprob ? best_ - peak_ - std::log(total(0, size_)) : 0.0};
    }

    // `sums`: room for a number for each section of the tokens that can be drawn.
    DrawnToken draw(double uniform, bool wants_logprob, double* sums) {
        if (is_faulty()) return {0, NAN};
        double all = 0;
        for (int first = 0; first < drawable_; first += SECTION) all += sums[first / SECTION] = weigh(first, drawable_);
        double target = std::min(uniform * all, std::nextafter(all, 0.0)), before = 0;
        int first = 0;
        while (first + SECTION < drawable_ && before + sums[first / SECTION] <= target) before += sums[first / SECTION], first += SECTION;
        weigh(first, drawable_);
        int count = std::min(SECTION, drawable_ - first), chosen = -1;
        for (int i = 0; i < count; i++)
            if (values_[i] > 0) {  // the last one stands for what rounding leaves over
                chosen = i, before += values_[i];
                if (before > target) break;
            }
        if (chosen < 0) return likeliest(wants_logprob);  // the sections after the last weight that counts
        double logprob = wants_logprob ? double(value(first + chosen)) - peak_ - std::log(all + total(drawable_, size_)) : 0.0;
        return {first + chosen, logprob};
    }

private:
    bool is_faulty() const { return has_nan_ || !std::isfinite(peak_) || !std::isfinite(best_); }

    void look_at(int begin, int end) {
        for (int first = begin; first < end; first += SECTION) {
            int count = read(first, end);
            F most = set1(-INFINITY);
            for (int i = 0; i < count; i += W) {
                has_nan_ |= any_nan(load(values_ + i));
                most = max(most, load(values_ + i));
            }
            float greatest_here = greatest(most);
            peak_ = std::max(peak_, greatest_here);
            if (end == drawable_ && greatest_here > best_) best_ = greatest_here, best_section_ = first;
        }
    }

    int read(int first, int end) {
        int count = std::min(SECTION, end - first);
        read_section(logits_ + first, count, temperature_, values_);
        return count;
    }

    double weigh(int first, int end) {
        int count = read(first, end);
        return weigh_section(values_, count, peak_);
    }

    double total(int begin, int end) {
        double found = 0;
        for (int first = begin; first < end; first += SECTION) found += weigh(first, end);
        return found;
    }

    float value(int token) const { return to_float(logits_[token]) / temperature_; }

    const T* logits_;
    const int size_, drawable_;
    const float temperature_;
    bool has_nan_ = false;
    float peak_ = -INFINITY, best_ = -INFINITY;  // of all tokens, and of those that can be drawn
    int best_section_ = 0;
    alignas(64) float values_[SECTION];
};
