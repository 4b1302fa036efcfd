// A picture between its pixels: places first, a run of pixels at a time, then the four neighbours of each, weighed in
// fixed point. Sums of integers have no order, so every way to add them gives the same bytes.
//
//   places   along each axis: which pixel of the framed picture lies before, and the two weights, as two int16
//   pixels   across: the pixel and the one beside it, [left, right] of each channel as words, times their weights;
//            rounded to 15 bits; down: the same of the rows' two results

struct SamplePlaces {
  std::int32_t offset[sample_run];  // into the frame: where the upper left pixel begins
  std::int32_t across[sample_run], down[sample_run];
};

// Mirrored at both ends of an axis of n pixels (d c b a | a b c d | d c b a). What isn't within 2^24 becomes NaN.
HW4FAST_INLINE Float<float> sample_mirrored(Float<float> place, float n) {
  const float period = 2 * n, inverse = 1 / period;
  const Float<float> zero{}, far = zero + 16777216.0f, doubtful = place + 0.5f;
  Float<float> t = larger(doubtful, -doubtful);  // at 0
  t = t < far ? t : far;
  t -= __builtin_convertvector(__builtin_convertvector(t * inverse, Int<float>), Float<float>) * period;
  const Float<float> back = period - t, there = (t < back ? t : back) - 0.5f;  // at n
  return larger(place, -place) < far ? there : zero / zero;
}

// Places along an axis of `n` pixels → index 0 … n into the frame, and the weights of that pixel and the next one:
// int16, the first in the lower half. NaN is as far away as −∞.
HW4FAST_INLINE Int<float> sample_axis(Float<float> place, std::int32_t n, Int<float> &weights) {
  const Float<float> zero{}, last = zero + static_cast<float>(n + 1);
  Float<float> t = larger(place + 1.0f, zero);
  t = t < last ? t : last;
  Int<float> index = __builtin_convertvector(t, Int<float>);
  index = index < n ? index : Int<float>{} + n;
  const Float<float> rest = t - __builtin_convertvector(index, Float<float>);
  const Int<float> next = __builtin_convertvector(rest * static_cast<float>(sample_one) + 0.5f, Int<float>);
  weights = (sample_one - next) | next << 16;
  return index;
}

template <int C> static void sample_places(const Sample &s, const float *rows, const float *columns, std::int64_t size,
                                           SamplePlaces &to) {
  constexpr std::int64_t W = lanes<float>;
  for (std::int64_t i = 0; i < size; i += W) {
    Int<float> down, across;
    Float<float> y = load(rows + i), x = load(columns + i);
    if (s.border == SampleBorder::reflect) {
      y = sample_mirrored(y, static_cast<float>(s.h));
      x = sample_mirrored(x, static_cast<float>(s.w));
    }
    const Int<float> row = sample_axis(y, static_cast<std::int32_t>(s.h), down);
    const Int<float> column = sample_axis(x, static_cast<std::int32_t>(s.w), across);
    const Int<float> offset = row * static_cast<std::int32_t>(s.pitch) + column * C;
    std::memcpy(to.offset + i, &offset, sizeof offset);
    std::memcpy(to.across + i, &across, sizeof across);
    std::memcpy(to.down + i, &down, sizeof down);
  }
}

// One pixel by itself.
template <int C>
HW4FAST_INLINE void sample_pixel(const Sample &s, const SamplePlaces &places, std::int64_t i, std::uint8_t *to) {
  const std::int32_t left = places.across[i] & 0xffff, right = places.across[i] >> 16;
  const std::int32_t upper = places.down[i] & 0xffff, lower = places.down[i] >> 16;
  const std::uint8_t *from = s.frame + places.offset[i];
  for (std::int64_t c = 0; c < C; ++c) {
    const auto beside = [&](const std::uint8_t *at) {
      return (at[c] * left + at[c + C] * right + sample_middle_half) >> sample_dropped;
    };
    const std::int32_t sum = beside(from) * upper + beside(from + s.pitch) * lower;
    to[c] = static_cast<std::uint8_t>((sum + s.half + ((sum >> sample_end) & s.even)) >> sample_end);
  }
}

