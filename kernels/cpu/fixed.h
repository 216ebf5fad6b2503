// Activations as integers of 16 bits, so that codes are multiplied as integers and never widened.
//
// 32 neighbours share a scale, their largest size over 32639, and 128 share one whose four are within
// eight times each other: the rounding is 2e-5 to 4e-5 of a product's norm, a thirtieth and less of
// what bfloat16 leaves. What was rounded to fewer bits keeps its codes, as
// multiples of a power of two, and its steps. Sums of integers are exact, so their order is free.
// Loops of 8 sums take them as they are; loops of 16 as an upper and a lower byte, each with a sign:
// hence a largest number of 127 * 256 + 127.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "packed.h"
#include "panels.h"

// What one plane of codes, or codes that point into a table, is multiplied by; a block has 8 or 16
// sums of 4 bytes of codes each.
struct PlaneView {
    const int16_t *words;  // [activations, blocks, codes of a word, 16], 32 of tables of 16 sums;
                           // else bytes [activations, blocks, codes of a byte, 2, 64]
    const float *lanes;    // [activations, blocks, sums]: scales of the sums of a block
    int64_t words_apart, lanes_apart;
    const int32_t *first;   // [blocks]: the group of a block's first sum
    const int32_t *places;  // [blocks, sums]: how many groups after it each sum's group comes
    bool whole;             // no block has two groups
    bool bytes;             // the lower bytes of activations are zero
    bool halves;            // they are 128
    const PanelView *panel;  // activations for tiles of codes, whose groups part where 32 columns
                             // end; null: none
    bool pieced;             // they part there, tiles or not
    bool in_one_order;       // and sums have the order of tiles
    const int32_t *groups;   // [32 columns]: which group each is of, where they part so
    int64_t group_size;
};

class Fixed {
  public:
    static constexpr int64_t SHARED = 32, NEAR = 128, PLANES = 5, TABLE = 4, WHOLE = 16,
                             SHORT = 512;
    static constexpr size_t MANY = 16;     // groupings that are kept
    static constexpr float LARGEST = 32639;
    static constexpr Rounding USUAL = {WHOLE, SHARED, 0, 1, 0};

    // Columns of a block, and of one of its sums.
    int64_t block(int64_t plane) const { return sums_ * (plane == TABLE ? 8 : 32 >> plane); }

    static int64_t lane(int64_t plane) { return plane == TABLE ? 32 : 32 >> plane; }

    // Whether the sums of a block of this plane never mix two groups.
    static bool parts(int64_t plane, int64_t group_size, int64_t columns) {
        return group_size >= columns || group_size % lane(plane) == 0;
    }

    // Numbers [columns] of a token's activations, and the scale of each so many, which divide a
    // block or cover the row.
    typedef void (*Round)(const float *, int64_t, const Rounding &, int64_t, int16_t *, float *);

    // How many neighbours share a step wherever a row is cut into so many; 0 where none do.
    static int64_t shared(const Rounding &rounding, int64_t columns) {
        if (rounding.block >= columns || rounding.block % SHARED == 0) return SHARED;
        return rounding.block % (SHARED / 2) == 0 ? SHARED / 2 : 0;
    }

    // Rounds activations, unless they are those of before: query, key and value share theirs.
    void take(const float *x, int64_t count, int64_t columns, const Rounding &rounding,
              Round round, int64_t sums) {
        if (count == count_ && columns == columns_ && sums == sums_ && same(rounding) &&
            !std::memcmp(x, taken_.data(), count * columns * sizeof(float)))
            return;
        taken_.assign(x, x + count * columns);
        count_ = count, columns_ = columns, sums_ = sums, rounding_ = rounding;
        shared_ = shared(rounding, columns);
        padded_ = (columns + block(0) - 1) / block(0) * block(0);
        numbers_.assign(count * padded_, 0);
        scales_.assign(count * padded_ / shared_, 0);
        each([&](int64_t one) {
            round(x + one * columns, columns, rounding, shared_, numbers_.data() + one * padded_,
                  scales_.data() + one * padded_ / shared_);
        });
        for (auto &there : laid_) there = false;
        for (auto &there : dealt_) there = false;
        time_++;
        if (room_.size() > MANY) room_.clear();
    }

    int64_t count() const { return count_; }

    // Whether sums have one order for any number of activations: of those that were rounded to few
    // steps, for what is made of a sum is rounded too, and of short rows, which it costs nothing.
    bool in_one_order() const { return rounding_.bits != WHOLE || columns_ <= SHORT; }

    // Whether so many meet tiles, which are quicker.
    bool are_many() const { return count_ >= (in_one_order() && columns_ > SHORT ? 2 : 4); }

