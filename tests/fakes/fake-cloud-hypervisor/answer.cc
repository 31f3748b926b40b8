#include "tests/fakes/fake-cloud-hypervisor/answer.h"

#include <cstring>

namespace dormouse::fake_vmm {

std::string OsCause(int errnum) {
  const char* text = ::strerrordesc_np(errnum);
  return std::string(text != nullptr ? text : "Unknown error") + " (os error " +
         std::to_string(errnum) + ")";
}

std::string Quoted(const std::string& text) {
  return '"' + text + '"';
}

}  // namespace dormouse::fake_vmm
