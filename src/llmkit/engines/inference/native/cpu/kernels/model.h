// What the Python side hands over: `structures.py` has the same fields in the same order.
#pragma once
#include <cstdint>

struct Shape {
    int32_t num_layers, hidden_size, num_heads, num_kv_heads, head_dim, rotary_dim, intermediate_size, vocab_size;
    int32_t is_bf16;              // what is multiplied; else float
    int32_t parameters_are_bf16;  // may differ: float parameters, which are rounded before they are multiplied
    int32_t keeps_panels;         // of the matrices, in the order in which they are read; else they are made in passing
    float norm_eps, attention_scale, embedding_scale, residual_scale, logit_scale;
};

// Matrices are [outputs, inputs], dense, of the parameters' type; vectors are float. Biases and head norms may be null.
struct Layer {
    const float* attention_norm;
    const void *query, *key, *value;
    const float *query_bias, *key_bias, *value_bias;
    const float *query_norm, *key_norm;  // over each head
    const void* output;
    const float* output_bias;
    const float* mlp_norm;
    const void *gate, *up;
    const float *gate_bias, *up_bias;
    const void* down;
    const float* down_bias;
    int32_t window;  // tokens that a query sees, itself among them; 0 is all
    int32_t rotates;
};

struct Weights {
    const Layer* layers;
    const void* embedding;  // [vocabulary, hidden]
    const float* final_norm;
    const void* head;  // [vocabulary, hidden]
    const float* head_bias;
};

// Of rotary embeddings.
struct Angles {
    const float *cosines, *sines;  // [num_positions, rotary_dim / 2]
    int32_t num_positions;
};

// What an adapter adds to a product; rank 0 is nothing.
struct LowRank {
    const void* down;  // [rank, inputs] of the shape's type
    const float* up;   // [rank, outputs], the scale in it
    int32_t rank;
};

struct LayerAdapter {
    LowRank query, key, value, output, gate, up, down;
};

struct Step {
    const int64_t *token_ids, *positions, *logit_positions;
    const int32_t *query_starts, *block_tables, *adapters;  // one adapter's number for each sequence; 0 is none
    int32_t num_tokens, num_sequences, num_logits, table_width;
    void* logits;  // [num_logits, vocabulary] of the shape's type
};

// Rows to draw from: which rows of the logits, [num_rows] each.
struct Draws {
    const void* logits;  // [any, vocabulary] of the shape's type
    const int32_t* rows;
    const float* temperatures;  // 0 takes the likeliest token
    const double* uniforms;     // in [0, 1)
    int64_t* token_ids;
    double* logprobs;  // NaN where nothing can be drawn; 0 where none is wanted
    int32_t num_rows, num_drawable, wants_logprobs;
};
