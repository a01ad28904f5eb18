// A device named npu whose memory is the CPU's: what Ascend's torch_npu is to PyTorch, without the hardware.
//
// Every operator is computed by the CPU's kernel on the same memory: arguments are handed over as CPU tensors that alias the
// device's, and what comes back becomes a device tensor without a copy. (at::native::cpu_fallback copies, so that operators which
// write to an argument that their schema does not mark as written, such as the running statistics of batch_norm, would lose it.)
// On the way it counts what an accelerator minds: see `note`.

#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/GeneratorForPrivateuseone.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>

namespace at::autocast {
TORCH_API at::ScalarType get_autocast_dtype(at::DeviceType device_type);  // its header takes ten seconds to compile
}

namespace {

constexpr auto NPU = c10::DeviceType::PrivateUse1;
using Stack = torch::jit::Stack;

// ---- what is counted, by kind and operator -------------------------------------------------------------------------------

std::mutex noting;
std::map<std::string, int64_t> notes;

// Kinds: `fallback` computed by the CPU's kernel; `sync` the host waits for the device; `upload` a copy to the device that waits;
// `float64` a tensor of it made on the device; `dynamic` a shape that depends on values.
void note(const std::string& kind, const std::string& name) {
  std::lock_guard<std::mutex> lock(noting);
  notes[kind + " " + name]++;
}

const std::set<std::string> DYNAMIC = {
    "aten::nonzero", "aten::nonzero.out", "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
    "aten::bincount", "aten::repeat_interleave.Tensor"};
const std::set<std::string> METADATA = {"aten::is_set_to"};  // answers a question about a tensor without reading it

// ---- memory --------------------------------------------------------------------------------------------------------------

thread_local c10::DeviceIndex current = 0;

c10::DeviceIndex device_count() {
  const char* given = std::getenv("SIMULATED_NPUS");
  return static_cast<c10::DeviceIndex>(given ? std::atoi(given) : 1);
}

void release(void* held) { delete static_cast<c10::Storage*>(held); }

// The same bytes, said to be of another device; what owns them lives as long.
c10::DataPtr same_bytes(const c10::Storage& owner, c10::Device device) {
  return {owner.mutable_data(), new c10::Storage(owner), &release, device};
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto on_cpu = c10::GetCPUAllocator()->allocate(bytes);
    auto* data = on_cpu.get();
    auto freed = on_cpu.get_deleter();
    return {data, on_cpu.release_context(), freed, c10::Device(NPU, current)};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};
Memory memory;
REGISTER_ALLOCATOR(NPU, &memory);

std::mutex pinning;
std::set<void*> pinned;

struct Pinned final : c10::Allocator {
  static void unpin(void* data) {
    {
      std::lock_guard<std::mutex> lock(pinning);
      pinned.erase(data);
    }
    std::free(data);
  }
  c10::DataPtr allocate(size_t bytes) override {
    void* data = std::malloc(bytes ? bytes : 1);
    std::lock_guard<std::mutex> lock(pinning);
    pinned.insert(data);
    return {data, data, &unpin, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &unpin; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};
Pinned page_locked;

bool is_pinned(const at::TensorBase& tensor) {
  std::lock_guard<std::mutex> lock(pinning);
  return pinned.count(const_cast<void*>(tensor.storage().data())) > 0;
}

// ---- the device: guard, hooks, generator -----------------------------------------------------------------------------------

c10::Stream on(c10::Device device) { return c10::Stream(c10::Stream::DEFAULT, device); }

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return NPU; }
  c10::Device exchangeDevice(c10::Device to) const override {
    c10::Device before(NPU, current);
    current = to.index();
    return before;
  }
  c10::Device getDevice() const override { return {NPU, current}; }
  void setDevice(c10::Device to) const override { current = to.index(); }
  void uncheckedSetDevice(c10::Device to) const noexcept override { current = to.index(); }
  c10::Stream getStream(c10::Device device) const override { return on(device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return on(device); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return on(device); }
  c10::Stream getNewStream(c10::Device device, int) const override { return on(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }
  // Everything is done when a call returns; but who waits is noted.
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override { *event = &current; }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeEvent(void*) const override { note("sync", "event"); }
  void synchronizeStream(const c10::Stream&) const override { note("sync", "stream"); }
  void synchronizeDevice(const c10::DeviceIndex) const override { note("sync", "device"); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

at::Generator& generator() {
  static at::Generator own;
  return own;
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return device_count(); }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(c10::DeviceIndex to) const override { current = to; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex to) const override { return std::exchange(current, to); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex to) const override { return std::exchange(current, to); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return generator(); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &page_locked; }
  bool isPinnedPtr(const void* data) const override {
    std::lock_guard<std::mutex> lock(pinning);
    return pinned.count(const_cast<void*>(data)) > 0;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto data = memory.allocate(bytes);
    std::memcpy(data.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(data));
    storage.set_nbytes(bytes);
  }
};

// ---- operators on the CPU, over the same memory ------------------------------------------------------------------------------

bool on_npu(const at::Tensor& tensor) { return tensor.defined() && tensor.device().type() == NPU; }

at::Tensor made(c10::Storage storage, c10::DispatchKey key, const at::Tensor& like) {
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_offset(like.storage_offset());
  impl->set_sizes_and_strides(like.sizes(), like.strides());
  if (like.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  return tensor;
}

// A call: its device tensors as CPU tensors, and its results as device tensors.
struct Call {
  std::string name;
  bool touched = false;  // a device tensor or the device itself is among the arguments
  c10::Device device{NPU, current};
  std::unordered_map<c10::StorageImpl*, c10::Storage> aliases, origins, wrapped;
  std::unordered_map<c10::TensorImpl*, at::Tensor> given;  // from alias to the device's tensor

  at::Tensor host(const at::Tensor& tensor) {
    if (!on_npu(tensor)) return tensor;
    touched = true;
    device = tensor.device();
    auto& own = tensor.storage();
    auto known = aliases.find(own.unsafeGetStorageImpl());
    if (known == aliases.end()) {
      auto alias = c10::Storage(
          c10::Storage::use_byte_size_t(), own.nbytes(), same_bytes(own, c10::Device(c10::DeviceType::CPU)), c10::GetCPUAllocator(), true);
      origins.emplace(alias.unsafeGetStorageImpl(), own);
      known = aliases.emplace(own.unsafeGetStorageImpl(), alias).first;
    }
    auto alias = made(known->second, c10::DispatchKey::CPU, tensor);
    given.emplace(alias.unsafeGetTensorImpl(), tensor);
    return alias;
  }

  at::Tensor npu(const at::Tensor& result) {
    if (!result.defined()) return result;
    auto same = given.find(result.unsafeGetTensorImpl());
    if (same != given.end()) return same->second;
    if (result.scalar_type() == at::kDouble || result.scalar_type() == at::kComplexDouble) note("float64", name);
    auto& on_cpu = result.storage();
    auto origin = origins.find(on_cpu.unsafeGetStorageImpl());
    if (origin != origins.end()) return made(origin->second, c10::DispatchKey::PrivateUse1, result);
    auto known = wrapped.find(on_cpu.unsafeGetStorageImpl());
    if (known == wrapped.end()) {
      auto storage = c10::Storage(c10::Storage::use_byte_size_t(), on_cpu.nbytes(), same_bytes(on_cpu, device), &memory, true);
      known = wrapped.emplace(on_cpu.unsafeGetStorageImpl(), storage).first;
    }
    return made(known->second, c10::DispatchKey::PrivateUse1, result);
  }

  // What was resized: the device's tensors follow.
  void settle() {
    for (auto& [own, alias] : aliases) {
      if (alias.data() != own->data() || alias.nbytes() != own->nbytes()) {
        own->set_data_ptr_noswap(same_bytes(alias, own->device()));
        own->set_nbytes(alias.nbytes());
      }
    }
    for (auto& [alias, tensor] : given) {
      if (alias->sizes() != tensor.sizes() || alias->strides() != tensor.strides()) {
        tensor.unsafeGetTensorImpl()->set_sizes_and_strides(alias->sizes(), alias->strides());
      }
    }
  }
};

template <typename Each>
void each_tensor(c10::IValue& value, const Each& each) {
  if (value.isTensor()) {
    value = each(value.toTensor());
  } else if (value.isTensorList()) {
    auto list = value.toTensorList().copy();
    for (size_t i = 0; i < list.size(); i++) list.set(i, each(list.get(i)));
    value = list;
  } else if (value.isOptionalTensorList()) {
    auto list = value.toOptionalTensorList().copy();
    for (size_t i = 0; i < list.size(); i++) {
      std::optional<at::Tensor> item = list.get(i);
      if (item.has_value()) list.set(i, each(*item));
    }
    value = list;
  }
}

void compute(const c10::OperatorHandle& op, Stack* stack, const std::string& name) {
  auto& schema = op.schema();
  auto& kinds = schema.arguments();
  Call call;
  call.name = name;
  auto arguments = stack->end() - static_cast<std::ptrdiff_t>(kinds.size());
  for (size_t i = 0; i < kinds.size(); i++) {
    auto& value = arguments[static_cast<std::ptrdiff_t>(i)];
    each_tensor(value, [&](const at::Tensor& tensor) { return call.host(tensor); });
    if (value.isDevice() && value.toDevice().type() == NPU) {
      call.touched = true;
      value = c10::Device(c10::DeviceType::CPU);
    }
    if (kinds[i].name() == "generator" && value.isNone() && generator().defined()) value = generator();
  }
  note("fallback", name);
  if (DYNAMIC.count(name)) note("dynamic", name);
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  call.settle();
  auto results = stack->end() - static_cast<std::ptrdiff_t>(schema.returns().size());
  for (auto result = results; result != stack->end(); ++result) {
    bool read = result->isBool() || result->isInt() || result->isDouble();
    if (read && call.touched && !METADATA.count(name)) note("sync", name);
    if (call.touched) each_tensor(*result, [&](const at::Tensor& tensor) { return call.npu(tensor); });
  }
}

std::string name_of(const c10::OperatorHandle& op) {
  return op.schema().overload_name().empty() ? op.schema().name() : op.schema().name() + "." + op.schema().overload_name();
}

void fallback(const c10::OperatorHandle& op, Stack* stack) { compute(op, stack, name_of(op)); }

c10::OperatorHandle aten(const char* name, const char* overload = "") {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
}

// For devices of others, convolution ends in operators that they are to override. In half precision it is computed in single, with
// rounded results, as matrix units accumulate; CPUs take minutes in fp16.
void in_single(const char* name, Stack* stack, size_t arguments) {
  auto dtype = stack->at(stack->size() - arguments).toTensor().scalar_type();
  bool half = dtype == at::kHalf || dtype == at::kBFloat16;
  auto to = [&](at::ScalarType kind) {
    return [kind](const at::Tensor& tensor) { return tensor.defined() && tensor.is_floating_point() ? tensor.to(kind) : tensor; };
  };
  if (half) for (size_t i = stack->size() - arguments; i < stack->size(); i++) each_tensor(stack->at(i), to(at::kFloat));
  compute(aten(name), stack, name);
  size_t results = aten(name).schema().returns().size();
  if (half) for (size_t i = stack->size() - results; i < stack->size(); i++) each_tensor(stack->at(i), to(dtype));
}

void convolution(const c10::OperatorHandle&, Stack* stack) { in_single("aten::convolution", stack, 9); }

void convolution_backward(const c10::OperatorHandle&, Stack* stack) {
  auto channels = (stack->end() - 10)->toTensor().size(1);
  stack->insert(stack->end() - 7, c10::IValue(c10::List<int64_t>({channels})));
  in_single("aten::convolution_backward", stack, 11);
}

// ---- operators of its own ----------------------------------------------------------------------------------------------------

at::Tensor empty(
    at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device> device,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::OptionalDeviceGuard guard(device);
  auto kind = dtype.value_or(c10::get_default_dtype_as_scalartype());
  if (kind == at::kDouble) note("float64", "aten::empty");
  return at::Tensor(at::detail::empty_generic(size, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), kind, format));
}

at::Tensor empty_strided(
    at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device> device, std::optional<bool>) {
  c10::OptionalDeviceGuard guard(device);
  auto kind = dtype.value_or(c10::get_default_dtype_as_scalartype());
  if (kind == at::kDouble) note("float64", "aten::empty_strided");
  return at::Tensor(at::detail::empty_strided_generic(size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), kind));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  if (!on_npu(to) && !(non_blocking && is_pinned(to))) note("sync", "copy to the CPU");
  if (!on_npu(from) && !non_blocking) note("upload", "copy from the CPU");
  Call call;
  at::AutoDispatchBelowADInplaceOrView guard;
  Stack stack{call.host(to), call.host(from), non_blocking};
  aten("aten::copy_").callBoxed(&stack);
  return to;
}

at::Scalar local_scalar_dense(const at::Tensor& tensor) {
  note("sync", "item");
  Call call;
  Stack stack{call.host(tensor)};
  aten("aten::_local_scalar_dense").redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);
  return stack.back().toScalar();
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("set_.source_Storage", at::native::set_);
  m.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
  m.impl("_copy_from", copy_from);
  m.impl("_local_scalar_dense", local_scalar_dense);
  m.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution>());
  m.impl("convolution_backward_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution_backward>());
}

// ---- autocast: the lists of CUDA, which torch_npu takes over --------------------------------------------------------------------

void cast(const c10::OperatorHandle& op, Stack* stack, at::ScalarType dtype) {
  auto count = op.schema().arguments().size();
  for (auto value = stack->end() - static_cast<std::ptrdiff_t>(count); value != stack->end(); ++value) {
    each_tensor(*value, [&](const at::Tensor& tensor) {
      bool eligible = on_npu(tensor) && tensor.is_floating_point() && tensor.scalar_type() != at::kDouble;
      return eligible && tensor.scalar_type() != dtype ? tensor.to(dtype) : tensor;
    });
  }
}

void lower(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard outside(c10::DispatchKey::AutocastPrivateUse1);
  cast(op, stack, at::autocast::get_autocast_dtype(NPU));
  op.callBoxed(stack);
}

void single(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard outside(c10::DispatchKey::AutocastPrivateUse1);
  cast(op, stack, at::kFloat);
  op.callBoxed(stack);
}

void widest(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard outside(c10::DispatchKey::AutocastPrivateUse1);
  auto dtype = at::autocast::get_autocast_dtype(NPU);
  auto count = op.schema().arguments().size();
  for (auto value = stack->end() - static_cast<std::ptrdiff_t>(count); value != stack->end(); ++value) {
    each_tensor(*value, [&](const at::Tensor& tensor) {
      if (on_npu(tensor) && tensor.scalar_type() == at::kFloat) dtype = at::kFloat;
      return tensor;
    });
  }
  cast(op, stack, dtype);
  op.callBoxed(stack);
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  for (auto name : {"conv1d", "conv2d", "conv3d", "conv_transpose2d.input", "convolution", "_convolution", "prelu", "addmm", "addmv",
                    "matmul", "einsum", "mm", "mv", "linear", "baddbmm", "bmm", "scaled_dot_product_attention"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&lower>());
  for (auto name : {"acos", "asin", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "tan", "pow.Tensor_Scalar",
                    "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm", "native_layer_norm", "group_norm", "nll_loss",
                    "nll_loss2d", "kl_div", "l1_loss", "smooth_l1_loss", "huber_loss", "mse_loss", "binary_cross_entropy_with_logits",
                    "prod", "prod.dim_int", "softmax.int", "log_softmax.int", "cumprod", "cumsum", "linalg_vector_norm", "sum",
                    "sum.dim_IntList"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&single>());
  for (auto name : {"addcdiv", "addcmul", "atan2", "bilinear", "dot", "grid_sampler", "index_put", "scatter_add", "cat", "stack"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&widest>());
}

// ---- what Python needs ---------------------------------------------------------------------------------------------------------

c10::Dict<std::string, int64_t> take_notes() {
  std::lock_guard<std::mutex> lock(noting);
  c10::Dict<std::string, int64_t> found;
  for (auto& [name, count] : notes) found.insert(name, count);
  notes.clear();
  return found;
}

void set_generator(at::Generator own) { generator() = std::move(own); }
int64_t get_device() { return current; }
void set_device(int64_t index) { current = static_cast<c10::DeviceIndex>(index); }

// The device's memory as a CPU tensor: what a collective of gloo stands in for hccl on.
at::Tensor on_host(const at::Tensor& tensor) {
  Call call;
  return call.host(tensor);
}

TORCH_LIBRARY(simulated_npu, m) {
  m.def("take_notes() -> Dict(str, int)", take_notes);
  m.def("set_generator(Generator? own) -> ()", set_generator);
  m.def("get_device() -> int", get_device);
  m.def("set_device(int index) -> ()", set_device);
  m.def("on_host(Tensor tensor) -> Tensor");
}
TORCH_LIBRARY_IMPL(simulated_npu, PrivateUse1, m) { m.impl("on_host", on_host); }

const bool registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  return true;
}();

}  // namespace
