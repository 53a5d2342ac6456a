// One step of a Llama-like model over a paged key-value cache, in float or bfloat16.
#pragma once
#include <unistd.h>

#include <map>
#include <memory>

#include "check.h"
#include "drawing.h"
#include "interface.h"
#include "matrices.h"
#include "step_adapters.h"
#include "step_attention.h"

namespace {

template <class T>
class TypedModel final : public Model {
public:
    TypedModel(const Shape& shape, int num_threads)
        : shape_(shape),
          cache_(HeadLayout::of<T>(shape.head_dim), shape.num_layers, shape.num_kv_heads),
          num_threads_(num_threads),
          buffers_(num_threads) {}

    ~TypedModel() override {
        if (owner_ != getpid()) (void)team_.release();  // threads do not survive a fork
    }

    size_t bytes_per_block() const override { return cache_.bytes_per_block(); }

    bool allocate(int num_blocks) override { return cache_.allocate(num_blocks); }

    bool copy_block(int source, int target) override {
        for (int block : {source, target})
            if (block < 0 || block >= cache_.num_blocks()) {
                error = said("block %d is not one of the %d of the cache", block, cache_.num_blocks());
                return false;
            }
        cache_.copy(source, target);
        return true;
    }

    void set_weights(const Weights& weights) override {
        layers_.assign(weights.layers, weights.layers + shape_.num_layers);
        weights_ = weights;
        matrices_.set(shape_, weights, team());
        if (!shape_.keeps_panels)
            for (auto& thread : buffers_.threads) thread.panel.resize(matrices_.panel_bytes());
    }

    void set_angles(const Angles& angles) override { angles_ = angles; }

    void set_adapter(int number, const LayerAdapter* layers) override {
        if (layers == nullptr) adapters_.erase(number);
        else adapters_[number].assign(layers, layers + shape_.num_layers);
    }

    bool forward(const Step& step) override {
        error = fault_of(step, shape_.vocab_size, angles_.num_positions, cache_.num_blocks());
        if (!error.empty()) return false;
        step_ = step;
        plan_.make(step, adapters_);
        buffers_.fit(step_, plan_, widths_);
        team().run([this](int thread) { run(thread); });
        return true;
    }

    void draw(const Draws& draws) override {
        for (auto& thread : buffers_.threads) thread.sums.resize((shape_.vocab_size + SECTION - 1) / SECTION);
        team().run([&](int thread) {
            team_->share(draws.num_rows, [&](int i) {
                float temperature = draws.temperatures[i];
                bool is_greedy = temperature == 0.0f;
                const T* logits = (const T*)draws.logits + size_t(draws.rows[i]) * shape_.vocab_size;
                RowDrawer<T> row(logits, shape_.vocab_size, draws.num_drawable, is_greedy ? 1.0f : temperature);
                DrawnToken drawn = is_greedy ? row.likeliest(draws.wants_logprobs)
                                             : row.draw(draws.uniforms[i], draws.wants_logprobs, buffers_.threads[thread].sums.data());
                draws.token_ids[i] = drawn.id;
                draws.logprobs[i] = drawn.logprob;
            });
        });
    }

private:
    Team& team() {
        if (team_ == nullptr || owner_ != getpid()) {
            (void)team_.release();  // threads do not survive a fork
            team_ = std::make_unique<Team>(num_threads_);
            owner_ = getpid();
        }
        return *team_;
    }

    void run(int thread) {
        int rows = step_.num_tokens;
        float* stream = buffers_.residual.data();
        const RowAdapters* adapters = &plan_.adapters;
        team_->share(rows, [&](int row) { embed(step_.token_ids[row], stream + size_t(row) * widths_.hidden); });
        for (int l = 0; l < shape_.num_layers; l++) {
            const Layer& layer = layers_[l];
            const LayerMatrices<T>& matrices = matrices_.layers[l];
            bool is_last = l + 1 == shape_.num_layers;
            const T* normed = normalise(thread, stream, rows, layer.attention_norm);
            project(thread, normed, rows, matrices.projections);
            step_adapters_.add_to_projections(*team_, plan_.adapters, l, normed);
            if (is_last && step_.num_logits == 0) return step_attention_.fill_cache(*team_, layer, l);
            step_attention_.run(*team_, thread, layer, l, is_last);
            if (is_last) {  // the other rows have done all they can: their keys and values are written
                rows = step_.num_logits;
                stream = choose_rows(stream);
                adapters = &plan_.chosen_adapters;
            }
            const T* attended = buffers_.attended.data();
            add_product(thread, attended, rows, matrices.output, stream);
            step_adapters_.add_to_stream(*team_, *adapters, l, attended, widths_.query, &LayerAdapter::output, stream);
            normed = normalise(thread, stream, rows, layer.mlp_norm);
            step_adapters_.find_for_gates(*team_, *adapters, l, normed);
            activate(thread, normed, rows, matrices.gates, *adapters);
            const T* activated = buffers_.activated.data();
            add_product(thread, activated, rows, matrices.down, stream);
            step_adapters_.add_to_stream(*team_, *adapters, l, activated, widths_.inner, &LayerAdapter::down, stream);
        }
        score_vocabulary(thread, normalise(thread, stream, rows, weights_.final_norm), rows);
    }

