// conv_block by Winograd's algorithm, forward and backward, chosen by conv_forward.cpp and conv_block_backward.cpp.
#include "conv_ways.h"
#include "parallel.h"

#include <cstring>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

struct WinogradGradient {
  ConvShape shape;
  Strided<const float> x, g;
  const std::uint8_t *code;
  const float *filters;  // as winograd_filters packs them, or null
  float *dx;             // or null
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "conv.inl"
#define HW4FAST_INL "conv_winograd.inl"
#include "each_isa.h"

namespace hw4fast {

void conv_winograd_filters(const float *weight, const ConvShape &s, ConvFilters<float> &to, Threads threads) {
  const auto filters_of =
      s.kh == 3 ? HW4FAST_VARIANT(to.isa, winograd_filters<3>) : HW4FAST_VARIANT(to.isa, winograd_filters<5>);
  const std::int64_t size = s.kh * s.kw;
  parallel_for(s.c, 1 + 4096 / to.padded, threads, [&](std::int64_t begin, std::int64_t end) {
    filters_of(weight, s.o, s.c * size, s.c, size, begin, end, to.weight.get());
  });
}

void conv_winograd(const Strided<const float> &x, const ConvFilters<float> &filters, const ConvShape &s, float *out,
                   std::uint8_t *code, Threads threads) {
  const auto rows_of =
      s.kh == 3 ? HW4FAST_VARIANT(filters.isa, winograd_rows<3>) : HW4FAST_VARIANT(filters.isa, winograd_rows<5>);
  const std::int64_t down = (s.rows * s.side + 1) / 2;
  const std::int64_t flops = s.cols * s.side * s.c * s.o * conv_winograd_places(s);
  parallel_for(s.n * down, 1 + 200000 / flops, threads, [&](std::int64_t begin, std::int64_t end) {
    rows_of(x, filters.weight.get(), filters.bias.get(), s, out, code, begin, end);
  });
}

// Groups of images have sums of their own, added in order at the end, as in conv_block_backward.cpp.
void conv_winograd_backward(const Strided<const float> &x, const Strided<const float> &g, const std::uint8_t *code,
                            const float *weight, const ConvShape &s, float *dx, float *dw, float *db, Isa isa,
                            Threads threads) {
  const std::int64_t most_c = (s.c + 31) / 32 * 32, most_o = (s.o + 31) / 32 * 32, taps = s.kh * s.kw;
  const std::int64_t places = conv_winograd_points(s) * conv_winograd_points(s), width = isa_lanes(isa);
  const std::int64_t c = (s.c + width - 1) / width * width, o = (s.o + width - 1) / width * width;
  const std::int64_t groups = std::min<std::int64_t>(s.n, 16), size = places * c * o + o;
  const bool is_3 = s.kh == 3, sums = dw || db;
  const Scratch<float> filters(dx ? most_c * s.o * places : 0), parts(sums ? groups * size : 0);
  const auto filters_of = is_3 ? HW4FAST_VARIANT(isa, winograd_filters<3>) : HW4FAST_VARIANT(isa, winograd_filters<5>);
  const auto images =
      is_3 ? HW4FAST_VARIANT(isa, winograd_backward_images<3>) : HW4FAST_VARIANT(isa, winograd_backward_images<5>);
  const auto reduce = is_3 ? HW4FAST_VARIANT(isa, winograd_reduce<3>) : HW4FAST_VARIANT(isa, winograd_reduce<5>);
  if (dx)
    parallel_for(s.o, 1 + 4096 / most_c, threads, [&](std::int64_t begin, std::int64_t end) {
      filters_of(weight, s.c, taps, s.o, s.c * taps, begin, end, filters.get());
    });
  const WinogradGradient p{s, x, g, code, filters.get(), dx};
  parallel_for(groups, 1, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t group = begin; group < end; ++group) {
      float *part = sums ? parts.get() + group * size : nullptr;
      if (part) std::fill(part, part + size, 0.0f);
      images(p, s.n * group / groups, s.n * (group + 1) / groups, part);
    }
  });
  if (dw)
    parallel_for(s.c, 1 + 4096 / most_o, threads,
                 [&](std::int64_t begin, std::int64_t end) { reduce(s, groups, parts.get(), size, dw, begin, end); });
  for (std::int64_t i = 0; db && i < s.o; ++i) {
    db[i] = 0;
    for (std::int64_t group = 0; group < groups; ++group) db[i] += parts.get()[group * size + places * c * o + i];
  }
}

}  // namespace hw4fast
