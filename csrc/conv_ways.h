// The ways to do a conv_block other than its own direct sums: Winograd's algorithm, and one filter per channel. x is
// [n, c, h, w] of any strides, weight [o][c or 1][kh][kw], bias [o] or null; out and code [n, rows, cols, o], code may
// be null. Backward: g [n, o, rows, cols] of any strides, code null: all 0; dx [n, h, w, c], dw and db [o] may be null.
#pragma once

#include "conv_block.h"
#include "kernel.h"

namespace hw4fast {

// Whether it is the faster way; what it can do at all is float32, stride 1 and square filters of 3 or 5.
inline bool conv_winograd_wins(const ConvShape &s) {
  return s.groups == 1 && s.sh == 1 && s.sw == 1 && s.kh == s.kw && (s.kh == 3 || s.kh == 5) && s.c >= 8 && s.o >= 8;
}

// Products per tile and side, as conv.inl says.
inline std::int64_t conv_winograd_points(const ConvShape &s) { return s.kh == 3 ? 4 : 7; }

void conv_winograd(const Strided<const float> &x, const float *weight, const float *bias, const ConvShape &s,
                   float *out, std::uint8_t *code, Isa isa, int threads);

void conv_winograd_backward(const Strided<const float> &x, const Strided<const float> &g, const std::uint8_t *code,
                            const float *weight, const ConvShape &s, float *dx, float *dw, float *db, Isa isa,
                            int threads);

// groups = c = o; T is float or double.
template <class T> void conv_depthwise(const Strided<const T> &x, const T *weight, const T *bias, const ConvShape &s,
                                       T *out, std::uint8_t *code, Isa isa, int threads);
template <class T> void conv_depthwise_backward(const Strided<const T> &x, const Strided<const T> &g,
                                                const std::uint8_t *code, const T *weight, const ConvShape &s, T *dx,
                                                T *dw, T *db, Isa isa, int threads);

}  // namespace hw4fast
