// Forward by the discrete Fourier transform of tiles of 16 × 16 inputs: a convolution is a product of spectra.
//
//   pack       a tile's inputs: channels-last, borders and all
//   transform  V = DFT of each channel                                      [place][tile][re, im][channel]
//   multiply   for W output channels and each place: M = Σ_c V · U          [place][tile][re, im][W], in registers
//   finish     y = inverse DFT of M, of which a tile of a k × k filter has 17 − k rows and columns right (all 16 where
//              what would come round the corner is the picture's own zero border), bias, ReLU, maximum, code
//
// The spectrum of real numbers is half redundant. What is kept, fft_places complex numbers: rows 0 to 8 of column 0,
// rows 0 to 8 of column 8, and the 16 rows of each of the columns 1 to 7.
//
// Per output, of 5 × 5 filters on 14 × 14 pictures, 2.7 multiply-adds for each pair of channels, where Winograd's way
// takes 12.3 and direct sums 25. Rounding errors are relative to the largest number of a tile, where those of direct
// sums are smaller next to small numbers; in the whole of a tile they are smaller than those.
//
// Source: Mathieu, Henaff, LeCun, "Fast Training of Convolutional Networks through FFTs" (2014); the transforms are
// Cooley and Tukey's, 16 = 4 · 4.

using Lane = Float<float>;
struct Complex {
  Lane re, im;
};
constexpr std::int64_t fft_side = 16, fft_half = 9, fft_row = 18;  // fft_row: numbers of a transformed row
constexpr std::int64_t fft_places = 2 * fft_half + 7 * fft_side;
constexpr float fft_root = 0.70710678118654752440f;  // √½

// cos and sin of 2π·m/16
constexpr float fft_cos(int m) {
  constexpr float c = 0.92387953251128675613f, s = 0.38268343236508977173f, r = fft_root;
  constexpr float all[16] = {1, c, r, s, 0, -s, -r, -c, -1, -c, -r, -s, 0, s, r, c};
  return all[m % 16];
}
constexpr float fft_sin(int m) { return fft_cos(m + 12); }

// z · e^(−2πi·m/16), or its conjugate on the way back
template <bool back> HW4FAST_INLINE Complex fft_twist(Complex z, int m) {
  if (m == 0) return z;
  const float c = fft_cos(m), s = back ? -fft_sin(m) : fft_sin(m);
  return {z.re * c + z.im * s, z.im * c - z.re * s};
}

// Four numbers in place.
template <bool back> HW4FAST_INLINE void fft_four(Complex &a, Complex &b, Complex &c, Complex &d) {
  const Complex s{a.re + c.re, a.im + c.im}, t{a.re - c.re, a.im - c.im};
  const Complex u{b.re + d.re, b.im + d.im}, v{b.re - d.re, b.im - d.im};
  const Complex minus{t.re + v.im, t.im - v.re}, plus{t.re - v.im, t.im + v.re};  // t ∓ i·v
  a = {s.re + u.re, s.im + u.im};
  b = back ? plus : minus;
  c = {s.re - u.re, s.im - u.im};
  d = back ? minus : plus;
}

// 16 complex numbers get(0 … 15) → put(0 … 15, number), not divided by 16 on the way back.
template <bool back, class Get, class Put> HW4FAST_INLINE void fft_complex(const Get &get, const Put &put) {
  Complex z[16];
#pragma GCC unroll 4
  for (int n = 0; n < 4; ++n) {
    for (int k = 0; k < 4; ++k) z[n + 4 * k] = get(n + 4 * k);
    fft_four<back>(z[n], z[n + 4], z[n + 8], z[n + 12]);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) z[n + 4 * k] = fft_twist<back>(z[n + 4 * k], n * k);
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    fft_four<back>(z[4 * k], z[4 * k + 1], z[4 * k + 2], z[4 * k + 3]);
    for (int n = 0; n < 4; ++n) put(k + 4 * n, z[4 * k + n]);
  }
}

