// The model behind a plain C interface.
#include "typed_model.h"

// No memory, no thread to be had: nothing is thrown through C.
template <class Work>
static int32_t attempt(void* model, Work work) {
    try {
        return work();
    } catch (const std::exception& error) {
        ((Model*)model)->error = error.what();
        return 0;
    }
}

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

int32_t llmkit_set_weights(void* model, const Weights* weights) {
    return attempt(model, [&] { ((Model*)model)->set_weights(*weights); return true; });
}

void llmkit_set_angles(void* model, const Angles* angles) { ((Model*)model)->set_angles(*angles); }

// `layers` is one for each layer of the model, and is copied; null forgets the adapter.
void llmkit_set_adapter(void* model, int32_t number, const LayerAdapter* layers) { ((Model*)model)->set_adapter(number, layers); }

int32_t llmkit_draw(void* model, const Draws* draws) {
    return attempt(model, [&] { ((Model*)model)->draw(*draws); return true; });
}

int32_t llmkit_forward(void* model, const Step* step) {
    return attempt(model, [&] { return ((Model*)model)->forward(*step); });
}
}
