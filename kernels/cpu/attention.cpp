// Attention piece by piece: the states of a few tokens lie in a core's nearest cache while all
// queries of their head look at them, and shares are set right when a larger score turns up.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "bfloat16.h"
#include "clones.h"
#include "exponential.h"
#include "loops.h"

namespace {

constexpr int64_t NEAR = 32;        // tokens of a piece of a room
constexpr int64_t ALONE = 1 << 19;  // products below which a second thread costs more

int64_t eights(int64_t count) { return (count + 7) / 8 * 8; }

// Sums of eight vectors each: neighbours are added until one number of each is left.
inline __attribute__((always_inline)) EightNumbers sums_of(const EightNumbers *parts) {
    typedef int32_t Order __attribute__((vector_size(32)));
    const Order even = {0, 2, 8, 10, 4, 6, 12, 14}, odd = {1, 3, 9, 11, 5, 7, 13, 15};
    EightNumbers four[4], two[2];
    for (int i = 0; i < 4; i++)
        four[i] = __builtin_shuffle(parts[2 * i], parts[2 * i + 1], even) +
                  __builtin_shuffle(parts[2 * i], parts[2 * i + 1], odd);
    for (int i = 0; i < 2; i++)
        two[i] = __builtin_shuffle(four[2 * i], four[2 * i + 1], even) +
                 __builtin_shuffle(four[2 * i], four[2 * i + 1], odd);
    const Order low = {0, 1, 2, 3, 8, 9, 10, 11}, high = {4, 5, 6, 7, 12, 13, 14, 15};
    return __builtin_shuffle(two[0], two[1], low) + __builtin_shuffle(two[0], two[1], high);
}

// Products of a query with eight keys; behind the last token its key stands again.
inline __attribute__((always_inline)) EightNumbers eight_scores(const float *query,
                                                                const float *keys, int64_t left,
                                                                int64_t stride) {
    EightNumbers parts[8] = {};
    const float *rows[8];
    for (int64_t i = 0; i < 8; i++) rows[i] = keys + std::min(i, left - 1) * stride;
    for (int64_t at = 0; at < stride; at += 8) {
        const EightNumbers asked = eight_numbers(query + at);
        for (int i = 0; i < 8; i++) parts[i] += asked * eight_numbers(rows[i] + at);
    }
    return sums_of(parts);
}

// Adds values [count, stride] by their shares to a few eights of what was found, kept in part.
template <int EIGHTS>
inline __attribute__((always_inline)) void add_shares(float *into, const float *values,
                                                      const float *shares, int64_t count,
                                                      int64_t stride, float kept) {
    EightNumbers found[EIGHTS], more[EIGHTS] = {};
    for (int e = 0; e < EIGHTS; e++) found[e] = eight_numbers(into + 8 * e) * kept;
    int64_t i = 0;
    for (; i + 2 <= count; i += 2, values += 2 * stride)
        for (int e = 0; e < EIGHTS; e++) {
            found[e] += shares[i] * eight_numbers(values + 8 * e);
            more[e] += shares[i + 1] * eight_numbers(values + stride + 8 * e);
        }
    for (int e = 0; e < EIGHTS; e++) {
        if (i < count) found[e] += shares[i] * eight_numbers(values + 8 * e);
        found[e] += more[e];
        std::memcpy(into + 8 * e, &found[e], 32);
    }
}

// What a query finds among `count` tokens is added to what it found; `seen` [count] may hide some.
CLONES void look(Asking &asking, const float *keys, const float *values, int64_t count,
                 int64_t stride, const uint8_t *seen, float *scores) {
    EightNumbers tops = EightNumbers{} + asking.top;
    for (int64_t first = 0; first < count; first += 8) {
        EightNumbers found =
            eight_scores(asking.query, keys + first * stride, count - first, stride);
        if (seen || first + 8 > count)
            for (int64_t i = 0; i < 8; i++)
                if (first + i >= count || (seen && !seen[first + i])) found[i] = -INFINITY;
        std::memcpy(scores + first, &found, 32);
        tops = found > tops ? found : tops;
    }
    float top = tops[0];
    for (int i = 1; i < 8; i++) top = std::max(top, tops[i]);
    const auto hidden = [](float score) { return score == -INFINITY; };
    if (top == -INFINITY && std::all_of(scores, scores + count, hidden)) return;  // no NaN is lost
    EightNumbers sums = {};
    for (int64_t first = 0; first < count; first += 8) {
        const EightNumbers shares = exponential(eight_numbers(scores + first) - top);
        std::memcpy(scores + first, &shares, 32);
        sums += shares;
    }
    const float kept = asking.top == top ? 1.0f : std::exp(asking.top - top);
    asking.top = top;
    asking.sum *= kept;
    for (int i = 0; i < 8; i++) asking.sum += sums[i];
    int64_t at = 0;
    for (; at + 32 <= stride; at += 32)
        add_shares<4>(asking.found + at, values + at, scores, count, stride, kept);
    for (; at < stride; at += 8)
        add_shares<1>(asking.found + at, values + at, scores, count, stride, kept);
}

CLONES void widen(const uint16_t *from, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = widened(from[i]);
}

void put(float *to, const float *from, int64_t count) { std::copy_n(from, count, to); }

void put(uint16_t *to, const float *from, int64_t count) {
    std::transform(from, from + count, to, narrowed);
}

template <typename Number>
void remember(const Room &room, int64_t size, int64_t heads, const float *keys,
              const float *values, int64_t first, int64_t count) {
    for (int64_t token = 0; token < count; token++)
        for (int64_t head = 0; head < heads; head++) {
            const int64_t place = (head * room.capacity + first + token) * size;
            const int64_t from = (token * heads + head) * size;
            put(static_cast<Number *>(room.keys) + place, keys + from, size);
            put(static_cast<Number *>(room.values) + place, values + from, size);
        }
}

// What a thread keeps from one call to the next, so that a token asks for no memory.
struct Kept {
    std::vector<float> numbers;
    std::vector<Asking> askings;
    std::vector<int64_t> branches, depths;
};

// All queries of a block, ordered by the head that they ask.
class Queries {
  public:
    Queries(const Block &block, int64_t size, const float *queries, int64_t tokens, Kept &kept)
        : stride(eights(size)), rows(tokens * (block.query.rows / block.key.rows)),
          group(block.query.rows / block.key.rows),
          whole(loops->look_at[0] && size % 32 == 0 && size <= Asking::WIDEST),
          all(kept.askings), width_(block.query.rows), size_(size) {
        const int64_t heads = block.key.rows / size;
        kept.numbers.assign(2 * heads * rows * stride, 0);
        all.resize(heads * rows);
        float *next = kept.numbers.data();
        for (int64_t head = 0; head < heads; head++)
            for (int64_t row = 0; row < rows; row++, next += 2 * stride) {
                all[head * rows + row] = {next, next + stride, -INFINITY, 0};
                const float *from = queries + place(head, row);
                for (int64_t i = 0; i < size; i++) next[i] = from[i] * block.scale;
            }
    }

