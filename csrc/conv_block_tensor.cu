// Chooses tiles for a convolution on tensor cores and starts the kernel of conv_block_tensor_kernel.cuh, or on
// Hopper that of conv_block_tensor_roles.cuh.
#include "conv_block_tensor_kernel.cuh"
#include "conv_block_tensor_roles.cuh"

#include <algorithm>
#include <array>
#include <limits>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {

void bind_conv_tensor(pybind11::module_ &m);
HW4FAST_CUDA_KERNEL(conv_block_tensor, bind_conv_tensor);

namespace {

int bytes_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }

struct Tiling {  // the kernel's N, MT, CC, WGMMA
  int n, mt, cc;
  bool wgmma, roles = false;  // roles: conv_block_tensor_roles.cuh's kernel
  int rows() const { return 16 * (roles ? consumer_warps : tensor_threads / 32) * mt; }
};

struct Plan {
  TensorConv conv;
  Tiling tiling;
  std::size_t shared = 0;
  dim3 grid;
  double cycles = std::numeric_limits<double>::infinity();  // a guess, to compare plans with
};

bool has_wgmma(TensorWay wanted) {
#ifdef HW4FAST_EMULATED
  return wanted == TensorWay::wgmma;  // a GPU of compute capability 8.0 else
#else
  static const bool compiled = std::string(HW4FAST_CUDA_ARCHS).find("90a") != std::string::npos;
  return wanted != TensorWay::mma && compiled && compute_capability() == 90;
#endif
}

// How `tiling` does it in so many strips; cycles stay infinite where shared memory is too small.
Plan plan(const TensorConvShape &s, int bytes, const Tiling &tiling, int strips, std::int64_t most_shared, int cores) {
  Plan plan;
  TensorConv &p = plan.conv;
  plan.tiling = tiling;
  const int rows = tiling.rows();
  tensor_tiles(p, s, bytes, rows, tiling.cc, strips);
  const std::int64_t weight = std::int64_t{tiling.n} * tiling.cc * 16;
  const std::int64_t pictures = std::int64_t{2} * p.pixels * tiling.cc * 16, all_weights = weight * p.taps * p.parts;
  p.ahead = std::min(2, p.taps), p.slots = 0;
  const std::int64_t others = 1024 + pictures + (tiling.roles ? stage_bytes : 0);
  std::int64_t shared = others + all_weights;
  if (shared > most_shared) {
    p.slots = p.ahead + (tiling.wgmma ? 2 : 1);  // a wgmma reads its weight until the step after the next
    shared = others + weight * p.slots;
  }
  if (shared > most_shared || (tiling.roles && p.slots > p.taps)) return plan;
  plan.shared = static_cast<std::size_t>(shared);

  const std::int64_t tiles = std::int64_t{1} * p.blocks * p.strips, blocks = up(s.o, tiling.n);
  const bool two = 2 * shared <= most_shared && tiling.n <= 32;           // blocks on a multiprocessor
  const std::int64_t wanted = std::max<std::int64_t>(1, cores / blocks);  // blocks side by side
  plan.grid = dim3(static_cast<unsigned>(std::min(tiles, two ? 2 * wanted : wanted)), static_cast<unsigned>(blocks));
  // Cycles of the tensor cores; of shared memory, 128 bytes each: A's rows, where eight in a row cross a line two of
  // them meet in a bank, and B's columns per 64 rows of a wgmma, or per warp; of the L2 cache.
  const double depth = 16.0 * p.taps * p.parts * tiling.cc;
  const double crossing = p.side * s.sw > 1 ? 1 : p.columns % 8 ? std::min(1.0, 8.0 / p.columns) : 0;
  const double multiplying = rows * tiling.n * depth / 2 / (tiling.wgmma ? 1700 : 620);
  const double reading = depth * (rows * (1 + crossing) + tiling.n * (tiling.wgmma ? rows / 64 : 8)) / 110;
  const double moving = (pictures / 2.0 * p.parts + (p.slots ? all_weights : 0)) / 24;
  // Two warps' instructions per cycle, of two on each quarter: addresses, products and copies.
  const double products =
      tiling.cc / 2 * (tiling.wgmma ? 3 * tiling.mt : tiling.mt + tiling.n / 16 * (1 + 2 * tiling.mt));
  const double around = tiling.n <= 32 && !p.slots ? 10 : 75;  // the lean loop or the other
  const double per_tap = around + products + (p.slots ? 12.0 * tiling.n * tiling.cc / tensor_threads : 0);
  double issuing = 2 * p.parts * (p.taps * per_tap + 45.0 * p.pixels * tiling.cc / tensor_threads);
  if (tiling.roles)  // of the producers, two cycles each
    issuing = p.parts * (45.0 * p.pixels / 16 + (p.slots ? p.taps * (150 + 20.0 * tiling.n / 16) : 0));
  const double most = std::max({multiplying, reading, moving, issuing});
  const double tile = most + (multiplying + reading + moving + issuing - most) / 8 + 300 + rows * tiling.n / 26 +
                      (p.slots ? 60 * p.taps * p.parts : 0);
  plan.cycles = tile * static_cast<double>(up(tiles, wanted) * up(blocks, cores));
  if (tiling.roles)
    plan.cycles *= 1.1;   // by which an H100's sweep of tiles had what is chosen within 6 % of the best
  else if (tiling.wgmma)  // what an H100 took over this estimate, at 3×3, 64 → 64 and 128 → 128 channels
    plan.cycles *= tiling.n == 64 ? (tiling.mt == 2 ? 1.9 : 2.4) : tiling.mt == 2 ? 1.45 : 1.55;
  return plan;
}

