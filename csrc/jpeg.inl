// What JPEG leaves of a picture, in the very integers of libjpeg-turbo: colour, half the resolution of it, the cosine
// transform (C. Loeffler, A. Ligtenberg and G. Moschytz, ICASSP 1989), quantised, and all the way back. Huffman's code
// in between loses nothing, and is left out.
//
// Eight vectors are the eight rows of a few blocks beside each other, eight int16 of each block. pmaddwd multiplies by
// two cosines and adds.

typedef std::int16_t JpegRow __attribute__((vector_size(HW4FAST_VECTOR_BYTES)));
typedef std::uint16_t JpegWord __attribute__((vector_size(HW4FAST_VECTOR_BYTES)));
constexpr std::int64_t jpeg_wide = HW4FAST_VECTOR_BYTES / 2;  // columns at once

// low, high: the first four numbers of each block's row in a and in b, in turn; the others. add: a[0] b[0] + a[1] b[1],
// … as int32. pack: such sums of `low` and `high` as int16, in order again. upper: the products' upper halves.
#if defined(__x86_64__)
#if HW4FAST_VECTOR_BYTES == 64
#define JPEG_OF(name) _mm512_##name((__m512i)a, (__m512i)b)
HW4FAST_INLINE JpegRow jpeg_load(const std::uint8_t *from) {
  return (JpegRow)_mm512_maskz_cvtepu8_epi16(~0u, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
}
HW4FAST_INLINE void jpeg_store(std::uint8_t *to, JpegRow v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), _mm512_maskz_cvtepi16_epi8(~0u, (__m512i)v));
}
#elif HW4FAST_VECTOR_BYTES == 32
#define JPEG_OF(name) _mm256_##name((__m256i)a, (__m256i)b)
HW4FAST_INLINE JpegRow jpeg_load(const std::uint8_t *from) {
  return (JpegRow)_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
}
HW4FAST_INLINE void jpeg_store(std::uint8_t *to, JpegRow v) {
  const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16((__m256i)v, (__m256i)v), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm256_castsi256_si128(bytes));
}
#else
#define JPEG_OF(name) _mm_##name((__m128i)a, (__m128i)b)
HW4FAST_INLINE JpegRow jpeg_load(const std::uint8_t *from) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(from));
  return (JpegRow)_mm_unpacklo_epi8(bytes, _mm_setzero_si128());
}
HW4FAST_INLINE void jpeg_store(std::uint8_t *to, JpegRow v) {
  _mm_storel_epi64(reinterpret_cast<__m128i *>(to), _mm_packus_epi16((__m128i)v, (__m128i)v));
}
#endif
HW4FAST_INLINE JpegRow jpeg_low(JpegRow a, JpegRow b) { return (JpegRow)JPEG_OF(unpacklo_epi16); }
HW4FAST_INLINE JpegRow jpeg_high(JpegRow a, JpegRow b) { return (JpegRow)JPEG_OF(unpackhi_epi16); }
HW4FAST_INLINE Int<float> jpeg_add(JpegRow a, JpegRow b) { return (Int<float>)JPEG_OF(madd_epi16); }
HW4FAST_INLINE JpegRow jpeg_pack(Int<float> a, Int<float> b) { return (JpegRow)JPEG_OF(packs_epi32); }
HW4FAST_INLINE JpegWord jpeg_upper(JpegWord a, JpegWord b) { return (JpegWord)JPEG_OF(mulhi_epu16); }
#undef JPEG_OF
#else
HW4FAST_INLINE JpegRow jpeg_load(const std::uint8_t *from) {
  JpegRow v;
  for (std::int64_t i = 0; i < jpeg_wide; ++i) v[i] = from[i];
  return v;
}
HW4FAST_INLINE void jpeg_store(std::uint8_t *to, JpegRow v) {
  for (std::int64_t i = 0; i < jpeg_wide; ++i) to[i] = static_cast<std::uint8_t>(v[i]);
}
HW4FAST_INLINE JpegRow jpeg_zip(JpegRow a, JpegRow b, std::int64_t from) {
  JpegRow v;
  for (std::int64_t i = 0; i < jpeg_wide; ++i) v[i] = (i % 2 ? b : a)[i / 8 * 8 + from + i % 8 / 2];
  return v;
}
HW4FAST_INLINE JpegRow jpeg_low(JpegRow a, JpegRow b) { return jpeg_zip(a, b, 0); }
HW4FAST_INLINE JpegRow jpeg_high(JpegRow a, JpegRow b) { return jpeg_zip(a, b, 4); }
HW4FAST_INLINE Int<float> jpeg_add(JpegRow a, JpegRow b) {
  Int<float> v;
  for (std::int64_t i = 0; i < lanes<float>; ++i) v[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return v;
}
HW4FAST_INLINE JpegRow jpeg_pack(Int<float> a, Int<float> b) {
  JpegRow v;
  for (std::int64_t i = 0; i < jpeg_wide; ++i)
    v[i] = static_cast<std::int16_t>(std::clamp((i % 8 < 4 ? a : b)[i / 8 * 4 + i % 4], -32768, 32767));
  return v;
}
HW4FAST_INLINE JpegWord jpeg_upper(JpegWord a, JpegWord b) {
  for (std::int64_t i = 0; i < jpeg_wide; ++i) a[i] = static_cast<std::uint16_t>(std::uint32_t{a[i]} * b[i] >> 16);
  return a;
}
#endif

// int32 for a vector of int16, in two halves.
struct JpegSum {
  Int<float> low, high;
};
HW4FAST_INLINE JpegSum jpeg_plus(JpegSum a, JpegSum b) { return {a.low + b.low, a.high + b.high}; }
HW4FAST_INLINE JpegSum jpeg_minus(JpegSum a, JpegSum b) { return {a.low - b.low, a.high - b.high}; }

// Two rows that are weighed together.
struct JpegPair {
  JpegRow low, high;
};
HW4FAST_INLINE JpegPair jpeg_pair(JpegRow a, JpegRow b) { return {jpeg_low(a, b), jpeg_high(a, b)}; }
HW4FAST_INLINE JpegSum jpeg_weighed(JpegPair pair, std::int32_t a, std::int32_t b) {
  const JpegRow weights = (JpegRow)(Int<float>{} + ((a & 0xffff) | static_cast<std::int32_t>(b * 65536)));
  return {jpeg_add(pair.low, weights), jpeg_add(pair.high, weights)};
}
template <int bits> HW4FAST_INLINE JpegRow jpeg_rounded(JpegSum sum) {
  constexpr std::int32_t half = 1 << (bits - 1);
  return jpeg_pack((sum.low + half) >> bits, (sum.high + half) >> bits);
}

// v[i][k] and v[k][i] change places in every block: a zip of v[i] and v[i + 4] turns the six bits of (i, k) by one.
HW4FAST_INLINE void jpeg_turn(JpegRow (&v)[jpeg_side]) {
  for (int times = 0; times < 3; ++times) {
    JpegRow u[jpeg_side];
    for (std::int64_t i = 0; i < jpeg_side / 2; ++i) {
      u[2 * i] = jpeg_low(v[i], v[i + 4]);
      u[2 * i + 1] = jpeg_high(v[i], v[i + 4]);
    }
    for (std::int64_t i = 0; i < jpeg_side; ++i) v[i] = u[i];
  }
}

// The odd part of either direction, of four numbers that are multiplied by the four cosines `c`.
struct JpegOdd {
  JpegSum a, b, c, d;
};
HW4FAST_INLINE JpegOdd jpeg_odd(JpegRow a, JpegRow b, JpegRow c, JpegRow d) {
  const JpegPair both = jpeg_pair(a + c, b + d), outer = jpeg_pair(a, d), inner = jpeg_pair(b, c);
  const JpegSum z3 = jpeg_weighed(both, jpeg_1_175 - jpeg_1_961, jpeg_1_175);
  const JpegSum z4 = jpeg_weighed(both, jpeg_1_175, jpeg_1_175 - jpeg_0_390);
  return {jpeg_plus(z3, jpeg_weighed(outer, jpeg_0_298 - jpeg_0_899, -jpeg_0_899)),
          jpeg_plus(z4, jpeg_weighed(inner, jpeg_2_053 - jpeg_2_562, -jpeg_2_562)),
          jpeg_plus(z3, jpeg_weighed(inner, -jpeg_2_562, jpeg_3_072 - jpeg_2_562)),
          jpeg_plus(z4, jpeg_weighed(outer, -jpeg_0_899, jpeg_1_501 - jpeg_0_899))};
}

// Along the vectors, in place.
template <bool first> HW4FAST_INLINE void jpeg_forward(JpegRow (&v)[jpeg_side]) {
  constexpr int bits = first ? jpeg_bits - jpeg_pass_bits : jpeg_bits + jpeg_pass_bits;
  const JpegRow t0 = v[0] + v[7], t1 = v[1] + v[6], t2 = v[2] + v[5], t3 = v[3] + v[4];
  const JpegOdd odd = jpeg_odd(v[3] - v[4], v[2] - v[5], v[1] - v[6], v[0] - v[7]);
  const JpegRow even = t0 + t3 + t1 + t2, other = t0 + t3 - t1 - t2;
  const JpegPair rest = jpeg_pair(t0 - t3, t1 - t2);
  constexpr std::int16_t half = 1 << (jpeg_pass_bits - 1);
  v[0] = first ? even << jpeg_pass_bits : (even + half) >> jpeg_pass_bits;
  v[4] = first ? other << jpeg_pass_bits : (other + half) >> jpeg_pass_bits;
  v[2] = jpeg_rounded<bits>(jpeg_weighed(rest, jpeg_0_541 + jpeg_0_765, jpeg_0_541));
  v[6] = jpeg_rounded<bits>(jpeg_weighed(rest, jpeg_0_541, jpeg_0_541 - jpeg_1_847));
  v[7] = jpeg_rounded<bits>(odd.a);
  v[5] = jpeg_rounded<bits>(odd.b);
  v[3] = jpeg_rounded<bits>(odd.c);
  v[1] = jpeg_rounded<bits>(odd.d);
}

template <int bits> HW4FAST_INLINE void jpeg_backward(JpegRow (&v)[jpeg_side]) {
  const JpegPair middle = jpeg_pair(v[0], v[4]), sides = jpeg_pair(v[2], v[6]);
  const JpegSum t0 = jpeg_weighed(middle, 1 << jpeg_bits, 1 << jpeg_bits);
  const JpegSum t1 = jpeg_weighed(middle, 1 << jpeg_bits, -(1 << jpeg_bits));
  const JpegSum t2 = jpeg_weighed(sides, jpeg_0_541, jpeg_0_541 - jpeg_1_847);
  const JpegSum t3 = jpeg_weighed(sides, jpeg_0_541 + jpeg_0_765, jpeg_0_541);
  const JpegOdd odd = jpeg_odd(v[7], v[5], v[3], v[1]);
  const JpegSum even[4] = {jpeg_plus(t0, t3), jpeg_plus(t1, t2), jpeg_minus(t1, t2), jpeg_minus(t0, t3)};
  const JpegSum far[4] = {odd.d, odd.c, odd.b, odd.a};
  for (std::int64_t i = 0; i < 4; ++i) {
    v[i] = jpeg_rounded<bits>(jpeg_plus(even[i], far[i]));
    v[7 - i] = jpeg_rounded<bits>(jpeg_minus(even[i], far[i]));
  }
}

// Rows of a table, once per block.
struct JpegTables {
  JpegRow step[jpeg_side];
  JpegWord correction[jpeg_side], reciprocal[jpeg_side], scale[jpeg_side];
};
static JpegTables jpeg_repeated(const JpegTable &table) {
  JpegTables t;
  for (std::int64_t row = 0; row < jpeg_side; ++row)
    for (std::int64_t i = 0; i < jpeg_wide; ++i) {
      const std::int64_t at = row * jpeg_side + i % jpeg_side;
      t.step[row][i] = table.step[at];
      t.correction[row][i] = static_cast<std::uint16_t>(table.correction[at]);
      t.reciprocal[row][i] = table.reciprocal[at];
      t.scale[row][i] = table.scale[at];
    }
  return t;
}

// A coefficient to the nearest multiple of its step.
HW4FAST_INLINE JpegRow jpeg_quantised(JpegRow v, const JpegTables &t, std::int64_t row) {
  const JpegRow sign = v >> 15;
  const JpegWord amount = (JpegWord)((v ^ sign) - sign) + t.correction[row];
  const JpegRow steps = (JpegRow)jpeg_upper(jpeg_upper(amount, t.reciprocal[row]), t.scale[row]);
  return ((steps ^ sign) - sign) * t.step[row];
}

// A component's blocks, in place.
static void jpeg_blocks(const JpegPlane &plane, const JpegTable &table) {
  const JpegTables t = jpeg_repeated(table);
  const JpegRow zero{}, grey = zero + 128, white = zero + 255;
  for (std::int64_t y = 0; y < plane.rows; y += jpeg_side)
    for (std::int64_t x = 0; x < plane.pitch; x += jpeg_wide) {
      std::uint8_t *const at = plane.row(y) + x;
      JpegRow v[jpeg_side];
      for (std::int64_t i = 0; i < jpeg_side; ++i) v[i] = jpeg_load(at + i * plane.pitch) - grey;
      jpeg_turn(v);
      jpeg_forward<true>(v);
      jpeg_turn(v);
      jpeg_forward<false>(v);
      for (std::int64_t i = 0; i < jpeg_side; ++i) v[i] = jpeg_quantised(v[i], t, i);
      jpeg_backward<jpeg_bits - jpeg_pass_bits>(v);
      jpeg_turn(v);
      jpeg_backward<jpeg_bits + jpeg_pass_bits + 3>(v);
      jpeg_turn(v);
      for (std::int64_t i = 0; i < jpeg_side; ++i) {
        JpegRow value = v[i] + grey;
        value = value > zero ? value : zero;
        jpeg_store(at + i * plane.pitch, value < white ? value : white);
      }
    }
}

// In place: red, green and blue to brightness and two colours; back.
static void jpeg_to_ycc(std::int64_t n, std::uint8_t *r, std::uint8_t *g, std::uint8_t *b) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t red = r[i], green = g[i], blue = b[i];
    r[i] = static_cast<std::uint8_t>((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16);
    g[i] = static_cast<std::uint8_t>((-11059 * red - 21709 * green + 32768 * blue + 8421375) >> 16);
    b[i] = static_cast<std::uint8_t>((32768 * red - 27439 * green - 5329 * blue + 8421375) >> 16);
  }
}
HW4FAST_INLINE std::uint8_t jpeg_clipped(std::int32_t v) {
  v = v < 0 ? 0 : v;
  return static_cast<std::uint8_t>(v > 255 ? 255 : v);
}
static void jpeg_to_rgb(std::int64_t n, const std::uint8_t *y, std::uint8_t *cb, std::uint8_t *cr, std::uint8_t *r) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t value = y[i], blue = cb[i] - 128, red = cr[i] - 128;
    r[i] = jpeg_clipped(value + ((91881 * red + 32768) >> 16));
    cb[i] = jpeg_clipped(value + ((-22554 * blue - 46802 * red + 32768) >> 16));
    cr[i] = jpeg_clipped(value + ((116130 * blue + 32768) >> 16));
  }
}

