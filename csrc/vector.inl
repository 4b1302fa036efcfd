// One vector register as a C++ type, and the functions that the kernels need of it. Included once per
// instruction set by each_isa.h, which sets HW4FAST_VECTOR_BYTES; everything here is inlined into its caller.
//
// Float<float> has 4, 8 or 16 lanes, Float<double> half as many. a + b, a > b ? a : b work lane by lane.

template <class T> struct Lanes;
template <> struct Lanes<float> {
  typedef std::int32_t Label;  // as wide as T
  typedef float Float __attribute__((vector_size(HW4FAST_VECTOR_BYTES)));
  typedef std::int32_t Int __attribute__((vector_size(HW4FAST_VECTOR_BYTES)));
};
template <> struct Lanes<double> {
  typedef std::int64_t Label;
  typedef double Float __attribute__((vector_size(HW4FAST_VECTOR_BYTES)));
  typedef std::int64_t Int __attribute__((vector_size(HW4FAST_VECTOR_BYTES)));
};
template <class T> using Float = typename Lanes<T>::Float;
template <class T> using Label = typename Lanes<T>::Label;
template <class T> using Int = typename Lanes<T>::Int;
template <class T> constexpr std::int64_t lanes = HW4FAST_VECTOR_BYTES / sizeof(T);

#define HW4FAST_INLINE static inline __attribute__((always_inline))

template <class T> HW4FAST_INLINE Float<T> load(const T *from) {
  Float<T> v;
  std::memcpy(&v, from, sizeof v);  // any alignment
  return v;
}
template <class T> HW4FAST_INLINE void store(T *to, Float<T> v) { std::memcpy(to, &v, sizeof v); }

// The first n lanes from or into memory, which may end there; 0 behind them.
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
HW4FAST_INLINE Float<float> load_some(const float *from, std::int64_t n) {
  return n >= 16 ? load(from) : _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), from);
}
HW4FAST_INLINE Float<double> load_some(const double *from, std::int64_t n) {
  return n >= 8 ? load(from) : _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), from);
}
HW4FAST_INLINE void store_some(float *to, Float<float> v, std::int64_t n) {
  n >= 16 ? store(to, v) : _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1), v);
}
HW4FAST_INLINE void store_some(double *to, Float<double> v, std::int64_t n) {
  n >= 8 ? store(to, v) : _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << n) - 1), v);
}
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
HW4FAST_INLINE Float<float> load_some(const float *from, std::int64_t n) {
  if (n >= 8) return load(from);
  const Int<float> lane = {0, 1, 2, 3, 4, 5, 6, 7};
  return _mm256_maskload_ps(from, (__m256i)(lane < static_cast<std::int32_t>(n)));
}
HW4FAST_INLINE Float<double> load_some(const double *from, std::int64_t n) {
  if (n >= 4) return load(from);
  const Int<double> lane = {0, 1, 2, 3};
  return _mm256_maskload_pd(from, (__m256i)(lane < n));
}
// By halves of what is left: on some processors a masked store takes as long as twenty others.
HW4FAST_INLINE void store_some(float *to, Float<float> v, std::int64_t n) {
  if (n >= 8) return store(to, v);
  __m128 rest = _mm256_castps256_ps128(v);
  if (n & 4) {
    _mm_storeu_ps(to, rest);
    rest = _mm256_extractf128_ps(v, 1);
    to += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64 *>(to), rest);
    rest = _mm_movehl_ps(rest, rest);
    to += 2;
  }
  if (n & 1) _mm_store_ss(to, rest);
}
HW4FAST_INLINE void store_some(double *to, Float<double> v, std::int64_t n) {
  if (n >= 4) return store(to, v);
  for (std::int64_t lane = 0; lane < n; ++lane) to[lane] = v[lane];
}
#else
template <class T> HW4FAST_INLINE Float<T> load_some(const T *from, std::int64_t n) {
  if (n >= lanes<T>) return load(from);
  alignas(64) T some[lanes<T>] = {};
  for (std::int64_t lane = 0; lane < n; ++lane) some[lane] = from[lane];
  return load(some);
}
template <class T> HW4FAST_INLINE void store_some(T *to, typename Lanes<T>::Float v, std::int64_t n) {
  if (n >= lanes<T>) return store(to, v);
  for (std::int64_t lane = 0; lane < n; ++lane) to[lane] = v[lane];
}
#endif
// Memory holds bfloat16, registers float: half a vector is read or written. Stores round to the nearest, of two equally
// near ones to the even. What is added would carry a NaN with all of its lower bits set to zero, but a processor's own
// NaN and one read from bfloat16 have none. Each conversion is one instruction (AVX2: two), of which GCC makes five.
typedef std::uint16_t Halves __attribute__((vector_size(HW4FAST_VECTOR_BYTES / 2)));
typedef std::uint32_t Words __attribute__((vector_size(HW4FAST_VECTOR_BYTES)));
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
HW4FAST_INLINE Words words(Halves v) { return (Words)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)v); }
HW4FAST_INLINE Halves halves(Words v) { return (Halves)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)v); }
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
HW4FAST_INLINE Words words(Halves v) { return (Words)_mm256_cvtepu16_epi32((__m128i)v); }
HW4FAST_INLINE Halves halves(Words v) {
  return (Halves)_mm_packus_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
}
#else
HW4FAST_INLINE Words words(Halves v) { return __builtin_convertvector(v, Words); }
HW4FAST_INLINE Halves halves(Words v) { return __builtin_convertvector(v, Halves); }
#endif
HW4FAST_INLINE Float<float> load(const BFloat16 *from) {
  Halves v;
  std::memcpy(&v, from, sizeof v);
  return (Float<float>)(words(v) << 16);
}
HW4FAST_INLINE void store(BFloat16 *to, Float<float> v) {
  const Words bits = (Words)v, rounded = bits + 0x7fff + (bits >> 16 & 1);
  const Halves upper = halves(rounded >> 16);
  std::memcpy(to, &upper, sizeof upper);
}

