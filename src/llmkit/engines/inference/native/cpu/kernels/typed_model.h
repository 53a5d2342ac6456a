// One step of a Llama-like model over a paged key-value cache, in float or bfloat16.
#pragma once
#include <unistd.h>

#include <map>
#include <memory>
#include <string>

#include "cache.h"
#include "check.h"
#include "drawing.h"
#include "heads.h"
#include "pages.h"
#include "plan.h"
#include "products.h"

namespace {

constexpr int MAX_HEAD_DIM = 512;
constexpr int OWN_NORM_ROWS = 4;         // up to here every thread normalises for itself, which saves a barrier

class Model {
public:
    virtual ~Model() = default;
    virtual size_t bytes_per_block() const = 0;
    virtual bool allocate(int num_blocks) = 0;
    virtual bool copy_block(int source, int target) = 0;
    virtual void set_weights(const Weights& weights) = 0;
    virtual void set_adapter(int number, const LayerAdapter* layers) = 0;
    virtual bool forward(const Step& step) = 0;
    virtual void draw(const Draws& draws) = 0;
    std::string error;
};

template <class T>
class TypedModel final : public Model {
public:
    TypedModel(const Shape& shape, int num_threads)
        : shape_(shape),
          layout_(HeadLayout::of<T>(shape.head_dim)),
          cache_(layout_, shape.num_layers, shape.num_kv_heads),
          group_(shape.num_heads / shape.num_kv_heads),
          query_width_(shape.num_heads * shape.head_dim),
          key_width_(shape.num_kv_heads * shape.head_dim),
          num_threads_(num_threads),
          own_norms_(num_threads),
          scores_(num_threads),
          weights_of_(num_threads) {}

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
        bool is_first = weights_.layers == nullptr;
        weights_ = weights;
        if (is_first) gather_pages();
    }

    void set_adapter(int number, const LayerAdapter* layers) override {
        if (layers == nullptr) adapters_.erase(number);
        else adapters_[number].assign(layers, layers + shape_.num_layers);
    }

    bool forward(const Step& step) override {
        error = fault_of(step, shape_.vocab_size, weights_.num_positions, cache_.num_blocks());
        if (!error.empty()) return false;
        step_ = step;
        plan_.make(step, adapters_);
        make_room();
        team().run([this](int thread) { run(thread); });
        return true;
    }