// Two rows of `n` pairs → the means of 2 × 2, rounded up and down in turn.
static void jpeg_halved(std::int64_t n, const std::uint8_t *upper, const std::uint8_t *lower, std::uint8_t *to) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i)
    to[i] = static_cast<std::uint8_t>(
        (upper[2 * i] + upper[2 * i + 1] + lower[2 * i] + lower[2 * i + 1] + 1 + static_cast<std::int32_t>(i & 1)) >>
        2);
}

// A row of twice as many, of the row that it lies in and the one that it lies nearer to of those beside: 9/16, 3/16,
// 3/16 and 1/16 of four pixels. sums: room for n + 2.
static void jpeg_doubled(std::int64_t n, const std::uint8_t *own, const std::uint8_t *beside, std::uint16_t *sums,
                         std::uint8_t *to) {
  if (n <= 2) {  // libjpeg repeats pixels where there are few
    for (std::int64_t i = 0; i < n; ++i) to[2 * i] = to[2 * i + 1] = own[i];
    return;
  }
  std::uint16_t *const sum = sums + 1;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) sum[i] = static_cast<std::uint16_t>(3 * own[i] + beside[i]);
  sum[-1] = sum[0];
  sum[n] = sum[n - 1];
  auto *const two = reinterpret_cast<std::uint16_t *>(to);  // pixels 2i and 2i + 1: processors count from the lower one
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {  // each step as uint16: twice as many in a vector
    const auto most = static_cast<std::uint16_t>(3 * sum[i]);
    const auto left = static_cast<std::uint16_t>(most + sum[i - 1] + 8);
    const auto right = static_cast<std::uint16_t>(most + sum[i + 1] + 7);
    two[i] = static_cast<std::uint16_t>(left >> 4 | right >> 4 << 8);
  }
}

