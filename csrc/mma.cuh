// Tensor cores and asynchronous copies of 16 bytes, each with a plain twin for the emulator.
//
// Floats are multiplied as tf32, whose last bits mma cuts off: who writes them where it reads has rounded them.
//
// All sizes are bytes, so that 16-bit numbers and tf32 share the code: a "chunk" is 16 bytes (8 bfloat16 or float16, 4
// tf32), a step of a product is two chunks deep. A fragment is what a lane holds: with g = lane / 4 and t = lane % 4
//
// A, 16 rows × 2 chunks: a[0] row g, a[1] row g + 8, of the first chunk the t-th four bytes; a[2], a[3] of the second.
//
// B, 8 columns × 2 chunks: b0 column g, of the first chunk the t-th four bytes; b1 of the second.
//
// D, 16 rows × 8 columns: d[0], d[1] row g, columns 2t and 2t + 1; d[2], d[3] row g + 8.
#pragma once

#include "mbarrier.cuh"

// wgmma: one group of four warps multiplies 64 rows, of Hopper only.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(HW4FAST_EMULATED)
#define HW4FAST_WGMMA 1
#endif
// mma.sync of bfloat16 and tf32, and cp.async: from Ampere on. Host code refuses older GPUs, their kernels are empty.
#if defined(HW4FAST_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800)
#define HW4FAST_MMA 1
#endif

namespace hw4fast {

#ifdef HW4FAST_EMULATED

inline void copy_async(Shared to, const void *from, bool there) {
  if (there)
    std::memcpy(reinterpret_cast<void *>(to), from, 16);
  else
    std::memset(reinterpret_cast<void *>(to), 0, 16);
}
inline void copies_commit() {}
template <int pending> inline void copies_wait() {}

inline std::uint32_t to_tf32(std::uint32_t x) {
  const bool finite = (x & 0x7f800000) != 0x7f800000;
  return (finite ? x + 0x1000 : x) & 0xffffe000;
}

namespace emulator {
struct Words {
  std::uint32_t word[4];
};
// what mma multiplies: number k of a row or column, of the four or eight bytes × 4 lanes that hold it
template <class T> float element(const Words *lanes_of_row, int first, int second, int k) {
  constexpr int per_word = 4 / sizeof(T), per_chunk = 16 / sizeof(T);
  const Words &of = lanes_of_row[k % per_chunk / per_word];
  const std::uint32_t word = of.word[k < per_chunk ? first : second];
  if constexpr (sizeof(T) == 4) {
    return bits_as<float>(word & 0xffffe000);
  } else {
    const std::uint16_t bits = static_cast<std::uint16_t>(k % 2 ? word >> 16 : word);
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return widen(value);
  }
}
inline void ldmatrix(std::uint32_t (&r)[4], Shared row, bool transposed) {
  Shared rows[lanes];
  const unsigned char *all = reinterpret_cast<const unsigned char *>(exchange(~0u, row));
  for (int i = 0; i < lanes; ++i) std::memcpy(&rows[i], all + 16 * i, sizeof(Shared));
  const int g = lane() / 4, t = lane() % 4;
  for (int m = 0; m < 4; ++m) {
    std::uint16_t two[2];
    for (int e = 0; e < 2; ++e) {
      const int i = transposed ? 2 * t + e : g, j = transposed ? g : 2 * t + e;
      std::memcpy(&two[e], reinterpret_cast<const void *>(rows[8 * m + i] + 2 * j), 2);
    }
    r[m] = two[0] | std::uint32_t{two[1]} << 16;
  }
}
}  // namespace emulator

inline void load_matrices(std::uint32_t (&r)[4], Shared row) { emulator::ldmatrix(r, row, false); }
inline void load_transposed(std::uint32_t (&r)[4], Shared row) { emulator::ldmatrix(r, row, true); }
inline std::uint32_t load_word(Shared from) {
  std::uint32_t word;
  std::memcpy(&word, reinterpret_cast<const void *>(from), 4);
  return word;
}
inline void round_chunk(Shared at) {
  for (Shared word = at; word < at + 16; word += 4) {
    const std::uint32_t rounded = to_tf32(load_word(word));
    std::memcpy(reinterpret_cast<void *>(word), &rounded, 4);
  }
}

template <class T> void mma(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  using emulator::Words;
  Words rows[emulator::lanes], columns[emulator::lanes];
  std::memcpy(rows, emulator::exchange(~0u, Words{{a[0], a[1], a[2], a[3]}}), sizeof rows);
  std::memcpy(columns, emulator::exchange(~0u, Words{{b0, b1, 0, 0}}), sizeof columns);
  const int g = emulator::lane() / 4, t = emulator::lane() % 4;
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 32 / static_cast<int>(sizeof(T)); ++k)
      d[i] += emulator::element<T>(rows + 4 * g, i / 2, 2 + i / 2, k) *
              emulator::element<T>(columns + 4 * (2 * t + i % 2), 0, 1, k);
}