    void draw(const Draws& draws) override {
        sums_.resize(size_t(num_threads_) * num_sections());
        team().run([&](int thread) {
            team_->share(draws.num_rows, [&](int i) {
                float temperature = draws.temperatures[i];
                bool is_greedy = temperature == 0.0f;
                const T* logits = (const T*)draws.logits + size_t(draws.rows[i]) * shape_.vocab_size;
                RowDrawer<T> row(logits, shape_.vocab_size, draws.num_drawable, is_greedy ? 1.0f : temperature);
                DrawnToken drawn = is_greedy ? row.likeliest(draws.wants_logprobs)
                                             : row.draw(draws.uniforms[i], draws.wants_logprobs, &sums_[thread * num_sections()]);
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

    size_t num_sections() const { return (shape_.vocab_size + SECTION - 1) / SECTION; }

    // A step reads all matrices: see `use_large_pages`.
    void gather_pages() const {
        std::vector<Range> ranges;
        auto add = [&](const void* matrix, size_t outputs, size_t inputs) {
            ranges.emplace_back(uintptr_t(matrix), uintptr_t(matrix) + outputs * inputs * sizeof(T));
        };
        for (const Layer& layer : layers_) {
            add(layer.query, query_width_, shape_.hidden_size);
            for (const void* matrix : {layer.key, layer.value}) add(matrix, key_width_, shape_.hidden_size);
            add(layer.output, shape_.hidden_size, query_width_);
            for (const void* matrix : {layer.gate, layer.up, layer.down}) add(matrix, shape_.intermediate_size, shape_.hidden_size);
        }
        add(weights_.head, shape_.vocab_size, shape_.hidden_size);
        use_large_pages(std::move(ranges));
    }

    // `work(row, layer of its adapter)` for the rows that have one; then all threads meet.
    template <class Work>
    void share_adapted(const RowAdapters& adapters, int l, Work work) {
        if (adapters.empty()) return;
        team_->share(int(adapters.size()), [&](int row) {
            if (adapters[row] != nullptr) work(row, (*adapters[row])[l]);
        });
    }

    // Threads allocate nothing.
    void make_room() {
        size_t rows = std::max(step_.num_tokens, step_.num_logits);
        auto room = [](auto& buffer, size_t size) { if (buffer.size() < size) buffer.resize(size); };
        room(residual_, rows * shape_.hidden_size);
        room(chosen_, size_t(step_.num_logits) * shape_.hidden_size);
        room(normed_, rows * shape_.hidden_size);
        room(projected_, rows * (query_width_ + 2 * key_width_));
        room(queries_, rows * query_width_);
        room(attended_, rows * query_width_);
        room(activated_, rows * shape_.intermediate_size);
        if (!plan_.adapters.empty()) room(added_, rows * 2 * shape_.intermediate_size);
        context_ = (size_t(plan_.longest) + 2 * BLOCK - 1) / (2 * BLOCK) * (2 * BLOCK) + 2 * BLOCK;
        for (int thread = 0; thread < num_threads_; thread++) {
            room(own_norms_[thread], size_t(OWN_NORM_ROWS) * shape_.hidden_size);
            room(scores_[thread], QUERIES * context_);
            room(weights_of_[thread], QUERIES * context_);
        }
    }

    void run(int thread) {
        int rows = step_.num_tokens;
        float* stream = residual_.data();
        const RowAdapters* adapters = &plan_.adapters;
        team_->share(rows, [&](int row) { embed(step_.token_ids[row], stream + size_t(row) * shape_.hidden_size); });
        for (int l = 0; l < shape_.num_layers; l++) {
            const Layer& layer = layers_[l];
            bool is_last = l + 1 == shape_.num_layers;
            const T* normed = normalise(thread, stream, rows, layer.attention_norm);
            project(normed, rows, layer);
            adapt_projections(normed, l);
            if (is_last && step_.num_logits == 0) {
                team_->share(rows, [&](int row) { write_cache(row, l, 0, shape_.num_kv_heads); });
                return;
            }
            attend_all(thread, l, is_last);
            if (is_last) {  // the other rows have done all they can: their keys and values are written
                rows = step_.num_logits;
                team_->share(rows, [&](int row) {
                    const float* source = stream + size_t(step_.logit_positions[row]) * shape_.hidden_size;
                    std::copy(source, source + shape_.hidden_size, chosen_.data() + size_t(row) * shape_.hidden_size);
                });
                stream = chosen_.data();
                adapters = &plan_.chosen_adapters;
            }
            add_product(attended_.data(), rows, query_width_, (const T*)layer.output, layer.output_bias, stream);
            adapt_stream(*adapters, l, attended_.data(), query_width_, &LayerAdapter::output, stream);
            normed = normalise(thread, stream, rows, layer.mlp_norm);
            add_to_gates(*adapters, l, normed);
            activate(normed, rows, layer, *adapters);
            add_product(activated_.data(), rows, shape_.intermediate_size, (const T*)layer.down, layer.down_bias, stream);
            adapt_stream(*adapters, l, activated_.data(), shape_.intermediate_size, &LayerAdapter::down, stream);
        }
        score_vocabulary(normalise(thread, stream, rows, weights_.final_norm), rows);
    }

    void embed(int64_t token, float* out) const {
        int width = shape_.hidden_size;
        if (shape_.embedding_is_bf16) {
            const bf16* row = (const bf16*)weights_.embedding + size_t(token) * width;
            for (int i = 0; i < width; i++) out[i] = to_float(row[i]) * shape_.embedding_scale;
        } else {
            const float* row = (const float*)weights_.embedding + size_t(token) * width;
            for (int i = 0; i < width; i++) out[i] = row[i] * shape_.embedding_scale;
        }
    }

    const T* normalise(int thread, const float* stream, int rows, const float* weight) {
        int width = shape_.hidden_size;
        auto row_into = [&](int row, T* out) {
            normalise_row(stream + size_t(row) * width, weight, width, shape_.norm_eps, out + size_t(row) * width);
        };
        if (rows <= OWN_NORM_ROWS) {
            T* own = own_norms_[thread].data();
            for (int row = 0; row < rows; row++) row_into(row, own);
            return own;
        }
        team_->share(rows, [&](int row) { row_into(row, normed_.data()); });
        return normed_.data();
    }

    static __m128 with_bias(const float* values, const float* bias, int n, int end) {
        __m128 result = _mm_load_ps(values);
        return bias == nullptr ? result : _mm_add_ps(result, load4(bias + n, end - n));
    }

    void project(const T* normed, int rows, const Layer& layer) {
        const Matrix<T> matrices[] = {
            {(const T*)layer.query, layer.query_bias, query_width_, 0},
            {(const T*)layer.key, layer.key_bias, key_width_, query_width_},
            {(const T*)layer.value, layer.value_bias, key_width_, query_width_ + key_width_},
        };
        size_t stride = query_width_ + 2 * key_width_;
        share_products<T>(*team_, rows, shape_.hidden_size, matrices, [&](const Matrix<T>& matrix, int top, int bottom, int begin, int end) {
            multiply_piece<T>(normed, shape_.hidden_size, matrix, top, bottom, begin, end, [&](int m, int n, const float* values) {
                store4(projected_.data() + m * stride + matrix.column + n, with_bias(values, matrix.bias, n, end), end - n);
            });
        });
    }

    void adapt_projections(const T* normed, int l) {
        int inputs = shape_.hidden_size;
        size_t stride = query_width_ + 2 * key_width_;
        share_adapted(plan_.adapters, l, [&](int row, const LayerAdapter& layer) {
            const T* x = normed + size_t(row) * inputs;
            float* out = projected_.data() + row * stride;
            add_low_rank(layer.query, x, inputs, query_width_, 1.0f, out);
            add_low_rank(layer.key, x, inputs, key_width_, 1.0f, out + query_width_);
            add_low_rank(layer.value, x, inputs, key_width_, 1.0f, out + query_width_ + key_width_);
        });
    }

    void adapt_stream(const RowAdapters& adapters, int l, const T* a, int inputs, LowRank LayerAdapter::*factors, float* stream) {
        int width = shape_.hidden_size;
        share_adapted(adapters, l, [&](int row, const LayerAdapter& layer) {
            add_low_rank(layer.*factors, a + size_t(row) * inputs, inputs, width, shape_.residual_scale, stream + size_t(row) * width);
        });
    }

    // What is added to gate and up of each row, side by side.
    void add_to_gates(const RowAdapters& adapters, int l, const T* normed) {
        int inputs = shape_.hidden_size, width = shape_.intermediate_size;
        share_adapted(adapters, l, [&](int row, const LayerAdapter& layer) {
            const T* x = normed + size_t(row) * inputs;
            float* out = added_.data() + size_t(row) * 2 * width;
            std::fill(out, out + 2 * width, 0.0f);
            add_low_rank(layer.gate, x, inputs, width, 1.0f, out);
            add_low_rank(layer.up, x, inputs, width, 1.0f, out + width);
        });
    }

    void add_product(const T* a, int rows, int inputs, const T* weight, const float* bias, float* stream) {
        const Matrix<T> matrices[] = {{weight, bias, shape_.hidden_size, 0}};
        const __m128 scale = _mm_set1_ps(shape_.residual_scale);
        share_products<T>(*team_, rows, inputs, matrices, [&](const Matrix<T>& matrix, int top, int bottom, int begin, int end) {
            multiply_piece<T>(a, inputs, matrix, top, bottom, begin, end, [&](int m, int n, const float* values) {
                float* target = stream + size_t(m) * shape_.hidden_size + n;
                __m128 more = _mm_mul_ps(with_bias(values, matrix.bias, n, end), scale);
                store4(target, _mm_add_ps(load4(target, end - n), more), end - n);
            });
        });
    }

    // silu(gate) * up, arXiv:2002.05202, equation 6.
    void activate(const T* normed, int rows, const Layer& layer, const RowAdapters& adapters) {
        int inputs = shape_.hidden_size, width = shape_.intermediate_size;
        const Matrix<T> gates[] = {{(const T*)layer.gate, layer.gate_bias, width, 0}};
        share_products<T>(*team_, rows, inputs, gates, [&](const Matrix<T>& gate, int top, int bottom, int begin, int end) {
            Panel first, second;
            for (int n = begin; n < end; n += TILE_N)
                for (int m = top; m < bottom; m += PANEL_ROWS) {
                    int count = std::min(PANEL_ROWS, bottom - m);
                    const T* a = normed + size_t(m) * inputs;
                    multiply<T>(a, inputs, count, gate.weight, inputs, n, end, m == top, first);
                    multiply<T>(a, inputs, count, (const T*)layer.up, inputs, n, end, m == top, second);
                    for (int r = 0; r < count && (gate.bias != nullptr || layer.up_bias != nullptr); r++) {
                        _mm_store_ps(first.values + r * TILE_N, with_bias(first.values + r * TILE_N, gate.bias, n, end));
                        _mm_store_ps(second.values + r * TILE_N, with_bias(second.values + r * TILE_N, layer.up_bias, n, end));
                    }
                    for (int r = 0; r < count && !adapters.empty(); r++) {
                        if (adapters[m + r] == nullptr) continue;
                        const float* added = added_.data() + size_t(m + r) * 2 * width + n;
                        for (auto [panel, more] : {std::pair(&first, added), std::pair(&second, added + width)}) {
                            float* values = panel->values + r * TILE_N;
                            _mm_store_ps(values, _mm_add_ps(_mm_load_ps(values), load4(more, end - n)));
                        }
                    }
                    T* out = activated_.data() + size_t(m) * width + n;
                    alignas(64) T values[PANEL_ROWS * TILE_N];
                    for (int i = 0; i < count * TILE_N; i += W)
                        store(values + i, mul(silu(load(first.values + i)), load(second.values + i)));
                    for (int r = 0; r < count; r++) copy4(out + size_t(r) * width, values + r * TILE_N, end - n);
                }
        });
    }

    void score_vocabulary(const T* normed, int rows) {
        const Matrix<T> matrices[] = {{(const T*)weights_.head, weights_.head_bias, shape_.vocab_size, 0}};
        const __m128 scale = _mm_set1_ps(shape_.logit_scale);
        share_products<T>(*team_, rows, shape_.hidden_size, matrices, [&](const Matrix<T>& matrix, int top, int bottom, int begin, int end) {
            multiply_piece<T>(normed, shape_.hidden_size, matrix, top, bottom, begin, end, [&](int m, int n, const float* values) {
                T* out = (T*)step_.logits + size_t(m) * shape_.vocab_size + n;
                store4(out, _mm_mul_ps(with_bias(values, matrix.bias, n, end), scale), end - n);
            });
        });
    }

    // Normalise a head where the model does, and turn it where the layer does.
    void prepare_head(const float* values, const float* norm, bool rotates, int64_t position, float* out) const {
        int half = shape_.rotary_dim / 2;
        if (norm == nullptr) copy_head(values, shape_.head_dim, out);
        else normalise_head(values, norm, shape_.head_dim, shape_.norm_eps, out);
        if (rotates) rotate(out, half, weights_.cosines + position * half, weights_.sines + position * half);
    }

    const float* projection(int token, int column) const {
        return projected_.data() + size_t(token) * (query_width_ + 2 * key_width_) + column;
    }

    void write_queries(int token, int l, int begin, int end) {
        const Layer& layer = layers_[l];
        alignas(64) float head[MAX_HEAD_DIM];
        for (int h = begin; h < end; h++) {
            int at = h * shape_.head_dim;
            prepare_head(projection(token, at), layer.query_norm, layer.rotates, step_.positions[token], head);
            T* out = queries_.data() + size_t(token) * query_width_ + at;
            each_vector(shape_.head_dim, [&](int i, int n) { store(out + i, load(head + i), n); });
        }
    }

    void write_cache(int token, int l, int begin, int end) {
        const Layer& layer = layers_[l];
        alignas(64) float head[MAX_HEAD_DIM];
        int64_t position = step_.positions[token];
        int slot = position % BLOCK;
        for (int h = begin; h < end; h++) {
            char* block = head_cache(plan_.sequence_of[token], l, h).block(position / BLOCK);
            int at = query_width_ + h * shape_.head_dim;
            prepare_head(projection(token, at), layer.key_norm, layer.rotates, position, head);
            write_key<T>(layout_, block, slot, head);
            copy_head(projection(token, at + key_width_), shape_.head_dim, head);
            write_value<T>(layout_, block, slot, head);
        }
    }

    HeadCache head_cache(int sequence, int l, int head) const {
        return cache_.head(l, head, step_.block_tables + size_t(sequence) * step_.table_width);
    }

    // Where the keys begin that a token sees.
    int first_block(int l, int token) const {
        int window = layers_[l].window, end = int(step_.positions[token]) + 1;
        return window > 0 ? std::max(0, end - window) / BLOCK : 0;
    }

    void attend_all(int thread, int l, bool is_last) {
        const auto& spans = is_last ? plan_.last_spans : plan_.spans;
        // With one token for each sequence nobody reads what another piece of work writes.
        bool at_once = plan_.is_decode && (!is_last || plan_.keeps_all);
        if (!at_once)
            team_->share(step_.num_tokens, [&](int token) {
                write_queries(token, l, 0, shape_.num_heads);
                write_cache(token, l, 0, shape_.num_kv_heads);
            });
        const int pieces = int(spans.size()) * shape_.num_kv_heads;
        team_->share(pieces, [&](int piece) {
            const Span& span = spans[piece / shape_.num_kv_heads];
            int head = piece % shape_.num_kv_heads;
            if (at_once) {
                write_queries(span.token, l, head * group_, (head + 1) * group_);
                write_cache(span.token, l, head, head + 1);
            }
            const Span& following = spans[std::min(piece + 1, pieces - 1) / shape_.num_kv_heads];
            attend_span(thread, l, span, head, following, (piece + 1) % shape_.num_kv_heads);
        });
    }

    // `following` and its head are what is probably next, and only looked ahead at.
    void attend_span(int thread, int l, const Span& span, int kv_head, const Span& following, int following_head) {
        HeadCache cache = head_cache(span.sequence, l, kv_head), next = head_cache(following.sequence, l, following_head);
        Path path{layout_, cache, next, 0, 0, first_block(l, following.token), int(step_.positions[following.token]) / BLOCK};
        Scratch<T> scratch{scores_[thread].data(), weights_of_[thread].data(), context_};
        int window = layers_[l].window, rows = span.count * group_;
        for (int first = 0; first < rows; first += QUERIES) {
            Query<T> queries[QUERIES];
            int count = std::min(QUERIES, rows - first);
            for (int r = 0; r < count; r++) {
                int offset = (first + r) / group_, head = kv_head * group_ + (first + r) % group_;
                size_t at = size_t(head) * shape_.head_dim;
                int end = int(step_.positions[span.token + offset]) + 1;
                queries[r] = {queries_.data() + size_t(span.token + offset) * query_width_ + at,
                              attended_.data() + size_t(span.row + offset) * query_width_ + at, window > 0 ? std::max(0, end - window) : 0, end};
            }
            attend<T>(path, queries, count, shape_.attention_scale, scratch);
        }
    }

    const Shape shape_;
    const HeadLayout layout_;
    KeyValueCache cache_;
    const int group_, query_width_, key_width_, num_threads_;
    std::vector<Layer> layers_;
    Weights weights_{};
    std::unique_ptr<Team> team_;
    pid_t owner_ = getpid();

    // The step and what it needs.
    Step step_{};
    Plan plan_;
    size_t context_ = 0;
    std::vector<float> residual_, chosen_, projected_;
    std::vector<T> normed_, queries_, attended_, activated_;
    std::vector<std::vector<T>> own_norms_;
    std::vector<std::vector<float>> scores_;
    std::vector<std::vector<T>> weights_of_;
    std::map<int, Adapter> adapters_;
    std::vector<float> added_;
    std::vector<double> sums_;  // of sections of logits
};

}  // namespace