static JpegPlane jpeg_plane(std::int64_t h, std::int64_t w, std::uint8_t *&memory) {
  const JpegPlane plane{memory, (w + jpeg_wide - 1) / jpeg_wide * jpeg_wide,
                        (h + jpeg_side - 1) / jpeg_side * jpeg_side};
  memory += plane.pitch * plane.rows;
  return plane;
}

// The last column and row are repeated as far as the blocks reach.
static void jpeg_padded(const JpegPlane &plane, std::int64_t h, std::int64_t w) {
  for (std::int64_t y = 0; y < h; ++y) std::fill(plane.row(y) + w, plane.row(y) + plane.pitch, plane.row(y)[w - 1]);
  for (std::int64_t y = h; y < plane.rows; ++y) std::copy(plane.row(h - 1), plane.row(h), plane.row(y));
}

static void jpeg_grey(const Jpeg &j, const JpegPlane &plane) {
  for (std::int64_t y = 0; y < j.h; ++y) std::copy(j.input + y * j.stride, j.input + y * j.stride + j.w, plane.row(y));
  jpeg_padded(plane, j.h, j.w);
  jpeg_blocks(plane, j.tables[0]);
  for (std::int64_t y = 0; y < j.h; ++y) std::copy(plane.row(y), plane.row(y) + j.w, j.output + y * j.w);
}

