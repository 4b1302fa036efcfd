// What the kernels of conv_block share: packed pictures, ReLU and the pool, and Winograd's transforms.

// -- packed pictures ---------------------------------------------------------------------------------------------

// n numbers, few: without a call.
template <class T> HW4FAST_INLINE void conv_copy(const T *from, std::int64_t n, T *to) {
  for (std::int64_t i = 0; i < n; i += lanes<T>) store_some(to + i, load_some(from + i, n - i), n - i);
}

// Rows of `columns` numbers, one per channel and `step` apart → [column][pitch], zeros behind the channels. Squares of
// W × W are turned in registers.
template <class T> static void conv_turn(const T *from, std::int64_t step, std::int64_t channels, std::int64_t columns,
                                         std::int64_t pitch, T *to) {
  constexpr std::int64_t W = lanes<T>;
  for (std::int64_t c = 0; c < pitch; c += W)
    for (std::int64_t j = 0; j < columns; j += W) {
      const std::int64_t n = std::min(W, columns - j);
      Float<T> square[W];
      for (std::int64_t i = 0; i < W; ++i)
        square[i] = c + i < channels ? load_some(from + (c + i) * step + j, n) : Float<T>{};
      transpose<T>(square);
      for (std::int64_t i = 0; i < n; ++i) store_some(to + (j + i) * pitch + c, square[i], pitch - c);
    }
}

// `rows` packed rows of an image from its row `first` on, borders included, as [row][column][pitch]: the channels, and
// zeros up to `pitch` of them.
template <class T> static void conv_pack_pixels(const Strided<const T> &x, const ConvShape &s, std::int64_t image,
                                                std::int64_t first, std::int64_t rows, std::int64_t columns,
                                                std::int64_t pitch, T *to) {
  const std::int64_t inside = std::max<std::int64_t>(0, std::min(s.w, columns - s.pw));
  for (std::int64_t r = 0; r < rows; ++r, to += columns * pitch) {
    const std::int64_t y = first + conv_place(r, s.down, s.sh);
    if (0 <= y && y < s.h && s.across < s.sw) {
      for (std::int64_t j = 0; j < columns; ++j) {
        const std::int64_t column = conv_place(j, s.across, s.sw) - s.pw;
        const bool there = 0 <= column && column < s.w;
        for (std::int64_t c = 0; c < pitch; ++c)
          to[j * pitch + c] = there && c < s.c ? x.at(image, c, y)[column * x.w] : T(0);
      }
      continue;
    }
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
        conv_copy(from, s.c, at);
        for (std::int64_t c = s.c; c < pitch; ++c) at[c] = T(0);
      }
    } else if (x.w == 1) {
      conv_turn(x.at(image, 0, y), x.c, s.c, inside, pitch, at);
    } else {
      for (std::int64_t c = 0; c < pitch; ++c) {
        const T *from = c < s.c ? x.at(image, c, y) : nullptr;
        for (std::int64_t j = 0; j < inside; ++j) at[j * pitch + c] = from ? from[j * x.w] : T(0);
      }
    }
  }
}

