#include "src/common/kube/sink_buffer.h"

namespace dormouse::kube {
namespace {

std::exception_ptr Refused() {
  return std::make_exception_ptr(std::runtime_error("the body was refused"));
}

}  // namespace

void SinkBuffer::OnStatus(int status) {
  std::optional<Held> held;
  bool taken = false;
  {
    std::lock_guard lock(mutex_);
    status_ = status;
    last_activity_ = std::chrono::steady_clock::now();
    held.swap(held_);
    if (held) taken = ConsumeLocked(held->bytes);
  }
  if (!held) return;
  if (taken) {
    held->done.set(held->bytes.size());
  } else {
    held->done.set_exception(Refused());
  }
}

void SinkBuffer::Detach() {
  std::optional<Held> held;
  {
    std::lock_guard lock(mutex_);
    sink_ = nullptr;
    held.swap(held_);
  }
  if (held) held->done.set_exception(Refused());
}

std::optional<Error> SinkBuffer::refusal() const {
  std::lock_guard lock(mutex_);
  return refusal_;
}

std::chrono::steady_clock::time_point SinkBuffer::last_activity() const {
  std::lock_guard lock(mutex_);
  return last_activity_;
}

bool SinkBuffer::ConsumeLocked(std::string_view bytes) {
  if (!sink_ || refusal_) return false;
  Result<> taken;
  try {
    taken = sink_(status_, bytes);
  } catch (const std::exception& exception) {
    taken = Fail(ErrorCode::kInternal,
                 std::string("exception in a stream's sink: ") + exception.what());
  }
  // Taken after the sink: its own time is not the connection's silence.
  last_activity_ = std::chrono::steady_clock::now();
  if (!taken) refusal_ = taken.error();
  return taken.has_value();
}

pplx::task<size_t> SinkBuffer::_putn(const uint8_t* bytes, size_t count) {
  std::lock_guard lock(mutex_);
  const std::string_view view(reinterpret_cast<const char*>(bytes), count);
  if (status_ == 0 && sink_) {
    held_ = Held{view, {}};
    return pplx::create_task(held_->done);
  }
  if (ConsumeLocked(view)) return pplx::task_from_result(count);
  return pplx::task_from_exception<size_t>(Refused());
}

pplx::task<SinkBuffer::int_type> SinkBuffer::_putc(uint8_t byte) {
  // cpprestsdk writes bodies in blocks only; a lone byte is one of one.
  const auto kept = std::make_shared<uint8_t>(byte);
  return _putn(kept.get(), 1).then([kept](size_t) { return static_cast<int_type>(*kept); });
}

}  // namespace dormouse::kube