static void jpeg_colours(const Jpeg &j, const JpegPlane (&planes)[3], std::uint8_t *rows, std::int64_t pitch) {
  const std::int64_t columns = (j.w + 2 * jpeg_side - 1) / (2 * jpeg_side) * jpeg_side;  // of whole blocks
  for (std::int64_t y = 0; y < j.h; y += 2) {
    for (std::int64_t k = 0; k < 2; ++k) {
      std::uint8_t *const own[3] = {rows + 3 * k * pitch, rows + (3 * k + 1) * pitch, rows + (3 * k + 2) * pitch};
      split_three(j.input + std::min(y + k, j.h - 1) * j.stride, j.w, own);
      jpeg_to_ycc(j.w, own[0], own[1], own[2]);
      if (y + k < j.h) std::copy(own[0], own[0] + j.w, planes[0].row(y + k));
      for (std::uint8_t *row : own) std::fill(row + j.w, row + 2 * columns, row[j.w - 1]);
    }
    for (std::int64_t c = 1; c < 3; ++c)
      jpeg_halved(columns, rows + c * pitch, rows + (3 + c) * pitch, planes[c].row(y / 2));
  }
}

static void jpeg_all(const Jpeg &j) {
  const std::int64_t pitch = j.w / 64 * 64 + 2 * jpeg_slack, rows = (j.h + 1) / 2, columns = (j.w + 1) / 2;
  const auto room = [](std::int64_t h, std::int64_t w) { return (h + jpeg_side) * (w + jpeg_wide); };
  const Scratch<std::uint8_t> memory(room(j.h, j.w) + 2 * room(rows, columns) + 8 * pitch);
  std::uint8_t *free = memory.get();
  std::fill(free, free + 8 * pitch, std::uint8_t{0});  // what whole vectors read behind a row
  std::uint8_t *const line = free;
  free += 8 * pitch;
  const JpegPlane plane = jpeg_plane(j.h, j.w, free);
  if (j.c == 1) return jpeg_grey(j, plane);
  const JpegPlane second = jpeg_plane(rows, columns, free),
                  planes[3] = {plane, second, jpeg_plane(rows, columns, free)};
  jpeg_colours(j, planes, line, pitch);
  for (std::int64_t c = 0; c < 3; ++c) {
    jpeg_padded(planes[c], c ? rows : j.h, c ? (columns + jpeg_side - 1) / jpeg_side * jpeg_side : j.w);
    jpeg_blocks(planes[c], j.tables[c > 0]);
  }
  std::uint8_t *const colours[3] = {line, line + pitch, line + 2 * pitch};
  auto *const sums = reinterpret_cast<std::uint16_t *>(line + 4 * pitch);
  for (std::int64_t y = 0; y < j.h; ++y) {
    const std::int64_t own = y / 2, beside = std::clamp<std::int64_t>(y % 2 ? own + 1 : own - 1, 0, rows - 1);
    for (std::int64_t c = 1; c < 3; ++c)
      jpeg_doubled(columns, planes[c].row(own), planes[c].row(beside), sums, colours[c]);
    jpeg_to_rgb(j.w, planes[0].row(y), colours[1], colours[2], colours[0]);
    join_three({colours[0], colours[1], colours[2]}, j.w, j.output + y * 3 * j.w);
  }
}
