// conv_block with one filter per channel, chosen by conv_forward.cpp and conv_block_backward.cpp.
#include "conv_ways.h"
#include "parallel.h"

#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

template <class T> struct DepthwiseGradient {
  ConvShape shape;
  Strided<const T> x, g;
  const std::uint8_t *code;  // or null: all 0
  const T *weight;           // [c][kh][kw]
  bool want_dw;
  T *dx;  // or null
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "conv.inl"
#define HW4FAST_INL "conv_depthwise.inl"
#include "each_isa.h"

namespace hw4fast {

template <class T> static std::int64_t lanes_of(Isa isa) { return isa_lanes(isa) * 4 / static_cast<int>(sizeof(T)); }

template <class T> void conv_depthwise_filters(const T *weight, const ConvShape &s, ConvFilters<T> &to) {
  const auto filters_of = HW4FAST_VARIANT(to.isa, depthwise_filters<T>);
  const std::int64_t lanes = lanes_of<T>(to.isa), taps = s.kh * s.kw;
  for (std::int64_t c = 0; c < s.c; c += lanes)
    filters_of(weight + c * taps, std::min(lanes, s.c - c), taps, false, to.weight.get() + c * taps);
}

template <class T> void conv_depthwise(const Strided<const T> &x, const ConvFilters<T> &filters, const ConvShape &s,
                                       T *out, std::uint8_t *code, Threads threads) {
  const auto rows_of = HW4FAST_VARIANT(filters.isa, depthwise_rows<T>);
  const std::int64_t flops = s.cols * s.side * s.side * s.kh * s.kw * filters.padded;  // per row
  parallel_for(s.n * s.rows, 1 + 100000 / flops, threads, [&](std::int64_t begin, std::int64_t end) {
    rows_of(x, filters.weight.get(), filters.bias.get(), s, out, code, begin, end);
  });
}

// A block of channels has sums for each of a few groups of images, added in order: any number of threads gives the
// same result.
template <class T> void conv_depthwise_backward(const Strided<const T> &x, const Strided<const T> &g,
                                                const std::uint8_t *code, const T *weight, const ConvShape &s, T *dx,
                                                T *dw, T *db, Isa isa, Threads threads) {
  const auto backward = HW4FAST_VARIANT(isa, depthwise_backward<T>);
  const std::int64_t lanes = lanes_of<T>(isa), blocks = (s.c + lanes - 1) / lanes, taps = s.kh * s.kw;
  const std::int64_t groups = std::min<std::int64_t>(s.n, 16), size = (taps + 1) * lanes;
  const Scratch<T> parts(blocks * groups * size);
  std::fill(parts.get(), parts.get() + blocks * groups * size, T(0));
  const DepthwiseGradient<T> p{s, x, g, code, weight, dw != nullptr, dx};
  parallel_for(blocks * groups, 1, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t group = i % groups;
      backward(p, i / groups * lanes, s.n * group / groups, s.n * (group + 1) / groups, parts.get() + i * size);
    }
  });
  for (std::int64_t c = 0; c < s.c; ++c)
    for (std::int64_t t = 0; t <= taps; ++t) {
      T sum = 0;
      for (std::int64_t group = 0; group < groups; ++group)
        sum += parts.get()[(c / lanes * groups + group) * size + t * lanes + c % lanes];
      if (t < taps && dw) dw[c * taps + t] = sum;
      if (t == taps && db) db[c] = sum;
    }
}

#define HW4FAST_DEPTHWISE(T)                                                                                      \
  template void conv_depthwise_filters(const T *, const ConvShape &, ConvFilters<T> &);                           \
  template void conv_depthwise(const Strided<const T> &, const ConvFilters<T> &, const ConvShape &, T *,          \
                               std::uint8_t *, Threads);                                                          \
  template void conv_depthwise_backward(const Strided<const T> &, const Strided<const T> &, const std::uint8_t *, \
                                        const T *, const ConvShape &, T *, T *, T *, Isa, Threads);
HW4FAST_DEPTHWISE(float)
HW4FAST_DEPTHWISE(double)
#undef HW4FAST_DEPTHWISE

}  // namespace hw4fast