// As many pixels as a vector holds, [left, right] of each channel as words in a lane: of three channels a pixel is
// 16 bytes, of one channel 4.
#if defined(__x86_64__)
template <int C> constexpr std::int64_t sample_at_once = C == 1 ? lanes<float> : lanes<float> / 4;
#if HW4FAST_VECTOR_BYTES == 64
HW4FAST_INLINE Int<float> sample_pairs3(const std::uint8_t *from, const std::int32_t *offset) {
  const auto at = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + offset[i])); };
  __m512i v = _mm512_zextsi128_si512(at(0));
  v = _mm512_inserti32x4(v, at(1), 1);
  v = _mm512_inserti32x4(v, at(2), 2);
  v = _mm512_inserti32x4(v, at(3), 3);
  const __m128i order = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
  return (Int<float>)_mm512_shuffle_epi8(v, _mm512_maskz_broadcast_i32x4(0xffff, order));
}
HW4FAST_INLINE Int<float> sample_spread3(const std::int32_t *weights) {
  const Int<float> lane = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i *>(weights));
  return (Int<float>)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)lane, _mm512_zextsi128_si512(four));
}
HW4FAST_INLINE Int<float> sample_weigh(Int<float> pairs, Int<float> weights) {
  return (Int<float>)_mm512_madd_epi16((__m512i)pairs, (__m512i)weights);
}
HW4FAST_INLINE void sample_store3(Int<float> v, std::uint8_t *to) {
  const __m128i order = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  const __m128i bytes = _mm_shuffle_epi8(_mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v), order);
  _mm_storel_epi64(reinterpret_cast<__m128i *>(to), bytes);
  const std::int32_t rest = _mm_extract_epi32(bytes, 2);
  std::memcpy(to + 8, &rest, sizeof rest);
}
#elif HW4FAST_VECTOR_BYTES == 32
HW4FAST_INLINE Int<float> sample_pairs3(const std::uint8_t *from, const std::int32_t *offset) {
  const auto at = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + offset[i])); };
  const __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(at(0)), at(1), 1);
  const __m128i order = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
  return (Int<float>)_mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(order));
}
HW4FAST_INLINE Int<float> sample_spread3(const std::int32_t *weights) {
  const Int<float> lane = {0, 0, 0, 0, 1, 1, 1, 1};
  const __m128i two = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(weights));
  return (Int<float>)_mm256_permutevar8x32_epi32(_mm256_castsi128_si256(two), (__m256i)lane);
}
HW4FAST_INLINE Int<float> sample_weigh(Int<float> pairs, Int<float> weights) {
  return (Int<float>)_mm256_madd_epi16((__m256i)pairs, (__m256i)weights);
}
HW4FAST_INLINE void sample_store3(Int<float> v, std::uint8_t *to) {  // 8 bytes, two too many
  const __m256i order = _mm256_setr_epi8(0, 4, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                         -1, -1, -1, 0, 4, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i bytes = _mm256_shuffle_epi8((__m256i)v, order);
  const __m128i both = _mm_or_si128(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i *>(to), both);
}
#else
HW4FAST_INLINE Int<float> sample_pairs3(const std::uint8_t *from, const std::int32_t *offset) {
  const __m128i v = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(from + offset[0]));
  return (Int<float>)_mm_unpacklo_epi8(_mm_unpacklo_epi8(v, _mm_srli_si128(v, 3)), _mm_setzero_si128());
}
HW4FAST_INLINE Int<float> sample_spread3(const std::int32_t *weights) { return Int<float>{} + weights[0]; }
HW4FAST_INLINE Int<float> sample_weigh(Int<float> pairs, Int<float> weights) {
  return (Int<float>)_mm_madd_epi16((__m128i)pairs, (__m128i)weights);
}
HW4FAST_INLINE void sample_store3(Int<float> v, std::uint8_t *to) { narrow(v, to); }  // 4 bytes, one too many
#endif