    void write(int64_t head, float *found) const {
        for (int64_t row = 0; row < rows; row++) {
            const Asking &one = all[head * rows + row];
            float *to = found + place(head, row);
            for (int64_t i = 0; i < size_; i++) to[i] = one.found[i] / one.sum;
        }
    }

    const int64_t stride, rows, group;  // rows: of one head; a group of them: of a token
    const bool whole;                   // whether `look_at` knows heads of this size
    std::vector<Asking> &all;

  private:
    int64_t place(int64_t head, int64_t row) const {
        return row / group * width_ + (head * group + row % group) * size_;
    }

    const int64_t width_, size_;
};

// Tokens that a cache holds: a piece of all heads is read, then every head's queries look at it.
void look_back(const Past &past, int64_t heads, Queries &queries) {
    const int64_t piece = past.piece * queries.stride;
    std::vector<float> states(2 * heads * piece), scores(eights(past.piece));
    for (int64_t first = 0; first < past.tokens; first += past.piece) {
        float *keys = states.data(), *values = keys + heads * piece;
        past.read_keys(past.keys, first, past.piece, queries.stride, keys);
        past.read_values(past.values, first, past.piece, queries.stride, values);
        for (int64_t head = 0; head < heads; head++, keys += piece, values += piece) {
            Asking *asking = &queries.all[head * queries.rows];
            if (queries.whole) {
                loops->look_at[0](asking, queries.rows, keys, values, past.piece, queries.stride,
                                  nullptr);
                continue;
            }
            for (int64_t row = 0; row < queries.rows; row++)
                look(asking[row], keys, values, past.piece, queries.stride, nullptr, scores.data());
        }
    }
}

// States of a few tokens of one head where they lie, or widened and padded with zeros into `spare`,
// which others were in before: a query's zeros times what is no number would be none either.
template <typename Number>
const float *near_states(const Number *from, int64_t count, int64_t size, int64_t stride,
                         float *spare) {
    for (int64_t i = 0; i < count && size < stride; i++)
        std::fill_n(spare + i * stride + size, stride - size, 0.0f);
    if constexpr (sizeof(Number) == 4) {
        if (size == stride) return from;
        for (int64_t i = 0; i < count; i++) std::copy_n(from + i * size, size, spare + i * stride);
    } else if (size == stride) {
        widen(from, count * size, spare);
    } else {
        for (int64_t i = 0; i < count; i++) widen(from + i * size, size, spare + i * stride);
    }
    return spare;
}

// Which of the new tokens each sees, itself the last, and how many come before it: of a tree, those
// of its own branch. Of each there is room for all.
void find_branches(const Tokens &tokens, std::vector<int64_t> &branches,
                   std::vector<int64_t> &depths) {
    branches.resize(tokens.count * tokens.count);
    depths.assign(tokens.count, -1);
    for (int64_t token = 0; token < tokens.count; token++)
        for (int64_t i = 0; i < tokens.count; i++)
            if (tokens.among ? tokens.among[token * tokens.count + i] : i <= token)
                branches[token * tokens.count + ++depths[token]] = i;
}

// What one new token sees of the tokens of a room, of which `before` are old: the new ones of its
// branch stand behind these, as they would had they come one by one, so that sums have their order.
struct Sight {
    const Room &room;
    const int64_t *branch;
    int64_t before, end, start;  // tokens in reach are those from the start to the end
    bool apart;  // whether tokens of other branches lie among its own

