// Backward of conv_block: gradients of input x, weight and bias from the gradient g of the outputs.
//
// ReLU and the 2×2 maximum leave at most one of four convolution outputs with a gradient, and `code` says which. So
// the sums run over lists of (place, g) of the living outputs alone; a dense convolution would multiply by zero at
// least three times in four. Lanes run along the kernel row (kw·c numbers that lie side by side in channels-last
// memory), so one vector of x or of the weight is kernel columns and channels at once.

template <class T> struct ConvList {
  Label<T> *at;  // where an output's numbers begin, in elements
  T *g;
};

struct ConvPatch {                  // how packed pictures [row][column][c] lie in memory
  std::int64_t columns, row, size;  // columns per row, elements per row and of a whole band
  std::int64_t span, padded;        // kw·c, and that rounded up to whole vectors
  std::int64_t pixel, line;         // elements from output to output, across and down
};

// Calls call(R, V, row, vector) for tiles of R kernel rows × V vectors that cover kh rows × `vectors`, R·V <= most.
template <int most, int V, class Call>
static void conv_tile_rows(std::int64_t kh, std::int64_t vector, const Call &call) {
  for (std::int64_t row = 0; row < kh;) {
    const auto rows = [&](auto R) {
      if constexpr (R * V <= most || R == 1)
        if (row + R <= kh) {
          call(R, std::integral_constant<int, V>(), row, vector);
          row += R;
          return true;
        }
      return false;
    };
    rows(std::integral_constant<int, 7>()) || rows(std::integral_constant<int, 5>()) ||
        rows(std::integral_constant<int, 3>()) || rows(std::integral_constant<int, 2>()) ||
        rows(std::integral_constant<int, 1>());
  }
}
template <int most, class Call> static void conv_tiles(std::int64_t kh, std::int64_t vectors, const Call &call) {
  for (std::int64_t vector = 0; vector < vectors;) {
    const std::int64_t left = vectors - vector;
    if (left >= 6)
      conv_tile_rows<most, 6>(kh, vector, call), vector += 6;
    else if (left >= 5)
      conv_tile_rows<most, 5>(kh, vector, call), vector += 5;
    else if (left >= 3)
      conv_tile_rows<most, 3>(kh, vector, call), vector += 3;
    else if (left >= 2)
      conv_tile_rows<most, 2>(kh, vector, call), vector += 2;
    else
      conv_tile_rows<most, 1>(kh, vector, call), vector += 1;
  }
}

// sum[r][v] = Σ over the list of g · the vector at (at + row r, vector v).
template <class T, int R, int V>
HW4FAST_INLINE void conv_sum(ConvList<T> list, std::int64_t n, const T *from, std::int64_t row, Float<T> (&sum)[R][V]) {
  constexpr std::int64_t W = lanes<T>;
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = Float<T>{};
  for (std::int64_t i = 0; i < n; ++i) {
    const T *line = from + list.at[i];
    const T g = list.g[i];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r, line += row) {
      line = opaque(line);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] += load(line + v * W) * g;
    }
  }
}

// Where the output (row, j) of a band begins in its packed picture; `shift` adds for the four codes.
static void conv_shifts(const ConvShape &s, const ConvPatch &patch, std::int64_t *shift) {
  for (int k = 0; k < 4; ++k) shift[k] = (k >> 1) * s.down * patch.row + (k & 1) * s.across * s.c;
}

// One output's W channels from `first` on, and their codes; 0 and dead behind the last.
template <class T> HW4FAST_INLINE void conv_output(const ConvBackward<T> &p, std::int64_t image, std::int64_t row,
                                                   std::int64_t j, std::int64_t first, Float<T> &g, Int<T> &code) {
  const ConvShape &s = p.shape;
  const std::int64_t n = s.o - first;
  g = conv_gather(p.g.at(image, first, row) + j * p.g.w, p.g.c, n);
  code = p.code ? conv_codes<T>(p.code + ((image * s.rows + row) * s.cols + j) * s.o + first, n) : Int<T>{};
  if (n >= lanes<T>) return;
  for (std::int64_t lane = n; lane < lanes<T>; ++lane) code[lane] = code_dead;
}

