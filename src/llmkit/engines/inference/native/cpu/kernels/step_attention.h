// Attention of a step's tokens in one layer, each sequence over its own blocks of the cache.
#pragma once
#include "buffers.h"
#include "cache.h"
#include "heads.h"
#include "team.h"

constexpr int MAX_HEAD_DIM = 512;

template <class T>
class StepAttention {
public:
    StepAttention(const Shape& shape, const Angles& angles, KeyValueCache& cache, const Step& step, const Plan& plan, Buffers<T>& buffers)
        : shape_(shape), angles_(angles), cache_(cache), step_(step), plan_(plan), buffers_(buffers) {}

    // Keys and values of the projected tokens into the cache, and what their queries see there into `attended`: for all
    // tokens, or in the last layer for those that are chosen. Every thread of the team calls it.
    void run(Team& team, int thread, const Layer& layer, int l, bool is_last) {
        const auto& spans = is_last ? plan_.last_spans : plan_.spans;
        // With one token for each sequence nobody reads what another piece of work writes.
        const bool at_once = plan_.is_decode && (!is_last || plan_.keeps_all);
        if (!at_once)
            team.share(step_.num_tokens, [&](int token) {
                write_queries(token, layer, 0, shape_.num_heads);
                write_cache(token, layer, l, 0, shape_.num_kv_heads);
            });
        const int pieces = int(spans.size()) * shape_.num_kv_heads;
        team.share(pieces, [&](int piece) {
            const Span& span = spans[piece / shape_.num_kv_heads];
            int head = piece % shape_.num_kv_heads;
            if (at_once) {
                write_queries(span.token, layer, head * group_, (head + 1) * group_);
                write_cache(span.token, layer, l, head, head + 1);
            }
            const Span& following = spans[std::min(piece + 1, pieces - 1) / shape_.num_kv_heads];
            attend_span(thread, layer, l, span, head, following, (piece + 1) % shape_.num_kv_heads);
        });
    }

    // Keys and values alone, where no token is asked about.
    void fill_cache(Team& team, const Layer& layer, int l) {
        team.share(step_.num_tokens, [&](int token) { write_cache(token, layer, l, 0, shape_.num_kv_heads); });
    }

private:
    // Normalise a head where the model does, and turn it where the layer does.
    void prepare_head(const float* values, const float* norm, bool rotates, int64_t position, float* out) const {
        int half = shape_.rotary_dim / 2;
        if (norm == nullptr) copy_head(values, shape_.head_dim, out);
        else normalise_head(values, norm, shape_.head_dim, shape_.norm_eps, out);
        if (rotates) rotate(out, half, angles_.cosines + position * half, angles_.sines + position * half);
    }

    const float* projection(int token, int column) const {
        return buffers_.projected.data() + size_t(token) * widths_.projected() + column;
    }

    void write_queries(int token, const Layer& layer, int begin, int end) {
        alignas(64) float head[MAX_HEAD_DIM];
        for (int h = begin; h < end; h++) {
            int at = h * shape_.head_dim;
            prepare_head(projection(token, at), layer.query_norm, layer.rotates, step_.positions[token], head);
            T* out = buffers_.queries.data() + size_t(token) * widths_.query + at;
            each_vector(shape_.head_dim, [&](int i, int n) { store(out + i, load(head + i), n); });
        }
    }

    void write_cache(int token, const Layer& layer, int l, int begin, int end) {
        alignas(64) float head[MAX_HEAD_DIM];
        int64_t position = step_.positions[token];
        int slot = position % BLOCK;
        for (int h = begin; h < end; h++) {
            char* block = head_cache(plan_.sequence_of[token], l, h).block(position / BLOCK);
            int at = widths_.query + h * shape_.head_dim;
            prepare_head(projection(token, at), layer.key_norm, layer.rotates, position, head);
            write_key<T>(layout_, block, slot, head);
            copy_head(projection(token, at + widths_.key), shape_.head_dim, head);
            write_value<T>(layout_, block, slot, head);
        }
    }

    HeadCache head_cache(int sequence, int l, int head) const {
        return cache_.head(l, head, step_.block_tables + size_t(sequence) * step_.table_width);
    }

    // Where the keys begin that a token sees.
    int first_block(const Layer& layer, int token) const {
        int end = int(step_.positions[token]) + 1;
        return layer.window > 0 ? std::max(0, end - layer.window) / BLOCK : 0;
    }

    // `following` and its head are what is probably next, and only looked ahead at.
    void attend_span(int thread, const Layer& layer, int l, const Span& span, int kv_head, const Span& following, int following_head) {
        HeadCache cache = head_cache(span.sequence, l, kv_head), next = head_cache(following.sequence, l, following_head);
        Path path{layout_, cache, next, 0, 0, first_block(layer, following.token), int(step_.positions[following.token]) / BLOCK};
        auto& own = buffers_.threads[thread];
        Scratch<T> scratch{own.scores.data(), own.weights.data(), buffers_.context};
        int rows = span.count * group_;
        for (int first = 0; first < rows; first += QUERIES) {
            Query<T> queries[QUERIES];
            int count = std::min(QUERIES, rows - first);
            for (int r = 0; r < count; r++) {
                int offset = (first + r) / group_, head = kv_head * group_ + (first + r) % group_;
                size_t at = size_t(head) * shape_.head_dim;
                int end = int(step_.positions[span.token + offset]) + 1;
                queries[r] = {buffers_.queries.data() + size_t(span.token + offset) * widths_.query + at,
                              buffers_.attended.data() + size_t(span.row + offset) * widths_.query + at,
                              layer.window > 0 ? std::max(0, end - layer.window) : 0, end};
            }
            attend<T>(path, queries, count, shape_.attention_scale, scratch);
        }
    }

    const Shape& shape_;
    const Angles& angles_;
    KeyValueCache& cache_;
    const Step& step_;
    const Plan& plan_;
    Buffers<T>& buffers_;
    const HeadLayout layout_ = HeadLayout::of<T>(shape_.head_dim);
    const Widths widths_{shape_};
    const int group_ = shape_.num_heads / shape_.num_kv_heads;
};
