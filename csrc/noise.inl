// Counter-based random numbers, and pictures with such noise on them.
//
// Philox4x32-10 (J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds of multiplying,
// exchanging and xoring turn a counter of 4 words and a key of 2 into 4 random words. Nothing is carried from one
// counter to the next, so vectors of them are turned at once. A block is 16 counters, 64 words, in one order on every
// instruction set: word k of all 16, then word k + 1.

typedef std::uint32_t NoiseWords __attribute__((vector_size(HW4FAST_VECTOR_BYTES)));
typedef std::uint64_t NoisePairs __attribute__((vector_size(HW4FAST_VECTOR_BYTES)));
constexpr std::int64_t noise_lanes = lanes<float>;

HW4FAST_INLINE NoiseWords noise_load(const std::uint32_t *from) {
  NoiseWords v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
HW4FAST_INLINE void noise_store(std::uint32_t *to, NoiseWords v) { std::memcpy(to, &v, sizeof v); }

// a · factor: the upper and the lower 32 bits of each lane's product.
HW4FAST_INLINE void noise_multiply(NoiseWords a, std::uint32_t factor, NoiseWords &high, NoiseWords &low) {
#if defined(__x86_64__)
  const auto times = [&](NoisePairs v) {
#if HW4FAST_VECTOR_BYTES == 64
    return (NoisePairs)_mm512_maskz_mul_epu32(0xff, (__m512i)v, _mm512_set1_epi64(factor));
#elif HW4FAST_VECTOR_BYTES == 32
    return (NoisePairs)_mm256_mul_epu32((__m256i)v, _mm256_set1_epi64x(factor));
#else
    return (NoisePairs)_mm_mul_epu32((__m128i)v, _mm_set1_epi64x(factor));
#endif
  };
  const NoisePairs even = times((NoisePairs)a), odd = times((NoisePairs)a >> 32), upper = NoisePairs{} + (~0ull << 32);
  high = (NoiseWords)(even >> 32 | (odd & upper));
  low = (NoiseWords)((even & ~upper) | odd << 32);
#else
  for (std::int64_t lane = 0; lane < noise_lanes; ++lane) {
    const std::uint64_t product = std::uint64_t{a[lane]} * factor;
    high[lane] = static_cast<std::uint32_t>(product >> 32);
    low[lane] = static_cast<std::uint32_t>(product);
  }
#endif
}

// The 64 words of a block: `to` [4][16].
static void noise_block(const Noise &n, std::int64_t block, std::uint32_t *to) {
  for (std::int64_t part = 0; part < noise_counters; part += noise_lanes) {
    NoiseWords lane;
    for (std::int64_t i = 0; i < noise_lanes; ++i) lane[i] = static_cast<std::uint32_t>(i);
    const std::uint64_t first =
        static_cast<std::uint64_t>(block * noise_counters + part);  // a multiple of 16: no carry
    NoiseWords c0 = lane + static_cast<std::uint32_t>(first),
               c1 = NoiseWords{} + static_cast<std::uint32_t>(first >> 32);
    NoiseWords c2 = NoiseWords{} + n.stream, c3 = {};
    std::uint32_t k0 = static_cast<std::uint32_t>(n.key), k1 = static_cast<std::uint32_t>(n.key >> 32);
    for (int round = 0; round < 10; ++round) {
      NoiseWords high0, low0, high1, low1;
      noise_multiply(c0, 0xD2511F53u, high0, low0);
      noise_multiply(c2, 0xCD9E8D57u, high1, low1);
      c0 = high1 ^ c1 ^ k0;
      c1 = low1;
      c2 = high0 ^ c3 ^ k1;
      c3 = low0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    noise_store(to + part, c0);
    noise_store(to + noise_counters + part, c1);
    noise_store(to + 2 * noise_counters + part, c2);
    noise_store(to + 3 * noise_counters + part, c3);
  }
}

HW4FAST_INLINE Float<float> noise_root(Float<float> v) {
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
  return (Float<float>)_mm512_maskz_sqrt_ps(0xffff, (__m512)v);
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
  return (Float<float>)_mm256_sqrt_ps((__m256)v);
#elif defined(__x86_64__)
  return (Float<float>)_mm_sqrt_ps((__m128)v);
#else
  for (std::int64_t lane = 0; lane < noise_lanes; ++lane) v[lane] = std::sqrt(v[lane]);
  return v;
#endif
}

// Two words → two normal deviates (Box and Muller, 1958): √(−2 log u) · (cos, sin)(2π v), u of 24 bits in (0, 1].
HW4FAST_INLINE void noise_pair(NoiseWords first, NoiseWords second, Float<float> &one, Float<float> &other) {
  const Float<float> u = __builtin_convertvector((Int<float>)(first >> 8) + 1, Float<float>) * 0x1p-24f;  // exact
  // of u, not of u · 2^24 less log 2^24: near 1 nothing would be left of the difference's digits
  const Float<float> radius = noise_root(larger(splat(0.0f), log_atleast1(u) * -2.0f));
  // the angle is a quarter of the circle and a rest in ±π/4
  const NoiseWords quarter = (second + 0x20000000u) >> 30;
  const Int<float> rest = (Int<float>)(second - (quarter << 30));
  const Float<float> x = __builtin_convertvector(rest, Float<float>) * 1.46291807e-9f;  // π/2 · 2^−30
  const Float<float> z = x * x;
  const Float<float> sine = x + x * z * ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z + -1.6666654611e-1f);
  const Float<float> cosine =
      1.0f - z * 0.5f + z * z * ((z * 2.443315711809948e-5f + -1.388731625493765e-3f) * z + 4.166664568298827e-2f);
  const Int<float> odd = -(Int<float>)(quarter & 1);
  const Int<float> a = ((Int<float>)cosine & ~odd) | ((Int<float>)sine & odd);
  const Int<float> b = ((Int<float>)sine & ~odd) | ((Int<float>)cosine & odd);
  const Int<float> flip_a = (Int<float>)((((quarter + 1) >> 1) & 1) << 31), flip_b = (Int<float>)((quarter >> 1) << 31);
  one = radius * (Float<float>)(a ^ flip_a);
  other = radius * (Float<float>)(b ^ flip_b);
}

// 64 normal deviates: from words 0 and 1 the first 32, from 2 and 3 the others.
static void noise_normals(const Noise &n, std::int64_t block, float *to) {
  std::uint32_t words[noise_values];
  noise_block(n, block, words);
  for (std::int64_t half = 0; half < 2; ++half)
    for (std::int64_t part = 0; part < noise_counters; part += noise_lanes) {
      const std::int64_t at = half * 2 * noise_counters + part;
      Float<float> one, other;
      noise_pair(noise_load(words + at), noise_load(words + at + noise_counters), one, other);
      store(to + at, one);
      store(to + at + noise_counters, other);
    }
}

HW4FAST_INLINE void noise_bytes(std::uint8_t *to, Float<float> v) {  // rounded down, as a cast to uint8 does
  v = larger(splat(0.0f), v);
  v = v > 255.0f ? splat(255.0f) : v;
  narrow(__builtin_convertvector(v, Int<float>), to);
}

// 64 values of a picture.
static void noise_add(const Noise &n, std::int64_t block, const std::uint8_t *from, std::uint8_t *to) {
  float normals[noise_values];
  noise_normals(n, block, normals);
  for (std::int64_t i = 0; i < noise_values; i += noise_lanes) {
    const Float<float> x = __builtin_convertvector(widen(from + i), Float<float>), normal = load(normals + i);
    noise_bytes(to + i, n.kind == NoiseKind::speckle ? x + x * (normal * n.scale) : x + normal * n.scale);
  }
}
static void noise_salt(const Noise &n, std::int64_t block, const std::uint8_t *from, std::uint8_t *to) {
  std::uint32_t words[noise_values];
  noise_block(n, block, words);
  for (std::int64_t i = 0; i < noise_values; i += noise_lanes) {
    const NoiseWords word = noise_load(words + i);
    const Int<float> grain = (Int<float>)(NoiseWords{} - (word & 1)) & 255;
    const auto hit = (Int<float>)(word >> 1) <= n.hit;
    narrow(hit ? grain : widen(from + i), to + i);
  }
}
static void noise_shot(const Noise &n, std::int64_t block, const std::uint8_t *from, std::uint8_t *to) {
  std::uint32_t words[noise_values];
  noise_block(n, block, words);
  for (std::int64_t i = 0; i < noise_values; ++i) {
    const ShotEntry entry = n.table[(std::int64_t{from[i]} << n.bits) + (words[i] >> (32 - n.bits))];
    const std::uint32_t beyond = 0u - static_cast<std::uint32_t>((words[i] << n.bits) > entry.most);  // no branch
    to[i] = static_cast<std::uint8_t>(entry.own ^ ((entry.own ^ entry.other) & beyond));
  }
}

static void noise_values_of(const Noise &n, std::int64_t block, const std::uint8_t *from, std::uint8_t *to) {
  if (n.kind == NoiseKind::shot) return noise_shot(n, block, from, to);
  if (n.kind == NoiseKind::impulse) return noise_salt(n, block, from, to);
  noise_add(n, block, from, to);
}

static void noise_picture(const Noise &n, const std::uint8_t *from, std::uint8_t *to) {
  const std::int64_t whole = n.size / noise_values;
  for (std::int64_t block = 0; block < whole; ++block)
    noise_values_of(n, block, from + block * noise_values, to + block * noise_values);
  if (const std::int64_t rest = n.size - whole * noise_values) {
    std::uint8_t last[noise_values] = {}, noisy[noise_values];
    std::memcpy(last, from + whole * noise_values, static_cast<std::size_t>(rest));
    noise_values_of(n, whole, last, noisy);
    std::memcpy(to + whole * noise_values, noisy, static_cast<std::size_t>(rest));
  }
}

// Normal deviates, or numbers in [0, 1) of 24 bits.
static void noise_draws(const Noise &n, float *to) {
  for (std::int64_t begin = 0, block = 0; begin < n.size; begin += noise_values, ++block) {
    float values[noise_values];
    if (n.kind == NoiseKind::normal) {
      noise_normals(n, block, values);
    } else {
      std::uint32_t words[noise_values];
      noise_block(n, block, words);
      for (std::int64_t i = 0; i < noise_values; ++i) values[i] = static_cast<float>(words[i] >> 8) * 0x1p-24f;
    }
    std::memcpy(to + begin, values, sizeof(float) * static_cast<std::size_t>(std::min(noise_values, n.size - begin)));
  }
}

// Each pixel of [h][w][c], from the lower right on, takes the value of one at most `reach` away, which may have taken
// another's before. A word gives both distances, −reach … reach − 1.
static void noise_shuffle(const Noise &n, std::uint8_t *picture, const Shuffle &s) {
  std::uint32_t words[noise_values];
  std::int64_t drawn = 0;
  const std::uint32_t span = static_cast<std::uint32_t>(2 * s.reach);
  for (int turn = 0; turn < s.turns; ++turn)
    for (std::int64_t y = s.h - s.reach; y > s.reach; --y)
      for (std::int64_t x = s.w - s.reach; x > s.reach; --x, ++drawn) {
        const std::int64_t at = drawn % noise_values;
        if (at == 0) noise_block(n, drawn / noise_values, words);
        const std::int64_t dx = static_cast<std::int64_t>((words[at] >> 16) * span >> 16) - s.reach;
        const std::int64_t dy = static_cast<std::int64_t>((words[at] & 0xffff) * span >> 16) - s.reach;
        std::uint8_t *to = picture + (y * s.w + x) * s.c;
        const std::uint8_t *from = to + (dy * s.w + dx) * s.c;
        for (std::int64_t channel = 0; channel < s.c; ++channel) to[channel] = from[channel];
      }
}