// 16 real numbers get(0 … 15) → put(0 … 8, complex): the rest are conjugates.
template <class Get, class Put> HW4FAST_INLINE void fft_real(const Get &get, const Put &put) {
  Lane zero[4], two[4];
  Complex one[4];
#pragma GCC unroll 4
  for (int n = 0; n < 4; ++n) {
    const Lane a = get(n), b = get(n + 4), c = get(n + 8), d = get(n + 12);
    const Lane s = a + c, u = b + d;
    zero[n] = s + u;
    two[n] = s - u;
    one[n] = fft_twist<false>({a - c, d - b}, n);
  }
  const Lane s = zero[0] + zero[2], u = zero[1] + zero[3];
  put(0, Complex{s + u, Lane{}});
  put(4, Complex{zero[0] - zero[2], zero[3] - zero[1]});
  put(8, Complex{s - u, Lane{}});
  const Lane p = (two[1] - two[3]) * fft_root, q = (two[1] + two[3]) * fft_root;
  put(2, Complex{two[0] + p, -two[2] - q});
  put(6, Complex{two[0] - p, two[2] - q});
  fft_four<false>(one[0], one[1], one[2], one[3]);  // 1, 5, 9, 13
  put(1, one[0]);
  put(5, one[1]);
  put(7, Complex{one[2].re, -one[2].im});
  put(3, Complex{one[3].re, -one[3].im});
}

// The inverse, not divided by 16.
template <class Get, class Put> HW4FAST_INLINE void fft_real_back(const Get &get, const Put &put) {
  const Lane x0 = get(0).re, x8 = get(8).re;
  const Complex x2 = get(2), x4 = get(4), x6 = get(6);
  Complex one[4] = {get(1), get(5), get(7), get(3)};
  one[2].im = -one[2].im;
  one[3].im = -one[3].im;
  fft_four<true>(one[0], one[1], one[2], one[3]);
  const Lane even = x0 + x8, odd = x0 - x8;
  const Lane zero[4] = {even + 2.0f * x4.re, odd - 2.0f * x4.im, even - 2.0f * x4.re, odd + 2.0f * x4.im};
  const Lane a = x2.re - x6.re, b = x2.im + x6.im;
  const Lane two[4] = {2.0f * (x2.re + x6.re), 2.0f * fft_root * (a - b), 2.0f * (x6.im - x2.im),
                       -2.0f * fft_root * (a + b)};
#pragma GCC unroll 4
  for (int n = 0; n < 4; ++n) {
    const Complex w = fft_twist<true>(one[n], n);
    const Lane sum = zero[n] + two[n], difference = zero[n] - two[n];
    put(n, sum + 2.0f * w.re);
    put(n + 4, difference - 2.0f * w.im);
    put(n + 8, sum - 2.0f * w.re);
    put(n + 12, difference + 2.0f * w.im);
  }
}

HW4FAST_INLINE Complex fft_load(const float *from, std::int64_t imaginary) {
  return {load(from), load(from + imaginary)};
}

// One tile, W channels: pixels get(row, column), of which rows [first, last) aren't all zero → put(place, complex).
template <class Get, class Put>
HW4FAST_INLINE void fft_tile(const Get &get, std::int64_t first, std::int64_t last, const Put &put) {
  constexpr std::int64_t W = lanes<float>;
  alignas(64) float rows[fft_side][fft_row][W];
  for (std::int64_t r = 0; r < fft_side; ++r) {
    if (r < first || r >= last) {
      std::memset(rows[r], 0, sizeof rows[r]);
      continue;
    }
    fft_real([&](int j) { return get(r, j); },
             [&](int j, Complex z) {
               store(rows[r][2 * j], z.re);
               store(rows[r][2 * j + 1], z.im);
             });
  }
  for (std::int64_t side = 0; side < 2; ++side)
    fft_real([&](int r) { return load(rows[r][16 * side]); }, [&](int r, Complex z) { put(side * fft_half + r, z); });
  for (std::int64_t j = 1; j < fft_half - 1; ++j)
    fft_complex<false>([&](int r) { return fft_load(rows[r][2 * j], W); },
                       [&](int r, Complex z) { put(2 * fft_half + (j - 1) * fft_side + r, z); });
}

