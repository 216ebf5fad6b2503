// Several activations as integers of 16 bits, dealt so that tiles of codes meet them as they lie.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

// Runs of 128 columns, one behind the other; a run's activations stand in parts that are multiplied
// together.
struct PanelView {
    static constexpr int64_t RUN = 128, PIECE = 32, WORDS = RUN / 4;

    const uint8_t *bytes;  // [runs, parts, words, activations of a part, 1 or 2, 4]: upper bytes,
                           // then lower ones, which have a sign too; without those if they are zero
    const float *scales;   // [runs, parts, 32 columns, activations of a part]; of upper bytes alone
                           // 256 times as large
    const uint8_t *near;   // [runs, parts]: a bit for each activation with one scale for all columns
    const int64_t *first;   // [parts + 1]: activations before each
    int64_t runs, parts, width;  // bytes of a word of an activation: 4 or 8
};

class Panel {
  public:
    static constexpr int64_t ALONE = 1 << 15;  // numbers below which a second thread costs more

    // A run [activations, `apart`] of numbers in the order of words of codes of a plane.
    typedef void (*Deal)(const int16_t *, int64_t apart, int64_t several, int64_t plane,
                         int64_t width, uint8_t *);

    // Activations that meet a tile together: so that their sums stay in registers.
    static int64_t together(bool in_bytes) { return in_bytes ? 8 : 4; }

    // Lays out numbers [activations, padded] and their scales, of each so many columns.
    void lay(const std::vector<int16_t> &numbers, const std::vector<float> &scales, int64_t several,
             int64_t columns, int64_t shared, bool in_bytes, int64_t plane, Deal deal) {
        const int64_t padded = static_cast<int64_t>(numbers.size()) / several;
        const int64_t most = together(in_bytes);
        constexpr int64_t RUN = PanelView::RUN, PIECE = PanelView::PIECE;
        view_.runs = (columns + RUN - 1) / RUN;
        view_.parts = (several + most - 1) / most, view_.width = in_bytes ? 4 : 8;
        const int64_t run_bytes = several * PanelView::WORDS * view_.width;
        bytes_.resize(view_.runs * run_bytes);
        scales_.resize(view_.runs * several * RUN / PIECE);
        near_.resize(view_.runs * view_.parts);
        first_.resize(view_.parts + 1);
        for (int64_t part = 0; part <= view_.parts; part++)
            first_[part] = several * part / view_.parts;
        view_.bytes = bytes_.data(), view_.scales = scales_.data(), view_.near = near_.data();
        view_.first = first_.data();
#pragma omp parallel for if (several * columns >= ALONE)
        for (int64_t run = 0; run < view_.runs; run++)
            for (int64_t part = 0; part < view_.parts; part++) {
                const int64_t first = first_[part], count = first_[part + 1] - first;
                deal(numbers.data() + first * padded + run * RUN, padded, count, plane, view_.width,
                     bytes_.data() + run * run_bytes + first * PanelView::WORDS * view_.width);
                float *to = scales_.data() + (run * several + first) * RUN / PIECE;
                const float worth = in_bytes ? 256 : 1;
                unsigned near = (1u << count) - 1;
                for (int64_t piece = 0; piece < RUN / PIECE; piece++)
                    for (int64_t one = 0; one < count; one++) {
                        to[piece * count + one] =
                            worth *
                            scales[((first + one) * padded + run * RUN + piece * PIECE) / shared];
                        if (to[piece * count + one] != to[one]) near &= ~(1u << one);
                    }
                near_[run * view_.parts + part] = static_cast<uint8_t>(near);
            }
    }

    const PanelView &view() const { return view_; }

  private:
    PanelView view_ = {};
    std::vector<uint8_t> bytes_, near_;
    std::vector<float> scales_;
    std::vector<int64_t> first_;
};