template <class T> HW4FAST_INLINE Float<T> splat(T value) { return Float<T>{} + value; }

// The pointer itself, of which the compiler knows nothing: it then adds constants to it, where it would otherwise
// keep an address for each load of an unrolled loop and run out of registers.
template <class T> HW4FAST_INLINE const T *opaque(const T *pointer) {
  asm("" : "+r"(pointer));
  return pointer;
}

// a > b ? a : b in one instruction, which compilers don't find for vectors: b where either is NaN.
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
HW4FAST_INLINE Float<float> larger(Float<float> a, Float<float> b) { return _mm512_maskz_max_ps(0xffff, a, b); }
HW4FAST_INLINE Float<double> larger(Float<double> a, Float<double> b) { return _mm512_maskz_max_pd(0xff, a, b); }
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
HW4FAST_INLINE Float<float> larger(Float<float> a, Float<float> b) { return _mm256_max_ps(a, b); }
HW4FAST_INLINE Float<double> larger(Float<double> a, Float<double> b) { return _mm256_max_pd(a, b); }
#elif defined(__x86_64__)
HW4FAST_INLINE Float<float> larger(Float<float> a, Float<float> b) { return _mm_max_ps(a, b); }
HW4FAST_INLINE Float<double> larger(Float<double> a, Float<double> b) { return _mm_max_pd(a, b); }
#else
template <class V> HW4FAST_INLINE V larger(V a, V b) { return a > b ? a : b; }
#endif

// op over all lanes, halves against each other: log2(lanes) steps one after the other instead of lanes, and a sum
// whose order is written down. A NaN lane may be dropped by `larger`: the passes that follow meet it again.
template <class T, std::int64_t n> struct Short {
  typedef T Vector __attribute__((vector_size(n * sizeof(T))));
};
template <class T, std::int64_t n, class Op> HW4FAST_INLINE T fold(typename Short<T, n>::Vector v, const Op &op) {
  if constexpr (n == 2) {
    return op(v[0], v[1]);
  } else {
    typename Short<T, n / 2>::Vector half[2];
    std::memcpy(half, &v, sizeof v);
    return fold<T, n / 2>(op(half[0], half[1]), op);
  }
}
template <class T> HW4FAST_INLINE T max_of(Float<T> v) {
  return fold<T, lanes<T>>(v, [](auto a, auto b) { return a > b ? a : b; });
}
template <class T> HW4FAST_INLINE T sum_of(Float<T> v) {
  return fold<T, lanes<T>>(v, [](auto a, auto b) { return a + b; });
}

// Lane by lane: from[which[lane]], which in 0 … 3. Reads a whole vector (four numbers, if that is shorter).
template <class T> HW4FAST_INLINE Float<T> pick(const T *from, Int<T> which) {
#if !defined(__clang__)
  if constexpr (lanes<T> > 4) return __builtin_shuffle(load(from), which);
#endif
  Float<T> picked{};
  for (std::int64_t lane = 0; lane < lanes<T>; ++lane) picked[lane] = from[which[lane]];
  return picked;
}