// The twin of wgmma multiplies as late as it may, when its group is waited for, and reads B only then.
namespace emulator {
struct Product {
  float (*d)[4];
  int columns;
  Words rows[4];  // of the lanes that hold this lane's rows
  Shared b;
  float (*element)(const Words *, int, int, int);
  int depth;
};
inline std::vector<std::vector<Product>> &products() {  // of this fiber, by groups; the last is not yet committed
  static std::vector<std::vector<std::vector<Product>>> all(1024);
  std::vector<std::vector<Product>> &mine = all[static_cast<std::size_t>(state().current->number)];
  if (mine.empty()) mine.emplace_back();
  return mine;
}
inline void multiply(const Product &p) {
  for (int column = 0; column < p.columns; ++column) {
    Words lanes_of_column[4];
    for (int i = 0; i < 4; ++i)
      for (int chunk = 0; chunk < 2; ++chunk) {
        const Shared linear = p.b + static_cast<Shared>(column * 128 + 16 * chunk + 4 * i);
        lanes_of_column[i].word[chunk] = load_word(linear ^ ((linear >> 7 & 7) << 4));
      }
    const int t = lane() % 4;
    for (int i = 0; i < 4; ++i)
      if (column % 8 == 2 * t + i % 2)
        for (int k = 0; k < p.depth; ++k)
          p.d[column / 8][i] += p.element(p.rows, i / 2, 2 + i / 2, k) * p.element(lanes_of_column, 0, 1, k);
  }
}
}  // namespace emulator

inline void wgmma_fence() {}
inline void wgmma_commit() { emulator::products().emplace_back(); }
template <int pending> inline void wgmma_wait() {
  auto &groups = emulator::products();
  while (groups.size() > pending + 1) {
    for (const emulator::Product &product : groups.front()) emulator::multiply(product);
    groups.erase(groups.begin());
  }
}
template <int n> inline void wgmma_sums(float (&)[n][4]) {}
inline std::uint64_t wgmma_descriptor(Shared from) {
  if (from % 1024) throw std::runtime_error("wgmma's B must begin at a multiple of 1,024");
  return from >> 4;
}
template <class T, int n> void wgmma(float (&d)[n][4], const std::uint32_t (&a)[4], std::uint64_t b) {
  emulator::Product p{
      d, 8 * n, {}, static_cast<Shared>(b << 4), emulator::element<T>, 32 / static_cast<int>(sizeof(T))};
  emulator::Words all[emulator::lanes];
  std::memcpy(all, emulator::exchange(~0u, emulator::Words{{a[0], a[1], a[2], a[3]}}), sizeof all);
  std::copy_n(all + emulator::lane() / 4 * 4, 4, p.rows);
  emulator::products().back().push_back(p);
}

#else

#ifdef HW4FAST_MMA

// 16 bytes from global to shared memory, past the registers and the L1 cache; zeros where nothing is `there`.
__device__ inline void copy_async(Shared to, const void *from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the last `pending` committed groups of this thread's copies are there.
template <int pending> __device__ inline void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four matrices of 8 rows × 16 bytes: lane 8m + i says where row i of matrix m is; r[m] is that matrix's fragment.
__device__ inline void load_matrices(std::uint32_t (&r)[4], Shared row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
// The same of 8 × 8 numbers of 16 bits, each matrix transposed.
__device__ inline void load_transposed(std::uint32_t (&r)[4], Shared row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
__device__ inline std::uint32_t load_word(Shared from) {
  std::uint32_t word;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(from) : "memory");
  return word;
}

__device__ inline std::uint32_t to_tf32(std::uint32_t x) {
  std::uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(x)));
  return rounded;
}

// Four floats in shared memory.
__device__ inline void round_chunk(Shared at) {
  std::uint32_t a, b, c, d;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(at) : "memory");
  a = to_tf32(a), b = to_tf32(b), c = to_tf32(c), d = to_tf32(d);
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

