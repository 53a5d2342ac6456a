// What can be wrong with a step, so that nothing is read or written where it should not be.
#pragma once
#include <cstdio>
#include <string>

#include "attention.h"
#include "model.h"

template <class... Values>
inline std::string said(const char* format, Values... values) {
    char text[200];
    std::snprintf(text, sizeof text, format, values...);
    return text;
}

inline std::string fault_of_sequence(const Step& step, int s, int vocab_size, int num_positions, int num_blocks) {
    int begin = step.query_starts[s], end = step.query_starts[s + 1];
    if (begin < 0 || begin >= end || end > step.num_tokens)
        return said("sequence %d owns the tokens %d to %d of %d", s, begin, end, step.num_tokens);
    for (int t = begin; t < end; t++) {
        if (step.token_ids[t] < 0 || step.token_ids[t] >= vocab_size)
            return said("token id %lld is not in the vocabulary of %d", (long long)step.token_ids[t], vocab_size);
        if (step.positions[t] != step.positions[begin] + t - begin)
            return said("positions of sequence %d are not consecutive at token %d", s, t);
    }
    long long first = step.positions[begin], last = step.positions[end - 1];
    if (first < 0 || last >= num_positions)
        return said("position %lld lies outside of 0 to %d", first < 0 ? first : last, num_positions - 1);
    if (last / BLOCK >= step.table_width)
        return said("position %lld needs %lld blocks, the table has %d", last, last / BLOCK + 1, step.table_width);
    for (int b = 0; b <= last / BLOCK; b++)
        if (int block = step.block_tables[s * step.table_width + b]; block < 0 || block >= num_blocks)
            return said("block %d is not one of the %d of the cache", block, num_blocks);
    return "";
}

// Empty when the step can be run.
inline std::string fault_of(const Step& step, int vocab_size, int num_positions, int num_blocks) {
    if (step.num_sequences == 0 || step.query_starts[0] != 0 || step.query_starts[step.num_sequences] != step.num_tokens)
        return said("the sequences do not own all of the %d tokens", step.num_tokens);
    for (int s = 0; s < step.num_sequences; s++)
        if (auto fault = fault_of_sequence(step, s, vocab_size, num_positions, num_blocks); !fault.empty()) return fault;
    for (int i = 0; i < step.num_logits; i++)
        if (step.logit_positions[i] < 0 || step.logit_positions[i] >= step.num_tokens)
            return said("there is no token %lld among %d", (long long)step.logit_positions[i], step.num_tokens);
    return "";
}