    // Lays the activations out for codes of a plane in groups; once before rows are multiplied. For
    // tiles where there is a way to deal them so; null: none.
    void lay(int64_t plane, int64_t group_size, Panel::Deal deal) {
        Grouping &grouping = grouped(group_size);
        if (deal && plane != TABLE && meets_tiles(group_size)) {
            if (!dealt_[plane])
                panels_[plane].lay(numbers_, scales_, count_, columns_, shared_,
                                   in_bytes() || in_halves(), plane, deal);
            dealt_[plane] = true;
            return;
        }
        if (!laid_[plane]) lay_words(plane);
        laid_[plane] = true;
        if (grouping.first[plane].empty()) place_groups(plane, grouping);
    }

    PlaneView view(int64_t plane, int64_t group_size) const {
        const Grouping &grouping = *known(group_size);
        return {words_[plane].data(),          lanes_[plane].data(),
                padded_,                       padded_ / block(plane) * sums_,
                grouping.first[plane].data(), grouping.places[plane].data(),
                group_size >= columns_ || group_size % block(plane) == 0,
                in_bytes(),
                in_halves(),
                dealt_[plane] && meets_tiles(group_size) ? &panels_[plane].view() : nullptr,
                plane != TABLE && in_pieces(group_size),
                in_one_order(),
                grouping.of.data(),
                group_size};
    }

    // Sums of the activations of each group, [activations, groups].
    const float *sums(int64_t group_size) const { return known(group_size)->sums.data(); }

  private:
    // Groups of rows of so many columns; where they lie is the same for all activations.
    struct Grouping {
        int64_t size, columns, lanes, groups;
        int64_t time = 0;         // of the activations whose sums these are
        std::vector<float> sums;  // [activations, groups]
        std::vector<int32_t> first[PLANES], places[PLANES];
        std::vector<int32_t> of;  // [32 columns], for tiles
    };

    // Does something for each activation; a loop of threads takes its time, even of one.
    template <typename Do>
    void each(Do one) const {
        if (count_ == 1 || count_ * columns_ < Panel::ALONE) {
            for (int64_t i = 0; i < count_; i++) one(i);
            return;
        }
#pragma omp parallel for
        for (int64_t i = 0; i < count_; i++) one(i);
    }

    bool same(const Rounding &other) const {
        return rounding_.bits == other.bits && rounding_.block == other.block &&
               rounding_.wide == other.wide && rounding_.reach == other.reach &&
               rounding_.odd == other.odd;
    }

    // Whether each 32 columns have one scale and one group, and numbers are two bytes with signs.
    bool in_pieces(int64_t group_size) const {
        return (group_size >= columns_ || group_size % SHARED == 0) && shared_ == SHARED &&
               !too_large();
    }

    bool meets_tiles(int64_t group_size) const {
        return are_many() && in_pieces(group_size);
    }

    // Whether some numbers are beyond the largest: half steps of 15 bits, or of 8 bits beside others.
    bool too_large() const {
        return rounding_.odd && !in_halves() && (rounding_.bits == WHOLE - 1 || rounding_.wide);
    }

    bool in_halves() const { return rounding_.odd && rounding_.bits == 8; }

    // Whether the lower bytes of all numbers are zero: odd codes have a bit more.
    bool in_bytes() const {
        const int64_t bits = rounding_.wide ? std::max<int64_t>(8, rounding_.bits) : rounding_.bits;
        return bits + (rounding_.odd ? 1 : 0) <= 8;
    }

    int64_t start_of(int64_t plane, int64_t b, int64_t i) const {
        return b * block(plane) + (plane == TABLE ? i / 4 * 32 : i * lane(plane));
    }

    // Null where there is none yet.
    Grouping *known(int64_t group_size) const {
        for (const auto &one : room_)
            if (one->size == group_size && one->columns == columns_ && one->lanes == sums_)
                return one.get();
        return nullptr;
    }

    Grouping &grouped(int64_t group_size) {
        Grouping *at = known(group_size);
        if (!at) {
            const int64_t groups = (columns_ + group_size - 1) / group_size;
            room_.emplace_back(at = new Grouping{group_size, columns_, sums_, groups});
            for (int64_t column = 0; column < columns_ + block(0); column += SHARED)
                at->of.push_back(static_cast<int32_t>(std::min(column / group_size, groups - 1)));
        }
        Grouping &here = *at;
        if (here.time == time_) return here;
        here.time = time_;
        here.sums.resize(count_ * here.groups);
        each([&](int64_t one) {
            for (int64_t group = 0; group < here.groups; group++)
                here.sums[one * here.groups + group] = sum(
                    one, group * group_size, std::min(columns_, (group + 1) * group_size));
        });
        return here;
    }

