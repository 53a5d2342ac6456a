// The matrices of a model as products take them.
#pragma once
#include <stdexcept>
#include <string>
#include <vector>

#include "matmul.h"
#include "model.h"
#include "pages.h"

template <class T>
struct LayerMatrices {
    Matrix<T> projections, output, gates, down;  // query, key and value together; gate and up by halves
};

template <class T>
class Matrices {
public:
    std::vector<LayerMatrices<T>> layers;
    Matrix<T> head;

    // Throws where there is no memory for panels that are to be kept.
    void set(const Shape& shape, const Weights& weights, Team& team) {
        const bool is_float = !shape.parameters_are_bf16;
        const int hidden = shape.hidden_size, inner = shape.intermediate_size;
        const int queries = shape.num_heads * shape.head_dim, keys = shape.num_kv_heads * shape.head_dim;
        layers.clear();
        for (int l = 0; l < shape.num_layers; l++) {
            const Layer& from = weights.layers[l];
            layers.push_back({
                {{{from.query, from.query_bias, queries}, {from.key, from.key_bias, keys}, {from.value, from.value_bias, keys}}, hidden, is_float},
                {{{from.output, from.output_bias, hidden}}, queries, is_float},
                {{{from.gate, from.gate_bias, inner}, {from.up, from.up_bias, inner}}, hidden, is_float, Order::HALVES},
                {{{from.down, from.down_bias, hidden}}, inner, is_float},
            });
        }
        head = {{{weights.head, weights.head_bias, shape.vocab_size}}, hidden, is_float};
        if (shape.keeps_panels) keep(team);
    }

    // Room for any panel of the model.
    size_t panel_bytes() {
        size_t most = 0;
        for (const Matrix<T>* matrix : all()) most = std::max(most, matrix->panel_bytes());
        return most;
    }

private:
    std::vector<Matrix<T>*> all() {
        std::vector<Matrix<T>*> found{&head};
        for (auto& layer : layers) found.insert(found.end(), {&layer.projections, &layer.output, &layer.gates, &layer.down});
        return found;
    }

    void keep(Team& team) {
        size_t size = 0;
        for (const Matrix<T>* matrix : all()) size += matrix->bytes();
        if (memory_.start() == nullptr && !memory_.allocate(size))
            throw std::runtime_error("there is no memory for a copy of the weights, " + std::to_string(size >> 20) + " MiB");
        size_t begin = 0;
        for (Matrix<T>* matrix : all()) {
            matrix->keep_in(memory_.start() + begin);
            begin += matrix->bytes();
        }
        team.run([&](int) {
            for (Matrix<T>* matrix : all())
                team.share(matrix->num_panels(), [&](int panel) { matrix->make(panel); });
        });
    }

    LargeMemory memory_;
};
