// conv_block's forward pass by Fourier transforms, chosen by conv_forward.cpp.
#include "conv_ways.h"
#include "parallel.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

// Tiles of an image, down and across, and the outputs of the convolution that each of them gives.
struct FftTiling {
  std::int64_t down, across, rows, cols;

  explicit FftTiling(const ConvShape &s)
      : rows(step(s.h, s.ph, s.kh, s.rows * s.side)), cols(step(s.w, s.pw, s.kw, s.cols * s.side)) {
    down = (s.rows * s.side + rows - 1) / rows;
    across = (s.cols * s.side + cols - 1) / cols;
  }

 private:
  // A tile goes round: a picture fits whole if its own zero border is what comes round. Even, for the pool.
  static std::int64_t step(std::int64_t size, std::int64_t padding, std::int64_t taps, std::int64_t outputs) {
    constexpr std::int64_t side = 16;
    return size + padding <= side && outputs <= side ? outputs : (side - taps + 1) / 2 * 2;
  }
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "conv.inl"
#define HW4FAST_INL "conv_fft.inl"
#include "each_isa.h"

namespace hw4fast {

static_assert(baseline::fft_places == conv_fft_places);

std::int64_t conv_fft_tiles(const ConvShape &s) {
  const FftTiling tiling(s);
  return tiling.down * tiling.across;
}

void conv_fft_filters(const float *weight, const ConvShape &s, ConvFilters<float> &to, Threads threads) {
  const auto filters_of = HW4FAST_VARIANT(to.isa, fft_filters);
  parallel_for(s.c, 1 + 64 / to.padded, threads,
               [&](std::int64_t begin, std::int64_t end) { filters_of(weight, s, begin, end, to.weight.get()); });
}

void conv_fft(const Strided<const float> &x, const ConvFilters<float> &filters, const ConvShape &s, float *out,
              std::uint8_t *code, std::uint8_t *odd, Threads threads) {
  const auto tiles_of = HW4FAST_VARIANT(filters.isa, fft_tiles);
  const FftTiling tiling(s);
  const std::int64_t flops = 4 * conv_fft_places * s.c * s.o;
  parallel_for(s.n * tiling.down * tiling.across, 1 + 200000 / flops, threads,
               [&](std::int64_t begin, std::int64_t end) {
                 tiles_of(x, filters.weight.get(), filters.bias.get(), s, tiling, out, code, odd, begin, end);
               });
}

}  // namespace hw4fast