// The inverse, times 256: get(place) → rows [0, count) as put(row, numbers [16]).
template <class Get, class Put> HW4FAST_INLINE void fft_tile_back(const Get &get, std::int64_t count, const Put &put) {
  constexpr std::int64_t W = lanes<float>;
  alignas(64) float rows[fft_side][fft_row][W];
  for (std::int64_t side = 0; side < 2; ++side)
    fft_real_back([&](int r) { return get(side * fft_half + r); },
                  [&](int r, Lane x) { store(rows[r][16 * side], x); });
  for (std::int64_t j = 1; j < fft_half - 1; ++j)
    fft_complex<true>([&](int r) { return get(2 * fft_half + (j - 1) * fft_side + r); },
                      [&](int r, Complex z) {
                        store(rows[r][2 * j], z.re);
                        store(rows[r][2 * j + 1], z.im);
                      });
  for (std::int64_t r = 0; r < count; ++r) {
    Lane x[fft_side];
    fft_real_back([&](int j) { return fft_load(rows[r][2 * j], W); }, [&](int j, Lane value) { x[j] = value; });
    put(r, x);
  }
}

// Filters [begin, end) of the input channels: weight [o][c][kh][kw] → U [block of W output channels][place][c][re,
// im][W], zeros behind the last: the conjugate spectrum, because a convolution of nets doesn't turn its filter round.
static void fft_filters(const float *weight, const ConvShape &s, std::int64_t begin, std::int64_t end, float *to) {
  constexpr std::int64_t W = lanes<float>;
  const std::int64_t taps = s.kh * s.kw;
  for (std::int64_t first = 0; first < s.o; first += W)
    for (std::int64_t c = begin; c < end; ++c) {
      alignas(64) float turned[7 * 7 * W];
      conv_turn(weight + (first * s.c + c) * taps, s.c * taps, s.o - first, taps, W, turned);
      float *out = to + (first * fft_places * s.c + c * W) * 2;
      fft_tile([&](std::int64_t i, std::int64_t j) { return j < s.kw ? load(turned + (i * s.kw + j) * W) : Lane{}; }, 0,
               s.kh,
               [&](std::int64_t place, Complex u) {
                 float *at = out + place * s.c * 2 * W;
                 store(at, u.re * (1.0f / 256));
                 store(at + W, u.im * (-1.0f / 256));
               });
    }
}

// out [P][re, im][W] = Σ_c v·u: v [P][re, im][pitch], u [channels][re, im][W]. Sums of over 128 products are taken in
// pieces.
template <int P>
static void fft_multiply(const float *v, std::int64_t pitch, const float *u, std::int64_t channels, float *out) {
  constexpr std::int64_t W = lanes<float>, piece = 128;
  for (std::int64_t begin = 0; begin < channels; begin += piece) {
    Lane re[P] = {}, im[P] = {};
    for (std::int64_t c = begin; c < std::min(begin + piece, channels); ++c, u += 2 * W) {
      const Lane real = load(u), imaginary = load(u + W);
      const float *at = v + c;
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p, at += 2 * pitch) {
        const float a = at[0], b = at[pitch];
        re[p] += real * a;
        im[p] += imaginary * a;
        re[p] -= imaginary * b;
        im[p] += real * b;
      }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      float *to = out + p * 2 * W;
      store(to, begin ? load(to) + re[p] : re[p]);
      store(to + W, begin ? load(to + W) + im[p] : im[p]);
    }
  }
}

