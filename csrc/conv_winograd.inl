// Forward by Winograd's algorithm (conv.inl): convolution, bias, ReLU and 2×2 maximum, a few tiles at a time.
//
//   pack       the input of some rows of tiles: channels-last, whole vectors of channels, borders and all
//   for each row of the N × N transformed places of P tiles
//     transform  V = Bᵀ d B                                                [column][block][P][W]
//     multiply   for each column and 2·W output channels: M = Σ_c V·U      [column][P][2·W], in registers
//     halve      M A                                                       [row][2][P][2·W]
//   finish     y = Aᵀ M A, bias, ReLU, maximum, code
//
// place = row·N + column of a transformed tile, N points; block = W input channels, W = lanes.

// out [P][V·W] = Σ_k a·u over `channels` of them (a multiple of W unless it ends the sum): a [channels / W][P][W],
// `block` from one to the next; u [channels][V·W]. Sums of over 128 products are taken in pieces.
template <int P, int V>
static void winograd_multiply(const float *a, std::int64_t block, const float *u, std::int64_t channels, float *out) {
  constexpr std::int64_t W = lanes<float>, piece = 128;
  for (std::int64_t begin = 0; begin < channels; begin += piece) {
    Lane sum[P][V] = {};
    for (std::int64_t k0 = begin; k0 < std::min(begin + piece, channels); k0 += W, a += block) {
      const std::int64_t some = std::min(W, channels - k0);
      const float *at = a;
      for (std::int64_t k = 0; k < some; ++k, ++at, u += V * W) {
        Lane filter[V];
        for (int v = 0; v < V; ++v) filter[v] = load(u + v * W);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p)
          for (int v = 0; v < V; ++v) sum[p][v] += filter[v] * at[p * W];
      }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < V; ++v) {
        float *to = out + (p * V + v) * W;
        store(to, begin ? load(to) + sum[p][v] : sum[p][v]);
      }
  }
}

using WinogradMultiply = void (*)(const float *, std::int64_t, const float *, std::int64_t, float *);
constexpr int winograd_most_tiles = HW4FAST_VECTOR_BYTES == 64 ? 14 : 6;  // with V = 2, in 32 or 16 registers
template <int V> static WinogradMultiply winograd_choose(std::int64_t tiles) {
  static constexpr WinogradMultiply all[] = {
      winograd_multiply<1, V>,  winograd_multiply<2, V>,  winograd_multiply<3, V>,  winograd_multiply<4, V>,
      winograd_multiply<5, V>,  winograd_multiply<6, V>,
#if HW4FAST_VECTOR_BYTES == 64
      winograd_multiply<7, V>,  winograd_multiply<8, V>,  winograd_multiply<9, V>,  winograd_multiply<10, V>,
      winograd_multiply<11, V>, winograd_multiply<12, V>, winograd_multiply<13, V>, winograd_multiply<14, V>,
#endif
  };
  return all[tiles - 1];
}

// Filters [begin, end) of the sum: weight, with K·K numbers per filter, `lane` apart along the lanes and `term` along
// the sum → [block of 2·W lanes][place][terms][V·W], zeros behind the last of `count` lanes. V = 1 if that is enough.
template <int K> static void winograd_filters(const float *weight, std::int64_t count, std::int64_t lane,
                                              std::int64_t terms, std::int64_t term, std::int64_t begin,
                                              std::int64_t end, float *to) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>;
  for (std::int64_t first = 0; first < count; first += W) {
    const std::int64_t block = first / (2 * W) * 2 * W, width = count - block > W ? 2 * W : W;
    float *out = to + block * N * N * terms + first - block;
    for (std::int64_t k = begin; k < end; ++k) {
      alignas(64) float turned[K * K * W];
      conv_turn(weight + first * lane + k * term, lane, count - first, K * K, W, turned);
      both_sides<K, N>([](const auto &g, auto &u) { filter_side(g, u); },
                       [&](int i, int j) { return load(turned + (i * K + j) * W); },
                       [&](int i, int j, Lane u) { store(out + ((i * N + j) * terms + k) * width, u); });
    }
  }
}

// Rows of tiles of one image as they lie packed: [row][column][pitch].
struct WinogradBand {
  std::int64_t down, across;        // tiles of an image
  std::int64_t columns, pitch;      // pixels per packed row, elements per pixel
  std::int64_t row, most, overlap;  // elements per packed row, rows of tiles in a band, input rows beyond two a tile

