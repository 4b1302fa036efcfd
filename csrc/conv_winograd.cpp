// conv_block's forward pass by Winograd's algorithm, chosen by conv_block.cpp.
#include "conv_winograd.h"
#include "parallel.h"

#include <cstring>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define HW4FAST_COMMON_INL "conv.inl"
#define HW4FAST_INL "conv_winograd.inl"
#include "each_isa.h"

namespace hw4fast {

void conv_winograd(const Strided<const float> &x, const float *weight, const float *bias, const ConvShape &s,
                   float *out, std::uint8_t *code, Isa isa, int threads) {
  const std::int64_t padded = (s.o + 31) / 32 * 32, side = s.kh + 1;  // the widest block, of any instruction set
  const Scratch<float> filters(padded * s.c * side * side), padded_bias(padded);
  std::fill(padded_bias.get(), padded_bias.get() + padded, 0.0f);
  if (bias) std::copy(bias, bias + s.o, padded_bias.get());
  const auto filters_of =
      s.kh == 3 ? HW4FAST_VARIANT(isa, winograd_filters<3>) : HW4FAST_VARIANT(isa, winograd_filters<5>);
  const auto rows_of = s.kh == 3 ? HW4FAST_VARIANT(isa, winograd_rows<3>) : HW4FAST_VARIANT(isa, winograd_rows<5>);
  const std::int64_t size = s.kh * s.kw;
  parallel_for(s.c, 1 + 4096 / padded, threads, [&](std::int64_t begin, std::int64_t end) {
    filters_of(weight, s.o, s.c * size, s.c, size, begin, end, filters.get());
  });
  const std::int64_t down = (s.rows * s.side + 1) / 2, flops = s.cols * s.side * s.c * s.o * side * side;
  parallel_for(s.n * down, 1 + 200000 / flops, threads, [&](std::int64_t begin, std::int64_t end) {
    rows_of(x, filters.get(), padded_bias.get(), s, out, code, begin, end);
  });
}

}  // namespace hw4fast
