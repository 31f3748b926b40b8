// The endpoints under /api/v1: which method and body each takes, and in which words it refuses.
#pragma once

#include <sys/types.h>

#include "tests/fakes/fake-cloud-hypervisor/http.h"
#include "tests/fakes/fake-cloud-hypervisor/vm.h"

namespace dormouse::fake_vmm {

inline constexpr const char* kBuildVersion = "v53.0 (fake)";

class Api {
 public:
  explicit Api(Vm* vm) : vm_(vm) {}

  Reply Handle(const Request& request);
  /// vmm.shutdown was called: the VMM ends once the answer is out.
  [[nodiscard]] bool ending() const { return ending_; }

 private:
  Vm* const vm_;
  bool ending_ = false;
};

}  // namespace dormouse::fake_vmm
