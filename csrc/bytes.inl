// What the kernels on pictures share. Needs <immintrin.h> on x86.

// Bytes to and from int32: compilers take them apart one by one.
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
HW4FAST_INLINE Int<float> widen(const std::uint8_t *from) {
  return (Int<float>)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
}
HW4FAST_INLINE void narrow(Int<float> v, std::uint8_t *to) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v));
}
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
HW4FAST_INLINE Int<float> widen(const std::uint8_t *from) {
  return (Int<float>)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from)));
}
HW4FAST_INLINE void narrow(Int<float> v, std::uint8_t *to) {
  const __m128i low = _mm256_castsi256_si128((__m256i)v), high = _mm256_extracti128_si256((__m256i)v, 1);
  const __m128i words = _mm_packs_epi32(low, high);
  _mm_storel_epi64(reinterpret_cast<__m128i *>(to), _mm_packus_epi16(words, words));
}
#elif defined(__x86_64__)
HW4FAST_INLINE Int<float> widen(const std::uint8_t *from) {
  std::int32_t four;
  std::memcpy(&four, from, sizeof four);
  const __m128i zero = _mm_setzero_si128();
  return (Int<float>)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero);
}
HW4FAST_INLINE void narrow(Int<float> v, std::uint8_t *to) {
  const __m128i words = _mm_packs_epi32((__m128i)v, (__m128i)v);
  const std::int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
  std::memcpy(to, &four, sizeof four);
}
#else
typedef Short<std::uint8_t, lanes<float> >::Vector ByteLanes;
HW4FAST_INLINE Int<float> widen(const std::uint8_t *from) {
  ByteLanes bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(bytes, Int<float>);
}
HW4FAST_INLINE void narrow(Int<float> v, std::uint8_t *to) {
  const ByteLanes bytes = __builtin_convertvector(v, ByteLanes);
  std::memcpy(to, &bytes, sizeof bytes);
}
#endif

// Pixels of three bytes to and from a row per channel.
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES > 16
HW4FAST_INLINE __m128i three_order(int first, int channel,
                                   int step) {  // bytes of `channel` among those from `first` on
  alignas(16) std::int8_t order[16];
  for (int i = 0; i < 16; ++i) {
    const int at = step == 3 ? 3 * i + channel - first : (first + i) / 3;
    order[i] = static_cast<std::int8_t>(step == 3                    ? (at >= 0 && at < 16 ? at : -1)
                                        : (first + i) % 3 == channel ? at
                                                                     : -1);
  }
  return _mm_load_si128(reinterpret_cast<const __m128i *>(order));
}
HW4FAST_INLINE __m128i three_picked(__m128i a, __m128i b, __m128i c, __m128i of_a, __m128i of_b, __m128i of_c) {
  const __m128i ab = _mm_or_si128(_mm_shuffle_epi8(a, of_a), _mm_shuffle_epi8(b, of_b));
  return _mm_or_si128(ab, _mm_shuffle_epi8(c, of_c));
}
#endif
HW4FAST_INLINE void split_three(const std::uint8_t *from, std::int64_t n, std::uint8_t *const (&to)[3]) {
  std::int64_t i = 0;
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES > 16
  for (; i + 16 <= n; i += 16) {
    const auto *at = reinterpret_cast<const __m128i *>(from + 3 * i);
    const __m128i a = _mm_loadu_si128(at), b = _mm_loadu_si128(at + 1), c = _mm_loadu_si128(at + 2);
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k)
      _mm_storeu_si128(reinterpret_cast<__m128i *>(to[k] + i),
                       three_picked(a, b, c, three_order(0, k, 3), three_order(16, k, 3), three_order(32, k, 3)));
  }
#endif
  for (; i < n; ++i)
    for (int k = 0; k < 3; ++k) to[k][i] = from[3 * i + k];
}
HW4FAST_INLINE void join_three(const std::uint8_t *const (&from)[3], std::int64_t n, std::uint8_t *to) {
  std::int64_t i = 0;
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES > 16
  for (; i + 16 <= n; i += 16) {
    const auto at = [&](int k) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(from[k] + i)); };
    const __m128i a = at(0), b = at(1), c = at(2);
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k)
      _mm_storeu_si128(
          reinterpret_cast<__m128i *>(to + 3 * i) + k,
          three_picked(a, b, c, three_order(16 * k, 0, 1), three_order(16 * k, 1, 1), three_order(16 * k, 2, 1)));
  }
#endif
  for (; i < n; ++i)
    for (int k = 0; k < 3; ++k) to[3 * i + k] = from[k][i];
}
