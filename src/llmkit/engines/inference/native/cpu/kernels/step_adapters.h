// What the adapters of a step's tokens add in one layer.
#pragma once
#include "buffers.h"
#include "team.h"

template <class T>
class StepAdapters {
public:
    StepAdapters(const Shape& shape, Buffers<T>& buffers) : shape_(shape), buffers_(buffers) {}

    // `normed` through the projections of attention.
    void add_to_projections(Team& team, const RowAdapters& adapters, int l, const T* normed) {
        share(team, adapters, l, [&](int row, const LayerAdapter& layer) {
            const T* x = normed + size_t(row) * widths_.hidden;
            float* out = buffers_.projected.data() + size_t(row) * widths_.projected();
            add_low_rank(layer.query, x, widths_.hidden, widths_.query, 1.0f, out);
            add_low_rank(layer.key, x, widths_.hidden, widths_.key, 1.0f, out + widths_.query);
            add_low_rank(layer.value, x, widths_.hidden, widths_.key, 1.0f, out + widths_.query + widths_.key);
        });
    }

    // `a` through one of the products that end in the residual stream.
    void add_to_stream(Team& team, const RowAdapters& adapters, int l, const T* a, int inputs, LowRank LayerAdapter::*factors, float* stream) {
        share(team, adapters, l, [&](int row, const LayerAdapter& layer) {
            float* out = stream + size_t(row) * widths_.hidden;
            add_low_rank(layer.*factors, a + size_t(row) * inputs, inputs, widths_.hidden, shape_.residual_scale, out);
        });
    }

    // What is to be added to gate and up of each row, one behind the other, into `added`.
    void find_for_gates(Team& team, const RowAdapters& adapters, int l, const T* normed) {
        share(team, adapters, l, [&](int row, const LayerAdapter& layer) {
            const T* x = normed + size_t(row) * widths_.hidden;
            float* out = buffers_.added.data() + size_t(row) * 2 * widths_.inner;
            std::fill(out, out + 2 * widths_.inner, 0.0f);
            add_low_rank(layer.gate, x, widths_.hidden, widths_.inner, 1.0f, out);
            add_low_rank(layer.up, x, widths_.hidden, widths_.inner, 1.0f, out + widths_.inner);
        });
    }

private:
    // `work(row, layer of its adapter)` for the rows that have one; then all threads meet.
    template <class Work>
    void share(Team& team, const RowAdapters& adapters, int l, Work work) {
        if (adapters.empty()) return;
        team.share(int(adapters.size()), [&](int row) {
            if (adapters[row] != nullptr) work(row, (*adapters[row])[l]);
        });
    }

    const Shape& shape_;
    Buffers<T>& buffers_;
    const Widths widths_{shape_};
};
