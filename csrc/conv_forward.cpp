// conv_block's forward pass: the choice of a way, and the direct one. Nothing here needs Python: onnxruntime runs it,
// too (ort_ops.cpp).
#include "conv_ways.h"
#include "parallel.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define HW4FAST_COMMON_INL "conv.inl"
#define HW4FAST_INL "conv_block.inl"
#include "each_isa.h"

namespace hw4fast {

constexpr std::int64_t widest = 32;  // channels of a block, of any instruction set

template <class T> static std::int64_t weights(const ConvShape &s, ConvWay way, std::int64_t padded) {
  if (way == ConvWay::depthwise) return padded * s.kh * s.kw;
  if (way == ConvWay::fft) return padded * s.c * conv_fft_places * 2;
  return padded * s.c * (way == ConvWay::winograd ? conv_winograd_places(s) : s.kh * s.kw);
}

template <class T> ConvFilters<T>::ConvFilters(const T *from, const T *from_bias, const ConvShape &s, ConvWay by,
                                               Isa which, Threads threads)
    : isa(which),
      way(by),
      padded((s.o + widest - 1) / widest * widest),
      weight(weights<T>(s, way, padded)),
      bias(padded),
      plain(way == ConvWay::fft ? s.o * s.c * s.kh * s.kw : 0) {
  std::fill(bias.get(), bias.get() + padded, T(0));
  if (from_bias) std::copy(from_bias, from_bias + s.o, bias.get());
  if constexpr (std::is_same_v<T, float>) {
    if (way == ConvWay::winograd) conv_winograd_filters(from, s, *this, threads);
    if (way == ConvWay::fft) {
      conv_fft_filters(from, s, *this, threads);
      std::copy(from, from + s.o * s.c * s.kh * s.kw, plain.get());
    }
  }
  if (way == ConvWay::depthwise) conv_depthwise_filters(from, s, *this);
  if (way == ConvWay::direct) HW4FAST_VARIANT(isa, conv_pack_weight<T>)(from, s, weight.get());
}

template <class T> static void conv_direct(const Strided<const T> &x, const ConvFilters<T> &filters, const ConvShape &s,
                                           T *out, std::uint8_t *code, Threads threads) {
  const auto rows_of = HW4FAST_VARIANT(filters.isa, conv_rows<T>);
  const std::int64_t flops = 2 * s.side * s.side * s.cols * s.o * s.c * s.kh * s.kw;  // per row
  parallel_for(s.n * s.rows, 1 + 200000 / std::max<std::int64_t>(flops, 1), threads,
               [&](std::int64_t begin, std::int64_t end) {
                 rows_of(x, filters.weight.get(), filters.bias.get(), s, out, code, begin, end);
               });
}

// A tile's spectrum spreads what isn't finite over all of it: such images are done again.
static void conv_fft_or_direct(const Strided<const float> &x, const ConvFilters<float> &filters, const ConvShape &s,
                               float *out, std::uint8_t *code, Threads threads) {
  std::vector<std::uint8_t> odd(static_cast<std::size_t>(s.n));
  conv_fft(x, filters, s, out, code, odd.data(), threads);
  std::unique_ptr<ConvFilters<float>> direct;
  ConvShape one = s;
  one.n = 1;
  for (std::int64_t i = 0; i < s.n; ++i) {
    if (!odd[static_cast<std::size_t>(i)]) continue;
    if (!direct)
      direct = std::make_unique<ConvFilters<float>>(filters.plain.get(), filters.bias.get(), s, ConvWay::direct,
                                                    filters.isa, threads);
    const Strided<const float> from{x.at(i, 0, 0), x.n, x.c, x.h, x.w};
    const std::int64_t at = i * s.rows * s.cols * s.o;
    conv_direct(from, *direct, one, out + at, code ? code + at : nullptr, threads);
  }
}

template <class T> void conv_forward(const Strided<const T> &x, const ConvFilters<T> &filters, const ConvShape &s,
                                     T *out, std::uint8_t *code, Threads threads) {
  if (filters.way == ConvWay::depthwise) return conv_depthwise(x, filters, s, out, code, threads);
  if constexpr (std::is_same_v<T, float>) {
    if (filters.way == ConvWay::winograd) return conv_winograd(x, filters, s, out, code, threads);
    if (filters.way == ConvWay::fft) return conv_fft_or_direct(x, filters, s, out, code, threads);
  }
  conv_direct(x, filters, s, out, code, threads);
}

// Of many images each thread takes some, one by one, and turns each while it is in the cache; few ones are shared out
// row by row.
template <class T>
void conv_planes(const T *x, const ConvFilters<T> &filters, const ConvShape &s, T *out, Threads threads) {
  const auto turn = HW4FAST_VARIANT(filters.isa, conv_turn<T>);
  const std::int64_t places = s.rows * s.cols, size = places * s.o, image = s.c * s.h * s.w;
  const Strided<const T> all{x, image, s.h * s.w, s.w, 1};
  if (s.n < 4 * threads.count) {
    const Scratch<T> pixels(s.n * size);
    conv_forward(all, filters, s, pixels.get(), nullptr, threads);
    const std::int64_t lines = s.n * s.o;
    return parallel_for(lines, 1 + 100000 / places, threads, [&](std::int64_t begin, std::int64_t end) {
      while (begin < end) {
        const std::int64_t i = begin / s.o, first = begin % s.o, count = std::min(end - begin, s.o - first);
        turn(pixels.get() + i * size + first, s.o, places, count, places, out + begin * places);
        begin += count;
      }
    });
  }
  const std::int64_t together = filters.way == ConvWay::fft ? 1 + 23 / conv_fft_tiles(s) : 1;
  parallel_for(s.n, together, threads, [&](std::int64_t begin, std::int64_t end) {
    const Scratch<T> pixels(std::min(together, end - begin) * size);
    ConvShape some = s;
    for (std::int64_t i = begin; i < end; i += some.n) {
      some.n = std::min(together, end - i);
      Strided<const T> from = all;
      from.data += i * image;
      conv_forward(from, filters, some, pixels.get(), nullptr, 1);
      for (std::int64_t k = 0; k < some.n; ++k)
        turn(pixels.get() + k * size, s.o, places, s.o, places, out + (i + k) * size);
    }
  });
}

#define HW4FAST_CONV(T)                                                                                                \
  template struct ConvFilters<T>;                                                                                      \
  template void conv_forward(const Strided<const T> &, const ConvFilters<T> &, const ConvShape &, T *, std::uint8_t *, \
                             Threads);                                                                                 \
  template void conv_planes(const T *, const ConvFilters<T> &, const ConvShape &, T *, Threads);
HW4FAST_CONV(float)
HW4FAST_CONV(double)
#undef HW4FAST_CONV

}  // namespace hw4fast