    Sight(const Room &of, const int64_t *own, int64_t depth, int64_t old)
        : room(of), branch(own), before(old), end(old + depth + 1),
          start(of.reach ? end - of.reach : 0), apart(own[depth] != depth) {}

    // Null where all of a piece is seen.
    const uint8_t *marks(int64_t first, int64_t count, uint8_t *seen) const {
        if (first >= start || first + count <= room.sinks) return nullptr;
        for (int64_t i = 0; i < count; i++)
            seen[i] = first + i >= start || first + i < room.sinks;
        return seen;
    }

    // States of a piece that it sees, behind one another: where they lie, or in a room.
    template <typename Number>
    const Number *piece(const Number *all, int64_t size, int64_t first, int64_t count,
                        Number *to) const {
        if (!apart || first + count <= before) return all + first * size;
        for (int64_t i = 0; i < count; i++) {
            const int64_t fresh = first + i - before;
            const int64_t place = fresh < 0 ? first + i : before + branch[fresh];
            std::copy_n(all + place * size, size, to + i * size);
        }
        return to;
    }
};

template <typename Number>
void look_near(const Room &room, int64_t head, int64_t size, const std::vector<Sight> &sights,
               int64_t whole, Queries &queries) {
    const int64_t start = head * room.capacity * size, stride = queries.stride;
    const Number *all_keys = static_cast<const Number *>(room.keys) + start;
    const Number *all_values = static_cast<const Number *>(room.values) + start;
    float scores[NEAR];
    uint8_t seen[NEAR];
    thread_local std::vector<float> spare;  // keeps its room
    thread_local std::vector<Number> own;   // of a branch
    spare.resize(std::max<size_t>(spare.size(), 2 * NEAR * stride));
    own.resize(std::max<size_t>(own.size(), 2 * NEAR * size));
    for (int64_t first = 0; first < whole; first += NEAR) {
        const float *keys = nullptr, *values = nullptr;
        const auto widen = [&](const Number *key, const Number *value, int64_t count) {
            if (queries.whole) return;
            keys = near_states(key, count, size, stride, spare.data());
            values = near_states(value, count, size, stride, spare.data() + NEAR * stride);
        };
        bool there = false;  // whether the states where they lie are widened
        for (int64_t row = 0; row < queries.rows; row += queries.group) {
            const Sight &sight = sights[row / queries.group];
            const int64_t visible = std::min(NEAR, sight.end - first);
            if (visible <= 0) continue;
            const Number *key = sight.piece(all_keys, size, first, visible, own.data());
            const Number *value =
                sight.piece(all_values, size, first, visible, own.data() + NEAR * size);
            const bool lies = key == all_keys + first * size;
            if (!lies || !there)
                widen(key, value, lies ? std::min(NEAR, whole - first) : visible);
            there = lies;
            const uint8_t *marks = sight.marks(first, visible, seen);
            Asking *asking = &queries.all[head * queries.rows + row];
            if (queries.whole) {
                loops->look_at[sizeof(Number) == 2](asking, queries.group, key, value, visible,
                                                    size, marks);
                continue;
            }
            for (int64_t one = 0; one < queries.group; one++)
                look(asking[one], keys, values, visible, stride, marks, scores);
        }
    }
}

template <typename Number>
void attend_in(const Block &block, const Room &room, int64_t size, const float *asked,
               const float *keys, const float *values, const Tokens &tokens, float *found) {
    const int64_t heads = block.key.rows / size;
    const int64_t before = tokens.position - (room.past ? room.past->tokens : 0) - room.gone;
    remember<Number>(room, size, heads, keys, values, before, tokens.count);
    if (room.asked) std::copy_n(asked, tokens.count * block.query.rows, room.asked);
    thread_local Kept kept;
    thread_local std::vector<Sight> seen;
    Queries queries(block, size, asked, tokens.count, kept);
    if (room.past) look_back(*room.past, heads, queries);
    find_branches(tokens, kept.branches, kept.depths);
    seen.clear();
    for (int64_t token = 0; token < tokens.count; token++)
        seen.emplace_back(room, kept.branches.data() + token * tokens.count, kept.depths[token],
                          before);
    const std::vector<Sight> &sights = seen;  // this thread's, whoever looks
    const int64_t products = heads * queries.rows * (before + tokens.count) * size;
    const auto one = [&](int64_t head) {
        look_near<Number>(room, head, size, sights, before + tokens.count, queries);
        queries.write(head, found);
    };
    if (products < ALONE) {  // a loop of threads takes its time, even of one
        for (int64_t head = 0; head < heads; head++) one(head);
        return;
    }
#pragma omp parallel for schedule(dynamic)
    for (int64_t head = 0; head < heads; head++) one(head);
}

}  // namespace

void attend(const Block &block, const Room &room, int64_t size, const float *queries,
            const float *keys, const float *values, const Tokens &tokens, float *found) {
    (room.halved ? attend_in<uint16_t> : attend_in<float>)(block, room, size, queries, keys, values,
                                                           tokens, found);
}