    void embed(int64_t token, float* out) const {
        auto read = [&](const auto* table) {
            for (int i = 0; i < widths_.hidden; i++) out[i] = to_float(table[size_t(token) * widths_.hidden + i]) * shape_.embedding_scale;
        };
        if (shape_.parameters_are_bf16) read((const bf16*)weights_.embedding);
        else read((const float*)weights_.embedding);
    }

    // The rows whose logits are asked for.
    float* choose_rows(const float* stream) {
        size_t width = widths_.hidden;
        team_->share(step_.num_logits, [&](int row) {
            const float* source = stream + step_.logit_positions[row] * width;
            std::copy(source, source + width, buffers_.chosen.data() + row * width);
        });
        return buffers_.chosen.data();
    }

    const T* normalise(int thread, const float* stream, int rows, const float* weight) {
        int width = widths_.hidden;
        T* out = rows <= OWN_NORM_ROWS ? buffers_.threads[thread].normed.data() : buffers_.normed.data();
        auto one = [&](int row) {
            normalise_row(stream + size_t(row) * width, weight, width, shape_.norm_eps, out + size_t(row) * width);
        };
        if (rows > OWN_NORM_ROWS) team_->share(rows, one);
        else
            for (int row = 0; row < rows; row++) one(row);
        return out;
    }

    template <class Emit>
    void share(int thread, const T* a, int rows, const Matrix<T>& matrix, Emit emit) {
        share_product<T>(*team_, a, rows, matrix, buffers_.threads[thread].panel.data(), emit);
    }

    void project(int thread, const T* normed, int rows, const Matrix<T>& matrix) {
        share(thread, normed, rows, matrix, [&](int row, int panel, const float* values) {
            float* out = buffers_.projected.data() + size_t(row) * widths_.projected() + panel * PANEL;
            each_vector(std::min(PANEL, matrix.outputs() - panel * PANEL), [&](int i, int n) { store(out + i, load(values + i), n); });
        });
    }

    void add_product(int thread, const T* a, int rows, const Matrix<T>& matrix, float* stream) {
        const F scale = set1(shape_.residual_scale);
        share(thread, a, rows, matrix, [&](int row, int panel, const float* values) {
            float* out = stream + size_t(row) * widths_.hidden + panel * PANEL;
            each_vector(std::min(PANEL, matrix.outputs() - panel * PANEL),
                        [&](int i, int n) { store(out + i, add(load(out + i, n), mul(load(values + i), scale)), n); });
        });
    }

    // silu(gate) * up, arXiv:2002.05202, equation 6.
    void activate(int thread, const T* normed, int rows, const Matrix<T>& matrix, const RowAdapters& adapters) {
        const int width = widths_.inner;
        share(thread, normed, rows, matrix, [&](int row, int panel, float* values) {
            int begin = panel * HALF_PANEL, count = std::min(HALF_PANEL, width - begin);
            if (!adapters.empty() && adapters[row] != nullptr) {
                const float* added = buffers_.added.data() + size_t(row) * 2 * width + begin;
                for (int i = 0; i < count; i++) values[i] += added[i], values[HALF_PANEL + i] += added[width + i];
            }
            T* out = buffers_.activated.data() + size_t(row) * width + begin;
            each_vector(count, [&](int i, int n) { store(out + i, mul(silu(load(values + i)), load(values + HALF_PANEL + i)), n); });
        });
    }

    void score_vocabulary(int thread, const T* normed, int rows) {
        const F scale = set1(shape_.logit_scale);
        share(thread, normed, rows, matrices_.head, [&](int row, int panel, const float* values) {
            T* out = (T*)step_.logits + size_t(row) * shape_.vocab_size + panel * PANEL;
            each_vector(std::min(PANEL, shape_.vocab_size - panel * PANEL),
                        [&](int i, int n) { store(out + i, mul(load(values + i), scale), n); });
        });
    }

    const Shape shape_;
    const Widths widths_{shape_};
    KeyValueCache cache_;
    const int num_threads_;
    std::vector<Layer> layers_;
    Weights weights_{};
    Angles angles_{};
    Matrices<T> matrices_;
    std::map<int, Adapter> adapters_;
    std::unique_ptr<Team> team_;
    pid_t owner_ = getpid();

    // The step and what it needs.
    Step step_{};
    Plan plan_;
    Buffers<T> buffers_;
    StepAttention<T> step_attention_{shape_, angles_, cache_, step_, plan_, buffers_};
    StepAdapters<T> step_adapters_{shape_, buffers_};
};

}  // namespace
