// The ways to do a conv_block: direct sums, Winograd's algorithm, Fourier transforms (forward only), and one filter per
// channel. x is
// [n, c, h, w] of any strides, weight [o][c or 1][kh][kw], bias [o] or null; out and code [n, rows, cols, o], code may
// be null. Backward: g [n, o, rows, cols] of any strides, code null: all 0; dx [n, h, w, c], dw and db [o] may be null.
#pragma once

#include "conv_block.h"
#include "isa.h"
#include "parallel.h"

#include <type_traits>

namespace hw4fast {

enum class ConvWay { direct, winograd, fft, depthwise };
constexpr std::size_t conv_ways = 4;

constexpr std::int64_t conv_fft_places = 130;     // complex numbers of a tile's spectrum
std::int64_t conv_fft_tiles(const ConvShape &s);  // of an image

// Winograd's way is float32, stride 1, square filters of 3 or 5, and enough channels to be worth its transforms.
template <class T> bool conv_by_winograd(const ConvShape &s) {
  const bool can = std::is_same_v<T, float> && s.sh == 1 && s.sw == 1 && s.kh == s.kw && (s.kh == 3 || s.kh == 5);
  return can && s.groups == 1 && s.c >= 8 && s.o >= 8;
}

// Forward. kept: whether the filters are packed once for many calls.
template <class T> ConvWay conv_way(const ConvShape &s, bool kept) {
  if (s.groups > 1) return ConvWay::depthwise;
  if (!conv_by_winograd<T>(s)) return ConvWay::direct;
  // products per pair of channels: by Fourier transforms of 16 × 16 pixels, and by Winograd's algorithm
  const std::int64_t tiles = conv_fft_tiles(s), fft = 4 * conv_fft_places * tiles;
  const std::int64_t points = s.kh == 3 ? 16 : 49;
  const std::int64_t winograd = points * ((s.rows * s.side + 1) / 2) * ((s.cols * s.side + 1) / 2);
  // A filter's transform is as long as some ten tiles' products. Spectra have 260 numbers a filter: of many 3 × 3 ones
  // they come from memory too slowly, and 70 MB of them are enough.
  const std::int64_t pairs = s.c * s.o;
  const bool fewer = s.kh == 5 ? pairs <= 256 * 256 && fft < winograd : pairs <= 64 * 64 && 5 * fft < 4 * winograd;
  return fewer && (kept || s.n * tiles >= 16) ? ConvWay::fft : ConvWay::winograd;
}

// Filters and bias as their way wants them, with zeros up to whole vectors. Made once where they don't change: they
// depend on the way and on the shape's c, o, kernel and stride only.
template <class T> struct ConvFilters {
  ConvFilters(const T *weight, const T *bias, const ConvShape &s, ConvWay way, Isa isa, Threads threads);
  Isa isa;
  ConvWay way;
  std::int64_t padded;  // channels
  Scratch<T> weight, bias;
  Scratch<T> plain;  // by Fourier transforms, the weight as it came, for images that they can't do
};

// The forward pass. T is float or double.
template <class T> void conv_forward(const Strided<const T> &x, const ConvFilters<T> &filters, const ConvShape &s,
                                     T *out, std::uint8_t *code, Threads threads);

// As conv_forward, but x is [n, c, h, w] in order, and so is out [n, o, rows, cols].
template <class T>
void conv_planes(const T *x, const ConvFilters<T> &filters, const ConvShape &s, T *out, Threads threads);

// Products per tile and side, as conv.inl says.
inline std::int64_t conv_winograd_points(const ConvShape &s) { return s.kh == 3 ? 4 : 7; }

inline std::int64_t conv_winograd_places(const ConvShape &s) {
  return conv_winograd_points(s) * conv_winograd_points(s);
}

void conv_fft_filters(const float *weight, const ConvShape &s, ConvFilters<float> &to, Threads threads);
// Marks each image in `odd`, zeros before, that holds or becomes what isn't finite: it is wrong in other places, too.
void conv_fft(const Strided<const float> &x, const ConvFilters<float> &filters, const ConvShape &s, float *out,
              std::uint8_t *code, std::uint8_t *odd, Threads threads);

void conv_winograd_filters(const float *weight, const ConvShape &s, ConvFilters<float> &to, Threads threads);
void conv_winograd(const Strided<const float> &x, const ConvFilters<float> &filters, const ConvShape &s, float *out,
                   std::uint8_t *code, Threads threads);
void conv_winograd_backward(const Strided<const float> &x, const Strided<const float> &g, const std::uint8_t *code,
                            const float *weight, const ConvShape &s, float *dx, float *dw, float *db, Isa isa,
                            Threads threads);

// groups = c = o; T is float or double.
template <class T> void conv_depthwise_filters(const T *weight, const ConvShape &s, ConvFilters<T> &to);
template <class T> void conv_depthwise(const Strided<const T> &x, const ConvFilters<T> &filters, const ConvShape &s,
                                       T *out, std::uint8_t *code, Threads threads);
template <class T> void conv_depthwise_backward(const Strided<const T> &x, const Strided<const T> &g,
                                                const std::uint8_t *code, const T *weight, const ConvShape &s, T *dx,
                                                T *dw, T *db, Isa isa, Threads threads);

}  // namespace hw4fast
