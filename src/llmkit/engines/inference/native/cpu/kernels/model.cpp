// The model behind a plain C interface.
#include "typed_model.h"

// Functions that can fail return 0 and leave the reason in `llmkit_error`.
extern "C" {

void* llmkit_create(const Shape* shape, int32_t num_threads) {
    if (shape->is_bf16) return new TypedModel<bf16>(*shape, num_threads);
    return new TypedModel<float>(*shape, num_threads);
}

void llmkit_destroy(void* model) { delete (Model*)model; }

const char* llmkit_error(void* model) { return ((Model*)model)->error.c_str(); }

int64_t llmkit_bytes_per_block(void* model) { return int64_t(((Model*)model)->bytes_per_block()); }

int32_t llmkit_allocate(void* model, int32_t num_blocks) { return ((Model*)model)->allocate(num_blocks); }

int32_t llmkit_copy_block(void* model, int32_t source, int32_t target) { return ((Model*)model)->copy_block(source, target); }

void llmkit_set_weights(void* model, const Weights* weights) { ((Model*)model)->set_weights(*weights); }

// `layers` is one for each layer of the model, and is copied; null forgets the adapter.
void llmkit_set_adapter(void* model, int32_t number, const LayerAdapter* layers) { ((Model*)model)->set_adapter(number, layers); }

int32_t llmkit_draw(void* model, const Draws* draws) {
    try {
        ((Model*)model)->draw(*draws);
        return 1;
    } catch (const std::exception& error) {
        ((Model*)model)->error = error.what();
        return 0;
    }
}

int32_t llmkit_forward(void* model, const Step* step) {
    try {
        return ((Model*)model)->forward(*step);
    } catch (const std::exception& error) {  // no memory for the step, no thread to be had
        ((Model*)model)->error = error.what();
        return 0;
    }
}
}
