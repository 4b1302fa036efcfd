// What the kernels of conv_block share: packed pictures, ReLU and the pool, and Winograd's transforms.

// -- packed pictures ---------------------------------------------------------------------------------------------

// Rows first … first + rows of an image, borders included, as [row][column][pitch]: the channels, and zeros up to
// `pitch` of them.
template <class T> static void conv_pack_pixels(const Strided<const T> &x, const ConvShape &s, std::int64_t image,
                                                std::int64_t first, std::int64_t rows, std::int64_t columns,
                                                std::int64_t pitch, T *to) {
  const std::int64_t inside = std::max<std::int64_t>(0, std::min(s.w, columns - s.pw));
  for (std::int64_t r = 0; r < rows; ++r, to += columns * pitch) {
    const std::int64_t y = first + r;
    if (y < 0 || y >= s.h || inside == 0) {
      std::fill(to, to + columns * pitch, T(0));
      continue;
    }
    T *at = to + s.pw * pitch;
    std::fill(to, at, T(0));
    std::fill(at + inside * pitch, to + columns * pitch, T(0));
    if (x.c == 1 && x.w == s.c && pitch == s.c) {
      const T *from = x.at(image, 0, y);
      std::copy(from, from + inside * pitch, at);
    } else if (x.c == 1) {
      const T *from = x.at(image, 0, y);
      for (std::int64_t j = 0; j < inside; ++j, from += x.w, at += pitch) {
        std::copy(from, from + s.c, at);
        std::fill(at + s.c, at + pitch, T(0));
      }
    } else {
      for (std::int64_t c = 0; c < pitch; ++c) {
        const T *from = c < s.c ? x.at(image, c, y) : nullptr;
        for (std::int64_t j = 0; j < inside; ++j) at[j * pitch + c] = from ? from[j * x.w] : T(0);
      }
    }
  }
}

// -- ReLU and the pool -------------------------------------------------------------------------------------------

// The largest of `count` values (4 with the pool, else 1), ReLU, and which it was, code by code. NaN wins, as in torch.
template <class T>
HW4FAST_INLINE void conv_strongest(const Float<T> *values, int count, bool relu, Float<T> &best, Int<T> &which) {
  const Float<T> zero{};
  const Int<T> no{};
  best = values[0];
  which = no;
  for (int k = 1; k < count; ++k) {
    const Int<T> better = (values[k] > best) | (values[k] != values[k]);
    best = better ? values[k] : best;
    which = better ? no + static_cast<Label<T>>(k) : which;
  }
  if (!relu) return;
  const Int<T> dead = best <= zero;
  best = dead ? zero : best;
  which = dead ? no + static_cast<Label<T>>(code_dead) : which;
}

// The first n lanes of an output and its code (may be null) into memory.
template <class T>
HW4FAST_INLINE void conv_keep(Float<T> best, Int<T> which, std::int64_t n, T *out, std::uint8_t *code) {
  using Codes = typename Short<std::uint8_t, lanes<T>>::Vector;
  const Codes codes = __builtin_convertvector(which, Codes);
  if (n >= lanes<T>) {
    store(out, best);
    if (code) std::memcpy(code, &codes, sizeof codes);
  } else {
    for (std::int64_t lane = 0; lane < n; ++lane) out[lane] = best[lane];
    for (std::int64_t lane = 0; code && lane < n; ++lane) code[lane] = codes[lane];
  }
}

// -- Winograd's transforms ---------------------------------------------------------------------------------------

// Winograd's minimal filtering F(2×2, K×K), K = 3 or 5: a tile of 2×2 outputs y, which is one window of the pool,
//
//   y = Aᵀ [ Σ_c (G g_c Gᵀ) ⊙ (Bᵀ d_c B) ] A        d: the tile's (K+1)×(K+1) inputs, g: the filter
//
// takes (K+1)² products per channel instead of 4·K²: 16 instead of 36, or 36 instead of 100. Its derivatives are
// the same products with the transposed matrices: dd = B [Uᵀ ⊙ (A dy Aᵀ)] Bᵀ and dg = Gᵀ [V ⊙ (A dy Aᵀ)] G.
//
// Source: Winograd, "Arithmetic Complexity of Computations" (1980); Lavin, Gray, "Fast Algorithms for Convolutional
// Neural Networks" (2016). The matrices belong to the points 0, ±a, ±b and ∞. Not 1 and 2, as usual, but a = ¾ and
// b = 1½ for K = 5: their powers differ less, and so the error is a quarter (about that of a direct sum).

using Lane = Float<float>;
constexpr float point_a = 0.75f, point_b = 1.5f, square_a = point_a * point_a, square_b = point_b * point_b;