// lists [o][most], length [o]: the living outputs of `count` rows from `first` on, per output channel. Adds their sums
// to db [o]. W outputs of W channels at a time, turned in registers.
template <class T> static void conv_lists(const ConvBackward<T> &p, const ConvPatch &patch, std::int64_t image,
                                          std::int64_t first, std::int64_t count, std::int64_t most, ConvList<T> lists,
                                          std::int64_t *length, T *db) {
  constexpr std::int64_t W = lanes<T>;
  const ConvShape &s = p.shape;
  std::int64_t shift[4];
  conv_shifts(s, patch, shift);
  std::fill(length, length + s.o, 0);
  for (std::int64_t begin = 0; begin < count * s.cols; begin += W)
    for (std::int64_t o = 0; o < s.o; o += W) {
      Float<T> g[W], codes[W], sum{};
      Int<T> at{};
      for (std::int64_t i = 0; i < W; ++i) {
        const std::int64_t row = (begin + i) / s.cols, j = (begin + i) % s.cols;
        Int<T> code = Int<T>{} + static_cast<Label<T>>(code_dead);
        g[i] = Float<T>{};
        if (row < count) conv_output(p, image, first + row, j, o, g[i], code);
        codes[i] = (Float<T>)code;
        at[i] = static_cast<Label<T>>(row * patch.line + j * patch.pixel);
        sum += code == static_cast<Label<T>>(code_dead) ? Float<T>{} : g[i];
      }
      transpose<T>(g);
      transpose<T>(codes);
      for (std::int64_t lane = 0; lane < std::min(W, s.o - o); ++lane) {
        const Int<T> code = (Int<T>)codes[lane], alive = code != static_cast<Label<T>>(code_dead);
        const Int<T> place =
            at + (code & 1) * static_cast<Label<T>>(shift[1]) + (code >> 1) * static_cast<Label<T>>(shift[2]);
        const std::int64_t end = (o + lane) * most + length[o + lane];
        length[o + lane] += compress(g[lane], place, alive, lists.g + end, lists.at + end);
        db[o + lane] += sum[lane];
      }
    }
}

// Adds to dw [o][kh][padded] what the lists give.
template <class T> static void conv_weight_gradient(const ConvShape &s, const ConvPatch &patch, const T *packed,
                                                    ConvList<T> lists, std::int64_t most, const std::int64_t *length,
                                                    T *dw) {
  constexpr std::int64_t W = lanes<T>;
  constexpr int registers = HW4FAST_VECTOR_BYTES == 64 ? 32 : 16;
  for (std::int64_t o = 0; o < s.o; ++o, dw += s.kh * patch.padded) {
    const ConvList<T> list{lists.at + o * most, lists.g + o * most};
    conv_tiles<registers - 6>(s.kh, patch.padded / W, [&](auto R, auto V, std::int64_t row, std::int64_t vector) {
      Float<T> sum[R()][V()];
      conv_sum<T, R(), V()>(list, length[o], packed + row * patch.row + vector * W, patch.row, sum);
      for (int r = 0; r < R(); ++r)
        for (int v = 0; v < V(); ++v) {
          T *to = dw + (row + r) * patch.padded + (vector + v) * W;
          store(to, load(to) + sum[r][v]);
        }
    });
  }
}

// The same for few input channels, where a kernel row would fill little of a vector: lanes run along the output
// channels. Each lane needs one of four numbers of the picture, by its code; the four lie side by side in `fours`
// [row][column][c][4], so that one permutation of what is loaded gives every lane its own.
template <class T>
static void conv_pack_fours(const ConvShape &s, const ConvPatch &patch, std::int64_t rows, const T *packed, T *fours) {
  std::int64_t shift[4];
  conv_shifts(s, patch, shift);
  const std::int64_t end = rows * patch.row;
  const std::int64_t whole = std::max<std::int64_t>(0, end - shift[3]);  // shift[3] is the largest
  for (std::int64_t i = 0; i < whole; ++i)
    for (int k = 0; k < 4; ++k) fours[4 * i + k] = packed[i + shift[k]];
  for (std::int64_t i = whole; i < end; ++i)
    for (int k = 0; k < 4; ++k) fours[4 * i + k] = i + shift[k] < end ? packed[i + shift[k]] : T(0);
}

