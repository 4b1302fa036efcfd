// What conv_block's forward and backward kernels share: the shapes, and how a picture lies in memory.
#pragma once

#include "scratch.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>

namespace hw4fast {

// x [n, c, h, w] * weight [o, c, kh, kw] → convolution [n, o, oh, ow] → ReLU → 2×2 maximum [n, o, rows, cols].
// Without the pool rows = oh and cols = ow. Outputs and codes are channels-last: [n, rows, cols, o].
struct ConvShape {
  std::int64_t n, c, h, w;
  std::int64_t o, kh, kw;
  std::int64_t sh, sw, ph, pw;  // stride and padding, down and across
  bool relu, pool;

  std::int64_t oh() const { return (h + 2 * ph - kh) / sh + 1; }
  std::int64_t ow() const { return (w + 2 * pw - kw) / sw + 1; }
  std::int64_t side() const { return pool ? 2 : 1; }  // convolution rows per output row
  std::int64_t rows() const { return oh() / side(); }
  std::int64_t cols() const { return ow() / side(); }
};

// shape: n, c, h, w; filters: o, kh, kw. Throws std::invalid_argument for what the kernels can't do.
inline ConvShape conv_shape(const std::array<std::int64_t, 4> &shape, const std::array<std::int64_t, 3> &filters,
                            const std::array<std::int64_t, 2> &stride, const std::array<std::int64_t, 2> &padding,
                            bool relu, bool pool) {
  const ConvShape s{shape[0],  shape[1],  shape[2],   shape[3],   filters[0], filters[1], filters[2],
                    stride[0], stride[1], padding[0], padding[1], relu,       pool};
  if (s.n < 0 || s.c < 1 || s.h < 1 || s.w < 1 || s.o < 1) throw std::invalid_argument("conv_block: empty shape");
  if (s.kh < 1 || s.kw < 1 || s.kh > 7 || s.kw > 7) throw std::invalid_argument("conv_block: kernel sizes are 1 to 7");
  if (s.sh < 1 || s.sw < 1 || s.ph < 0 || s.pw < 0) throw std::invalid_argument("conv_block: bad stride or padding");
  if (s.h + 2 * s.ph < s.kh || s.w + 2 * s.pw < s.kw || s.rows() < 1 || s.cols() < 1)
    throw std::invalid_argument("conv_block: the input is smaller than the kernel or the pool");
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