// The lanes of a and b where `kept` is true (−1), side by side into memory, which must have room for whole vectors.
// Returns how many.
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
HW4FAST_INLINE std::int64_t compress(Float<float> a, Int<float> b, Int<float> kept, float *to_a, std::int32_t *to_b) {
  const __mmask16 mask = _mm512_movepi32_mask((__m512i)kept);
  const Int<float> packed = (Int<float>)_mm512_maskz_compress_epi32(mask, (__m512i)b);
  store(to_a, (Float<float>)_mm512_maskz_compress_ps(mask, a));
  std::memcpy(to_b, &packed, sizeof packed);
  return __builtin_popcount(mask);
}
HW4FAST_INLINE std::int64_t compress(Float<double> a, Int<double> b, Int<double> kept, double *to_a,
                                     std::int64_t *to_b) {
  const __mmask8 mask = _mm512_movepi64_mask((__m512i)kept);
  const Int<double> packed = (Int<double>)_mm512_maskz_compress_epi64(mask, (__m512i)b);
  store(to_a, (Float<double>)_mm512_maskz_compress_pd(mask, a));
  std::memcpy(to_b, &packed, sizeof packed);
  return __builtin_popcount(mask);
}
#else
template <class T>
HW4FAST_INLINE std::int64_t compress(Lanes<T>, Float<T> a, Int<T> b, Int<T> kept, T *to_a, Label<T> *to_b) {
  std::int64_t n = 0;
  for (std::int64_t lane = 0; lane < lanes<T>; ++lane) {  // written always, kept if wanted: no branch to be guessed
    to_a[n] = a[lane];
    to_b[n] = b[lane];
    n -= kept[lane];
  }
  return n;
}
HW4FAST_INLINE std::int64_t compress(Float<float> a, Int<float> b, Int<float> kept, float *to_a, std::int32_t *to_b) {
  return compress(Lanes<float>(), a, b, kept, to_a, to_b);
}
HW4FAST_INLINE std::int64_t compress(Float<double> a, Int<double> b, Int<double> kept, double *to_a,
                                     std::int64_t *to_b) {
  return compress(Lanes<double>(), a, b, kept, to_a, to_b);
}
#endif

// v[i][j] and v[j][i] change places. Each step exchanges the off-diagonal quarters of every 2s × 2s square.
template <std::int64_t s, class V, std::int64_t... lane>
HW4FAST_INLINE void exchange(V &a, V &b, std::integer_sequence<std::int64_t, lane...>) {
  constexpr std::int64_t n = sizeof...(lane);
#if defined(__clang__)
  const V low = __builtin_shufflevector(a, b, (lane & s ? n + lane - s : lane)...);
  const V high = __builtin_shufflevector(a, b, (lane & s ? n + lane : lane + s)...);
#else
  const decltype(a < b) to_low = {(lane & s ? n + lane - s : lane)...}, to_high = {(lane & s ? n + lane : lane + s)...};
  const V low = __builtin_shuffle(a, b, to_low), high = __builtin_shuffle(a, b, to_high);
#endif
  a = low;
  b = high;
}
template <class T, std::int64_t s = lanes<T> / 2> HW4FAST_INLINE void transpose(Float<T> (&v)[lanes<T>]) {
  if constexpr (s > 0) {
    for (std::int64_t i = 0; i < lanes<T>; ++i)
      if (!(i & s)) exchange<s>(v[i], v[i + s], std::make_integer_sequence<std::int64_t, lanes<T>>());
    transpose<T, s / 2>(v);
  }
}

// e^(scale·x) for x ≤ 0 (and a little above), scale ≥ 0: 2^n · 2^r with y = scale·log2 e·x, n = round(y), r = y − n
// in [−½, ½] and 2^r = 1 + r·q(r), q a Chebyshev fit of (2^r − 1)/r; relative error 5e-9 (float) and 8e-18 (double)
// before rounding. Adding `round` leaves n + bias in the low mantissa bits, so that a shift makes 2^n. n is held at
// −bias, where 2^n becomes a zero: e^−∞ = 0. A NaN stays NaN (the comparison keeps it; it meets a product, not bit
// tricks).
HW4FAST_INLINE Float<float> exp_nonpositive(Float<float> x, float scale) {
  const float to_y = scale * 1.44269504088896341f, round = 12582912.0f + 127.0f;
  x = larger(splat<float>(-127.0f / to_y), x);
  const Float<float> t = x * to_y + round;
  const Float<float> r = x * to_y - (t - round);
  Float<float> q = r * 1.54531514e-4f + 1.33908631e-3f;
  q = q * r + 9.61808276e-3f;
  q = q * r + 5.55035711e-2f;
  q = q * r + 2.40226508e-1f;
  q = q * r + 6.93147188e-1f;
  return (q * r + 1.0f) * (Float<float>)((Int<float>)t << 23);
}
HW4FAST_INLINE Float<double> exp_nonpositive(Float<double> x, double scale) {
  const double log2e = 1.44269504088896341, round = 6755399441055744.0 + 1023.0;
  const double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  x *= scale;
  Float<double> y = x * log2e;
  y = larger(splat<double>(-1023.0), y);
  const Float<double> t = y + round;
  const Float<double> n = t - round;
  // r in units of log 2 from the exact x − n·log 2: x·log2e alone would lose digits for a large |x|
  const Float<double> inside = (x - n * ln2_high) - n * ln2_low;
  const Float<double> r = n > -1023.0 ? inside * log2e : y - n;
  Float<double> q = r * 4.45496059818651839e-10 + 7.0725859492692237e-9;
  q = q * r + 1.01780624458457735e-7;
  q = q * r + 1.32154425879216897e-6;
  q = q * r + 1.52527338298361184e-5;
  q = q * r + 1.54035304417360502e-4;
  q = q * r + 1.33335581464169353e-3;
  q = q * r + 9.61812910760688853e-3;
  q = q * r + 5.55041086648215943e-2;
  q = q * r + 2.40226506959100982e-1;
  q = q * r + 6.93147180559945309e-1;
  return (q * r + 1.0) * (Float<double>)((Int<double>)t << 52);
}

