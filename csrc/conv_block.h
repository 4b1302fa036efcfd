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
};

// shape: n, c, h, w; filters: o, kh, kw, groups. Throws std::invalid_argument for what the kernels can't do.
inline ConvShape conv_shape(const std::array<std::int64_t, 4> &shape, const std::array<std::int64_t, 4> &filters,
                            const std::array<std::int64_t, 2> &stride, const std::array<std::int64_t, 2> &padding,
                            bool relu, bool pool) {
  ConvShape s{shape[0],  shape[1],   shape[2],   shape[3], filters[0], filters[1],   filters[2], filters[3], stride[0],
              stride[1], padding[0], padding[1], relu,     pool,       pool ? 2 : 1, 0,          0};
  if (s.n < 0 || s.c < 1 || s.h < 1 || s.w < 1 || s.o < 1) throw std::invalid_argument("conv_block: empty shape");
  if (s.groups != 1 && (s.groups != s.c || s.groups != s.o))
    throw std::invalid_argument("conv_block: groups are 1, or as many as the input and the output have channels");
  if (s.kh < 1 || s.kw < 1 || s.kh > 7 || s.kw > 7) throw std::invalid_argument("conv_block: kernel sizes are 1 to 7");
  if (s.sh < 1 || s.sw < 1 || s.ph < 0 || s.pw < 0) throw std::invalid_argument("conv_block: bad stride or padding");
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  if (std::max({s.h, s.w, s.ph, s.pw, s.sh, s.sw}) > most ||
      static_cast<double>(s.h + 2 * s.ph) * static_cast<double>(s.w + 2 * s.pw) * static_cast<double>(s.c) > 1e15)
    throw std::invalid_argument("conv_block: sides, strides and padding are less than 2^31, and 10^15 inputs too many");
  s.rows = ((s.h + 2 * s.ph - s.kh) / s.sh + 1) / s.side;
  s.cols = ((s.w + 2 * s.pw - s.kw) / s.sw + 1) / s.side;
  if (s.h + 2 * s.ph < s.kh || s.w + 2 * s.pw < s.kw || s.rows < 1 || s.cols < 1)
    throw std::invalid_argument("conv_block: the input is smaller than the kernel or the pool");
  if (s.rows * s.side == 1) s.sh = 1;  // of a single output no stride is taken, and none need be packed
  if (s.cols * s.side == 1) s.sw = 1;
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