  explicit WinogradBand(const ConvShape &s, std::int64_t room) {
    down = (s.rows * s.side + 1) / 2;
    across = (s.cols * s.side + 1) / 2;
    overlap = s.kh - 1;
    columns = 2 * across + overlap;
    pitch = (s.c + lanes<float> - 1) / lanes<float> * lanes<float>;
    row = columns * pitch;
    most = std::clamp<std::int64_t>((room / row - overlap) / 2, 1, down);
  }
  std::int64_t size() const { return (2 * most + overlap) * row; }
};

// Row `row` of V of one tile for all channels: from its corner in the packed picture to [column][block][tiles][W].
template <int K, int row>
static void winograd_input_row(const float *from, const WinogradBand &band, float *to, std::int64_t tiles) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>;
  const std::int64_t step = band.pitch * tiles;
  for (std::int64_t c = 0; c < band.pitch; c += W, from += W, to += tiles * W) {
    Lane half[K + 1], v[N];
#pragma GCC unroll 8
    for (int j = 0; j <= K; ++j) {
      Lane d[K + 1];  // of which `row` needs a few, and no more are loaded
#pragma GCC unroll 8
      for (int i = 0; i <= K; ++i) d[i] = load(from + i * band.row + j * band.pitch);
      input_side(d, v);
      half[j] = v[row];
    }
    input_side(half, v);
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) store(to + j * step, v[j]);
  }
}
template <int K, int... row> static constexpr auto winograd_input_rows(std::integer_sequence<int, row...>) {
  return std::array{&winograd_input_row<K, row>...};
}

// One row of places: products [column][tiles][width] → m A, [2][tiles][width].
template <int K> static void winograd_halve(const float *products, std::int64_t size, float *to) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>;
  for (std::int64_t i = 0; i < size; i += W) {
    Lane m[N], y[2];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) m[j] = load(products + j * size + i);
    output_side(m, y);
    store(to + i, y[0]);
    store(to + size + i, y[1]);
  }
}

// The outputs of one tile for up to `channels` of them, from halves [row][2][tiles][width], `step` between those.
// Without the pool: y [2][2], of which the tile's `rows` × `cols` exist.
template <int K, bool pool> static void winograd_finish(const float *halves, std::int64_t step, const float *bias,
                                                        const ConvShape &s, std::int64_t rows, std::int64_t cols,
                                                        std::int64_t channels, float *out, std::uint8_t *code) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>;
  for (std::int64_t at = 0; at < channels; at += W) {
    const Lane shift = load(bias + at);
    Lane values[4], best;
    Int<float> which;
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      Lane m[N], y[2];
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) m[i] = load(halves + at + (i * 2 + k) * step);
      output_side(m, y);
      values[k] = y[0] + shift;
      values[2 + k] = y[1] + shift;
    }
    if (pool) {
      conv_strongest<float>(values, 4, s.relu, best, which);
      conv_keep<float>(best, which, channels - at, out + at, code ? code + at : nullptr);
      continue;
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      if (k / 2 >= rows || k % 2 >= cols) continue;
      const std::int64_t place = (k / 2 * s.cols + k % 2) * s.o + at;
      conv_strongest<float>(values + k, 1, s.relu, best, which);
      conv_keep<float>(best, which, channels - at, out + place, code ? code + place : nullptr);
    }
  }
}