using FftMultiply = void (*)(const float *, std::int64_t, const float *, std::int64_t, float *);
constexpr std::int64_t fft_at_once = HW4FAST_VECTOR_BYTES == 64 ? 12 : 6;  // tiles in 32 or 16 registers
static FftMultiply fft_choose(std::int64_t tiles) {
  static constexpr FftMultiply all[] = {
      fft_multiply<1>, fft_multiply<2>, fft_multiply<3>, fft_multiply<4>,  fft_multiply<5>,  fft_multiply<6>,
#if HW4FAST_VECTOR_BYTES == 64
      fft_multiply<7>, fft_multiply<8>, fft_multiply<9>, fft_multiply<10>, fft_multiply<11>, fft_multiply<12>,
#endif
  };
  return all[tiles - 1];
}

// The outputs of one tile for up to W channels. most, wide: outputs of the convolution that the tile has. Returns
// numbers that are 0 where all of them are finite.
template <bool pool> static Lane fft_finish(const float *products, std::int64_t step, const float *bias,
                                            const ConvShape &s, std::int64_t most, std::int64_t wide,
                                            std::int64_t channels, float *out, std::uint8_t *code) {
  constexpr std::int64_t W = lanes<float>, side = pool ? 2 : 1;
  const Lane shift = load(bias);
  Lane odd{};
  alignas(64) float above[fft_side][W];
  fft_tile_back([&](std::int64_t place) { return fft_load(products + place * step, W); }, most,
                [&](std::int64_t r, const Lane *x) {
                  if (pool && r % 2 == 0) {
                    for (std::int64_t j = 0; j < wide; ++j) store(above[j], x[j]);
                    return;
                  }
                  for (std::int64_t j = 0; j + side <= wide; j += side) {
                    Lane values[4], best;
                    Int<float> which;
                    if (pool) {
                      values[0] = load(above[j]) + shift;
                      values[1] = load(above[j + 1]) + shift;
                      values[2] = x[j] + shift;
                      values[3] = x[j + 1] + shift;
                      odd += ((values[0] - values[0]) + (values[1] - values[1])) +
                             ((values[2] - values[2]) + (values[3] - values[3]));
                    } else {
                      values[0] = x[j] + shift;
                      odd += values[0] - values[0];
                    }
                    conv_strongest<float>(values, pool ? 4 : 1, s.relu, best, which);
                    const std::int64_t place = (r / side * s.cols + j / side) * s.o;
                    conv_keep<float>(best, which, channels, out + place, code ? code + place : nullptr);
                  }
                });
  return odd;
}

// Where a tile's outputs begin in the convolution of its image.
struct FftPlace {
  std::int64_t image, row, column;
  FftPlace(const FftTiling &tiling, std::int64_t tile)
      : image(tile / (tiling.down * tiling.across)),
        row(tile / tiling.across % tiling.down * tiling.rows),
        column(tile % tiling.across * tiling.cols) {}
};

// Asks for a tile's inputs while another one is at work: rows of many channels lie too far apart for the processor to
// guess (a tenth of the time).
static void fft_fetch(const Strided<const float> &x, const ConvShape &s, const FftPlace &place) {
  if (x.w != 1) return;
  const std::int64_t row = std::max<std::int64_t>(0, place.row - s.ph);
  const std::int64_t column = std::clamp<std::int64_t>(place.column - s.pw, 0, s.w - 1);
  for (std::int64_t c = 0; c < s.c; ++c)
    for (std::int64_t r = row; r < std::min(s.h, row + fft_side); ++r)
      __builtin_prefetch(x.at(place.image, c, r) + column);
}

static bool fft_any(Lane v) {
  for (std::int64_t lane = 0; lane < lanes<float>; ++lane)
    if (v[lane] != 0) return true;
  return false;
}

