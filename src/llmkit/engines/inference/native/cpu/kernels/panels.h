// Weight matrices in panels: PANEL outputs side by side, unit after unit of their inputs. A product then runs along the
// outputs, needs no sums across lanes, and reads a panel from end to end.
#pragma once
#include <vector>

#include "simd.h"

constexpr int PANEL_VECTORS = W == 16 ? 4 : 2;
constexpr int PANEL = PANEL_VECTORS * W;
constexpr int HALF_PANEL = PANEL / 2;

// A parameter: dense rows, one for each output.
struct Rows {
    const void* weight;
    const float* bias;  // may be null
    int outputs;
};

// How the panels of a matrix take the rows of several parameters.
enum class Order {
    STACKED,  // one parameter below the other
    HALVES,   // each panel has as many rows of the first parameter as of the second
};

// A matrix of products in T. `is_float` parameters are rounded on the way when T is bfloat16.
template <class T>
class Matrix {
public:
    Matrix() = default;
    Matrix(std::vector<Rows> parts, int inputs, bool is_float, Order order = Order::STACKED)
        : parts_(std::move(parts)), inputs_(inputs), is_float_(is_float), order_(order) {
        for (const Rows& part : parts_) outputs_ += order == Order::STACKED ? part.outputs : 0, has_bias_ |= part.bias != nullptr;
        if (order == Order::HALVES) outputs_ = parts_[0].outputs;
        num_panels_ = (outputs_ + rows_per_panel() - 1) / rows_per_panel();
        if (has_bias_)
            for (int i = 0; i < num_panels_ * PANEL; i++) biases_.push_back(bias_of(i / PANEL, i % PANEL));
    }

    int inputs() const { return inputs_; }
    int units() const { return (inputs_ + UNIT<T> - 1) / UNIT<T>; }
    int outputs() const { return outputs_; }  // of one of the halves, or of all parts
    int num_panels() const { return num_panels_; }
    size_t panel_bytes() const { return size_t(units()) * PANEL * 4; }
    size_t bytes() const { return panel_bytes() * num_panels_; }
    const float* biases(int panel) const { return has_bias_ ? biases_.data() + panel * PANEL : nullptr; }

    // `memory` has room for all panels, which are then to be made.
    void keep_in(char* memory) { kept_ = memory; }
    void make(int panel) { make(panel, kept_ + panel * panel_bytes()); }

    // A panel, made in `scratch` where none are kept.
    const char* panel(int panel, char* scratch) const {
        if (kept_ != nullptr) return kept_ + panel * panel_bytes();
        make(panel, scratch);
        return scratch;
    }

private:
    int rows_per_panel() const { return order_ == Order::STACKED ? PANEL : HALF_PANEL; }

    // The parameter that a lane of a panel belongs to, and the row in it; past the end there is none.
    std::pair<const Rows*, int> find(int panel, int lane) const {
        if (order_ == Order::HALVES) {
            const Rows& part = parts_[lane / HALF_PANEL];
            int row = panel * HALF_PANEL + lane % HALF_PANEL;
            return {row < part.outputs ? &part : nullptr, row};
        }
        int row = panel * PANEL + lane;
        for (const Rows& part : parts_) {
            if (row < part.outputs) return {&part, row};
            row -= part.outputs;
        }
        return {nullptr, 0};
    }

    float bias_of(int panel, int lane) const {
        auto [part, row] = find(panel, lane);
        return part != nullptr && part->bias != nullptr ? part->bias[row] : 0.0f;
    }

    void make(int panel, char* target) const {
        if (std::is_same_v<T, float> || is_float_) make_from<float>(panel, target);
        else make_from<T>(panel, target);
    }

    template <class Source>
    void make_from(int panel, char* target) const {
        for (int v = 0; v < PANEL_VECTORS; v++) {
            const Source* rows[W];
            for (int i = 0; i < W; i++) {
                auto [part, row] = find(panel, v * W + i);
                rows[i] = part == nullptr ? nullptr : (const Source*)part->weight + size_t(row) * inputs_;
            }
            for (int first = 0; first < units(); first += W) {
                int numbers = std::min(W * UNIT<T>, inputs_ - first * UNIT<T>);
                U lanes[W];
                UNROLL
                for (int i = 0; i < W; i++)
                    lanes[i] = rows[i] == nullptr ? nothing() : units_of(T{}, rows[i] + first * UNIT<T>, numbers);
                transpose(lanes);
                int there = std::min(W, units() - first);
                for (int i = 0; i < there; i++) store_units(target + ((first + i) * PANEL_VECTORS + v) * W * 4, lanes[i]);
            }
        }
    }

    std::vector<Rows> parts_;
    int inputs_ = 0, outputs_ = 0, num_panels_ = 0;
    bool is_float_ = true, has_bias_ = false;
    Order order_ = Order::STACKED;
    std::vector<float> biases_;
    char* kept_ = nullptr;
};
