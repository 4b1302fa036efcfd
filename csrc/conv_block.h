// What conv_block's forward and backward kernels share: the shapes, and how a picture lies in memory.
#pragma once

#include "scratch.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <stdexcept>

namespace hw4fast {

// x [n, c, h, w] * weight [o, c, kh, kw] → convolution [n, o, oh, ow] → ReLU → 2×2 maximum [n, o, rows, cols].
// Without the pool rows = oh and cols = ow. Outputs and codes are channels-last: [n, rows, cols, o].
struct ConvShape {
  std::int64_t n, c, h, w;
  std::int64_t o, kh, kw, groups;  // groups: 1, or c and o for one filter per channel
  std::int64_t sh, sw, ph, pw;     // stride and padding, down and across
  bool relu, pool;
  std::int64_t side;        // convolution rows per output row: 2 with the pool, else 1
  std::int64_t rows, cols;  // of the output
  // Rows and columns from one convolution output to the next in packed pictures: the stride, or the kernel's side where
  // a longer stride leaves inputs out, which are not packed. So a packed picture is at most 49 times the outputs.
  std::int64_t down, across;
};

// Where the packed row (column) r lies in the bordered picture, both counted from an output's first.
inline std::int64_t conv_place(std::int64_t r, std::int64_t packed, std::int64_t stride) {
  return r / packed * stride + r % packed;
}
// The packed row (column) of a place in the bordered picture, -1 where outputs leave it out.
inline std::int64_t conv_packed(std::int64_t place, std::int64_t packed, std::int64_t stride) {
  return place % stride < packed ? place / stride * packed + place % stride : -1;
}

// shape: n, c, h, w; filters: o, kh, kw, groups. Throws std::invalid_argument for what the kernels can't do.
inline ConvShape conv_shape(const std::array<std::int64_t, 4> &shape, const std::array<std::int64_t, 4> &filters,
                            const std::array<std::int64_t, 2> &stride, const std::array<std::int64_t, 2> &padding,
                            bool relu, bool pool) {
  ConvShape s{shape[0],     shape[1],  shape[2],  shape[3],   filters[0], filters[1], filters[2],
              filters[3],   stride[0], stride[1], padding[0], padding[1], relu,       pool,
              pool ? 2 : 1, 0,         0,         0,          0};
  if (s.n < 0 || s.c < 1 || s.h < 1 || s.w < 1 || s.o < 1) throw std::invalid_argument("conv_block: empty shape");
  if (s.groups != 1 && (s.groups != s.c || s.groups != s.o))
    throw std::invalid_argument("conv_block: groups are 1, or as many as the input and the output have channels");
  if (s.kh < 1 || s.kw < 1 || s.kh > 7 || s.kw > 7) throw std::invalid_argument("conv_block: kernel sizes are 1 to 7");
  if (s.sh < 1 || s.sw < 1 || s.ph < 0 || s.pw < 0) throw std::invalid_argument("conv_block: bad stride or padding");
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  if (std::max({s.h, s.w, s.ph, s.pw, s.sh, s.sw}) > most)
    throw std::invalid_argument("conv_block: sides, strides and padding are less than 2^31");
  s.rows = ((s.h + 2 * s.ph - s.kh) / s.sh + 1) / s.side;
  s.cols = ((s.w + 2 * s.pw - s.kw) / s.sw + 1) / s.side;
  if (s.h + 2 * s.ph < s.kh || s.w + 2 * s.pw < s.kw || s.rows < 1 || s.cols < 1)
    throw std::invalid_argument("conv_block: the input is smaller than the kernel or the pool");
  s.down = std::min(s.sh, s.kh);
  s.across = std::min(s.sw, s.kw);
  if (49.0 * static_cast<double>(s.rows * s.side) * static_cast<double>(s.cols * s.side) * static_cast<double>(s.c) >
      1e15)
    throw std::invalid_argument("conv_block: over 10^13 outputs per channel are too many");
  return s;
}

// The code of an output: which of the four the maximum was (row-major; 0 without the pool), or that ReLU made it 0.
enum : std::uint8_t { code_dead = 4 };

template <class T> struct Strided {  // a tensor [n, c, h, w] of any strides, in elements
  T *data;
  std::int64_t n, c, h, w;
  T *at(std::int64_t in, std::int64_t ic, std::int64_t ih) const { return data + in * n + ic * c + ih * h; }
};

}  // namespace hw4fast