// Rows of tiles [begin, end) of the whole batch, `down` per image. filters as packed above, bias padded by zeros. A few
// tiles at a time, one row of places after the other: what lies between the steps then stays in the first-level cache.
template <int K> static void winograd_rows(const Strided<const float> &x, const float *filters, const float *bias,
                                           const ConvShape &s, float *out, std::uint8_t *code, std::int64_t begin,
                                           std::int64_t end) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>, most = winograd_most_tiles;
  constexpr auto input_rows = winograd_input_rows<K>(std::make_integer_sequence<int, N>());
  const WinogradBand band(s, 16384);
  const std::int64_t padded = (s.o + W - 1) / W * W, scale = 2 / s.side;  // scale: outputs per tile, down and across
  const Scratch<float> packed(band.size()), inputs(N * band.pitch * most), products(N * most * 2 * W);
  const Scratch<float> halves(N * 2 * most * padded);
  const auto finish = s.pool ? winograd_finish<K, true> : winograd_finish<K, false>;
  while (begin < end) {
    const std::int64_t image = begin / band.down, first_row = begin % band.down;
    const std::int64_t count = std::min({band.most, end - begin, band.down - first_row}), all = count * band.across;
    conv_pack_pixels(x, s, image, 2 * first_row - s.ph, 2 * count + band.overlap, band.columns, band.pitch,
                     packed.get());
    const std::int64_t blocks = (all + most - 1) / most;
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t first = all * block / blocks, tiles = all * (block + 1) / blocks - first;
      std::int64_t down[most], across[most];
      for (std::int64_t t = 0; t < tiles; ++t)
        down[t] = (first + t) / band.across, across[t] = (first + t) % band.across;
      for (std::int64_t i = 0; i < N; ++i) {
        for (std::int64_t t = 0; t < tiles; ++t)
          input_rows[i](packed.get() + (down[t] * band.columns + across[t]) * 2 * band.pitch, band,
                        inputs.get() + t * W, tiles);
        for (std::int64_t o = 0; o < s.o; o += 2 * W) {
          const std::int64_t width = s.o - o > W ? 2 * W : W;
          const auto multiply = width > W ? winograd_choose<2>(tiles) : winograd_choose<1>(tiles);
          const float *u = filters + o * N * N * s.c + i * N * s.c * width;
          for (std::int64_t j = 0; j < N; ++j, u += s.c * width)
            multiply(inputs.get() + j * band.pitch * tiles, tiles * W, u, s.c, products.get() + j * tiles * width);
          winograd_halve<K>(products.get(), tiles * width, halves.get() + (o * N + i * width) * 2 * tiles);
        }
      }
      for (std::int64_t o = 0; o < s.o; o += 2 * W) {
        const std::int64_t width = s.o - o > W ? 2 * W : W;
        for (std::int64_t t = 0; t < tiles; ++t) {
          const std::int64_t row = (first_row + down[t]) * scale, column = across[t] * scale;
          const std::int64_t at = ((image * s.rows + row) * s.cols + column) * s.o + o;
          finish(halves.get() + o * N * 2 * tiles + t * width, tiles * width, bias + o, s, s.rows - row,
                 s.cols - column, std::min(width, s.o - o), out + at, code ? code + at : nullptr);
        }
      }
    }
    begin += count;
  }
}

// -- backward ----------------------------------------------------------------------------------------------------

// V of one tile for all channels: from its corner in the packed picture to [place][block][tiles][W].
template <int K>
static void winograd_input(const float *from, const WinogradBand &band, float *to, std::int64_t tiles) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>;
  const std::int64_t step = band.pitch * tiles;
  for (std::int64_t c = 0; c < band.pitch; c += W, from += W, to += tiles * W) {
    both_sides<K + 1, N>([](const auto &d, auto &v) { input_side(d, v); },
                         [&](int i, int j) { return load(from + i * band.row + j * band.pitch); },
                         [&](int i, int j, Lane v) { store(to + (i * N + j) * step, v); });
  }
}

// Where dM of a place lies among the 16 that differ.
template <int K> HW4FAST_INLINE std::int64_t winograd_grad_place(std::int64_t place) {
  constexpr std::int64_t N = winograd_points<K>;
  return winograd_same[place / N] * 4 + winograd_same[place % N];
}

// dM = A dy Aᵀ of one tile for all output channels: from its outputs' gradients, where they are alive, to
// [one of 16 places][block][tiles][W], which serve all of 49. Adds dy to db. The arguments are those of
// winograd_finish.
static inline void winograd_gradient(const WinogradGradient &p, std::int64_t image, std::int64_t row,
                                     std::int64_t column, std::int64_t pitch, std::int64_t tiles, float *to,
                                     float *db) {
  constexpr std::int64_t W = lanes<float>, N = 4;
  const ConvShape &s = p.shape;
  const std::int64_t step = pitch * tiles;
  for (std::int64_t o = 0; o < pitch; o += W, to += tiles * W) {
    const std::int64_t n = std::min(W, s.o - o);
    Lane dy[4] = {};
    const auto at = [&](std::int64_t r, std::int64_t c, Lane &g, Int<float> &code) {
      g = conv_gather(p.g.at(image, o, r) + c * p.g.w, p.g.c, n);
      code = p.code ? conv_codes<float>(p.code + ((image * s.rows + r) * s.cols + c) * s.o + o, n) : Int<float>{};
    };
    Lane g;
    Int<float> code;
    if (s.pool) {
      at(row, column, g, code);
      for (int k = 0; k < 4; ++k) dy[k] = code == k ? g : Lane{};
    } else {
      for (int k = 0; k < 4; ++k) {
        if (row + k / 2 >= s.rows || column + k % 2 >= s.cols) continue;
        at(row + k / 2, column + k % 2, g, code);
        dy[k] = code == 0 ? g : Lane{};
      }
    }
    store(db + o, load(db + o) + ((dy[0] + dy[1]) + (dy[2] + dy[3])));
    both_sides<2, N>([](const auto &y, auto &m) { output_side_back(y, m); },
                     [&](int i, int j) { return dy[i * 2 + j]; },
                     [&](int i, int j, Lane m) { store(to + (i * N + j) * step, m); });
  }
}