// v = Bᵀ d
HW4FAST_INLINE void input_side(const Lane (&d)[4], Lane (&v)[4]) {
  v[0] = d[2] - d[0];
  v[1] = d[2] + d[1];
  v[2] = d[2] - d[1];
  v[3] = d[3] - d[1];
}
HW4FAST_INLINE void input_side(const Lane (&d)[6], Lane (&v)[6]) {
  constexpr float sum = square_a + square_b, product = square_a * square_b;
  v[0] = d[0] * product - d[2] * sum + d[4];
  v[5] = d[1] * product - d[3] * sum + d[5];
  const Lane even_a = d[4] - d[2] * square_b, odd_a = d[3] - d[1] * square_b;
  const Lane even_b = d[4] - d[2] * square_a, odd_b = d[3] - d[1] * square_a;
  v[1] = even_a + odd_a * point_a;
  v[2] = even_a - odd_a * point_a;
  v[3] = even_b + odd_b * point_b;
  v[4] = even_b - odd_b * point_b;
}
// d = B v
HW4FAST_INLINE void input_side_back(const Lane (&v)[4], Lane (&d)[4]) {
  d[0] = -v[0];
  d[1] = v[1] - v[2] - v[3];
  d[2] = v[1] + v[2] + v[0];
  d[3] = v[3];
}
HW4FAST_INLINE void input_side_back(const Lane (&v)[6], Lane (&d)[6]) {
  constexpr float sum = square_a + square_b, product = square_a * square_b;
  const Lane even_a = v[1] + v[2], odd_a = (v[1] - v[2]) * point_a;
  const Lane even_b = v[3] + v[4], odd_b = (v[3] - v[4]) * point_b;
  d[0] = v[0] * product;
  d[1] = v[5] * product - odd_a * square_b - odd_b * square_a;
  d[2] = -v[0] * sum - even_a * square_b - even_b * square_a;
  d[3] = odd_a + odd_b - v[5] * sum;
  d[4] = even_a + even_b + v[0];
  d[5] = v[5];
}
// y = Aᵀ m
HW4FAST_INLINE void output_side(const Lane (&m)[4], Lane (&y)[2]) {
  y[0] = m[1] + m[2] + m[0];
  y[1] = m[1] - m[2] + m[3];
}
HW4FAST_INLINE void output_side(const Lane (&m)[6], Lane (&y)[2]) {
  y[0] = (m[1] + m[2]) + (m[3] + m[4]) + m[0];
  y[1] = (m[1] - m[2]) * point_a + ((m[3] - m[4]) * point_b + m[5]);
}
// m = A y
HW4FAST_INLINE void output_side_back(const Lane (&y)[2], Lane (&m)[4]) {
  m[0] = y[0];
  m[1] = y[0] + y[1];
  m[2] = y[0] - y[1];
  m[3] = y[1];
}
HW4FAST_INLINE void output_side_back(const Lane (&y)[2], Lane (&m)[6]) {
  m[0] = y[0];
  m[1] = y[0] + y[1] * point_a;
  m[2] = y[0] - y[1] * point_a;
  m[3] = y[0] + y[1] * point_b;
  m[4] = y[0] - y[1] * point_b;
  m[5] = y[1];
}
// u = G g
constexpr float factor_0 = 1 / (square_a * square_b), factor_a = 0.5f / (square_a * (square_a - square_b)),
                factor_b = 0.5f / (square_b * (square_b - square_a));
HW4FAST_INLINE void filter_side(const Lane (&g)[3], Lane (&u)[4]) {
  const Lane even = (g[0] + g[2]) * 0.5f, odd = g[1] * 0.5f;
  u[0] = -g[0];
  u[1] = even + odd;
  u[2] = even - odd;
  u[3] = g[2];
}
HW4FAST_INLINE void filter_side(const Lane (&g)[5], Lane (&u)[6]) {
  const Lane even_a = ((g[4] * square_a + g[2]) * square_a + g[0]) * factor_a;
  const Lane even_b = ((g[4] * square_b + g[2]) * square_b + g[0]) * factor_b;
  const Lane odd_a = (g[3] * square_a + g[1]) * (factor_a * point_a);
  const Lane odd_b = (g[3] * square_b + g[1]) * (factor_b * point_b);
  u[0] = g[0] * factor_0;
  u[1] = even_a + odd_a;
  u[2] = even_a - odd_a;
  u[3] = even_b + odd_b;
  u[4] = even_b - odd_b;
  u[5] = g[4];
}
// g = Gᵀ u
HW4FAST_INLINE void filter_side_back(const Lane (&u)[4], Lane (&g)[3]) {
  const Lane even = (u[1] + u[2]) * 0.5f;
  g[0] = even - u[0];
  g[1] = (u[1] - u[2]) * 0.5f;
  g[2] = even + u[3];
}
HW4FAST_INLINE void filter_side_back(const Lane (&u)[6], Lane (&g)[5]) {
  const Lane even_a = (u[1] + u[2]) * factor_a, odd_a = (u[1] - u[2]) * (factor_a * point_a);
  const Lane even_b = (u[3] + u[4]) * factor_b, odd_b = (u[3] - u[4]) * (factor_b * point_b);
  g[0] = even_a + even_b + u[0] * factor_0;
  g[1] = odd_a + odd_b;
  g[2] = even_a * square_a + even_b * square_b;
  g[3] = odd_a * square_a + odd_b * square_b;
  g[4] = even_a * (square_a * square_a) + even_b * (square_b * square_b) + u[5];
}

// `side` along the columns of from(row, column), then along the rows; put(row, column, value) takes the results.
template <int from_side, int to_side, class Side, class From, class Put>
HW4FAST_INLINE void both_sides(const Side &side, const From &from, const Put &put) {
  Lane half[to_side][from_side];
#pragma GCC unroll 8
  for (int column = 0; column < from_side; ++column) {
    Lane in[from_side], out[to_side];
#pragma GCC unroll 8
    for (int i = 0; i < from_side; ++i) in[i] = from(i, column);
    side(in, out);
#pragma GCC unroll 8
    for (int i = 0; i < to_side; ++i) half[i][column] = out[i];
  }
#pragma GCC unroll 8
  for (int row = 0; row < to_side; ++row) {
    Lane out[to_side];
    side(half[row], out);
#pragma GCC unroll 8
    for (int column = 0; column < to_side; ++column) put(row, column, out[column]);
  }
}
