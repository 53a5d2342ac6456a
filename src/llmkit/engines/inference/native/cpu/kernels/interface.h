// A model whatever it computes in.
#pragma once
#include <cstddef>
#include <string>

#include "model.h"

class Model {
public:
    virtual ~Model() = default;
    virtual size_t bytes_per_block() const = 0;
    virtual bool allocate(int num_blocks) = 0;
    virtual bool copy_block(int source, int target) = 0;
    virtual void set_weights(const Weights& weights) = 0;
    virtual void set_angles(const Angles& angles) = 0;
    virtual void set_adapter(int number, const LayerAdapter* layers) = 0;
    virtual bool forward(const Step& step) = 0;
    virtual void draw(const Draws& draws) = 0;
    std::string error;
};
