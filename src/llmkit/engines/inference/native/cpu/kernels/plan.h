// What a step's tokens have to do with one another, found out before its threads begin.
#pragma once
#include <algorithm>
#include <map>
#include <vector>

#include "adapters.h"

constexpr int SPAN_TOKENS = 32;  // of a prompt that one piece of attention takes

// Consecutive tokens of a sequence whose attention is one piece of work for each key-value head.
struct Span {
    int sequence, token, count, row;  // `row` of the output for the first token
};

struct Plan {
    bool is_decode = false;
    bool keeps_all = false;  // logits are asked for after every token, in their order
    int longest = 0;         // context of a sequence
    std::vector<int> sequence_of;
    std::vector<Span> spans, last_spans;  // of the last layer: its chosen tokens alone
    RowAdapters adapters, chosen_adapters;  // of the tokens and of the chosen ones; empty where nobody has one

    void make(const Step& step, const std::map<int, Adapter>& known) {
        int tokens = step.num_tokens;
        is_decode = tokens == step.num_sequences;
        longest = 0;
        sequence_of.resize(tokens);
        spans.clear();
        for (int s = 0; s < step.num_sequences; s++) {
            int begin = step.query_starts[s], end = step.query_starts[s + 1];
            std::fill(sequence_of.begin() + begin, sequence_of.begin() + end, s);
            longest = std::max(longest, int(step.positions[end - 1]) + 1);
            for (int t = begin; t < end; t += SPAN_TOKENS) spans.push_back({s, t, std::min(SPAN_TOKENS, end - t), t});
        }
        last_spans.clear();
        keeps_all = step.num_logits == tokens;
        for (int i = 0; i < step.num_logits; i++) {
            int token = int(step.logit_positions[i]);
            keeps_all = keeps_all && token == i;
            last_spans.push_back({sequence_of[token], token, 1, i});
        }
        find_adapters(step, known);
    }

private:
    void find_adapters(const Step& step, const std::map<int, Adapter>& known) {
        adapters.clear();
        chosen_adapters.clear();
        auto has_one = [&](int number) { return known.count(number) > 0; };
        if (std::none_of(step.adapters, step.adapters + step.num_sequences, has_one)) return;
        for (int s : sequence_of) adapters.push_back(has_one(step.adapters[s]) ? &known.at(step.adapters[s]) : nullptr);
        for (const Span& span : last_spans) chosen_adapters.push_back(adapters[span.token]);
    }
};