// d += a · b. T: __nv_bfloat16, __half, or float.
template <class T>
__device__ inline void mma(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);
#define HW4FAST_MMA_OPERANDS                                                      \
  "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(d[0]), \
                                                                      "+f"(d[1]), \
                                                                      "+f"(d[2]), \
                                                                      "+f"(d[3])  \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1)
template <> __device__ inline void mma<__nv_bfloat16>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                      std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 " HW4FAST_MMA_OPERANDS);
}
template <>
__device__ inline void mma<__half>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 " HW4FAST_MMA_OPERANDS);
}
template <>
__device__ inline void mma<float>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 " HW4FAST_MMA_OPERANDS);
}
#undef HW4FAST_MMA_OPERANDS

#endif  // HW4FAST_MMA

#ifdef HW4FAST_WGMMA

// Before the first wgmma, and wherever registers of one that follows were written.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all but the last `pending` committed groups of products are done and their registers may be touched.
template <int pending> __device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
// Tells the compiler that the sums have changed behind its back.
template <int n> __device__ inline void wgmma_sums(float (&d)[n][4]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}

// Columns of B in rows of 128 bytes, the chunks of row r at chunk ^ (r & 7): the "128-byte swizzle". `from`, a multiple
// of 1,024, is the first; + 32 bytes is the next step within a row.
__device__ inline std::uint64_t wgmma_descriptor(Shared from) {
  constexpr std::uint64_t eight_rows = 1024 >> 4, swizzle_128 = 1;
  return ((from & 0x3ffff) >> 4) | std::uint64_t{1} << 16 | eight_rows << 32 | swizzle_128 << 62;
}

#define HW4FAST_D4(I) "+f"(d[I][0]), "+f"(d[I][1]), "+f"(d[I][2]), "+f"(d[I][3])
#define HW4FAST_D16(I) HW4FAST_D4(I), HW4FAST_D4(I + 1), HW4FAST_D4(I + 2), HW4FAST_D4(I + 3)
#define HW4FAST_A "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
#define HW4FAST_P32                                                                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define HW4FAST_P64                                                                                             \
  HW4FAST_P32                                                                                                   \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, " \
  "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// The last operand, 0, says that B is not transposed; tf32 has none.
#define HW4FAST_WGMMA_64(SHAPE, LAST)                                                                                 \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\nwgmma.mma_async.sync.aligned.m64n64" SHAPE " {" HW4FAST_P32 \
               "}, {%32, %33, %34, %35}, %36, p, 1, 1" LAST ";\n}"                                                    \
               : HW4FAST_D16(0), HW4FAST_D16(4)                                                                       \
               : HW4FAST_A, "l"(b), "r"(1))
#define HW4FAST_WGMMA_128(SHAPE, LAST)                                                                                 \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\nwgmma.mma_async.sync.aligned.m64n128" SHAPE " {" HW4FAST_P64 \
               "}, {%64, %65, %66, %67}, %68, p, 1, 1" LAST ";\n}"                                                     \
               : HW4FAST_D16(0), HW4FAST_D16(4), HW4FAST_D16(8), HW4FAST_D16(12)                                       \
               : HW4FAST_A, "l"(b), "r"(1))

// d += a · b, begun: the four warps of a group together, 16 rows each; b: descriptor of 8·n columns.
template <class T> __device__ inline void wgmma(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint64_t b) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    HW4FAST_WGMMA_64("k16.f32.bf16.bf16", ", 0");
  else if constexpr (std::is_same_v<T, __half>)
    HW4FAST_WGMMA_64("k16.f32.f16.f16", ", 0");
  else
    HW4FAST_WGMMA_64("k8.f32.tf32.tf32", "");
}
template <class T> __device__ inline void wgmma(float (&d)[16][4], const std::uint32_t (&a)[4], std::uint64_t b) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    HW4FAST_WGMMA_128("k16.f32.bf16.bf16", ", 0");
  else if constexpr (std::is_same_v<T, __half>)
    HW4FAST_WGMMA_128("k16.f32.f16.f16", ", 0");
  else
    HW4FAST_WGMMA_128("k8.f32.tf32.tf32", "");
}

#endif  // HW4FAST_WGMMA
#endif  // HW4FAST_EMULATED

// As products want it: a float rounded to tf32, the nearest of 11 bits, the larger of two.
template <class T> __device__ inline T factor(T x) {
#ifdef HW4FAST_MMA
  if constexpr (std::is_same_v<T, float>) return __uint_as_float(to_tf32(__float_as_uint(x)));
#endif
  return x;
}

}  // namespace hw4fast