// dU of one place: sums [R][V·W] += Σ_tiles V·dM for R input channels and V·W output channels; a [tiles][W] at the
// first of those R, b [V][tiles][W]. In pieces of 32 products, whose rounding errors don't grow with the whole.
template <int R, int V>
static void winograd_outer(const float *a, const float *b, std::int64_t tiles, float *sums, std::int64_t row) {
  constexpr std::int64_t W = lanes<float>, piece = 32;
  for (std::int64_t begin = 0; begin < tiles; begin += piece) {
    Lane sum[R][V] = {};
    for (std::int64_t t = begin; t < std::min(begin + piece, tiles); ++t) {
      Lane grad[V];
      for (int v = 0; v < V; ++v) grad[v] = load(b + (v * tiles + t) * W);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) sum[r][v] += grad[v] * a[t * W + r];
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        float *to = sums + r * row + v * W;
        store(to, load(to) + sum[r][v]);
      }
  }
}

template <int K> static void winograd_weight_gradient(const float *inputs, std::int64_t pitch, const float *grads,
                                                      std::int64_t grad_pitch, std::int64_t tiles, float *sums) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>, R = HW4FAST_VECTOR_BYTES == 64 ? 8 : 4;
  for (std::int64_t place = 0; place < N * N; ++place)
    for (std::int64_t c = 0; c < pitch; c += R) {
      const float *a = inputs + (place * pitch + c / W * W) * tiles + c % W;
      float *to = sums + (place * pitch + c) * grad_pitch;
      for (std::int64_t o = 0; o < grad_pitch; o += 2 * W) {
        const float *b = grads + (winograd_grad_place<K>(place) * grad_pitch + o) * tiles;
        grad_pitch - o > W ? winograd_outer<R, 2>(a, b, tiles, to + o, grad_pitch)
                           : winograd_outer<R, 1>(a, b, tiles, to + o, grad_pitch);
      }
    }
}

// Adds to dx [row][column][pitch], at a tile's corner, B [Uᵀ ⊙ dM] Bᵀ: products [place][·][width], `step` apart.
template <int K> static void winograd_input_back(const float *products, std::int64_t step, std::int64_t width,
                                                 const WinogradBand &band, float *dx) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>;
  for (std::int64_t c = 0; c < width; c += W)
    both_sides<N, K + 1>([](const auto &v, auto &d) { input_side_back(v, d); },
                         [&](int i, int j) { return load(products + c + (i * N + j) * step); },
                         [&](int i, int j, Lane d) {
                           float *to = dx + i * band.row + j * band.pitch + c;
                           store(to, load(to) + d);
                         });
}

