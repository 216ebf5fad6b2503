// Loops over numbers, for the kind of processor that this runs on.
#pragma once

#include <cstdint>

#include "fixed.h"

constexpr int64_t TILE_ROWS = 16, TILE_COLUMNS = 256;  // in float32 half of a first cache
constexpr int64_t TILE_OF_CODES = 32;                  // rows

// Sixteen values of 16 bits by their low and high bytes, as a register looks them up.
struct Table {
    uint8_t low[16], high[16];
};

// Rows of one plane of codes, one behind the other, and what the codes of their groups are worth.
struct Plane {
    const uint8_t *lines;  // [rows, bytes]
    int64_t bytes;
    const float *scales;  // [rows, groups], and eight behind the last can be read
    int64_t groups;
    float factor;
};

// Codes of some columns of some rows, and what they are worth: (code - middle) * factor + offset.
struct CodeBlock {
    const uint8_t *lines[4];  // of the first row
    int64_t bytes[4];         // of a row
    int64_t columns;          // of the matrix
    int64_t rows, column, count;  // of the block
    int64_t group_size, groups;   // eight divides the first; those of the block
    float middle;
    const float *factors, *offsets;  // [rows, groups]
};

// What codes stand for: [size] for all rows, or [rows, size] in bfloat16.
struct Entries {
    const float *all;
    const uint16_t *rows;
    int64_t size;
};

// Rows of codes in several planes, multiplied as one; of each plane as `Plane` has it.
struct CodeRows {
    const uint8_t *lines[4];
    int64_t bytes[4];
    const float *scales;  // [rows, groups], and sixteen behind the last can be read
    int64_t groups;
    float factor;
};

// Lines of codes of one to eight bits, each the place of a vector in a table, and a number a line.
struct VectorColumns {
    const uint8_t *codes;  // [lines, bytes]
    int64_t bytes, lines, width;
    const float *table;
    const float *x;  // [lines]
};

// Kept groups of some rows: codes of four bits, and what they are worth, code * scale + shift.
struct KeptGroups {
    const uint8_t *codes;  // of the kept groups, one behind the other
    const float *worth;    // scale and shift: of nothing, 0 and 0, then of each kept group
    const uint8_t *mask;   // [rows, bytes], a bit a group
    int64_t rows, groups, size;  // 8, 16 or 32 codes a group
};

// Huffman codes by their bits: `several` by the next few, up to six symbols in as many bytes, how
// many bits they take and how many they are; none where the first code is longer.
struct CodeTable {
    static constexpr int SHORT = 11, LONGEST = 12;
    uint64_t several[1 << SHORT];
    uint16_t ends[LONGEST + 1];    // of the codes of each length, among all words of 12 bits
    uint16_t before[LONGEST + 1];  // codes that are shorter
    uint8_t order[256];            // symbols as their codes follow each other
};

struct FoundCode {
    int32_t length;
    uint8_t symbol;
};

constexpr int64_t LANE = 64, LANES_A_BASE = 64;
constexpr int64_t LANE_ROOM = 128;  // bytes: what is looked up beyond a lane's end is written too

struct CodedLanes {
    const uint8_t *stream;
    int64_t bytes;
    const int64_t *bases;
    const uint16_t *starts;
    const CodeTable *table;
};

// Rows of codes of up to four bits in planes, into a table of their own or of all.
struct TableRows {
    const uint8_t *lines[3];
    int64_t bytes[3];
    const uint16_t *tables;  // [rows, size], bfloat16; null: one
    const float *table;      // [16], the first again and again
    const float *scales;     // [rows, groups], or null
    int64_t size, columns;
    int64_t group_size, groups;  // sixteen divides the first, or it is all columns
};

// Planes of signs of some rows.
struct SignPlanes {
    const uint8_t *signs;  // [rows, bytes]; of the next plane so many bytes apart
    int64_t bytes, rows, planes, apart;
    int64_t group_bytes;  // of a row's groups; four divides them, or they are all bytes
};

// One query of one head: what it asks, what it found so far, its largest score, its shares' sum.
struct Asking {
    static constexpr int64_t WIDEST = 256;  // channels, for `look_at`

    float *query, *found;  // padded with zeros to whole eights
    float top, sum;
};