Plan best_plan(const TensorConvShape &s, int bytes, const TensorChoice &choice) {
  std::int64_t most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  if (choice.shared) most = std::min<std::int64_t>(most, choice.shared);
  const int cores = multiprocessors(), fitting = tensor_chunks(s.c * bytes / 16);
  const bool wgmma = has_wgmma(choice.way) && fitting == 8 && s.o > 32;
  if (choice.way == TensorWay::wgmma && !wgmma)
    throw std::invalid_argument("conv_block: wgmma is for compute capability 9.0, 64 channels on and over 32 outputs");
  Plan best;
  for (int cc = fitting; cc; cc = cc == 8 && !best.shared && choice.way != TensorWay::wgmma ? 2 : 0)
    for (const Tiling &tiling : {Tiling{16, 2, cc, false},
                                 {32, 2, cc, false},
                                 {64, 2, cc, wgmma && cc == 8},
                                 {64, 1, 8, wgmma},
                                 {128, 1, 8, wgmma},
                                 {128, 2, 8, wgmma},
                                 {64, 1, 8, wgmma, true},
                                 {64, 2, 8, wgmma, true},
                                 {128, 1, 8, wgmma, true}}) {
      const bool wide_enough = s.o <= tiling.n || tiling.n > 32, needed = s.o > tiling.n / 2 || tiling.n == 16;
      if (choice.columns ? tiling.n != choice.columns : !wide_enough || !needed) continue;
      if ((choice.rows && tiling.rows() != choice.rows) || tiling.cc != cc || (tiling.roles && !wgmma)) continue;
      const int first = std::max(1, choice.strips);
      for (int strips = first; strips == first || (!choice.strips && up(s.cols, strips) >= 7); ++strips) {
        const Plan other = plan(s, bytes, tiling, strips, most, cores);
        if (other.cycles < best.cycles) best = other;
      }
    }
  if (best.shared) tensor_dividers(best.conv);
  return best;
}