// log x for finite x ≥ 1 (a NaN stays NaN): x = 2^e·m with m in [√½, √2), log m = 2 atanh((m−1)/(m+1)) = t·(2 +
// t²·L(t²)).
HW4FAST_INLINE Float<float> log_atleast1(Float<float> x) {
  const Int<float> bits = (Int<float>)x - 0x3f3504f3;  // √½ becomes an exponent's beginning
  const Float<float> e = __builtin_convertvector(bits >> 23, Float<float>);
  const Float<float> m = (Float<float>)((bits & 0x7fffff) + 0x3f3504f3);
  const Float<float> t = (m - 1.0f) / (m + 1.0f), z = t * t;
  const Float<float> l = (z * 2.95800531e-1f + 3.99887783e-1f) * z + 6.66666850e-1f;
  const Float<float> value = e * 6.93147181e-1f + t * (z * l + 2.0f);
  return x == x ? value : x;
}
// 2 atanh t = log((1+t)/(1−t)) for |t| ≤ (√2−1)/(√2+1), where (1+t)/(1−t) lies in √½ … √2.
HW4FAST_INLINE Float<double> twice_atanh(Float<double> t) {
  const Float<double> z = t * t;
  Float<double> l = z * 1.30867670099481737e-1 + 1.32687596685606127e-1;
  l = l * z + 1.53862402058134779e-1;
  l = l * z + 1.81817956308847532e-1;
  l = l * z + 2.22222223918004693e-1;
  l = l * z + 2.85714285708032300e-1;
  l = l * z + 4.00000000000008776e-1;
  l = l * z + 6.66666666666666665e-1;
  return t * (z * l + 2.0);
}
HW4FAST_INLINE Float<double> log_atleast1(Float<double> x) {
  const Int<double> bits = (Int<double>)x - 0x3fe6a09e667f3bcd;
  const Float<double> e = __builtin_convertvector(bits >> 52, Float<double>);
  const Float<double> m = (Float<double>)((bits & 0xfffffffffffff) + 0x3fe6a09e667f3bcd);
  const Float<double> value = e * 6.93147180559945309e-1 + twice_atanh((m - 1.0) / (m + 1.0));
  return x == x ? value : x;
}

// log(1 + e) for e in 0 … 1 (a NaN stays NaN), in relative terms as exact as the type allows however small e is.
// float: e + e²·q(e), q the fit of (log(1+e) − e)/e² whose relative error in log(1+e) is smallest (Remez), 5e-9.
// A division takes longer than the eight steps of q. double would need twenty: there 1 + e is halved when above √2
// (e − 1 and e + 3 stand for (1+e)/2 ∓ 1, twice), and the series above does the rest.
HW4FAST_INLINE Float<float> log1p_upto1(Float<float> e) {
  Float<float> q = e * -3.318403e-3f + 2.0204292e-2f;
  q = q * e - 5.76639398e-2f;
  q = q * e + 1.068051e-1f;
  q = q * e - 1.53553736e-1f;
  q = q * e + 1.96953945e-1f;
  q = q * e - 2.49585867e-1f;
  q = q * e + 3.33305113e-1f;
  q = q * e - 4.99999328e-1f;
  return e * e * q + e;
}
HW4FAST_INLINE Float<double> log1p_upto1(Float<double> e) {
  const Float<double> zero{};
  const auto halved = e > 0.414213562373095049;
  const Float<double> above1 = e - (halved ? zero + 1.0 : zero), t = above1 / (e + (halved ? zero + 3.0 : zero + 2.0));
  return twice_atanh(t) + (halved ? zero + 6.93147180559945309e-1 : zero);
}