// The loops of one kind of processor; the first four by the planes that there are.
struct Loops {
    void (*unpack[16])(const uint8_t *const *, int64_t, int64_t, uint32_t *);
    void (*scaled[16])(const uint8_t *const *, int64_t, int64_t, float, float, float, float *);
    // Rows of a block, and the same turned, by factors and offsets [groups, rows], of which eight
    // behind the last can be read.
    void (*write_block[16])(const CodeBlock &, float *);
    void (*write_turned[16])(const CodeBlock &, float *);
    const float *(*spread)(const uint8_t *, const float *, int64_t, float *);
    void (*spread_fours)(const uint8_t *, const float *, int64_t, float *);
    int64_t (*ones)(const uint8_t *, int64_t);
    void (*sign_sums)(const uint8_t *, int64_t, int64_t, const float *, int64_t, float *, int64_t);
    void (*sign_groups)(const SignPlanes &, const float *, float *);  // null: as integers
    // Adds to y [rows] worth [rows, groups] times sums [groups, rows], of which groups lie apart.
    void (*add_groups)(const float *, const float *, int64_t, int64_t, int64_t, float *);
    void (*widen)(const uint16_t *, int64_t, float *);
    // Codes of one bit, of two, and of both: eight at a time as codes of four bits.
    void (*spread_to_four[4])(const uint8_t *, const uint8_t *, int64_t, uint8_t *);
    float (*product_in_place)(float *, const float *, int64_t);
    void (*look_up)(const uint32_t *, const float *, int64_t, int64_t, float *);
    void (*scale_by)(float *, float, int64_t);
    void (*combine)(float *, const float *, float, int64_t);
    void (*join)(const uint8_t *, const uint8_t *, int64_t, float *);
    void (*read_lanes)(const CodedLanes &, int64_t, int64_t, uint8_t *);
    void (*make_code_table)(const uint8_t *, int64_t, int64_t, CodeTable &);
    void (*dots)(const void *, int64_t, const float *, int64_t, int64_t, float *, int64_t);
    void (*dots_of_halves)(const void *, int64_t, const float *, int64_t, int64_t, float *,
                           int64_t);
    // Rows of a few numbers with activations, whose products lie apart.
    void (*group_dots)(const float *, int64_t, int64_t, const float *, int64_t, float *, int64_t);
    float (*masked_dot)(const uint8_t *, const float *, int64_t, const uint16_t *&,
                        const uint16_t *);
    float (*fours_dot)(const uint8_t *, const float *, int64_t, const uint16_t *);
    Fixed::Round round_to_fixed, round_to_codes;  // with a step every 32 columns, or by blocks
    float (*round_table)(const float *, Table &);
    // Added to products, of which those of an activation lie apart.
    void (*plane_dots[4])(const Plane &, int64_t, const PlaneView &, int64_t, float *, int64_t);
    void (*table_dots)(const uint8_t *, int64_t, const Table &, const PlaneView &, int64_t,
                       const float *, float *, int64_t);
    // By the length of vectors of a codebook: 1, 2, 4 and 8.
    void (*add_columns[4])(const VectorColumns &, int64_t, int64_t, float *);
    float (*vectors_dot[4])(const uint32_t *, const float *, const float *, int64_t);
    void (*deal_kept)(const float *, int64_t, int64_t, float *);
    void (*kept_dots)(const KeptGroups &, const float *, float *);
    void (*write_kept)(const KeptGroups &, float *);
    void (*table_rows)(const TableRows &, int64_t, const float *, float *);  // null: as integers
    // Rows of two of every four with one activation; null: by `fours_dot`.
    void (*fours_rows)(const uint8_t *, int64_t, const uint16_t *, int64_t, int64_t, const float *,
                       float *);
    void (*place)(const float *, int64_t, float *);
    void (*tile_dots)(const float *, int64_t, const float *, int64_t, int64_t, int64_t, float *);
    void (*finish_tile)(const float *, int64_t, int64_t, float *, int64_t);
    // Queries of one token at states [tokens, channels] of their head, in float32 or bfloat16, of
    // which marks may hide some; 32 divides the channels. Null: by attention.cpp's own.
    void (*look_at[2])(Asking *, int64_t, const void *, const void *, int64_t, int64_t,
                       const uint8_t *);
    // Columns up to which dense rows meet any number of activations quicker as they lie than in tiles.
    int64_t short_columns;
    int64_t sums;  // of a block, of which `Fixed` lays activations out
    // By the planes; null: each plane by `plane_dots`.
    void (*code_dots[16])(const CodeRows &, int64_t, const PlaneView &, int64_t, float *, int64_t);
    Panel::Deal deal_panel;  // for tiles of codes; null: there are none
    // An activation, dealt first, with values in bfloat16 behind a mask; null: by `masked_dot`.
    void (*deal_pairs)(const float *, int64_t, float *);
    float (*masked_pairs_dot)(const uint8_t *, const float *, int64_t, const uint16_t *&,
                              const uint16_t *);
    void (*masks_of_fours)(const uint8_t *, int64_t, uint8_t *);
    // An activation, dealt first, with a row whose exponents are codes of four bits; null: decoded.
    void (*deal_window)(const float *, int64_t, float *);
    float (*window_dot)(const uint8_t *, const uint8_t *, const uint8_t *, const uint8_t *,
                        const float *, int64_t);
    // Parts of rows of either in float32, dealt as activations are; null: decoded.
    void (*expand_pairs)(const uint8_t *, int64_t, const uint16_t *&, const uint16_t *, float *);
    void (*look_up_codes)(const uint8_t *, const float *, int64_t, float *);
    void (*join_window)(const uint8_t *, const uint8_t *, const uint8_t *, const uint8_t *, int64_t,
                        float *);
    // Rows of a block from a column that eight divides, entries times factors, or without; null: one
    // row after another.
    void (*write_looked_up[16])(const CodeBlock &, const Entries &, float *);
};

extern const Loops *loops;

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SEVERAL_KINDS
const Loops *loops_of_avx2();
const Loops *loops_of_avx512();
const Loops *loops_of_vnni();
void take_wide_codes(Loops &found);  // those of VNNI for codes of five to eight bits
void take_values(Loops &found);      // those that write codes as numbers
#endif