// sum[t] = Σ g · (each lane's own number at tap t) over the outputs of `count` rows; codes and g: [count · cols].
template <class T, int N> static void conv_sum_fours(const ConvShape &s, const ConvPatch &patch, std::int64_t count,
                                                     const T *fours, const Int<T> *codes, const Float<T> *g,
                                                     const std::int64_t *tap, Float<T> *sum) {
  Float<T> local[N];
  for (int t = 0; t < N; ++t) local[t] = Float<T>{};
  for (std::int64_t r = 0; r < count; ++r)
    for (std::int64_t j = 0; j < s.cols; ++j, ++codes, ++g) {
      const T *at = fours + 4 * (r * patch.line + j * patch.pixel);
      const Int<T> code = *codes;
      const Float<T> grad = *g;
#pragma GCC unroll 32
      for (int t = 0; t < N; ++t) local[t] += pick<T>(at + tap[t], code) * grad;
    }
  for (int t = 0; t < N; ++t) sum[t] = local[t];
}

// codes and grads [count · cols] of W output channels from `first_o` on, 0 where there are none or they are dead;
// returns the sum of grads.
template <class T> static Float<T> conv_lanes(const ConvBackward<T> &p, std::int64_t image, std::int64_t first_o,
                                              std::int64_t first, std::int64_t count, Int<T> *codes, Float<T> *grads) {
  const ConvShape &s = p.shape;
  Float<T> total{};
  for (std::int64_t r = first; r < first + count; ++r)
    for (std::int64_t j = 0; j < s.cols; ++j) {
      Float<T> grad;
      Int<T> which;
      conv_output(p, image, r, j, first_o, grad, which);
      grad = which == static_cast<Label<T>>(code_dead) ? Float<T>{} : grad;
      *codes++ = which & 3;
      *grads++ = grad;
      total += grad;
    }
  return total;
}

template <class T> static void conv_weight_gradient_fours(const ConvBackward<T> &p, const ConvPatch &patch,
                                                          std::int64_t image, std::int64_t first, std::int64_t count,
                                                          const T *fours, Int<T> *codes, Float<T> *grads, T *dw,
                                                          T *db) {
  constexpr std::int64_t W = lanes<T>;
  const ConvShape &s = p.shape;
  const std::int64_t taps = s.kh * patch.span;
  std::int64_t tap[conv_few_taps];
  for (std::int64_t t = 0; t < taps; ++t) tap[t] = 4 * (t / patch.span * patch.row + t % patch.span);
  for (std::int64_t o = 0; o < s.o; o += W) {
    const Float<T> bias = conv_lanes(p, image, o, first, count, codes, grads);
    Float<T> sums[conv_few_taps];
    for (std::int64_t t = 0; t < taps;) {
      const auto some = [&](auto N) {
        if (N > (HW4FAST_VECTOR_BYTES == 64 ? 25 : 12) || t + N > taps) return false;
        conv_sum_fours<T, N()>(s, patch, count, fours, codes, grads, tap + t, sums + t);
        t += N;
        return true;
      };
      some(std::integral_constant<int, 25>()) || some(std::integral_constant<int, 12>()) ||
          some(std::integral_constant<int, 9>()) || some(std::integral_constant<int, 5>()) ||
          some(std::integral_constant<int, 2>()) || some(std::integral_constant<int, 1>());
    }
    for (std::int64_t lane = 0; lane < std::min(W, s.o - o); ++lane) {
      T *to = dw + (o + lane) * s.kh * patch.padded;
      for (std::int64_t i = 0, t = 0; i < s.kh; ++i, to += patch.padded)
        for (std::int64_t k = 0; k < patch.span; ++k) to[k] += sums[t++][lane];
      db[o + lane] += bias[lane];
    }
  }
}