template <class T, int N, int MT, int CC> void start(const Plan &plan, cudaStream_t stream) {
  const Grid grid{plan.grid, dim3(tensor_threads), plan.shared, stream};
  if constexpr (CC == 8 && N >= 64 && N * MT <= 128)
    if (plan.tiling.roles) {
      const Grid roles{plan.grid, dim3(role_threads), plan.shared, stream};
      return launch("conv_block_tensor", tensor_conv_roles_kernel<T, N, MT>, roles, plan.conv);
    }
  if constexpr (CC == 8 && N >= 64)
    if (plan.tiling.wgmma) return launch("conv_block_tensor", tensor_conv_kernel<T, N, MT, CC, true>, grid, plan.conv);
  launch("conv_block_tensor", tensor_conv_kernel<T, N, MT, CC, false>, grid, plan.conv);
}

template <class T> void start(const Plan &plan, cudaStream_t stream) {
  const auto [n, mt, cc, wgmma, roles] = plan.tiling;
  if (n == 16) return cc == 8 ? start<T, 16, 2, 8>(plan, stream) : start<T, 16, 2, 2>(plan, stream);
  if (n == 32) return cc == 8 ? start<T, 32, 2, 8>(plan, stream) : start<T, 32, 2, 2>(plan, stream);
  if (n == 64 && mt == 1) return start<T, 64, 1, 8>(plan, stream);
  if (n == 64) return cc == 8 ? start<T, 64, 2, 8>(plan, stream) : start<T, 64, 2, 2>(plan, stream);
  mt == 1 ? start<T, 128, 1, 8>(plan, stream) : start<T, 128, 2, 8>(plan, stream);
}

bool shape_fits(Dtype dtype, const TensorConvShape &s) {
  const bool known = dtype == Dtype::float32 || dtype == Dtype::bfloat16 || dtype == Dtype::float16;
  return known && s.c > 0 && s.c * bytes_of(dtype) % 16 == 0 && s.kh >= 1 && s.kw >= 1 && s.kh <= 7 && s.kw <= 7 &&
         s.n > 0 && s.h > 0 && s.w > 0 && s.o > 0 && s.rows > 0 && s.cols > 0 && s.sh > 0 && s.sw > 0;
}

}  // namespace

int tensor_chunks(int chunks) { return up(chunks, 8) * 8 * 3 > up(chunks, 2) * 2 * 4 ? 2 : 8; }

void tensor_tiles(TensorConv &p, const TensorConvShape &s, int bytes, int rows, int cc, int strips) {
  p.s = s, p.side = s.pool ? 2 : 1, p.taps = s.kh * s.kw;
  p.chunks = s.c * bytes / 16, p.parts = static_cast<int>(up(p.chunks, cc));
  p.columns = static_cast<int>(up(s.cols, strips)), p.strips = static_cast<int>(up(s.cols, p.columns));
  const std::int64_t units = std::int64_t{1} * s.n * s.rows * p.columns, tile_units = rows / (p.side * p.side);
  p.units = static_cast<int>(units), p.blocks = static_cast<int>(up(units, tile_units));
  const std::int64_t tall = (std::int64_t{1} * s.rows * p.side - 1) * s.sh + s.kh;
  const std::int64_t wide = (std::int64_t{1} * p.columns * p.side - 1) * s.sw + s.kw;

  // A tile's outputs may begin at a line's last and reach over so many lines and borders between images.
  const std::int64_t lines = 1 + up(tile_units - 1, p.columns);
  const std::int64_t borders = std::min<std::int64_t>(up(lines - 1, s.rows), s.n - 1);
  const std::int64_t high = std::min(
      (lines - 1) * p.side * s.sh + borders * std::max(0, s.kh - s.sh) + (p.side - 1) * s.sh + s.kh, s.n * tall);
  const std::int64_t pixels = up(high * wide, 8) * 8, tiles = std::int64_t{1} * p.blocks * p.strips;
  if (std::max({units + rows, tiles, (s.n + 1) * tall, wide, 32 * pixels}) > 0x7fffffff)
    throw std::invalid_argument("conv_block on tensor cores: over 2^31 outputs per channel");
  p.high = static_cast<int>(tall), p.wide = static_cast<int>(wide), p.pixels = static_cast<int>(pixels);
}

