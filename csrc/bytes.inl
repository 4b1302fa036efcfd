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