// Adds to dx, a whole packed image, what output row `row` gives. lists: [group][4][most], the living output channels of
// each of a few neighbouring outputs by code.
template <class T> static void conv_input_gradient(const ConvBackward<T> &p, const ConvPatch &patch, std::int64_t image,
                                                   std::int64_t row, std::int64_t most, ConvList<T> lists, T *dx) {
  constexpr std::int64_t W = lanes<T>, group = conv_group;
  const ConvShape &s = p.shape;
  const std::int64_t cols = s.cols, filter = s.kh * patch.padded;
  std::int64_t shift[4], length[group][4];
  conv_shifts(s, patch, shift);
  Float<T> inside{};  // lanes of a kernel row's last vector that are not behind its end
  Int<T> filters{};   // where the filters of W channels begin
  for (std::int64_t lane = 0; lane < W; ++lane) {
    inside[lane] = patch.padded - W + lane < patch.span ? T(1) : T(0);
    filters[lane] = static_cast<Label<T>>(lane * filter);
  }

  for (std::int64_t first = 0; first < cols; first += group) {
    const std::int64_t count = std::min(group, cols - first);
    for (std::int64_t j = 0; j < count; ++j) {
      std::fill(length[j], length[j] + 4, 0);
      for (std::int64_t o = 0; o < s.o; o += W) {
        Float<T> g;
        Int<T> code;
        conv_output(p, image, row, first + j, o, g, code);
        for (std::int64_t k = 0; k < s.side * s.side; ++k) {
          const std::int64_t end = (j * 4 + k) * most + length[j][k];
          length[j][k] += compress(g, filters + static_cast<Label<T>>(o * filter), code == static_cast<Label<T>>(k),
                                   lists.g + end, lists.at + end);
        }
      }
    }
    // a few registers' worth of the weight at a time, which then stays in the first-level cache for the whole group
    conv_tiles<15>(s.kh, patch.padded / W, [&](auto R, auto V, std::int64_t r0, std::int64_t vector) {
      const bool ends = vector + V() == patch.padded / W;
      const T *weight = p.weight + r0 * patch.padded + vector * W;
      for (std::int64_t j = 0; j < count; ++j)
        for (int k = 0; k < 4; ++k) {
          if (length[j][k] == 0) continue;
          Float<T> sum[R()][V()];
          const ConvList<T> list{lists.at + (j * 4 + k) * most, lists.g + (j * 4 + k) * most};
          conv_sum<T, R(), V()>(list, length[j][k], weight, patch.padded, sum);
          T *to = dx + row * patch.line + (first + j) * patch.pixel + shift[k] + r0 * patch.row + vector * W;
          for (int r = 0; r < R(); ++r)
            for (int v = 0; v < V(); ++v) {
              T *place = to + r * patch.row + v * W;
              const Float<T> kept = ends && v == V() - 1 ? (inside > Float<T>{} ? sum[r][v] : Float<T>{}) : sum[r][v];
              store(place, load(place) + kept);
            }
        }
    });
  }
}