template <int C> HW4FAST_INLINE Int<float> sample_pairs(const std::uint8_t *from, const std::int32_t *offset) {
  if constexpr (C == 3) return sample_pairs3(from, offset);
  std::int32_t at[lanes<float>];
  for (std::int64_t lane = 0; lane < lanes<float>; ++lane) std::memcpy(at + lane, from + offset[lane], sizeof *at);
  Int<float> v;
  std::memcpy(&v, at, sizeof v);
  return (v & 0xff) | (v & 0xff00) << 8;
}
template <int C> HW4FAST_INLINE Int<float> sample_spread(const std::int32_t *weights) {
  if constexpr (C == 3) return sample_spread3(weights);
  Int<float> v;
  std::memcpy(&v, weights, sizeof v);
  return v;
}

template <int C>
HW4FAST_INLINE void sample_pixels(const Sample &s, const SamplePlaces &places, std::int64_t i, std::uint8_t *to) {
  const Int<float> across = sample_spread<C>(places.across + i), down = sample_spread<C>(places.down + i);
  const Int<float> upper = sample_weigh(sample_pairs<C>(s.frame, places.offset + i), across);
  const Int<float> lower = sample_weigh(sample_pairs<C>(s.frame + s.pitch, places.offset + i), across);
  const Int<float> rows =
      ((upper + sample_middle_half) >> sample_dropped) | ((lower + sample_middle_half) >> sample_dropped) << 16;
  const Int<float> sum = sample_weigh(rows, down);
  const Int<float> value = (sum + s.half + ((sum >> sample_end) & s.even)) >> sample_end;
  C == 3 ? sample_store3(value, to) : narrow(value, to);
}
#endif

// Where pixels x … x + size − 1 of row y come from.
static void sample_through(const double *m, std::int64_t x, std::int64_t y, std::int64_t size, float *rows,
                           float *columns) {
  const double down = static_cast<double>(y);
  const double first = m[1] * down + m[2], second = m[4] * down + m[5], third = m[7] * down + m[8];
  if (m[6] == 0.0 && third == 1.0) {
#pragma omp simd
    for (std::int64_t i = 0; i < size; ++i) {
      const double right = static_cast<double>(static_cast<std::int32_t>(x + i));
      columns[i] = static_cast<float>(m[0] * right + first);
      rows[i] = static_cast<float>(m[3] * right + second);
    }
    return;
  }
#pragma omp simd
  for (std::int64_t i = 0; i < size; ++i) {
    const double right = static_cast<double>(static_cast<std::int32_t>(x + i)), depth = m[6] * right + third;
    columns[i] = static_cast<float>((m[0] * right + first) / depth);
    rows[i] = static_cast<float>((m[3] * right + second) / depth);
  }
}

// Output rows begin … end − 1.
template <int C> static void sample_rows(const Sample &s, std::int64_t begin, std::int64_t end) {
  alignas(64) float rows[sample_run] = {}, columns[sample_run] = {};
  alignas(64) SamplePlaces places;
  for (std::int64_t y = begin; y < end; ++y)
    for (std::int64_t x = 0; x < s.width; x += sample_run) {
      const std::int64_t size = std::min(sample_run, s.width - x), at = y * s.width + x;
      if (s.matrix) {
        sample_through(s.matrix, x, y, size, rows, columns);
      } else {
        std::memcpy(rows, s.rows + at, static_cast<std::size_t>(size) * sizeof(float));
        std::memcpy(columns, s.columns + at, static_cast<std::size_t>(size) * sizeof(float));
      }
      sample_places<C>(s, rows, columns, size, places);
      std::uint8_t *to = s.output + at * C;
      std::int64_t i = 0;
#if defined(__x86_64__)
      for (; i + sample_at_once<C> < size; i += sample_at_once<C>)  // what is written too much is the next one's
        sample_pixels<C>(s, places, i, to + i * C);
#endif
      for (; i < size; ++i) sample_pixel<C>(s, places, i, to + i * C);
    }
}