    void place_groups(int64_t plane, Grouping &grouping) const {
        const int64_t blocks = padded_ / block(plane);
        grouping.first[plane].resize(blocks);
        grouping.places[plane].resize(sums_ * blocks);
        const auto group_at = [&](int64_t column) {
            return std::min(column / grouping.size, grouping.groups - 1);
        };
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t first = group_at(b * block(plane));
            grouping.first[plane][b] = static_cast<int32_t>(first);
            for (int64_t i = 0; i < sums_; i++)
                grouping.places[plane][sums_ * b + i] =
                    static_cast<int32_t>(group_at(start_of(plane, b, i)) - first);
        }
    }

    float sum(int64_t one, int64_t column, int64_t end) const {
        float found = 0;
        const int16_t *numbers = numbers_.data() + one * padded_;
        while (column < end) {
            const int64_t stop = std::min(end, column / shared_ * shared_ + shared_);
            int32_t exact = 0;
            const float scale = scales_[(one * padded_ + column) / shared_];
            for (; column < stop; column++) exact += numbers[column];
            found += static_cast<float>(exact) * scale;
        }
        return found;
    }

    // Code j of word i of a block lies at column i * (codes of a word) + j of it.
    template <int64_t EACH>
    static void deal(const int16_t *from, int64_t blocks, int16_t *to) {
        for (int64_t b = 0; b < blocks; b++, from += 16 * EACH, to += 16 * EACH)
            for (int64_t j = 0; j < EACH; j++)
                for (int64_t i = 0; i < 16; i++) to[16 * j + i] = from[i * EACH + j];
    }

    // Code j of byte i of a block lies at column i * (codes of a byte) + j of it.
    template <int64_t EACH>
    static void deal_bytes(const int16_t *from, int64_t blocks, int16_t *words) {
        auto *to = reinterpret_cast<uint8_t *>(words);
        for (int64_t b = 0; b < blocks; b++, from += 64 * EACH)
            for (int64_t j = 0; j < EACH; j++, to += 128)
                for (int64_t i = 0; i < 64; i++) {
                    const auto number = static_cast<uint16_t>(from[i * EACH + j]);
                    to[i] = static_cast<uint8_t>(number >> 8);
                    to[64 + i] = static_cast<uint8_t>(number);
                }
    }

    // Low codes of the bytes that interleaving brings together, then high ones.
    static void deal_table(const int16_t *from, int64_t blocks, int64_t words, int16_t *to) {
        for (int64_t b = 0; b < blocks; b++, from += 4 * words)
            for (int64_t j = 0; j < 4; j++)
                for (int64_t i = 0; i < words; i++)
                    *to++ = from[2 * (i / 8 * 16 + j % 2 * 8 + i % 8) + j / 2];
    }

    void lay_words(int64_t plane) {
        const int64_t apart = padded_ / block(plane) * sums_;
        const int64_t whole = (columns_ + PanelView::RUN - 1) / PanelView::RUN * PanelView::RUN;
        const int64_t blocks = (whole + block(plane) - 1) / block(plane);  // that are read
        words_[plane].resize(count_ * padded_);
        lanes_[plane].resize(count_ * apart);
        for (int64_t one = 0; one < count_; one++) {
            const int16_t *from = numbers_.data() + one * padded_;
            int16_t *to = words_[plane].data() + one * padded_;
            const bool bytes = sums_ == 16;
            if (plane == 0) (bytes ? deal_bytes<8> : deal<16>)(from, blocks, to);
            if (plane == 1) (bytes ? deal_bytes<4> : deal<8>)(from, blocks, to);
            if (plane == 2) (bytes ? deal_bytes<2> : deal<4>)(from, blocks, to);
            if (plane == 3) (bytes ? deal_bytes<1> : deal<2>)(from, blocks, to);
            if (plane == TABLE) deal_table(from, blocks, 2 * sums_, to);
            const float *scales = scales_.data() + one * padded_ / shared_;
            float *lanes = lanes_[plane].data() + one * apart;
            const int shift = shared_ == SHARED ? 5 : 4;
            for (int64_t b = 0; b < blocks; b++)
                for (int64_t i = 0; i < sums_; i++)
                    *lanes++ = scales[start_of(plane, b, i) >> shift];
        }
    }

    std::vector<float> taken_;
    int64_t count_ = 0, columns_ = 0, sums_ = 8, padded_ = 0;
    int64_t time_ = 0;  // how often others were taken
    int64_t shared_ = SHARED;
    Rounding rounding_ = USUAL;
    std::vector<int16_t> numbers_;
    std::vector<float> scales_;
    bool laid_[PLANES] = {}, dealt_[PLANES] = {};
    Panel panels_[PLANES];
    std::vector<int16_t> words_[PLANES];
    std::vector<float> lanes_[PLANES];
    std::vector<std::unique_ptr<Grouping>> room_;
};