// Images [begin, end): writes their p.dx and adds to dw [o][kh][padded], with db [o] behind it; each may be null.
template <class T> static void conv_backward_images(ConvBackward<T> p, std::int64_t begin, std::int64_t end, T *dw) {
  constexpr std::int64_t W = lanes<T>;
  const ConvShape s = p.shape;
  ConvPatch patch;
  patch.columns = conv_columns(s);
  patch.row = patch.columns * s.c;
  patch.span = s.kw * s.c;
  patch.padded = conv_padded(s, W);
  patch.pixel = s.side * s.across * s.c;
  patch.line = s.side * s.down * patch.row;
  const std::int64_t step = s.side * s.down, overlap = (s.side - 1) * s.down + s.kh;
  const std::int64_t whole = (s.rows - 1) * step + overlap;  // packed rows of an image
  const std::int64_t room = 24 * 1024 / static_cast<std::int64_t>(sizeof(T)) / patch.row;
  const std::int64_t band = std::min(s.rows, std::max<std::int64_t>(1, (room - overlap) / step + 1));
  const std::int64_t most = band * s.cols + W, most_o = s.o + W;  // entries of a list, and room for a vector behind
  const std::int64_t size = ((band - 1) * step + overlap) * patch.row;
  const Scratch<T> packed(dw ? size + W : 0), dx(p.dx ? whole * patch.row + W : 0);
  const std::int64_t entries = std::max(dw ? s.o * most : 0, p.dx ? conv_group * 4 * most_o : 0);
  const Scratch<Label<T>> places(entries);
  const Scratch<T> values(entries);
  const ConvList<T> lists{places.get(), values.get()};
  const Scratch<std::int64_t> length(s.o);
  const bool few = dw && s.kh * patch.span <= conv_few_taps;  // else kernel rows fill vectors well enough
  const Scratch<T> fours(few ? 4 * size + W : 0);
  const Scratch<Int<T>> codes(few ? most : 0);
  const Scratch<Float<T>> grads(few ? most : 0);
  if (few) std::fill(fours.get() + 4 * size, fours.get() + 4 * size + W, T(0));
  if (dw) std::fill(packed.get() + size, packed.get() + size + W, T(0));  // what the last vector reads beyond

  // a gradient whose channels are no neighbours, as a linear layer behind the block gives it, is turned first
  const Strided<const T> given = p.g;
  const Scratch<T> turned(given.c == 1 ? 0 : s.rows * s.cols * s.o);
  ConvShape outputs = s;
  outputs.c = s.o, outputs.h = s.rows, outputs.w = s.cols, outputs.ph = outputs.pw = 0;
  outputs.sh = outputs.sw = outputs.down = outputs.across = 1;
  if (given.h == s.cols * given.w) outputs.h = 1, outputs.w = s.rows * s.cols;  // one row, for longer vectors

  for (std::int64_t image = begin; image < end; ++image) {
    if (given.c != 1) {
      conv_pack_pixels(given, outputs, image, 0, outputs.h, outputs.w, s.o, turned.get());
      p.g = {turned.get(), 0, 1, s.cols * s.o, s.o};
    }
    for (std::int64_t row = 0; dw && row < s.rows; row += band) {
      const std::int64_t count = std::min(band, s.rows - row);
      conv_pack_pixels(p.x, s, image, row * s.side * s.sh - s.ph, (count - 1) * step + overlap, patch.columns, s.c,
                       packed.get());
      T *db = dw + s.o * s.kh * patch.padded;
      if (few) {
        conv_pack_fours(s, patch, (count - 1) * step + overlap, packed.get(), fours.get());
        conv_weight_gradient_fours(p, patch, image, row, count, fours.get(), codes.get(), grads.get(), dw, db);
      } else {
        conv_lists(p, patch, image, row, count, most, lists, length.get(), db);
        conv_weight_gradient(s, patch, packed.get(), lists, most, length.get(), dw);
      }
    }
    if (!p.dx) continue;
    std::fill(dx.get(), dx.get() + whole * patch.row + W, T(0));
    for (std::int64_t row = 0; row < s.rows; ++row) conv_input_gradient(p, patch, image, row, most_o, lists, dx.get());
    conv_unpack_pixels(dx.get(), s, image, whole, patch.columns, s.c, 0, s.c, p.dx);
  }
}

// weight [o][c][kh][kw] → [o][kh][padded], a kernel row as kw·c, zeros behind it.
template <class T> static void conv_rows_of_weight(const T *weight, const ConvShape &s, T *to) {
  const std::int64_t padded = conv_padded(s, lanes<T>);
  for (std::int64_t o = 0; o < s.o; ++o)
    for (std::int64_t i = 0; i < s.kh; ++i, to += padded) {
      for (std::int64_t k = 0; k < s.kw; ++k)
        for (std::int64_t c = 0; c < s.c; ++c) to[k * s.c + c] = weight[((o * s.c + c) * s.kh + i) * s.kw + k];
      std::fill(to + s.kw * s.c, to + padded, T(0));
    }
}

// Output channels [begin, end): sums of `groups` partial dw, `size` apart, → dw [o][c][kh][kw]; db likewise.
template <class T> static void conv_reduce(const ConvShape &s, std::int64_t groups, const T *parts, std::int64_t size,
                                           T *dw, T *db, std::int64_t begin, std::int64_t end) {
  const std::int64_t padded = conv_padded(s, lanes<T>), filter = s.kh * padded;
  const Scratch<T> total(filter);
  for (std::int64_t o = begin; o < end; ++o) {
    std::fill(total.get(), total.get() + filter, T(0));
    T bias = 0;
    for (std::int64_t group = 0; group < groups; ++group) {
      const T *part = parts + group * size;
      for (std::int64_t i = 0; i < filter; ++i) total.get()[i] += part[o * filter + i];
      bias += part[s.o * filter + o];
    }
    if (db) db[o] = bias;
    if (!dw) continue;
    T *to = dw + o * s.c * s.kh * s.kw;
    for (std::int64_t c = 0; c < s.c; ++c)
      for (std::int64_t i = 0; i < s.kh; ++i)
        for (std::int64_t k = 0; k < s.kw; ++k) *to++ = total.get()[i * padded + k * s.c + c];
  }
}
