// The key-value cache of all layers.
#pragma once
#include <cstring>

#include "attention.h"
#include "pages.h"

class KeyValueCache {
public:
    KeyValueCache(const HeadLayout& layout, int num_layers, int num_heads)
        : layout_(layout), num_layers_(num_layers), layer_bytes_(layout.bytes() * num_heads) {}

    size_t bytes_per_block() const { return layer_bytes_ * num_layers_; }
    int num_blocks() const { return num_blocks_; }

    bool allocate(int num_blocks) {
        if (!memory_.allocate(num_blocks * bytes_per_block())) return false;
        num_blocks_ = num_blocks;
        return true;
    }

    void copy(int source, int target) {
        for (int l = 0; l < num_layers_; l++) std::memmove(block(l, target), block(l, source), layer_bytes_);
    }

    // What a sequence has for one layer and key-value head.
    HeadCache head(int l, int head, const int32_t* table) const { return {block(l, 0) + head * layout_.bytes(), layer_bytes_, table}; }

private:
    // All blocks of a layer lie together: what a sequence has in a layer is then often in one piece, and memory that is
    // read in long pieces is twice as fast.
    char* block(int l, int number) const { return memory_.start() + (size_t(l) * num_blocks_ + number) * layer_bytes_; }

    const HeadLayout layout_;
    const int num_layers_;
    const size_t layer_bytes_;
    LargeMemory memory_;
    int num_blocks_ = 0;
};