void tensor_dividers(TensorConv &p) {
  const TensorConvShape &s = p.s;
  p.by_blocks = divider(p.blocks), p.by_rows = divider(s.rows), p.by_columns = divider(p.columns);
  p.by_wide = divider(p.wide), p.by_high = divider(p.high);
}

bool tensor_conv_can(Dtype dtype, const TensorConvShape &s) {
  if (!shape_fits(dtype, s) || compute_capability() < 80) return false;
  try {
    return best_plan(s, bytes_of(dtype), {}).shared > 0;
  } catch (const std::invalid_argument &) {  // too large
    return false;
  }
}

void tensor_conv(Dtype dtype, const TensorConvShape &s, const void *x, const void *weight, const void *bias, void *out,
                 std::uint8_t *code, const TensorChoice &choice, cudaStream_t stream, Turn turn) {
  if (!shape_fits(dtype, s) || compute_capability() < 80)
    throw std::invalid_argument("conv_block: not a convolution for tensor cores");
  for (const void *p : {x, weight, static_cast<const void *>(out), static_cast<const void *>(code)})
    if (reinterpret_cast<std::uintptr_t>(p) % 16)
      throw std::invalid_argument("conv_block on tensor cores: tensors must begin at a multiple of 16 bytes");
  Plan plan = best_plan(s, bytes_of(dtype), choice);
  if (!plan.shared) throw std::invalid_argument("conv_block on tensor cores: shared memory is too small for a tile");
  plan.conv.x = x, plan.conv.weight = weight, plan.conv.bias = bias, plan.conv.out = out, plan.conv.code = code;
  plan.conv.turn = turn;
  conv_block_tensor_kernel.count();
  if (dtype == Dtype::bfloat16)
    start<__nv_bfloat16>(plan, stream);
  else if (dtype == Dtype::float16)
    start<__half>(plan, stream);
  else
    start<float>(plan, stream);
}

#ifndef __CUDA_ARCH__
using Numbers = std::array<int, 13>;

static TensorConvShape shape_of(const Numbers &x, bool relu, bool pool) {
  return {x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8], x[9], x[10], x[11], x[12], relu, pool};
}

static TensorChoice choice_of(const std::array<int, 5> &x) {
  return {static_cast<TensorWay>(x[0]), x[1], x[2], x[3], x[4]};
}

void bind_conv_tensor(pybind11::module_ &m) {
  // shape: n, h, w, c, o, kh, kw, stride and padding (down, across), rows and cols of the output; choice: TensorChoice
  m.def("conv_tensor", [](int dtype, const Numbers &shape, bool relu, bool pool, std::uintptr_t x,
                          std::uintptr_t weight, std::uintptr_t bias, std::uintptr_t out, std::uintptr_t code,
                          const std::array<int, 5> &choice, std::uintptr_t stream) {
    tensor_conv(static_cast<Dtype>(dtype), shape_of(shape, relu, pool), pointer<const void>(x),
                pointer<const void>(weight), pointer<const void>(bias), pointer<void>(out), pointer<std::uint8_t>(code),
                choice_of(choice), stream_of(stream));
  });
  m.def("conv_tensor_plan", [](int dtype, const Numbers &shape, bool relu, bool pool,
                               const std::array<int, 5> &choice) {  // which tiles it would take
    const Plan plan = best_plan(shape_of(shape, relu, pool), bytes_of(static_cast<Dtype>(dtype)), choice_of(choice));
    pybind11::dict told;
    told["columns"] = plan.tiling.n, told["rows"] = plan.tiling.rows(), told["chunks"] = plan.tiling.cc;
    told["wgmma"] = plan.tiling.wgmma, told["shared"] = plan.shared, told["slots"] = plan.conv.slots;
    told["strips"] = plan.conv.strips, told["pixels"] = plan.conv.pixels, told["blocks"] = plan.conv.blocks;
    told["grid"] = pybind11::make_tuple(plan.grid.x, plan.grid.y), told["cycles"] = plan.cycles;
    return told;
  });
}
#endif

}  // namespace hw4fast
