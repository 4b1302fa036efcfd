// The one way to use more than one core: parallel_for over [0, n) in contiguous chunks.
//
// When an OpenMP runtime is in the process already (torch brings one), its pool runs the chunks: a second pool
// would fight with the first one's spinning threads for the cores. It is found by name, so that nothing links to
// it. Without one (classify never loads torch) plain threads are started; that costs some 20 µs, which is why
// callers give a grain.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

namespace hw4fast {

struct OpenMP {  // GCC's entry points, which LLVM's runtime answers to as well
  void (*parallel)(void (*)(void *), void *, unsigned threads, unsigned flags) = nullptr;
  int (*thread_number)() = nullptr;
  int (*team_size)() = nullptr;
  int (*max_threads)() = nullptr;
  bool found() const { return parallel && thread_number && team_size && max_threads; }
};

inline const OpenMP &open_mp() {
  static OpenMP runtime;
#if defined(__unix__) || defined(__APPLE__)
  if (!runtime.found()) {  // torch may be imported after us: keep looking, under the GIL
    runtime.parallel = reinterpret_cast<decltype(runtime.parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    runtime.thread_number = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
    runtime.team_size = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
    runtime.max_threads = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
  }
#endif
  return runtime;
}

// HW4FAST_THREADS, else what the OpenMP runtime would use (torch.set_num_threads sets it), else the cores.
inline int default_threads() {
  if (const char *text = std::getenv("HW4FAST_THREADS"); text && *text) {
    char *end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*end || value < 1 || value > 4096)
      throw std::invalid_argument("HW4FAST_THREADS must be a whole number from 1 to 4096, not '" + std::string(text) +
                                  "'");
    return static_cast<int>(value);
  }
  const OpenMP &runtime = open_mp();
  if (runtime.found()) return std::max(1, runtime.max_threads());
  return std::max(1u, std::thread::hardware_concurrency());
}

// Calls body(begin, end) for chunks that cover [0, n), on at most `threads` threads, none below `grain` long.
// The chunks depend on n, grain and threads; a kernel whose rows are independent gives the same bits for any.
template <class Body> void parallel_for(std::int64_t n, std::int64_t grain, int threads, const Body &body) {
  const std::int64_t chunks = std::min<std::int64_t>(threads, n / std::max<std::int64_t>(grain, 1));
  if (chunks <= 1) {
    if (n > 0) body(std::int64_t{0}, n);
    return;
  }
  const auto chunk = [&](std::int64_t i) { body(n * i / chunks, n * (i + 1) / chunks); };
  const OpenMP &runtime = open_mp();
  if (runtime.found()) {
    struct Work {
      const decltype(chunk) &run;
      std::int64_t chunks;
      const OpenMP &runtime;
    } work{chunk, chunks, runtime};
    runtime.parallel(
        [](void *data) {  // the runtime may give fewer threads than asked for
          const Work &w = *static_cast<Work *>(data);
          for (std::int64_t i = w.runtime.thread_number(); i < w.chunks; i += w.runtime.team_size()) w.run(i);
        },
        &work, static_cast<unsigned>(chunks), 0);
    return;
  }
  std::vector<std::thread> team;
  for (std::int64_t i = 1; i < chunks; ++i) team.emplace_back(chunk, i);
  chunk(0);
  for (std::thread &thread : team) thread.join();
}

}  // namespace hw4fast