// Tiles [begin, end) of the whole batch. filters as packed above, bias padded by zeros. `odd`: a mark for each image
// in which numbers were that aren't finite, or became so: they are everywhere in the tile then.
static void fft_tiles(const Strided<const float> &x, const float *filters, const float *bias, const ConvShape &s,
                      const FftTiling &tiling, float *out, std::uint8_t *code, std::uint8_t *odd, std::int64_t begin,
                      std::int64_t end) {
  constexpr std::int64_t W = lanes<float>, most = 2 * fft_at_once;
  const std::int64_t pitch = (s.c + W - 1) / W * W;
  const std::int64_t several = std::min(most, end - begin);
  const Scratch<float> packed(fft_side * fft_side * pitch), inputs(fft_places * several * 2 * pitch);
  const Scratch<float> products(fft_places * several * 2 * W);
  const auto finish = s.pool ? fft_finish<true> : fft_finish<false>;
  const std::int64_t groups = (end - begin + most - 1) / most, all = end - begin;
  for (std::int64_t group = 0; group < groups; ++group) {
    const std::int64_t first = begin + all * group / groups, tiles = begin + all * (group + 1) / groups - first;
    const std::int64_t step = tiles * 2 * pitch;
    for (std::int64_t t = 0; t < tiles; ++t) {
      const FftPlace place(tiling, first + t);
      if (first + t + 1 < end) fft_fetch(x, s, FftPlace(tiling, first + t + 1));
      const std::int64_t row = place.row - s.ph, left = std::max<std::int64_t>(0, place.column - s.pw);
      ConvShape part = s;  // from the tile's left side on
      part.pw = std::max<std::int64_t>(0, s.pw - place.column);
      part.w = std::max<std::int64_t>(0, s.w - left);
      Strided<const float> from = x;
      from.data += left * x.w;
      conv_pack_pixels(from, part, place.image, row, fft_side, fft_side, pitch, packed.get());
      const std::int64_t top = std::clamp<std::int64_t>(-row, 0, fft_side);
      const std::int64_t bottom = std::clamp<std::int64_t>(s.h - row, 0, fft_side);
      Lane check{};
      for (std::int64_t c = 0; c < pitch; c += W) {
        float *to = inputs.get() + t * 2 * pitch + c;
        fft_tile([&](std::int64_t i, std::int64_t j) { return load(packed.get() + (i * fft_side + j) * pitch + c); },
                 top, bottom,
                 [&](std::int64_t at, Complex z) {
                   store(to + at * step, z.re);
                   store(to + at * step + pitch, z.im);
                 });
        const Lane sum = load(to);
        check += sum - sum;
      }
      if (fft_any(check)) __atomic_store_n(odd + place.image, std::uint8_t{1}, __ATOMIC_RELAXED);
    }
    for (std::int64_t o = 0; o < s.o; o += W) {
      const float *u = filters + o * fft_places * s.c * 2;
      const std::int64_t parts = (tiles + fft_at_once - 1) / fft_at_once;
      for (std::int64_t place = 0; place < fft_places; ++place, u += s.c * 2 * W)
        for (std::int64_t part = 0; part < parts; ++part) {
          const std::int64_t t = tiles * part / parts, some = tiles * (part + 1) / parts - t;
          fft_choose(some)(inputs.get() + place * step + t * 2 * pitch, pitch, u, s.c,
                           products.get() + (place * tiles + t) * 2 * W);
        }
      for (std::int64_t t = 0; t < tiles; ++t) {
        const FftPlace place(tiling, first + t);
        const std::int64_t row = place.row / s.side, column = place.column / s.side;
        const std::int64_t at = ((place.image * s.rows + row) * s.cols + column) * s.o + o;
        const Lane check = finish(products.get() + t * 2 * W, tiles * 2 * W, bias + o, s,
                                  std::min(tiling.rows, s.rows * s.side - place.row),
                                  std::min(tiling.cols, s.cols * s.side - place.column), std::min(W, s.o - o), out + at,
                                  code ? code + at : nullptr);
        if (fft_any(check)) __atomic_store_n(odd + place.image, std::uint8_t{1}, __ATOMIC_RELAXED);
      }
    }
  }
}