// Images [begin, end): writes their p.dx and adds to sums, dU [place][pitch][grad_pitch] with db behind it (null: not
// wanted). filters: U with lanes along the input channels, summed over the output channels.
template <int K>
static void winograd_backward_images(const WinogradGradient &p, std::int64_t begin, std::int64_t end, float *sums) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>, places = N * N, most = winograd_most_tiles;
  const ConvShape &s = p.shape;
  WinogradBand band(s, 0);
  const std::int64_t pitch = band.pitch, grad_pitch = (s.o + W - 1) / W * W, scale = 2 / s.side;
  band.most = std::clamp<std::int64_t>(131072 / ((places * pitch + 16 * grad_pitch) * band.across), 1, band.down);
  const std::int64_t most_tiles = band.most * band.across, whole = 2 * band.down + band.overlap;
  const Scratch<float> packed(sums ? band.size() : 0), inputs(sums ? places * pitch * most_tiles : 0);
  const Scratch<float> grads(16 * grad_pitch * most_tiles), unwanted(sums ? 0 : grad_pitch), some_db(grad_pitch);
  const Scratch<float> products(p.dx ? places * most * 2 * W : 0), dx(p.dx ? whole * band.row : 0);
  float *db = sums ? sums + places * pitch * grad_pitch : unwanted.get();
  std::fill(some_db.get(), some_db.get() + grad_pitch, 0.0f);
  if (!sums) std::fill(db, db + grad_pitch, 0.0f);

  for (std::int64_t image = begin; image < end; ++image) {
    if (p.dx) std::fill(dx.get(), dx.get() + whole * band.row, 0.0f);
    for (std::int64_t first = 0; first < band.down; first += band.most) {
      const std::int64_t count = std::min(band.most, band.down - first), tiles = count * band.across;
      const auto corner = [&](std::int64_t t) {
        return (t / band.across * band.columns + t % band.across) * 2 * pitch;
      };
      for (std::int64_t t = 0; t < tiles; ++t) {
        winograd_gradient(p, image, (first + t / band.across) * scale, t % band.across * scale, grad_pitch, tiles,
                          grads.get() + t * W, some_db.get());
        if (t % 16 != 15 && t + 1 < tiles) continue;
        for (std::int64_t o = 0; o < grad_pitch; ++o) db[o] += std::exchange(some_db.get()[o], 0.0f);
      }
      if (sums) {
        conv_pack_pixels(p.x, s, image, 2 * first - s.ph, 2 * count + band.overlap, band.columns, pitch, packed.get());
        for (std::int64_t t = 0; t < tiles; ++t)
          winograd_input<K>(packed.get() + corner(t), band, inputs.get() + t * W, tiles);
        winograd_weight_gradient<K>(inputs.get(), pitch, grads.get(), grad_pitch, tiles, sums);
      }
      if (!p.dx) continue;
      const std::int64_t blocks = (tiles + most - 1) / most;
      for (std::int64_t i = 0; i < blocks; ++i) {
        const std::int64_t t0 = tiles * i / blocks, some = tiles * (i + 1) / blocks - t0;
        for (std::int64_t c = 0; c < s.c; c += 2 * W) {
          const std::int64_t width = s.c - c > W ? 2 * W : W;
          const auto multiply = width > W ? winograd_choose<2>(some) : winograd_choose<1>(some);
          const float *u = p.filters + c * places * s.o;
          for (std::int64_t place = 0; place < places; ++place, u += s.o * width)
            multiply(grads.get() + winograd_grad_place<K>(place) * grad_pitch * tiles + t0 * W, tiles * W, u, s.o,
                     products.get() + place * some * width);
          for (std::int64_t t = 0; t < some; ++t)
            winograd_input_back<K>(products.get() + t * width, some * width, width, band,
                                   dx.get() + first * 2 * band.row + corner(t0 + t) + c);
        }
      }
    }
    if (p.dx) conv_unpack_pixels(dx.get(), s, image, whole, band.columns, pitch, 0, s.c, p.dx);
  }
}

// Input channels [begin, end): dU of all groups, `size` apart, in order → dw [o][c][K][K].
template <int K> static void winograd_reduce(const ConvShape &s, std::int64_t groups, const float *parts,
                                             std::int64_t size, float *dw, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t W = lanes<float>, N = winograd_points<K>;
  const std::int64_t pitch = (s.c + W - 1) / W * W, grad_pitch = (s.o + W - 1) / W * W;
  for (std::int64_t c = begin; c < end; ++c)
    for (std::int64_t o = 0; o < s.o; o += W) {
      alignas(64) float turned[K * K * W];
      both_sides<N, K>([](const auto &u, auto &g) { filter_side_back(u, g); },
                       [&](int i, int j) {
                         const float *part = parts + ((i * N + j) * pitch + c) * grad_pitch + o;
                         Lane sum{};
                         for (std::int64_t group = 0; group < groups; ++group) sum += load(part + group * size);
                         return sum;
                       },
                       [&](int i, int j, Lane g) { store(turned + (i * K + j) * W, g); });
      for (std::int64_t lane = 0; lane < std::min(W, s.o - o); ++lane)
        for (std::int64_t t = 0; t < K * K; ++t) dw[((o + lane) * s.c + c) * K * K + t] = turned[t * W + lane];
    }
}