// `channels` of dx [h][w][c] of an image, from `first` on, from their packed gradient [rows][columns][pitch], without
// the borders. Pixels that no output has seen have none.
template <class T> static void conv_unpack_pixels(const T *from, const ConvShape &s, std::int64_t image,
                                                  std::int64_t rows, std::int64_t columns, std::int64_t pitch,
                                                  std::int64_t first, std::int64_t channels, T *dx) {
  const std::int64_t seen = std::max<std::int64_t>(0, std::min(s.w, columns - s.pw));
  for (std::int64_t y = 0; y < s.h; ++y) {
    T *to = dx + (image * s.h + y) * s.w * s.c + first;
    const std::int64_t row = conv_packed(y + s.ph, s.down, s.sh);
    const bool there = 0 <= row && row < rows;
    const T *line = from + (there ? row * columns * pitch : 0);
    if (s.across < s.sw) {
      for (std::int64_t j = 0; j < s.w; ++j, to += s.c) {
        const std::int64_t column = conv_packed(j + s.pw, s.across, s.sw);
        if (there && 0 <= column && column < columns)
          conv_copy(line + column * pitch, channels, to);
        else
          std::fill(to, to + channels, T(0));
      }
      continue;
    }
    const std::int64_t count = there ? seen : 0;
    const T *at = line + s.pw * pitch;
    if (pitch == s.c)
      std::copy(at, at + count * pitch, to);
    else
      for (std::int64_t j = 0; j < count; ++j) conv_copy(at + j * pitch, channels, to + j * s.c);
    for (std::int64_t j = count; j < s.w; ++j) std::fill(to + j * s.c, to + j * s.c + channels, T(0));
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
  store_some(out, best, n);
  if (code && n >= lanes<T>) std::memcpy(code, &codes, sizeof codes);
  for (std::int64_t lane = 0; code && n < lanes<T> && lane < n; ++lane) code[lane] = codes[lane];
}

// One finished row of outputs for up to `width` channels: rows [side][cols·side][width], the second row_size behind the
// first → out, code [cols][o].
template <class T, bool pool, bool relu> static void conv_finish_as(const T *rows, std::int64_t width,
                                                                    std::int64_t row_size, const ConvShape &s,
                                                                    std::int64_t channels, T *out, std::uint8_t *code) {
  for (std::int64_t at = 0; at < std::min(width, channels); at += lanes<T>)
    for (std::int64_t j = 0; j < s.cols; ++j) {
      const T *from = rows + at + j * (pool ? 2 : 1) * width;
      Float<T> values[4] = {load(from)}, best;
      if (pool) {
        values[1] = load(from + width);
        values[2] = load(from + row_size);
        values[3] = load(from + row_size + width);
      }
      Int<T> which;
      conv_strongest<T>(values, pool ? 4 : 1, relu, best, which);
      conv_keep<T>(best, which, channels - at, out + j * s.o + at, code ? code + j * s.o + at : nullptr);
    }
}
template <class T> static void conv_finish(const T *rows, std::int64_t width, std::int64_t row_size, const ConvShape &s,
                                           std::int64_t channels, T *out, std::uint8_t *code) {
  const auto as = s.pool ? (s.relu ? conv_finish_as<T, true, true> : conv_finish_as<T, true, false>)
                         : (s.relu ? conv_finish_as<T, false, true> : conv_finish_as<T, false, false>);
  as(rows, width, row_size, s, channels, out, code);
}

// n codes into the first lanes of a vector, 0 behind them.
template <class T> HW4FAST_INLINE Int<T> conv_codes(const std::uint8_t *code, std::int64_t n) {
  typename Short<std::uint8_t, lanes<T>>::Vector kinds{};
  if (n >= lanes<T>) {
    std::memcpy(&kinds, code, sizeof kinds);
  } else {
    std::uint8_t few[lanes<T>] = {};
    std::memcpy(few, code, static_cast<std::size_t>(n));
    std::memcpy(&kinds, few, sizeof kinds);
  }
  return __builtin_convertvector(kinds, Int<T>);
}

// n numbers, `step` apart, into the first lanes of a vector, 0 behind them.
template <class T> HW4FAST_INLINE Float<T> conv_gather(const T *from, std::int64_t step, std::int64_t n) {
  if (step == 1) return load_some(from, n);
  alignas(64) T some[lanes<T>] = {};
  for (std::int64_t lane = 0; lane < std::min(n, lanes<T>); ++lane) some[lane] = from[lane * step];
  return load(some);
}

// -- Winograd's transforms ---------------------------------------------------------------------------------------

// Minimal filtering F(2×2, K×K), K = 3 or 5: a tile of 2×2 outputs y, which is one window of the pool,
//
//   y = Aᵀ [ Σ_c (G g_c Gᵀ) ⊙ (Bᵀ d_c B) ] A        d: the tile's (K+1)×(K+1) inputs, g: the filter
//
// takes P² products per channel, P = 4 for K = 3 and 7 for K = 5, where a direct sum takes 4·K²: 16 instead of 36, or
// 49 instead of 100. Its derivatives are the same products with the transposed matrices: dd = B [U ⊙ (A dy Aᵀ)] Bᵀ
// and dg = Gᵀ [V ⊙ (A dy Aᵀ)] G.
//
// Five taps are three and two: F(2, 3) at the points 0, 1, −1, ∞ and F(2, 2) at 0, 1, ∞. F(2, 5) itself takes 6² = 36
// products, but at any points its rounding errors are three times as large: twice torch's, where 1.8 times those of
// a direct sum of as many pieces are not.
//
// Source: Winograd, "Arithmetic Complexity of Computations" (1980); Lavin, Gray, "Fast Algorithms for Convolutional
// Neural Networks" (2016).

using Lane = Float<float>;
template <int K> constexpr int winograd_points = K == 3 ? 4 : 7;

// v = Bᵀ d
HW4FAST_INLINE void input_side(const Lane *d, Lane (&v)[4]) {
  v[0] = d[0] - d[2];
  v[1] = d[2] + d[1];
  v[2] = d[2] - d[1];
  v[3] = d[3] - d[1];
}
HW4FAST_INLINE void input_side(const Lane *d, Lane (&v)[7]) {
  Lane three[4];
  input_side(d, three);
  for (int i = 0; i < 4; ++i) v[i] = three[i];
  v[4] = d[3] - d[4];
  v[5] = d[4];
  v[6] = d[5] - d[4];
}
// d = B v
HW4FAST_INLINE void input_side_back(const Lane *v, Lane (&d)[4]) {
  d[0] = v[0];
  d[1] = v[1] - v[2] - v[3];
  d[2] = v[1] + v[2] - v[0];
  d[3] = v[3];
}
HW4FAST_INLINE void input_side_back(const Lane *v, Lane (&d)[6]) {
  Lane three[4];
  input_side_back(v, three);
  for (int i = 0; i < 3; ++i) d[i] = three[i];
  d[3] = three[3] + v[4];
  d[4] = v[5] - v[4] - v[6];
  d[5] = v[6];
}
// y = Aᵀ m
HW4FAST_INLINE void output_side(const Lane (&m)[4], Lane (&y)[2]) {
  y[0] = m[1] + m[2] + m[0];
  y[1] = m[1] - m[2] + m[3];
}
HW4FAST_INLINE void output_side(const Lane (&m)[7], Lane (&y)[2]) {
  y[0] = (m[1] + m[2]) + (m[0] + m[4]) + m[5];
  y[1] = (m[1] - m[2]) + (m[3] + m[6]) + m[5];
}
// m = A y, but for the points of F(2, 2): those are the same sums again, at winograd_same.
HW4FAST_INLINE void output_side_back(const Lane (&y)[2], Lane (&m)[4]) {
  m[0] = y[0];
  m[1] = y[0] + y[1];
  m[2] = y[0] - y[1];
  m[3] = y[1];
}
constexpr std::int64_t winograd_same[7] = {0, 1, 2, 3, 0, 1, 3};
// u = G g
HW4FAST_INLINE void filter_side(const Lane *g, Lane (&u)[4]) {
  const Lane even = (g[0] + g[2]) * 0.5f, odd = g[1] * 0.5f;
  u[0] = g[0];
  u[1] = even + odd;
  u[2] = even - odd;
  u[3] = g[2];
}
HW4FAST_INLINE void filter_side(const Lane *g, Lane (&u)[7]) {
  Lane three[4];
  filter_side(g, three);
  for (int i = 0; i < 4; ++i) u[i] = three[i];
  u[4] = g[3];
  u[5] = g[3] + g[4];
  u[6] = g[4];
}
// g = Gᵀ u
HW4FAST_INLINE void filter_side_back(const Lane *u, Lane (&g)[3]) {
  const Lane even = (u[1] + u[2]) * 0.5f;
  g[0] = even + u[0];
  g[1] = (u[1] - u[2]) * 0.5f;
  g[2] = even + u[3];
}
HW4FAST_INLINE void filter_side_back(const Lane *u, Lane (&g)[5]) {
  Lane three[3];
  filter_side_back(u, three);
  for (int i = 0; i < 3; ++i) g[i] = three[i];
  g[3] = u[4] + u[5];
  g[4] = u[6] + u[5];
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
