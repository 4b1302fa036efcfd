// conv_block as custom operators of onnxruntime: a shared library of its own, without Python, and without any header or
// library of onnxruntime. It exports RegisterCustomOps, which session options call, and hw4fast_ort_calls for tests.
//
// Operators of the domain "hw4fast", version 1, for float and double:
//   conv_block, conv_block_relu, conv_block_pool, conv_block_relu_pool (x, weight, bias) → y
//   x [n, c, h, w], weight [o, c / group, kh, kw], bias [o], y [n, o, rows, cols]
//   attributes: strides [down, across], pads [top, left, bottom, right] (bottom = top, right = left), group
// An exported file carries each as a function whose body is Conv, Relu and MaxPool: what runs without this library.
//
// Functions of onnxruntime are reached by their place in its table, which only ever grows at its end; the structs are
// those of onnxruntime_c_api.h at version 19.
#include "conv_ways.h"

#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace hw4fast {
namespace {

constexpr std::uint32_t api_version = 19;

using Api = void *const *;  // the table
using Status = void *;      // null: all is well
struct ApiBase {
  Api (*get_api)(std::uint32_t version);
  const char *(*version)();
};
struct Info;     // of a kernel: its attributes and constant inputs
struct Context;  // of a call
struct Value;    // a tensor
struct Shape;

enum Slot {
  create_status = 0,
  create_domain = 26,
  domain_add = 27,
  add_domain = 28,
  tensor_data = 51,
  dimensions_count = 61,
  dimensions = 62,
  type_and_shape = 65,
  attribute_int64 = 86,
  get_input = 90,
  get_output = 91,
  release_status = 93,
  release_shape = 99,
  attribute_int64s = 163,
  constant_input = 249,
  parallel = 274,
};

template <class... Args> Status call(Api api, Slot slot, Args... arguments) {
  return reinterpret_cast<Status (*)(Args...)>(api[slot])(arguments...);
}
template <class Argument> void release(Api api, Slot slot, Argument *what) {
  reinterpret_cast<void (*)(Argument *)>(api[slot])(what);
}

struct Failure {  // of onnxruntime: its status is handed back to it
  Status status;
};
template <class... Args> void insist(Api api, Slot slot, Args... arguments) {
  if (const Status status = call(api, slot, arguments...)) throw Failure{status};
}

// Runs body(); what it throws becomes a status, because nothing may be thrown through onnxruntime.
template <class Body> Status guarded(Api api, const Body &body) {
  constexpr int fail = 1;
  try {
    body();
    return nullptr;
  } catch (const Failure &failure) {
    return failure.status;
  } catch (const std::exception &error) {
    return call(api, create_status, fail, (std::string("hw4fast: ") + error.what()).c_str());
  } catch (...) {
    return call(api, create_status, fail, static_cast<const char *>("hw4fast: an unknown error"));
  }
}

std::vector<std::int64_t> shape_of(Api api, const Value *value) {
  Shape *shape = nullptr;
  insist(api, type_and_shape, value, &shape);
  std::size_t count = 0;
  std::vector<std::int64_t> sides;
  const Status status = [&]() -> Status {
    if (const Status bad = call(api, dimensions_count, static_cast<const Shape *>(shape), &count)) return bad;
    sides.resize(count);
    return call(api, dimensions, static_cast<const Shape *>(shape), sides.data(), count);
  }();
  release(api, release_shape, shape);
  if (status) throw Failure{status};
  return sides;
}

template <class T> T *data_of(Api api, const Value *value) {
  void *data = nullptr;
  insist(api, tensor_data, const_cast<Value *>(value), &data);
  return static_cast<T *>(data);
}

std::array<std::atomic<std::int64_t>, isa_names.size()> calls{};

// A node of a graph.
template <class T> class ConvNode {
 public:
  ConvNode(Api api, const Info *info, bool relu, bool pool)
      : api_(api), relu_(relu), pool_(pool), isa_(choose_isa("")) {
    stride_ = numbers<2>(info, "strides", {1, 1});
    const auto pads = numbers<4>(info, "pads", {0, 0, 0, 0});
    padding_ = {pads[0], pads[1]};
    if (pads[2] != pads[0] || pads[3] != pads[1])
      throw std::invalid_argument("conv_block: padding must be the same on both sides");
    insist(api_, attribute_int64, info, static_cast<const char *>("group"), &group_);
    const Value *weight = constant(info, 1), *bias = constant(info, 2);
    constant_ = weight && bias;
    if (constant_) check(shape_of(api_, weight), bias);
  }

  void run(Context *context) const {
    const Value *x = input(context, 0), *weight = input(context, 1), *bias = input(context, 2);
    const std::vector<std::int64_t> sides = shape_of(api_, x), filters = shape_of(api_, weight);
    if (sides.size() != 4) throw std::invalid_argument("conv_block: x must have the axes n, c, h, w");
    const ConvShape s = shape(filters, {sides[0], sides[1], sides[2], sides[3]}, pool_);
    const std::int64_t result[4] = {s.n, s.o, s.rows, s.cols};
    Value *output = nullptr;
    insist(api_, get_output, context, std::size_t{0}, static_cast<const std::int64_t *>(result), std::size_t{4},
           &output);
    struct Host {
      Api api;
      const Context *context;
    } host{api_, context};
    const Threads threads(
        cores(),  // its pool has no more
        [](void *lender, void (*chunk)(void *, std::size_t), std::size_t chunks, void *data) {
          const Host &h = *static_cast<const Host *>(lender);
          insist(h.api, parallel, h.context, chunk, chunks, std::size_t{0}, data);
        },
        &host);
    T *to = data_of<T>(api_, output);
    if (s.n == 0) return;
    const std::shared_ptr<const ConvFilters<T>> kept = packed(s, filters, weight, bias, threads);
    const ConvFilters<T> &use = *kept;
    calls[static_cast<int>(use.isa)].fetch_add(1, std::memory_order_relaxed);
    conv_planes(data_of<const T>(api_, x), use, s, to, threads);
  }

 private:
  template <std::size_t n>
  std::array<std::int64_t, n> numbers(const Info *info, const char *name, std::array<std::int64_t, n> otherwise) const {
    std::size_t size = 0;
    if (const Status absent = call(api_, attribute_int64s, info, name, static_cast<std::int64_t *>(nullptr), &size)) {
      release(api_, release_status, static_cast<char *>(absent));
      return otherwise;
    }
    std::array<std::int64_t, n> found{};
    if (size != n) throw std::invalid_argument("conv_block: attribute " + std::string(name) + " has another length");
    insist(api_, attribute_int64s, info, name, found.data(), &size);
    return found;
  }

  const Value *constant(const Info *info, std::size_t index) const {
    int is_constant = 0;
    const Value *value = nullptr;
    insist(api_, constant_input, info, index, &is_constant, &value);
    return is_constant ? value : nullptr;
  }

  const Value *input(const Context *context, std::size_t index) const {
    const Value *value = nullptr;
    insist(api_, get_input, context, index, &value);
    if (!value) throw std::invalid_argument("conv_block: an input is missing");
    return value;
  }

  ConvShape shape(const std::vector<std::int64_t> &filters, const std::array<std::int64_t, 4> &x, bool pool) const {
    if (filters.size() != 4) throw std::invalid_argument("conv_block: weight must have the axes o, c, kh, kw");
    if (group_ < 1 || x[1] != filters[1] * group_)
      throw std::invalid_argument("conv_block: x has another number of channels than weight");
    return conv_shape(x, {filters[0], filters[2], filters[3], group_}, stride_, padding_, relu_, pool);
  }

  void check(const std::vector<std::int64_t> &filters, const Value *bias) const {
    if (filters.size() != 4) throw std::invalid_argument("conv_block: weight must have the axes o, c, kh, kw");
    if (shape_of(api_, bias) != std::vector<std::int64_t>{filters[0]})
      throw std::invalid_argument("conv_block: bias must have a number for each output channel");
    shape(filters, {1, filters[1] * group_, filters[2], filters[3]}, false);  // the smallest picture
  }

  // Constant filters are kept, for each way that pictures of some size want.
  std::shared_ptr<const ConvFilters<T>> packed(const ConvShape &s, const std::vector<std::int64_t> &filters,
                                               const Value *weight, const Value *bias, Threads threads) const {
    const ConvWay way = conv_way<T>(s, constant_);
    const auto make = [&] {
      return std::make_shared<const ConvFilters<T>>(data_of<const T>(api_, weight), data_of<const T>(api_, bias), s,
                                                    way, isa_, threads);
    };
    if (!constant_) {
      check(filters, bias);
      return make();
    }
    const std::lock_guard<std::mutex> lock(packing_);
    std::shared_ptr<const ConvFilters<T>> &kept = kept_[static_cast<std::size_t>(way)];
    return kept ? kept : kept = make();
  }

  Api api_;
  bool relu_, pool_;
  Isa isa_;
  std::array<std::int64_t, 2> stride_, padding_;
  std::int64_t group_ = 1;
  bool constant_ = false;  // weight and bias
  mutable std::mutex packing_;
  mutable std::array<std::shared_ptr<const ConvFilters<T>>, conv_ways> kept_;
};

// OrtCustomOp, and what ours adds behind it.
struct CustomOp {
  std::uint32_t version;
  void *(*create)(const CustomOp *, Api, const Info *);
  const char *(*name)(const CustomOp *);
  const char *(*provider)(const CustomOp *);
  int (*input_type)(const CustomOp *, std::size_t);
  std::size_t (*inputs)(const CustomOp *);
  int (*output_type)(const CustomOp *, std::size_t);
  std::size_t (*outputs)(const CustomOp *);
  void (*compute)(void *, Context *);
  void (*destroy)(void *);
  int (*input_characteristic)(const CustomOp *, std::size_t);
  int (*output_characteristic)(const CustomOp *, std::size_t);
  int (*input_memory)(const CustomOp *, std::size_t);
  int (*variadic_input_arity)(const CustomOp *);
  int (*variadic_input_homogeneity)(const CustomOp *);
  int (*variadic_output_arity)(const CustomOp *);
  int (*variadic_output_homogeneity)(const CustomOp *);
  Status (*create_v2)(const CustomOp *, Api, const Info *, void **);
  Status (*compute_v2)(void *, Context *);
  Status (*infer_shape)(const CustomOp *, void *);
  int (*start_version)(const CustomOp *);
  int (*end_version)(const CustomOp *);
  std::size_t (*may_inplace)(int **, int **);
  void (*release_may_inplace)(int *, int *);
  std::size_t (*alias_map)(int **, int **);
  void (*release_alias_map)(int *, int *);
};
static_assert(sizeof(void *) != 8 || sizeof(CustomOp) == 208, "onnxruntime reads these 26 fields");

struct ConvOp : CustomOp {
  const char *called;
  bool relu, pool;
  int type;  // as onnxruntime counts them
};
const ConvOp &ours(const CustomOp *op) { return *static_cast<const ConvOp *>(op); }

template <class T> struct Held {  // a node with the table that its failures need
  Api api;
  ConvNode<T> node;
};

template <class T> ConvOp conv_op(const char *called, bool relu, bool pool) {
  constexpr int type = std::is_same_v<T, float> ? 1 : 11;
  ConvOp op{};
  op.version = api_version;
  op.name = [](const CustomOp *self) { return ours(self).called; };
  op.provider = [](const CustomOp *) -> const char * { return nullptr; };  // the CPU
  op.inputs = [](const CustomOp *) -> std::size_t { return 3; };
  op.outputs = [](const CustomOp *) -> std::size_t { return 1; };
  op.input_type = op.output_type = [](const CustomOp *self, std::size_t) { return ours(self).type; };
  op.input_characteristic = op.output_characteristic = [](const CustomOp *, std::size_t) { return 0; };  // required
  op.input_memory = [](const CustomOp *, std::size_t) { return 0; };
  op.variadic_input_arity = op.variadic_input_homogeneity = op.variadic_output_arity =
      op.variadic_output_homogeneity = [](const CustomOp *) { return 0; };
  op.start_version = [](const CustomOp *) { return 1; };
  op.end_version = [](const CustomOp *) { return 1; };
  op.create_v2 = [](const CustomOp *self, Api api, const Info *info, void **kernel) {
    return guarded(api, [&] { *kernel = new Held<T>{api, ConvNode<T>(api, info, ours(self).relu, ours(self).pool)}; });
  };
  op.compute_v2 = [](void *kernel, Context *context) {
    const Held<T> &held = *static_cast<const Held<T> *>(kernel);
    return guarded(held.api, [&] { held.node.run(context); });
  };
  op.destroy = [](void *kernel) { delete static_cast<Held<T> *>(kernel); };
  op.called = called;
  op.relu = relu;
  op.pool = pool;
  op.type = type;
  return op;
}

template <class T> void add_ops(std::vector<ConvOp> &all) {
  all.push_back(conv_op<T>("conv_block", false, false));
  all.push_back(conv_op<T>("conv_block_relu", true, false));
  all.push_back(conv_op<T>("conv_block_pool", false, true));
  all.push_back(conv_op<T>("conv_block_relu_pool", true, true));
}

// Made once and never freed: sessions use it as long as they live.
void *domain(Api api) {
  static void *const made = [api] {
    auto *ops = new std::vector<ConvOp>;
    add_ops<float>(*ops);
    add_ops<double>(*ops);
    void *found = nullptr;
    insist(api, create_domain, static_cast<const char *>("hw4fast"), &found);
    for (const ConvOp &op : *ops) insist(api, domain_add, found, static_cast<const CustomOp *>(&op));
    return found;
  }();
  return made;
}

}  // namespace
}  // namespace hw4fast

extern "C" {

// What onnxruntime calls when this library is registered with session options.
__attribute__((visibility("default"))) void *RegisterCustomOps(void *options, const hw4fast::ApiBase *base) {
  using namespace hw4fast;
  const Api api = base->get_api(api_version);
  if (!api)
    return call(base->get_api(1), create_status, 1,
                static_cast<const char *>("hw4fast's operators need onnxruntime 1.19 or newer"));
  return guarded(api, [&] { insist(api, add_domain, options, domain(api)); });
}

// Calls so far with the instruction set at that place of isa_names; -1 for no such place.
__attribute__((visibility("default"))) std::int64_t hw4fast_ort_calls(int isa) {
  using namespace hw4fast;
  return 0 <= isa && isa < static_cast<int>(calls.size()) ? calls[static_cast<std::size_t>(isa)].load() : -1;
}
}
